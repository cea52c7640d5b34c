"""Discrete diffusion by jumps to a limit distribution pi: uniform tokens, a mask, or a mixture of both.

By time t a token x has jumped with probability m; alpha = 1 - m:

  (1) q(y | x) = alpha 1[y = x] + m pi(y),  pi = s MASK + (1 - s) uniform,  s = mask_share

A mask absorbs if s = 1. The mixture is that of GIDD (arXiv 2503.04482, 2512.10858) with an s that is
the same at all times.

In continuous time a token jumps to y at the rate beta pi(y), beta = -alpha'/alpha. Given the data, the
reversed process jumps from y to z at the rate beta pi(y) a(z), a(z) = q(z | x)/q(y | x). A model
predicts a_p in place of a. The divergence of the two jump processes bounds the likelihood,

  (2) rate_loss = beta Σ_i pi(y_i) Σ_{z != y_i} [a_p(z) - a(z) + a(z) log(a(z)/a_p(z))]
  (3) -log p(x) <= prior_kl + int E rate_loss dt + reconstruction_nll

(Campbell et al. 2022, arXiv 2205.14987; score entropy, Lou et al. 2024, arXiv 2310.16834; Schiff et
al. 2024, arXiv 2412.10193). In T steps, from t to s < t, it is the bound of D3PM (Austin et al. 2021,
arXiv 2107.03006), whose first step is the reconstruction:

  (4) q(x_s | x_t, x) ∝ q(x_t | x_s) q(x_s | x); p(x_s | x_t) ∝ its mean over the model's x
  (5) -log p(x) <= prior_kl + Σ_steps E KL(q(x_s | x_t, x) || p(x_s | x_t))

`denoising` models predict a distribution over x, and a_p is the mean of q(. | x) under it; `score`
models predict log a_p. If m(0) > 0 in continuous time, `nll` adds reconstruction_nll and training
leaves it out. States are the vocabulary and, if s > 0, MASK with number V.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.config import families
from dlm.model import Params, Transformer, keys
from dlm.objectives import common, schedules
from dlm.objectives.common import Denoiser, SampleRequest, at_token, draw

FAMILY = config.FAMILIES["d3pm"]
TINY = 1e-30


class Chain(NamedTuple):
    """The process that a config describes. S states: V tokens, and MASK if any jump leads there."""

    vocab_size: int
    mask_share: float  # of the jumps
    score: bool  # the model gives log-ratios (else a distribution over tokens)
    steps: int  # T; 0: continuous time
    schedule: schedules.Schedule
    limit: Float[np.ndarray, " S"]  # pi

    @property
    def absorbing(self) -> bool:
        return self.mask_share == 1

    def one_hot(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B S"]:
        return jax.nn.one_hot(tokens, len(self.limit))

    def pad(self, values: Float[Array, "B L V"], value: float = 0.0) -> Float[Array, "B L S"]:
        free = len(self.limit) - self.vocab_size
        return jnp.pad(values, ((0, 0), (0, 0), (0, free)), constant_values=value)


def make(objective: families.D3PM, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    c = chain(objective, vocab_size)
    terms, ahead = ("reconstruction", "diffusion"), functools.partial(prior_kl, c)
    loss = common.loss_by_time(terms, functools.partial(terms_at, c), vocab_size, ahead)
    nll = common.nll_by_time(terms, functools.partial(all_terms_at, c), vocab_size, ahead)
    return loss, nll, common.sampler(functools.partial(fill_backwards, c))


def chain(objective: families.D3PM, vocab_size: int) -> Chain:
    share = {"uniform": 0.0, "absorbing": 1.0}.get(objective.transition, objective.mask_share)
    limit = np.full(vocab_size, (1 - share) / vocab_size)
    limit = np.append(limit, share) if share else limit
    score, schedule = objective.parameterization == "score", schedules.schedule(objective)
    return Chain(vocab_size, share, score, objective.timesteps, schedule, limit.astype(np.float32))


# --- the process ----------------------------------------------------------------------------------
# A `mask_prob` m below is Float[B 1 1], or broadcasts as such; `xt` are states Int[B L].


def transition(c: Chain, x: Float[Array, "*B S"], mask_prob) -> Float[Array, "*B S"]:
    """Returns q(. | x) of (1) at m, for a distribution over tokens x."""
    return (1 - mask_prob) * x + mask_prob * c.limit


def sample_xt(
    c: Chain, draws: keys.RowKeys, tokens: Int[Array, "B L"], mask_prob: Float[Array, " B"]
) -> Int[Array, "B L"]:
    """Draws states from (1)."""
    where, what = draws.split(2)
    length = tokens.shape[1]
    chance, mask_prob = where.uniform(length), mask_prob[:, None]
    if not c.absorbing:
        tokens = jnp.where(chance < mask_prob, what.below(c.vocab_size, length), tokens)
    return jnp.where(chance < mask_prob * c.mask_share, c.vocab_size, tokens)


def posterior(c: Chain, x: Float[Array, "B L S"], xt, before, mask_prob) -> Float[Array, "B L S"]:
    """Returns (4), the distribution of x_s given x_t, with m = `before` at s and `mask_prob` at t."""
    stays = (1 - mask_prob) / (1 - before)  # alpha_t / alpha_s
    to_xt = stays * c.one_hot(xt) + (1 - stays) * jnp.asarray(c.limit)[xt][..., None]
    joint = to_xt * transition(c, x, before)
    return joint / joint.sum(-1, keepdims=True)


# --- the model ------------------------------------------------------------------------------------


def model_logits(c: Chain, denoiser: Denoiser, xt, t: Float[Array, " B"]) -> Float[Array, "B L V"]:
    ids = jnp.where(xt == c.vocab_size, common.mask_id(c.vocab_size), xt)
    return denoiser.logits(ids, t)


def predict_x(c: Chain, logits, xt, mask_prob) -> Float[Array, "B L S"]:
    """Returns the model's distribution over the data. A score model of uniform tokens solves (1)."""
    if c.score and not c.absorbing:
        q = jax.nn.softmax(log_ratios(c, logits, xt, mask_prob))
        x = jnp.maximum((q - mask_prob / c.vocab_size) / (1 - mask_prob), 1e-6)
        return x / x.sum(-1, keepdims=True)
    x = c.pad(jax.nn.softmax(logits))
    if c.absorbing:  # unmasked tokens are known
        x = jnp.where((xt == c.vocab_size)[..., None], x, c.one_hot(xt))
    return x


