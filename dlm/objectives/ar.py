"""Autoregression: p(x) = Π_j p(x_j | BOS, x_<j). The nll is the exact -log p(x).

Source: arXiv 2507.15857, section 2.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Mask, Params, Transformer, keys
from dlm.objectives.common import SampleRequest, Sum, cross_entropy, draw, sampler, total, with_bos

FAMILY = config.FAMILIES["ar"]


class ARExample(NamedTuple):
    """How sequences are shown to the model: what it reads, at which positions, and what it predicts."""

    inputs: Int[Array, "B L"]
    targets: Int[Array, "B L"]
    positions: Int[Array, "*B L"] | None = None
    mask: Mask = "causal"
    queries: Int[Array, "*B L"] | None = None  # one position before that of each target


def make(objective: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    return trained_on(None, vocab_size)


def trained_on(
    make_example: Callable[[keys.RowKeys, Int[Array, "B L"]], ARExample] | None, vocab_size: int
) -> tuple[Callable, Callable, Callable]:
    """Makes AR whose training shows `make_example(draws, tokens)`; scores and samples left to right."""

    def loss(apply, params, tokens, key, step=None) -> Sum:
        dropout = keys.row_keys(key, len(tokens))
        if make_example is None:
            example = left_to_right(tokens, vocab_size)
        else:
            example_draws, dropout = dropout.split(2)
            example = make_example(example_draws, tokens)
        nll = token_nll(apply, params, example, dropout, vocab_size)
        return total({"nll": jnp.sum(nll)}, tokens)

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        del key, passes  # exact: no randomness
        nll = token_nll(apply, params, left_to_right(tokens, vocab_size), None, vocab_size)
        return total({"nll": jnp.sum(nll, axis=-1)}, tokens)

    return loss, nll, sampler(functools.partial(fill_left_to_right, vocab_size))


def left_to_right(tokens: Int[Array, "B L"], vocab_size: int) -> ARExample:
    return ARExample(with_bos(tokens[:, :-1], vocab_size), tokens)


def token_nll(
    apply: Callable, params: Params, example: ARExample, key: keys.RowKeys | None, vocab_size: int
) -> Float[Array, "B L"]:
    """Returns -log p of each target in nats."""
    where: dict = {} if example.queries is None else {"queries": example.queries}
    where |= {} if example.positions is None else {"positions": example.positions}
    logits = apply(params, example.inputs, mask=example.mask, key=key, **where)
    return cross_entropy(logits, example.targets, vocab_size)


def fill_left_to_right(
    vocab_size: int, model: Transformer, params: Params, key: PRNGKeyArray, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples with a KV cache: the prompt in one call, then one token at a time.

    Infilled tokens depend only on the tokens to their left.
    """
    (batch, start), kept = request.prompt.shape, request.conditioning
    length = kept.shape[1]
    visible = jnp.tri(length, dtype=bool)
    logits, cache = model.apply(
        params,
        with_bos(request.prompt, vocab_size),
        mask=visible[: start + 1],
        positions=jnp.arange(start + 1),
        cache=model.cache(batch, length),
    )

    def step(carry, position):
        logits, cache = carry
        token_key, logits = jax.random.fold_in(key, position), logits[:, :vocab_size]
        tokens = draw(token_key, logits, request.temperature, request.top_p)
        tokens = jnp.where(kept[:, position] < 0, tokens, kept[:, position])
        logits, cache = model.apply(
            params,
            tokens[:, None],
            mask=jax.lax.dynamic_slice_in_dim(visible, position + 1, 1),
            positions=position[None] + 1,
            cache=cache,
        )
        return (logits[:, -1], cache), tokens

    _, sampled = jax.lax.scan(step, (logits[:, -1], cache), jnp.arange(start, length))
    return jnp.concatenate([request.prompt, sampled.T], axis=1)
