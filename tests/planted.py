"""Tables of runs whose law is known: sizes by unique tokens by epochs, with noise in log loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm.laws import table as tables
from dlm.laws.fits import Fit, problem
from dlm.laws.forms import law as named
from dlm.laws.intervals import Profile, profiles
from dlm.laws.table import Table
from places import PUBLIC

SIZES = np.geomspace(2e7, 1.3e9, 5)
UNIQUE = (2.5e7, 1e8, 4e8)
EPOCHS = (1, 4, 16, 64, 256)
LOOPS = (1.0, 2.0, 4.0, 8.0)
SEEN = {"E": 1.8, "A": 300.0, "B": 900.0, "alpha": 0.32, "beta": 0.33}
TIED = {"E": 1.8, "A": 300.0, "B": 900.0, "alpha": 0.32}
TRUTHS: dict[str, dict[str, float]] = {
    "chinchilla": SEEN,
    "chinchilla-tied": TIED,
    "data-constrained": SEEN | {"R_D": 20.0, "R_N": 10.0},
    "data-constrained-tied": TIED | {"R_D": 20.0, "R_N": 10.0},
    "data-decay": SEEN | {"R_D": 20.0},
    "size-decay": SEEN | {"R_N": 10.0},
    "geometric": SEEN | {"k_D": 0.05, "k_N": 0.1},
    "power-decay": SEEN | {"p_D": 0.6, "p_N": 0.4},
    "over-fitting": SEEN | {"R_D": 20.0, "R_N": 10.0, "K": 1e-4, "gamma": 0.7, "kappa": 0.9},
    "over-fitting-one": SEEN | {"K": 5e-3},
    "data-growth": SEEN | {"R_D": 20.0, "R_N": 10.0, "growth": 2.0, "U_0": 1e8},
    "size-growth": SEEN | {"R_D": 20.0, "R_N": 10.0, "growth": 0.6, "N_0": 2e8},
    "chinchilla-looped": SEEN | {"phi": 0.46},
    "data-constrained-looped": SEEN | {"R_D": 20.0, "R_N": 10.0, "phi": 0.46},
    "one-size": {"E": 2.3, "B": 900.0, "beta": 0.33, "R_D": 20.0},
}


def grid(*axes: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    return [g.ravel() for g in np.meshgrid(*axes, indexing="ij")]


def table(
    law: str,
    values: Mapping[str, float] | None = None,
    *,
    noise: float = 0.0,
    seed: int = 0,
    sizes: Sequence[float] | np.ndarray = SIZES,
    unique: Sequence[float] = UNIQUE,
    epochs: Sequence[float] = EPOCHS,
    loops: Sequence[float] = LOOPS,
    **options: Any,
) -> Table:
    """Each size on each number of unique tokens for each number of epochs; noise: its deviation. Under
    a law that knows loops the runs take them in turn."""
    N, U, e = grid(sizes, unique, epochs)
    r = np.resize(loops if named(law).looped else 1.0, len(N))
    truth = TRUTHS[law] if values is None else values
    loss = named(law).predict(truth, N, U * e, U, r, options.get("looped_params", N) / N)
    shifts = noise * np.random.default_rng(seed).standard_normal(len(N))
    return tables.make(N, U * e, U, loss * np.exp(shifts), loops=r, **options)


def jacobian(fit: Fit, *columns: np.ndarray) -> np.ndarray:
    """d log L / d coordinate of each free coefficient, [R, P]."""
    p = problem(fit)
    return p.jacobian(p.coordinates(fit.coefficients), *columns)[1]


def profile(fit: Fit, name: str) -> Profile:
    return profiles(fit, (name,))[name]


def public(name: str) -> Path:
    """A file of the public tables; the test is skipped where they are not."""
    if not (PUBLIC / name).is_file():
        pytest.skip(f"no {name}: the public tables are not beside this checkout")
    return PUBLIC / name
