"""Objectives against brute force: 3 symbols x length 4, every string, mask and order enumerated."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config, objectives
from dlm.model import transformer
from dlm.objectives import common

V, L = 3, 4
STRINGS = jnp.array(list(itertools.product(range(V), repeat=L)), jnp.int32)
MODEL = config.Model(layers=1, width=8, heads=2, ff=16, init=0.7, tied=False)
NAMES = sorted(objectives.OBJECTIVES)
BOS, MASK = V, V + 1
KEYS, TILE = 400, 2  # draws of an estimator for each string, and copies of it in a batch


def goal(name: str, estimator: str = "time") -> objectives.Objective:
    return objectives.make(config.Objective(name=name, estimator=estimator), V)


def toy(name: str):
    """A random model of an objective, far from uniform: (transformer, parameters)."""
    network = transformer(MODEL, V + config.FAMILIES[name].extra_tokens)
    return network, network.init(jax.random.key(1))


@functools.cache
def scores(name: str, passes: int, keys: int) -> np.ndarray:
    """Nats of every string under `keys` keys, [keys, 81]."""
    network, params = toy(name)
    one = jax.jit(lambda key: goal(name).nll(network.apply, params, STRINGS, key, passes).nats)
    return np.stack([one(key) for key in jax.random.split(jax.random.key(2), keys)])


# --- what every objective keeps -----------------------------------------------------------------


def test_every_objective_has_a_family():
    assert set(objectives.OBJECTIVES) == set(config.FAMILIES)
    for name in NAMES:
        assert goal(name).family is config.FAMILIES[name] and goal(name) is goal(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_zeroed_head_gives_log_v(name, tied):
    network = transformer(
        config.Model(layers=1, width=8, heads=2, ff=16, tied=tied),
        V + config.FAMILIES[name].extra_tokens,
    )
    params = network.init(jax.random.key(0))
    table = "embedding" if tied else "head"
    params[table] = jnp.zeros_like(params[table])
    for passes in (1, 3):
        nats = goal(name).nll(network.apply, params, STRINGS[:16], jax.random.key(3), passes).nats
        np.testing.assert_allclose(nats / L, math.log(V), rtol=3e-7)
    for estimator in ("time", "count"):
        if name == "masked" and estimator == "time":
            continue  # its number of masked tokens is random, so it is log V in the mean alone
        total = goal(name, estimator).loss(network.apply, params, STRINGS[:16], jax.random.key(4))
        np.testing.assert_allclose(total.nats / total.tokens, math.log(V), rtol=3e-7)


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_sums_with_named_parts(name):
    network, params = toy(name)
    loss = goal(name).loss(network.apply, params, STRINGS[:6], jax.random.key(0))
    nll = goal(name).nll(network.apply, params, STRINGS[:6], jax.random.key(0), jnp.int32(2))
    assert loss.nats.shape == () and nll.nats.shape == (6,)
    for total in (loss, nll):
        assert total.tokens == 6 * L
        np.testing.assert_allclose(sum(total.terms.values()), total.nats)
        assert np.all(np.isfinite(total.nats)) and np.all(np.asarray(total.nats) >= 0)
    again = goal(name).nll(network.apply, params, STRINGS[:6], jax.random.key(0), jnp.int32(2))
    np.testing.assert_array_equal(nll.nats, again.nats)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one_or_less_for_a_bound(name):
    exact = config.FAMILIES[name].exact
    nats = scores(name, 1, 1 if exact else 300).mean(axis=0)
    total = np.exp(-nats.astype(np.float64)).sum()
    assert abs(total - 1) < 1e-5 if exact else 0 < total < 1


@pytest.mark.parametrize("name", NAMES)
def test_extra_tokens_are_never_predicted(name):
    network, params = toy(name)
    loud = params | {"head": params["head"].at[V:].set(50.0)}
    for estimator in ("time", "count"):
        a, b = (
            goal(name, estimator).loss(network.apply, p, STRINGS, jax.random.key(0)).nats
            for p in (params, loud)
        )
        assert a == b
    nll = [
        goal(name).nll(network.apply, p, STRINGS, jax.random.key(0), 2).nats for p in (params, loud)
    ]
    np.testing.assert_array_equal(*nll)
    prompt = jnp.zeros((8, 1), jnp.int32)
    drawn = [goal(name).sample(network, p, jax.random.key(5), prompt, L) for p in (params, loud)]
    np.testing.assert_array_equal(*drawn)
    assert np.asarray(drawn[0]).max() < V


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name):
    network, params = toy(name)
    gradient = jax.grad(
        lambda p: goal(name).loss(network.apply, p, STRINGS, jax.random.key(0)).nats
    )(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


# --- ar -----------------------------------------------------------------------------------------


def test_ar_is_the_chain_of_conditionals_given_only_the_past():
    network, params = toy("ar")
    expected = np.zeros(len(STRINGS))
    for j in range(L):  # the future is not even passed in
        prefix = jnp.pad(STRINGS[:, :j], ((0, 0), (1, 0)), constant_values=BOS)
        logits = network.apply(params, prefix, mask="causal")[:, -1, :V]
        logp = np.asarray(jax.nn.log_softmax(logits), np.float64)
        expected -= logp[np.arange(len(STRINGS)), np.asarray(STRINGS[:, j])]
    np.testing.assert_allclose(scores("ar", 1, 1)[0], expected, rtol=2e-6)
    loss = goal("ar").loss(network.apply, params, STRINGS, jax.random.key(0))
    np.testing.assert_allclose(loss.nats, expected.sum(), rtol=2e-6)


def test_ar_splits_into_microbatches():
    network, params = toy("ar")
    whole = scores("ar", 1, 1)[0]
    for size in (1, 3, 27):
        parts = [
            goal("ar").nll(network.apply, params, STRINGS[i : i + size], None, 1).nats
            for i in range(0, 27, size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole[:27], rtol=1e-6)


# --- masked: the exact bound --------------------------------------------------------------------


@functools.cache
def conditionals() -> dict[tuple[int, ...], np.ndarray]:
    """log p(symbol at a position | string with some symbols masked), for all 4^4 such strings."""
    network, params = toy("masked")
    corrupted = np.array(list(itertools.product([0, 1, 2, MASK], repeat=L)), np.int32)
    inputs = np.concatenate([np.full((len(corrupted), 1), BOS, np.int32), corrupted], axis=1)
    logits = network.apply(params, jnp.asarray(inputs), mask="full")[:, 1:, :V]
    logp = np.asarray(logits, np.float64)
    logp = logp - np.log(np.exp(logp).sum(axis=-1, keepdims=True))
    return dict(zip(map(tuple, corrupted.tolist()), logp, strict=True))


def hide(string, positions) -> tuple[int, ...]:
    return tuple(MASK if i in positions else s for i, s in enumerate(string))


@functools.cache
def bounds() -> np.ndarray:
    """E over k ~ U{1..L} and the subsets of k positions of L/k times their cross-entropy, [81]."""
    total = np.zeros(len(STRINGS))
    for n, string in enumerate(STRINGS.tolist()):
        for k in range(1, L + 1):
            subsets = list(itertools.combinations(range(L), k))
            for subset in subsets:
                logp = conditionals()[hide(string, subset)]
                nats = -sum(logp[i, string[i]] for i in subset)
                total[n] += nats * (L / k) / len(subsets) / L
    return total


def test_the_bound_is_the_mean_over_orders_and_above_the_likelihood_of_their_mixture():
    """Generating in a uniformly random order: its likelihood lies below the mean over orders."""
    orders = list(itertools.permutations(range(L)))
    logp = np.zeros((len(orders), len(STRINGS)))
    for o, order in enumerate(orders):
        for n, string in enumerate(STRINGS.tolist()):
            for j, position in enumerate(order):
                logp[o, n] += conditionals()[hide(string, order[j:])][position, string[position]]
    np.testing.assert_allclose(np.exp(logp).sum(axis=1), 1, rtol=1e-10)  # each order is a model
    np.testing.assert_allclose(-logp.mean(axis=0), bounds(), rtol=1e-10)
    exact = -np.log(np.exp(logp).mean(axis=0))
    np.testing.assert_allclose(np.exp(-exact).sum(), 1, rtol=1e-10)
    assert np.all(bounds() >= exact) and np.mean(bounds() - exact) > 0.05


# --- masked: estimators -------------------------------------------------------------------------


def deviation(estimate) -> float:
    """The largest |mean - exact bound| in standard errors, over the 81 strings and their mean.

    `estimate(apply, params, tokens[B, L], key)` -> nats, summed over the batch.
    """
    network, params = toy("masked")

    def one(key, string):
        return estimate(network.apply, params, jnp.tile(string, (TILE, 1)), key) / TILE

    @jax.jit
    def all_strings(keys):
        return jax.vmap(one)(keys, STRINGS)

    keys = jax.random.split(jax.random.key(7), (KEYS, len(STRINGS)))
    draws = np.asarray(jax.lax.map(all_strings, keys, batch_size=50), np.float64)
    error = draws - bounds()
    each = error.mean(axis=0) / (error.std(axis=0, ddof=1) / math.sqrt(KEYS))
    pooled = error.mean() / (error.std(ddof=1) / math.sqrt(error.size))
    return max(np.abs(each).max(), abs(pooled))


LIMIT = 4.0


@pytest.mark.parametrize("estimator", ["time", "count"])
def test_training_loss_is_unbiased_for_the_bound(estimator):
    loss = goal("masked", estimator).loss
    assert deviation(lambda *a: loss(*a).nats) < LIMIT


@pytest.mark.parametrize("passes", [1, 3])
def test_evaluation_is_unbiased_for_the_bound(passes):
    nll = goal("masked").nll
    assert deviation(lambda *a: nll(*a, passes).nats.sum()) < LIMIT


def test_more_passes_and_the_count_form_are_less_noisy():
    one, eight = scores("masked", 1, 100).std(axis=0), scores("masked", 8, 100).std(axis=0)
    assert eight.mean() < 0.5 * one.mean()
    network, params = toy("masked")

    def noise(estimator):
        loss = jax.jit(goal("masked", estimator).loss, static_argnums=0)
        keys = jax.random.split(jax.random.key(0), 100)
        return np.std([loss(network.apply, params, STRINGS, key).nats for key in keys])

    assert noise("count") < noise("time")


def planted(bug: str):
    """The masked estimator with one mistake in it, or none."""

    def estimate(apply, params, tokens, key):
        time_key, mask_key = jax.random.split(key)
        t = 1 - common.stratified(time_key, tokens.shape[0])
        if bug == "fixed rate":
            t = jnp.full_like(t, 0.5)
        if bug == "floor":
            t = 0.1 + 0.9 * t
        masked = jax.random.uniform(mask_key, tokens.shape) < t[:, None]
        weight = 1 / t
        if bug == "forced mask":
            weight = 1 / jnp.maximum(t, 1e-2)
            empty = ~jnp.any(masked, axis=-1, keepdims=True)
            masked = masked | (empty & (jnp.arange(L) == 0))
        if bug.startswith("forced count"):
            counts = jnp.clip(jnp.floor(t * L).astype(jnp.int32), 1, L)
            masked, weight = common.exact_count_mask(mask_key, counts, L), L / counts
        if bug == "unweighted":
            weight = 1.0
        if bug == "mean over masked":
            weight = L / jnp.maximum(masked.sum(axis=-1), 1)
        mask_id = MASK - 1 if bug == "mask id" else MASK
        inputs = jnp.pad(
            jnp.where(masked, mask_id, tokens), ((0, 0), (1, 0)), constant_values=BOS
        )
        logits = apply(params, inputs, mask="full")
        shift = 0 if bug == "shifted" else 1
        logits = jax.lax.dynamic_slice_in_dim(logits, shift, L, axis=1)
        classes = V + 2 if bug == "mask logit" else V
        entropy = common.cross_entropy(logits, tokens, classes)
        return jnp.sum(weight * jnp.sum(jnp.where(masked, entropy, 0), axis=-1))

    return estimate


BUGS = [
    "unweighted",
    "forced mask",
    "forced count",
    "fixed rate",
    "floor",
    "mean over masked",
    "mask id",
    "mask logit",
    "shifted",
]


def test_the_copy_without_a_bug_passes():
    assert deviation(planted("")) < LIMIT


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug):
    assert deviation(planted(bug)) > 2 * LIMIT


# --- draws --------------------------------------------------------------------------------------


def test_masks_have_the_exact_count_and_every_subset_is_as_likely():
    counts = jnp.tile(jnp.arange(L + 1), 2000)
    masks = np.asarray(common.exact_count_mask(jax.random.key(0), counts, L))
    np.testing.assert_array_equal(masks.sum(axis=1), counts)
    for k in range(L + 1):
        codes = masks[np.asarray(counts) == k] @ (1 << np.arange(L))
        subsets, seen = np.unique(codes, return_counts=True)
        assert len(subsets) == math.comb(L, k)
        expected = 2000 / len(subsets)
        chi2, df = np.sum((seen - expected) ** 2 / expected), len(subsets) - 1
        assert chi2 <= df + 4 * math.sqrt(2 * df)


def test_stratified_draws_are_uniform_each_and_evenly_spread_together():
    batch, n = 5, 4000
    keys = jax.random.split(jax.random.key(0), n)
    draws = np.asarray(jax.vmap(lambda key: common.stratified(key, batch))(keys))
    assert draws.min() >= 0 and draws.max() < 1
    gaps = np.diff(np.sort(draws, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / batch, atol=1e-6)
    for row in draws.T:  # Kolmogorov-Smirnov
        distance = np.abs(np.sort(row) - (np.arange(n) + 0.5) / n).max()
        assert distance < 1.95 / math.sqrt(n)
