"""The compute from which one family's measured frontier stays below another's, and how sure that is.

Every statement about measured frontiers comes from here: the report, `dlm critical`, `dlm figures`
and their JSON, for run folders (every tracked loss) as for tables (the losses in them).

The 90% interval is a bootstrap with a fixed generator. It resamples the seeds of each setting if
a setting that leads at the crossing has several, widened for few seeds (`_widening`). Otherwise, with
at least SPREAD settings in each family, it resamples the settings and holds the computes on either
side of the crossing: a spread, which tells how much the crossing rests on single runs. With less
there is no interval. A setting of one seed enters as it is. A resample that does not cross counts as
a crossing at infinity, so that it opens the interval upwards. BUILD_NOTES.md has the share of planted
crossings that each kind holds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dlm.laws.frontiers import (
    FamilyLosses,
    Frontier,
    Line,
    Means,
    SettingLosses,
    frontier,
    lowest_line,
    means_of,
)

# The statuses of a crossing, of measured frontiers and of laws alike.
CROSSES = "crosses"
FROM_START = "below from the start"  # wherever both are known
BETWEEN = "below in between"  # and above again at the end
NEVER = "does not cross"  # within the compute compared
TOO_FEW = "too few runs"  # the two families are known together at one compute only

RESAMPLES = 2000
INTERVAL = (0.05, 0.95)  # a 90% interval
SPREAD = 5  # settings of one seed that a spread needs, in each family
REACH = 100.0  # an extrapolation further than this factor beyond the data is not reported


@dataclass(frozen=True)
class Trend:
    """Where a power law through the end of the frontier would meet the reference's best loss."""

    exponent: float  # loss ~ compute ** -exponent over the fitted range
    start: float  # compute at which the fitted range begins
    compute: float  # infinite: they do not meet within REACH times the compute trained
    low: float | None
    high: float | None
    epochs: float | None


@dataclass(frozen=True)
class Crossover:
    """Compute in FLOPs; `low`, `high` a 90% interval (infinite: open), None without one."""

    reference: str
    challenger: str
    unique_tokens: float
    basis: str  # the losses that it is read from: TRACKED, FINAL or LISTED
    kinds: tuple[str, str]  # of the reference's losses and the challenger's
    trials: int  # settings tried of the reference
    axis: str
    status: str  # CROSSES, FROM_START, BETWEEN, NEVER or TOO_FEW
    compute: float | None
    low: float | None
    high: float | None
    over: str  # what was resampled: seeds, settings, or ""
    share: float | None  # of the resamples, those that cross (or are below from the start)
    epochs: float | None  # of the challenger at the crossing
    start: float  # the first compute at which both families are known
    end: float  # the largest compute compared
    gap: float  # challenger minus reference there, nats per token
    gap_stderr: float | None
    windows: tuple[tuple[float, float], ...]  # of compute, where the challenger is below
    reference_end: float  # the largest compute of the reference's runs; beyond, its best stands
    plateau: bool  # the reference's best comes before that: more compute did not help it
    trend: Trend | None  # only if the frontiers do not cross


