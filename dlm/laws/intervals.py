"""Intervals of a fit: profiles of the objective, and resampled runs refitted.

The objective is no likelihood: the residuals tell what a rise of it means. For one
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

from dlm.laws.fits import LEVEL, Fit, problem
from dlm.laws.problem import ROUGH, Problem
from dlm.laws.table import Table

DRAWN = 1_500_000  # rows that all resamples of a table hold together
FEWEST = 100  # resamples, however large the table

# --- noise: which objectives are as good as the best -----------------------------------------------


def freedom(fit: Fit) -> int:
    """Independent runs beyond the coefficients."""
    return max(fit.table.groups - len(fit.free), 1)


def deviance(fit: Fit, objective: Any, name: str = "") -> np.ndarray:
    """Converts a rise of the objective above the best: about chi-square if the rise is noise.

    `name`: the coefficient; "" uses the coefficient that the noise disturbs most.
    """
    scales = _scales(fit)
    scale = scales[name] if name else min(scales.values())
    return np.maximum(scale * (np.asarray(objective, float) - fit.objective), 0.0)


def threshold(fit: Fit, level: float = LEVEL) -> float:
    """The deviance up to which one coefficient's value is as good as the best: Student's t, squared.

    Exact for half the square and a law that is linear in its coefficients.
    """
    from scipy import special

    return float(special.stdtrit(freedom(fit), 0.5 + level / 2) ** 2)


def _scales(fit: Fit) -> dict[str, float]:
    """Deviance per unit of the objective, by coefficient."""
    r, rows, free = fit.residuals, len(fit.table), len(fit.free)
    stiff = fit.loss.stiffness(r * math.sqrt(rows / max(rows - free, 1)))
    pull = fit.loss.slope(r)
    variance = max(float((pull**2).sum()) / max(rows - free, 1), 1e-300)
    plain = 2 * stiff / variance
    groups = fit.table.groups
    if groups == rows:
        return dict.fromkeys(fit.free, plain)
    p = problem(fit)
    J = p.jacobian(p.coordinates(fit.coefficients), *p.columns)[1]
    scores = np.zeros((groups, free))
    np.add.at(scores, np.unique(fit.table.group, return_inverse=True)[1], pull[:, None] * J)
    correction = groups / max(groups - 1, 1) * (rows - 1) / max(rows - free, 1)
    middle = correction * scores.T @ scores
    # The ridge keeps what changes no prediction from counting as known.
    known = stiff * J.T @ J
    ridge = max(variance / 100, 1e-12 * float(np.trace(known)), 1e-100) * np.eye(free)
    bread = np.linalg.inv(known + ridge)
    sandwich = np.diag(bread @ (middle + ridge) @ bread)
    most = rows / groups  # rows of a run that say one thing together, at the worst
    scales_of_groups = 2 * np.diag(bread) / sandwich
    return {
        name: float(np.clip(scales_of_groups[k], plain / most / 10, plain))
        for k, name in enumerate(fit.free)
    }


# --- profiles -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Profile:
    """The best objective at each value of one coefficient, the others free."""

    name: str
    values: np.ndarray
    objective: np.ndarray
    deviance: np.ndarray
    low: float  # of the values within the noise; 0 or infinity if no value tried is worse
    high: float


# Where a profile is taken, to both sides: in standard errors, then in logarithms of the value.
NEAR = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0])
FAR = np.array([0.1, 0.2, 0.35, 0.5, 0.8, 1.25, 1.8, 2.7, 4.0, 7.0, 10.0, 14.0])
BETWEEN = 3  # points more within each step of the grid that an interval ends in
WIDEST = 0.4  # the largest standard error, in logarithms, that NEAR is laid out by
WARM = 4  # minima that each point of a profile is solved from
PATIENT = 60  # steps to a point of a profile: the few that need more lie far from its interval
PLAUSIBLE = 30.0  # the deviance up to which a minimum may lead to the lowest of another point


def profiles(
    fit: Fit, names: tuple[str, ...] | None = None, level: float = LEVEL
) -> dict[str, Profile]:
    """The profile of each coefficient named, else of each free one; solved side by side.

    Each point is solved from the best minima of the fit, then from its neighbours' solutions; then
    BETWEEN more on either side of each end of an interval.
    """
    names = fit.free if names is None else names
    index = np.array([fit.free.index(name) for name in names])
    grids = [_grid(fit, name) for name in names]
    which = np.repeat(np.arange(len(names)), [len(g) for g in grids])  # the coefficient of a point
    at, base = np.concatenate(grids), problem(fit)
    warm = [m for m in fit.minima[:WARM] if deviance(fit, m.objective) < PLAUSIBLE]
    points = np.stack([base.coordinates(fit.fixed | m.coefficients) for m in warm])
    x, f = _held(base, index[which], at, np.tile(points[:, None], (1, len(at), 1)))
    x, f = _from_neighbours(base, index[which], at, x, f)
    ends = []
    for k, name in enumerate(names):
        mine = np.flatnonzero(which == k)
        a, b = _inside(fit, name, at[mine], deviance(fit, f[mine], name), level)
        ends += [(mine[a], mine[a - 1])] if a > 0 else []
        ends += [(mine[b], mine[b + 1])] if b < len(mine) - 1 else []
    if ends:
        pairs = np.repeat(np.array(ends).T, BETWEEN, axis=1)  # [2, more points]
        share = np.tile(np.arange(1, BETWEEN + 1) / (BETWEEN + 1), len(ends))
        more = at[pairs[0]] + share * (at[pairs[1]] - at[pairs[0]])
        _, g = _held(base, index[which[pairs[0]]], more, x[pairs])
        which, at, f = (
            np.append(v, w) for v, w in ((which, which[pairs[0]]), (at, more), (f, g))
        )  # fmt: skip
    order = np.lexsort((at, which))
    parts = {name: order[which[order] == k] for k, name in enumerate(names)}
    return {name: _profile(fit, name, at[rows], f[rows], level) for name, rows in parts.items()}


def _from_neighbours(
    base: Problem, held: np.ndarray, at: np.ndarray, x: np.ndarray, f: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The points solved again from the solutions on both sides, and again where one got lower."""
    around = np.stack([np.arange(len(at)) + side for side in (-1, 1)]).clip(0, len(at) - 1)
    around = np.where(held[around] == held, around, np.arange(len(at)))  # none beyond the ends
    todo = np.arange(len(at))
    for _ in range(3):
        y, g = _held(base, held[todo], at[todo], x[around[:, todo]])
        better = g < f[todo] * (1 - 10 * ROUGH)
        x[todo[better]], f[todo[better]] = y[better], g[better]
        todo = np.unique(around[:, todo[better]])
        if not len(todo):
            break
    return x, f


