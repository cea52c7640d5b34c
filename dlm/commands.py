"""The verbs of the analysis side: fit, critical, figures. Tables in, words and files out, no JAX."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.errors import DlmError, nearest
from dlm.laws.forms import LAWS
from dlm.laws.forms import law as named

if TYPE_CHECKING:
    from dlm.laws.analysis import Analysis
    from dlm.laws.comparison import Comparison
    from dlm.laws.critical import Fitted
    from dlm.laws.table import Table

VERBS: dict[str, tuple[str, str]] = {
    "fit": (
        "fit a scaling law to a table of runs, with intervals and what it cannot identify",
        """examples:
  dlm fit runs.csv --law data-constrained               every family of the table
  dlm fit runs/sweep --law over-fitting --family ar      from a folder of runs
  dlm fit runs.csv --law chinchilla --loss lad --holdout flops=1e19 --rivals chinchilla-tied
  dlm fit runs.csv --law data-constrained --out fits/    report.html, fit.json, fit.tex, figures

Columns: params, tokens (trained on, repeats included), unique_tokens, loss (nats per token), and
optionally family, flops, run (rows that are resampled together), status, budget (a number that the
rows of one isoFLOP curve share; else budgets are told apart by gaps in compute). Raw counts everywhere.
fit.json is strict JSON: a number that is not known is null, and so is the end that an interval
lacks; beside low and high, "open" then says "above", "below" or "both".
laws: """
        + ", ".join(LAWS),
    ),
    "critical": (
        "the compute at which one family's law passes another's, for given unique tokens",
        """examples:
  dlm critical runs.csv --unique-tokens 25e6 100e6 --law data-constrained
  dlm critical --laws laws.json --unique-tokens 1e8

laws.json: {"ar": {"law": "data-constrained", "coefficients": {"E": 1.8, "A": 290, ...}},
"masked": {...}}, or the fit.json that `dlm fit --out` writes.""",
    ),
    "figures": (
        "draw the paper's figures from a table of runs and its fits",
        """examples:
  dlm figures runs.csv --law data-constrained --out figures/
  dlm figures runs.csv --laws laws.json --unique-tokens 1e7 3e7 1e8 --out figures/
  dlm figures runs/sweep --points curve --out figures/    training curves by repetition""",
    ),
}


def arguments(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Adds what each verb takes."""
    for name in VERBS:
        p = parsers[name]
        many = None if name == "fit" else "?"
        p.add_argument("table", type=Path, nargs=many, help="CSV, Parquet or a folder of runs")
        p.add_argument("--law", default="data-constrained", help="see dlm fit --help")
        p.add_argument("--points", default="best", help="of a folder: best, last or curve")
        p.add_argument("--loss", default="huber", help="huber, lad or gaussian")
        p.add_argument("--delta", type=float, default=1e-3, help="of huber, in log loss")
        p.add_argument("--steps", default="auto", help="auto, two or joint")
        p.add_argument(
            "--resamples", type=int, default=1000, help="bootstrap; 0: none; fewer if rows are many"
        )
        p.add_argument("--seed", type=int, default=0, help="of the bootstrap")
        p.add_argument("--drop-outliers", type=float, default=0.0, metavar="DEVIATIONS")
        p.add_argument("--out", type=Path, help="a folder for what is written")
    parsers["fit"].add_argument("--family", default="", help="one family (default: each)")
    parsers["fit"].add_argument("--fixed", nargs="+", default=[], metavar="NAME=VALUE")
    parsers["fit"].add_argument("--holdout", nargs="+", default=[], metavar="flops=C|epochs=E")
    parsers["fit"].add_argument("--rivals", nargs="+", default=[], metavar="LAW")
    for name in ("critical", "figures"):
        p = parsers[name]
        p.add_argument("--laws", type=Path, help="a JSON file with the laws, in place of fits")
        p.add_argument("--unique-tokens", type=float, nargs="+", default=[], metavar="U")
        p.add_argument("--reference", default="", help="a family (default: ar)")
        p.add_argument("--challenger", default="", help="a family (default: the other one)")


