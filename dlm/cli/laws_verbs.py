"""The verbs of the analysis side: fit, critical, figures. Tables in, words and files out, no JAX."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm import inputs
from dlm.errors import DlmError, nearest
from dlm.format import file_stems
from dlm.laws.crossings import TOO_FEW
from dlm.laws.forms import LAWS, LOSSES, POINTS, STEPS
from dlm.report.terminal import prose

if TYPE_CHECKING:
    from dlm.laws.analysis import Analysis
    from dlm.laws.comparison import Comparison
    from dlm.laws.critical import Fitted
    from dlm.laws.table import Table
    from dlm.report.canvas import Drawing, Drawn

Make = Callable[[], "Drawing"]
RESAMPLES = 1_000_000  # the most that may be asked for

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
Other titles: --columns params=n_params loss=val_nll; status= (no title) reads no such column.
fit.json is strict JSON: a number that is not known is null, and so is the end that an interval
lacks; beside low and high, "open" then says "above", "below" or "both".
laws: """
        + ", ".join(LAWS),
    ),
    "critical": (
        "the compute at which one family's law passes another's, for given unique tokens",
        """examples:
  dlm critical runs.csv --unique-tokens 25e6 100e6 --law data-constrained
  dlm critical runs/quickstart --reference digits/ar --challenger digits/masked
  dlm critical --laws laws.json --unique-tokens 1e8

Beside the laws: where the measured frontiers cross, of a folder as its report has it, from every
tracked loss; of another table from the losses in it. Without a law that can be fitted, that alone.

laws.json: {"ar": {"law": "data-constrained", "coefficients": {"E": 1.8, "A": 290, ...}},
"masked": {...}}, or the fit.json that `dlm fit --out` writes.""",
    ),
    "figures": (
        "draw the paper's figures from a table of runs and its fits",
        """examples:
  dlm figures runs.csv --law data-constrained --out figures/
  dlm figures runs.csv --laws laws.json --unique-tokens 1e7 3e7 1e8 --out figures/
  dlm figures runs/sweep --points curve --out figures/    training curves by repetition
  dlm figures runs.csv --width 3.25 --figure figure_5 figure_6-gap    for a column of a paper

Figures: figure_1 (frontiers), figure_2 (contours), figure_3 (share of unique data), figure_4
(training curves), figure_5 (worth of repetition), figure_6 (gap and critical compute), figure_7_8
(variants), profiles and residuals of each fit. A panel is named after its figure: figure_1-25M,
figure_2-masked, figure_5-loss, figure_5-worth, figure_6-gap, figure_6-critical.""",
    ),
}


