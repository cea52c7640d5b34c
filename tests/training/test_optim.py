"""Schedules by value, AdamW against NumPy, one compiled step for every rate."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config
from dlm.config import planning
from dlm.training import optimizer as optim
from tolerances import FORMULA, UPDATES, assert_close


def hyper(**numbers) -> optim.Hyper:
    plain = dict(
        lr=2.0, weight_decay=0.1, warmup=10, decay=20, min_lr_ratio=0.1, steps=110, ema_decay=0.0
    )
    return optim.Hyper(**{k: jnp.float32(v) for k, v in (plain | numbers).items()})


RATES = jax.jit(
    jax.vmap(optim.learning_rate, in_axes=(None, 0, None)), static_argnums=0
)  # of every step of a run


def rates(schedule: str, **numbers) -> np.ndarray:
    return np.asarray(RATES(schedule, jnp.arange(110), hyper(**numbers)))


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_every_schedule_warms_up_linearly_and_never_exceeds_lr(schedule):
    found = rates(schedule)
    np.testing.assert_allclose(found[:10], 2.0 * np.arange(1, 11) / 10, rtol=FORMULA)
    assert found.max() <= 2.0 * (1 + FORMULA) and found.min() > 0
    np.testing.assert_allclose(rates(schedule, lr=4.0), 2 * found, rtol=FORMULA)
    np.testing.assert_allclose(rates(schedule, warmup=1)[0], 2.0, rtol=FORMULA)


def test_schedules_end_as_they_say():
    steps = np.arange(110)
    cosine = 2.0 * (0.1 + 0.45 * (1 + np.cos(np.pi * (steps - 10) / 100)))
    assert_close(rates("cosine")[10:], cosine[10:], FORMULA)
    assert rates("cosine")[60] == pytest.approx(2.0 * 0.55, rel=FORMULA)  # half way down
    assert rates("cosine")[-1] == pytest.approx(0.2, rel=0.01)
    wsd = rates("wsd")
    np.testing.assert_allclose(wsd[10:91], 2.0, rtol=FORMULA)
    np.testing.assert_allclose(wsd[100], 2.0 * 0.55, rtol=FORMULA)
    np.testing.assert_allclose(np.diff(wsd[90:]), -2.0 * 0.9 / 20, atol=2 * FORMULA)
    np.testing.assert_allclose(rates("constant")[10:], 2.0, rtol=FORMULA)
    np.testing.assert_allclose(rates("cosine", min_lr_ratio=1.0)[10:], 2.0, rtol=FORMULA)


def test_the_final_rate_is_that_of_the_step_after_the_last():
    rate = {(s, i): float(optim.learning_rate(s, i, hyper())) for s in ("cosine", "wsd")
            for i in (10, 90, 91, 109, 110)}  # fmt: skip
    assert rate["cosine", 10] == pytest.approx(2.0, rel=FORMULA)  # `warmup`
    assert rate["wsd", 90] == pytest.approx(2.0, rel=FORMULA)  # `steps - decay`
    assert rate["wsd", 91] == pytest.approx(2.0 * (0.1 + 0.9 * 19 / 20), rel=FORMULA)
    near = 0.2 + 0.9 * (1 - np.cos(np.pi / 100))
    assert rate["cosine", 109] == pytest.approx(near, abs=FORMULA)
    assert rate["wsd", 109] == pytest.approx(2.0 * (0.1 + 0.9 / 20), rel=FORMULA)
    assert rate["cosine", 110] == pytest.approx(0.2, abs=FORMULA)
    assert rate["wsd", 110] == pytest.approx(0.2, abs=FORMULA)


def test_hyper_takes_its_numbers_from_config_and_plan():
    c = config.resolve(config.base())
    plan = planning.plan(c, train_tokens=64 * 160, vocab_size=50)
    found = optim.hyper(c.optimizer, plan)
    expected = dict(
        lr=2e-3, weight_decay=0.1, warmup=100, decay=200, min_lr_ratio=0.1, steps=1000, ema_decay=0
    )
    assert found._asdict() == {k: np.float32(v) for k, v in expected.items()}


# --- AdamW --------------------------------------------------------------------------------------

C = config.Optimizer(grad_clip_norm=1.0, b1=0.9, b2=0.95, eps=1e-8)


@jax.jit
def step(params, state, gradient, lr, weight_decay):
    updates, state = optim.optimizer(C, lr, weight_decay).update(gradient, state, params)
    return jax.tree.map(jnp.add, params, updates), state


def start():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 4)), "scale": rng.normal(size=4)}
    params = jax.tree.map(jnp.float32, params)
    state = optim.optimizer(C, jnp.float32(0), jnp.float32(0)).init(params)
    gradients = [
        {
            "w": jnp.float32(s * rng.normal(size=(3, 4))),
            "scale": jnp.float32(s * rng.normal(size=4)),
        }
        for s in (0.05, 3.0, 0.1)  # the second is clipped
    ]
    return params, state, gradients


def test_adamw_is_the_textbook_one():
    params, state, gradients = start()
    value = {k: np.asarray(v, np.float64) for k, v in params.items()}
    m, v = ({k: np.zeros_like(x) for k, x in value.items()} for _ in range(2))
    clipped = []
    for t, gradient in enumerate(gradients, start=1):
        params, state = step(params, state, gradient, jnp.float32(0.01), jnp.float32(0.1))
        g = {k: np.asarray(x, np.float64) for k, x in gradient.items()}
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        clipped.append(bool(norm > 1))
        for k in value:
            x = g[k] * min(1.0, 1.0 / norm)
            m[k], v[k] = 0.9 * m[k] + 0.1 * x, 0.95 * v[k] + 0.05 * x**2
            adam = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.95**t)) + 1e-8)
            decay = 0.1 * value[k] if k == "w" else 0.0
            value[k] = value[k] - 0.01 * (adam + decay)
        for k in value:
            np.testing.assert_allclose(params[k], value[k], rtol=0, atol=UPDATES)
    assert clipped == [False, True, False]


def test_one_dimensional_parameters_do_not_decay():
    params, state, _ = start()
    zero = jax.tree.map(jnp.zeros_like, params)
    after, _ = step(params, state, zero, jnp.float32(0.5), jnp.float32(0.1))
    np.testing.assert_array_equal(after["scale"], params["scale"])
    np.testing.assert_allclose(after["w"], 0.95 * params["w"], rtol=FORMULA)


def test_rates_are_runtime_values_of_one_compiled_step():
    params, state, gradients = start()
    step.clear_cache()
    results = [
        step(params, state, gradients[0], jnp.float32(lr), jnp.float32(wd))[0]["w"]
        for lr, wd in ((0.1, 0.0), (0.2, 0.0), (0.1, 1.0))
    ]
    assert step._cache_size() == 1
    moved = [np.asarray(r - params["w"]) for r in results]
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=0, atol=UPDATES)
    np.testing.assert_allclose(moved[2], moved[0] - 0.1 * params["w"], rtol=0, atol=UPDATES)


def test_hyper_of_two_runs_shares_a_trace():
    traces = []

    @jax.jit
    def rate(i, h):
        traces.append(i)
        return optim.learning_rate("cosine", i, h)

    c = config.resolve(config.base())
    for lr, warmup in ((1e-3, "100 steps"), (2e-3, "5 steps")):
        optimizer = dataclasses.replace(c.optimizer, lr=lr, warmup=warmup)
        plan = planning.plan(
            dataclasses.replace(c, optimizer=optimizer), train_tokens=64 * 160, vocab_size=50
        )
        assert float(rate(jnp.int32(500), optim.hyper(optimizer, plan))) > 0
    assert len(traces) == 1


def test_the_average_of_weights_warms_up_then_decays_as_told():
    average = jax.jit(optim.average)
    old, new = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    early = average(old, new, jnp.int32(0), jnp.float32(0.99))
    late = average(old, new, jnp.int32(10**6), jnp.float32(0.99))
    np.testing.assert_allclose(early["w"], 0.9, rtol=FORMULA)  # decay 1/10 at first
    np.testing.assert_allclose(late["w"], 0.01, atol=FORMULA)
    same = average(new, new, jnp.int32(5), jnp.float32(0.99))
    np.testing.assert_array_equal(same["w"], new["w"])
