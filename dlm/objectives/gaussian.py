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

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Params, Transformer, keys
from dlm.objectives.common import Sum, draw, given, mean

ENDS = "log_snr"  # parameters: log-SNR at t = 0 and at t = 1, where they are learned


def init(c: config.Objective, params: Params) -> Params:
    """The model's parameters and the objective's own."""
    if not c.learned_schedule:
        return params
    return params | {ENDS: jnp.array([c.log_snr, -c.log_snr], jnp.float32)}


def ends(c: config.Objective, params: Params) -> tuple[Array, Array]:
    """log-SNR of a coordinate at t = 0 and t = 1; those of the config are of a whole vector."""
    first, last = jnp.array([c.log_snr, -c.log_snr], jnp.float32)
    if c.learned_schedule:
        first, last = params[ENDS]
    per = jnp.log(params["embedding"].shape[-1])
    return first - per, last - per


def table(params: Params) -> Float[Array, "R D"]:
    """Embeddings of unit mean square."""
    rows = params["embedding"]
    return rows * jax.lax.rsqrt(jnp.mean(rows**2, axis=-1, keepdims=True) + 1e-12)


def scales(snr: Float[Array, " B"]) -> tuple[Array, Array]:
    """alpha and sigma of a log-SNR, to be multiplied with [B L D]."""
    snr = snr[:, None, None]
    return jnp.sqrt(jax.nn.sigmoid(snr)), jnp.sqrt(jax.nn.sigmoid(-snr))


def rounding(rows: Float[Array, "V D"], z: Float[Array, "B L D"], snr) -> Float[Array, "B L V"]:
    """log density of z about each token's embedding, but for a constant."""
    alpha, sigma = scales(snr)
    near = jnp.einsum("BLD,VD->BLV", z, rows) * alpha
    return (near - alpha**2 / 2 * jnp.sum(rows**2, axis=-1)) / sigma**2


def predict(
    c: config.Objective, vocab_size: int, apply: Callable, params: Params, z, snr, t, key=None
) -> tuple[Float[Array, "B L D"], Float[Array, "B L V"]]:
    """The predicted e, and log-weights of the tokens behind it."""
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
    # What z itself says of the token, beside what its neighbours do: the rounding law.
    logits = logits + rounding(rows, z, snr)
    return jax.nn.softmax(logits) @ rows, logits


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS follows the vocabulary."""

    def denoise(apply, params, z, snr, t, key) -> Float[Array, "B L D"]:
        return predict(c, vocab_size, apply, params, z, snr, t, key)[0]

    def parts(apply, params, tokens, u, draws, dropout) -> dict[str, Float[Array, " B"]]:
        """The three terms, the middle one drawn at times u."""
        noises, last_noises = draws.split(2)
        rows, (first, last) = table(params), ends(c, params)
        e = rows[tokens]
        snr = first + (last - first) * u
        alpha, sigma = scales(snr)
        z = alpha * e + sigma * noises.normal(*e.shape[1:])
        error = jnp.sum((e - denoise(apply, params, z, snr, u, dropout)) ** 2, axis=(1, 2))
        batch = len(tokens)
        a1, s1 = scales(jnp.full(batch, last))
        prior = jnp.sum(a1**2 * e**2 + s1**2 - 1 - jnp.log(s1**2), axis=(1, 2)) / 2
        a0, s0 = scales(jnp.full(batch, first))
        z0 = a0 * e + s0 * last_noises.normal(*e.shape[1:])
        read = jax.nn.log_softmax(rounding(rows[:vocab_size], z0, jnp.full(batch, first)))
        chosen = jnp.take_along_axis(read, tokens[..., None], -1)[..., 0]
        return {
            "prior": prior,
            "diffusion": (first - last) / 2 * jnp.exp(snr) * error,
            "reconstruction": -jnp.sum(chosen, axis=-1),
        }

    def loss(apply, params, tokens, key, step=None) -> Sum:
        times, noises, dropout = keys.draws(key, len(tokens)).split(3)
        u = times.stratified()[:, 0]
        terms = parts(apply, params, tokens, u, noises, dropout)
        terms = {name: jnp.sum(value) for name, value in terms.items()}
        return Sum(sum(terms.values(), jnp.zeros(())), tokens.size, terms)

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        def one(i) -> dict[str, Float[Array, " B"]]:
            at = (u + i / passes) % 1.0
            return parts(apply, params, tokens, at, noises.fold_in(i), None)

        times, noises = keys.draws(key, len(tokens)).split(2)
        u = times.stratified()[:, 0]
        terms = mean(one, passes)
        return Sum(sum(terms.values(), jnp.zeros(len(tokens))), tokens.size, terms)

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
        order: str = "ancestral",
        **options,
    ) -> Int[Array, "B L"]:
        """From noise in `steps` calls (0: 2L): "ancestral" is DDPM, "ddim" has no noise but the start.

        Steps are equal in log-SNR. A prompt's vectors are set to noisy copies of its embeddings.
        """
        del options
        batch, fixed = len(prompt), given(prompt, length, infill)
        calls = steps or 2 * length
        rows, (first, last) = table(params), ends(c, params)
        start_key, key = jax.random.split(key)
        noise = jax.random.normal(start_key, (batch, length, rows.shape[-1]))
        known = (fixed >= 0)[..., None]
        clean = rows[jnp.maximum(fixed, 0)]

        def at(i):
            return jnp.full(batch, last + (first - last) * i / calls)

        def held(z, snr):
            alpha, sigma = scales(snr)
            return jnp.where(known, alpha * clean + sigma * noise, z)

        def call(i, z):
            snr, after = at(i), at(i + 1)
            alpha, sigma = scales(snr)
            alpha_s, sigma_s = scales(after)
            time = 1 - jnp.full(batch, i) / calls
            e = denoise(model.apply, params, z, snr, time, None)
            epsilon = (z - alpha * e) / sigma
            if order == "ddim":
                z = alpha_s * e + sigma_s * epsilon
            else:  # the exact posterior of z_s given z_t and e (Kingma et al. 2021, equation 25)
                left = -jnp.expm1(snr - after)[:, None, None]  # 1 - SNR_t / SNR_s
                mean = alpha_s / alpha * (1 - left) * z + alpha_s * left * e
                fresh = jax.random.normal(jax.random.fold_in(key, i), z.shape)
                z = mean + sigma_s * jnp.sqrt(left) * temperature * fresh
            return held(z, after)

        z = jax.lax.fori_loop(0, calls, call, held(noise, at(0)))
        logits = rounding(rows[:vocab_size], z, at(calls))
        if order == "ddim":
            drawn = jnp.argmax(logits, axis=-1)
        else:
            drawn = draw(jax.random.fold_in(key, calls), logits, temperature, top_p)
        return jnp.where(fixed < 0, drawn, fixed)

    return loss, nll, sample
