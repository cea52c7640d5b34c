"""Many small minimisations at once: BFGS with a weak-Wolfe line search, vectorised over problems.

A fit has hundreds of starts, a profile dozens of points and a bootstrap a thousand resamples, each
a problem in a handful of coordinates. Solved side by side, they share every NumPy call. Weak Wolfe
steps by bisection, since sums of near-absolute residuals have kinks (Lewis and Overton 2013).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (coordinates [M, P], which problems [M]) -> (values [M], gradients [M, P])
Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

DECREASE, CURVATURE = 1e-4, 0.9  # the two constants of the Wolfe conditions
HALVINGS = 30


def minimise(
    objective: Objective,
    starts: np.ndarray,
    *,
    iterations: int = 300,
    tolerance: float = 1e-11,
    metric: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Local minima from `starts` [S, P]: coordinates [S, P] and values [S]; deterministic.

    A problem ends when its relative decrease stays below `tolerance` for three steps, or when the
    line search finds no decrease. A start without a finite value keeps the value infinity. `metric`
    [P, P] is about the inverse of the second derivatives: where directions differ much in stiffness,
    steps along the flat ones are else too small to count.
    """
    x = np.array(starts, float)
    count, width = x.shape
    f, g = objective(x, np.arange(count))
    f = np.where(np.isfinite(f) & np.isfinite(g).all(1), f, np.inf)
    inverse = np.tile(np.eye(width), (count, 1, 1)) / _length(g)[:, None, None]
    if metric is not None:
        inverse = np.tile(metric, (count, 1, 1))
    slow = np.zeros(count, int)
    active = np.flatnonzero(np.isfinite(f))
    fresh = np.full(count, metric is None)
    for _ in range(iterations if width else 0):
        if not len(active):
            break
        direction = -np.einsum("mij,mj->mi", inverse[active], g[active])
        slope = np.einsum("mi,mi->m", direction, g[active])
        uphill = ~(slope < 0)
        direction[uphill] = -g[active][uphill]
        slope[uphill] = -(g[active][uphill] ** 2).sum(1)
        new_x, new_f, new_g, found = _search(objective, active, x, f, direction, slope)
        decrease = f[active] - new_f
        step, change = new_x - x[active], new_g - g[active]
        curved = np.einsum("mi,mi->m", step, change)
        good = found & (curved > 0)
        scale = np.where(good & fresh[active], curved / (change**2).sum(1).clip(1e-300), 1.0)
        matrix = inverse[active] if not (good & fresh[active]).any() else inverse[active].copy()
        first = good & fresh[active]
        matrix[first] = np.eye(width) * scale[first, None, None]
        rho = 1.0 / np.where(good, curved, 1.0)
        left = np.eye(width) - rho[:, None, None] * step[:, :, None] * change[:, None, :]
        updated = left @ matrix @ left.transpose(0, 2, 1)
        updated += rho[:, None, None] * step[:, :, None] * step[:, None, :]
        inverse[active] = np.where(good[:, None, None], updated, matrix)
        fresh[active] &= ~good
        x[active], g[active], f[active] = new_x, new_g, new_f
        small = ~(decrease > tolerance * np.abs(new_f).clip(1e-300))
        slow[active] = np.where(small, slow[active] + 1, 0)
        active = active[found & (slow[active] < 3)]
    return x, f


def _length(g: np.ndarray) -> np.ndarray:
    return np.sqrt((np.nan_to_num(g) ** 2).sum(1)).clip(1e-12)


def _search(
    objective: Objective,
    active: np.ndarray,
    x: np.ndarray,
    f: np.ndarray,
    direction: np.ndarray,
    slope: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A weak-Wolfe step of each active problem, else the best decrease seen, else no step."""
    count = len(active)
    low, high, step = np.zeros(count), np.full(count, np.inf), np.ones(count)
    best_x, best_f = x[active].copy(), f[active].copy()
    best_g = np.zeros_like(best_x)
    found = np.zeros(count, bool)
    todo = np.arange(count)
    for _ in range(HALVINGS):
        trial = x[active[todo]] + step[todo, None] * direction[todo]
        value, gradient = objective(trial, active[todo])
        finite = np.isfinite(value) & np.isfinite(gradient).all(1)
        value = np.where(finite, value, np.inf)
        enough = value <= f[active[todo]] + DECREASE * step[todo] * slope[todo]
        flat = np.einsum("mi,mi->m", np.where(finite[:, None], gradient, 0.0), direction[todo])
        steep = flat < CURVATURE * slope[todo]
        better = enough & (value < best_f[todo])
        kept = todo[better]
        best_x[kept], best_f[kept], best_g[kept] = trial[better], value[better], gradient[better]
        found[kept] = True
        high[todo[~enough]] = step[todo[~enough]]
        low[todo[enough]] = step[todo[enough]]
        todo = todo[~enough | steep]
        if not len(todo):
            break
        half = np.isfinite(high[todo])
        step[todo] = np.where(half, (low[todo] + np.where(half, high[todo], 0)) / 2, 2 * low[todo])
    return best_x, best_f, best_g, found