def log_ratios(c: Chain, logits, xt, mask_prob) -> Float[Array, "B L S"]:
    """Returns log a_p(z) of (2); 0 at z = x_t."""
    if c.score:
        raw = c.pad(logits, -30.0)
        if c.absorbing:  # the known scale of the ratios, alpha / m
            raw = raw + jnp.log((1 - mask_prob) / mask_prob)
        return jnp.where(c.one_hot(xt) > 0, 0.0, raw)
    q = transition(c, predict_x(c, logits, xt, mask_prob), mask_prob)
    at_xt = jnp.sum(q * c.one_hot(xt), axis=-1, keepdims=True)
    return jnp.log(q + TINY) - jnp.log(at_xt + TINY)


# --- the terms of the bound, in nats for each sequence ------------------------------------------
# `tokens` are Int[B L]; times `t`, `u` and numbers `i` of steps, Float[B].


def prior_kl(c: Chain, length: int) -> float:
    """Returns KL(q(x_1 | x) || prior) in nats; 1 - m(1) of the prior's tokens are uniform."""
    # 0.2 s to import, which no process of another family should wait for.
    from scipy.special import rel_entr

    m, v, states = c.schedule.end, c.vocab_size, len(c.limit)
    jumped = m * c.limit.astype(np.float64)
    q = (1 - m) * np.eye(states)[0] + jumped  # of any token
    prior = (1 - m) / v * (np.arange(states) < v) + jumped
    return length * float(rel_entr(q, prior).sum())


def rate_loss(
    c: Chain, denoiser: Denoiser, tokens: Int[Array, "B L"], t, draws: keys.RowKeys
) -> Float[Array, " B"]:
    """Returns (2) at times t."""
    mask_prob = c.schedule.mask_prob(t)[:, None, None]
    xt = sample_xt(c, draws, tokens, c.schedule.mask_prob(t))
    log_p = log_ratios(c, model_logits(c, denoiser, xt, t), xt, mask_prob)
    q = transition(c, c.one_hot(tokens), mask_prob)
    a = q / jnp.sum(q * c.one_hot(xt), axis=-1, keepdims=True)
    log_a = jnp.log(jnp.where(a > 0, a, 1.0))
    cost = jnp.exp(log_p) - a + jnp.where(a > 0, a * (log_a - log_p), 0.0)
    cost = jnp.where(c.one_hot(xt) > 0, 0.0, cost)  # no jump to where it is
    pi_xt = jnp.asarray(c.limit)[xt]
    return c.schedule.hazard(t) * jnp.sum(pi_xt * jnp.sum(cost, axis=-1), axis=-1)


