"""AR that is trained on several orders of each sequence and evaluated left to right.

Finding 8 of arXiv 2507.15857 (section 3.5, algorithms 1 and 2): each sequence is shown in one of N
fixed orders, its input tokens keeping their original positions; nothing tells the model which token
comes next. `jitter` sorts positions after adding i times a normal draw, for the i-th order; `uniform`
draws permutations. The first order is left to right, so one order is AR. With a new order for every
sequence (0) it is any-order AR without target positions.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from dlm.objectives import ar

SEED = 1234  # of the fixed orders: the same for every run


def make(vocab_size: int, count: int, kind: str) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS is row `vocab_size`."""

    def augment(key: PRNGKeyArray, tokens: Int[Array, "B L"]) -> ar.View:
        batch, length = tokens.shape
        if count:
            which = jax.random.randint(key, (batch,), 0, count)
            order = jnp.asarray(table(count, length, kind))[which]
        else:
            order = jnp.argsort(_scores(key, batch, length, kind), axis=-1)
        shuffled = jnp.take_along_axis(tokens, order, axis=-1)
        view = ar.left_to_right(shuffled, vocab_size)
        return view._replace(positions=jnp.pad(order[:, :-1] + 1, ((0, 0), (1, 0))))

    return ar.make(vocab_size, None if count == 1 else augment)


def table(count: int, length: int, kind: str) -> Int[np.ndarray, "N L"]:
    """The fixed orders; the first is the identity."""
    rng = np.random.default_rng(SEED)
    rows = [np.arange(length)]
    for i in range(1, count):
        jitter = np.argsort(np.arange(length) + i * rng.standard_normal(length), kind="stable")
        rows.append(jitter if kind == "jitter" else rng.permutation(length))
    return np.stack(rows).astype(np.int32)


def _scores(key: PRNGKeyArray, batch: int, length: int, kind: str) -> Array:
    """What a new order sorts by: noise alone, or noise of one deviation of up to L and position."""
    if kind == "uniform":
        return jax.random.uniform(key, (batch, length))
    scale_key, key = jax.random.split(key)
    scale = jax.random.uniform(scale_key, (batch, 1)) * length
    return jnp.arange(length) + scale * jax.random.normal(key, (batch, length))