# --- fit ----------------------------------------------------------------------------------------


def fit(a: argparse.Namespace) -> list[Any]:
    """What to print."""
    from dlm import law_report
    from dlm.laws import table as tables

    named(a.law)
    writable(a.out)
    found = [tables.one(a.table, a.family, points=a.points)] if a.family else _read(a)
    made, refused = _fitted(a, found)
    printed: list[Any] = []
    for each in made:
        printed += [*law_report.terminal(each), ""]
    printed += refused
    if a.out is not None:
        title = f"{a.law} on {a.table.name}"
        printed.append(f"written: {law_report.write(a.out, made, title, _diagnostics(made))}")
    return printed


def _fitted(a: argparse.Namespace, found: list[Table]) -> tuple[list[Analysis], list[str]]:
    """The analyses, and of the families that cannot be fitted why; an error where none can."""
    from dlm.laws import analysis, stages

    options = _options(a) | {
        "fixed": dict(_pair("--fixed", word) for word in getattr(a, "fixed", [])),
        "cuts": tuple(_pair("--holdout", word) for word in getattr(a, "holdout", [])),
        "rivals_of": tuple(getattr(a, "rivals", [])),
    }
    named_options = ("steps", "fixed", "cuts", "rivals_of")
    analysis.check_options(a.law, **{name: options[name] for name in named_options})
    made, refused = [], []
    with stages.show() as tell:
        for t in found:
            try:
                made.append(
                    analysis.analyse(
                        t, a.law, **options, resamples=a.resamples, seed=a.seed, tell=tell
                    )
                )
            except DlmError as error:
                if len(found) == 1:
                    raise
                refused.append(f"family {t.family} is not fitted: {error}")
    if not made:
        raise DlmError("; ".join(refused))
    return made, refused


def _diagnostics(made: list[Analysis]) -> dict[str, Any]:
    from dlm import law_figures

    drawn = {}
    for each in made:
        stem = each.fit.table.family.replace("/", "-")
        drawn[f"profiles-{stem}"] = law_figures.profiles(each)
        drawn[f"residuals-{stem}"] = law_figures.residuals(each.fit)
    return drawn


def _read(a: argparse.Namespace) -> list[Table]:
    from dlm.laws import table as tables

    if a.table is None:
        raise DlmError("no table; give a CSV, a Parquet file or a folder of runs")
    return tables.read(a.table, points=a.points)


def _options(a: argparse.Namespace) -> dict[str, Any]:
    """How each table is fitted, checked."""
    from dlm.laws.fits import Loss

    for option in ("resamples", "seed"):
        if getattr(a, option) < 0:
            raise DlmError(f"--{option}={getattr(a, option)}: must be 0 or more")
    if a.drop_outliers < 0:
        raise DlmError(f"--drop-outliers={a.drop_outliers:g}: must be 0 (none) or more")
    return {"loss": Loss(a.loss, a.delta), "steps": a.steps, "drop_outliers": a.drop_outliers}


