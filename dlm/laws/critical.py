"""The critical compute: where diffusion's compute-optimal loss meets autoregression's, given U.

Prabhudesai et al. 2025 (arXiv 2507.15857), section 3.3. At compute C = 6ND and U unique tokens each
family trains the N (and so the D and the epochs D/U) that its own law finds best; C_crit(U) is where
the two losses meet. All counts are raw: the paper's first version printed 2.12e15 U^2.174 for U in
millions, which for raw tokens is 2.12 * 10^1.956 * U^2.174.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dlm.errors import DlmError
from dlm.laws import optimum
from dlm.laws.fits import LEVEL, interval, weights_of, widened
from dlm.laws.forms import Law
from dlm.laws.table import Table

CONVENTIONS = ("kept", "dropped")  # the irreducible loss E
SIZES = (1e2, 1e14)  # the N searched
MILLIONS = 1e5


class Fitted(Protocol):
    """A fit, or coefficients from elsewhere (`Constants`)."""

    @property
    def law(self) -> Law: ...
    @property
    def coefficients(self) -> dict[str, float]: ...
    @property
    def samples(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Constants:
    """A law with coefficients that were not fitted here."""

    law: Law
    coefficients: dict[str, float]
    samples: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimum:
    """The best use of a compute budget."""

    loss: np.ndarray
    params: np.ndarray
    epochs: np.ndarray


@dataclass(frozen=True)
class Critical:
    """C_crit at U in FLOPs; NaN where the laws do not cross within `searched`."""

    unique_tokens: float
    irreducible: str  # kept or dropped
    status: str  # crosses, below from the start, does not cross
    compute: float
    low: float  # a 90% interval by joint bootstrap: infinite, open; NaN, no samples
    high: float
    share: float  # of the resamples, those that cross
    searched: tuple[float, float]
    epochs: tuple[float, float]  # of the reference and of the challenger there
    params: tuple[float, float]
    note: str = ""


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
    points: tuple[Critical, ...]

    @property
    def inverse(self) -> tuple[float, float]:
        """Slope and intercept of log10 U against log10 C."""
        return 1 / self.exponent, -self.intercept / self.exponent


# --- the best use of compute --------------------------------------------------------------------


def optimal(
    law: Law, values: Mapping[str, Any], compute: Any, unique: Any, *, drop: bool = False
) -> Optimum:
    """The N that a law finds best at each C and U, by search; shapes broadcast.

    Where D = C/6N is below U, only D of the unique tokens are used, once. `drop` leaves the
    irreducible loss out.

    Raises:
      DlmError: the law has no size term.
    """
    if "A" not in law.names:
        raise DlmError(f"{law.name} has no size term, so no size is the best at a compute")
    C, U = np.broadcast_arrays(np.asarray(compute, float), np.asarray(unique, float))
    shaped = {k: np.asarray(v, float)[..., None] for k, v in values.items()}
    if drop:
        shaped["E"] = np.zeros_like(shaped["E"])
    shape = np.broadcast_shapes(C.shape, *(v.shape[:-1] for v in shaped.values()))
    low = np.full(shape, math.log(SIZES[0]))
    high = np.full(shape, math.log(SIZES[1]))
    at = np.linspace(0, 1, 25)
    best = np.zeros(shape, int)
    loss = x = np.zeros((*shape, 1))
    for _ in range(7):  # each narrows the range twelvefold
        x = low[..., None] + (high - low)[..., None] * at
        N = np.exp(x)
        D = C[..., None] / (6 * N)
        loss = law.predict(shaped, N, D, np.minimum(U[..., None], D))
        loss = np.where(np.isfinite(loss), loss, np.inf)
        best = loss.argmin(-1)
        step = (high - low) / (len(at) - 1)
        middle = np.take_along_axis(x, best[..., None], -1)[..., 0]
        low, high = middle - step, middle + step
    N = np.exp(np.take_along_axis(x, best[..., None], -1)[..., 0])
    D = C / (6 * N)
    return Optimum(np.take_along_axis(loss, best[..., None], -1)[..., 0], N, D / np.minimum(U, D))


def _gap(a: Fitted, b: Fitted, va: Any, vb: Any, C: Any, U: Any, drop: bool) -> np.ndarray:
    """Challenger minus reference, nats per token."""
    return optimal(b.law, vb, C, U, drop=drop).loss - optimal(a.law, va, C, U, drop=drop).loss


# --- the crossing -------------------------------------------------------------------------------


def critical(
    reference: Fitted,
    challenger: Fitted,
    unique_tokens: float,
    *,
    drop: bool = False,
    searched: tuple[float, float] = (0.0, 0.0),
    level: float = LEVEL,
) -> Critical:
    """The compute above which the challenger's optimum lies below the reference's.

    `searched` defaults to from one parameter-token match at U/100 to 10^5 times the compute at
    which the reference has seen U once. The interval resamples both fits, sample by sample.

    Raises:
      DlmError: U is no positive number.
    """
    U = float(unique_tokens)
    if not (math.isfinite(U) and U > 0):
        raise DlmError(f"unique_tokens={unique_tokens!r}: must be a positive number of raw tokens")
    note = millions(U, reference, challenger)
    span = searched if searched[1] > 0 else _span(reference, U)
    x = _cross(reference, challenger, None, U, span, drop)[0]
    low = high = share = math.nan
    if reference.samples and challenger.samples:
        found = _cross(reference, challenger, _count(reference, challenger), U, span, drop)
        wide = widened(level, reference, challenger)
        low, high = (math.exp(v) for v in interval(found, wide))
        share = float(np.isfinite(found).mean())
    crosses = math.isfinite(x)
    status = "crosses" if crosses else "does not cross"
    if crosses and x <= math.log(span[0]) + 1e-9:
        status = "below from the start"
    C = math.exp(x) if crosses else math.nan
    ends = [
        optimal(f.law, f.coefficients, C if crosses else span[1], U, drop=drop)
        for f in (reference, challenger)
    ]
    return Critical(
        U,
        CONVENTIONS[drop],
        status,
        C,
        low,
        high,
        share,
        span,
        (float(ends[0].epochs), float(ends[1].epochs)),
        (float(ends[0].params), float(ends[1].params)),
        note,
    )


def _span(reference: Fitted, U: float) -> tuple[float, float]:
    once = 6 * U * max(U * 1e-4, 1.0)
    return once * 1e-2, once * 1e10


def _count(*fits: Fitted) -> int:
    return min(len(next(iter(f.samples.values()))) for f in fits)


def _cross(
    a: Fitted, b: Fitted, samples: int | None, U: float, span: tuple[float, float], drop: bool
) -> np.ndarray:
    """Log C of the last change from above to below, per sample; infinite: none."""
    n = 1 if samples is None else samples

    def of(f: Fitted) -> dict[str, np.ndarray]:
        if samples is None:
            return {k: np.full(1, v) for k, v in f.coefficients.items()}
        return {k: v[:n] for k, v in f.samples.items()}

    va, vb = of(a), of(b)
    grid = np.linspace(math.log(span[0]), math.log(span[1]), 41)
    wide_a, wide_b = ({k: v[:, None] for k, v in values.items()} for values in (va, vb))
    gaps = _gap(a, b, wide_a, wide_b, np.exp(grid), U, drop)
    above = gaps >= 0
    last = np.where(above.any(1), len(grid) - 1 - above[:, ::-1].argmax(1), -1)
    found = np.full(n, np.inf)
    found[last < 0] = grid[0]
    inside = np.flatnonzero((last >= 0) & (last < len(grid) - 1))
    if len(inside):
        low, high = grid[last[inside]], grid[last[inside] + 1]
        ia, ib = ({k: v[inside] for k, v in values.items()} for values in (va, vb))
        for _ in range(30):
            middle = (low + high) / 2
            up = _gap(a, b, ia, ib, np.exp(middle), U, drop) >= 0
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        found[inside] = (low + high) / 2
    return found


def critical_law(
    reference: Fitted,
    challenger: Fitted,
    unique_tokens: Any,
    *,
    drop: bool = False,
    level: float = LEVEL,
) -> PowerLaw:
    """C_crit(U) as a power law through the crossings at several U, by least squares in logs.

    Raises:
      DlmError: fewer than two of the U cross.
    """
    points = [critical(reference, challenger, u, drop=drop) for u in unique_tokens]
    crossing = [p for p in points if p.status == "crosses"]
    if len(crossing) < 2:
        raise DlmError(
            f"the laws cross at {len(crossing)} of {len(points)} values of U: no power law"
        )
    U = np.log10([p.unique_tokens for p in crossing])
    slope, start = np.polyfit(U, np.log10([p.compute for p in crossing]), 1)
    bounds = [(math.nan, math.nan)] * 2
    if reference.samples and challenger.samples:
        n = _count(reference, challenger)
        logs = np.stack(
            [_cross(reference, challenger, n, p.unique_tokens, p.searched, drop) for p in crossing],
            axis=1,
        ) / math.log(10)
        whole = np.isfinite(logs).all(1)
        centred = U - U.mean()
        slopes = logs[whole] @ centred / (centred @ centred)
        wide = widened(level, reference, challenger)
        starts = logs[whole].mean(1) - slopes * U.mean()
        bounds = [interval(v, wide) for v in (slopes, starts)]
    return PowerLaw(
        CONVENTIONS[drop], float(slope), *bounds[0], float(start), *bounds[1], tuple(points)
    )


def closed_form(reference: Fitted, challenger: Fitted) -> float:
    """C at which two fresh-data optima meet, E left out: (K_b/K_a)^(1/(g_b - g_a)).

    L_opt(C) = K C^-g with g = alpha beta/(alpha + beta) (Hoffmann et al., equation 4); NaN where
    the exponents agree, or nearly.
    """
    (K_a, g_a), (K_b, g_b) = (_fresh_optimum(f) for f in (reference, challenger))
    if abs(g_a - g_b) < 1e-12:
        return math.nan
    log = math.log(K_b / K_a) / (g_b - g_a)
    return math.exp(log) if abs(log) < 700 else math.nan


def _fresh_optimum(f: Fitted) -> tuple[float, float]:
    c = f.law.complete(f.coefficients)
    N, D = optimum.chinchilla_optimum(c, 1.0)
    return c.A / N**c.alpha + c.B / D**c.beta, c.alpha * c.beta / (c.alpha + c.beta)


def millions(U: float, *fits: Fitted) -> str:
    """A warning where U can only be meant in millions; also raised as a Python warning."""
    scale = max(float(_typical(f)) for f in fits)
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


def _typical(f: Fitted) -> float:
    table = getattr(f, "table", None)
    if table is not None:
        return float(np.median(table.N))
    return 1e8 if f.coefficients.get("B", 0) > 1 else 0.0


# --- from runs alone ----------------------------------------------------------------------------


def observed(
    reference: Table, challenger: Table, *, resamples: int = 1000, level: float = LEVEL
) -> list[Critical]:
    """The crossing of the two Pareto frontiers of the runs themselves, for each U in both.

    It can lie no lower than where both have a run; beyond a family's last run its best stands.
    """
    found = []
    for u in np.unique(np.round(np.log(reference.U), 2)):
        a, b = (t.only(np.abs(np.log(t.U) - u) < 0.03) for t in (reference, challenger))
        if not len(a) or not len(b):
            continue
        x, end = _frontiers(a, b, np.ones(len(a)), np.ones(len(b)))
        pairs = zip(weights_of(a, resamples, 0), weights_of(b, resamples, 1), strict=True)
        samples = np.array([_frontiers(a, b, wa, wb)[0] for wa, wb in pairs])
        low, high = (math.exp(v) for v in interval(samples, level))
        start = float(max(a.flops.min(), b.flops.min()))
        status = "crosses" if math.isfinite(x) else "does not cross"
        if x <= math.log(start) + 1e-9:
            status = "below from the start"
        found.append(
            Critical(
                float(np.exp(np.log(a.U).mean())),
                "kept",
                status,
                math.exp(x) if math.isfinite(x) else math.nan,
                low,
                high,
                float(np.isfinite(samples).mean()),
                (start, end),
                (math.nan, math.nan),
                (math.nan, math.nan),
                "from the runs, no law",
            )
        )
    return found


def _frontiers(a: Table, b: Table, wa: np.ndarray, wb: np.ndarray) -> tuple[float, float]:
    """Log C at which b's best so far falls below a's for good, and the last C."""
    rows_a, rows_b = optimum.frontier(a, wa > 0), optimum.frontier(b, wb > 0)
    end = float(max(a.flops.max(), b.flops.max()))
    if a.loss[rows_a[-1]] <= b.loss[rows_b[-1]]:
        return math.inf, end
    events = np.unique(np.concatenate([a.flops[rows_a], b.flops[rows_b]]))
    events = events[events >= max(a.flops[rows_a[0]], b.flops[rows_b[0]])]

    def best(t: Table, rows: np.ndarray) -> np.ndarray:
        at = np.searchsorted(t.flops[rows], events, side="right") - 1
        return np.where(at >= 0, t.loss[rows][np.maximum(at, 0)], np.inf)

    above = np.flatnonzero(best(b, rows_b) >= best(a, rows_a))
    return math.log(events[above[-1] + 1] if len(above) else events[0]), end


# --- what repetition is worth -------------------------------------------------------------------


@dataclass(frozen=True)
class Equivalence:
    """Diffusion needs `ratio` times AR's compute, at AR's compute-optimal use of U, [K]."""

    compute: np.ndarray
    epochs: np.ndarray  # of the reference's optimum there
    ratio: np.ndarray  # infinite: it never reaches that loss
    low: np.ndarray
    high: np.ndarray


def equivalence(
    reference: Fitted, challenger: Fitted, unique_tokens: float, compute: Any
) -> Equivalence:
    """How much more compute the challenger needs for the reference's loss (Nie et al. 2024: 16)."""
    C = np.asarray(compute, float)
    best = optimal(reference.law, reference.coefficients, C, unique_tokens)
    ratio = _ratio(
        reference, challenger, reference.coefficients, challenger.coefficients, C, unique_tokens
    )
    low = high = np.full(len(C), math.nan)
    if reference.samples and challenger.samples:
        n = min(_count(reference, challenger), 200)
        draws = np.stack(
            [
                _ratio(
                    reference,
                    challenger,
                    {k: v[s] for k, v in reference.samples.items()},
                    {k: v[s] for k, v in challenger.samples.items()},
                    C,
                    unique_tokens,
                )
                for s in range(n)
            ]
        )
        low, high = np.quantile(draws, [0.05, 0.95], axis=0, method="inverted_cdf")
    return Equivalence(C, best.epochs, ratio, low, high)


