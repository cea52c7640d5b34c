"""`dlm fit`: fits a scaling law to each family of a table, with intervals."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import inputs
from dlm.cli import law_options, options
from dlm.cli.law_options import LawOptions
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError
from dlm.format import file_stems
from dlm.laws.forms import LAWS
from dlm.report.terminal import prose

if TYPE_CHECKING:
    from dlm.laws.analysis import Analysis
    from dlm.laws.table import Table
    from dlm.report.canvas import Drawing, Drawn

Draw = Callable[[], "Drawing"]

SUMMARY = "fit a scaling law to a table of runs, with intervals and what it cannot identify"
EXAMPLES = """examples:
  dlm fit runs.csv --law data-constrained               every family of the table
  dlm fit runs/sweep --law over-fitting --family ar      from a folder of runs
  dlm fit runs.csv --law chinchilla --robust-loss lad --holdout flops=1e19 \\
      --compare-laws chinchilla-tied
  dlm fit runs.csv --law data-constrained --out fits/    report.html, fit.json, fit.tex, figures

Columns: params, tokens (trained on, repeats included), unique_tokens, loss (nats per token), and
optionally family, flops, run (rows that are resampled together), status, budget (a number that the
rows of one isoFLOP curve share; else budgets are told apart by gaps in compute), loops (how often the
layers run, for looped laws) and looped_params (the parameters that loop; all). Raw counts everywhere.
Other titles: --columns params=n_params loss=val_nll; status= (no title) reads no such column.
fit.json is strict JSON: a number that is not known is null, and so is the end that an interval
lacks; beside low and high, "open" then says "above", "below" or "both".
laws: """ + ", ".join(LAWS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    law_options.add_arguments(parser, table_needed=True)
    parser.add_argument("--family", default="", help="one family (default: each)")
    parser.add_argument("--fixed", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--holdout", nargs="+", default=[], metavar="flops=C|epochs=E")
    parser.add_argument(
        "--compare-laws", type=inputs.one_of(LAWS), nargs="+", default=[], metavar="LAW"
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    return show(_lines(a))


def _lines(a: argparse.Namespace) -> Iterator[Any]:
    """What to print, as it comes: the fits are on disk before the first figure is drawn."""
    from dlm.report import law_page

    if not a.holdout:
        options.refuse(a, ["compare_laws"], "only with --holdout")
    if a.compare_laws and a.stages == "auto":
        a.stages = "joint"  # by stages some laws would take constants that others fit
        yield "All laws are fitted jointly, so that they can be compared (--stages two: by stages).\n"
    how, extra = law_options.from_arguments(a), _checked(a)
    if a.family:
        tables = [law_options.read_family(a.table, a.family, how)]
    else:
        tables = law_options.read(a.table, how)
    options.check_writable(a.out)
    analyses, refused = analyse(tables, how, **extra)
    for analysis in analyses:
        yield from (*law_page.terminal(analysis), "")
    yield from map(prose, refused)
    if a.out is not None:
        title = f"{a.law} on {a.table.name}"
        yield from written(law_page.write_fits(a.out, analyses))
        drawn = yield from draw_each(a.out, diagnostics(analyses))
        yield f"written: {law_page.write_page(a.out, analyses, title, drawn)}"


def _checked(a: argparse.Namespace) -> dict[str, Any]:
    """Options of `dlm fit` alone, checked before the table is read: coefficients that are fixed,
    cuts of held-out tests, laws to compare.

    Raises:
      DlmError: no NAME=NUMBER, a name that is unknown or given twice, or a number out of range.
    """
    from dlm.laws import analysis

    fixed = [law_options.named_number("--fixed", word) for word in a.fixed]
    if twice := [name for name, _ in fixed if [n for n, _ in fixed].count(name) > 1]:
        raise DlmError(f"--fixed: {twice[0]} is given twice")
    cuts = tuple(law_options.named_number("--holdout", word) for word in a.holdout)
    extra = {"fixed": dict(fixed), "cuts": cuts, "rivals_of": tuple(a.compare_laws)}
    analysis.check_options(a.law, a.stages, **extra)
    return extra


def analyse(
    tables: Sequence[Table], how: LawOptions, cuts: tuple[tuple[str, float], ...] = (), **extra: Any
) -> tuple[list[Analysis], list[str]]:
    """The analysis of each family, and why a family cannot be fitted.

    Raises:
      DlmError: no family can be fitted, or a cut that leaves one side of a held-out test empty.
    """
    from dlm.laws import analysis, holdout, stages

    for axis, cut in cuts:
        holdout.check_sides(tables, axis, cut)
    asked = how.of_fit() | {"resamples": how.resamples, "seed": how.seed, "cuts": cuts} | extra
    analyses, refused = [], []
    with stages.show() as tell:
        for t in tables:
            try:
                analyses.append(analysis.analyse(t, how.law, **asked, tell=tell))
            except DlmError as error:
                if len(tables) == 1:
                    raise
                refused.append(f"Family {t.family} is not fitted: {error}")
    if not analyses:
        raise DlmError("; ".join(refused))
    return analyses, refused


def written(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        yield f"written: {path}"


def diagnostics(analyses: Sequence[Analysis]) -> dict[str, Draw]:
    """The figures of each fit, by name."""
    from dlm.report import fit_figures

    stems = file_stems([analysis.fit.table.family for analysis in analyses])
    drawings: dict[str, Draw] = {}
    for each in analyses:
        stem = stems[each.fit.table.family]
        drawings[f"profiles-{stem}"] = lambda each=each: fit_figures.profiles(each)
        drawings[f"residuals-{stem}"] = lambda each=each: fit_figures.residuals(each.fit)
    return drawings


def draw_each(
    folder: Path, drawings: Mapping[str, Draw], asked: Sequence[str] = (), width: float = 0.0
) -> Generator[Any, None, list[Drawn]]:
    """Draws and saves one figure after another; yields a line for each, returns them all.

    `asked`: only these, figures or panels (the name of the figure, "-", the panel's own).

    Raises:
      DlmError: an asked name that no figure and no panel has.
    """
    from dlm.report import canvas

    drawn = []
    for name, draw, panel in canvas.chosen(drawings, asked):
        label = f"{name}-{panel}" if panel else name
        each = canvas.attempt(label, draw, folder / label, panel, width)
        drawn.append(each)
        done = f"written: {folder / label}.png, .svg, .pdf"
        yield prose(each.problem, "yellow") if each.problem else done
    return drawn
