"""The critical compute from runs alone: where the frontiers of two families meet, no law between."""

from __future__ import annotations

import math

import numpy as np

from dlm.format import scientific
from dlm.laws import optimum
from dlm.laws.critical import Critical
from dlm.laws.fits import LEVEL
from dlm.laws.intervals import interval, weights_of
from dlm.laws.table import Table, unique_budgets, with_unique


def observed(
    reference: Table, challenger: Table, *, resamples: int = 1000, level: float = LEVEL
) -> list[Critical]:
    """The crossing of the two Pareto frontiers of the runs themselves, for each U in both.

    A frontier is a line in log C through the runs that no cheaper run equals; beyond a family's
    last such run its best stands. The interval holds the central share of resampled runs and the
    runs on either side of the crossing: it is a spread, and no coverage is claimed for it.
    """
    found = []
    for u in unique_budgets([reference, challenger]):
        a, b = with_unique(reference, u), with_unique(challenger, u)
        if not len(a) or not len(b):
            continue
        x, around = _meet(a, b, np.ones(len(a)), np.ones(len(b)))
        low = high = share = math.nan
        if resamples:
            pairs = zip(weights_of(a, resamples, 0), weights_of(b, resamples, 1), strict=True)
            samples = np.array([_meet(a, b, wa, wb)[0] for wa, wb in pairs])
            low, high = interval(samples, level)
            low, high = (math.exp(v) for v in (min(low, around[0]), max(high, around[1])))
            share = float(np.isfinite(samples).mean())
        start = float(max(a.flops.min(), b.flops.min()))
        end = float(max(a.flops.max(), b.flops.max()))
        status = "crosses" if math.isfinite(x) else "does not cross"
        if x <= math.log(start) + 1e-9:
            status = "below from the start"
        C = math.exp(x) if math.isfinite(x) else math.nan
        notes = ["from the runs, no law"]
        last = float(a.flops.max())
        if last < C:
            notes.append(
                f"beyond the reference's last run ({scientific(last)} FLOPs), whose best stands"
            )
        nothing = (math.nan, math.nan)
        found.append(
            Critical(u, "kept", status, C, low, high, share, (start, end), nothing, nothing,
                     windows=((C, end),) if math.isfinite(x) else (), notes=tuple(notes))
        )  # fmt: skip
    return found


def _meet(a: Table, b: Table, wa: np.ndarray, wb: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Log C from which b's frontier lies below a's for good, and that of the runs around it."""
    curves = []
    for t, weights in ((a, wa), (b, wb)):
        rows = optimum.frontier(t, weights > 0)
        curves.append((np.log(t.flops[rows]), t.loss[rows]))
    x = np.unique(np.concatenate([c[0] for c in curves]))
    x = x[x >= max(c[0][0] for c in curves)]
    gap = np.interp(x, *curves[1]) - np.interp(x, *curves[0])
    above = np.flatnonzero(gap >= 0)
    if not len(above):
        return float(x[0]), (float(x[0]), float(x[0]))
    k = above[-1]
    if k == len(x) - 1:
        return math.inf, (math.inf, math.inf)
    at = x[k] + (x[k + 1] - x[k]) * gap[k] / (gap[k] - gap[k + 1])
    return float(at), (float(x[k]), float(x[k + 1]))
