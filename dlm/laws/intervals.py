"""Intervals of a fit: profiles of the objective, and resampled runs refitted.

The objective is no likelihood: what a rise of it means is found from the residuals. For one
coefficient, 2 E[psi'] / E[psi^2] times the rise is about chi-square with one degree of freedom,
psi the derivative of rho (Huber and Ronchetti 2009, section 13.6); for half the square it is the
classical F statistic. Where rows belong to one run, the sandwich over runs stands for E[psi^2].
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.laws.fits import LEVEL, ROUGH, Fit, Problem, problem
from dlm.laws.table import Table

# --- noise: what objective is as good as the best -----------------------------------------------


def freedom(fit: Fit) -> int:
    """Independent runs beyond the coefficients."""
    return max(fit.table.groups - len(fit.free), 1)


def deviance(fit: Fit, objective: Any, name: str = "") -> np.ndarray:
    """What `objective` above the best is worth: about chi-square where the difference is noise.

    Of a coefficient; without a name, by the coefficient that the noise disturbs most.
    """
    scales = _scales(fit)
    scale = scales[name] if name else min(scales.values())
    return np.maximum(scale * (np.asarray(objective, float) - fit.objective), 0.0)


def threshold(fit: Fit, level: float = LEVEL) -> float:
    """The deviance up to which one coefficient's value is as good as the best: Student's t, squared.

    Exact for half the square and a law that is linear in its coefficients.
    """
    from scipy import stats

    return float(stats.t.ppf(0.5 + level / 2, freedom(fit)) ** 2)


def _scales(fit: Fit) -> dict[str, float]:
    """Deviance per unit of the objective, by coefficient."""
    r, rows, free = fit.residuals, len(fit.table), len(fit.free)
    stiff = fit.loss.stiffness(r * math.sqrt(rows / max(rows - free, 1)))
    pull = np.sign(r) if fit.loss.name == "lad" else fit.loss.slope(r)
    variance = max(float((pull**2).sum()) / max(rows - free, 1), 1e-300)
    plain = 2 * stiff / variance
    groups = fit.table.groups
    if groups == rows:
        return dict.fromkeys(fit.free, plain)
    p = problem(fit)
    J = p.jacobian(p.coordinates(fit.coefficients), fit.table.N, fit.table.D, fit.table.U)[1]
    scores = np.zeros((groups, free))
    np.add.at(scores, np.unique(fit.table.group, return_inverse=True)[1], pull[:, None] * J)
    correction = groups / max(groups - 1, 1) * (rows - 1) / max(rows - free, 1)
    middle = correction * scores.T @ scores
    # The ridge keeps what changes no prediction from counting as known.
    bread = np.linalg.inv(stiff * J.T @ J + variance / 100 * np.eye(free))
    sandwich = np.diag(bread @ (middle + variance / 100 * np.eye(free)) @ bread)
    most = rows / groups  # rows of a run that say one thing together, at the worst
    found = 2 * np.diag(bread) / sandwich
    return {
        name: float(np.clip(found[k], plain / most / 10, plain)) for k, name in enumerate(fit.free)
    }


# --- profiles -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Profile:
    """The best objective at each value of one coefficient, the others free."""

    name: str
    values: np.ndarray
    objective: np.ndarray
    deviance: np.ndarray
    low: float  # of the values within the noise; 0 or infinity where no value tried is worse
    high: float


# Distances in log value at which a profile is taken, to both sides.
OFFSETS = np.array(
    [*(0.003, 0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 1.8)]
    + [*(2.2, 2.7, 3.5, 5.0, 7.0, 10.0, 14.0)]
)


def profile(fit: Fit, name: str, level: float = LEVEL) -> Profile:
    """Warm-started from the minima, then from its neighbours' solutions."""
    c = fit.law.coefficient(name)
    centre = math.log(fit.coefficients[name])
    grid = centre + np.concatenate([-OFFSETS[::-1], [0.0], OFFSETS])
    low, high = np.log(c.limits)
    grid = np.unique(np.append(grid[(grid > low) & (grid < high)], centre))
    others = tuple(n for n in fit.free if n != name)
    if not others:
        p = problem(fit, fixed={**fit.fixed, name: np.exp(grid)})
        predicted = fit.law.predict(
            {k: np.asarray(v).reshape(-1, 1) for k, v in p.fixed.items()},
            *(fit.table.N, fit.table.D, fit.table.U),
        )
        f = fit.loss.sum(np.log(predicted) - np.log(fit.table.loss))
    else:
        f = _profiled(fit, name, others, grid)
    return _profile(fit, name, grid, f, level)


def _profiled(fit: Fit, name: str, others: tuple[str, ...], grid: np.ndarray) -> np.ndarray:
    warm = fit.minima[:4]
    fixed = {k: v for k, v in fit.fixed.items()} | {name: np.repeat(np.exp(grid), len(warm))}
    p = problem(fit, free=others, fixed=fixed)
    starts = []
    for value in np.exp(grid):
        for m in warm:  # amplitudes keep their values at the typical run
            q = problem(fit, free=others, fixed=fit.fixed | {name: value})
            free_of = problem(fit, free=others, fixed=fit.fixed | {name: m.coefficients[name]})
            centred = free_of.coordinates(fit.fixed | m.coefficients)
            plain = q.coordinates(fit.fixed | m.coefficients | {name: value})
            starts.append(centred if np.isfinite(centred).all() else plain)
    at = problem(fit, free=others, fixed=fit.fixed | {name: warm[0].coefficients[name]})
    options: dict[str, Any] = {"again": 0, "tolerance": ROUGH}
    options["metric"] = at.metric(at.coordinates(fit.fixed | warm[0].coefficients))
    x, f = p.solve(np.stack(starts), **options)
    x, f = x.reshape(len(grid), len(warm), -1), f.reshape(len(grid), len(warm))
    best = f.argmin(1)
    x, f = x[np.arange(len(grid)), best], f.min(1)
    p = problem(fit, free=others, fixed=fit.fixed | {name: np.exp(grid)})
    for shift in (1, -1):
        near = np.clip(np.arange(len(grid)) + shift, 0, len(grid) - 1)
        y, g = p.solve(x[near], **options)
        better = g < f
        x[better], f[better] = y[better], g[better]
    return f


