"""Steps against quality: how good samples are as fewer calls are spent on them.

Generative perplexity asks an autoregressive run of the same corpus how likely the samples are; a
model that repeats itself scores well by it, so the entropy and the distinct n-grams of the samples
stand beside it (Zheng et al. 2024, arXiv 2409.02908), with those of held-out data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from dlm import config
from dlm.errors import ArgumentError
from dlm.evaluation import sampling, score
from dlm.model import Params, sharding


class Quality(NamedTuple):
    steps: int  # 0: the held-out data
    nats: float  # per token, by the reference model
    stderr: float
    entropy: float  # of the tokens of one sample, mean, nats
    distinct: tuple[float, ...]  # share of different 1-, 2-, 3-grams over all samples

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats)


def curve(
    c: config.Config,
    params: Params,
    reference: config.Config,
    reference_params: Params,
    vocab_size: int,
    held_out: Int[np.ndarray, "n L"],
    steps: Sequence[int],
    *,
    count: int = 256,
    seed: int = 0,
    **options,
) -> list[Quality]:
    """The held-out windows, then samples at each number of calls.

    Raises:
      DlmError: the reference model is no autoregressive run, or of another length.
    """
    if not reference.objective.family.exact:
        raise ArgumentError(
            "reference_model",
            f": {reference.objective.name} has no exact likelihood; must be an ar run",
        )
    if reference.data.seq_len != c.data.seq_len:
        raise ArgumentError(
            "reference_model",
            f": windows of {reference.data.seq_len} tokens, must be {c.data.seq_len} as the run's",
        )
    mesh = sharding.make_mesh(reference)

    def measure(number: int, tokens: Int[np.ndarray, "n L"]) -> Quality:
        nats = (
            score.score(reference, vocab_size, reference_params, tokens, 1, mesh) / tokens.shape[1]
        )
        stderr = float(nats.std(ddof=1) / math.sqrt(len(nats)))
        spread = float(np.mean([entropy(row) for row in tokens]))
        shares = tuple(distinct(tokens, n) for n in (1, 2, 3))
        return Quality(number, float(nats.mean()), stderr, spread, shares)

    found = [measure(0, held_out[:count])]
    for number in steps:
        key = jax.random.key(seed)
        drawn = sampling.sample(c, vocab_size, params, key, count=count, steps=number, **options)
        found.append(measure(number, drawn))
    return found


def entropy(tokens: Int[np.ndarray, " L"]) -> float:
    """Of the tokens' own distribution, in nats."""
    p = np.unique(tokens, return_counts=True)[1] / len(tokens)
    return float(-(p * np.log(p)).sum())


def distinct(tokens: Int[np.ndarray, "n L"], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016)."""
    grams = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1).reshape(-1, n)
    return len(np.unique(grams, axis=0)) / len(grams)
