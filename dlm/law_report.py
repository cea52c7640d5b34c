"""The laws on one page, in the terminal and as files: coefficients, verdicts, figures, exclusions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dlm import figures, html
from dlm.crossover import name_of
from dlm.errors import DlmError
from dlm.figures import interval, scientific
from dlm.laws import analysis as laws
from dlm.laws import fits
from dlm.laws import table as tables
from dlm.laws.analysis import Analysis
from dlm.laws.critical import Critical, PowerLaw
from dlm.laws.forms import law as named
from dlm.runs import Panel, Run

LAW, ONE_SIZE = "data-constrained", named("one-size")
HEAD = ("coefficient", "value", "90% interval, profile", "90% interval, bootstrap", "verdict")


def write(folder: Path | str, found: Sequence[Analysis], title: str, drawn: dict[str, Any]) -> Path:
    """fit.html, fit.json, fit.tex and the figures (PNG and SVG) into a folder; returns fit.html.

    Raises:
      DlmError: it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            figures.save(figure, folder / name)
        numbers = [laws.as_json(a) for a in found]
        html.replace(folder / "fit.json", json.dumps(numbers, indent=1))
        html.replace(folder / "fit.tex", laws.as_latex(list(found)))
        return html.replace(folder / "fit.html", page(found, title, drawn))
    except OSError as error:
        raise DlmError(f"{folder}: cannot be written ({error.strerror})") from None


def page(found: Sequence[Analysis], title: str, drawn: dict[str, Any]) -> str:
    body = [f"<h1>{escape(title)}</h1>"]
    for a in found:
        body += html.section(f"{a.fit.law.name}, family {a.fit.table.family}", *section(a))
    for name, figure in drawn.items():
        body += html.section(name, f"<figure>{figures.svg_text(figure)}</figure>")
    return html.document(title, body)


def section(a: Analysis) -> list[str]:
    """One analysis as HTML: the law, its table, what it says, and what was left out."""
    law = a.fit.law
    parts = [
        f"<p><code>{escape(law.formula)}</code><br>{escape(law.source)}</p>",
        html.table(HEAD, laws.coefficient_rows(a)),
        html.bullets(laws.sentences(a)),
    ]
    if a.fit.table.excluded:
        parts += [
            "<h3>Left out of the fit</h3>",
            html.table(("run", "reason"), [list(pair) for pair in a.fit.table.excluded]),
        ]
    return parts


def terminal(a: Analysis) -> list[Any]:
    """Rich renderables: the formula, the table of coefficients, the sentences."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name)
    for row in laws.coefficient_rows(a):
        table.add_row(*(Text(cell) for cell in row))
    words = [Text(f"\n{text}") for text in laws.sentences(a)]
    left_out = [
        Text(f"left out: {run}: {reason}", style="yellow") for run, reason in a.fit.table.excluded
    ]
    return [Text(f"{a.fit.law.formula}\n{a.fit.law.source}\n"), table, *words, *left_out]


# --- in the report of an experiment ---------------------------------------------------------------


def of_runs(found: Sequence[Run], panels: Sequence[Panel]) -> list[str]:
    """What some runs identify: an analysis of each family, or why there is none."""
    parts: list[str] = []
    refused: list[str] = []
    try:
        read = tables.from_runs(found, "best", "these runs")
    except DlmError as error:
        return [f"<p>{escape(str(error))}</p>"]
    for t in read:
        try:
            fits.check(named(LAW), t, named(LAW).names)
            a = laws.analyse(t, LAW, steps="joint", resamples=200)
            parts += [f"<h3>{escape(f'{LAW}, {t.family}')}</h3>", *section(a)]
        except DlmError as error:
            refused.append(f"{LAW}: {error}.")
    one = [text for panel in panels for text in one_size(panel)]
    return [*parts, html.bullets([*refused, *one])]


def one_size(panel: Panel) -> list[str]:
    """The law of a single size, fitted to the tracked losses of each family's best setting."""
    made = []
    for family in panel.families.values():
        name = f"{panel.title}, {name_of(family.name)}"
        t = tables.of_curves(family.best.runs, panel.title, family.name)
        if t is None or len(t) <= len(ONE_SIZE.names) or t.epochs.max() < 2:
            made.append(f"{name}: too few evaluations after the first epoch for a law.")
            continue
        curve = dataclasses.replace(
            t, group=np.arange(len(t))
        )  # each row for itself: a description
        f = fits.fit(ONE_SIZE, curve, loss=fits.Loss("gaussian"), starts=8, tolerance=fits.ROUGH)
        values = ", ".join(
            f"{k} {'unbounded' if v > 0.99 * ONE_SIZE.coefficient(k).limits[1] else f'{v:.3g}'}"
            for k, v in f.coefficients.items()
        )
        made.append(
            f"{name}: {ONE_SIZE.formula}, through the tracked losses of the best setting: R2 "
            f"{f.r2:.3f}, minimum at {values}. Not identified: {t.groups} independent runs (seeds) "
            f"for {len(ONE_SIZE.names)} coefficients, all of one size and one U. It describes these "
            "curves and predicts no others; sizes, unique tokens and epoch counts, three of each at "
            "least, would make a law."
        )
    return made


# --- the critical compute -----------------------------------------------------------------------

CRITICAL_HEAD = ("unique tokens", "E", "status", "C_crit, FLOPs", "90% interval", "epochs", "N")


def critical_row(found: Critical) -> list[str]:
    crosses = found.status == "crosses"
    pair = "{} / {}".format
    return [
        laws.number(found.unique_tokens),
        found.irreducible,
        found.status if crosses else f"{found.status} within {_range(found.searched)}",
        scientific(found.compute, 3) if crosses else "",
        "no interval" if found.low != found.low else interval(found.low, found.high),
        pair(*(laws.number(e, 3) for e in found.epochs)) if crosses else "",
        pair(*(laws.number(n, 3) for n in found.params)) if crosses else "",
    ]


def _range(searched: tuple[float, float]) -> str:
    return f"{scientific(searched[0])} to {scientific(searched[1])}"


def power_sentence(law: PowerLaw) -> str:
    slope, start = law.inverse
    around = ""
    if law.exponent_low == law.exponent_low:
        around = (
            f" (90% intervals: exponent {law.exponent_low:.3f} to {law.exponent_high:.3f}, log10 "
            f"factor {law.intercept_low:.3f} to {law.intercept_high:.3f})"
        )
    return (
        f"E {law.irreducible}: C_crit = 10^{law.intercept:.3f} U^{law.exponent:.3f}{around}, U in raw "
        f"tokens; log10 U = {slope:.3f} log10 C {start:+.3f}."
    )