def _profile(fit: Fit, name: str, grid: np.ndarray, f: np.ndarray, level: float) -> Profile:
    d = deviance(fit, f, name)
    limit = threshold(fit, level)
    inside = np.flatnonzero(d <= limit)
    a, b = inside[0], inside[-1]
    root, at = np.sqrt(d), math.sqrt(limit)  # about a line between two values
    low = 0.0 if a == 0 else math.exp(_between(grid, root, a, a - 1, at))
    high = math.inf if b == len(grid) - 1 else math.exp(_between(grid, root, b, b + 1, at))
    return Profile(name, np.exp(grid), f, d, low, high)


def _between(x: np.ndarray, y: np.ndarray, inside: int, outside: int, limit: float) -> float:
    share = (limit - y[inside]) / max(y[outside] - y[inside], 1e-12)
    return float(x[inside] + share * (x[outside] - x[inside]))


# --- bootstrap ----------------------------------------------------------------------------------


def weights_of(table: Table, resamples: int, seed: int) -> np.ndarray:
    """How often each row is drawn when whole groups are, [S, R]."""
    rng = np.random.default_rng(seed)
    numbers = np.unique(table.group, return_inverse=True)[1]
    count = numbers.max() + 1
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return draws[:, numbers].astype(float)


def bootstrap(fit: Fit, resamples: int = 1000, seed: int = 0, keep: int = 2) -> Fit:
    """The fit with `samples`: whole groups resampled, each refitted from the best minima found.

    A two-step fit resamples both steps with the same draws.
    """
    if resamples < 1:
        return fit
    weights = weights_of(fit.table, resamples, seed)
    return dataclasses.replace(fit, samples=_refit(fit, weights, keep))


def _refit(fit: Fit, weights: np.ndarray, keep: int) -> dict[str, np.ndarray]:
    count = len(weights)
    fixed: dict[str, Any] = dict(fit.fixed)
    if fit.first is not None:
        rows = fit.table.epochs < 1.0 + 1e-6
        one = _refit(fit.first, weights[:, rows], keep)
        complete = vars(fit.first.law.complete(one))
        fixed = {name: complete.get(name, fixed[name]) for name in fixed}
    warm = [m for m in fit.minima[: keep + 2] if deviance(fit, np.array([m.objective]))[0] < 8][
        :keep
    ]
    base = problem(fit)
    starts = [base.coordinates(fit.fixed | m.coefficients) for m in warm]
    starts += [back for x in starts if ((back := _off_limits(base, x)) != x).any()]
    best_x, best_f = np.zeros((count, len(fit.free))), np.full(count, np.inf)
    for start in starts:
        p = problem(fit, fixed=fixed)
        x, f = p.solve(
            *(np.tile(start, (count, 1)), weights),
            again=int(fit.loss.name == "lad"),
            tolerance=ROUGH,
            metric=base.metric(start),
        )
        better = f < best_f
        best_x[better], best_f[better] = x[better], f[better]
    p = problem(fit, fixed=fixed)
    with np.errstate(all="ignore"):
        made = p.values(best_x, np.arange(count), dual=False)
    return {
        name: np.broadcast_to(np.asarray(value)[:, 0], (count,)).copy()
        for name, value in made.items()
    }


def _off_limits(p: Problem, x: np.ndarray) -> np.ndarray:
    """Coefficients that ran to a limit, where the objective is flat, put back among the starts."""
    back = x.copy()
    for k, c in enumerate(p.law.coefficient(name) for name in p.free):
        if not c.amplitude:
            low, high = np.log(c.limits)
            first, last = np.log(c.start) + (np.log(p.table.loss.min()) if c.name == "E" else 0.0)
            at = first if x[k] < low + 0.01 else x[k]
            back[k] = last if x[k] > high - 0.01 else at
    return back


def interval(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The central share of the bootstrap samples."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return float(low), float(high)


def widened(level: float, *found: Any) -> float:
    """The share of the samples that an interval of `level` has to hold, for a few runs.

    Resampled fits scatter less than fits to new runs would, by about sqrt((n - p)/n), and the normal
    quantile is too small; the expanded percentile interval puts both right (Hesterberg 2015, arXiv
    1411.5279, section 5). Of several fits, the one with the fewest runs to spare decides.
    """
    from scipy import stats

    levels = [level]
    for each in found:
        if isinstance(each, Fit):
            runs = each.table.groups
            left = freedom(each)
            z = math.sqrt(runs / left) * stats.t.ppf(0.5 + level / 2, left)
            levels.append(float(2 * stats.norm.cdf(z) - 1))
        else:
            levels.append(each.share)
    return max(levels)
