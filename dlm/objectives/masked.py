"""Masked diffusion with the linear schedule: a token is masked by time t with probability t.

-log p(x) <= E_t (1/t) Σ_{masked} -log p(x_i | x_t), t ~ U(0, 1], the continuous-time bound
(arXiv 2507.15857, section 2.2; Sahoo et al. 2024, Shi et al. 2024). The reconstruction and prior
terms are zero: at t = 0 nothing is masked, at t = 1 everything is. Its count form draws the number
of masked tokens, k ~ U{1..L}, and weighs by L/k (Ou et al. 2024): the same expectation, less variance.
No eps floor and no forced mask, so both are unbiased for the bound. Nothing depends on t but the mask.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm.model import Params, Transformer
from dlm.objectives.common import Sum, cross_entropy, draw, exact_count_mask, stratified


def make(vocab_size: int, estimator: str) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, mask_id = vocab_size, vocab_size + 1

    def predict(apply: Callable, params: Params, tokens: Int[Array, "B L"], key) -> Array:
        """Logits at the L positions after BOS."""
        inputs = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=bos)
        return apply(params, inputs, mask="full", key=key)[:, 1:]

    def weighted(apply, params, tokens, masked, weight, key) -> Float[Array, " B"]:
        logits = predict(apply, params, jnp.where(masked, mask_id, tokens), key)
        entropy = cross_entropy(logits, tokens, vocab_size)
        return weight * jnp.sum(jnp.where(masked, entropy, 0), axis=-1)

    def count_form(key, t: Float[Array, " B"], length: int):
        counts = jnp.clip(jnp.floor(t * length).astype(jnp.int32) + 1, 1, length)
        return exact_count_mask(key, counts, length), length / counts

    def loss(apply, params, tokens, key) -> Sum:
        time_key, mask_key, dropout_key = jax.random.split(key, 3)
        t = stratified(time_key, tokens.shape[0])
        if estimator == "count":
            masked, weight = count_form(mask_key, t, tokens.shape[1])
        else:
            masked, weight = (
                jax.random.uniform(mask_key, tokens.shape) < 1 - t[:, None],
                1 / (1 - t),
            )
        nats = jnp.sum(weighted(apply, params, tokens, masked, weight, dropout_key))
        return Sum(nats, tokens.size, {"diffusion": nats})

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape

        def one(i, nats):
            time = (t + i / passes) % 1.0  # each sequence's times are stratified over its passes
            masked, weight = count_form(jax.random.fold_in(mask_key, i), time, length)
            return nats + weighted(apply, params, tokens, masked, weight, None)

        time_key, mask_key = jax.random.split(key)
        t = stratified(time_key, batch)
        nats = jax.lax.fori_loop(0, passes, one, jnp.zeros(batch)) / passes
        return Sum(nats, tokens.size, {"diffusion": nats})

    def sample(
        model: Transformer,
        params: Params,
        key: PRNGKeyArray,
        prompt: Int[Array, "B P"],
        length: int,
        *,
        steps: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        order: str = "ancestral",
    ) -> Int[Array, "B L"]:
        """From all masks to none in `steps` calls (0: one a token); the prompt is never masked.

        ancestral: each masked token is revealed with probability 1/(steps left), the reverse process
        at equally spaced times. confidence: the most certain ones first, the same number each step.
        """
        batch, given = prompt.shape
        steps = steps or max(length - given, 1)
        blank = jnp.full((batch, length - given), mask_id, prompt.dtype)

        def step(i, tokens):
            draw_key, reveal_key = jax.random.split(jax.random.fold_in(key, i))
            hidden = tokens == mask_id
            logits = predict(model.apply, params, tokens, None)[..., :vocab_size]
            drawn = draw(draw_key, logits, temperature, top_p)
            if order == "confidence":
                chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], -1)[
                    ..., 0
                ]
                rank = jnp.argsort(
                    jnp.argsort(-jnp.where(hidden, chosen, -jnp.inf), axis=-1), axis=-1
                )
                left = jnp.sum(hidden, axis=-1, keepdims=True)
                reveal = rank < jnp.ceil(left / (steps - i)).astype(jnp.int32)
            else:
                reveal = jax.random.uniform(reveal_key, tokens.shape) * (steps - i) < 1
            return jnp.where(hidden & reveal, drawn, tokens)

        tokens = jnp.concatenate([prompt, blank], axis=1)
        return jax.lax.fori_loop(0, steps, step, tokens)

    return loss, nll, sample
