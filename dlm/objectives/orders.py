"""AR trained on several orders of each sequence.

Finding 8 of arXiv 2507.15857 (section 3.5, algorithms 1 and 2): each sequence is shown in one of N
fixed orders, and its input tokens keep their original positions. `jitter` adds i times a normal draw
to each position and sorts, for the i-th order; `uniform` draws permutations; `spans` permutes runs of
equal length; `segments` permutes runs that end with a separator (sentences, documents). The first
order is left to right, so a single order is AR. An order of segments reveals where the separators
are, but only in training, since scores are left to right. orders=0 draws a new order every time.

In the paper nothing tells the model which position comes next. With `targets`, each query has the
rotary position just before its target (the two positions of sigma-GPT, Pannatier et al. 2024, arXiv
2404.09562, without its second embedding); left to right this is AR again. Such a model can predict in
any order, see `dlm.objectives.any_order`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from dlm import config
from dlm.config import families
from dlm.model import keys
from dlm.objectives import ar

FAMILY = config.FAMILIES["orders"]
SEED = 1234  # of the fixed orders, the same in every run


def make(objective: families.Orders, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""

    def example(draws: keys.RowKeys, tokens: Int[Array, "B L"]) -> ar.ARExample:
        order = sample_order(objective, draws, tokens)
        return in_order(tokens, order, vocab_size, objective.targets)

    return ar.trained_on(None if objective.orders == 1 else example, vocab_size)


def in_order(
    tokens: Int[Array, "B L"], order: Int[Array, "B L"], vocab_size: int, targets: bool
) -> ar.ARExample:
    """Shows the tokens in an order, with their positions. BOS has position 0."""
    example = ar.left_to_right(jnp.take_along_axis(tokens, order, axis=-1), vocab_size)
    positions = jnp.pad(order[:, :-1] + 1, ((0, 0), (1, 0)))
    return example._replace(positions=positions, queries=order if targets else None)


def sample_order(
    c: families.Orders | families.AnyOrder, draws: keys.RowKeys, tokens: Int[Array, "B L"]
) -> Int[Array, "B L"]:
    """Draws an order for each sequence: one of the fixed orders, or a new one."""
    batch, length = tokens.shape
    if c.orders and c.order_kind in ("jitter", "uniform"):
        which = draws.below(c.orders)
        return jnp.asarray(fixed_orders(c.orders, length, c.order_kind))[which]
    if c.orders:  # spans and segments: one of N fixed noises sorts the parts
        which = draws.below(c.orders)
        noise = keys.RowKeys(jax.random.key(SEED), which, c.orders).uniform(length)
        noise = jnp.where(which[:, None] == 0, jnp.arange(length) / length, noise)
    else:
        noise = draws.uniform(length)
    if c.order_kind == "spans":
        return _by_part(noise, jnp.broadcast_to(jnp.arange(length) // c.span, (batch, length)))
    if c.order_kind == "segments":
        ends = jnp.cumsum(tokens == c.separator_id, axis=-1)
        return _by_part(noise, jnp.pad(ends[:, :-1], ((0, 0), (1, 0))))
    if c.order_kind == "uniform":
        return jnp.argsort(noise, axis=-1)
    scales, moves = draws.split(2)
    moved = jnp.arange(length) + length * scales.uniform(1) * moves.normal(length)
    return jnp.argsort(moved, axis=-1)


def _by_part(noise: Array, part: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Sorts parts by their noise; positions within a part stay left to right."""
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    first = jnp.take_along_axis(rank, part, axis=-1)
    return jnp.argsort(first * part.shape[1] + jnp.arange(part.shape[1]), axis=-1)


def fixed_orders(count: int, length: int, kind: str) -> Int[np.ndarray, "N L"]:
    """Makes the fixed orders. The first is left to right."""
    rng = np.random.default_rng(SEED)
    rows = [np.arange(length)]
    for i in range(1, count):
        jitter = np.argsort(np.arange(length) + i * rng.standard_normal(length), kind="stable")
        rows.append(jitter if kind == "jitter" else rng.permutation(length))
    return np.stack(rows).astype(np.int32)
