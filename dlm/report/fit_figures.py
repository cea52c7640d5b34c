"""Diagnostic figures of one fit: the profile of each coefficient, and the residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.format import power, tick
from dlm.laws.fits import Fit
from dlm.report.canvas import INK, Drawing, set_axis
from dlm.report.law_figures import COMPUTE, look, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def profiles(analysis: Any) -> Drawing:
    """The profile of each coefficient: deviance against its value, with the 90% threshold."""
    from dlm.laws.intervals import threshold

    limit = threshold(analysis.fit)
    identified = {v.name for v in analysis.verdicts if v.identified}

    def paint(ax: Axes, p: Any) -> None:
        near = p.deviance < 4 * limit
        ax.plot(p.values[near], p.deviance[near], color="#0072B2", marker="o", ms=2.5, lw=1.2)
        ax.axhline(limit, color=INK, lw=0.8, ls=(0, (3, 2)))
        ax.axvline(analysis.fit.coefficients[p.name], color=INK, lw=0.8, label="lowest")
        if analysis.basin is not None:
            known = analysis.basin.published.coefficients[p.name]
            ax.axvline(known, color="#D55E00", lw=1.2, ls=(0, (1, 1)), label="published")
        set_axis(ax, "x", scale="log")
        set_axis(ax, "y")
        ax.set_ylim(0, 3 * limit)
        ax.set_title(p.name if p.name in identified else f"{p.name}: not identified", loc="left")
        ax.annotate("90%", (0.02, limit), xycoords=ax.get_yaxis_transform(), va="bottom")

    return Drawing(
        {p.name: lambda ax, p=p: paint(ax, p) for p in analysis.profiles.values()},
        "What each value of a coefficient costs, the others refitted; below the dashed line it fits "
        "as well, within the noise.",
        f"Profiles, {named(analysis.fit.table.family)}",
        y_label="deviance",
        legend=analysis.basin is not None,
        columns=4,
        size=(2.2, 2.3),
        least=1.5,
    )


def residuals(fit: Fit) -> Drawing:
    """log predicted - log observed against compute and epochs."""

    def paint(ax: Axes, x: np.ndarray, label: str, text: Any) -> None:
        colour, marker, _ = look(fit.table.family)
        ax.plot(x, 100 * fit.residuals, ls="", marker=marker, ms=3, color=colour)
        ax.axhline(0, color=INK, lw=0.8)
        set_axis(ax, "x", text, "log")
        set_axis(ax, "y")
        ax.set_xlabel(label)
        ax.set_title(f"{fit.law.name}, {named(fit.table.family)}", loc="left")

    t = fit.table
    return Drawing(
        {
            "compute": lambda ax: paint(ax, t.flops, COMPUTE, power),
            "epochs": lambda ax: paint(ax, t.epochs, "epochs", tick),
        },
        "Predicted over observed loss of each run.",
        f"Residuals, {named(t.family)}",
        y_label="predicted minus observed, %",
        size=(3.6, 2.8),
    )
