"""Masked diffusion's training loss with cheaper logits: an objective file for tests/accelerator.py.

The product computes the logits of every position at once. Here they are computed

  masked-positions  at masked positions only, which are gathered first
  masked-chunks     a few thousand positions at a time, and again in the backward pass
  masked-both       both
  masked-narrow     at once, their slopes rounded to the type of the model before they are multiplied:
                    the product's are float32, so two of its three products run in TF32
  masked-aligned    so, with rows added to a multiple of 128: an odd number of rows takes slow kernels

`objective.name` chooses. The loss is the product's (estimator "time", linear schedule), with the same
draws; tests/training/test_accelerator.py compares them. Gathering moves rows between devices: for one
device.
Shapes: N = B L positions, D width, R rows of the embedding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dlm import config
from dlm.model import keys
from dlm.objectives import masked
from dlm.objectives.common import Sum, cross_entropy

FAMILY = config.FAMILIES["masked"]
SHARE = 0.625  # of the positions: room for the masked ones, half of them on average
CHUNK = 2048  # positions


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; only the loss is not the product's."""
    entropy = {
        "masked-positions": functools.partial(at_masked, entropy=at_once),
        "masked-chunks": in_chunks,
        "masked-both": functools.partial(at_masked, entropy=in_chunks),
        "masked-narrow": functools.partial(at_once, product=narrow),
        "masked-aligned": functools.partial(at_once, product=narrow, multiple=128),
    }[c.name]
    _, nll, sample = masked.make(c, vocab_size)
    bos, mask_id = vocab_size, vocab_size + 1

    def loss(apply: Callable, params: Any, tokens: Array, key: Any, step: Any = None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.row_keys(key, batch).split(3)
        t = 1 - times.stratified()  # Float[B 1] in (0, 1]
        hidden_tokens = masks.uniform(length) < t
        inputs = jnp.where(hidden_tokens, mask_id, tokens)
        inputs = jnp.pad(inputs, ((0, 0), (1, 0)), constant_values=bos)
        x = apply(params, inputs, mask="full", key=dropout, hidden=True)[:, 1:]
        weights = jnp.where(hidden_tokens, 1 / t, 0)
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"  # as benchmark.sized
        flat = x.reshape(-1, x.shape[-1]).astype(dtype), tokens.ravel(), weights.ravel()
        table = params.get("head", params["embedding"]).astype(dtype)
        nats = entropy(table, *flat, vocab_size=vocab_size)
        return Sum(nats, tokens.size, {"diffusion": nats})

    return loss, nll, sample


def wide(x: Array, table: Array) -> Array:
    """Logits [N R] in float32, as the product's."""
    return jnp.einsum("ND,RD->NR", x, table, preferred_element_type=jnp.float32)


narrow = jax.custom_vjp(wide)
narrow.defvjp(
    lambda x, table: (wide(x, table), (x, table)), lambda kept, slope: _slopes(*kept, slope)
)


def _slopes(x: Array, table: Array, slope: Array) -> tuple[Array, Array]:
    slope = slope.astype(x.dtype)
    return slope @ table, jnp.einsum("NR,ND->RD", slope, x)


def at_once(
    table: Array,
    x: Array,
    tokens: Array,
    weights: Array,
    *,
    vocab_size: int,
    product: Callable[[Array, Array], Array] = wide,
    multiple: int = 1,
) -> Array:
    """Weighted sum of cross-entropies, in nats. table [R D], x [N D], tokens [N], weights [N]."""
    logits = product(x, jnp.pad(table, ((0, -len(table) % multiple), (0, 0))))
    return jnp.sum(weights * cross_entropy(logits[None], tokens[None], vocab_size)[0])


def in_chunks(table: Array, x: Array, tokens: Array, weights: Array, *, vocab_size: int) -> Array:
    """`at_once` for CHUNK positions at a time; the backward pass computes their logits again."""
    size = math.gcd(len(x), CHUNK)
    one = jax.checkpoint(functools.partial(at_once, vocab_size=vocab_size))

    def add(total: Array, part: tuple[Array, ...]) -> tuple[Array, None]:
        return total + one(table, *part), None

    parts = tuple(y.reshape(-1, size, *y.shape[1:]) for y in (x, tokens, weights))
    return jax.lax.scan(add, jnp.float32(0), parts)[0]


def at_masked(
    table: Array, x: Array, tokens: Array, weights: Array, *, vocab_size: int, entropy: Callable
) -> Array:
    """`entropy` of the positions with a weight, if SHARE of all holds them; else of all positions."""
    tile = math.gcd(len(x), CHUNK)
    room = min(-(-int(SHARE * len(x)) // tile) * tile, len(x))
    places = jnp.argsort(weights == 0)[:room]  # those with a weight come first

    def gathered() -> Array:
        rows = x.at[places].get(unique_indices=True, mode="promise_in_bounds")
        return entropy(table, rows, tokens[places], weights[places], vocab_size=vocab_size)

    def everything() -> Array:
        return entropy(table, x, tokens, weights, vocab_size=vocab_size)

    return jax.lax.cond(jnp.sum(weights > 0) <= room, gathered, everything)
