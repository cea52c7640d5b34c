"""Gaussian diffusion on learned embeddings: a language model with a true bound on its tokens.

Tokens become vectors e (the model's embeddings, scaled to unit mean square), noise is added, z =
alpha e + sigma epsilon with alpha^2 + sigma^2 = 1 and log-SNR falling linearly in t, and a rounding
law reads tokens off z at t = 0 (Ho et al. 2020; Li et al. 2022, arXiv 2205.14217). The bound has
three terms (Kingma et al. 2021, arXiv 2107.00630, equations 11 to 14; Gulrajani and Hashimoto 2023,
arXiv 2305.18619):

  -log p(x) <= KL(q(z_1 | x) || N(0, 1)) + 1/2 int -SNR'(t) E ||e - e_p||^2 dt - E log p(x | z_0)

in continuous time, where only the two ends of the log-SNR matter, which may be learned (they are of
a whole vector of D coordinates: D times the SNR of one). Rounding: p(x | z_0) is proportional to
the density of z_0 about each token's embedding. `x0` models predict e as a mean of embeddings under
their distribution over tokens; `epsilon` models give the noise, as sigma z + alpha v, and e follows
from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlm import config
from dlm.config import families
from dlm.model import Params, Transformer, keys
from dlm.objectives import common
from dlm.objectives.common import Denoiser, SampleRequest, at_token, draw

FAMILY = config.FAMILIES["gaussian"]
ENDS = "log_snr"  # the parameters with the log-SNR at t = 0 and t = 1, if they are learned


def init(objective: families.Gaussian, params: Params) -> Params:
    """Adds the ends of the log-SNR to the model's parameters, if they are learned."""
    if not objective.learned_schedule:
        return params
    return params | {ENDS: jnp.array([objective.log_snr, -objective.log_snr], jnp.float32)}


def ends(c: families.Gaussian, params: Params) -> tuple[Array, Array]:
    """Returns the log-SNR of a coordinate at t = 0 and t = 1; the config has that of a vector."""
    first, last = jnp.array([c.log_snr, -c.log_snr], jnp.float32)
    if c.learned_schedule:
        first, last = params[ENDS]
    per = jnp.log(params["embedding"].shape[-1])
    return first - per, last - per


def table(params: Params) -> Float[Array, "R D"]:
    """Returns the embeddings, scaled to unit mean square."""
    rows = params["embedding"]
    return rows * jax.lax.rsqrt(jnp.mean(rows**2, axis=-1, keepdims=True) + 1e-12)


def scales(snr: Float[Array, " B"]) -> tuple[Array, Array]:
    """Returns alpha and sigma of a log-SNR, Float[B 1 1]."""
    snr = snr[:, None, None]
    return jnp.sqrt(jax.nn.sigmoid(snr)), jnp.sqrt(jax.nn.sigmoid(-snr))


def rounding(rows: Float[Array, "V D"], z: Float[Array, "B L D"], snr) -> Float[Array, "B L V"]:
    """Returns the log density of z around each token's embedding, up to a constant."""
    alpha, sigma = scales(snr)
    near = jnp.einsum("BLD,VD->BLV", z, rows) * alpha
    return (near - alpha**2 / 2 * jnp.sum(rows**2, axis=-1)) / sigma**2


def predict(
    c: families.Gaussian, vocab_size: int, apply: Callable, params: Params, z, snr, t, key=None
) -> tuple[Float[Array, "B L D"], Float[Array, "B L V"]]:
    """Returns the predicted e, and logits of the tokens."""
    rows = table(params)
    network = {k: v for k, v in params.items() if k != ENDS}
    bos = jnp.broadcast_to(rows[vocab_size], (len(z), 1, z.shape[-1]))
    inputs = jnp.concatenate([bos, z], axis=1)
    options = dict(mask="full", time=t, key=key)
    rows = rows[:vocab_size]
    if c.prediction == "epsilon":
        alpha, sigma = scales(snr)
        velocity = apply(network, inputs, hidden=True, **options)[:, 1:]
        e = (z - sigma * (sigma * z + alpha * velocity)) / alpha
        return e, rounding(rows, e, jnp.full(len(z), 4.0))
    logits = apply(network, inputs, **options)[:, 1:, :vocab_size]
    # The rounding law adds what z at the position says about its token.
    logits = logits + rounding(rows, z, snr)
    return jax.nn.softmax(logits) @ rows, logits


