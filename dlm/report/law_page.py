"""The laws on one page, in the terminal and as files: coefficients, verdicts, figures, exclusions."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlm import disk
from dlm.errors import DlmError, one_line
from dlm.format import between, number, percent, scientific
from dlm.laws import analysis as laws
from dlm.laws import comparison, fits, words
from dlm.laws import table as tables
from dlm.laws.analysis import Analysis
from dlm.laws.comparison import Comparison
from dlm.laws.critical import Critical, PowerLaw
from dlm.laws.crossings import CROSSES, TOO_FEW, Crossover
from dlm.laws.crossover import name_of
from dlm.laws.forms import law as named
from dlm.laws.frontiers import AT_EQUAL
from dlm.laws.problem import ROUGH
from dlm.laws.robust_loss import RobustLoss
from dlm.laws.table import Table
from dlm.report import html, sentences
from dlm.report.canvas import Drawn
from dlm.report.terminal import grid, prose
from dlm.runs import Family, Panel, Run

Value = TypeVar("Value")
LAW, ONE_SIZE = "data-constrained", named("one-size")
HEAD = ("coefficient", "value", "90% interval, profile", "90% interval, bootstrap", "verdict")


def write_fits(folder: Path, analyses: Sequence[Analysis]) -> list[Path]:
    """Writes fit.json and fit.tex into a folder; nothing, if there is no fit.

    Raises:
      DlmError: they cannot be written.
    """
    if not analyses:
        return []
    numbers = json.dumps([words.as_json(a) for a in analyses], indent=1)
    return [
        _write(folder / "fit.json", numbers),
        _write(folder / "fit.tex", words.as_latex(list(analyses))),
    ]


def write_critical(folder: Path, compared: Comparison) -> Path:
    """Writes critical.json into a folder.

    Raises:
      DlmError: it cannot be written.
    """
    numbers = words.plain(comparison.as_json(compared))
    return _write(folder / "critical.json", json.dumps(numbers, indent=1))


def write_page(
    folder: Path,
    analyses: Sequence[Analysis],
    title: str,
    drawn: Sequence[Drawn],
    compared: Comparison | None = None,
) -> Path:
    """Writes report.html into a folder.

    Raises:
      DlmError: it cannot be written.
    """
    return _write(folder / "report.html", page(analyses, title, drawn, compared))


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return disk.write(path, text)
    except OSError as error:
        raise DlmError(f"{path}: cannot be written ({error.strerror})") from None


def page(
    analyses: Sequence[Analysis],
    title: str,
    drawn: Sequence[Drawn] = (),
    compared: Comparison | None = None,
) -> str:
    """The fits, the comparison and the figures as one page without script or network."""
    body = [f"<h1>{escape(title)}</h1>"]
    for a in analyses:
        body += html.section(f"{a.fit.law.name}, family {a.fit.table.family}", *section(a))
    if compared is not None:
        head, *rest = comparison_tables(compared)
        body += html.section(
            head, *(html.table(*part) for part in rest), html.bullets(_said(compared))
        )
    for each in drawn:
        if each.svg:
            body += html.section(each.heading, html.figure(each.svg, each.heading, each.caption))
    if problems := [each.problem for each in drawn if each.problem]:
        body += html.section("Figures that were not drawn", html.bullets(problems))
    return html.document(title, body)


def section(a: Analysis) -> list[str]:
    """One analysis as HTML: the law, its coefficients, its sentences, and the runs left out."""
    law = a.fit.law
    parts = [
        f"<p><code>{escape(law.formula)}</code><br>{escape(law.source)}</p>",
        html.table(HEAD, words.coefficient_rows(a)),
        html.bullets(words.sentences(a)),
    ]
    if a.fit.table.excluded:
        parts += [
            "<h3>Left out of the fit</h3>",
            html.table(("run", "reason"), [list(pair) for pair in a.fit.table.excluded]),
        ]
    return parts


def terminal(a: Analysis) -> list[Any]:
    """Rich renderables: the formula, the table of coefficients, the sentences."""
    paragraphs = [prose(f"\n{text}") for text in words.sentences(a)]
    left_out = [prose(f"left out: {run}: {why}", "yellow") for run, why in a.fit.table.excluded]
    head = prose(f"{a.fit.law.formula}\n{a.fit.law.source}\n")
    return [head, grid(HEAD, words.coefficient_rows(a)), *paragraphs, *left_out]


# --- in the report of an experiment ---------------------------------------------------------------


def of_runs(runs: Sequence[Run], panels: Sequence[Panel]) -> list[str]:
    """The laws of some runs as HTML: an analysis of each family, or the reason why there is none.

    Whatever goes wrong in a fit ends that fit alone: a law must not cost the report.
    """
    family_tables, reason = _attempt(lambda: tables.from_runs(runs, "best", "these runs"))
    if family_tables is None:
        return [html.paragraph(reason)]
    parts: list[str] = []
    refused: list[list[str]] = []
    for t in family_tables:
        analysis, reason = _attempt(lambda t=t: _analysis(t))
        if analysis is None:
            refused.append([t.family, reason])
        else:
            parts += [f"<h3>{escape(f'{LAW}, {t.family}')}</h3>", *section(analysis)]
    if refused:
        text = (
            f"The {LAW} law cannot be fitted to {len(refused)} of {len(family_tables)} families. It "
            "needs at least three sizes, three numbers of unique tokens and three numbers of epochs."
        )
        parts += [html.paragraph(text), html.table(("family", "reason"), refused)]
    return [*parts, *one_size(panels)]


def _attempt(make: Callable[[], Value]) -> tuple[Value | None, str]:
    """What `make` returns, or None and the reason in one line."""
    try:
        return make(), ""
    except Exception as error:
        return None, one_line(error)


def _analysis(t: Table) -> Analysis:
    """The analysis of one family, as `dlm fit` does it."""
    fits.check(named(LAW), t, named(LAW).names)
    return laws.analyse(t, LAW)


def one_size(panels: Sequence[Panel]) -> list[str]:
    """The law of a single size, fitted to the tracked losses of each family's best setting."""
    rows = [
        [panel.title, name_of(family.name), *_one_size_row(panel, family)]
        for panel in panels
        for family in panel.families.values()
    ]
    text = (
        f"{ONE_SIZE.formula}, through the tracked losses of each family's best setting. Not "
        "identified: it describes these curves, each of one size and one U, and predicts no others."
    )
    head = ("data", "family", "independent runs", "R2", *(f"{k}, minimum" for k in ONE_SIZE.names))
    return [html.paragraph(text), html.table(head, rows)]


