"""What the data determine: per coefficient an interval, a verdict, and which runs would help."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlm.laws.fits import (
    LEVEL,
    Fit,
    Profile,
    deviance,
    interval,
    problem,
    profile,
    threshold,
    widened,
)
from dlm.laws.table import Table


@dataclass(frozen=True)
class Verdict:
    name: str
    value: float
    low: float  # profile likelihood; 0: no lower end
    high: float  # infinity: no upper end
    boot_low: float  # bootstrap over runs; NaN without samples
    boot_high: float
    identified: bool
    reason: str  # why it is not
    flag: str  # a caution that stands beside an identified value too


@dataclass(frozen=True)
class Suggestion:
    """A run, and by how much it would shrink the variance of the log of the coefficient."""

    name: str
    params: float
    unique_tokens: float
    epochs: float
    shrinks: float  # 0.5: to half


def verdicts(fit: Fit, level: float = LEVEL) -> tuple[list[Verdict], dict[str, Profile]]:
    """One verdict per free coefficient, and the profiles behind them."""
    profiles = {name: profile(fit, name, level) for name in fit.free}
    return [_verdict(fit, profiles[name], level) for name in fit.free], profiles


def _verdict(fit: Fit, p: Profile, level: float) -> Verdict:
    value = fit.coefficients[p.name]
    wide = widened(level, fit)
    boot = interval(fit.samples[p.name], wide) if fit.samples else (math.nan, math.nan)
    open_low, open_high = p.low <= 0, math.isinf(p.high)
    limits = fit.law.coefficient(p.name).limits
    wide = boot[1] > 100 * max(boot[0], 1e-300) or boot[1] > 0.99 * limits[1]
    reason = ""
    if open_low and open_high:
        reason = "the objective is flat within the noise at every value tried"
    elif open_high:
        reason = f"any value above {p.low:.3g} fits as well, within the noise"
    elif open_low:
        reason = f"any value below {p.high:.3g} fits as well, within the noise"
    elif not p.identified:
        reason = f"anything from {p.low:.3g} to {p.high:.3g} fits as well, within the noise"
    elif wide and p.name not in ("A", "B", "K"):
        reason = f"resampled runs put it anywhere from {boot[0]:.3g} to {boot[1]:.3g}"
    flag = ""
    if p.name == "R_D" and value > fit.max_epochs:
        flag = f"extrapolated: beyond the largest epoch count trained ({fit.max_epochs:,.4g})"
    return Verdict(p.name, value, p.low, p.high, *boot, not reason, reason, flag)


def rivals(fit: Fit, level: float = LEVEL) -> list[int]:
    """Indices of the other local minima that the noise cannot tell from the best."""
    found = deviance(fit, np.array([m.objective for m in fit.minima]))
    return [i for i in range(1, len(fit.minima)) if found[i] <= threshold(fit, level)]


def suggest(fit: Fit, name: str, count: int = 3) -> list[Suggestion]:
    """The runs that would pin a coefficient down most, by the information of the fit's Jacobian.

    Candidates: the sizes and unique tokens trained, and those four times as large or as small, at
    1 to four times the largest epoch count. Each is judged alone (c-optimality with a weak prior
    of one nat on each log coefficient), for the noise of this table.
    """
    J, k = jacobian(fit, fit.table.N, fit.table.D, fit.table.U), fit.free.index(name)
    noise = max(float(np.median(np.abs(fit.residuals))) * 1.4826, 1e-4)
    covariance = np.linalg.inv(J.T @ J / noise**2 + np.eye(len(fit.free)))
    sizes, unique = _ladder(fit.table.N), _ladder(fit.table.U)
    epochs = np.geomspace(1, 4 * max(fit.max_epochs, 4), 8)
    N, U, epoch = (g.ravel() for g in np.meshgrid(sizes, unique, epochs, indexing="ij"))
    j = jacobian(fit, N, U * epoch, U)
    gain = (j @ covariance[k]) ** 2 / (noise**2 + np.einsum("mi,ij,mj->m", j, covariance, j))
    found = []
    for i in np.argsort(-gain, kind="stable")[:count]:
        left = 1 - gain[i] / covariance[k, k]
        found.append(Suggestion(name, float(N[i]), float(U[i]), float(epoch[i]), float(left)))
    return found


def _ladder(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.unique([low / 4, low, math.sqrt(low * high), high, high * 4])


def jacobian(fit: Fit, N: np.ndarray, D: np.ndarray, U: np.ndarray) -> np.ndarray:
    """d log L / d coordinate of each free coefficient, [R, P]."""
    p = problem(fit)
    return p.jacobian(p.coordinates(fit.coefficients), N, D, U)[1]


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
    """The table without them, to be fitted again; None where there are none."""
    kept = np.abs(_deviations(fit)) <= beyond
    if kept.all():
        return None
    rule = f"residual beyond {beyond:g} robust standard deviations of a first fit"
    return fit.table.only(kept, rule)
