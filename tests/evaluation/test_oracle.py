"""The exact posterior of a Markov chain, against the probabilities of all its strings."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config, objectives
from dlm.config.family import PATHS
from dlm.data.corpora import known
from dlm.evaluation import likelihood, oracle, sample_quality
from dlm.objectives import checks
from tolerances import NATS

V, L = 3, 4
ROWS = np.random.default_rng(0).dirichlet(np.ones(V), V)
FIRST = known.stationary(ROWS)
STRINGS = np.array(list(itertools.product(range(V), repeat=L)), np.int32)
LOG_P = np.log(FIRST)[STRINGS[:, 0]] + sum(
    np.log(ROWS)[STRINGS[:, i], STRINGS[:, i + 1]] for i in range(L - 1)
)


def nats(path: str, tokens_per_call: int) -> np.ndarray:
    how = (oracle.markov(FIRST, ROWS), None, {}, jnp.asarray(STRINGS), path, tokens_per_call)
    return np.asarray(jax.jit(lambda: likelihood.path_nll(*how))(), np.float64)


@pytest.mark.parametrize("path", PATHS[:4])
def test_one_token_a_call_is_the_chain_itself_along_any_path(path):
    np.testing.assert_allclose(nats(path, 1), -LOG_P, rtol=NATS)


def test_all_tokens_in_one_call_are_the_product_of_their_shares():
    np.testing.assert_allclose(nats("confidence", L), -np.log(FIRST)[STRINGS].sum(1), rtol=NATS)


def test_the_error_of_the_sampler_grows_as_calls_become_fewer():
    """The mean over the chain of its excess: a divergence, so never below zero."""
    p = np.exp(LOG_P)
    excess = [p @ (nats("left-to-right", n) + LOG_P) for n in (1, 2, 4)]
    assert abs(excess[0]) < 1e-4 and excess[0] < excess[1] < excess[2]


def test_quality_scores_a_sampler_by_its_own_likelihood_beside_the_oracles():
    """Untrained, the model is far above the oracle, which is best at a call a token."""
    options = dict(vocabulary=3, length=4, documents=50)
    c = config.Config(
        corpus=config.Corpus(name="markov", options=options),
        model=checks.MODEL,
        objective=config.objective("masked"),
        data=config.Data(seq_len=4),
    )
    params = checks.bench(objectives.make(c.objective, V)).params
    _, *law = known.markov_law(vocabulary=3, concentration=3, seed=0)
    rng = np.random.default_rng(2)
    windows = np.stack([known.chain(rng, *law, 4) for _ in range(64)]).astype(np.int32)
    scores = [
        sample_quality.sampler_nll(c, params, V, windows, steps, sampler="confidence")
        for steps in (1, 4)
    ]
    (own_one, oracle_one), (own_four, oracle_four) = scores
    assert oracle_four < oracle_one < own_one and oracle_four < own_four
    assert sample_quality.sampler_nll(c, params, V, windows, 4) == (None, None)  # ancestral
    assert sample_quality.sampler_nll(c, params, V, windows, 3, sampler="confidence")[0] is None