# --- the crossing ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)  # losses are records compared by identity
def crossover(reference: FamilyLosses, challenger: FamilyLosses, axis: str = "flops") -> Crossover:
    """The compute at which the challenger's frontier falls below the reference's and stays below.

    `axis` names how compute is counted in the losses given. The head of this file has the definition
    and the interval.
    """
    a, b = frontier(reference), frontier(challenger)
    lines = tuple((np.log(f.compute), f.loss) for f in (a, b))
    x, gap = _gaps(*lines)
    at = _crossing(x, gap)
    status = _status(gap, at)
    windows = _windows(x, gap)
    fit = _fit_range(lines[1][0])
    end = math.exp(at) if math.isfinite(at) else math.exp(x[-1])
    there = [f.settings[line.setting_at(end)] for f, line in ((reference, a), (challenger, b))]
    over = "seeds" if any(len(setting.seeds) > 1 for setting in there) else ""
    if not over and min(len(reference.settings), len(challenger.settings)) >= SPREAD:
        over = "settings"
    low = high = share = None
    samples = None
    if over and status != TOO_FEW:
        wide = _widening(there) if over == "seeds" else 1.0
        crossings, target, loss = _resampled(reference, challenger, over, wide, fit)
        samples = (target, loss)
        share = float(np.isfinite(crossings).mean())
        low, high = _interval(crossings)
        if over == "settings" and status == CROSSES:
            around = x[np.searchsorted(x, at) - 1], x[np.searchsorted(x, at)]
            low, high = min(low, math.exp(around[0])), max(high, math.exp(around[1]))
    trend = None
    if status in (NEVER, BETWEEN):
        trend = _trend(fit, float(x[-1]), float(a.loss[-1]), lines[1], samples)
        trend = dataclasses.replace(trend, epochs=_epochs(challenger, b, trend.compute))
    crossed = math.isfinite(at) and status != TOO_FEW
    errors = [f.stderr[-1] for f in (a, b) if math.isfinite(f.stderr[-1])]
    ends = float(a.compute[-1]), float(b.compute[-1])
    return Crossover(
        reference=reference.family,
        challenger=challenger.family,
        unique_tokens=reference.unique_tokens,
        basis=reference.basis,
        kinds=(reference.kind, challenger.kind),
        trials=reference.trials,
        axis=axis,
        status=status,
        compute=math.exp(at) if crossed else None,
        low=low,
        high=high,
        over=over,
        share=share,
        epochs=_epochs(challenger, b, math.exp(at)) if crossed else None,
        start=math.exp(x[0]),
        end=max(ends),
        gap=float(gap[-1]),
        gap_stderr=float(np.hypot.reduce(errors)) if errors else None,
        windows=windows,
        reference_end=ends[0],
        plateau=len(a.loss) > 1 and bool(a.loss[-1] == a.loss[-2]),
        trend=trend,
    )


def _gaps(a: Line, b: Line) -> Line:
    """b minus a wherever either has a point, from the first compute at which both are known."""
    x = np.unique(np.concatenate([a[0], b[0]]))
    x = x[x >= max(a[0][0], b[0][0])]
    return x, np.interp(x, *b) - np.interp(x, *a)


def _status(gap: np.ndarray, crossing: float) -> str:
    if len(gap) < 2:
        return TOO_FEW
    if math.isfinite(crossing):
        return CROSSES if (gap >= 0).any() else FROM_START
    return BETWEEN if (gap < 0).any() else NEVER


def _crossing(x: np.ndarray, gap: np.ndarray) -> float:
    """Log compute after which `gap` [G] stays below zero; infinite if it does not end below."""
    if not gap[-1] < 0:
        return math.inf
    above = np.flatnonzero(gap >= 0)
    return _zero(x, gap, int(above[-1])) if len(above) else float(x[0])


def _zero(x: np.ndarray, gap: np.ndarray, i: int) -> float:
    """Where the line from point i to point i + 1 is zero."""
    return float(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1]))