def make(objective: families.Gaussian, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    names, terms = ("diffusion", "prior", "reconstruction"), functools.partial(terms_at, objective)
    loss = common.loss_by_time(names, terms, vocab_size, prior_kl=None)
    nll = common.nll_by_time(names, terms, vocab_size, prior_kl=None)
    return loss, nll, common.sampler(functools.partial(fill_from_noise, objective, vocab_size))


def prior_kl(e: Float[Array, "B L D"], log_snr: Float[Array, ""]) -> Float[Array, " B"]:
    """Returns term 1, KL(q(z_1 | x) || N(0, 1)), in nats; z_1 has this log-SNR."""
    alpha, sigma = scales(jnp.full(len(e), log_snr))
    return jnp.sum(alpha**2 * e**2 + sigma**2 - 1 - jnp.log(sigma**2), axis=(1, 2)) / 2


def diffusion_loss(
    c: families.Gaussian, denoiser: Denoiser, e: Float[Array, "B L D"], u, draws: keys.RowKeys
) -> Float[Array, " B"]:
    """Returns the integrand of term 2 at times u, in nats. The log-SNR is linear in t, so
    -SNR'(t) = (first - last) SNR."""
    first, last = ends(c, denoiser.params)
    log_snr = first + (last - first) * u
    alpha, sigma = scales(log_snr)
    z = alpha * e + sigma * draws.normal(*e.shape[1:])
    apply, params, dropout, vocab_size = denoiser
    e_p, _ = predict(c, vocab_size, apply, params, z, log_snr, u, dropout)
    error = jnp.sum((e - e_p) ** 2, axis=(1, 2))
    return (first - last) / 2 * jnp.exp(log_snr) * error


def reconstruction_nll(
    rows: Float[Array, "V D"], e: Float[Array, "B L D"], tokens, log_snr, draws: keys.RowKeys
) -> Float[Array, " B"]:
    """Returns term 3, -log p(x | z_0), in nats; z_0 has this log-SNR."""
    log_snr = jnp.full(len(e), log_snr)
    alpha, sigma = scales(log_snr)
    z = alpha * e + sigma * draws.normal(*e.shape[1:])
    return -jnp.sum(at_token(jax.nn.log_softmax(rounding(rows, z, log_snr)), tokens), axis=-1)


def terms_at(
    c: families.Gaussian, denoiser: Denoiser, tokens: Int[Array, "B L"], u, draws: keys.RowKeys
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Draws the three terms of the bound, the diffusion at times u Float[B] in [0, 1)."""
    draws, draws_0 = draws.split(2)
    rows, (first, last) = table(denoiser.params), ends(c, denoiser.params)
    e = rows[tokens]
    diffusion = diffusion_loss(c, denoiser, e, u, draws)
    rows = rows[: denoiser.vocab_size]
    return diffusion, prior_kl(e, last), reconstruction_nll(rows, e, tokens, first, draws_0)


def fill_from_noise(
    c: families.Gaussian, vocab_size: int, model: Transformer, params, key, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples in `steps` calls (0: 2L): "ancestral" is DDPM, "ddim" has no noise but the start.

    Steps are equal in log-SNR. A prompt's vectors are set to noisy copies of its embeddings.
    """
    kept = request.conditioning
    batch, length = kept.shape
    calls = request.steps or 2 * length
    rows, (first, last) = table(params), ends(c, params)
    start_key, key = jax.random.split(key)
    noise = jax.random.normal(start_key, (batch, length, rows.shape[-1]))
    clean = rows[jnp.maximum(kept, 0)]

    def log_snr_at(i):
        return jnp.full(batch, last + (first - last) * i / calls)

    def keep(z, log_snr):
        alpha, sigma = scales(log_snr)
        return jnp.where((kept >= 0)[..., None], alpha * clean + sigma * noise, z)

    def call(i, z):
        log_snr_t, log_snr_s = log_snr_at(i), log_snr_at(i + 1)
        alpha_t, sigma_t = scales(log_snr_t)
        alpha_s, sigma_s = scales(log_snr_s)
        time = 1 - jnp.full(batch, i) / calls
        e, _ = predict(c, vocab_size, model.apply, params, z, log_snr_t, time)
        epsilon = (z - alpha_t * e) / sigma_t
        if request.order == "ddim":
            z = alpha_s * e + sigma_s * epsilon
        else:  # the exact posterior of z_s given z_t and e (Kingma et al. 2021, equation 25)
            left = -jnp.expm1(log_snr_t - log_snr_s)[:, None, None]  # 1 - SNR_t / SNR_s
            mean = alpha_s / alpha_t * (1 - left) * z + alpha_s * left * e
            fresh = jax.random.normal(jax.random.fold_in(key, i), z.shape)
            z = mean + sigma_s * jnp.sqrt(left) * request.temperature * fresh
        return keep(z, log_snr_s)

    z = jax.lax.fori_loop(0, calls, call, keep(noise, log_snr_at(0)))
    logits = rounding(rows[:vocab_size], z, log_snr_at(calls))
    if request.order == "ddim":
        tokens = jnp.argmax(logits, axis=-1)
    else:
        tokens = draw(jax.random.fold_in(key, calls), logits, request.temperature, request.top_p)
    return jnp.where(kept < 0, tokens, kept)
