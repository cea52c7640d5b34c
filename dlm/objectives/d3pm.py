"""Discrete diffusion by jumps to a limit law pi: uniform tokens, or one absorbing mask.

By time t a token x has jumped with probability m(t): q(y | x) = alpha 1[y = x] + m pi(y), alpha = 1
- m. In continuous time a token jumps to y at the rate beta pi(y), beta = -alpha'/alpha, and the
process run backwards, given the data, jumps from y to z at the rate beta pi(y) a(z), a(z) = q(z |
x)/q(y | x). A model gives a_p in place of a, and

  -log p(x) <= int beta E Σ_i pi(y_i) Σ_{z != y_i} [a_p(z) - a(z) + a(z) log(a(z)/a_p(z))] dt

is the divergence of the two jump processes (Campbell et al. 2022, arXiv 2205.14987; score entropy,
Lou et al. 2024, arXiv 2310.16834; Schiff et al. 2024, arXiv 2412.10193). `denoising` models make
a_p of a distribution over tokens, as the mean of q(. | x) under it; `score` models give log a_p
itself. In T steps the bound is D3PM's, with the exact posterior (Austin et al. 2021, arXiv
2107.03006); the model's is proportional to q(x_t | x_s) times its mean of q(x_s | x). Where noise is
left at t = 0 in continuous time, `nll` adds the reconstruction term and training leaves it out. States:
the vocabulary, and MASK as number V on the absorbing chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Params, Transformer, keys
from dlm.objectives import schedules
from dlm.objectives.common import Sum, draw, given, mean

TINY = 1e-30


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, absorbing = vocab_size, c.chain == "absorbing"
    states = vocab_size + absorbing
    noise = schedules.schedule(c)
    limit = np.eye(states)[vocab_size] if absorbing else np.full(states, 1 / vocab_size)
    limit = limit.astype(np.float32)

    def kernel(x: Float[Array, "*B S"], share) -> Float[Array, "*B S"]:
        """q(. | x) of a distribution over tokens at a share m that broadcasts."""
        return (1 - share) * x + share * limit

    def one_hot(tokens: Int[Array, "*B"]) -> Float[Array, "*B S"]:
        return jax.nn.one_hot(tokens, states)

    def noisy(draws: keys.Draws, tokens, share: Float[Array, " B"]) -> Int[Array, "B L"]:
        where, what = draws.split(2)
        length = tokens.shape[1]
        jumped = where.uniform(length) < share[:, None]
        to = vocab_size if absorbing else what.below(vocab_size, length)
        return jnp.where(jumped, to, tokens)

    def outputs(apply: Callable, params: Params, state, t, key) -> Float[Array, "B L V"]:
        ids = jnp.where(state == vocab_size, vocab_size + 1, state)
        inputs = jnp.pad(ids, ((0, 0), (1, 0)), constant_values=bos)
        return apply(params, inputs, mask="full", time=t, key=key)[:, 1:, :vocab_size]

    def tokens_of(logits, state, share) -> Float[Array, "B L S"]:
        """The model's distribution over the data given the other positions; that ratios imply."""
        if c.form == "score" and not absorbing:
            q = jax.nn.softmax(ratios(logits, state, share))
            x = jnp.maximum((q - share / vocab_size) / (1 - share), 1e-6)
            return x / x.sum(-1, keepdims=True)
        x = jax.nn.softmax(logits)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, states - vocab_size)))
        if absorbing:  # what is not masked is known
            x = jnp.where((state == vocab_size)[..., None], x, one_hot(state))
        return x

    def ratios(logits, state, share) -> Float[Array, "B L S"]:
        """log a_p(z): of the state, 0."""
        if c.form == "score":
            raw = jnp.pad(logits, ((0, 0), (0, 0), (0, states - vocab_size)), constant_values=-30.0)
            if absorbing:  # the known scale of the ratios, alpha / m
                raw = raw + jnp.log((1 - share) / share)
            return jnp.where(one_hot(state) > 0, 0.0, raw)
        q = kernel(tokens_of(logits, state, share), share)
        here = jnp.sum(q * one_hot(state), axis=-1, keepdims=True)
        return jnp.log(q + TINY) - jnp.log(here + TINY)

    def jumps(apply, params, tokens, t, draws, dropout) -> Float[Array, " B"]:
        """The integrand at times t, summed over positions."""
        share = noise.share(t)[:, None, None]
        state = noisy(draws, tokens, noise.share(t))
        log_p = ratios(outputs(apply, params, state, t, dropout), state, share)
        q = kernel(one_hot(tokens), share)
        here = jnp.sum(q * one_hot(state), axis=-1, keepdims=True)
        a = q / here
        log_a = jnp.log(jnp.where(a > 0, a, 1.0))
        cost = jnp.exp(log_p) - a + jnp.where(a > 0, a * (log_a - log_p), 0.0)
        cost = jnp.where(one_hot(state) > 0, 0.0, cost)  # no jump to where it is
        return noise.hazard(t) * jnp.sum(
            jnp.asarray(limit)[state] * jnp.sum(cost, axis=-1), axis=-1
        )

    def posterior(x, state, before, share) -> Float[Array, "B L S"]:
        """p(x_s | x_t = state) with the data's law x given the other positions; exact of a token."""
        stays = (1 - share) / (1 - before)  # alpha_t / alpha_s
        there = stays * one_hot(state) + (1 - stays) * jnp.asarray(limit)[state][..., None]
        joint = there * kernel(x, before)
        return joint / joint.sum(-1, keepdims=True)

    def leap(apply, params, tokens, step, draws, dropout) -> Float[Array, " B"]:
        """The divergence of one of T steps, from `step` Int[B] to the one before; 1 reconstructs."""
        at = step / c.timesteps
        before = jnp.where(step > 1, noise.share((step - 1) / c.timesteps), 0.0)
        share, before = (v[:, None, None] for v in (noise.share(at), before))
        state = noisy(draws, tokens, share[:, 0, 0])
        logits = outputs(apply, params, state, at, dropout)
        p = posterior(tokens_of(logits, state, share), state, before, share)
        q = posterior(one_hot(tokens), state, before, share)
        ratio = jnp.log(jnp.maximum(q, TINY)) - jnp.log(jnp.maximum(p, TINY))
        return jnp.sum(jnp.where(q > 0, q * ratio, 0.0), axis=(-1, -2))

    def ahead(length: int) -> float:
        """KL from the data at t = 1 to the limit, or for masks to a source with uniform tokens."""
        if absorbing:
            return schedules.prior(c, length, vocab_size)
        m, v = noise.end, vocab_size
        same = 1 - m + m / v
        return length * (same * math.log(same * v) + (v - 1) * m / v * math.log(m))

    def bound(apply, params, tokens, u: Float[Array, " B"], draws, dropout) -> Array:
        """Unbiased draws of the diffusion and the reconstruction term, Float[2 B], by u in [0, 1).

        Of a chain in T steps the last one back, to the data, reconstructs.
        """
        if c.timesteps:
            step = jnp.floor(u * c.timesteps) + 1
            found = c.timesteps * leap(apply, params, tokens, step, draws, dropout)
            return jnp.where(jnp.stack([step > 1, step == 1]), found, 0.0)
        # (0, 1): at t = 1 the rate is infinite and what it multiplies is zero.
        t = jnp.clip(u, 1e-6, 1 - 1e-6)
        found = jumps(apply, params, tokens, t, draws, dropout)
        return jnp.stack([found, jnp.zeros_like(found)])

    def last(apply, params, tokens, draws) -> Float[Array, " B"]:
        """-log p(x | x_0) where noise is left at t = 0."""
        if noise.start == 0 or c.timesteps:
            return jnp.zeros(tokens.shape[0])
        share = jnp.full(tokens.shape[0], noise.start)
        state = noisy(draws, tokens, share)
        logits = outputs(apply, params, state, jnp.zeros(len(tokens)), None)
        x = posterior(tokens_of(logits, state, share[:, None, None]), state, 0.0, noise.start)
        chosen = jnp.take_along_axis(x, tokens[..., None], -1)[..., 0]
        return -jnp.sum(jnp.log(jnp.maximum(chosen, TINY)), axis=-1)

    def loss(apply, params, tokens, key, step=None) -> Sum:
        times, noises, dropout = keys.draws(key, len(tokens)).split(3)
        u = times.stratified()[:, 0]
        parts = jnp.sum(bound(apply, params, tokens, u, noises, dropout), axis=-1)
        prior = jnp.zeros(()) + tokens.shape[0] * ahead(tokens.shape[1])
        terms = {"prior": prior, "reconstruction": parts[1], "diffusion": parts[0]}
        return Sum(jnp.sum(parts) + prior, tokens.size, terms)

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape

        def one(i) -> Float[Array, "2 B"]:
            place = noises.fold_in(i)
            found = bound(apply, params, tokens, (u + i / passes) % 1.0, place, None)
            end = last(apply, params, tokens, place.fold_in(1))
            return found.at[1].add(end)

        times, noises = keys.draws(key, batch).split(2)
        u = times.stratified()[:, 0]
        parts = mean(one, passes)
        prior = jnp.full(batch, ahead(length))
        terms = {"prior": prior, "reconstruction": parts[1], "diffusion": parts[0]}
        return Sum(sum(terms.values(), jnp.zeros(batch)), tokens.size, terms)

    def sample(
        model: Transformer,
        params: Params,
        key: PRNGKeyArray,
        prompt: Int[Array, "B P"],
        length: int,
        *,
        infill: Int[Array, "B L"] | None = None,
        steps: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        **options,
    ) -> Int[Array, "B L"]:
        """From the limit law to data in `steps` posterior draws (0: 2L); the prompt stays."""
        del options
        batch, fixed = len(prompt), given(prompt, length, infill)
        calls = steps or c.timesteps or 2 * length
        start_key, key = jax.random.split(key)
        blank = jnp.full((batch, length), vocab_size)
        if not absorbing:
            blank = jax.random.randint(start_key, (batch, length), 0, vocab_size)
        known = fixed >= 0

        def call(i, state):
            left = calls - i
            t, s = left / calls, (left - 1) / calls
            share = jnp.minimum(noise.share(t), 1 - 1e-6)
            before = jnp.where(left > 1, noise.share(s), 0.0)
            logits = outputs(model.apply, params, state, jnp.full(batch, t), None)
            x = tokens_of(logits, state, share)
            x = jax.nn.softmax(jnp.log(x + TINY) / jnp.maximum(temperature, 1e-3))
            p = posterior(x, state, before, share)  # at the last call, x itself
            place = jax.random.fold_in(key, i)
            drawn = draw(place, jnp.log(jnp.maximum(p, TINY)), 1.0, top_p)
            return jnp.where(known, fixed, drawn)

        return jax.lax.fori_loop(0, calls, call, jnp.where(known, fixed, blank))

    return loss, nll, sample
