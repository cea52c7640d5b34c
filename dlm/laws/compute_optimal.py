"""The best use of a compute budget under a law: model size, epochs and loss at C = 6ND.

All counts are raw: parameters N, training tokens D, unique tokens U, compute C in FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.forms import Law


@dataclass(frozen=True)
class Optimum:
    """The best use of a compute budget, or of less compute if training on would do harm."""

    loss: np.ndarray  # nats per token
    params: np.ndarray
    epochs: np.ndarray


def optimal(
    law: Law, values: Mapping[str, Any], compute: Any, unique: Any, *, drop: bool = False
) -> Optimum:
    """Searches the N that a law finds best at each C and U; shapes broadcast.

    If D = C/6N is below U, only D of the unique tokens are used, once. A law whose loss can rise
    with repetition spends less than C if that is better. `drop` leaves the irreducible loss out.

    Raises:
      DlmError: the law has no size term.
    """
    if not rises(law):
        return spend_all(law, values, compute, unique, drop)
    C, U = (np.asarray(v, float)[..., None] for v in (compute, unique))
    columns = {k: np.asarray(v, float)[..., None] for k, v in values.items()}
    saved, step = np.linspace(0.0, 14.0, 57), 0.25  # log of C over the compute spent, to 10^-6
    while True:
        tried = spend_all(law, columns, C * np.exp(-saved), U, drop)
        best = tried.loss.argmin(-1)[..., None]
        if step < 0.01:
            fields = (tried.loss, tried.params, tried.epochs)
            return Optimum(*(np.take_along_axis(v, best, -1)[..., 0] for v in fields))
        middle = np.take_along_axis(np.broadcast_to(saved, tried.loss.shape), best, -1)
        saved, step = np.maximum(middle + step * np.linspace(-1, 1, 17), 0.0), step / 8


def rises(law: Law) -> bool:
    """Whether more compute can do harm under this law."""
    return "K" in law.names


def spend_all(
    law: Law, values: Mapping[str, Any], compute: Any, unique: Any, drop: bool
) -> Optimum:
    """Searches as `optimal` does, with all of C spent."""
    if "A" not in law.names:
        raise DlmError(f"{law.name} has no size term, so no size is the best at a compute")
    C, U = np.broadcast_arrays(np.asarray(compute, float), np.asarray(unique, float))
    columns = {k: np.asarray(v, float)[..., None] for k, v in values.items()}
    if drop:
        columns["E"] = np.zeros_like(columns["E"])
    shape = np.broadcast_shapes(C.shape, *(v.shape[:-1] for v in columns.values()))
    low, high = np.zeros(shape), np.broadcast_to(np.log(C / 6), shape)  # one parameter, one token
    grid = np.linspace(0, 1, 25)
    best = np.zeros(shape, int)
    loss = x = np.zeros((*shape, 1))
    for _ in range(7):  # each narrows the range twelvefold
        x = low[..., None] + (high - low)[..., None] * grid
        N = np.exp(x)
        D = C[..., None] / (6 * N)
        loss = law.predict(columns, N, D, np.minimum(U[..., None], D))
        loss = np.where(np.isfinite(loss), loss, np.inf)
        best = loss.argmin(-1)
        step = (high - low) / (len(grid) - 1)
        middle = np.take_along_axis(x, best[..., None], -1)[..., 0]
        low, high = middle - step, middle + step
    N = np.exp(np.take_along_axis(x, best[..., None], -1)[..., 0])
    D = C / (6 * N)
    return Optimum(np.take_along_axis(loss, best[..., None], -1)[..., 0], N, D / np.minimum(U, D))
