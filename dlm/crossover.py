"""The critical compute: where one family's frontier falls below another's, and how sure that is.

The frontier of a family at compute C is the best validation loss reached at or below C: per seed
the running minimum of its curve, averaged over the seeds of a setting, then the lowest over
settings. Between evaluations it is a straight line in log compute. Curves are the losses tracked
while training; the final comparison uses the best weights on the whole validation split.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass

import numpy as np

from dlm.likelihood import Comparison, Estimate, compare
from dlm.runs import Family, Panel, Run, Setting, setting_of

REFERENCE = "ar"  # the family that the others have to pass
EQUAL = "ar at equal settings"
NAMES = {
    "ar": "AR",
    EQUAL: "AR at equal settings",
    "orders": "AR in several orders",
    "noise": "AR with noise",
    "any_order": "any-order AR",
    "masked": "masked diffusion",
    "block": "block diffusion",
    "d3pm": "jump diffusion",
    "flow": "flow matching",
    "gaussian": "Gaussian diffusion",
}
RESAMPLES = 2000
INTERVAL = (0.05, 0.95)  # a 90% interval
REACH = 100.0  # an extrapolation further than this factor beyond the data is not reported


def name_of(objective: str) -> str:
    return NAMES.get(objective, objective)


@dataclass(frozen=True, eq=False)
class Frontier:
    """Best loss at or below each compute, [G]; NaN where no run has spent so little."""

    compute: np.ndarray
    loss: np.ndarray
    stderr: np.ndarray  # over seeds; NaN for a single seed
    setting: np.ndarray  # index into family.settings


@dataclass(frozen=True)
class Trend:
    """Where a power law through the end of the frontier would meet the reference's best."""

    exponent: float  # loss ~ compute ** -exponent over the fitted range
    start: float  # compute at which the fitted range begins
    compute: float  # infinite: it does not within REACH times the compute trained
    low: float | None
    high: float | None
    epochs: float | None


@dataclass(frozen=True)
class Crossover:
    """Compute in FLOPs; `low`, `high` a 90% interval (infinite: open), None without seeds."""

    reference: str
    challenger: str
    axis: str
    status: str  # crosses, below from the start, not crossed
    compute: float | None
    low: float | None
    high: float | None
    share: float | None  # of the resamples, those that cross (or are below from the start)
    epochs: float | None  # of the challenger at the crossing
    end: float  # the largest compute compared
    gap: float  # challenger minus reference there, nats per token
    gap_stderr: float | None
    plateau: bool  # the reference's best comes before its last evaluation: more would not help it
    trend: Trend | None  # when not crossed


@dataclass(frozen=True)
class Final:
    """Best setting against best setting: best weights, whole validation split."""

    reference: str
    challenger: str
    reference_estimate: Estimate
    challenger_estimate: Estimate
    comparison: Comparison  # challenger minus reference
    stderr_seeds: float | None
    stderr_windows: float
    paired: bool  # stderr_windows is of the per-window differences
    clustered: bool  # and the windows of one document were taken together


# --- frontiers ----------------------------------------------------------------------------------


def compute_of(run: Run, axis: str = "flops") -> np.ndarray:
    """Cumulative training FLOPs at each evaluation, [E]: analytic, or as 6ND."""
    ratio = run.result["flops_6nd"] / run.result["flops"] if axis == "flops_6nd" else 1.0
    return run.curve.flops * ratio


def _seed_curves(setting: Setting, grid: np.ndarray, axis: str) -> np.ndarray:
    """Running minima of the seeds on a grid of log compute, [S, G]; NaN before the first."""
    return np.stack(
        [
            np.interp(
                grid,
                np.log(compute_of(run, axis)),
                np.minimum.accumulate(run.curve.validation_loss),
                left=math.nan,
            )
            for run in setting.runs
        ]
    )


def _grid(families: list[Family], axis: str) -> np.ndarray:
    """Log compute of every evaluation of these families."""
    runs = [run for family in families for setting in family.settings for run in setting.runs]
    return np.unique(np.concatenate([np.log(compute_of(run, axis)) for run in runs]))


