"""Discrete flow matching: jumps from a source to the data, from masks or from uniform tokens.

With k(t) rising from 0 to 1, a token is the data's with probability k, else the source's. Given the
data x it jumps to x at the rate k'/(1 - k); a model jumps to z at the rate k'/(1 - k) p(z). Both start
alike and the first ends at x, so the divergence of the two bounds the likelihood,

  -log p(x) <= int k'/(1-k) E Σ_i [1 - p(y_i) - 1[y_i != x_i] (1 + log p(x_i))] dt

(Gat et al. 2024, arXiv 2407.15595; Shaul et al. 2024, arXiv 2412.03487). From masks it is the bound of
masked diffusion. `k = 1 - m` of `objective.schedule`, with time run backwards.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Params, Transformer, keys
from dlm.objectives import reveal, schedules
from dlm.objectives.common import Sum, draw, given, mean


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, mask_id = vocab_size, vocab_size + 1
    noise = schedules.schedule(c)

    def outputs(apply: Callable, params: Params, state, share, key) -> Float[Array, "B L V"]:
        """Logits, told the share m of the source."""
        inputs = jnp.pad(state, ((0, 0), (1, 0)), constant_values=bos)
        return apply(params, inputs, mask="full", time=share, key=key)[:, 1:, :vocab_size]

    def posterior(apply: Callable, params: Params, state, share, key) -> Float[Array, "B L V"]:
        """Logits of the data: of the other positions by the model, of the own one by Bayes' rule."""
        logits = outputs(apply, params, state, share, key)
        if c.path == "mask":
            return logits
        other = (share / vocab_size)[:, None, None]
        own = (1 - share)[:, None, None] * jax.nn.one_hot(state, vocab_size)
        return logits + jnp.log(own + other)

    def bound(apply, params, tokens, u: Float[Array, " B"], draws, dropout) -> Float[Array, " B"]:
        where, what = draws.split(2)
        length = tokens.shape[1]
        t = 1 - u  # of the source: 1 at the start; m'/m is k'/(1 - k)
        share = noise.share(t)
        source = mask_id if c.path == "mask" else what.below(vocab_size, length)
        jumped = where.uniform(length) < share[:, None]
        state = jnp.where(jumped, source, tokens)
        logp = jax.nn.log_softmax(posterior(apply, params, state, share, dropout))
        chosen = jnp.take_along_axis(logp, tokens[..., None], -1)[..., 0]
        if c.path == "mask":
            cost = jnp.where(jumped, -chosen, 0.0)
        else:
            here = jnp.take_along_axis(logp, state[..., None], -1)[..., 0]
            cost = -jnp.expm1(here) - jnp.where(state != tokens, 1 + chosen, 0.0)
        return noise.rate(t) / share * jnp.sum(cost, axis=-1)

    def ahead(length: int) -> float:
        """Both paths start at the source; a schedule that does not, as masked diffusion's."""
        return schedules.prior(c, length, vocab_size)

    def loss(apply, params, tokens, key, step=None) -> Sum:
        times, noises, dropout = keys.draws(key, len(tokens)).split(3)
        u = times.stratified()[:, 0]
        found = jnp.sum(bound(apply, params, tokens, u, noises, dropout))
        prior = jnp.zeros(()) + tokens.shape[0] * ahead(tokens.shape[1])
        return Sum(found + prior, tokens.size, {"flow": found, "prior": prior})

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape

        def one(i) -> Float[Array, " B"]:
            at = (u + i / passes) % 1.0
            return bound(apply, params, tokens, at, noises.fold_in(i), None)

        times, noises = keys.draws(key, batch).split(2)
        u = times.stratified()[:, 0]
        nats = mean(one, passes)
        prior = jnp.full(batch, ahead(length))
        return Sum(nats + prior, tokens.size, {"flow": nats, "prior": prior})

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
        """Euler steps at equally spaced shares: a token jumps with probability 1/(steps left)."""
        batch, fixed = len(prompt), given(prompt, length, infill)
        shown = jnp.where(fixed < 0, mask_id, fixed)

        def predict(tokens, share):
            return posterior(model.apply, params, tokens, jnp.full(batch, share), None)

        if c.path == "mask":

            def of_masks(tokens):
                share = jnp.mean(tokens == mask_id, axis=-1)
                return outputs(model.apply, params, tokens, share, None)

            options |= dict(steps=steps, temperature=temperature, top_p=top_p)
            return reveal.reveal(of_masks, key, shown, mask_id, **options)
        calls = steps or 2 * length
        start_key, key = jax.random.split(key)
        source = jax.random.randint(start_key, shown.shape, 0, vocab_size, shown.dtype)
        known = shown != mask_id

        def call(i, tokens):
            draw_key, jump_key = jax.random.split(jax.random.fold_in(key, i))
            drawn = draw(draw_key, predict(tokens, (calls - i) / calls), temperature, top_p)
            jumps = jax.random.uniform(jump_key, tokens.shape) * (calls - i) < 1
            return jnp.where(jumps & ~known, drawn, tokens)

        return jax.lax.fori_loop(0, calls, call, jnp.where(known, shown, source))

    return loss, nll, sample