def _pair(option: str, word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise DlmError(f"{option} {word}: must be NAME=NUMBER") from None


def report(table: Path, law: str) -> list[Any]:
    """The whole analysis of a table, into a folder beside it: `dlm report runs.csv`."""
    parser = argparse.ArgumentParser()
    arguments({name: parser if name == "figures" else argparse.ArgumentParser() for name in VERBS})
    out = str(table.with_suffix("")) + "-report"
    return figures(parser.parse_args([str(table), "--law", law, "--out", out]))


# --- critical -----------------------------------------------------------------------------------


def critical(a: argparse.Namespace) -> list[Any]:
    from dlm import html, law_report
    from dlm.laws import comparison, words

    if a.table is None and a.laws is None:
        raise DlmError("no table; give a CSV, a Parquet file, a folder of runs, or --laws")
    writable(a.out)
    compared, _ = _compared(a, _read(a) if a.table else [], {})
    printed = law_report.comparison_terminal(compared)
    if a.out is not None:
        path = a.out / "critical.json"
        text = json.dumps(words.plain(comparison.as_json(compared)), indent=1)
        printed.append(f"written: {html.replace(path, text)}")
    return printed


def _compared(
    a: argparse.Namespace, tables: list[Table], laws: Mapping[str, Fitted]
) -> tuple[Comparison, dict[str, Fitted]]:
    """Two families side by side, with the laws given, or read, or fitted."""
    from dlm.laws import comparison
    from dlm.laws.table import unique_budgets

    given = dict(laws) or (read_laws(a.laws) if a.laws is not None else {})
    by = {t.family: t for t in tables}
    families = _families(a, list(given or by))
    unique = sorted(set(a.unique_tokens)) or unique_budgets(tables)[:12]
    if not unique:
        raise DlmError("--unique-tokens: give at least one number of raw tokens")
    given = given or _fit_laws(a, [by[name] for name in families])
    compared = comparison.compare(families, given, by, unique, a.resamples)
    return compared, given


def writable(folder: Path | None) -> None:
    """Refuses a folder that cannot be written, before anything is computed.

    Raises:
      DlmError: the folder cannot be made, or written to.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "no permission")
    except OSError as error:
        raise DlmError(f"--out {folder}: cannot be written ({error.strerror})") from None


def _fit_laws(a: argparse.Namespace, tables: list[Table]) -> dict[str, Fitted]:
    from dlm.laws import analysis, intervals, stages

    laws: dict[str, Fitted] = {}
    options = _options(a)
    with stages.show() as tell:
        for t in tables:
            tell(f"{a.law}, family {t.family}: fitting {len(t):,} rows")
            fitted = analysis.fit_table(t, a.law, **options)[0]
            tell(f"{a.law}, family {t.family}: resampling")
            laws[t.family] = intervals.bootstrap(fitted, a.resamples, a.seed)
    return laws


def read_laws(path: Path) -> dict[str, Fitted]:
    """The laws of a JSON file, by family.

    Raises:
      DlmError: no such file, or not of the form that `dlm critical --help` shows.
    """
    from dlm.laws.critical import Constants
    from dlm.laws.fits import LEVEL

    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DlmError(f"{path}: not readable JSON ({error})") from None
    if isinstance(said, list):  # fit.json
        said = {str(each.get("family")): each for each in said if isinstance(each, dict)}
    found: dict[str, Fitted] = {}
    for family, each in said.items() if isinstance(said, dict) else ():
        if not isinstance(each, dict) or not isinstance(each.get("coefficients"), dict):
            raise DlmError(f"{path}: {family} has no coefficients; see dlm critical --help")
        law = named(str(each.get("law")))
        values = each["coefficients"]
        for name in law.names:
            if not isinstance(values.get(name), int | float) or not values[name] > 0:
                raise DlmError(f"{path}: {family}: {name}={values.get(name)!r}: must be above 0")
        samples = {k: np.array(v, float) for k, v in (each.get("samples") or {}).items()}
        numbers = {n: float(values[n]) for n in law.names}
        found[family] = Constants(law, numbers, samples, float(each.get("share", LEVEL)))
    if not found:
        raise DlmError(f"{path}: no laws in it; see dlm critical --help")
    return found


def _families(a: argparse.Namespace, names: list[str]) -> tuple[str, str]:
    ordered = sorted(
        names, key=lambda n: n.lower().rsplit("/", 1)[-1] not in ("ar", "autoregressive")
    )
    for said in (a.reference, a.challenger):
        if said and said not in names:
            raise DlmError(
                f"family {said!r}: must be one of {', '.join(names)}{nearest(said, names)}"
            )
    if len(names) < 2:
        raise DlmError(f"the critical compute needs two families; there is {', '.join(names)}")
    first = a.reference or next(n for n in ordered if n != a.challenger)
    others = [n for n in ordered if n != first]
    if not a.challenger and len(others) > 1:
        raise DlmError(f"--challenger: name one of {', '.join(others)}")
    return first, a.challenger or others[0]


# --- figures ------------------------------------------------------------------------------------


def figures(a: argparse.Namespace) -> list[Any]:
    """Every figure that the table and the laws allow, and a page with them; else why not."""
    from dlm import law_report

    tables = sorted(_read(a) if a.table else [], key=lambda t: t.family)
    if not tables and a.laws is None:
        raise DlmError("nothing to draw: give a table, or --laws, or both")
    out = a.out or Path("figures")
    writable(out)
    made: list[Analysis] = []
    said: list[Any] = []
    laws: dict[str, Fitted] = {}
    if a.laws is not None:
        laws = read_laws(a.laws)
    elif a.points != "curve":
        try:
            made, said = _fitted(a, tables)
            laws = {each.fit.table.family: each.fit for each in made}
        except DlmError as error:
            said = [f"no law: {error}"]
    compared = None
    if len(laws) > 1:
        try:
            compared = _compared(a, tables, laws)[0]
        except DlmError as error:
            said.append(f"no critical compute: {error}")
    drawn, undrawn = _draw(a, tables, laws, compared)
    if not drawn:
        raise DlmError("; ".join([*said, *undrawn]))
    title = f"Scaling laws: {(a.table or a.laws or out).name}"
    page = law_report.write(out, made, title, drawn | _diagnostics(made), compared)
    return [*said, *undrawn, *(f"{out / name}.png" for name in drawn), f"written: {page}"]


def _draw(
    a: argparse.Namespace,
    tables: list[Table],
    laws: dict[str, Fitted],
    compared: Comparison | None,
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and why some are not drawn."""
    from dlm import law_figures as draw
    from dlm.laws.table import unique_budgets

    unique = sorted(set(a.unique_tokens)) or unique_budgets(tables)
    made: dict[str, Any] = {}
    said: list[str] = []

    def attempt(name: str, make: Any) -> None:
        try:
            made[name] = make()
        except DlmError as error:
            said.append(f"{name}: not drawn: {error}")

    fits = {k: f for k, f in laws.items() if k in {t.family for t in tables}}
    if a.points == "curve":
        attempt("figure_4", lambda: draw.repetition(tables))
        for t in tables:
            stem = t.family.replace("/", "-")
            attempt(f"figure_7_8-{stem}", lambda t=t: draw.variants(*draw.beside(t, tables)))
    elif tables:
        seen = compared.observed if compared is not None else ()
        attempt("figure_1", lambda: draw.pareto(tables, seen))
        attempt("figure_2", lambda: draw.contours(_largest(tables)))
        attempt("figure_3", lambda: draw.data_fraction(_fixed_compute(tables), fits))
    if laws and unique:
        sizes = np.concatenate([t.N for t in tables]) if tables else np.array([1e8])
        middle = float(np.exp(np.log(sizes).mean()))
        attempt("figure_5", lambda: draw.worth(laws, middle, unique[len(unique) // 2]))
    if compared is not None:
        first, second = (laws[name] for name in compared.families)
        attempt("figure_6", lambda: draw.gap(first, second, compared))
    return made, said


def _largest(tables: list[Table]) -> list[Table]:
    """Of each table the unique-token budget with the most runs."""
    from dlm.laws.table import alike

    found = []
    for t in tables:
        rows = max(alike(t.U), key=len)
        found.append(t.only(np.isin(np.arange(len(t)), rows)))
    return found


def _fixed_compute(tables: list[Table]) -> list[Table]:
    """Rows of sizes and computes that were trained on several shares of unique data."""
    from dlm.laws.table import alike

    found = []
    for t in tables:
        kept = np.zeros(len(t), bool)
        for rows in alike(t.flops, 0.05):
            for same in alike(t.N[rows], 0.02):
                kept[rows[same]] = len(same) >= 3
        if kept.any():
            found.append(t.only(kept))
    if not found:
        raise DlmError("no size was trained at one compute on three shares of unique data")
    return found
