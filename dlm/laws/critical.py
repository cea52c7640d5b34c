"""The critical compute: where diffusion's compute-optimal loss meets autoregression's, given U.

Prabhudesai et al. 2025 (arXiv 2507.15857), section 3.3. At compute C = 6ND and U unique tokens each
family trains the N (and so the D and the epochs D/U) that its own law finds best; C_crit(U) is where
the two losses meet. All counts are raw: the paper's first version printed 2.12e15 U^2.174 for U in
millions, which for raw tokens is 2.12 * 10^1.956 * U^2.174.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dlm.errors import DlmError
from dlm.format import between, number, scientific
from dlm.laws.compute_optimal import optimal, rises, spend_all
from dlm.laws.crossings import BETWEEN, CROSSES, FROM_START, NEVER
from dlm.laws.fits import LEVEL
from dlm.laws.forms import Law
from dlm.laws.intervals import interval, widened
from dlm.laws.optimum import chinchilla_optimum
from dlm.laws.table import Ranges

CONVENTIONS = ("kept", "dropped")  # the irreducible loss E
MILLIONS = 1e5
POINTS = 61  # computes at which the gap is evaluated before its zeros are refined


class Fitted(Protocol):
    """A fit, or coefficients from elsewhere (`Constants`)."""

    @property
    def law(self) -> Law: ...
    @property
    def coefficients(self) -> dict[str, float]: ...
    @property
    def samples(self) -> dict[str, np.ndarray]: ...
    @property
    def free(self) -> tuple[str, ...]: ...
    @property
    def ranges(self) -> Ranges | None: ...


@dataclass(frozen=True, eq=False)
class Constants:
    """A law with coefficients from elsewhere: a file, or a published fit."""

    law: Law
    coefficients: dict[str, float]
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    share: float = LEVEL  # share of the samples that an interval holds (`intervals.widened`)
    fixed: tuple[str, ...] = ()  # coefficients that were given to the fit, not fitted
    ranges: Ranges | None = None  # of the runs behind the law; None: unknown

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in self.law.names if name not in self.fixed)


@dataclass(frozen=True)
class Critical:
    """C_crit at U in FLOPs: above it the challenger stays below; NaN if there is none."""

    unique_tokens: float
    irreducible: str  # kept or dropped
    status: str  # CROSSES, FROM_START, BETWEEN or NEVER
    compute: float
    low: float  # a 90% interval by joint bootstrap: infinite, open; NaN, no samples
    high: float
    share: float  # of the resamples, those that cross
    searched: tuple[float, float]
    epochs: tuple[float, float]  # of the reference and of the challenger at this compute
    params: tuple[float, float]
    windows: tuple[tuple[float, float], ...] = ()  # of compute, where the challenger is below
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PowerLaw:
    """C_crit = 10^intercept * U^exponent, U in raw tokens; intervals by joint bootstrap."""

    irreducible: str
    exponent: float
    exponent_low: float
    exponent_high: float
    intercept: float
    intercept_low: float
    intercept_high: float
    share: float  # of the resamples, those that cross at every U
    points: tuple[Critical, ...]

    @property
    def inverse(self) -> tuple[float, float]:
        """Slope and intercept of log10 U against log10 C."""
        return 1 / self.exponent, -self.intercept / self.exponent


# --- the crossing -------------------------------------------------------------------------------


def critical(
    reference: Fitted,
    challenger: Fitted,
    unique_tokens: float,
    *,
    drop: bool = False,
    searched: tuple[float, float] = (0.0, 0.0),
) -> Critical:
    """The compute above which the challenger's optimum lies below the reference's.

    `searched`: the computes to look at, by default from 1/100 to 10^10 times that of one epoch at
    U/10^4 parameters. The interval resamples both fits, sample by sample.

    Raises:
      DlmError: U is no positive number.
    """
    U = float(unique_tokens)
    if not (math.isfinite(U) and U > 0):
        raise DlmError(f"unique_tokens={unique_tokens!r}: must be a positive number of raw tokens")
    warning = millions(U, reference, challenger)
    once = 6 * U * max(U * 1e-4, 1.0)  # the compute at which a run of U/10^4 parameters has seen U
    span = searched if searched[1] > 0 else (once * 1e-2, once * 1e10)
    low = high = share = math.nan
    if reference.samples and challenger.samples:
        crossings = _resampled_crossings(reference, challenger, U, span, drop)
        wide = widened(LEVEL, reference, challenger)
        low, high = (math.exp(v) for v in interval(crossings, wide))
        share = float(np.isfinite(crossings).mean())
    windows = _windows(reference, challenger, U, span, drop)
    C, status = math.nan, NEVER
    if windows:
        C = windows[-1][0] if windows[-1][1] >= span[1] else math.nan
        status = BETWEEN if math.isnan(C) else CROSSES
        status = FROM_START if span[0] >= C else status
    at = C if status == CROSSES else span[1]
    ends = [optimal(f.law, f.coefficients, at, U, drop=drop) for f in (reference, challenger)]
    point = Critical(
        unique_tokens=U,
        irreducible=CONVENTIONS[drop],
        status=status,
        compute=C,
        low=low,
        high=high,
        share=share,
        searched=span,
        epochs=(float(ends[0].epochs), float(ends[1].epochs)),
        params=(float(ends[0].params), float(ends[1].params)),
        windows=windows,
    )
    notes = (warning, *_cautions(point, reference, challenger))
    return dataclasses.replace(point, notes=tuple(n for n in notes if n))


def _cautions(point: Critical, *fits: Fitted) -> list[str]:
    """What this crossing rests on beyond the runs."""
    cautions = []
    if len(point.windows) > 1 or point.status == BETWEEN:
        pieces = " and ".join(between(low, high) for low, high in point.windows)
        cautions.append(f"the challenger is below from {pieces} FLOPs")
    known = [(f.ranges, e) for f, e in zip(fits, point.epochs, strict=True) if f.ranges]
    if not known:
        return cautions
    if point.status == CROSSES:
        reach = min(trained.flops[1] for trained, _ in known)
        if point.compute > reach:
            times = number(point.compute / reach, 2)
            cautions.append(f"extrapolated {times} times beyond {scientific(reach)} FLOPs")
        if any(epochs > trained.epochs[1] * 1.01 for trained, epochs in known):
            most = " and ".join(number(trained.epochs[1]) for trained, _ in known)
            cautions.append(f"beyond the epochs trained ({most})")
    low = min(trained.unique_tokens[0] for trained, _ in known)
    high = max(trained.unique_tokens[1] for trained, _ in known)
    if not low * 0.99 <= point.unique_tokens <= high * 1.01:
        cautions.append(f"U outside the trained {between(low, high)}")
    return cautions


def _resamples(*fits: Fitted) -> list[dict[str, np.ndarray]]:
    """The resampled coefficients of each fit, as many of each: [S]."""
    count = min(len(next(iter(f.samples.values()))) for f in fits)
    return [{k: v[:count] for k, v in f.samples.items()} for f in fits]


@dataclass(frozen=True, eq=False)
class _Gap:
    """Where the challenger's optimum is not below the reference's, for S sets of coefficients."""

    fits: tuple[Fitted, Fitted]
    values: Sequence[Mapping[str, np.ndarray]]  # of each fit, [S]
    unique: float
    drop: bool
    grid: np.ndarray  # log C, [G]
    losses: tuple[np.ndarray, ...]  # of each fit at its optimum, [S, G]
    above: np.ndarray  # [S, G]

    def change(self, samples: np.ndarray, k: np.ndarray) -> np.ndarray:
        """Log C between grid points k and k + 1 of these samples at which the sign changes."""
        low, high, first = self.grid[k], self.grid[k + 1], self.above[samples, k]
        columns = [{n: v[samples] for n, v in each.items()} for each in self.values]
        floors = [loss[samples, k] for loss in self.losses]
        for _ in range(30):
            middle = (low + high) / 2
            reached = []
            for f, each, floor in zip(self.fits, columns, floors, strict=True):
                loss = spend_all(f.law, each, np.exp(middle), self.unique, self.drop).loss
                reached.append(np.minimum(loss, floor) if rises(f.law) else loss)
            same = (reached[1] >= reached[0]) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return (low + high) / 2


def _gap(
    fits: tuple[Fitted, Fitted],
    values: Sequence[Mapping[str, np.ndarray]],
    U: float,
    span: tuple[float, float],
    drop: bool,
) -> _Gap:
    grid = np.linspace(math.log(span[0]), math.log(span[1]), POINTS)
    losses = []
    for f, each in zip(fits, values, strict=True):
        columns = {k: v[:, None] for k, v in each.items()}
        loss = spend_all(f.law, columns, np.exp(grid), U, drop).loss
        losses.append(np.minimum.accumulate(loss, axis=1) if rises(f.law) else loss)
    above = losses[1] >= losses[0]
    return _Gap(fits, values, U, drop, grid, tuple(losses), above)


def _resampled_crossings(
    a: Fitted, b: Fitted, U: float, span: tuple[float, float], drop: bool
) -> np.ndarray:
    """Log C above which b stays below a, for each resample; infinite: nowhere."""
    gap = _gap((a, b), _resamples(a, b), U, span, drop)
    above, grid = gap.above, gap.grid
    last = np.where(above.any(1), len(grid) - 1 - above[:, ::-1].argmax(1), -1)
    log_compute = np.full(len(above), np.inf)
    log_compute[last < 0] = grid[0]
    inside = np.flatnonzero((last >= 0) & (last < len(grid) - 1))
    if len(inside):
        log_compute[inside] = gap.change(inside, last[inside])
    return log_compute


def _windows(
    a: Fitted, b: Fitted, U: float, span: tuple[float, float], drop: bool
) -> tuple[tuple[float, float], ...]:
    """The ranges of C in which b is below a."""
    values = [{k: np.full(1, v) for k, v in f.coefficients.items()} for f in (a, b)]
    gap = _gap((a, b), values, U, span, drop)
    above = gap.above[0]
    k = np.flatnonzero(above[1:] != above[:-1])
    changes = np.exp(gap.change(np.zeros(len(k), int), k)) if len(k) else np.zeros(0)
    ends = [float(c) for c in changes]
    ends = ends if above[0] else [span[0], *ends]
    ends = ends if above[-1] else [*ends, span[1]]
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def critical_law(
    reference: Fitted,
    challenger: Fitted,
    unique_tokens: Any,
    *,
    drop: bool = False,
    points: Sequence[Critical] = (),
) -> PowerLaw:
    """C_crit(U) as a power law through the crossings at several U, by least squares in logs.

    `points`: the crossings, if they are known already.

    Raises:
      DlmError: fewer than two of the U cross.
    """
    points = points or [critical(reference, challenger, u, drop=drop) for u in unique_tokens]
    crossing = [p for p in points if p.status == CROSSES]
    if len(crossing) < 2:
        raise DlmError(
            f"the laws cross at {len(crossing)} of {len(points)} values of U: no power law"
        )
    U = np.log10([p.unique_tokens for p in crossing])
    slope, start = np.polyfit(U, np.log10([p.compute for p in crossing]), 1)
    bounds, share = [(math.nan, math.nan)] * 2, math.nan
    if reference.samples and challenger.samples:
        resampled = [
            _resampled_crossings(reference, challenger, p.unique_tokens, p.searched, drop)
            for p in crossing
        ]
        logs = np.stack(resampled, axis=1) / math.log(10)
        whole = np.isfinite(logs).all(1)
        share = float(whole.mean())
        centred = U - U.mean()
        slopes = logs[whole] @ centred / (centred @ centred)
        wide = widened(LEVEL, reference, challenger)
        starts = logs[whole].mean(1) - slopes * U.mean()
        bounds = [interval(v, wide) for v in (slopes, starts)]
    ends = (float(slope), *bounds[0], float(start), *bounds[1])
    return PowerLaw(CONVENTIONS[drop], *ends, share, tuple(points))


def closed_form(reference: Fitted, challenger: Fitted) -> float:
    """C at which two fresh-data optima meet, E left out: (K_b/K_a)^(1/(g_b - g_a)).

    L_opt(C) = K C^-g with g = alpha beta/(alpha + beta) (Hoffmann et al., equation 4); NaN if the
    exponents are equal or nearly so.
    """
    (K_a, g_a), (K_b, g_b) = (_fresh_optimum(f) for f in (reference, challenger))
    if abs(g_a - g_b) < 1e-12:
        return math.nan
    log = math.log(K_b / K_a) / (g_b - g_a)
    return math.exp(log) if abs(log) < 700 else math.nan


def _fresh_optimum(f: Fitted) -> tuple[float, float]:
    c = f.law.complete(f.coefficients)
    N, D = chinchilla_optimum(c, 1.0)
    return c.A / N**c.alpha + c.B / D**c.beta, c.alpha * c.beta / (c.alpha + c.beta)


def millions(U: float, *fits: Fitted) -> str:
    """Warns if U can only be meant in millions, also by a Python warning; else ""."""
    scale = max(float(_typical_params(f)) for f in fits)
    if U >= MILLIONS or scale < 1e6:
        return ""
    text = (
        f"unique_tokens={U:g} with laws of paper scale: U is in raw tokens here, so write "
        f"{U * 1e6:g} for {U:g} million. The paper's first version gave C_crit = 2.12e15 U^2.174 for "
        "U in millions; with raw tokens the factor is 2.12 * 10^1.956, and mixing the two is wrong "
        "by 10^13"
    )
    warnings.warn(text, stacklevel=3)
    return text


def _typical_params(f: Fitted) -> float:
    """The model size that a law describes: the median of its runs.

    Without runs the data term decides: at 10^5 tokens it is many nats in laws of paper scale (B =
    900, beta = 0.3: 28), not in those of a laptop.
    """
    if f.ranges:
        return f.ranges.typical_params
    c = f.law.complete(f.coefficients)
    return 1e8 if c.B / MILLIONS**c.beta > 10 else 0.0