def _ratio(a: Fitted, b: Fitted, va: Any, vb: Any, C: np.ndarray, U: float) -> np.ndarray:
    wanted = optimal(a.law, va, C, U).loss
    low, high = np.log(C) - 12.0, np.log(C) + 25.0
    reach = optimal(b.law, vb, np.exp(high), U).loss <= wanted
    for _ in range(40):
        middle = (low + high) / 2
        enough = optimal(b.law, vb, np.exp(middle), U).loss <= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reach, np.exp((low + high) / 2) / C, np.inf)


def half_life(f: Fitted) -> tuple[float, float, float]:
    """Repetitions after which one more is worth half of the first, with its interval.

    R_D log 2 for exp(-repetition/R_D), log 2/k_D for the geometric law, 2^(1/p_D) - 1 for a power.

    Raises:
      DlmError: the law has no decay of data.
    """

    def of(values: Mapping[str, Any]) -> Any:
        if "R_D" in values:
            return np.asarray(values["R_D"]) * math.log(2)
        if "k_D" in values:
            return math.log(2) / np.asarray(values["k_D"])
        if "p_D" in values:
            return 2 ** (1 / np.asarray(values["p_D"])) - 1
        raise DlmError(f"{f.law.name} has no decay of repeated data: no half-life")

    wide = widened(LEVEL, f)
    low, high = interval(of(f.samples), wide) if f.samples else (math.nan, math.nan)
    return float(of(f.coefficients)), low, high


def epochs_within(f: Fitted, params: float, unique_tokens: float, nats: float) -> float:
    """The most epochs at which repeating costs less than `nats` against fresh tokens.

    L(N, D, U) - L(N, D, D) < nats, D = epochs * U; infinite where it stays below to 10^6 epochs.
    """
    epochs = np.geomspace(1, 1e6, 4001)
    D = epochs * unique_tokens
    cost = f.law.predict(f.coefficients, params, D, unique_tokens) - f.law.predict(
        f.coefficients, params, D, D
    )
    above = np.flatnonzero(cost >= nats)
    if not len(above):
        return math.inf
    i = above[0]
    if i == 0:
        return 1.0
    share = (nats - cost[i - 1]) / (cost[i] - cost[i - 1])
    return float(np.exp(np.log(epochs[i - 1]) + share * np.log(epochs[i] / epochs[i - 1])))
