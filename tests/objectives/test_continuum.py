"""Between AR and masked diffusion: each end is met exactly, and the bound in between by enumeration."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from dlm import config, objectives
from dlm.config import flops
from dlm.model import transformer
from dlm.objectives import block, orders
from tolerances import NATS, PROBABILITY

V, L = 3, 4
BOS, MASK = V, V + 1
STRINGS = jnp.array(list(itertools.product(range(V), repeat=L)), jnp.int32)
MODEL = config.Model(layers=2, width=8, heads=2, ff=16, init_std=0.7, tied=False)
NETWORK = transformer(MODEL, V + 2)
LIMIT = 4.0


@functools.cache
def params():
    return jax.jit(NETWORK.init)(jax.random.key(1))


def make_objective(name, **options):
    return objectives.make(tiny.objective(name, **options), V)


def shown(objective, tokens, key):
    """What `objective` shows the model in training: inputs, mask, positions."""
    seen = []

    def apply(_, inputs, *, mask, positions=None, key=None):
        seen.append((inputs, mask, positions))
        return jnp.zeros((*inputs.shape, V + 2))

    objective.loss(apply, {}, tokens, key)
    return seen[0]


# --- the ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [make_objective("orders", orders=1), make_objective("noise", noise=0.0)],
    ids=["one order", "no noise"],
)
def test_without_augmentation_it_is_ar(other):
    model = config.Model(layers=1, width=8, heads=2, ff=16, dropout=config.Dropout(residual=0.3))
    network, key = transformer(model, V + 2), jax.random.key(5)
    weights = jax.jit(network.init)(jax.random.key(0))

    def loss(o):
        return jax.jit(lambda w: o.loss(network.apply, w, STRINGS, key).nats)(weights)

    assert loss(make_objective("ar")) == loss(other)  # the same program


@pytest.mark.parametrize("estimator", ["time", "count"])
def test_one_block_is_masked_diffusion(estimator):
    key = jax.random.key(6)
    whole, masked = (make_objective(n, estimator=estimator, block=L) for n in ("block", "masked"))
    for of in (
        lambda o: jax.jit(lambda p: o.loss(NETWORK.apply, p, STRINGS, key).nats),
        lambda o: jax.jit(lambda p: o.nll(NETWORK.apply, p, STRINGS, key, 2).nats),
    ):
        np.testing.assert_allclose(of(whole)(params()), of(masked)(params()), rtol=NATS)


def test_blocks_of_one_token_are_exact_and_ask_by_a_mask():
    one = make_objective("block", block=1)
    key = jax.random.key(7)
    nats = np.asarray(one.nll(NETWORK.apply, params(), STRINGS, key, 1).nats, np.float64)
    again = one.nll(NETWORK.apply, params(), STRINGS, jax.random.key(8), 1).nats
    np.testing.assert_array_equal(nats, again)  # nothing is left to chance
    assert abs(np.exp(-nats).sum() - 1) < PROBABILITY


# --- the bound of a block by enumeration --------------------------------------------------------


def log_probability(noisy, clean, size):
    """log p at the L positions, float64, from one call."""
    both = [np.concatenate([[BOS], x]) for x in (noisy, clean)]
    logits = _call(size)(jnp.asarray(np.concatenate(both))[None])[0]
    logits = np.asarray(logits, np.float64)[1 : L + 1, :V]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@functools.cache
def _call(size):
    mask, positions = jnp.asarray(block.visible(L, size)), jnp.tile(jnp.arange(L + 1), 2)
    return jax.jit(lambda x: NETWORK.apply(params(), x, mask=mask, positions=positions))


def bound(string, size):
    """Sum over blocks of E over k and the subsets of k of b of b/k times their cross-entropy."""
    total = 0.0
    for start in range(0, L, size):
        for k in range(1, size + 1):
            subsets = list(itertools.combinations(range(start, start + size), k))
            for subset in subsets:
                noisy = [MASK if i in subset else s for i, s in enumerate(string)]
                logp = log_probability(noisy, string, size)
                nats = -sum(logp[i, string[i]] for i in subset)
                total += nats * (size / k) / len(subsets) / size
    return total


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("estimator", ["time", "count", "nll"])
def test_every_estimator_of_a_block_is_unbiased(size, estimator):
    strings = STRINGS[::16]
    exact = np.array([bound(s, size) for s in strings.tolist()])
    objective = make_objective(
        "block", block=size, estimator="time" if estimator == "time" else "count"
    )

    @jax.jit
    def one(key):
        if estimator == "nll":
            return jax.vmap(
                lambda s, k: objective.nll(NETWORK.apply, params(), s[None], k, 1).nats[0]
            )(strings, jax.random.split(key, len(strings)))
        return jax.vmap(lambda s, k: objective.loss(NETWORK.apply, params(), s[None], k).nats)(
            strings, jax.random.split(key, len(strings))
        )

    keys = jax.random.split(jax.random.key(9), 600)
    draws = np.asarray(jax.lax.map(one, keys, batch_size=50), np.float64)
    error = draws - exact
    spread = error.std(0, ddof=1) / math.sqrt(len(keys))
    if size == 1 and estimator != "time":
        every = np.broadcast_to(exact, draws.shape)
        np.testing.assert_allclose(draws, every, rtol=NATS)  # nothing is drawn
    else:
        assert np.abs(error.mean(0) / spread).max() < LIMIT


def test_the_bound_lies_above_the_likelihood_of_its_sampler():
    """Each block unmasked in a random order: with two tokens, the mean over the two orders."""
    for string in STRINGS[::9].tolist():
        log_block = []
        for start in (0, 2):
            per_order = []
            for order in ((start, start + 1), (start + 1, start)):
                logp, hidden = 0.0, set(order)
                for position in order:
                    noisy = [MASK if i in hidden else s for i, s in enumerate(string)]
                    logp += log_probability(noisy, string, 2)[position, string[position]]
                    hidden.remove(position)
                per_order.append(logp)
            log_block.append(np.log(np.mean(np.exp(per_order))))
        assert bound(string, 2) >= -sum(log_block) - 1e-9


# --- what may see what --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_gradient_leaks_into_a_block_from_its_own_or_later_clean_tokens(size):
    """The Jacobian of the noisy logits by the input vectors is zero where the bound says so."""
    table = jax.random.normal(jax.random.key(3), (2 * L + 2, MODEL.width))
    mask, positions = jnp.asarray(block.visible(L, size)), jnp.tile(jnp.arange(L + 1), 2)

    def logits(x):
        out = NETWORK.apply(params(), x[None], mask=mask, positions=positions)
        return out[0, 1 : L + 1].sum(-1)

    jacobian = np.abs(np.asarray(jax.jit(jax.jacobian(logits))(table))).sum(-1)
    of = np.arange(L) // size
    noisy, clean = jacobian[:, 1 : L + 1], jacobian[:, L + 2 :]
    assert np.all((noisy > 0) == (of[:, None] == of[None]))
    assert np.all((clean > 0) == (of[None] < of[:, None]))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_attention_flops_count_the_pairs_of_the_mask(size):
    sizes = dict(layers=1, width=8, ff=16, rows=5)
    both = [
        flops.forward_flops(**sizes, length=length, attention=kind, block=size)
        for length, kind in ((L + 1, "block"), (2 * L + 2, "full"))
    ]
    pairs = (2 * L + 2) ** 2 - (both[1] - both[0]) / (4 * 8)
    assert pairs == block.visible(L, size).sum()


# --- sampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("given", [0, 3])
def test_the_cache_changes_no_sample(size, given):
    """The same draws by whole calls of 2L + 2 positions, without a cache."""
    objective, key = make_objective("block", block=size), jax.random.key(11)
    prompt = jnp.ones((6, given), jnp.int32)
    sample = jax.jit(lambda p, x: objective.sample(NETWORK, p, key, x, L, temperature=0.7))
    cached = sample(params(), prompt)
    tokens = np.full((6, L), MASK, np.int32)
    tokens[:, :given] = 1
    for number in range(L // size):
        place = slice(number * size, (number + 1) * size)
        for i in range(size):
            draw_key, reveal_key = jax.random.split(
                jax.random.fold_in(jax.random.fold_in(key, number), i)
            )
            bos = np.full((6, 1), BOS, np.int32)
            clean = np.where(tokens == MASK, 0, tokens)  # those not yet known are not seen
            both = jnp.asarray(np.concatenate([bos, tokens, bos, clean], axis=1))
            logits = _call(size)(both)[:, 1 : L + 1, :V][:, place]
            drawn = jax.random.categorical(draw_key, logits / 0.7)
            reveal = jax.random.uniform(reveal_key, drawn.shape) * (size - i) < 1
            part = tokens[:, place]
            tokens[:, place] = np.where((part == MASK) & np.asarray(reveal), drawn, part)
    np.testing.assert_array_equal(cached, tokens)


# --- orders and noise ---------------------------------------------------------------------------


def test_orders_are_permutations_and_the_first_is_left_to_right():
    for kind in ("jitter", "uniform"):
        table = orders.fixed_orders(6, 16, kind)
        np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(np.arange(16), (6, 1)))
        np.testing.assert_array_equal(table[0], np.arange(16))
        assert len({tuple(row) for row in table.tolist()}) == 6
    moved = [
        np.abs(orders.fixed_orders(6, 400, "jitter")[i] - np.arange(400)).mean() for i in (1, 5)
    ]
    assert moved[0] < moved[1] < 20  # local, and the wider the later
    assert np.abs(orders.fixed_orders(2, 400, "uniform")[1] - np.arange(400)).mean() > 60


def test_an_order_moves_inputs_targets_and_positions_alike(monkeypatch):
    """The paper's example: order 2 0 1 4 5 3 of the tokens 1 to 6 behind a 0."""
    pi = np.array([[2, 0, 1, 4, 5, 3]], np.int32)
    monkeypatch.setattr(orders, "fixed_orders", lambda count, length, kind: pi)
    tokens = jnp.array([[1, 2, 3, 4, 5, 6]])
    seen = []

    def apply(_, inputs, *, mask, positions=None, key=None):
        seen.append((inputs, mask, positions))
        return jax.nn.one_hot(jnp.array([[3, 1, 2, 5, 6, 4]]), 9) * 100.0  # the right answers

    objective = objectives.Objective(
        "orders",
        config.FAMILIES["orders"],
        *orders.make(config.objective("orders", orders=2), 7),
    )
    nats = objective.loss(apply, {}, tokens, jax.random.key(0)).nats
    inputs, mask, positions = seen[0]
    assert inputs.tolist() == [[7, 3, 1, 2, 5, 6]] and positions.tolist() == [[0, 3, 1, 2, 5, 6]]
    assert mask == "causal" and nats < NATS


