"""What to train with a compute budget and U unique tokens, by the fitted law of each family.

At compute C = 6 N D each family trains the size that its own law finds best (`critical.optimal`). The
expected loss is the law's at that size and duration; its interval comes from the joint resamples of
the fits, and says how well the law's mean is known: single runs scatter about it by their spread.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import ArgumentError, DlmError
from dlm.format import number
from dlm.laws import critical as crossing
from dlm.laws.compute_optimal import optimal, rises
from dlm.laws.critical import Critical, Fitted
from dlm.laws.fits import LEVEL, Fit
from dlm.laws.intervals import interval, widened
from dlm.laws.table import Ranges
from dlm.laws.verdicts import unidentified_by_bootstrap

CLOSE = 0.01  # nats per token: losses nearer than this count as equal
DECIDED = 0.5 + LEVEL / 2  # share of the resamples from which on a family is preferred
RESAMPLES = 200  # at most, in searches for the best size
LEAST_FLOPS, MOST_FLOPS = 1e6, 1e32
UNLIMITED = 1e30  # unique tokens
REACH = 1e3  # factors of U and of C within which what would change the answer is searched
AUTOREGRESSIVE = ("ar", "autoregressive")


@dataclass(frozen=True)
class FamilyAdvice:
    """The best use of a budget by one family. Losses in nats per token; 90% intervals, NaN: none."""

    family: str
    law: str
    loss: float
    low: float
    high: float
    params: float  # N, with embeddings
    params_low: float
    params_high: float
    tokens: float  # D, repeats included
    epochs: float  # D over the unique tokens used, at most U
    epochs_low: float
    epochs_high: float
    flops: float  # 6 N D: the budget, or less of it where training on would do harm
    share: (
        float  # of the joint resamples, those in which this family has the lowest loss; NaN: none
    )
    limit: float  # the lowest loss on U at any compute up to REACH times the budget
    cheapest: float  # FLOPs that reach a loss within CLOSE of `loss`
    beyond: tuple[str, ...]  # how far these numbers lie beyond the runs behind the law
    overfits: bool  # the law knows over-fitting
    unidentified_by_bootstrap: tuple[str, ...]  # coefficients that the resamples leave open


@dataclass(frozen=True)
class Turn:
    """What would change which of two families is ahead; NaN: nothing within REACH."""

    reference: str
    challenger: str
    critical: Critical  # compute at this U
    unique_tokens: float  # at this compute


@dataclass(frozen=True)
class Advice:
    """Which family, and how to spend the budget with each; the best family first."""

    unique_tokens: float
    flops: float
    families: tuple[FamilyAdvice, ...]
    decided: bool | None  # whether the first is preferred; None: the laws have no resamples
    gap: float  # expected loss of the second minus that of the first; NaN: one family only
    gap_low: float
    gap_high: float
    turns: tuple[Turn, ...]
    spread: float  # standard deviation of a run about its law, nats per token; NaN: not known
    spread_of: str  # where the spread comes from
    seeds: int  # runs of each family that resolve CLOSE nats; 0: not known

    @property
    def best(self) -> FamilyAdvice:
        return self.families[0]


# --- advice -------------------------------------------------------------------------------------


def advise(
    laws: Mapping[str, Fitted],
    unique_tokens: float,
    flops: float,
    spread: tuple[float, str] = (math.nan, "not known"),
) -> Advice:
    """The best use of `flops` by each family, and which family to prefer.

    `spread`: of single runs, a standard deviation in log loss, and where it comes from.

    Raises:
      DlmError: numbers that cannot be raw tokens or FLOPs, or a law without a size term.
    """
    U, C = check_units(laws, unique_tokens, flops)
    found = {family: advise_family(family, law, U, C) for family, law in laws.items()}
    order = sorted(found, key=lambda family: found[family].loss)
    losses = _resampled_losses(laws, found, U)
    families = []
    for family in order:
        share = math.nan
        if losses:
            lowest = np.min([losses[other] for other in order], axis=0)
            share = float((losses[family] <= lowest).mean())
        families.append(dataclasses.replace(found[family], share=share))
    gap = low = high = math.nan
    decided = None
    if len(order) > 1:
        first, second = order[:2]
        gap = found[second].loss - found[first].loss
        if losses:
            wide = widened(LEVEL, laws[first], laws[second])
            low, high = interval(losses[second] - losses[first], wide)
            decided = families[0].share >= DECIDED and low > 0
    deviation = spread[0] * found[order[0]].loss
    return Advice(
        unique_tokens=U,
        flops=C,
        families=tuple(families),
        decided=decided,
        gap=gap,
        gap_low=low,
        gap_high=high,
        turns=_turns(laws, order, U, C),
        spread=deviation,
        spread_of=spread[1],
        seeds=seeds_needed(deviation),
    )


def check_units(
    laws: Mapping[str, Fitted], unique_tokens: float, flops: float
) -> tuple[float, float]:
    """U and C as they are, if both can be raw counts.

    Raises:
      DlmError: they cannot.
    """
    U, C = float(unique_tokens), float(flops)
    for name, value, low, high in (
        ("unique_tokens", U, 1.0, 1e30),
        ("flops", C, LEAST_FLOPS, MOST_FLOPS),
    ):
        if not (math.isfinite(value) and low <= value <= high):
            right = f"a raw count from {low:g} to {high:g}, such as {1e8 if low == 1 else 2e20:g}"
            raise ArgumentError(name, f"={value:g}: must be {right}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the text is raised, not warned of
        if text := crossing.millions(U, *laws.values()):
            raise DlmError(text)
    return U, C


def advise_family(family: str, law: Fitted, U: float, C: float) -> FamilyAdvice:
    """The best use of C on U unique tokens by one family; U = UNLIMITED: no token is repeated."""
    N, D, epochs, loss = best_use(law, U, C)
    computes = 6 * N * D * np.geomspace(1 / REACH, 1, 241)
    along = np.minimum.accumulate(optimal(law.law, law.coefficients, computes, U).loss)
    limit = optimal(law.law, law.coefficients, np.array([C, C * REACH]), U).loss.min()
    ends = dict.fromkeys(("low", "high", "params_low", "params_high"), math.nan)
    ends |= dict.fromkeys(("epochs_low", "epochs_high"), math.nan)
    if law.samples:
        wide = widened(LEVEL, law)
        values = {name: v[:RESAMPLES] for name, v in law.samples.items()}
        ends["low"], ends["high"] = interval(_predict(law, law.samples, N, D, U), wide)
        drawn = optimal(law.law, values, C, U)
        ends["params_low"], ends["params_high"] = interval(drawn.params, wide)
        ends["epochs_low"], ends["epochs_high"] = interval(drawn.epochs, wide)
    return FamilyAdvice(
        family=family,
        law=law.law.name,
        loss=loss,
        params=N,
        tokens=D,
        epochs=epochs,
        flops=6 * N * D,
        share=math.nan,
        limit=float(limit),
        cheapest=_first_below(computes, along, loss + CLOSE),
        beyond=beyond(law.ranges, N, D, epochs, U),
        overfits=rises(law.law),
        unidentified_by_bootstrap=tuple(unidentified_by_bootstrap(law)),
        **ends,
    )


def best_use(law: Fitted, U: float, C: float) -> tuple[float, float, float, float]:
    """Parameters, tokens, epochs and loss of the best use of C, or of less of it under a law that
    knows over-fitting."""
    best = optimal(law.law, law.coefficients, C, U)
    N, epochs = float(best.params), float(best.epochs)
    D = C / (6 * N)
    D = epochs * min(U, D) if rises(law.law) else D
    return N, D, epochs, float(best.loss)


def unspent(families: Iterable[FamilyAdvice], flops: float) -> dict[str, float]:
    """Families that are best after less than this compute, with the FLOPs (6ND) of that: by a law of
    over-fitting more compute makes them worse."""
    return {f.family: f.flops for f in families if f.overfits and f.flops < 0.95 * flops}


def _predict(law: Fitted, values: Mapping[str, Any], N: float, D: float, U: float) -> np.ndarray:
    return np.asarray(law.law.predict(values, N, D, min(U, D)))


def _resampled_losses(
    laws: Mapping[str, Fitted], found: Mapping[str, FamilyAdvice], U: float
) -> dict[str, np.ndarray]:
    """The expected loss of each family's advised run in each joint resample [S]; none without."""
    if not all(law.samples for law in laws.values()):
        return {}
    count = min(len(next(iter(law.samples.values()))) for law in laws.values())
    losses = {}
    for family, law in laws.items():
        values = {name: v[:count] for name, v in law.samples.items()}
        drawn = _predict(law, values, found[family].params, found[family].tokens, U)
        losses[family] = np.where(np.isfinite(drawn), drawn, np.inf)
    return losses