def arguments(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Adds what each verb takes."""
    for name in VERBS:
        p = parsers[name]
        many = None if name == "fit" else "?"
        p.add_argument(
            "table", type=inputs.path, nargs=many, help="CSV, Parquet or a folder of runs"
        )
        law_argument(p, "see dlm fit --help")
        p.add_argument(
            "--points",
            type=inputs.one_of(POINTS),
            default="best",
            help="of dlm's own runs: best, last or curve",
        )
        columns_argument(p)
        p.add_argument(
            "--loss", type=inputs.one_of(LOSSES), default="huber", help="huber, lad or gaussian"
        )
        p.add_argument(
            "--delta",
            type=inputs.number("from 1e-9 to 1e9", lambda delta: 1e-9 <= delta <= 1e9),
            default=1e-3,
            help="of huber, in log loss",
        )
        p.add_argument(
            "--steps", type=inputs.one_of(STEPS), default="auto", help="auto, two or joint"
        )
        p.add_argument(
            "--resamples",
            type=inputs.whole(0, RESAMPLES),
            default=1000,
            help="bootstrap; 0: none; fewer if rows are many",
        )
        p.add_argument("--seed", type=inputs.whole(), default=0, help="of the bootstrap")
        p.add_argument(
            "--drop-outliers",
            type=inputs.zero_or_more("0 (none) or more"),
            default=0.0,
            metavar="DEVIATIONS",
        )
        p.add_argument("--out", type=inputs.path, help="a folder for what is written")
    parsers["fit"].add_argument("--family", default="", help="one family (default: each)")
    parsers["fit"].add_argument("--fixed", nargs="+", default=[], metavar="NAME=VALUE")
    parsers["fit"].add_argument("--holdout", nargs="+", default=[], metavar="flops=C|epochs=E")
    parsers["fit"].add_argument(
        "--rivals", type=inputs.one_of(LAWS), nargs="+", default=[], metavar="LAW"
    )
    for name in ("critical", "figures"):
        p = parsers[name]
        p.add_argument(
            "--laws", type=inputs.path, help="a JSON file with the laws, in place of fits"
        )
        p.add_argument(
            "--unique-tokens",
            type=inputs.number("from 1 to 1e30, a number of raw tokens", lambda u: 1 <= u <= 1e30),
            nargs="+",
            default=[],
            metavar="U",
        )
        p.add_argument("--reference", default="", help="a family (default: ar)")
        p.add_argument("--challenger", default="", help="a family (default: the other one)")
    choice(parsers["figures"])


def law_argument(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument("--law", type=inputs.one_of(LAWS), default="data-constrained", help=what)


def choice(parser: argparse.ArgumentParser) -> None:
    """Adds which figures are drawn, and how wide."""
    parser.add_argument(
        "--figure", nargs="+", action="extend", default=[], metavar="NAME",
        help="only these, figures or panels (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--width",
        type=inputs.zero_or_more("0 or more inches"),
        default=0.0,
        metavar="INCHES",
        help="of each figure, such as 3.25",
    )


def columns_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="MEANING=COLUMN",
        help="titles of the table's columns, such as params=n_params loss=val",
    )


# --- fit ----------------------------------------------------------------------------------------


def fit(a: argparse.Namespace) -> Iterator[Any]:
    """What to print, as it comes: the fits are on disk before the first figure is drawn."""
    from dlm.laws import columns
    from dlm.laws import table as tables
    from dlm.report import law_page

    _checked_pairs(a)
    options = {"points": a.points, "columns": columns.parse(a.columns)}
    found = [tables.one(a.table, a.family, **options)] if a.family else _read(a)
    writable(a.out)
    made, refused = _fitted(a, found)
    for each in made:
        yield from (*law_page.terminal(each), "")
    yield from map(prose, refused)
    if a.out is not None:
        title = f"{a.law} on {a.table.name}"
        yield from _written(law_page.write_fits(a.out, made))
        drawn = yield from _draw_each(a.out, _diagnostics(made))
        yield f"written: {law_page.write_page(a.out, made, title, drawn)}"


def _written(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        yield f"written: {path}"


def _fitted(a: argparse.Namespace, found: list[Table]) -> tuple[list[Analysis], list[str]]:
    """The analyses, and of the families that cannot be fitted why; an error where none can."""
    from dlm.laws import analysis, holdout, stages

    options = _options(a) | _checked_pairs(a)
    for axis, cut in options["cuts"]:
        holdout.check_sides(found, axis, cut)
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
                refused.append(f"Family {t.family} is not fitted: {error}")
    if not made:
        raise DlmError("; ".join(refused))
    return made, refused


def _diagnostics(made: list[Analysis]) -> dict[str, Make]:
    """The figures of each fit, by name."""
    from dlm.report import fit_figures

    stems = file_stems([each.fit.table.family for each in made])
    drawings: dict[str, Make] = {}
    for each in made:
        stem = stems[each.fit.table.family]
        drawings[f"profiles-{stem}"] = lambda each=each: fit_figures.profiles(each)
        drawings[f"residuals-{stem}"] = lambda each=each: fit_figures.residuals(each.fit)
    return drawings


def _draw_each(
    folder: Path, drawings: Mapping[str, Make], asked: Sequence[str] = (), width: float = 0.0
) -> Generator[Any, None, list[Drawn]]:
    """Draws and saves one figure after another; yields what became of each, returns them all.

    `asked`: only these, figures or panels (the name of the figure, "-", the panel's own).

    Raises:
      DlmError: an asked name that no figure and no panel has.
    """
    from dlm.report import canvas

    drawn = []
    for name, make, panel in canvas.chosen(drawings, asked):
        label = f"{name}-{panel}" if panel else name
        each = canvas.attempt(label, make, folder / label, panel, width)
        drawn.append(each)
        done = f"written: {folder / label}.png, .svg, .pdf"
        yield prose(each.problem, "yellow") if each.problem else done
    return drawn


def _read(a: argparse.Namespace) -> list[Table]:
    from dlm.laws import columns
    from dlm.laws import table as tables

    if a.table is None:
        raise DlmError("no table; give a CSV, a Parquet file or a folder of runs")
    return tables.read(a.table, points=a.points, columns=columns.parse(a.columns))


def _remarks(tables: list[Table]) -> list[str]:
    """What was assumed of the tables, and what was left out of them, each once."""
    notes = [f"note: {note}" for t in tables for note in t.notes]
    left_out = [f"left out: {label}: {reason}" for t in tables for label, reason in t.excluded]
    return [*dict.fromkeys(notes), *dict.fromkeys(left_out)]


def _options(a: argparse.Namespace) -> dict[str, Any]:
    """How each table is fitted."""
    from dlm.laws.robust_loss import RobustLoss

    return {"loss": RobustLoss(a.loss, a.delta), "steps": a.steps, "drop_outliers": a.drop_outliers}


def _checked_pairs(a: argparse.Namespace) -> dict[str, Any]:
    """What `dlm fit` alone takes, checked before the table is read: pairs, and laws to compare.

    Raises:
      DlmError: no NAME=NUMBER, a name that is unknown or given twice, or a number out of range.
    """
    from dlm.laws import analysis

    fixed = [_pair("--fixed", word) for word in getattr(a, "fixed", [])]
    if twice := [name for name, _ in fixed if [n for n, _ in fixed].count(name) > 1]:
        raise DlmError(f"--fixed: {twice[0]} is given twice")
    cuts = tuple(_pair("--holdout", word) for word in getattr(a, "holdout", []))
    checked = {"fixed": dict(fixed), "cuts": cuts, "rivals_of": tuple(getattr(a, "rivals", []))}
    analysis.check_options(a.law, a.steps, **checked)
    return checked


def _pair(option: str, word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise DlmError(f"{option} {word}: must be NAME=NUMBER") from None


def report(
    table: Path,
    law: str,
    columns: Sequence[str] = (),
    asked: Sequence[str] = (),
    width: float = 0.0,
) -> Iterator[Any]:
    """The whole analysis of a table, into a folder beside it: `dlm report runs.csv`."""
    parser = argparse.ArgumentParser()
    arguments({name: parser if name == "figures" else argparse.ArgumentParser() for name in VERBS})
    out = str(table.with_suffix("")) + "-report"
    a = parser.parse_args([str(table), "--law", law, "--out", out])
    a.columns, a.figure, a.width = list(columns), list(asked), width
    return figures(a)


# --- critical -----------------------------------------------------------------------------------


def critical(a: argparse.Namespace) -> Iterator[Any]:
    """What to print."""
    from dlm.report import law_page

    if a.table is None and a.laws is None:
        raise DlmError("no table; give a CSV, a Parquet file, a folder of runs, or --laws")
    tables = _read(a) if a.table else []
    writable(a.out)
    compared, refused = _compared(a, tables, None)
    yield from map(prose, [*_remarks(tables), *refused])
    yield from law_page.comparison_terminal(compared)
    if a.out is not None:
        yield f"written: {law_page.write_critical(a.out, compared)}"


def _compared(
    a: argparse.Namespace, tables: list[Table], laws: Mapping[str, Fitted] | None
) -> tuple[Comparison, list[str]]:
    """Two families side by side, and why there are no laws: with the laws given, by their measured
    frontiers alone where none are; None reads the laws or fits them."""
    from dlm.laws import comparison, law_files
    from dlm.laws.table import unique_budgets

    refused: list[str] = []
    by = {t.family: t for t in tables}
    if laws is None and a.laws is not None:
        laws = law_files.read(a.laws)
    families = _families(a, list(laws or by))
    unique = sorted(set(a.unique_tokens)) or unique_budgets(tables)[:12]
    if not unique:
        raise DlmError("--unique-tokens: give at least one number of raw tokens")
    if laws is None:
        try:
            laws = _fit_laws(a, [by[name] for name in families])
        except DlmError as error:
            refused = [f"no law: {error}"]
            compared = comparison.compare(families, {}, by, unique)
            if all(found.status == TOO_FEW for found in compared.observed):
                raise DlmError(f"{error}; {TOO_FEW} to read the crossing without a law") from None
            return compared, refused
    return comparison.compare(families, laws, by, unique), refused


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


def _families(a: argparse.Namespace, names: list[str]) -> tuple[str, str]:
    ordered = sorted(
        names, key=lambda n: n.lower().rsplit("/", 1)[-1] not in ("ar", "autoregressive")
    )
    for said in (a.reference, a.challenger):
        if said and said not in names:
            raise DlmError(
                f"family {said!r}: must be one of {', '.join(names)}{nearest(said, names)}"
            )
    if a.reference and a.reference == a.challenger:
        raise DlmError(f"--challenger {a.challenger}: must be another family than --reference")
    if len(names) < 2:
        raise DlmError(f"the critical compute needs two families; there is {', '.join(names)}")
    known = a.reference or a.challenger
    near = [n for n in ordered if n.rpartition("/")[0] == known.rpartition("/")[0]]
    near = near if known and len(near) > 1 else ordered  # digits/ar beside digits/masked
    first = a.reference or next(n for n in near if n != a.challenger)
    others = [n for n in near if n != first]
    if not a.challenger and len(others) > 1:
        raise DlmError(f"--challenger: name one of {', '.join(others)}")
    return first, a.challenger or others[0]


# --- figures ------------------------------------------------------------------------------------


FIGURES = (
    *("figure_1", "figure_2", "figure_3", "figure_4", "figure_5", "figure_6", "figure_7_8"),
    *("profiles", "residuals"),
)


def figures(a: argparse.Namespace) -> Iterator[Any]:
    """What to print, as it comes: the fits are written first, then each figure that the table and
    the laws allow, or why not, then a page with all of them."""
    from dlm.laws import law_files
    from dlm.report import law_page

    tables = sorted(_read(a) if a.table else [], key=lambda t: t.family)
    if not tables and a.laws is None:
        raise DlmError("nothing to draw: give a table, or --laws, or both")
    check_figures(a.figure, a.width, FIGURES)
    made: list[Analysis] = []
    refused: list[str] = []
    laws: Mapping[str, Fitted] = {} if a.laws is None else law_files.read(a.laws)
    if a.reference or a.challenger:
        _families(a, list(laws or [t.family for t in tables]))
    out = a.out or Path("figures")
    writable(out)
    if a.laws is None and a.points != "curve":
        try:
            made, refused = _fitted(a, tables)
            laws = {each.fit.table.family: each.fit for each in made}
        except DlmError as error:
            refused = [f"no law: {error}"]
    yield from map(prose, [*_remarks(tables), *refused])
    yield from _written(law_page.write_fits(out, made))
    compared = None
    if len(laws) > 1 or len(tables) > 1:
        try:
            compared = _compared(a, tables, laws if len(laws) > 1 else {})[0]
            yield f"written: {law_page.write_critical(out, compared)}"
        except DlmError as error:
            yield prose(f"no critical compute: {error}")
    drawings = _drawings(a, tables, laws, compared) | _diagnostics(made)
    drawn = yield from _draw_each(out, drawings, a.figure, a.width)
    if not any(each.files for each in drawn) and (a.figure or not made):
        raise DlmError("; ".join([*refused, *(each.problem for each in drawn)]) or "no figure")
    title = f"Scaling laws: {(a.table or a.laws or out).name}"
    yield f"written: {law_page.write_page(out, made, title, drawn, compared)}"


def check_figures(asked: Sequence[str], width: float, names: Sequence[str]) -> None:
    """Refuses a figure that no name begins, or a width that no figure can have.

    Raises:
      DlmError: it names the figures, or the widths.
    """
    from dlm.report.canvas import NARROWEST, WIDEST

    for name in asked:
        if not any(name == known or name.startswith(f"{known}-") for known in names):
            raise DlmError(
                f"--figure {name}: must be one of {', '.join(names)}{nearest(name, names)}"
            )
    if width and not NARROWEST <= width <= WIDEST:
        raise DlmError(f"--width {width:g}: must be from {NARROWEST:g} to {WIDEST:g} inches")


def _drawings(
    a: argparse.Namespace,
    tables: list[Table],
    laws: Mapping[str, Fitted],
    compared: Comparison | None,
) -> dict[str, Make]:
    """The figures that may be drawn, by name, each drawn only when it is called."""
    from dlm.laws.table import unique_budgets
    from dlm.report import critical_figure
    from dlm.report import curve_figures as curves
    from dlm.report import law_figures as draw

    unique = sorted(set(a.unique_tokens)) or unique_budgets(tables)
    drawings: dict[str, Make] = {}
    fits = {k: f for k, f in laws.items() if k in {t.family for t in tables}}
    if a.points == "curve":
        drawings["figure_4"] = lambda: curves.repetition(tables)
        stems = file_stems([t.family for t in tables])
        for t in tables:
            drawings[f"figure_7_8-{stems[t.family]}"] = lambda t=t: curves.variants(
                *curves.beside(t, tables)
            )
    elif tables:
        met = compared.observed if compared is not None else ()
        drawings["figure_1"] = lambda: draw.pareto(tables, met)
        drawings["figure_2"] = lambda: draw.contours(_largest(tables))
        drawings["figure_3"] = lambda: draw.data_fraction(_fixed_compute(tables), fits)
    if laws and unique:
        sizes = np.concatenate([t.N for t in tables]) if tables else np.array([1e8])
        middle = float(np.exp(np.log(sizes).mean()))
        drawings["figure_5"] = lambda: draw.worth(laws, middle, unique[len(unique) // 2])
    if compared is not None and compared.points:
        first, second = (laws[name] for name in compared.families)
        drawings["figure_6"] = lambda: critical_figure.gap(first, second, compared)
    return drawings


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