def test_a_new_order_for_every_sequence_shows_all_of_them():
    _, _, positions = shown(make_objective("orders", orders=0, order_kind="uniform"),
                            jnp.tile(STRINGS, (20, 1)), jax.random.key(2))  # fmt: skip
    seen = {tuple(row) for row in positions.tolist()}
    assert len(seen) == math.factorial(L)


@pytest.mark.parametrize("kind", ["mask", "replace"])
def test_noise_changes_its_share_of_the_inputs_and_never_bos(kind):
    tokens = jnp.tile(STRINGS, (100, 1))
    inputs, mask, _ = shown(
        make_objective("noise", noise=0.3, noise_kind=kind), tokens, jax.random.key(4)
    )
    assert mask == "causal" and np.all(np.asarray(inputs[:, 0]) == BOS)
    before, after = np.asarray(tokens[:, :-1]), np.asarray(inputs[:, 1:])
    share = (before != after).mean()
    expected = 0.3 if kind == "mask" else 0.3 * (1 - 1 / V)
    assert abs(share - expected) < 4 * math.sqrt(0.25 / before.size)
    assert set(np.unique(after[before != after])) == ({MASK} if kind == "mask" else {0, 1, 2})


def test_attention_noise_takes_keys_from_its_share_of_the_queries_and_keeps_their_own():
    tokens = jnp.zeros((4000, L), jnp.int32)
    objective = make_objective("noise", noise=0.0, attention_noise=0.4)
    _, mask, _ = shown(objective, tokens, jax.random.key(4))
    mask = np.asarray(mask)
    assert mask.shape == (4000, L, L) and np.all(mask[:, np.arange(L), np.arange(L)])
    assert not np.any(mask & ~np.tri(L, dtype=bool))
    lost = 1 - mask[:, 3, :3].mean()
    assert abs(lost - 0.4 * 0.5) < 0.02