def _windows(x: np.ndarray, gap: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The ranges of compute in which `gap` [G] is below zero."""
    below = gap < 0
    ends = [_zero(x, gap, int(i)) for i in np.flatnonzero(below[1:] != below[:-1])]
    ends = [float(x[0]), *ends] if below[0] else ends
    ends = [*ends, float(x[-1])] if below[-1] else ends
    return tuple((math.exp(p), math.exp(q)) for p, q in zip(ends[::2], ends[1::2], strict=True))


def _resampled(
    reference: FamilyLosses, challenger: FamilyLosses, over: str, wide: float, fit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of resampled frontiers: log C of the crossing [R], the reference's best [R], and the
    challenger's losses at `fit` [R, K]."""
    rng = np.random.default_rng(0)
    draws = [_drawn(means_of(family), over, wide, rng) for family in (reference, challenger)]
    crossings, target, loss = [], [], []
    for a, b in zip(*draws, strict=True):
        crossings.append(_crossing(*_gaps(a, b)))
        target.append(a[1][-1])
        loss.append(np.interp(fit, *b, left=math.nan))
    return np.array(crossings), np.array(target), np.stack(loss)


def _widening(settings: list[SettingLosses]) -> float:
    """The factor by which few seeds widen a 90% interval of resampled means.

    Student's t over the normal quantile, of the seeds of the settings that lead at the crossing: the
    expanded percentile interval (Hesterberg 2015, arXiv 1411.5279, section 5).
    """
    from scipy.special import ndtri, stdtrit

    freedom = sum(len(setting.seeds) - 1 for setting in settings)
    return float(stdtrit(freedom, INTERVAL[1]) / ndtri(INTERVAL[1]))


def _drawn(means: Means, over: str, wide: float, rng: np.random.Generator) -> Iterator[Line]:
    """Lines of a family whose seeds, or whose settings, are drawn anew.

    `wide` stretches the deviation of a mean over drawn seeds; resampled means of S seeds scatter
    too little by sqrt((S - 1) / S), which is put right for each setting.
    """
    row, count = means.row, len(means.seeds)
    if over == "settings":
        for drawn in rng.integers(0, count, (RESAMPLES, count)):
            present = np.bincount(drawn, minlength=count)[means.setting] > 0
            yield lowest_line(means.x[present], row[present])[:2]
        return
    several = [k for k, losses in enumerate(means.seeds) if len(losses) > 1]
    weights = []
    for k in several:
        seeds = len(means.seeds[k])
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
        stretch = wide * math.sqrt(seeds / (seeds - 1))
        weights.append(1 / seeds + stretch * (drawn - 1 / seeds))
    for r in range(RESAMPLES):
        for k, weight in zip(several, weights, strict=True):
            row[means.places[k]] = weight[r] @ means.seeds[k]
        yield lowest_line(means.x, row)[:2]


def _interval(log_compute: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(log_compute, INTERVAL, method="inverted_cdf")  # keeps infinity whole
    return math.exp(low), math.exp(high)


def _epochs(family: FamilyLosses, line: Frontier, compute: float) -> float | None:
    """Epochs at which the setting on the frontier has spent `compute`."""
    if not math.isfinite(compute):
        return None
    run = family.settings[line.setting_at(compute)].seeds[0]
    return float(compute * run.epochs[-1] / run.compute[-1])


# --- the trend, where they do not cross ---------------------------------------------------------


def _fit_range(x: np.ndarray) -> np.ndarray:
    """32 points of log compute, evenly over the last decade or the last half, if that is less."""
    span = min(math.log(10), (x[-1] - x[0]) / 2)
    return np.linspace(x[-1] - span, x[-1], 32) if span > 0 else x[-1:]


def _trend(
    fit: np.ndarray,
    end: float,
    target: float,
    line: Line,
    samples: tuple[np.ndarray, np.ndarray] | None,
) -> Trend:
    """A straight line of log loss on log compute over `fit`, carried on until it meets `target`.

    There is no floor in this law, so it errs towards crossing; REACH bounds what is believed.
    """
    loss = np.interp(fit, *line)
    meets, exponent = _meets(fit, loss[None], np.array([target]), end)
    low, high = None, None
    if samples is not None:
        low, high = _interval(_meets(fit, samples[1], samples[0], end)[0])
    return Trend(float(exponent[0]), math.exp(fit[0]), math.exp(meets[0]), low, high, None)


def _meets(
    fit: np.ndarray, loss: np.ndarray, target: np.ndarray, end: float
) -> tuple[np.ndarray, np.ndarray]:
    """Log compute at which lines through `loss` [R, K] reach `target` [R], and their exponents."""
    known = np.isfinite(loss).all(1)
    if len(fit) < 3:
        return np.full(len(loss), math.inf), np.zeros(len(loss))
    centre = fit - fit.mean()
    y = np.log(loss)
    slope = y @ centre / (centre @ centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = fit.mean() + (np.log(target) - y.mean(1)) / slope
    x = np.where((slope < 0) & known, np.maximum(x, end), math.inf)
    return np.where(x <= end + math.log(REACH), x, math.inf), -slope
