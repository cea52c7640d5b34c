"""Masked diffusion: by time t a token is masked with probability m(t), independently.

-log p(x) <= int m'(t)/m(t) E Σ_{masked} -log p(x_i | x_t) dt, with a prior and a reconstruction term
where m does not run from 0 to 1 (Sahoo et al. 2024, Shi et al. 2024; arXiv 2507.15857, section 2.2,
has m(t) = t). Its count form draws the number of masked tokens k and weighs by L/k (Ou et al. 2024):
the same expectation, less variance. No eps floor and no forced mask, so both are unbiased; but
where m(0) > 0, drawing times leaves the reconstruction term out of training (never out of `nll`).

Nothing depends on t but the mask: a model with time is told the share that it sees masked.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Params, Transformer, keys
from dlm.objectives import reveal, schedules
from dlm.objectives.common import Sum, cross_entropy, exact_count_mask, given, mean


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, mask_id = vocab_size, vocab_size + 1
    noise = schedules.schedule(c)

    def predict(apply: Callable, params: Params, tokens: Int[Array, "B L"], key) -> Array:
        """Logits at the L positions after BOS."""
        inputs = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=bos)
        share = jnp.mean(tokens == mask_id, axis=-1)
        return apply(params, inputs, mask="full", time=share, key=key)[:, 1:]

    def entropy(apply, params, tokens, masked, key) -> Float[Array, " B"]:
        logits = predict(apply, params, jnp.where(masked, mask_id, tokens), key)
        return jnp.sum(jnp.where(masked, cross_entropy(logits, tokens, vocab_size), 0), axis=-1)

    def counted(u: Float[Array, " B"], length: int) -> Int[Array, " B"]:
        return jnp.clip(jnp.floor(u * length).astype(jnp.int32) + 1, 1, length)

    def weights(length: int) -> Float[np.ndarray, "2 K"]:
        """Of k masked positions in the reconstruction and the diffusion term, times L: k is uniform."""
        parts = schedules.counts(c, length)
        return length * np.stack([parts["reconstruction"], parts["diffusion"]])

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.draws(key, batch).split(3)
        u, chance = times.stratified()[:, 0], masks.uniform(length)
        highest = 1.0
        if c.low_noise_steps and step is not None:
            highest = jnp.where(step < c.low_noise_steps, c.low_noise, 1.0)
        t = (1 - u) * highest  # in (0, 1]
        if c.estimator == "count":
            masked = exact_count_mask(chance, counted(u * highest, length))
        else:
            if c.timesteps:
                at = jnp.ceil(t * c.timesteps)
                share = noise.share(at / c.timesteps)
                before = jnp.where(at > 1, noise.share((at - 1) / c.timesteps), 0.0)
                weight = c.timesteps * (share - before) / share
            else:
                share = noise.share(t)
                weight = noise.rate(t) / share
            masked = chance < share[:, None]
        count = jnp.sum(masked, axis=-1)
        if c.suffix:  # as many masks, at the end: none stays none
            end = jnp.arange(length) >= length - count[:, None]
            chosen = masks.fold_in(1).uniform(1) < c.suffix
            masked = jnp.where(chosen, end, masked)
        if c.weighting == "unweighted":  # of every masked token, at the scale of the bound
            weight = jnp.full(batch, 2.0)
        elif c.estimator == "count":
            weight = jnp.asarray(weights(length).sum(0), jnp.float32)[count]
        found = weight * entropy(apply, params, tokens, masked, dropout)
        ahead = schedules.prior(c, length, vocab_size)
        nats = jnp.sum(found) + batch * ahead
        return Sum(
            nats, tokens.size, {"diffusion": jnp.sum(found), "prior": nats * 0 + batch * ahead}
        )

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape
        table = jnp.asarray(weights(length), jnp.float32)

        def one(i) -> Float[Array, "2 B"]:
            counts = counted((t + i / passes) % 1.0, length)  # stratified over the passes
            masked = exact_count_mask(masks.fold_in(i).uniform(length), counts)
            return table[:, counts] * entropy(apply, params, tokens, masked, None)

        times, masks = keys.draws(key, batch).split(2)
        t = times.stratified()[:, 0]
        parts = mean(one, passes)
        ahead = jnp.full(batch, schedules.prior(c, length, vocab_size))
        terms = {"prior": ahead, "reconstruction": parts[0], "diffusion": parts[1]}
        return Sum(sum(terms.values(), jnp.zeros(batch)), tokens.size, terms)

    def sample(
        model: Transformer,
        params: Params,
        key: PRNGKeyArray,
        prompt: Int[Array, "B P"],
        length: int,
        *,
        infill: Int[Array, "B L"] | None = None,
        **options,
    ) -> Int[Array, "B L"]:
        """From all masks to none; see `dlm.objectives.reveal`."""
        known = given(prompt, length, infill)
        known = jnp.where(known < 0, mask_id, known)
        return reveal.reveal(
            lambda tokens: predict(model.apply, params, tokens, None)[..., :vocab_size],
            *(key, known, mask_id),
            **options,
        )

    return loss, nll, sample