def _first_below(computes: np.ndarray, losses: np.ndarray, target: float) -> float:
    """The least compute at which falling losses [K] reach a target, between points in log C."""
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return math.nan
    k = int(below[0])
    if k == 0:
        return float(computes[0])
    share = (losses[k - 1] - target) / max(losses[k - 1] - losses[k], 1e-300)
    return float(computes[k - 1] * (computes[k] / computes[k - 1]) ** share)


# --- what would change it -----------------------------------------------------------------------


def is_reference(family: str) -> bool:
    """Whether a family's name in a table is AR's."""
    return family.rpartition("/")[2].lower() in AUTOREGRESSIVE


def _turns(
    laws: Mapping[str, Fitted], order: Sequence[str], U: float, C: float
) -> tuple[Turn, ...]:
    """AR against each other family; without AR, the best family against the second."""
    if len(order) < 2:
        return ()
    reference = next((f for f in order if is_reference(f)), order[1])
    turns = []
    for family in order:
        if family != reference:
            a, b = laws[reference], laws[family]
            point = crossing.critical(a, b, U)
            turns.append(Turn(reference, family, point, equal_unique_tokens(a, b, C, U)))
    return tuple(turns)


def equal_unique_tokens(a: Fitted, b: Fitted, flops: float, near: float) -> float:
    """The unique tokens, nearest to `near`, at which two families' best losses at `flops` are equal;
    NaN: none within a factor of REACH."""
    logs = math.log(near) + np.linspace(-math.log(REACH), math.log(REACH), 241)
    losses = [optimal(f.law, f.coefficients, flops, np.exp(logs)).loss for f in (a, b)]
    gap = losses[1] - losses[0]
    k = np.flatnonzero(np.sign(gap[1:]) * np.sign(gap[:-1]) < 0)
    if not len(k):
        return math.nan
    share = gap[k] / (gap[k] - gap[k + 1])
    at = logs[k] + share * (logs[k + 1] - logs[k])
    return float(np.exp(at[np.abs(at - math.log(near)).argmin()]))


