"""Objectives against brute force: 3 symbols x length 4, every string, mask and order enumerated."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from dlm import config, objectives
from dlm.config import family
from dlm.model import keys, transformer
from dlm.objectives import common
from tolerances import FLOAT64, FORMULA, NATS, PROBABILITY

V, L = 3, 4
STRINGS = jnp.array(list(itertools.product(range(V), repeat=L)), jnp.int32)
MODEL = config.Model(layers=1, width=8, heads=2, ff=16, init_std=0.7, tied=False)
NAMES = ("any_order", "ar", "block", "masked", "noise", "orders")  # log V string by string
BOS, MASK = V, V + 1
KEYS, TILE = 400, 2  # draws of an estimator for each string, and copies of it in a batch


def make_objective(name: str, estimator: str = "time") -> objectives.Objective:
    return objectives.make(tiny.objective(name, estimator=estimator), V)


@functools.cache
def toy(name: str, model: config.Model = MODEL):
    """A random model of an objective, far from uniform: (transformer, parameters)."""
    network = transformer(model, V + config.FAMILIES[name].extra_tokens)
    return network, jax.jit(network.init)(jax.random.key(1))


@functools.cache
def nll(name: str, model: config.Model = MODEL):
    """(params, tokens, key, passes) -> Sum, compiled once a shape."""
    return jax.jit(functools.partial(make_objective(name).nll, toy(name, model)[0].apply))


@functools.cache
def loss(name: str, estimator: str = "time"):
    """(params, tokens, key) -> Sum, compiled once a shape."""
    return jax.jit(functools.partial(make_objective(name, estimator).loss, toy(name)[0].apply))


def scores(name: str, passes: int, repeats: int) -> np.ndarray:
    """Nats of every string under several keys, [repeats, 81]."""
    params = toy(name)[1]
    several = jax.random.split(jax.random.key(2), repeats)
    return np.stack([nll(name)(params, STRINGS, key, passes).nats for key in several])


# --- what every objective keeps -----------------------------------------------------------------


def test_every_objective_has_a_family():
    assert set(objectives.OBJECTIVES) == set(config.FAMILIES)
    for name in NAMES:
        assert make_objective(name).family is config.FAMILIES[name]
        assert make_objective(name) is make_objective(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_zeroed_head_gives_log_v(name):
    tied = config.Model(layers=1, width=8, heads=2, ff=16, tied=True)
    for model, table in ((MODEL, "head"), (tied, "embedding")):
        params = toy(name, model)[1]
        params = params | {table: jnp.zeros_like(params[table])}
        for passes in (1, 3):
            nats = nll(name, model)(params, STRINGS, jax.random.key(3), passes).nats
            np.testing.assert_allclose(nats / L, math.log(V), rtol=NATS)
    params = toy(name)[1]
    params = params | {"head": jnp.zeros_like(params["head"])}
    for estimator in ("time", "count"):
        if name in ("masked", "block") and estimator == "time":
            continue  # its number of masked tokens is random, so it is log V in the mean alone
        total = loss(name, estimator)(params, STRINGS, jax.random.key(4))
        np.testing.assert_allclose(total.nats / total.tokens, math.log(V), rtol=NATS)


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_sums_with_named_parts(name):
    params, key = toy(name)[1], jax.random.key(0)
    of_loss, of_nll = loss(name)(params, STRINGS, key), nll(name)(params, STRINGS, key, 2)
    assert of_loss.nats.shape == () and of_nll.nats.shape == (len(STRINGS),)
    for total in (of_loss, of_nll):
        assert total.tokens == STRINGS.size
        np.testing.assert_allclose(sum(total.terms.values()), total.nats, rtol=NATS)
        assert np.all(np.isfinite(total.nats)) and np.all(np.asarray(total.nats) >= 0)
    again = nll(name)(params, STRINGS, key, 2)
    np.testing.assert_array_equal(of_nll.nats, again.nats)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one_or_less_for_a_bound(name):
    exact = config.FAMILIES[name].exact
    nats = scores(name, 4, 1 if exact else 50).mean(axis=0)
    total = np.exp(-nats.astype(np.float64)).sum()
    assert abs(total - 1) < PROBABILITY if exact else 0 < total < 1


@pytest.mark.parametrize("name", NAMES)
def test_extra_tokens_are_never_predicted(name):
    network, params = toy(name)
    loud = params | {"head": params["head"].at[V:].set(50.0)}
    key = jax.random.key(0)
    for estimator in ("time", "count"):
        of_loss = loss(name, estimator)
        assert of_loss(params, STRINGS, key).nats == of_loss(loud, STRINGS, key).nats
    both = [nll(name)(p, STRINGS, key, 2).nats for p in (params, loud)]
    np.testing.assert_array_equal(*both)
    prompt = jnp.zeros((8, 1), jnp.int32)
    sample = jax.jit(lambda p: make_objective(name).sample(network, p, key, prompt, L))
    drawn = [np.asarray(sample(p)) for p in (params, loud)]
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].shape == (8, L) and drawn[0].min() >= 0 and drawn[0].max() < V


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name):
    params = toy(name)[1]
    gradient = jax.jit(jax.grad(lambda p: loss(name)(p, STRINGS, jax.random.key(0)).nats))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


# --- ar -----------------------------------------------------------------------------------------


def test_ar_is_the_chain_of_conditionals_given_only_the_past():
    network, params = toy("ar")
    apply = jax.jit(functools.partial(network.apply, mask="causal"))
    strings = np.asarray(STRINGS)
    expected = np.zeros(len(strings))
    for j in range(L):
        prefix = np.pad(strings, ((0, 0), (1, 0)), constant_values=BOS)[:, :L]
        prefix[:, j + 1 :] = 0  # no future
        logits = np.asarray(apply(params, jnp.asarray(prefix)), np.float64)[:, j, :V]
        chosen = logits[np.arange(len(strings)), strings[:, j]]
        expected += np.log(np.exp(logits).sum(axis=-1)) - chosen
    np.testing.assert_allclose(scores("ar", 1, 1)[0], expected, rtol=NATS)
    total = loss("ar")(params, STRINGS, jax.random.key(0))
    np.testing.assert_allclose(total.nats, expected.sum(), rtol=NATS)


def test_ar_splits_into_microbatches():
    params, whole = toy("ar")[1], scores("ar", 1, 1)[0]
    for size in (1, 27):
        parts = [nll("ar")(params, STRINGS[i : i + size], None, 1) for i in range(0, 81, size)]
        np.testing.assert_allclose(np.concatenate([p.nats for p in parts]), whole, rtol=NATS)
        np.testing.assert_allclose(sum(float(p.nats.sum()) for p in parts), whole.sum(), rtol=NATS)


# --- masked: the exact bound --------------------------------------------------------------------


@functools.cache
def conditionals() -> dict[tuple[int, ...], np.ndarray]:
    """log p(symbol at a position | string with some symbols masked), for all 4^4 such strings."""
    network, params = toy("masked")
    corrupted = np.array(list(itertools.product([0, 1, 2, MASK], repeat=L)), np.int32)
    inputs = jnp.asarray(np.pad(corrupted, ((0, 0), (1, 0)), constant_values=BOS))
    logits = jax.jit(functools.partial(network.apply, mask="full"))(params, inputs)
    logp = np.asarray(logits, np.float64)[:, 1:, :V]
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
    np.testing.assert_allclose(np.exp(logp).sum(axis=1), 1, rtol=FLOAT64)  # each order is a model
    np.testing.assert_allclose(-logp.mean(axis=0), bounds(), rtol=FLOAT64)
    exact = -np.log(np.exp(logp).mean(axis=0))
    np.testing.assert_allclose(np.exp(-exact).sum(), 1, rtol=FLOAT64)
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
    def all_strings(several):
        return jax.vmap(one)(several, STRINGS)

    several = jax.random.split(jax.random.key(7), (KEYS, len(STRINGS)))
    draws = np.asarray(jax.lax.map(all_strings, several, batch_size=50), np.float64)
    error = draws - bounds()
    each = error.mean(axis=0) / (error.std(axis=0, ddof=1) / math.sqrt(KEYS))
    pooled = error.mean() / (error.std(ddof=1) / math.sqrt(error.size))
    return max(np.abs(each).max(), abs(pooled))


LIMIT = 4.0


@pytest.mark.parametrize("estimator", ["time", "count"])
def test_training_loss_is_unbiased_for_the_bound(estimator):
    of_loss = make_objective("masked", estimator).loss
    assert deviation(lambda *a: of_loss(*a).nats) < LIMIT


@pytest.mark.parametrize("passes", [1, 3])
def test_evaluation_is_unbiased_for_the_bound(passes):
    of_nll = make_objective("masked").nll
    assert deviation(lambda *a: of_nll(*a, passes).nats.sum()) < LIMIT


def test_more_passes_and_the_count_form_are_less_noisy():
    one, eight = scores("masked", 1, 100).std(axis=0), scores("masked", 8, 100).std(axis=0)
    assert eight.mean() < 0.5 * one.mean()

    def noise(estimator):
        several = jax.random.split(jax.random.key(0), 100)
        params = toy("masked")[1]
        return np.std([loss("masked", estimator)(params, STRINGS, key).nats for key in several])

    assert noise("count") < noise("time")


def planted(bug: str):
    """The masked estimator with one mistake in it, or none."""

    def estimate(apply, params, tokens, key):
        times, masks = keys.row_keys(key, tokens.shape[0]).split(2)
        t, chance = 1 - times.stratified()[:, 0], masks.uniform(L)
        if bug == "fixed rate":
            t = jnp.full_like(t, 0.5)
        if bug == "floor":
            t = 0.5 + 0.5 * t
        masked = chance < t[:, None]
        weight = 1 / t
        if bug == "forced mask":
            weight = 1 / jnp.maximum(t, 1e-2)
            empty = ~jnp.any(masked, axis=-1, keepdims=True)
            masked = masked | (empty & (jnp.arange(L) == 0))
        if bug.startswith("forced count"):
            counts = jnp.clip(jnp.floor(t * L).astype(jnp.int32), 1, L)
            masked, weight = common.exact_count_mask(chance, counts), L / counts
        if bug == "unweighted":
            weight = 1.0
        if bug == "mean over masked":
            weight = L / jnp.maximum(masked.sum(axis=-1), 1)
        mask_id = MASK - 1 if bug == "mask id" else MASK
        inputs = jnp.pad(jnp.where(masked, mask_id, tokens), ((0, 0), (1, 0)), constant_values=BOS)
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
    chance = jax.random.uniform(jax.random.key(0), (len(counts), L))
    masks = np.asarray(jax.jit(common.exact_count_mask)(chance, counts))
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
    many = jax.random.split(jax.random.key(0), n)
    one = jax.jit(jax.vmap(lambda key: keys.row_keys(key, batch).stratified()[:, 0]))
    draws = np.asarray(one(many))
    assert draws.min() >= 0 and draws.max() < 1
    gaps = np.diff(np.sort(draws, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / batch, atol=FORMULA)
    for row in draws.T:  # Kolmogorov-Smirnov
        distance = np.abs(np.sort(row) - (np.arange(n) + 0.5) / n).max()
        assert distance < 1.95 / math.sqrt(n)


# --- one way in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_the_file_of_a_family_can_be_used_as_a_file_of_ones_own(name):
    """It gives the same family, parameters and program, and passes the checks of such files."""
    path = Path(str(objectives.OBJECTIVES[name].__file__))
    options: dict[str, Any] = {"learned_schedule": True, "block": 2}
    built_in = objectives.make(tiny.objective(name, **options), V)
    as_own: dict[str, Any] = dict(name="mine", file=str(path), digest=family.digest(path))
    own = objectives.make(dataclasses.replace(tiny.objective(name, **options), **as_own), V)
    assert own.family == built_in.family == config.FAMILIES[name]
    network, params = toy(name)
    params = built_in.init(params)
    assert own.init(params).keys() == params.keys()
    tokens, key = jnp.zeros((2, L), jnp.int32), jax.random.key(0)

    def program(loss):
        return jax.jit(lambda p: loss(network.apply, p, tokens, key).nats).lower(params).as_text()

    assert program(own.loss) == program(built_in.loss)
