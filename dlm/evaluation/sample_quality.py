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

from dlm import config, objectives
from dlm.config.family import PATHS
from dlm.config.method import Method
from dlm.errors import ArgumentError
from dlm.evaluation import likelihood, oracle, sampling, score
from dlm.model import Params, sharding
from dlm.objectives import Conditionals


class Quality(NamedTuple):
    steps: int  # 0: the held-out data
    nats: float  # per token, by the reference model
    stderr: float
    entropy: float  # of the tokens of one sample, mean, nats
    distinct: tuple[float, ...]  # share of different 1-, 2-, 3-grams over all samples
    # exact likelihood of the sampler itself on the held-out windows, nats per token, and that of the
    # same sampler with the source's exact posterior in place of the model; None: not known
    sampler_nll: float | None = None
    oracle_nll: float | None = None

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

    points = [measure(0, held_out[:count])]
    for number in steps:
        key = jax.random.key(seed)
        drawn = sampling.sample(c, vocab_size, params, key, count=count, steps=number, **options)
        own, oracle = sampler_nll(c, params, vocab_size, held_out[:count], number, **options)
        points.append(measure(number, drawn)._replace(sampler_nll=own, oracle_nll=oracle))
    return points


def sampler_nll(
    c: config.Config,
    params: Params,
    vocab_size: int,
    windows: Int[np.ndarray, "n L"],
    steps: int,
    *,
    sampler: str = "ancestral",
    temperature: float = 1.0,
    top_p: float = 1.0,
    entropy_budget: float = 0.1,
) -> tuple[float | None, float | None]:
    """The exact likelihood of a sampler along a path in `steps` calls, nats per token, and that of the
    same sampler with a Markov source's exact posterior in place of the model (`dlm.evaluation.oracle`).

    None: the sampler has no path, or does not draw from the model's probabilities as they are.
    """
    length = windows.shape[1]
    known = objectives.make(c.objective, vocab_size).conditionals
    if (
        sampler not in PATHS
        or not isinstance(known, Conditionals)
        or (temperature, top_p) != (1, 1)
    ):
        return None, None
    part = known.part or length
    tokens_per_call = -(-part // max(steps * part // length, 1))
    if -(-part // tokens_per_call) * (length // part) != steps:
        return None, None  # so many calls do not reveal as many tokens each
    how = Method(
        "path", path=sampler, tokens_per_call=tokens_per_call, entropy_budget=entropy_budget
    )
    scored = (windows, np.arange(len(windows)), how)
    numbers = likelihood.score_windows([likelihood.Member(c, params)], vocab_size, *scored)
    own = numbers["path"].estimate.value
    exact = oracle.of_corpus(c.corpus, length) if part == length else None
    if exact is None:
        return own, None
    options = (sampler, tokens_per_call, entropy_budget)
    nats = jax.jit(lambda x: likelihood.path_nll(exact, None, {}, x, *options))(windows)
    return own, float(np.mean(nats)) / length


def entropy(tokens: Int[np.ndarray, " L"]) -> float:
    """Of the tokens' own distribution, in nats."""
    p = np.unique(tokens, return_counts=True)[1] / len(tokens)
    return float(-(p * np.log(p)).sum())


def distinct(tokens: Int[np.ndarray, "n L"], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016)."""
    grams = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1).reshape(-1, n)
    return len(np.unique(grams, axis=0)) / len(grams)