def _lowest(rows: np.ndarray) -> np.ndarray:
    """Minimum over the first axis that ignores NaN and stays NaN where all are."""
    return np.fmin.reduce(rows, axis=0)


def frontier(family: Family, axis: str = "flops", grid: np.ndarray | None = None) -> Frontier:
    """The family's frontier at its own evaluations, or on a grid of log compute."""
    grid = _grid([family], axis) if grid is None else grid
    curves = [_seed_curves(setting, grid, axis) for setting in family.settings]
    means = np.stack([c.mean(0) for c in curves])
    errors = np.stack(
        [
            c.std(0, ddof=1) / math.sqrt(len(c)) if len(c) > 1 else np.full(len(grid), math.nan)
            for c in curves
        ]
    )
    which = np.where(np.isnan(means), math.inf, means).argmin(0)
    at = (which, np.arange(len(grid)))
    return Frontier(np.exp(grid), means[at], errors[at], which)


# --- the crossing -------------------------------------------------------------------------------


def crossovers(panel: Panel, axis: str = "flops") -> list[Crossover]:
    """Each family of a panel against the reference; empty without one or without challengers."""
    if REFERENCE not in panel.families:
        return []
    reference = panel.families[REFERENCE]
    others = [family for name, family in panel.families.items() if name != REFERENCE]
    return [crossover(reference, family, axis) for family in others]


# What two runs at equal settings may differ in: the objective, and how long it is worth training.
FREE = ("objective", "evaluation", "train.duration")


def equally_set(panel: Panel, challenger: Family) -> Family | None:
    """The reference at the settings of the challenger's best, or None where it has no such run.

    The paper compares the families so: one set of hyper-parameters, tuned for neither. Where the
    reference has been tried at these settings alone it is the whole family, and None too.
    """
    reference = panel.families.get(REFERENCE)
    if reference is None:
        return None
    shared = _shared(challenger.best)
    equal = tuple(setting for setting in reference.settings if _shared(setting) == shared)
    if not equal or len(equal) == len(reference.settings):
        return None
    return Family(EQUAL, reference.kind, equal, len(equal))


@functools.lru_cache(maxsize=64)
def _shared(setting: Setting) -> str:
    kept = setting_of(setting.runs[0].config)
    for name in FREE:
        *groups, last = name.split(".")
        group = kept[groups[0]] if groups else kept
        group.pop(last, None)
    return json.dumps(kept, sort_keys=True)


def equal_crossovers(panel: Panel, axis: str = "flops") -> list[Crossover]:
    """Each challenger against the reference at the challenger's own settings."""
    pairs = [(equally_set(panel, f), f) for name, f in panel.families.items() if name != REFERENCE]
    return [crossover(reference, family, axis) for reference, family in pairs if reference]


@functools.lru_cache(maxsize=64)  # families are records compared by identity
def crossover(reference: Family, challenger: Family, axis: str = "flops") -> Crossover:
    """The compute at which the challenger's frontier falls below the reference's and stays below.

    Uncertainty is a bootstrap over seeds, setting by setting, with a fixed generator; a resample
    that does not cross counts as an infinite crossing, so it opens the interval upwards.
    """
    grid = _grid([reference, challenger], axis)
    fit = _fit_range(_grid([challenger], axis))
    both = np.unique(np.concatenate([grid, fit]))
    a, b = frontier(reference, axis, both), frontier(challenger, axis, both)
    x = _crossing(both, b.loss - a.loss)
    settings = [*reference.settings, *challenger.settings]
    seeded = any(setting.seeds > 1 for setting in settings)
    rng = np.random.default_rng(0)
    sample_a = _resampled(reference, both, axis, rng)
    sample_b = _resampled(challenger, both, axis, rng)
    crossings = np.array([_crossing(both, q - p) for p, q in zip(sample_a, sample_b, strict=True)])
    low, high = _interval(crossings) if seeded else (None, None)
    gaps = b.loss - a.loss
    common = both[np.isfinite(gaps)]
    status = "not crossed"
    if math.isfinite(x):
        status = "below from the start" if x <= common[0] else "crosses"
    trend = None
    if status == "not crossed":
        trend = _trend(both, fit, a.loss[-1], b.loss, (sample_a, sample_b) if seeded else None)
        epochs = _epochs(challenger, b, both, trend.compute, axis)
        trend = dataclasses.replace(trend, epochs=epochs)
    errors = [s[-1] for s in (a.stderr, b.stderr) if math.isfinite(s[-1])]
    return Crossover(
        reference=reference.name,
        challenger=challenger.name,
        axis=axis,
        status=status,
        compute=math.exp(x) if math.isfinite(x) else None,
        low=low,
        high=high,
        share=float(np.isfinite(crossings).mean()) if seeded else None,
        epochs=_epochs(challenger, b, both, math.exp(x), axis),
        end=float(np.exp(both[-1])),
        gap=float(gaps[-1]),
        gap_stderr=float(np.hypot.reduce(errors)) if errors else None,
        plateau=all(
            run.curve.validation_loss.argmin() < len(run.curve.step) - 1
            for run in reference.best.runs
        ),
        trend=trend,
    )


