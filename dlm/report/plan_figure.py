"""The figure and the page of a plan: expected loss against epochs and against compute, with bands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm import disk
from dlm.errors import DlmError
from dlm.format import count, power
from dlm.laws.advice import REACH, FamilyAdvice
from dlm.laws.chosen import short
from dlm.laws.compute_optimal import optimal
from dlm.laws.critical import Fitted
from dlm.laws.crossings import CROSSES
from dlm.laws.fits import LEVEL
from dlm.laws.intervals import interval, widened
from dlm.laws.plan import TrainingPlan
from dlm.report import canvas, html, plan_page
from dlm.report.canvas import INK, Drawing, set_axis, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS = "expected loss, nats per token"
RESAMPLES = 100  # behind a band


def drawing(p: TrainingPlan) -> Drawing:
    """Two panels at this U: each family's loss over epochs at the budget, and over compute."""
    text = (
        f"Expected loss on {count(p.advice.unique_tokens)} unique tokens. Over epochs: at the budget, "
        "so more epochs are of a smaller model; marked is the best. Over compute: each family's best "
        "size; the line is the budget, the star where the families cross."
    )
    if any(law.samples for law in p.laws.by_family.values()):
        text += " Bands: 90% intervals of the expected loss."
    return Drawing(
        {"epochs": lambda ax: _epochs(ax, p), "compute": lambda ax: _compute(ax, p)},
        text,
        "Expected loss against epochs and compute",
        y_label=LOSS,
        legend=True,
    )


def _look(p: TrainingPlan, f: FamilyAdvice) -> dict[str, Any]:
    names = [short(each.family) for each in p.advice.families]
    colour, _, dash = style(names, short(f.family))
    return {"color": colour, "ls": dash, "lw": 1.8, "label": plan_page.named(f.family)}


def _band(ax: Axes, law: Fitted, x: np.ndarray, draws: np.ndarray, colour: str) -> None:
    """The interval of resampled losses [S, K] along x [K]."""
    low, high = np.array([interval(column, widened(LEVEL, law)) for column in draws.T]).T
    ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def _samples(law: Fitted) -> dict[str, np.ndarray]:
    return {name: v[:RESAMPLES, None] for name, v in law.samples.items()}


def _epochs(ax: Axes, p: TrainingPlan) -> None:
    a = p.advice
    U, C = a.unique_tokens, a.flops
    most = max(f.epochs for f in a.families) * 10
    epochs = np.geomspace(1.0, max(most, 10.0), 120)
    N = C / (6 * epochs * U)
    epochs, N = epochs[N > 1], N[N > 1]
    for f in a.families:
        law, look = p.laws.by_family[f.family], _look(p, f)
        loss = law.law.predict(law.coefficients, N, epochs * U, U)
        near = loss < f.loss + 1.0
        ax.plot(epochs[near], loss[near], **look)
        ax.plot(f.epochs, f.loss, marker="o", ms=6, color=look["color"])
        if law.samples:
            draws = law.law.predict(_samples(law), N[near], epochs[near] * U, U)
            _band(ax, law, epochs[near], draws, look["color"])
    set_axis(ax, "x", scale="log")
    set_axis(ax, "y")
    ax.set_xlabel("epochs over the unique tokens")
    ax.set_title("at the budget", loc="left")


def _compute(ax: Axes, p: TrainingPlan) -> None:
    a = p.advice
    met = [t.critical for t in a.turns if t.critical.status == CROSSES]
    ends = [a.flops, *(c.compute for c in met if a.flops / REACH < c.compute < a.flops * REACH)]
    C = np.geomspace(min(ends) / 30, max(ends) * 30, 80)
    for f in a.families:
        law, look = p.laws.by_family[f.family], _look(p, f)
        loss = np.minimum.accumulate(optimal(law.law, law.coefficients, C, a.unique_tokens).loss)
        ax.plot(C, loss, **look)
        if law.samples:
            draws = optimal(law.law, _samples(law), C, a.unique_tokens).loss
            _band(ax, law, C, np.minimum.accumulate(draws, axis=1), look["color"])
    ax.axvline(a.flops, color=INK, lw=1.0, ls=(0, (3, 2)))
    for turn in a.turns:
        at = turn.critical.compute
        if turn.critical.status == CROSSES and C[0] <= at <= C[-1]:
            law = p.laws.by_family[turn.challenger]
            loss = float(optimal(law.law, law.coefficients, at, a.unique_tokens).loss)
            ax.plot(at, loss, marker="*", ms=11, color=INK)
    set_axis(ax, "x", power, "log")
    set_axis(ax, "y")
    ax.set_xlabel("compute 6ND, FLOPs")
    ax.set_title("each family at its best", loc="left")


def write_page(folder: Path, p: TrainingPlan) -> list[Path]:
    """Writes plan.html, and plan.png, .svg and .pdf, into a folder.

    Raises:
      DlmError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = canvas.attempt("plan", lambda: drawing(p), folder / "plan")
        first, *rest = plan_page.sentences(p)
        parts = [
            f"<h1>{html.text(plan_page.title(p))}</h1>",
            html.paragraph(first, "answer"),
            html.table(plan_page.HEAD, plan_page.rows(p)),
            html.bullets([*rest, f"Laws: {p.laws.title} ({p.laws.source})."]),
        ]
        if drawn.svg:
            parts += html.section(
                drawn.heading, html.figure(drawn.svg, drawn.heading, drawn.caption)
            )
        parts += [html.paragraph(drawn.problem)] if drawn.problem else []
        page = disk.write(folder / "plan.html", html.document(plan_page.title(p), parts))
    except OSError as error:
        raise DlmError(f"--out {folder}: cannot be written ({error.strerror})") from None
    return [page, *drawn.files]