def flops_for_loss(laws: Mapping[str, Fitted], unique_tokens: float, loss: float) -> float:
    """The least compute at which some family's law reaches a loss on U.

    Raises:
      DlmError: no law reaches it at any compute; says how far each gets.
    """
    check_units(laws, unique_tokens, 1e18)
    U = float(unique_tokens)
    computes = 6 * U * np.geomspace(1.0, 1e15, 601)  # from one parameter, one epoch
    found, limits = [], []
    for family, law in laws.items():
        losses = np.minimum.accumulate(optimal(law.law, law.coefficients, computes, U).loss)
        found.append(_first_below(computes, losses, loss))
        limits.append(f"{family} {losses[-1]:.3f}")
    if np.isnan(found).all():
        raise ArgumentError(
            "loss",
            f"={loss:g}: no law reaches it on {U:g} unique tokens at any compute; their limits "
            f"are {', '.join(limits)} nats per token",
        )
    return float(np.nanmin(found))


# --- what it rests on ---------------------------------------------------------------------------


def beyond(ranges: Ranges | None, N: float, D: float, epochs: float, U: float) -> tuple[str, ...]:
    """How far a run lies outside the runs behind a law, a phrase for each number that does."""
    if ranges is None:
        return ("the runs behind the law are not known",)
    words = []
    for name, value, (low, high) in (
        ("parameters", N, ranges.params),
        ("epochs", epochs, ranges.epochs),
        ("unique tokens", min(U, D), ranges.unique_tokens),
        ("FLOPs", 6 * N * D, ranges.flops),
    ):
        if value > high * 1.01:
            words.append(f"{name} {number(value / high, 3)} times the most trained")
        elif value < low * 0.99:
            words.append(f"{name} {number(low / value, 3)} times below the least trained")
    return tuple(words)


def spread_of_runs(fits: Sequence[Fit]) -> tuple[float, str]:
    """Standard deviation of log loss among runs that share size and tokens, else of residuals, and
    which of the two it is."""
    squares, freedom = 0.0, 0
    for fit in fits:
        t = fit.table
        settings = np.round(np.log(np.stack([t.N, t.D, t.U], axis=1)) / 0.005)
        for setting in np.unique(settings, axis=0):
            logs = np.log(t.loss[(settings == setting).all(1)])
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(logs) - 1
    if freedom >= 3:
        return math.sqrt(squares / freedom), f"runs that share size and tokens, {freedom} to spare"
    residuals = np.concatenate([fit.residuals for fit in fits])
    scale = 1.4826 * float(np.median(np.abs(residuals)))
    return scale, "residuals of the fits, which hold the laws' own errors too"


def seeds_needed(deviation: float, difference: float = CLOSE) -> int:
    """Runs of each of two families whose means differ by `difference` beyond a 90% interval; 0: not
    known."""
    from scipy import special

    if not math.isfinite(deviation):
        return 0
    z = float(special.ndtri(DECIDED))
    return max(1, math.ceil(2 * (z * deviation / difference) ** 2))
