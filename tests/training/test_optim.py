"""Schedules by value, AdamW against NumPy, one compiled step for every rate."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from optax.contrib import MuonDimensionNumbers

from dlm import config
from dlm.config import flops, memory, planning
from dlm.model import sharding, transformer
from dlm.training import optimizer as optim
from tolerances import FORMULA, NATS, UPDATES, assert_close


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


# --- Muon ---------------------------------------------------------------------------------------

MUON = config.Optimizer(name="muon", grad_clip_norm=1e6)
WIDTH, HEADS, FF = 8, 2, 24
BLOCK = {
    "qkv": (WIDTH, 3, HEADS, WIDTH // HEADS),
    "out": (HEADS, WIDTH // HEADS, WIDTH),
    "gate_up": (WIDTH, 2, FF),
    "down": (FF, WIDTH),
    "time_mod": (WIDTH, 4, WIDTH),
    "ff_norm": (WIDTH,),
}
# All but the kernels of blocks: an objective's own parameters may have any name.
REST = {"embedding": (11, WIDTH), "norm": (WIDTH,), "down": (4, 4), "spans": {"out": (2, 2, 4)}}


@functools.cache
def gradient(layer: int):
    """Normal draws: the gradient of a model of one block."""
    rng = np.random.default_rng(layer)
    draw = lambda shape: jnp.float32(rng.normal(size=shape))  # noqa: E731
    shapes = {"block_00": BLOCK} | REST
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def update(slope):
    """Minus the first update at learning rate 1, without decay; and the state after it."""
    rule = optim.optimizer(MUON, jnp.float32(1), jnp.float32(0))
    change, state = rule.update(slope, rule.init(slope), slope)
    return jax.tree.map(jnp.negative, change), state


first_update = jax.jit(update)


def matrices(name: str, kernel) -> list[np.ndarray]:
    """The matrices that a block's kernel stands for, as the model multiplies by them."""
    x = np.asarray(kernel, np.float64)
    if name in ("out", "down"):
        return [x.reshape(-1, x.shape[-1])]
    return [x[:, part].reshape(len(x), -1) for part in range(x.shape[1])]


def orthogonalised(x: np.ndarray) -> np.ndarray:
    """Five steps s -> 3.4445 s - 4.775 s³ + 2.0315 s⁵ (Jordan 2024) of the singular values of X / |X|,
    which come near one; times 0.2 sqrt(max(rows, columns)) (Liu et al. 2025)."""
    u, s, v = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    large = s > 0.02
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    assert large.mean() > 0.7 and s[large].min() > 0.65 and s.max() < 1.25
    return 0.2 * max(x.shape) ** 0.5 * (u * s) @ v


def right(name: str, kernel, slope) -> bool:
    """Whether an update of a block's kernel is that of each of its matrices."""
    pairs = zip(matrices(name, kernel), matrices(name, slope), strict=True)
    return all(np.abs(x - orthogonalised(g)).max() < NATS * np.abs(x).max() for x, g in pairs)


@pytest.mark.parametrize("layer", [0, 1])
def test_muon_makes_each_matrix_of_a_kernel_orthogonal(layer):
    """q, k, v, gate, up and adaLN's four each."""
    change, _ = first_update(gradient(layer))
    for name in optim.KERNELS:
        assert right(name, change["block_00"][name], gradient(layer)["block_00"][name]), name


def test_stacked_layers_get_the_updates_of_layers_apart():
    blocks = [gradient(layer)["block_00"] for layer in range(2)]
    change, _ = first_update({"layers": jax.tree.map(lambda *x: jnp.stack(x), *blocks)})
    for layer in range(2):
        for name, x in first_update(gradient(layer))[0]["block_00"].items():
            assert_close(change["layers"][name][layer], x, NATS)


