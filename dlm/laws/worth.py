"""The value of repeated data: compute for equal loss, half-lives, the epochs that cost little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.critical import Fitted, optimal
from dlm.laws.fits import LEVEL
from dlm.laws.forms import repetitions
from dlm.laws.intervals import interval, widened


@dataclass(frozen=True)
class Equivalence:
    """Diffusion needs `ratio` times AR's compute, at AR's compute-optimal use of U, [K]."""

    compute: np.ndarray
    epochs: np.ndarray  # of the reference's optimum there
    ratio: np.ndarray  # infinite: it never reaches that loss
    low: np.ndarray
    high: np.ndarray


def equivalence(
    reference: Fitted,
    challenger: Fitted,
    unique_tokens: float,
    compute: Any,
    *,
    resamples: int = 200,
) -> Equivalence:
    """How much more compute the challenger needs for the reference's loss (Nie et al. 2024: 16)."""
    C = np.asarray(compute, float)
    best = optimal(reference.law, reference.coefficients, C, unique_tokens)
    fits = reference, challenger
    ratio = _ratio(fits, (reference.coefficients, challenger.coefficients), C, unique_tokens)
    low = high = np.full(len(C), math.nan)
    if reference.samples and challenger.samples:
        n = min(*(len(next(iter(f.samples.values()))) for f in fits), resamples)
        values = [{k: v[:n, None] for k, v in f.samples.items()} for f in fits]
        draws = _ratio(fits, (values[0], values[1]), C, unique_tokens)
        wide = widened(LEVEL, *fits)
        low, high = np.array([interval(column, wide) for column in draws.T]).T
    return Equivalence(C, best.epochs, ratio, low, high)


def _ratio(fits: tuple[Fitted, Fitted], values: tuple[Any, Any], C: np.ndarray, U: float) -> Any:
    """Over the broadcast of the coefficients [S, 1] and C [K]."""
    (a, b), (va, vb) = fits, values
    wanted = optimal(a.law, va, C, U).loss
    low, high = (np.broadcast_to(np.log(C) + d, wanted.shape) for d in (-12.0, 25.0))
    reach = optimal(b.law, vb, np.exp(high), U).loss <= wanted
    for _ in range(24):
        middle = (low + high) / 2
        enough = optimal(b.law, vb, np.exp(middle), U).loss <= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reach, np.exp((low + high) / 2) / C, np.inf)


def at_epochs(f: Fitted, unique_tokens: float, epochs: Any) -> np.ndarray:
    """The compute at which the best use of U takes so many epochs; NaN if none does."""
    once = 6 * unique_tokens
    C = np.geomspace(once, once * max(unique_tokens, 1e4) * 1e6, 400)
    reached = optimal(f.law, f.coefficients, C, unique_tokens).epochs
    computes = []
    for e in np.asarray(epochs, float):
        past = np.flatnonzero(reached > e * (1 + 1e-9))
        k = past[0] if len(past) else 0
        if k == 0:
            computes.append(math.nan)
            continue
        share = math.log(e / reached[k - 1]) / math.log(reached[k] / reached[k - 1])
        computes.append(float(C[k - 1] * (C[k] / C[k - 1]) ** share))
    return np.array(computes)


def half_life(f: Fitted, params: float, unique_tokens: float) -> tuple[float, float, float]:
    """Repetitions after which one more is worth half of the first, with its interval; under a law
    whose R_D grows, for a run of these parameters and unique tokens.

    R_D log 2 for exp(-repetition/R_D), log 2/k_D for the geometric law, 2^(1/p_D) - 1 for a power.

    Raises:
      DlmError: the law has no decay of data.
    """

    def of(values: Mapping[str, Any]) -> Any:
        with np.errstate(over="ignore"):  # a power near 0: infinitely many repetitions
            return _half_life(f, values, params, unique_tokens)

    wide = widened(LEVEL, f)
    low, high = interval(of(f.samples), wide) if f.samples else (math.nan, math.nan)
    return float(of(f.coefficients)), low, high


def _half_life(f: Fitted, values: Mapping[str, Any], N: float, U: float) -> Any:
    if "R_D" in values:
        return np.asarray(repetitions(f.law.complete(values), N, U)) * math.log(2)
    if "k_D" in values:
        return math.log(2) / np.asarray(values["k_D"])
    if "p_D" in values:
        return 2 ** (1 / np.asarray(values["p_D"])) - 1
    raise DlmError(f"{f.law.name} has no decay of repeated data: no half-life")


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
