"""Figures for a notebook: `dlm.plot.frontier(runs)`, `dlm.plot.profiles(fit)`.

Each draws the figure that the report or `dlm figures` writes, and returns it as a Matplotlib Figure:
on its own, `width` inches wide, or on the axes that you give.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dlm import inputs, runs
from dlm.errors import DlmError
from dlm.report import canvas, fit_figures, run_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlm.api import FittedLaw
    from dlm.report.canvas import Drawing


@inputs.checked
def frontier(group: Iterable[runs.Run], ax: Any = None, width: float = 0.0) -> Figure:
    """Validation loss (nats per token) against training compute (FLOPs), a panel per data set.

    >>> figure = dlm.plot.frontier(dlm.load("runs/tiny"), width=3.25)
    >>> figure.axes[0].get_ylabel()
    'loss, nats per token'

    Raises:
      DlmError: no finished run, or another number of axes than panels.
    """
    return _drawn(run_figures.frontier(runs.panels(group)[0]), ax, width)


@inputs.checked
def profiles(fit: FittedLaw, ax: Any = None, width: float = 0.0) -> Figure:
    """What each value of a coefficient costs, the others refitted; a panel per coefficient.

    >>> fit = dlm.fit("table.csv", law="chinchilla", resamples=0)
    >>> len(dlm.plot.profiles(fit, width=3.25).axes) == len(fit.identified)
    True

    Raises:
      DlmError: another number of axes than coefficients.
    """
    return _drawn(fit_figures.profiles(fit.analysis), ax, width)


def _drawn(drawing: Drawing, ax: Any, width: float) -> Figure:
    """A drawing as a figure of its own, or on the given axes, one for each panel."""
    if ax is None:
        return canvas.draw(drawing, width=width)
    import matplotlib
    import numpy as np

    axes = list(np.atleast_1d(ax).ravel())
    if len(axes) != len(drawing.panels):
        names = ", ".join(drawing.panels)
        raise DlmError(
            f"ax: {len(axes)} axes; must be {len(drawing.panels)}, one for each of {names}"
        )
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a name is a $
        for axis, paint in zip(axes, drawing.panels.values(), strict=True):
            paint(axis)
            if drawing.x_label:
                axis.set_xlabel(drawing.x_label)
            if drawing.y_label:
                axis.set_ylabel(drawing.y_label)
            if drawing.legend:
                axis.legend()
    return axes[0].figure