def _crossing(grid: np.ndarray, gap: np.ndarray) -> float:
    """Log compute after which `gap` stays below zero; infinite if it does not end below."""
    known = np.isfinite(gap)
    grid, gap = grid[known], gap[known]
    if not gap[-1] < 0:
        return math.inf
    above = np.flatnonzero(gap >= 0)
    if not len(above):
        return float(grid[0])
    i = above[-1]
    return float(grid[i] + (grid[i + 1] - grid[i]) * gap[i] / (gap[i] - gap[i + 1]))


def _resampled(family: Family, grid: np.ndarray, axis: str, rng: np.random.Generator) -> np.ndarray:
    """Frontiers of resampled seeds, [R, G]."""
    means = []
    for setting in family.settings:
        curves = _seed_curves(setting, grid, axis)
        draws = rng.integers(0, len(curves), (RESAMPLES, len(curves)))
        weights = np.stack([(draws == s).mean(1) for s in range(len(curves))], axis=1)
        means.append(weights @ curves)  # NaN wherever a seed is: before the first evaluation
    return _lowest(np.stack(means))


def _interval(log_compute: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(log_compute, INTERVAL, method="inverted_cdf")  # keeps infinity whole
    return math.exp(low), math.exp(high)


def _epochs(
    family: Family, line: Frontier, grid: np.ndarray, compute: float, axis: str
) -> float | None:
    """Epochs at which the setting on the frontier has spent `compute`."""
    if not math.isfinite(compute):
        return None
    at = min(int(np.searchsorted(grid, math.log(compute))), len(grid) - 1)
    run = family.settings[line.setting[at]].runs[0]
    return float(compute * run.curve.epoch[-1] / compute_of(run, axis)[-1])


# --- the trend, when they have not crossed ------------------------------------------------------


def _fit_range(grid: np.ndarray) -> np.ndarray:
    """32 points of log compute, evenly over the last decade or the last half, if that is less."""
    span = min(math.log(10), (grid[-1] - grid[0]) / 2)
    return np.linspace(grid[-1] - span, grid[-1], 32) if span > 0 else grid[-1:]


def _trend(
    grid: np.ndarray,
    fit: np.ndarray,
    target: float,
    loss: np.ndarray,
    samples: tuple[np.ndarray, np.ndarray] | None,
) -> Trend:
    """A straight line of log loss on log compute over `fit`, carried on until it meets `target`.

    There is no floor in this law, so it errs towards crossing; REACH bounds what is believed.
    """
    at = np.searchsorted(grid, fit)
    meets, exponent = _meets(fit, loss[None, at], np.array([target]), grid[-1])
    low, high = None, None
    if samples is not None:
        low, high = _interval(_meets(fit, samples[1][:, at], samples[0][:, -1], grid[-1])[0])
    return Trend(float(exponent[0]), math.exp(fit[0]), math.exp(meets[0]), low, high, None)


def _meets(
    fit: np.ndarray, loss: np.ndarray, target: np.ndarray, end: float
) -> tuple[np.ndarray, np.ndarray]:
    """Log compute at which lines through `loss` [R, K] reach `target` [R], and their exponents."""
    if len(fit) < 3 or not np.isfinite(loss).all():
        return np.full(len(loss), math.inf), np.zeros(len(loss))
    centre = fit - fit.mean()
    y = np.log(loss)
    slope = y @ centre / (centre @ centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = fit.mean() + (np.log(target) - y.mean(1)) / slope
    x = np.where(slope < 0, np.maximum(x, end), math.inf)
    return np.where(x <= end + math.log(REACH), x, math.inf), -slope


# --- the final numbers --------------------------------------------------------------------------


def estimate(setting: Setting) -> Estimate:
    """Mean final loss over seeds; its standard error is over seeds, of one seed over windows."""
    losses = setting.values("validation_loss")
    stderr = (
        losses.std(ddof=1) / math.sqrt(len(losses))
        if len(losses) > 1
        else setting.values("validation_stderr")[0]
    )
    first = setting.runs[0].result
    return Estimate(float(losses.mean()), float(stderr), first["kind"], first["validation_tokens"])


def finals(panel: Panel) -> list[Final]:
    """The best setting of each family against that of the reference."""
    if REFERENCE not in panel.families:
        return []
    others = [family for name, family in panel.families.items() if name != REFERENCE]
    return [final(panel.families[REFERENCE], family) for family in others]


def final(reference: Family, challenger: Family) -> Final:
    """Challenger minus reference, with the noise of seeds and of windows added in quadrature.

    The seeds of both families are scored on the same windows, so the noise of windows is that of
    the per-window differences where nll.npy is there, and the two standard errors in quadrature
    where it is not, which is too large. Windows of one document go together where
    nll_documents.npy, int [n], says which document each window is of; else each stands alone.
    """
    a, b = estimate(reference.best), estimate(challenger.best)
    seeds = None
    if reference.best.seeds > 1 and challenger.best.seeds > 1:
        seeds = math.hypot(a.stderr, b.stderr)
    per_window = [_per_window(family.best) for family in (reference, challenger)]
    x, y = per_window
    paired = x is not None and y is not None and len(x) == len(y) and len(x) > 1
    documents = _documents(reference.best.runs[0], len(x)) if x is not None and paired else None
    if x is not None and y is not None and paired:
        windows = _stderr(y - x, documents)
    else:
        noise = [f.best.values("validation_stderr").mean() for f in (reference, challenger)]
        windows = math.hypot(*noise)
    names = (name_of(challenger.name), name_of(reference.name))
    total = math.hypot(seeds or 0.0, windows)
    compared = compare(b, a, total, names)
    return Final(
        reference.name,
        challenger.name,
        a,
        b,
        compared,
        seeds,
        windows,
        paired,
        documents is not None,
    )


def _per_window(setting: Setting) -> np.ndarray | None:
    """Nats per token of each validation window, mean over seeds, [n]; None if a seed has none."""
    found = []
    for run in setting.runs:
        nll = _array(run, "nll.npy")
        if nll is None or not np.isfinite(nll).all() or (found and len(nll) != len(found[0])):
            return None
        found.append(nll / run.result["seq_len"])
    return np.mean(found, axis=0)


def _documents(run: Run, windows: int) -> np.ndarray | None:
    documents = _array(run, "nll_documents.npy")
    return documents if documents is not None and len(documents) == windows else None


def _array(run: Run, name: str) -> np.ndarray | None:
    """A one-dimensional array of the run's folder; None where there is none that can be read."""
    try:
        values = np.load(run.path / name, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return values if values.ndim == 1 else None


def _stderr(values: np.ndarray, documents: np.ndarray | None) -> float:
    """Standard error of a mean over windows [n]; cluster-robust where documents are known."""
    if documents is None:
        documents = np.arange(len(values))
    _, cluster = np.unique(documents, return_inverse=True)
    sums = np.bincount(cluster, weights=values - values.mean())
    return math.sqrt(sums @ sums * len(sums) / max(len(sums) - 1, 1)) / len(values)
