"""Held-out scores: standard errors, padding, common random numbers, any number of devices."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import tiny
from dlm import config
from dlm.data import windows as data
from dlm.errors import DlmError
from dlm.evaluation import score
from dlm.model import sharding, transformer
from tolerances import FLOAT64, NATS

VOCAB, L = 5, 6
MODEL = config.Model(layers=1, width=16, heads=2, ff=16, init_std=0.3)
WINDOWS = np.random.default_rng(0).integers(0, VOCAB, (19, L)).astype(np.int32)
NAMES = sorted(config.FAMILIES)


def settings(name: str, seed: int = 0) -> config.Config:
    return config.Config(
        model=MODEL,
        objective=tiny.objective(name, block=3),
        train=config.Train(seed=seed),
        data=config.Data(seq_len=L),
        evaluation=config.Evaluation(batch_size=8),
    )


@functools.cache
def parameters(name: str, seed: int = 0):
    init = jax.jit(transformer(MODEL, VOCAB + config.FAMILIES[name].extra_tokens).init)
    return jax.tree.map(np.asarray, init(jax.random.key(seed)))


def mesh(data: int, fsdp: int = 1, tensor: int = 1) -> jax.sharding.Mesh:
    axes, count = ("data", "fsdp", "tensor"), data * fsdp * tensor
    types = (AxisType.Auto,) * 3
    return jax.make_mesh(
        (data, fsdp, tensor), axes, axis_types=types, devices=jax.devices()[:count]
    )


def scores(name, *, where=(1, 1, 1), windows=WINDOWS, seed=0, init=0, passes=2):
    place = mesh(*where)
    params = parameters(name, init)
    params = jax.device_put(params, sharding.state_shardings(place, params))
    return score.score(settings(name, seed), VOCAB, params, windows, passes, place)


def estimate_of(nats, documents, kind="exact"):
    return score.estimate(nats, np.full(len(nats), L), documents, kind)


# --- standard errors ----------------------------------------------------------------------------


def test_one_window_a_document_gives_the_plain_standard_error():
    nats = np.random.default_rng(1).normal(10, 2, 50)
    found = estimate_of(nats, np.arange(50))
    assert found.value == pytest.approx(nats.mean() / L, rel=FLOAT64)
    assert found.stderr == pytest.approx(nats.std(ddof=1) / np.sqrt(50) / L, rel=FLOAT64)
    assert (found.kind, found.tokens) == ("exact", 50 * L)
    assert estimate_of(nats, np.arange(50), "upper bound").kind == "upper bound"


def test_windows_of_a_document_count_as_one_observation():
    rng = np.random.default_rng(2)
    documents = np.repeat(np.arange(100, 112), rng.integers(1, 6, 12))  # ids need not start at 0
    nats = rng.normal(10, 2, len(documents)) + 3 * rng.normal(size=12)[documents - 100]
    found = estimate_of(nats, documents)
    squares = 0.0
    for document in range(100, 112):
        squares += sum(x - nats.mean() for x in nats[documents == document]) ** 2
    direct = np.sqrt(squares * 12 / 11) / len(nats) / L
    assert found.stderr == pytest.approx(direct, rel=FLOAT64)
    plain = estimate_of(nats, np.arange(len(nats)))
    assert found.stderr > 1.2 * plain.stderr and found.value == plain.value
    copies = estimate_of(np.repeat(nats, 3), np.repeat(documents, 3))
    assert copies.stderr == pytest.approx(found.stderr, rel=FLOAT64)  # no news in a copy


def test_windows_of_one_document_are_taken_one_by_one():
    """One cluster says nothing of a spread: its residuals add up to zero."""
    nats = np.random.default_rng(3).normal(10, 2, 50)
    documents = data.window_documents(np.array([0, 50 * L]), L, 50)
    assert set(documents.tolist()) == {0}
    for one in (documents, documents + 7):
        found = estimate_of(nats, one)
        assert found.stderr == pytest.approx(nats.std(ddof=1) / np.sqrt(50) / L, rel=FLOAT64)
        assert (found.value, found.tokens) == (pytest.approx(nats.mean() / L, rel=FLOAT64), 50 * L)


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_no_score(name):
    """19 windows in batches of 8: the last is padded by 5."""
    whole = scores(name)
    assert whole.shape == (19,) and whole.dtype == np.float64 and np.all(whole > 0)
    for count in (3, 8, 17):
        np.testing.assert_array_equal(scores(name, windows=WINDOWS[:count]), whole[:count])


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_common_to_seeds_and_models(name):
    whole = scores(name)
    np.testing.assert_array_equal(scores(name, seed=3), whole)
    other = scores(name, init=1)
    assert np.all(other != whole)
    # nearly the same model: the same masks, so the difference is far below the noise
    near = jax.tree.map(lambda a, b: a + 0.01 * (b - a), parameters(name), parameters(name, 1))
    found = score.score(settings(name), VOCAB, near, WINDOWS, 2, mesh(1))
    assert np.std(found - whole) < 0.1 * np.std(whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", [(4, 1, 1), (8, 1, 1), (2, 2, 2)])
def test_any_number_of_devices_agrees(name, where):
    np.testing.assert_allclose(scores(name, where=where), scores(name), rtol=NATS)


# --- placement ----------------------------------------------------------------------------------


def test_parameters_are_split_as_the_table_says():
    place, params = mesh(2, 2, 2), parameters("ar") | {"step": np.int32(0)}
    placed = sharding.state_shardings(place, {"opt": {"mu": params}, "params": params})
    for part in (placed["opt"]["mu"], placed["params"]):  # the optimizer's state follows
        assert tuple(part["block_00"]["qkv"].spec) == ("fsdp", None, "tensor", None)
        assert tuple(part["block_00"]["down"].spec) == ("tensor", "fsdp")
        assert tuple(part["norm"].spec) == () and tuple(part["step"].spec) == ()


def test_a_mesh_that_does_not_fit_is_an_error_that_says_why():
    with pytest.raises(DlmError, match="must divide 2, an axis of block_00/out"):
        sharding.state_shardings(mesh(1, 1, 8), {"block_00": {"out": np.zeros((2, 8, 16))}})
    count = jax.device_count()
    with pytest.raises(DlmError, match=f"must come to {count}, the devices there are"):
        sharding.make_mesh(config.Config(mesh=config.Mesh(data=count + 1)))
    with pytest.raises(DlmError, match=f"batch_size={count + 1}: must be a multiple of {count}"):
        sharding.make_mesh(config.Config(train=config.Train(batch_size=count + 1)))
    with pytest.raises(DlmError, match=f"evaluation.batch_size={count + 1}: must be a multiple"):
        sharding.make_mesh(config.Config(evaluation=config.Evaluation(batch_size=count + 1)))
    shape = sharding.make_mesh(config.Config(mesh=config.Mesh(tensor=2))).shape
    assert dict(shape) == {"data": count // 2, "fsdp": 1, "tensor": 2}
