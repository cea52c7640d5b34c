"""Masked diffusion: at time t each token is masked with probability m(t), independently.

  (1) -log p(x) <= prior_kl + int E m'(t)/m(t) Σ_{masked} -log p(x_i | x_t) dt + reconstruction

The integral is the diffusion term. Prior and reconstruction are 0 if m runs from 0 to 1 (Sahoo et al.
2024, Shi et al. 2024; arXiv 2507.15857, section 2.2, has m(t) = t). In T steps the weight is

  (2) T (m_i - m_(i-1)) / m_i, and step 1 is the reconstruction      (MD4, arXiv 2406.04329, section 3)

The count form draws the number k of masked tokens and weighs it by its total weight over all times,
which is L/k if m runs from 0 to 1 (Ou et al. 2024):

  (3) E_k w(k) Σ_{masked} -log p(x_i | x_masked), k uniform in 1..L   (see `schedules.count_weights`)

(3) has the expectation of (1) and less variance. Both are unbiased: there is no smallest time and no
forced mask. If m(0) > 0, training with estimator "time" leaves the reconstruction out; `nll` never
does. A model with time conditioning is told the share of masked tokens in place of t.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dlm import config
from dlm.config import families
from dlm.model import Params, Transformer, keys
from dlm.objectives import common, reveal, schedules
from dlm.objectives.common import Denoiser, SampleRequest, Sum, exact_count_mask

FAMILY = config.FAMILIES["masked"]


def make(objective: families.Masked, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    ahead = prior_kl(objective, vocab_size)

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.row_keys(key, batch).split(3)
        masked, weight = training_masks(objective, times.stratified()[:, 0], masks, length, step)
        denoiser = Denoiser(apply, params, dropout, vocab_size)
        diffusion = jnp.sum(weight * masked_nll(denoiser, tokens, masked))
        prior = jnp.float32(batch * ahead(length))
        return common.total({"diffusion": diffusion, "prior": prior}, tokens)

    def terms(denoiser, tokens, u, draws: keys.RowKeys) -> Float[Array, "2 B"]:
        length = tokens.shape[1]
        count = count_masked(u, length)
        weight = jnp.asarray(count_weights(objective, length), jnp.float32)[:, count]
        masked = exact_count_mask(draws.uniform(length), count)
        return weight * masked_nll(denoiser, tokens, masked)

    nll = common.nll_by_time(("reconstruction", "diffusion"), terms, vocab_size, ahead)
    return loss, nll, common.sampler(functools.partial(fill_masks, vocab_size))


def prior_kl(objective: families.Masked, vocab_size: int) -> Callable[[int], float]:
    """Makes the function that returns prior_kl of (1) by the length of a sequence, in nats."""
    return lambda length: schedules.schedule(objective).prior_kl(length, vocab_size)


def conditionals(objective: config.Objective, vocab_size: int) -> common.Conditionals:
    """p(x_i | the tokens that are not masked), of the samplers that reveal."""

    def at_hidden(apply, params, tokens, hidden: Bool[Array, "B L"]) -> Float[Array, "B L V"]:
        xt = jnp.where(hidden, common.mask_id(vocab_size), tokens)
        return logits(Denoiser(apply, params, None, vocab_size), xt)

    return common.Conditionals(at_hidden)


def training_masks(
    objective: families.Masked, u: Float[Array, " B"], masks: keys.RowKeys, length: int, step=None
) -> tuple[Bool[Array, "B L"], Float[Array, " B"]]:
    """Draws the masks of the training loss by u in [0, 1), and their weights of (1), (2) or (3)."""
    chance, highest = masks.uniform(length), 1.0
    if objective.low_noise_steps and step is not None:
        highest = jnp.where(step < objective.low_noise_steps, objective.low_noise, 1.0)
    if objective.estimator == "count":
        masked, weight = exact_count_mask(chance, count_masked(u * highest, length)), None
    else:
        mask_prob, weight = time_weight(objective, (1 - u) * highest)  # times in (0, 1]
        masked = chance < mask_prob[:, None]
    count = jnp.sum(masked, axis=-1)
    if objective.suffix:  # as many masks, at the end: none stays none
        at_end = jnp.arange(length) >= length - count[:, None]
        chosen = masks.fold_in(1).uniform(1) < objective.suffix
        masked = jnp.where(chosen, at_end, masked)
    if objective.weighting == "unweighted":  # of every masked token, at the scale of the bound
        weight = jnp.full(len(u), 2.0)
    elif weight is None:
        weight = jnp.asarray(count_weights(objective, length).sum(0), jnp.float32)[count]
    return masked, weight


def logits(denoiser: Denoiser, xt: Int[Array, "B L"]) -> Float[Array, "B L V"]:
    """Returns the model's logits; the share of masked tokens stands for the time."""
    return denoiser.logits(xt, jnp.mean(xt == common.mask_id(denoiser.vocab_size), axis=-1))


def masked_nll(
    denoiser: Denoiser, tokens: Int[Array, "B L"], masked: Bool[Array, "B L"]
) -> Float[Array, " B"]:
    """Returns the sum in (1) and (3): -log p of the masked tokens given the others, in nats."""
    xt = jnp.where(masked, common.mask_id(denoiser.vocab_size), tokens)
    nats = common.cross_entropy(logits(denoiser, xt), tokens, denoiser.vocab_size)
    return jnp.sum(jnp.where(masked, nats, 0), axis=-1)


def time_weight(
    objective: families.Masked, t: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns m(t) and the weight of (1); in discrete time, m and weight of (2) at the next step."""
    schedule, steps = schedules.schedule(objective), objective.timesteps
    if not steps:
        return (mask_prob := schedule.mask_prob(t)), schedule.rate(t) / mask_prob
    i = jnp.ceil(t * steps)
    mask_prob = schedule.mask_prob(i / steps)
    before = jnp.where(i > 1, schedule.mask_prob((i - 1) / steps), 0.0)
    return mask_prob, steps * (mask_prob - before) / mask_prob


def count_masked(u: Float[Array, " B"], length: int) -> Int[Array, " B"]:
    """Draws k of (3): uniform in 1..L if u is uniform in [0, 1)."""
    return jnp.clip(jnp.floor(u * length).astype(jnp.int32) + 1, 1, length)


def count_weights(objective: families.Masked, length: int) -> Float[np.ndarray, "2 K"]:
    """Returns w(k) of (3) for k = 0..L, for reconstruction and diffusion; times L, as k is uniform."""
    weights = schedules.count_weights(objective, length)
    return length * np.stack([weights["reconstruction"], weights["diffusion"]])


def fill_masks(
    vocab_size: int, model: Transformer, params: Params, key: PRNGKeyArray, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples from all masks to none, see `dlm.objectives.reveal`."""
    predict = functools.partial(logits, Denoiser(model.apply, params, None, vocab_size))
    mask = common.mask_id(vocab_size)
    return reveal.reveal(predict, key, request.masked(mask), mask, request)
