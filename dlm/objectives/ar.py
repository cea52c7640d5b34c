"""Autoregression: p(x) = Π_j p(x_j | BOS, x_<j). Its nll is the exact likelihood.

Source: arXiv 2507.15857, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm.model import Mask, Params, Transformer, keys
from dlm.objectives.common import Sum, cross_entropy, draw, given


class View(NamedTuple):
    """One way of showing sequences to the model: what it reads, where, and what it has to say."""

    inputs: Int[Array, "B L"]
    targets: Int[Array, "B L"]
    positions: Int[Array, "*B L"] | None = None
    mask: Mask = "causal"
    queries: Int[Array, "*B L"] | None = None  # positions just before the targets'


def left_to_right(tokens: Int[Array, "B L"], bos: int) -> View:
    return View(jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=bos), tokens)


def score(
    apply: Callable, params: Params, view: View, key: keys.Draws | None, vocab_size: int
) -> Float[Array, "B L"]:
    """-log p of each target, in nats."""
    where: dict = {} if view.queries is None else {"queries": view.queries}
    where |= {} if view.positions is None else {"positions": view.positions}
    logits = apply(params, view.inputs, mask=view.mask, key=key, **where)
    return cross_entropy(logits, view.targets, vocab_size)


def make(vocab_size: int, augment: Callable | None = None) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS is row `vocab_size`.

    `augment(draws, tokens) -> View` changes what training shows; nll and samples are left to right.
    """
    bos = vocab_size

    def loss(apply, params, tokens, key, step=None) -> Sum:
        view, dropout = left_to_right(tokens, bos), keys.draws(key, len(tokens))
        if augment is not None:
            views, dropout = dropout.split(2)
            view = augment(views, tokens)
        nats = jnp.sum(score(apply, params, view, dropout, vocab_size))
        return Sum(nats, tokens.size, {"nll": nats})

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        del key, passes  # exact: nothing is drawn
        nats = jnp.sum(score(apply, params, left_to_right(tokens, bos), None, vocab_size), axis=-1)
        return Sum(nats, tokens.size, {"nll": nats})

    def sample(
        model: Transformer,
        params: Params,
        key: PRNGKeyArray,
        prompt: Int[Array, "B P"],
        length: int,
        *,
        infill: Int[Array, "B L"] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        **options,
    ) -> Int[Array, "B L"]:
        """Left to right with a KV cache: the prompt in one call, then one token at a time.

        What is filled in follows from what stands before it, not from what comes after.
        """
        del options  # there is one order, a step a token
        batch, start = prompt.shape
        fixed = given(prompt, length, infill)
        inputs = jnp.pad(prompt, ((0, 0), (1, 0)), constant_values=bos)
        visible = jnp.tri(length, dtype=bool)
        logits, cache = model.apply(
            params,
            inputs,
            mask=visible[: start + 1],
            positions=jnp.arange(start + 1),
            cache=model.cache(batch, length),
        )

        def step(carry, position):
            logits, cache = carry
            drawn = draw(
                jax.random.fold_in(key, position), logits[:, :vocab_size], temperature, top_p
            )
            drawn = jnp.where(fixed[:, position] < 0, drawn, fixed[:, position])
            logits, cache = model.apply(
                params,
                drawn[:, None],
                mask=jax.lax.dynamic_slice_in_dim(visible, position + 1, 1),
                positions=position[None] + 1,
                cache=cache,
            )
            return (logits[:, -1], cache), drawn

        _, drawn = jax.lax.scan(step, (logits[:, -1], cache), jnp.arange(start, length))
        return jnp.concatenate([prompt, drawn.T], axis=1)

    return loss, nll, sample
