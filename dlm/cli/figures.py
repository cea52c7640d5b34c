"""`dlm figures`: draws the paper's figures from a table of runs and its fits."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.cli import critical, law_options, options
from dlm.cli.fit import Draw, analyse, diagnostics, draw_each, written
from dlm.cli.law_options import LawOptions
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError
from dlm.format import file_stems
from dlm.report.terminal import prose

if TYPE_CHECKING:
    from dlm.laws.analysis import Analysis
    from dlm.laws.comparison import Comparison
    from dlm.laws.critical import Fitted
    from dlm.laws.table import Table

SUMMARY = "draw the paper's figures from a table of runs and its fits"
EXAMPLES = """examples:
  dlm figures runs.csv --law data-constrained --out figures/
  dlm figures runs.csv --laws laws.json --unique-tokens 1e7 3e7 1e8 --out figures/
  dlm figures runs/sweep --points curve --out figures/    training curves by repetition
  dlm figures runs.csv --width 3.25 --figure figure_5 figure_6-gap    for a column of a paper

Figures: figure_1 (frontiers), figure_2 (contours), figure_3 (share of unique data), figure_4
(training curves), figure_5 (worth of repetition), figure_6 (gap and critical compute), figure_7_8
(variants), profiles and residuals of each fit. A panel is named after its figure: figure_1-25M,
figure_2-masked, figure_5-loss, figure_5-worth, figure_6-gap, figure_6-critical."""

FIGURES = (
    *("figure_1", "figure_2", "figure_3", "figure_4", "figure_5", "figure_6", "figure_7_8"),
    *("profiles", "residuals"),
)


@dataclass(frozen=True)
class Request:
    """What `dlm figures` is asked to draw: from which table and laws, and where to."""

    table: Path | None
    out: Path | None = None
    laws: Path | None = None
    unique_tokens: Sequence[float] = ()
    reference: str = ""
    challenger: str = ""
    figure: Sequence[str] = ()
    width: float = 0.0
    how: LawOptions = field(default_factory=LawOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    law_options.add_arguments(parser)
    law_options.add_comparison(parser)
    options.add_figures(parser)


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    named = {f.name: getattr(a, f.name) for f in fields(Request) if f.name != "how"}
    return show(draw(Request(**named, how=law_options.from_arguments(a))))


def draw(asked: Request) -> Iterator[Any]:
    """Writes the fits, then each figure that the table and the laws allow, then a page with all of
    them; yields what to print as it comes: what was written, or why not.

    Raises:
      DlmError: no table and no laws, nothing that can be drawn, or an unknown figure or family.
    """
    from dlm.laws import comparison, law_files
    from dlm.report import law_page

    if asked.table is None and asked.laws is None:
        raise DlmError("nothing to draw: give a table, or --laws, or both")
    tables = sorted(law_options.read(asked.table, asked.how), key=lambda t: t.family)
    options.check_figures(asked.figure, asked.width, FIGURES)
    laws: Mapping[str, Fitted] = {} if asked.laws is None else law_files.read(asked.laws)
    known = list(laws or [t.family for t in tables])
    if asked.reference or asked.challenger:
        critical.choose_families(known, asked.reference, asked.challenger)
    out = asked.out or Path("figures")
    options.check_writable(out)
    analyses: list[Analysis] = []
    refused: list[str] = []
    if asked.laws is None and asked.how.points != "curve":
        try:
            analyses, refused = analyse(tables, asked.how)
            laws = {analysis.fit.table.family: analysis.fit for analysis in analyses}
        except DlmError as error:
            refused = [f"no law: {error}"]
    yield from map(prose, [*law_options.remarks(tables), *refused])
    yield from written(law_page.write_fits(out, analyses))
    compared = None
    if len(laws) > 1 or len(tables) > 1:
        try:
            names = list(laws if len(laws) > 1 else [t.family for t in tables])
            pair = critical.choose_families(names, asked.reference, asked.challenger)
            unique = critical.choose_unique_tokens(asked.unique_tokens, tables)
            by_family = {t.family: t for t in tables}
            both = laws if len(laws) > 1 else {}
            compared = comparison.compare(pair, both, by_family, unique)
            yield f"written: {law_page.write_critical(out, compared)}"
        except DlmError as error:
            yield prose(f"no critical compute: {error}")
    drawings = _drawings(asked, tables, laws, compared) | diagnostics(analyses)
    drawn = yield from draw_each(out, drawings, asked.figure, asked.width)
    if not any(each.files for each in drawn) and (asked.figure or not analyses):
        raise DlmError("; ".join([*refused, *(each.problem for each in drawn)]) or "no figure")
    title = f"Scaling laws: {(asked.table or asked.laws or out).name}"
    yield f"written: {law_page.write_page(out, analyses, title, drawn, compared)}"


def _drawings(
    asked: Request,
    tables: Sequence[Table],
    laws: Mapping[str, Fitted],
    compared: Comparison | None,
) -> dict[str, Draw]:
    """The figures that may be drawn, by name, each drawn only when it is called."""
    from dlm.laws.table import unique_budgets
    from dlm.report import critical_figure
    from dlm.report import curve_figures as curves
    from dlm.report import law_figures as draw

    unique = sorted(set(asked.unique_tokens)) or unique_budgets(tables)
    drawings: dict[str, Draw] = {}
    fits = {k: f for k, f in laws.items() if k in {t.family for t in tables}}
    if asked.how.points == "curve":
        drawings["figure_4"] = lambda: curves.repetition(tables)
        stems = file_stems([t.family for t in tables])
        for t in tables:
            drawings[f"figure_7_8-{stems[t.family]}"] = lambda t=t: curves.variants(
                *curves.beside(t, tables)
            )
    elif tables:
        crossings = compared.observed if compared is not None else ()
        drawings["figure_1"] = lambda: draw.pareto(tables, crossings)
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


def _largest(tables: Sequence[Table]) -> list[Table]:
    """Of each table the unique-token budget with the most runs."""
    from dlm.laws.table import alike

    largest = []
    for t in tables:
        rows = max(alike(t.U), key=len)
        largest.append(t.only(np.isin(np.arange(len(t)), rows)))
    return largest


def _fixed_compute(tables: Sequence[Table]) -> list[Table]:
    """Rows of sizes and computes that were trained on several shares of unique data."""
    from dlm.laws.table import alike

    selected = []
    for t in tables:
        kept = np.zeros(len(t), bool)
        for rows in alike(t.flops, 0.05):
            for same in alike(t.N[rows], 0.02):
                kept[rows[same]] = len(same) >= 3
        if kept.any():
            selected.append(t.only(kept))
    if not selected:
        raise DlmError("no size was trained at one compute on three shares of unique data")
    return selected
