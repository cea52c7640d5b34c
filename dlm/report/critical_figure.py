"""Figure 6 of the paper: where two laws cross, over unique tokens and compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlm.format import count, power, scientific
from dlm.laws import frontiers
from dlm.laws.comparison import Comparison
from dlm.laws.compute_optimal import optimal
from dlm.laws.critical import Critical, Fitted
from dlm.laws.crossings import CROSSES, Crossover
from dlm.report.canvas import INK, Drawing, keywords, set_axis
from dlm.report.law_figures import colour_bar, label_contours, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gap(reference: Fitted, challenger: Fitted, comparison: Comparison) -> Drawing:
    """Figure 6: challenger minus reference over U and C, and C_crit(U) with its power law.

    Hatched: the challenger is lower.
    """
    points = [p for p in comparison.points if p.irreducible == "kept"]
    U = np.array([p.unique_tokens for p in points])
    spread = 1 if len(U) > 1 else 3
    us = np.geomspace(U.min() / spread, U.max() * spread, 60)

    def frame(ax: Axes) -> None:
        set_axis(ax, "x", count, "log")
        set_axis(ax, "y", power, "log")

    def difference(ax: Axes) -> None:
        _difference_panel(ax, reference, challenger, points, us)
        first, second = (named(name) for name in comparison.families)
        ax.set_title(f"{second} minus {first}, nats; hatched: below", loc="left")
        frame(ax)

    def critical(ax: Axes) -> None:
        _critical_panel(ax, comparison, points, us)
        frame(ax)

    return Drawing(
        {"gap": difference, "critical": critical},
        "The challenger's compute-optimal loss minus the reference's over unique tokens and compute, "
        "and the critical compute.",
        "Where the laws cross",
        x_label="unique tokens U",
        y_label="compute, FLOPs",
        legend=True,
        size=(3.8, 3.4),
        least=2.8,
    )


def _difference_panel(
    ax: Axes, reference: Fitted, challenger: Fitted, points: Sequence[Critical], us: np.ndarray
) -> None:
    cross = [p.compute for p in points if p.status == CROSSES]
    ends, wider = cross or [end for p in points for end in p.searched], 30 if cross else 1
    cs = np.geomspace(min(ends) / wider, max(ends) * wider, 70)
    loss = [
        optimal(f.law, f.coefficients, cs[:, None], us[None]).loss for f in (reference, challenger)
    ]
    difference = loss[1] - loss[0]
    top = max(float(np.abs(np.quantile(difference, [0.02, 0.98])).max()), 1e-9)
    mesh = ax.pcolormesh(
        us, cs, difference, cmap="PuOr_r", vmin=-top, vmax=top, shading="gouraud", rasterized=True
    )
    if difference.min() < 0:
        ax.contourf(us, cs, difference, levels=[-1e9, 0], colors="none", hatches=["//"])
    if np.ptp(difference) > 0:
        lines = ax.contour(us, cs, difference, levels=9, colors=INK, linewidths=0.4)
        label_contours(ax, lines, "%+.2f")
    if difference.min() < 0 < difference.max():
        ax.contour(us, cs, difference, levels=[0], colors=INK, linewidths=2)
    ax.grid(visible=False)
    colour_bar(ax, mesh)


def _critical_panel(
    ax: Axes, comparison: Comparison, points: Sequence[Critical], us: np.ndarray
) -> None:
    cross = [p for p in points if p.status == CROSSES]
    best = [p for p in comparison.observed if frontiers.AT_EQUAL not in p.reference]
    stars = [p for p in best if p.status == CROSSES]
    if cross:
        _crossings(ax, cross, INK, "o", "from the laws")
    for law, dash in zip(comparison.powers, ("-", (0, (4, 2))), strict=False):
        factor = 10**law.intercept
        label = f"E {law.irreducible}: {scientific(factor)} U^{law.exponent:.3f}"
        ax.plot(us, factor * us**law.exponent, color="#0072B2", ls=dash, label=label)
    if stars:
        _crossings(ax, stars, "#D55E00", "*", "from the runs")
    ax.set_title(
        "critical compute" if cross else "critical compute: the laws do not cross", loc="left"
    )


def _crossings(
    ax: Axes, crossings: Sequence[Critical | Crossover], colour: str, marker: str, label: str
) -> None:
    """Points with their intervals; an open end has none."""
    x, y, low, high = (
        np.array([getattr(p, name) for p in crossings], float)
        for name in ("unique_tokens", "compute", "low", "high")
    )
    errors = np.nan_to_num([y - low, high - y], nan=0.0, posinf=0.0).clip(0)
    marks = keywords(ls="", marker=marker, ms=11 if marker == "*" else 4, capsize=2)
    ax.errorbar(x, y, yerr=errors, color=colour, label=label, **marks)