def test_momentum_is_split_over_devices_as_its_parameters_and_updates_see_whole_matrices():
    slope = gradient(0)
    expected, state = first_update(slope)
    mesh = jax.make_mesh((2, 2, 2), memory.Mesh._fields, axis_types=(AxisType.Auto,) * 3)
    placed = [sharding.state_shardings(mesh, tree) for tree in (slope, state)]
    of_kernels, of_state = (
        {jax.tree_util.keystr(path[-2:]): leaf.spec for path, leaf in jax.tree.leaves_with_path(x)}
        for x in (placed[0]["block_00"], placed[1])
    )
    for name, spec in of_kernels.items():
        assert of_state[f"['block_00']{name}"] == spec, name
    split = jax.jit(update, in_shardings=placed[:1], out_shardings=tuple(placed))
    jax.tree.map(lambda x, y: assert_close(x, y, NATS), split(slope)[0], expected)


@pytest.mark.parametrize("name", ["qkv", "out", "gate_up"])
def test_a_kernel_taken_for_another_matrix_is_caught(name, monkeypatch):
    """The planted fault: the first axis against all others, as a bare reshape would have it."""
    wrong = MuonDimensionNumbers(0, tuple(range(1, len(BLOCK[name]))))
    slope = gradient(0)["block_00"][name]
    planted = {"block_00": {name: slope}}
    monkeypatch.setitem(optim.KERNELS, name, wrong)
    change, _ = jax.jit(lambda slope: update(slope))(planted)
    assert not right(name, change["block_00"][name], slope)


def test_all_but_the_kernels_of_blocks_are_scaled_by_adam():
    """Adam's first step is the sign; the state has one moment of each kernel, two of the rest."""
    change, state = first_update(gradient(0))
    signs = jax.tree.map(jnp.sign, gradient(0))
    for name in REST:
        jax.tree.map(lambda x, sign: assert_close(x, sign, FORMULA), change[name], signs[name])
    assert_close(change["block_00"]["ff_norm"], signs["block_00"]["ff_norm"], FORMULA)
    kernels = sum(x.size for n, x in signs["block_00"].items() if n in optim.KERNELS)
    rest = sum(x.size for x in jax.tree.leaves(signs)) - kernels
    counts = 3 + 1 + 1  # Muon keeps its coefficients, both a count of steps
    assert sum(x.size for x in jax.tree.leaves(state)) == kernels + 2 * rest + counts


@pytest.mark.parametrize("c", [C, MUON], ids=["adamw", "muon"])
def test_both_decay_all_but_vectors(c):
    block = {"down": jnp.ones((3, 4)), "ff_norm": jnp.ones(4)}
    params = {"block_00": block, "embedding": jnp.ones((5, 4))}
    rule = optim.optimizer(c, jnp.float32(0.5), jnp.float32(0.1))
    zero = jax.tree.map(jnp.zeros_like, params)
    change, _ = jax.jit(rule.update)(zero, rule.init(params), params)
    for x in jax.tree.leaves(change):
        np.testing.assert_allclose(x, -0.05 if x.ndim > 1 else 0.0, rtol=FORMULA)


@pytest.mark.parametrize("scan", [False, True])
def test_muon_updates_every_kernel_in_the_blocks_of_the_model(scan):
    model = config.Model(
        layers=2, width=8, heads=2, ff=24, scan=scan, tied=False, time_conditioning="adaln"
    )
    params = jax.eval_shape(transformer(model, 11).init, jax.random.key(0))
    labels = jax.tree.leaves(optim._labels(params))
    by_muon = [
        (path[-1].key, x.size)
        for (path, x), label in zip(jax.tree.leaves_with_path(params), labels, strict=True)
        if label == "muon"
    ]
    block = params["layers"] if scan else params["block_00"]
    assert {name for name, _ in by_muon} == {n for n in block if not n.endswith("norm")}
    assert sum(size for _, size in by_muon) == sum(map(math.prod, memory.matrices(model)))


def test_flops_of_muon_by_hand():
    """Two matrices of 4 x 4 and one of 8 x 4: five times XX', AA and BX of each."""
    square = 2 * 4 * 4 * 4 + 2 * 4 * 4 * 4 + 2 * 4 * 4 * 4
    tall = 2 * 4 * 4 * 8 + 2 * 4 * 4 * 4 + 2 * 4 * 4 * 8
    assert flops.muon_flops([(2, 4, 4), (1, 8, 4)]) == 5 * (2 * square + tall)
