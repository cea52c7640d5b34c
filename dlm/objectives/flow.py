"""Discrete flow matching: jumps from a source (masks or uniform tokens) to the data.

At time t a token is from the data with probability k(t), which rises from 0 to 1, else from the source:

  (1) q(y | x) = k 1[y = x] + (1 - k) source(y)

Given the data x, tokens jump to x at the rate k'/(1 - k); the model's jump to z at k'/(1 - k) p(z).
Both processes start alike and the first ends at x, so their divergence bounds the likelihood,

  (2) jump_loss = k'/(1-k) Σ_i [1 - p(y_i) - 1[y_i != x_i] (1 + log p(x_i))]
  (3) -log p(x) <= prior_kl + int E jump_loss dt

(Gat et al. 2024, arXiv 2407.15595; Shaul et al. 2024, arXiv 2412.03487). With masks as source it is
the bound of masked diffusion. k = 1 - m for m of `objective.schedule`, with time run backwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.config import families
from dlm.model import Params, Transformer, keys
from dlm.objectives import common, masked, schedules
from dlm.objectives.common import Denoiser, SampleRequest, at_token, draw, mask_id

FAMILY = config.FAMILIES["flow"]


def make(objective: families.Flow, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""

    def prior_kl(length: int) -> float:
        return schedules.schedule(objective).prior_kl(length, vocab_size)

    terms = functools.partial(jump_loss, objective)
    loss = common.loss_by_time(("flow",), terms, vocab_size, prior_kl)
    nll = common.nll_by_time(("flow",), terms, vocab_size, prior_kl)
    fill = masked.fill_masks if objective.path == "mask" else fill_from_uniform
    return loss, nll, common.sampler(functools.partial(fill, vocab_size))


def conditionals(objective: families.Flow, vocab_size: int) -> common.Conditionals | None:
    """From masks, those of masked diffusion, whose sampler it shares; from uniform tokens, none."""
    return masked.conditionals(objective, vocab_size) if objective.path == "mask" else None


def jump_loss(
    objective: families.Flow,
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    u,
    draws: keys.RowKeys,
) -> tuple[Float[Array, " B"]]:
    """Returns (2) in nats at times u Float[B] of the path, 1 - u of the schedule: m'/m = k'/(1 - k)."""
    where, what = draws.split(2)
    schedule, vocab_size = schedules.schedule(objective), denoiser.vocab_size
    from_masks, length = objective.path == "mask", tokens.shape[1]
    mask_prob = schedule.mask_prob(1 - u)
    source = mask_id(vocab_size) if from_masks else what.below(vocab_size, length)
    jumped = where.uniform(length) < mask_prob[:, None]
    xt = jnp.where(jumped, source, tokens)
    logits = (Denoiser.logits if from_masks else logits_from_uniform)(denoiser, xt, mask_prob)
    log_p = jax.nn.log_softmax(logits)
    log_p_x = at_token(log_p, tokens)
    if from_masks:
        cost = jnp.where(jumped, -log_p_x, 0.0)
    else:
        cost = -jnp.expm1(at_token(log_p, xt)) - jnp.where(xt != tokens, 1 + log_p_x, 0.0)
    return (schedule.rate(1 - u) / mask_prob * jnp.sum(cost, axis=-1),)


def logits_from_uniform(
    denoiser: Denoiser, xt: Int[Array, "B L"], mask_prob: Float[Array, " B"]
) -> Float[Array, "B L V"]:
    """Returns logits of the data: the model's, and what x_t there adds by Bayes' rule, (1)."""
    logits, vocab_size = denoiser.logits(xt, mask_prob), denoiser.vocab_size
    other = (mask_prob / vocab_size)[:, None, None]
    own = (1 - mask_prob)[:, None, None] * jax.nn.one_hot(xt, vocab_size)
    return logits + jnp.log(own + other)


def fill_from_uniform(
    vocab_size: int, model: Transformer, params: Params, key: PRNGKeyArray, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples by Euler steps at equally spaced m: a token jumps with probability 1/(steps left)."""
    kept = request.conditioning
    calls = request.steps or 2 * kept.shape[1]
    denoiser = Denoiser(model.apply, params, None, vocab_size)
    start_key, key = jax.random.split(key)
    source = jax.random.randint(start_key, kept.shape, 0, vocab_size, kept.dtype)

    def call(i, tokens):
        left = calls - i
        draw_key, jump_key = jax.random.split(jax.random.fold_in(key, i))
        mask_prob = jnp.full(len(kept), left / calls)
        logits = logits_from_uniform(denoiser, tokens, mask_prob)
        drawn = draw(draw_key, logits, request.temperature, request.top_p)
        jumps = jax.random.uniform(jump_key, tokens.shape) * left < 1
        return jnp.where(jumps & (kept < 0), drawn, tokens)

    return jax.lax.fori_loop(0, calls, call, jnp.where(kept < 0, source, kept))