def _held(
    base: Problem, held: np.ndarray, at: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest of K solutions of each problem with coordinate `held` [M] kept at `at` [M]; starts
    [K, M, P]. Returns coordinates [M, P] and objectives [M]."""
    many, count, width = starts.shape
    starts = starts.copy()
    starts[:, np.arange(count), held] = at
    p = dataclasses.replace(base, held=np.tile(held, many))
    x, f = p.solve(starts.reshape(-1, width), tolerance=ROUGH, iterations=PATIENT)
    x, f = x.reshape(starts.shape), f.reshape(many, count)
    best = f.argmin(0)
    return x[best, np.arange(count)], f.min(0)


def _grid(fit: Fit, name: str) -> np.ndarray:
    """Log values of a coefficient, within its limits, at which its profile is taken."""
    centre = math.log(fit.coefficients[name])
    near = NEAR * min(max(_standard_error(fit, name), 1e-9), WIDEST)
    steps = np.append(near, FAR[1.2 * near[-1] < FAR])
    grid = centre + np.concatenate([-steps[::-1], steps])
    low, high = np.log(fit.law.coefficient(name).limits)
    return np.unique(np.append(grid[(grid > low) & (grid < high)], centre))


def _standard_error(fit: Fit, name: str) -> float:
    """About that of the coefficient's logarithm: by Gauss and Newton, with a prior of one nat."""
    p = problem(fit)
    x = p.coordinates(fit.coefficients)
    J = p.jacobian(x, *p.columns)[1]
    noise = max(1.4826 * float(np.median(np.abs(fit.residuals))), 1e-6)
    towards = p.logarithm(x, name)
    return float(np.sqrt(towards @ np.linalg.inv(J.T @ J / noise**2 + np.eye(len(x))) @ towards))


def _inside(fit: Fit, name: str, grid: np.ndarray, d: np.ndarray, level: float) -> tuple[int, int]:
    """The first and the last of the values that are as good as the best, which is the fit's."""
    d[np.abs(grid - math.log(fit.coefficients[name])).argmin()] = 0.0
    inside = np.flatnonzero(d <= threshold(fit, level))
    return int(inside[0]), int(inside[-1])


def _profile(fit: Fit, name: str, grid: np.ndarray, f: np.ndarray, level: float) -> Profile:
    d = deviance(fit, f, name)
    a, b = _inside(fit, name, grid, d, level)
    root, at = np.sqrt(d), math.sqrt(threshold(fit, level))  # about a line between two values
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


def affordable(table: Table, resamples: int) -> int:
    """The number of resamples: as many as requested, but at most DRAWN rows in all."""
    return min(resamples, max(DRAWN // max(len(table), 1), FEWEST))


def bootstrap(fit: Fit, resamples: int = 1000, seed: int = 0, keep: int = 2) -> Fit:
    """Returns the fit with `samples`: whole groups resampled, each refitted from the best minima.

    A two-step fit resamples both steps with the same draws. Of a large table there are fewer
    resamples than asked for, see `affordable`.
    """
    if resamples < 1:
        return fit
    weights = weights_of(fit.table, affordable(fit.table, resamples), seed)
    return dataclasses.replace(
        fit, samples=_refit(fit, weights, keep), requested_resamples=resamples
    )


def _refit(fit: Fit, weights: np.ndarray, keep: int) -> dict[str, np.ndarray]:
    count = len(weights)
    fixed: dict[str, Any] = dict(fit.fixed)
    if fit.first is not None:
        rows = fit.table.epochs < 1.0 + 1e-6
        one = _refit(fit.first, weights[:, rows], keep)
        complete = vars(fit.first.law.complete(one))
        fixed = {name: complete.get(name, fixed[name]) for name in fixed}
    warm = [m for m in fit.minima[: keep + 2] if deviance(fit, m.objective) < 8][:keep]
    base, p = problem(fit), problem(fit, fixed=fixed)
    starts = [base.coordinates(fit.fixed | m.coefficients) for m in warm]
    starts += [back for x in starts if ((back := _off_limits(base, x)) != x).any()]
    x, f = p.solve(np.repeat(np.stack(starts), count, axis=0), weights, tolerance=ROUGH)
    best = f.reshape(len(starts), count).argmin(0)
    best_x = x.reshape(len(starts), count, -1)[best, np.arange(count)]
    with np.errstate(all="ignore"):
        coefficients = p.values(best_x, np.arange(count), dual=False)
    return {
        name: np.broadcast_to(np.asarray(value)[:, 0], (count,)).copy()
        for name, value in coefficients.items()
    }


def _off_limits(p: Problem, x: np.ndarray) -> np.ndarray:
    """Resets coefficients stuck at a limit to the edge of their starting range."""
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


def widened(level: float, *fits: Any) -> float:
    """Widens an interval for few runs: the share of the samples that it has to hold for `level`.

    Resampled fits scatter less than fits to new runs would, by about sqrt((n - p)/n), and the normal
    quantile is too small; the expanded percentile interval puts both right (Hesterberg 2015, arXiv
    1411.5279, section 5). Of several fits, the one with the fewest runs to spare decides.
    """
    from scipy import special

    levels = [level]
    for each in fits:
        if isinstance(each, Fit):
            runs = each.table.groups
            left = freedom(each)
            z = math.sqrt(runs / left) * special.stdtrit(left, 0.5 + level / 2)
            levels.append(float(2 * special.ndtr(z) - 1))
        else:
            levels.append(each.share)
    return max(levels)