def discrete_step_kl(
    c: Chain, denoiser: Denoiser, tokens: Int[Array, "B L"], i, draws: keys.RowKeys
) -> Float[Array, " B"]:
    """Returns the KL of (5) for step i of 1..T, from t = i/T to (i - 1)/T; step 1 reconstructs."""
    t = i / c.steps
    before = jnp.where(i > 1, c.schedule.mask_prob((i - 1) / c.steps), 0.0)
    mask_prob, before = (m[:, None, None] for m in (c.schedule.mask_prob(t), before))
    xt = sample_xt(c, draws, tokens, mask_prob[:, 0, 0])
    logits = model_logits(c, denoiser, xt, t)
    p = posterior(c, predict_x(c, logits, xt, mask_prob), xt, before, mask_prob)
    q = posterior(c, c.one_hot(tokens), xt, before, mask_prob)
    log_ratio = jnp.log(jnp.maximum(q, TINY)) - jnp.log(jnp.maximum(p, TINY))
    return jnp.sum(jnp.where(q > 0, q * log_ratio, 0.0), axis=(-1, -2))


def reconstruction_nll(c: Chain, denoiser: Denoiser, tokens, draws) -> Float[Array, " B"]:
    """Returns -log p(x | x_0) of (3); 0 if no noise is left at t = 0."""
    if c.schedule.start == 0 or c.steps:
        return jnp.zeros(tokens.shape[0])
    mask_prob = jnp.full(tokens.shape[0], c.schedule.start)
    xt = sample_xt(c, draws, tokens, mask_prob)
    logits = model_logits(c, denoiser, xt, jnp.zeros(len(tokens)))
    x = predict_x(c, logits, xt, mask_prob[:, None, None])
    p = at_token(posterior(c, x, xt, 0.0, c.schedule.start), tokens)
    return -jnp.sum(jnp.log(jnp.maximum(p, TINY)), axis=-1)


def terms_at(
    c: Chain, denoiser: Denoiser, tokens: Int[Array, "B L"], u, draws: keys.RowKeys
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Draws reconstruction and diffusion of (3) or (5) at one time for each row, by u in [0, 1)."""
    if c.steps:
        i = jnp.floor(u * c.steps) + 1
        kl = c.steps * discrete_step_kl(c, denoiser, tokens, i, draws)
        return jnp.where(i == 1, kl, 0.0), jnp.where(i > 1, kl, 0.0)
    # (0, 1): at t = 1 the rate is infinite and what it multiplies is zero.
    loss = rate_loss(c, denoiser, tokens, jnp.clip(u, 1e-6, 1 - 1e-6), draws)
    return jnp.zeros_like(loss), loss


def all_terms_at(c: Chain, denoiser: Denoiser, tokens, u, draws) -> tuple[Array, Array]:
    """Draws the terms of `terms_at` plus the reconstruction that training leaves out."""
    reconstruction, diffusion = terms_at(c, denoiser, tokens, u, draws)
    left_out = reconstruction_nll(c, denoiser, tokens, draws.fold_in(1))
    return reconstruction + left_out, diffusion


def fill_backwards(
    c: Chain, model: Transformer, params: Params, key: PRNGKeyArray, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples from pi to the data in `steps` draws from (4) (0: T, or 2L in continuous time)."""
    kept = request.conditioning
    batch, length = kept.shape
    calls = request.steps or c.steps or 2 * length
    denoiser = Denoiser(model.apply, params, None, c.vocab_size)
    start_key, key = jax.random.split(key)
    start = jax.random.randint(start_key, (batch, length), 0, c.vocab_size)
    masks = jax.random.uniform(jax.random.fold_in(start_key, 1), (batch, length)) < c.mask_share
    start = jnp.where(masks, c.vocab_size, start)

    def call(i, xt):
        left = calls - i
        t, s = left / calls, (left - 1) / calls
        mask_prob = jnp.minimum(c.schedule.mask_prob(t), 1 - 1e-6)
        before = jnp.where(left > 1, c.schedule.mask_prob(s), 0.0)
        logits = model_logits(c, denoiser, xt, jnp.full(batch, t))
        x = predict_x(c, logits, xt, mask_prob)
        x = jax.nn.softmax(jnp.log(x + TINY) / jnp.maximum(request.temperature, 1e-3))
        p = posterior(c, x, xt, before, mask_prob)  # at the last call, x itself
        log_p = jnp.log(jnp.maximum(p, TINY))
        xs = draw(jax.random.fold_in(key, i), log_p, 1.0, request.top_p)
        return jnp.where(kept >= 0, kept, xs)

    return jax.lax.fori_loop(0, calls, call, jnp.where(kept >= 0, kept, start))
