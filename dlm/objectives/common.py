"""What objectives share: sums in nats, cross-entropy over real tokens, stratified draws, sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Sum(NamedTuple):
    """Sums in nats, never means, so that batches, microbatches and hosts add up exactly.

    `nats` is a scalar (of a loss) or one number per sequence, Float[B] (of an `nll`); `tokens` is
    the number of tokens behind all of it; `terms` are named parts of the bound that add up to nats.
    """

    nats: Float[Array, "*B"]
    tokens: int
    terms: dict[str, Float[Array, "*B"]]


def mean(one: Callable[[Any], Any], passes: int | Int[Array, ""]) -> Any:
    """Of `one(0)`, ..., `one(passes - 1)`, trees of float arrays."""
    if isinstance(passes, int) and passes == 1:
        return one(0)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, 0))
    total = jax.lax.fori_loop(
        0, passes, lambda i, total: jax.tree.map(jnp.add, total, one(i)), empty
    )
    return jax.tree.map(lambda x: x / passes, total)


def cross_entropy(
    logits: Float[Array, "B L R"], tokens: Int[Array, "B L"], vocab_size: int
) -> Float[Array, "B L"]:
    """-log p(token) in nats over the real vocabulary: BOS and MASK can not be predicted."""
    logits = logits[..., :vocab_size]
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def exact_count_mask(chance: Float[Array, "*B L"], counts: Int[Array, "*B"]) -> Bool[Array, "*B L"]:
    """Of each row the `counts[b]` positions of least chance: of uniform draws, a random set."""
    rank = jnp.argsort(jnp.argsort(chance, axis=-1), axis=-1)
    return rank < counts[..., None]


def given(
    prompt: Int[Array, "B P"], length: int, infill: Int[Array, "B L"] | None
) -> Int[Array, "B L"]:
    """What a sample has to hold: the prompt at its start, or `infill`; -1 where it is free."""
    if infill is not None:
        return infill
    return jnp.pad(prompt, ((0, 0), (0, length - prompt.shape[1])), constant_values=-1)


def draw(
    key: PRNGKeyArray, logits: Float[Array, "*B V"], temperature: float, top_p: float
) -> Int[Array, "*B"]:
    """Samples ids from logits at a temperature (0: the most likely) within the nucleus of `top_p`."""
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / temperature
    if top_p < 1:
        ordered = jnp.sort(logits, axis=-1)[..., ::-1]
        below = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered) < top_p
        least = jnp.min(jnp.where(below, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits)
