"""Many small minimisations at once: Levenberg and Marquardt's steps, vectorised over problems.

A fit has a hundred starts, a profile dozens of points and a bootstrap a thousand resamples, each a
problem in a handful of coordinates. Solved side by side, they share every NumPy call, and a problem
that ends leaves the others' arrays smaller.

The curvature of a sum of rho(residual) is taken as J^T W J with W = rho'(r)/r, which lies above the
true one (as in iteratively reweighted least squares): its steps are safe, but under a robust loss
too short. So each problem learns by which factor its curvature is too large, from the decrease that
a step brought over the one predicted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (coordinates [M, P], which problems [M]) -> values [M], gradients [M, P], curvatures [M, P, P]
Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

LONGEST = 3.0  # length of a step: coordinates are logarithms, so a factor of 20
DAMPING = (1e-9, 1e8)  # least, and beyond which a problem ends: no step decreases it
PATIENCE = 3  # steps of no relative decrease after which a problem ends


def minimise(
    objective: Objective, starts: np.ndarray, *, iterations: int = 200, tolerance: float = 1e-11
) -> tuple[np.ndarray, np.ndarray]:
    """Local minima from `starts` [S, P]: coordinates [S, P] and values [S]; deterministic.

    A problem ends when an undamped step promises a relative decrease below `tolerance`, when
    PATIENCE steps brought less, or when no step brings any. A start without a finite value keeps
    the value infinity.
    """
    x = np.array(starts, float)
    f, g, H = _finite(*objective(x, np.arange(len(x))))
    damping, scale = np.full(len(x), 1e-2), np.ones(len(x))
    slow = np.zeros(len(x), int)
    active = np.flatnonzero(np.isfinite(f) & (g != 0).any(1))
    for _ in range(iterations):
        step, promised = _step(g[active], scale[active, None, None] * H[active], damping[active])
        going = (promised > tolerance * np.abs(f[active])) | (damping[active] > 1e-2)
        active, step, promised = active[going], step[going], promised[going]
        if not len(active):
            break
        trial = x[active] + step
        new_f, new_g, new_H = _finite(*objective(trial, active))
        ratio = (f[active] - new_f) / promised.clip(1e-300)
        lower = new_f < f[active]
        small = ~(f[active] - new_f > tolerance * np.abs(f[active]))
        scale[active] = np.where(
            lower,
            np.clip(scale[active] * np.clip(2 - ratio, 1 / 3, 2), 0.02, 1.0),
            np.minimum(3 * scale[active], 1.0),
        )
        softer = np.where(ratio > 0.5, 0.2, np.where(ratio < 0.1, 3.0, 1.0))
        damping[active] = np.maximum(damping[active] * np.where(lower, softer, 6.0), DAMPING[0])
        slow[active] = np.where(lower, np.where(small, slow[active] + 1, 0), slow[active])
        moved = active[lower]
        x[moved], f[moved], g[moved], H[moved] = (
            v[lower] for v in (trial, new_f, new_g, new_H)
        )  # fmt: skip
        active = active[(slow[active] < PATIENCE) & (damping[active] < DAMPING[1])]
    return x, f


def _finite(f: np.ndarray, g: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, ...]:
    """Infinity for a value whose derivatives are not known either."""
    known = np.isfinite(f) & np.isfinite(g).all(1) & np.isfinite(H).all((1, 2))
    return np.where(known, f, np.inf), g, H


def _step(g: np.ndarray, H: np.ndarray, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The damped steps [M, P], and the decrease [M] that the quadratic promises for each.

    Solved with each coordinate in units of its own curvature, of which a flat one has a little too:
    so the damped matrix is never singular.
    """
    own = np.einsum("mii->mi", H)
    unit = np.sqrt(np.maximum(own, 1e-6 * own.max(1, keepdims=True)) + 1e-100)
    scaled = H / unit[:, :, None] / unit[:, None, :]
    scaled += damping[:, None, None] * np.eye(g.shape[1])
    step = -np.linalg.solve(scaled, (g / unit)[:, :, None])[:, :, 0] / unit
    length = np.sqrt((step**2).sum(1)).clip(1e-300)
    step *= np.minimum(1.0, LONGEST / length)[:, None]
    along = np.einsum("mi,mi->m", g, step)
    bend = np.einsum("mi,mij,mj->m", step, H, step)
    return step, -(along + bend / 2)
