"""The verbs of the analysis side: fit, critical, figures. Tables in, words and files out, no JAX."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.errors import DlmError, nearest
from dlm.laws.forms import LAWS
from dlm.laws.forms import law as named

if TYPE_CHECKING:
    from dlm.laws.analysis import Analysis
    from dlm.laws.critical import Critical, Fitted
    from dlm.laws.table import Table

VERBS: dict[str, tuple[str, str]] = {
    "fit": (
        "fit a scaling law to a table of runs, with intervals and what it cannot identify",
        """examples:
  dlm fit runs.csv --law data-constrained               every family of the table
  dlm fit runs/sweep --law over-fitting --family ar      from a folder of runs
  dlm fit runs.csv --law chinchilla --loss lad --holdout flops=1e19 --rivals chinchilla-tied
  dlm fit runs.csv --law data-constrained --out fits/    fit.html, fit.json, fit.tex, figures

Columns: params, tokens (trained on, repeats included), unique_tokens, loss (nats per token), and
optionally family, flops, run (rows that are resampled together), status. Raw counts everywhere.
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
        p.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0: none")
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
    made, refused = [], []
    for t in found:
        try:
            made.append(_analyse(a, t))
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
    return {"loss": Loss(a.loss, a.delta), "steps": a.steps, "drop_outliers": a.drop_outliers}


def _analyse(a: argparse.Namespace, t: Table) -> Any:
    from dlm.laws import analysis

    return analysis.analyse(
        t,
        a.law,
        **_options(a),
        fixed=_pairs("--fixed", getattr(a, "fixed", [])),
        resamples=a.resamples,
        seed=a.seed,
        cuts=tuple(_pairs("--holdout", getattr(a, "holdout", [])).items()),
        rivals_of=tuple(getattr(a, "rivals", [])),
    )


def _pairs(option: str, words: list[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise DlmError(f"{option} {word}: must be NAME=NUMBER") from None
    return found


def report(table: Path) -> list[Any]:
    """The whole analysis of a table, into a folder beside it: `dlm report runs.csv`."""
    parser = argparse.ArgumentParser()
    arguments({name: parser if name == "figures" else argparse.ArgumentParser() for name in VERBS})
    return figures(parser.parse_args([str(table), "--out", str(table.with_suffix("")) + "-report"]))


# --- critical -----------------------------------------------------------------------------------


def critical(a: argparse.Namespace) -> list[Any]:
    from dlm import law_report
    from dlm.laws import critical as crit

    pair, tables = _laws(a), {t.family: t for t in _read(a)} if a.table else {}
    first, second = _families(a, list(pair))
    unique = sorted(set(a.unique_tokens)) or _unique(tables)
    if not unique:
        raise DlmError("--unique-tokens: give at least one number of raw tokens")
    rows, words = [], []
    for drop in (False, True):
        points = [crit.critical(pair[first], pair[second], u, drop=drop) for u in unique]
        rows += [law_report.critical_row(p) for p in points]
        words += [p.note for p in points if p.note and not drop]
        if sum(p.status == "crosses" for p in points) > 1:
            law = crit.critical_law(pair[first], pair[second], unique, drop=drop)
            words.append(law_report.power_sentence(law))
    if first in tables and second in tables:
        for p in crit.observed(tables[first], tables[second], resamples=max(a.resamples, 1)):
            rows.append([*law_report.critical_row(p)[:5], "from the runs", "no law"])
    closed = crit.closed_form(pair[first], pair[second])
    if math.isfinite(closed) and min(unique) < closed < 1e40:
        words.append(
            f"On fresh data alone, E dropped, the two optima meet at {closed:.3g} FLOPs (closed form)."
        )
    printed = [_printed(law_report.CRITICAL_HEAD, rows), *words]
    printed.append(_equivalence(pair[first], pair[second], unique[-1]))
    if a.out is not None:
        a.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"head": law_report.CRITICAL_HEAD, "rows": rows, "notes": words}, indent=1
        )
        (a.out / "critical.json").write_text(text, "utf-8")
        printed.append(f"written: {a.out / 'critical.json'}")
    return printed


def _equivalence(first: Fitted, second: Fitted, unique: float) -> str:
    """The ratio of compute, where the reference has made 1 to 256 epochs."""
    from dlm.laws import critical as crit

    grid = np.geomspace(6 * unique * 10, 6 * unique * unique * 10, 40)
    e = crit.equivalence(first, second, unique, grid)
    parts = []
    for epochs in (1, 4, 16, 64, 256):
        at = np.flatnonzero(e.epochs >= epochs * (1 - 1e-9))
        if epochs == 1:
            at = np.flatnonzero(e.epochs > 1 + 1e-9)[:1] - 1
        if not len(at) or at[0] < 0:
            continue
        i, around = at[0], ""
        if not math.isnan(e.low[i]):
            around = f" ({e.low[i]:.3g} to {e.high[i]:.3g})"
        ratio = "never" if math.isinf(e.ratio[i]) else f"{e.ratio[i]:.3g}{around}"
        parts.append(f"{e.epochs[i]:.3g} epochs: {ratio}")
    return (
        f"Compute of the challenger over that of the reference for the same loss, at the reference's "
        f"best use of U = {unique:.3g}, by its epochs: {'; '.join(parts)}."
    )