def _one_size_row(panel: Panel, family: Family) -> list[str]:
    """Number of runs, R2 and coefficients of one curve; in place of R2 why there is no law."""
    names = ONE_SIZE.names
    t = tables.of_curves(family.best.runs, panel.title, family.name)
    if t is None or len(t) <= len(names) or t.epochs.max() < 2:
        reason = "too few evaluations after the first epoch for a law"
        return [str(t.groups) if t is not None else "", reason, *[""] * len(names)]
    curve = dataclasses.replace(t, group=np.arange(len(t)))  # each row for itself: a description
    options: dict[str, Any] = {"loss": RobustLoss("gaussian"), "tolerance": ROUGH}
    fit, reason = _attempt(lambda: fits.fit(ONE_SIZE, curve, starts=8, **options))
    if fit is None:
        return [str(t.groups), reason, *[""] * len(names)]
    limits = {name: ONE_SIZE.coefficient(name).limits[1] for name in names}
    values = [(fit.coefficients[name], limits[name]) for name in names]
    texts = ["unbounded" if v > 0.99 * limit else number(v, 3) for v, limit in values]
    return [str(t.groups), f"{fit.r2:.3f}", *texts]


# --- the critical compute -----------------------------------------------------------------------

CRITICAL_HEAD = ("unique tokens", "E", "status", "C_crit, FLOPs", "90% interval", "epochs", "N")
EQUAL_HEAD = ("compute, FLOPs", "epochs", "ratio", "90% interval")
LIKELIHOODS = (
    "Losses by an upper bound (diffusion's) that lie below exact ones (AR's) show the better model; "
    "above them they show nothing."
)


