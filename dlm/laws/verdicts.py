"""Decides which coefficients the data identify: an interval and a verdict each, and runs to add."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlm.format import between, number
from dlm.laws.fits import LEVEL, Fit, problem
from dlm.laws.intervals import Profile, deviance, interval, profiles, threshold, widened
from dlm.laws.table import Table

if TYPE_CHECKING:
    from dlm.laws.critical import Fitted

RULE = "A coefficient is identified if {} has two ends within a factor of {}."


@dataclass(frozen=True)
class Verdict:
    """Intervals: 0 is no lower end, infinity no upper end, NaN not known."""

    name: str
    value: float
    low: float  # of the deciding interval: the wider one, for a two-step fit the bootstrap's
    high: float
    profile: tuple[float, float]
    boot: tuple[float, float]
    identified: bool
    reason: str  # why it is not identified, else ""
    flag: str  # a caution that stands beside an identified value too


@dataclass(frozen=True)
class Suggestion:
    """A run, and by how much it would shrink the variance of the log of the coefficient."""

    name: str
    params: float
    unique_tokens: float
    epochs: float
    loops: float
    shrinks: float  # 0.5: to half


def verdicts(fit: Fit) -> tuple[list[Verdict], dict[str, Profile]]:
    """One verdict per free coefficient, and the profiles behind them."""
    by_name = profiles(fit)
    return [_verdict(fit, by_name[name]) for name in fit.free], by_name


def _verdict(fit: Fit, p: Profile) -> Verdict:
    c, value = fit.law.coefficient(p.name), fit.coefficients[p.name]
    boot = (math.nan, math.nan)
    if fit.samples:
        low, high = interval(fit.samples[p.name], widened(LEVEL, fit))
        at = (0.0 if low < 1.01 * c.limits[0] else low), high
        boot = (at[0], math.inf if high > 0.99 * c.limits[1] else high)
    if same_loops := p.name == "phi" and not np.ptp(fit.table.loops):
        boot = (0.0, math.inf)  # no resample moves it from where it starts
    low, high = deciding(fit, (p.low, p.high), boot)
    reason = _loose(low, high, c.max_interval_ratio)
    if same_loops:
        r = fit.table.loops[0]
        reason = f"every run has {r:g} loop{'s' if r > 1 else ''}, so no run tells it"
    flag = ""
    if p.name == "R_D" and value > fit.max_epochs:
        flag = f"extrapolated: beyond the largest epoch count trained ({number(fit.max_epochs)})"
    return Verdict(p.name, value, low, high, (p.low, p.high), boot, not reason, reason, flag)


def deciding(
    fit: Fit, profiled: tuple[float, float], boot: tuple[float, float]
) -> tuple[float, float]:
    """The interval that a verdict rests on: the wider one, by the ratio of its ends.

    Each of the two can be too narrow: a profile where few rows carry a coefficient, resamples where
    the runs are few. Of a two-step fit it is the bootstrap's, as a profile takes the coefficients
    of step one as known.
    """
    if fit.first is not None:
        return boot
    if math.isnan(boot[0]):
        return profiled
    ratios = [high / low if low > 0 else math.inf for low, high in (profiled, boot)]
    return boot if ratios[1] > ratios[0] else profiled


def _loose(low: float, high: float, factor: float) -> str:
    """Why an interval does not identify the coefficient, or ""."""
    if math.isnan(low):
        return "no interval without resamples, as step one has its own noise"
    if low <= 0 and math.isinf(high):
        return "the objective is flat within the noise at every value tried"
    if math.isinf(high) or low <= 0:
        return f"any value {between(low, high)} fits as well, within the noise"
    if high > factor * low:
        return f"anything from {between(low, high)} fits as well, within the noise"
    return ""


def rule(fit: Fit) -> str:
    """When a coefficient of this fit counts as identified, in words."""
    factors: dict[float, list[str]] = {}
    for name in fit.free:
        factors.setdefault(fit.law.coefficient(name).max_interval_ratio, []).append(name)
    widths = "; ".join(f"{factor:g} ({', '.join(names)})" for factor, names in factors.items())
    if fit.first is not None:
        return RULE.format("its 90% interval by bootstrap", widths)
    both = "the wider of its 90% intervals, by profile and by bootstrap,"
    return RULE.format(both if fit.samples else "its 90% interval by profile", widths)


def unidentified_by_bootstrap(fit: Fitted) -> list[str]:
    """Names of the coefficients that the bootstrap does not identify; none without samples."""
    wide = widened(LEVEL, fit)
    names = []
    for name in fit.free if fit.samples else ():
        c, (low, high) = fit.law.coefficient(name), interval(fit.samples[name], wide)
        if high > c.max_interval_ratio * low or high > 0.99 * c.limits[1]:
            names.append(name)
    return names


def rivals(fit: Fit) -> list[int]:
    """Indices of the other local minima that the noise cannot tell from the best."""
    deviances = deviance(fit, np.array([m.objective for m in fit.minima]))
    return [i for i in range(1, len(fit.minima)) if deviances[i] <= threshold(fit)]


def suggest(fit: Fit, verdict: Verdict, count: int = 3) -> list[Suggestion]:
    """Suggests the runs that would narrow a coefficient most, by the information of the Jacobian.

    Candidates: the sizes and unique tokens trained, and those four times as large or as small, at
    1 to four times the largest epoch count, for a looped law with 1 to 8 loops. Each is judged alone
    (c-optimality with a weak prior of one nat on each log coefficient), for the noise of this table.
    A coefficient without an end is taken at its other end, as at its limit no run could tell.
    """
    values = dict(fit.coefficients)
    if math.isinf(verdict.high) != (verdict.low <= 0):
        values[verdict.name] = verdict.low if math.isinf(verdict.high) else verdict.high
    p = problem(fit)
    x = p.coordinates(values)
    J = _known(p.jacobian(x, *p.columns)[1])
    noise = max(float(np.median(np.abs(fit.residuals))) * 1.4826, 1e-4)
    covariance = np.linalg.inv(J.T @ J / noise**2 + np.eye(len(fit.free)))
    towards = p.logarithm(x, verdict.name)
    sizes = _ladder(fit.table.N) if "A" in fit.law.names else np.unique(fit.table.N)
    unique = _ladder(fit.table.U)
    epochs = np.geomspace(1, 4 * max(fit.max_epochs, 4), 8)
    loops = [1.0, 2.0, 4.0, 8.0] if fit.law.looped else [1.0]
    axes = np.meshgrid(sizes, unique, epochs, loops, indexing="ij")
    N, U, epoch, r = (axis.ravel() for axis in axes)
    j = _known(p.jacobian(x, N, U * epoch, U, r, np.median(fit.table.share))[1])
    before = towards @ covariance @ towards
    spread = noise**2 + np.einsum("mi,ij,mj->m", j, covariance, j)
    gain = (j @ covariance @ towards) ** 2 / spread
    suggestions = []
    for i in np.argsort(-gain, kind="stable")[:count]:
        left = float(1 - gain[i] / before)
        suggestions.append(
            Suggestion(verdict.name, float(N[i]), float(U[i]), float(epoch[i]), float(r[i]), left)
        )
    return suggestions


def _known(J: np.ndarray) -> np.ndarray:
    """The derivatives, with 0 for a run at which the law is out of range."""
    return np.where(np.isfinite(J).all(1, keepdims=True), J, 0.0)


def _ladder(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.unique([low / 4, low, math.sqrt(low) * math.sqrt(high), high, high * 4])


# --- rows that do not belong --------------------------------------------------------------------


@dataclass(frozen=True)
class Outlier:
    label: str
    residual: float  # log L_predicted - log L_observed
    deviations: float  # in robust standard deviations


def outliers(fit: Fit, beyond: float = 6.0) -> list[Outlier]:
    """Rows whose residual lies further than `beyond` robust standard deviations from the median."""
    away = _deviations(fit)
    return [
        Outlier(fit.table.labels[i], float(fit.residuals[i]), float(away[i]))
        for i in np.flatnonzero(np.abs(away) > beyond)
    ]


def _deviations(fit: Fit) -> np.ndarray:
    """Residuals from their median, in robust standard deviations."""
    away = fit.residuals - np.median(fit.residuals)
    return away / max(1.4826 * float(np.median(np.abs(away))), 1e-12)


def without_outliers(fit: Fit, beyond: float) -> Table | None:
    """The table without its outliers, to be fitted again; None if there are none."""
    kept = np.abs(_deviations(fit)) <= beyond
    if kept.all():
        return None
    rule = f"residual beyond {beyond:g} robust standard deviations of a first fit"
    return fit.table.only(kept, rule)