def _printed(head: tuple[str, ...], rows: list[list[str]]) -> Any:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False)
    for name in head:
        grid.add_column(name)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def _laws(a: argparse.Namespace) -> dict[str, Fitted]:
    """From --laws, or fitted to the table."""
    if a.laws is not None:
        return read_laws(a.laws)
    from dlm.laws import analysis, fits

    options = _options(a)
    fitted = {t.family: analysis.fit_table(t, a.law, **options)[0] for t in _read(a)}
    return {family: fits.bootstrap(f, a.resamples, a.seed) for family, f in fitted.items()}


def read_laws(path: Path) -> dict[str, Fitted]:
    """The laws of a JSON file, by family.

    Raises:
      DlmError: no such file, or not of the form that `dlm critical --help` shows.
    """
    from dlm.laws.critical import Constants

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
        found[family] = Constants(law, {n: float(values[n]) for n in law.names}, samples)
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


def _unique(tables: Mapping[str, Table]) -> list[float]:
    if not tables:
        return []
    every = np.concatenate([t.U for t in tables.values()])
    return sorted(float(np.exp(k)) for k in np.unique(np.round(np.log(every), 2)))[:12]


# --- figures ------------------------------------------------------------------------------------


def figures(a: argparse.Namespace) -> list[Any]:
    """Every figure that the table and the laws allow, and a page with them; else why not."""
    from dlm import law_report

    tables = sorted(_read(a) if a.table else [], key=lambda t: t.family)
    if not tables and a.laws is None:
        raise DlmError("nothing to draw: give a table, or --laws, or both")
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
    drawn, undrawn = _draw(a, tables, laws)
    if not drawn:
        raise DlmError("; ".join([*said, *undrawn]))
    out = a.out or Path("figures")
    title = f"Scaling laws: {(a.table or a.laws or out).name}"
    page = law_report.write(out, made, title, drawn | _diagnostics(made))
    return [*said, *undrawn, *(f"{out / name}.png" for name in drawn), f"written: {page}"]


def _draw(
    a: argparse.Namespace, tables: list[Table], laws: dict[str, Fitted]
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and why some are not drawn."""
    from dlm import law_figures as draw
    from dlm.laws import critical as crit
    from dlm.laws.table import settings

    unique = a.unique_tokens or _unique({t.family: t for t in tables})
    made: dict[str, Any] = {}
    said: list[str] = []

    def attempt(name: str, make: Any) -> None:
        try:
            made[name] = make()
        except DlmError as error:
            said.append(f"{name}: not drawn: {error}")

    fits = {k: f for k, f in laws.items() if k in {t.family for t in tables}}
    crossings = []
    if len(laws) > 1:
        first, second = _families(a, list(laws))
        pair = laws[first], laws[second]
        by = {t.family: t for t in tables}
        if first in by and second in by:
            crossings = crit.observed(by[first], by[second], resamples=max(a.resamples, 1))
        middle = float(np.exp(np.mean(np.log(unique)))) if unique else 1e8
        several = unique if len(unique) > 1 else list(middle * np.geomspace(0.1, 10, 7))
        attempt("figure_6", lambda: _gap(pair, several, crossings))
    if a.points == "curve":
        attempt("figure_4", lambda: draw.repetition(tables))
        for t in tables:
            stem = t.family.replace("/", "-")
            attempt(f"figure_7_8-{stem}", lambda t=t: draw.variants(settings(t)))
    elif tables:
        attempt("figure_1", lambda: draw.pareto(tables, crossings))
        attempt("figure_2", lambda: draw.contours(_largest(tables)))
        attempt("figure_3", lambda: draw.data_fraction(_fixed_compute(tables), fits))
    if laws and unique:
        sizes = np.concatenate([t.N for t in tables]) if tables else np.array([1e8])
        middle = float(np.exp(np.log(sizes).mean()))
        attempt("figure_5", lambda: draw.worth(laws, middle, unique[len(unique) // 2]))
    return made, said


def _gap(pair: tuple[Fitted, Fitted], unique: list[float], seen: list[Critical]) -> Any:
    from dlm import law_figures as draw
    from dlm.laws import critical as crit

    both = [crit.critical_law(*pair, unique, drop=drop) for drop in (False, True)]
    return draw.gap(*pair, *both, observed=seen)


def _largest(tables: list[Table]) -> list[Table]:
    """Of each table the unique-token budget with the most runs."""
    found = []
    for t in tables:
        keys = np.round(np.log(t.U), 2)
        values, counts = np.unique(keys, return_counts=True)
        found.append(t.only(keys == values[counts.argmax()]))
    return found


def _fixed_compute(tables: list[Table]) -> list[Table]:
    """Rows of sizes and computes that were trained on several shares of unique data."""
    found = []
    for t in tables:
        keys = np.round(np.log(t.flops) / 0.05) * 1e4 + np.round(np.log(t.N) / 0.02)
        values, counts = np.unique(keys, return_counts=True)
        kept = t.only(np.isin(keys, values[counts >= 3]))
        if len(kept):
            found.append(kept)
    if not found:
        raise DlmError("no size was trained at one compute on three shares of unique data")
    return found