def comparison_tables(c: Comparison) -> tuple[Any, ...]:
    """A title, and the tables (head, rows) of the crossings and of compute for equal loss."""
    first, second = (name_of(name) for name in c.families)
    crossings = [_critical_row(p) for p in c.points]
    crossings += [
        _observed_row(crossover) for crossover in c.observed if crossover.status != TOO_FEW
    ]
    parts: list[Any] = [(CRITICAL_HEAD, crossings)] if crossings else []
    if (e := c.equivalence) is not None:
        ratios = [
            [scientific(C, 3), number(n, 3), number(r, 3), between(low, high)]
            for C, n, r, low, high in zip(e.compute, e.epochs, e.ratio, e.low, e.high, strict=True)
        ]
        parts.append((EQUAL_HEAD, ratios))
    return f"Critical compute: {second} (challenger) against {first} (reference)", *parts


def _said(c: Comparison) -> list[str]:
    first, second = (name_of(name) for name in c.families)
    texts = [f"Pairs are {first} / {second}."] if c.points else []
    if c.equivalence is not None:
        texts.append(
            f"Second table: at U = {number(c.unique_tokens)}, the compute of {second} over that "
            f"of {first} for the same loss, at {first}'s best use of its compute, with {first}'s "
            "epochs."
        )
    texts += [power_sentence(p) for p in c.powers]
    texts += [
        f"U = {number(crossover.unique_tokens)}, runs: {sentences.crossing(crossover)}"
        for crossover in c.observed
        if crossover.status != TOO_FEW
    ]
    few = [
        number(crossover.unique_tokens) for crossover in c.observed if crossover.status == TOO_FEW
    ]
    texts += [f"Runs: {TOO_FEW} to say where they cross at U = {', '.join(few)}."] if few else []
    return [*texts, *comparison.cautions(c), LIKELIHOODS]


def comparison_terminal(c: Comparison) -> list[Any]:
    """Rich renderables."""
    title, *parts = comparison_tables(c)
    tables = [item for part in parts for item in (grid(*part), "")]
    return [prose(f"{title}\n"), *tables, *map(prose, _said(c))]


def _critical_row(point: Critical) -> list[str]:
    crosses = point.status == CROSSES
    pair = "{} / {}".format
    around = "no interval"
    if not math.isnan(point.low):  # from the lowest compute searched on, it is open below
        low = point.low if point.low > point.searched[0] * (1 + 1e-9) else 0.0
        around = between(low, point.high)
    if point.share < 0.995:
        around += f", {percent(point.share)} of resamples cross"
    return [
        number(point.unique_tokens),
        point.irreducible,
        point.status if crosses else f"{point.status} within {_range(point.searched)}",
        scientific(point.compute, 3) if crosses else "",
        around,
        pair(*(number(e, 3) for e in point.epochs)) if crosses else "",
        pair(*(number(n, 3) for n in point.params)) if crosses else "",
    ]


def _observed_row(crossover: Crossover) -> list[str]:
    """A crossing of measured frontiers, in the columns of the laws' crossings."""
    crosses = crossover.status == CROSSES
    around = "no interval"
    if crossover.low is not None and crossover.high is not None:
        around = between(crossover.low, crossover.high) + (
            " (spread)" if crossover.over == "settings" else ""
        )
    if crossover.share is not None and crossover.share < 0.995:
        around += f", {percent(crossover.share)} of resamples cross"
    return [
        number(crossover.unique_tokens),
        "runs, equal settings" if AT_EQUAL in crossover.reference else "runs",
        crossover.status
        if crosses
        else f"{crossover.status} within {_range((crossover.start, crossover.end))}",
        scientific(crossover.compute, 3) if crosses else "",
        around,
        number(crossover.epochs, 3) if crosses and crossover.epochs is not None else "",
        "",
    ]


def _range(searched: tuple[float, float]) -> str:
    return between(*searched, digits=2)


def power_sentence(law: PowerLaw) -> str:
    slope, start = law.inverse
    around = ""
    if law.exponent_low == law.exponent_low:
        of = "" if law.share > 0.995 else f", over the {law.share:.0%} of resamples that cross"
        around = (
            f" (90% intervals: exponent {law.exponent_low:.3f} to {law.exponent_high:.3f}, log10 "
            f"factor {law.intercept_low:.3f} to {law.intercept_high:.3f}{of})"
        )
    return (
        f"E {law.irreducible}: C_crit = 10^{law.intercept:.3f} U^{law.exponent:.3f}{around}, U in raw "
        f"tokens; log10 U = {slope:.3f} log10 C {start:+.3f}."
    )
