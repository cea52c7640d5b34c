"""Samples follow the distribution that the model's own conditionals define, enumerated."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from dlm import config, objectives
from dlm.errors import DlmError
from dlm.evaluation import sampling
from dlm.model import Transformer, transformer
from dlm.objectives import common
from tolerances import FLOAT64, PROBABILITY

V, L, N = 3, 3, 4000
BOS, MASK = V, V + 1
STRINGS = list(itertools.product(range(V), repeat=L))
NAMES = sorted(config.FAMILIES)


def settings(name: str) -> config.Config:
    return config.Config(
        model=config.Model(layers=1, width=8, heads=2, ff=16, init_std=0.6),
        objective=tiny.objective(name, block=3),
        data=config.Data(seq_len=L),
    )


@functools.cache
def toy(name: str):
    network = transformer(settings(name).model, V + config.FAMILIES[name].extra_tokens)
    return network, jax.jit(network.init)(jax.random.key(2))


def sample(name: str, key: int = 0, count: int = N, **options) -> np.ndarray:
    return sampling.sample(
        settings(name), V, toy(name)[1], jax.random.key(key), count=count, **options
    )


def assert_follows(samples: np.ndarray, probabilities: np.ndarray):
    """Chi-square of the counts of all strings, within 4 standard deviations of its mean."""
    codes = samples @ (V ** np.arange(L)[::-1])  # the order of STRINGS
    expected = probabilities * len(samples)
    rare = expected < 5  # together in one cell
    seen = np.bincount(codes, minlength=len(STRINGS))
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum() + 1e-9)
    chi2, df = np.sum((seen - expected) ** 2 / np.maximum(expected, 1)), len(seen) - 1
    assert chi2 < df + 4 * np.sqrt(2 * df), (chi2, df)


@functools.cache
def ar_probabilities() -> np.ndarray:
    objective = objectives.make(config.objective("ar"), V)
    network, params = toy("ar")
    nll = jax.jit(lambda tokens: objective.nll(network.apply, params, tokens, None, 1).nats)
    found = np.exp(-np.asarray(nll(jnp.array(STRINGS)), np.float64))
    assert abs(found.sum() - 1) < PROBABILITY and found.max() > 3 * found.min()
    return found / found.sum()


@functools.cache
def masked_conditionals() -> dict[tuple[int, ...], np.ndarray]:
    network, params = toy("masked")
    states = list(itertools.product([0, 1, 2, MASK], repeat=L))
    inputs = jnp.pad(jnp.array(states), ((0, 0), (1, 0)), constant_values=BOS)
    logits = jax.jit(lambda x: network.apply(params, x, mask="full"))(inputs)
    weights = np.exp(np.asarray(logits, np.float64)[:, 1:, :V])
    return dict(zip(states, weights / weights.sum(axis=-1, keepdims=True), strict=True))


def ancestral(steps: int) -> np.ndarray:
    """The exact distribution of ancestral sampling in `steps` calls, by enumerating its chain."""
    chain = {(MASK,) * L: 1.0}
    for i in range(steps):
        after: dict[tuple[int, ...], float] = {}
        for state, mass in chain.items():
            p = masked_conditionals()[state]
            ways = [
                [(s, 1.0)] if s != MASK
                else [(MASK, 1 - 1 / (steps - i)), *((v, p[j, v] / (steps - i)) for v in range(V))]
                for j, s in enumerate(state)
            ]  # fmt: skip
            for way in itertools.product(*ways):
                weight = mass * float(np.prod([w for _, w in way]))
                if weight:
                    string = tuple(s for s, _ in way)
                    after[string] = after.get(string, 0.0) + weight
        chain = after
    return np.array([chain[s] for s in STRINGS])


def test_ar_follows_its_likelihood():
    assert_follows(sample("ar"), ar_probabilities())


def test_a_prompt_conditions_ar():
    samples = sample("ar", prompt=np.array([1]))
    given = np.array([s[0] == 1 for s in STRINGS])
    expected = np.where(given, ar_probabilities(), 0)
    assert_follows(samples, expected / expected.sum())


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_masked_follows_its_reverse_process(steps):
    expected = ancestral(steps)
    assert abs(expected.sum() - 1) < FLOAT64
    assert_follows(sample("masked", steps=steps), expected)


def test_many_steps_come_to_the_mixture_over_orders_that_the_bound_is_for():
    mixture = np.zeros(len(STRINGS))
    for order in itertools.permutations(range(L)):
        for n, string in enumerate(STRINGS):
            p = 1.0
            for j, position in enumerate(order):
                state = tuple(MASK if k in order[j:] else s for k, s in enumerate(string))
                p *= masked_conditionals()[state][position, string[position]]
            mixture[n] += p / 6
    distance = [np.abs(ancestral(steps) - mixture).sum() / 2 for steps in (1, 10, 80)]
    assert distance[0] > distance[1] > distance[2] and distance[2] < 0.02


# --- options ------------------------------------------------------------------------------------


def sure(name: str) -> str:
    """The order that takes the surest first, of families that have it."""
    return "confidence" if "confidence" in settings(name).objective.samplers else "ancestral"


@pytest.mark.parametrize(
    "name, order", sorted({(n, o) for n in NAMES for o in ("ancestral", sure(n))})
)
def test_the_prompt_is_kept_and_everything_is_a_symbol(name, order):
    found = sample(name, count=64, prompt=np.array([2, 0]), sampler=order)
    assert found.shape == (64, L) and np.all(found[:, :2] == [2, 0])
    assert found.min() >= 0 and found.max() < V and len(np.unique(found[:, 2])) > 1
    np.testing.assert_array_equal(
        found, sample(name, count=64, prompt=np.array([2, 0]), sampler=order)
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"d3pm", "gaussian"}))  # these start at random
def test_temperature_zero_takes_the_most_likely(name):
    options = dict(count=4, temperature=0.0, sampler=sure(name))
    found = sample(name, key=0, **options)
    np.testing.assert_array_equal(found, sample(name, key=1, **options))
    assert np.all(found == found[0])


def test_greedy_ar_takes_the_best_continuation_of_each_prefix():
    best = ()
    for j in range(L):
        mass = np.zeros(V)
        for string, p in zip(STRINGS, ar_probabilities(), strict=True):
            mass[string[j]] += p if string[:j] == best else 0
        best += (int(mass.argmax()),)
    assert tuple(sample("ar", count=1, temperature=0.0)[0]) == best


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("ar", dict(steps=2), "steps=2: ar runs 3 steps here; pass 3, or 0 for one per to"),
        ("d3pm", dict(sampler="confidence"), "must be one of ancestral, for d3pm"),
        ("masked", dict(sampler="ddim"), "sampler=ddim: must be one of ancestral, left-to-right"),
        ("masked", dict(temperature=float("nan")), "temperature=nan"),
    ],
)
def test_what_a_family_does_not_read_is_refused(name, options, said):
    with pytest.raises(DlmError, match=said):
        sample(name, count=1, **options)


def test_confidence_reveals_the_same_number_each_step_the_surest_first():
    """A model that answers with the number of masks it sees, and is surer further right."""
    length, steps = 12, 4

    def apply(params, inputs, *, mask, time=None, key=None):
        hidden = jnp.sum(inputs == length + 2, axis=-1)[:, None, None]
        surer = 1.0 + jnp.arange(length + 1)[None, :, None]
        return surer * (jnp.arange(length + 3) == hidden)

    objective = objectives.make(config.objective("masked"), length + 1)
    network = Transformer(lambda key: {}, apply, lambda batch, length: ())
    prompt = jnp.zeros((2, 0), jnp.int32)
    run = jax.jit(
        lambda steps: objective.sample(
            network, {}, jax.random.key(0), prompt, length, steps=steps, temperature=0.0,
            order="confidence",
        ),
        static_argnums=0,
    )  # fmt: skip
    expected = np.repeat([12, 9, 6, 3], 3)[::-1]
    np.testing.assert_array_equal(run(steps), np.tile(expected, (2, 1)))
    uneven = np.repeat([12, 9, 6, 4, 2], [3, 3, 2, 2, 2])[::-1]
    np.testing.assert_array_equal(run(5), np.tile(uneven, (2, 1)))


def test_top_p_and_temperature_shape_a_draw():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    many = jnp.broadcast_to(logits, (4000, 4))
    draw = jax.jit(common.draw, static_argnums=(2, 3))

    def shares(temperature, top_p):
        drawn = draw(jax.random.key(0), many, temperature, top_p)
        return np.bincount(np.asarray(drawn), minlength=4) / 4000

    for (temperature, top_p), expected in {
        (1.0, 1.0): [0.5, 0.3, 0.15, 0.05],
        (1.0, 0.79): [0.625, 0.375, 0, 0],  # the least set that reaches top_p
        (1.0, 0.81): [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0],
        (1.0, 0.01): [1, 0, 0, 0],
        (0.0, 1.0): [1, 0, 0, 0],
        (0.5, 1.0): np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365,
    }.items():
        found = shares(temperature, top_p)
        np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(4000))
        assert np.all(found[np.asarray(expected) == 0] == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(prompt=np.array([0, 1, 2])), "prompt: 3 tokens, must be below config.data.seq_len"),
        (dict(prompt=np.array([0, V])), "prompt: ids must be 0 to 2"),
        (dict(prompt=np.array([-1])), "prompt: ids must be 0 to 2"),
        (dict(temperature=-1.0), "temperature=-1.0"),
        (dict(top_p=0.0), "top_p=0.0"),
        (dict(top_p=1.5), "top_p=1.5"),
        (dict(sampler="random"), "sampler=random"),
        (dict(steps=-1), "steps=-1"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(options, message):
    with pytest.raises(DlmError) as error:
        sample("masked", count=1, **options)
    assert message in str(error.value)
