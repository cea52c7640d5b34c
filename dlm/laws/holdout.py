"""Does a law predict? Fit below a cut of compute or epochs, predict above, compare laws by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dlm.errors import DlmError
from dlm.laws.fits import Fit
from dlm.laws.table import Table

AXES = ("flops", "epochs")
SAME = 1 + 1e-9  # a run at the cut is below it, however it was rounded


@dataclass(frozen=True)
class Prediction:
    """Errors in log loss (0.01 is 1%) of the runs above the cut; `bias` above 0: predicted high."""

    law: str
    axis: str
    cut: float
    fitted: int
    held_out: int
    rms: float
    bias: float
    bias_stderr: float
    in_sample: float


def check_sides(tables: Sequence[Table], axis: str, cut: float) -> None:
    """Refuses a cut that leaves runs on both sides in no table.

    Raises:
      DlmError: it names the span of the runs.
    """
    spans = [(v.min(), v.max()) for v in (_values(t, axis) for t in tables)]
    if not any(low <= cut * SAME < high for low, high in spans):
        low, high = min(low for low, _ in spans), max(high for _, high in spans)
        raise DlmError(
            f"--holdout {axis}={cut:g}: the runs go from {low:.3g} to {high:.3g}; must leave runs on "
            "both sides"
        )


def _values(table: Table, axis: str) -> np.ndarray:
    """The values of an axis for each run, [R]."""
    return table.flops if axis == "flops" else table.epochs


def holdout(table: Table, make: Callable[[Table], Fit], axis: str, cut: float) -> Prediction:
    """Fits the runs at or below `cut` with `make`, and predicts the others.

    Raises:
      DlmError: nothing above the cut, or too little below it to fit.
    """
    if axis not in AXES:
        raise DlmError(f"holdout axis {axis!r}: must be one of {', '.join(AXES)}")
    values = _values(table, axis)
    below = values <= cut * SAME
    if below.all() or not below.any():
        raise DlmError(
            f"holdout {axis}={cut:g}: the runs go from {values.min():.3g} to {values.max():.3g}; "
            "must leave runs on both sides"
        )
    above = table.only(~below)
    try:
        fit = make(table.only(below))
    except DlmError as error:
        raise DlmError(f"--holdout {axis}={cut:g}, the runs below it: {error}") from None
    error = np.log(fit.predict(*above.columns)) - np.log(above.loss)
    stderr = error.std(ddof=1) / np.sqrt(len(error)) if len(error) > 1 else np.nan
    return Prediction(
        law=fit.law.name,
        axis=axis,
        cut=float(cut),
        fitted=int(below.sum()),
        held_out=len(error),
        rms=float(np.sqrt((error**2).mean())),
        bias=float(error.mean()),
        bias_stderr=float(stderr),
        in_sample=float(np.sqrt((fit.residuals**2).mean())),
    )
