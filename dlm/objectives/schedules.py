"""Noise schedules: the share m(t) of tokens that are masked (or random) at time t in [0, 1].

alpha = 1 - m is the share of tokens left. If m runs from 0 to 1, the bound does not depend on the
schedule (Kingma et al. 2021; Shi et al. 2024, MD4), only the variance of its estimator does.
Sources: MD4, arXiv 2406.04329 (linear, cosine, polynomial, geometric); MDLM, arXiv 2406.07524
(log-linear, with its epsilon of 1e-3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlm.config import families

EPSILON = 1e-3  # of the log-linear schedule
SIGMA = (1e-4, 20.0)  # of the geometric schedule: total noise at both ends


class Schedule(NamedTuple):
    """`mask_prob(t)` is m(t), `rate(t)` is its derivative m'(t), both of JAX arrays."""

    mask_prob: Callable[[Any], Array]
    rate: Callable[[Any], Array]
    start: float  # m(0)
    end: float  # m(1)

    def hazard(self, t: Float[Array, " B"]) -> Float[Array, " B"]:
        """Returns -alpha'/alpha, the rate at which a token that is left gets lost."""
        return self.rate(t) / jnp.maximum(1 - self.mask_prob(t), 1e-9)

    def prior_kl(self, length: int, vocab_size: int) -> float:
        """Returns KL(q(x_1 | x) || prior) in nats; 1 - m(1) of the prior's tokens are uniform."""
        return length * (1 - self.end) * math.log(vocab_size)


def schedule(c: families.Scheduled) -> Schedule:
    low, high = SIGMA
    by_name: dict[str, Callable[[Any], Array]] = {
        "linear": lambda t: t,
        "cosine": lambda t: jnp.sin(math.pi / 2 * t),
        "polynomial": lambda t: t**c.schedule_exponent,
        "loglinear": lambda t: (1 - EPSILON) * t,
        "geometric": lambda t: -jnp.expm1(-(low ** (1 - t)) * high**t),
    }
    mask_prob = by_name[c.schedule]
    ends = {"loglinear": (0.0, 1 - EPSILON)}
    ends["geometric"] = (-math.expm1(-low), -math.expm1(-high))
    slope = jax.grad(lambda t: jnp.sum(mask_prob(t)))
    return Schedule(mask_prob, slope, *ends.get(c.schedule, (0.0, 1.0)))


def count_weights(c: families.Masked, length: int) -> dict[str, np.ndarray]:
    """Returns the weights of the masked bound in count form, Float[L + 1] for each term, by k masks.

    The bound is prior + Σ_k weight[k] times the mean over sets of k positions of the cross-entropy
    summed over the set. Bin(k; L, m) is the probability of k masks, I(m) that of at least k. In
    continuous time diffusion is the integral of Bin(k; L, m)/m dm from m(0) to m(1), which is
    (I(m(1)) - I(m(0)))/k, and reconstruction is Bin(k; L, m(0)). In T steps the sum over i of
    (m_i - m_(i-1))/m_i Bin(k; L, m_i), m_0 = 0, replaces it; step i = 1 is the reconstruction
    (Austin et al. 2021; MD4, section 3).
    """
    s, k = schedule(c), np.arange(length + 1)
    if c.timesteps:
        with jax.ensure_compile_time_eval():
            m = np.asarray(s.mask_prob(jnp.arange(1, c.timesteps + 1) / c.timesteps), np.float64)
        if s.end == 1.0:
            m[-1] = 1.0
        before = np.concatenate([[0.0], m[:-1]])
        parts = ((m - before) / m)[:, None] * _binomial(length, m)
        return {"reconstruction": parts[0] * (k > 0), "diffusion": parts[1:].sum(0) * (k > 0)}
    tails = [_binomial(length, np.array([m]))[0, ::-1].cumsum()[::-1] for m in (s.start, s.end)]
    inner = np.concatenate([[0.0], (tails[1] - tails[0])[1:] / k[1:]])
    left = _binomial(length, np.array([s.start]))[0] * (k > 0)  # none if m(0) = 0
    return {"reconstruction": left, "diffusion": inner}


def _binomial(length: int, m: np.ndarray) -> np.ndarray:
    """Returns the probability of k masks of `length` tokens for each share m, [M, L + 1]."""
    k = np.arange(length + 1)
    log_factorial = np.array([math.lgamma(i + 1) for i in k])
    choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    m = m[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = choose + np.where(k > 0, k * np.log(m), 0.0)
        logs = logs + np.where(k < length, (length - k) * np.log1p(-m), 0.0)
    return np.exp(logs)
