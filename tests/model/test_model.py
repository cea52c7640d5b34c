"""The transformer: its size, what each mask lets through, the cache, dropout, precision."""

from __future__ import annotations

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config
from dlm.config import flops
from dlm.errors import DlmError
from dlm.model import transformer
from tolerances import GRADIENTS, LOGITS, NATS, assert_close

ROWS, T = 7, 5
SMALL = config.Model(layers=2, width=16, heads=2, ff=24, init_std=0.3)
IDS = jnp.array([[0, 3, 1, 6, 2], [5, 5, 4, 0, 1]])


@functools.cache
def small(model: config.Model = SMALL):
    """(params, compiled apply) of a small model."""
    network = transformer(model, ROWS)
    params = jax.jit(network.init)(jax.random.key(0))
    return params, jax.jit(network.apply, static_argnames="mask")


@functools.cache
def masked_apply():
    """apply with an array as the mask."""
    network = transformer(SMALL, ROWS)
    return jax.jit(lambda params, x, mask, positions: network.apply(
        params, x, mask=mask, positions=positions
    ))  # fmt: skip


def shapes(model: config.Model, rows: int):
    return jax.eval_shape(transformer(model, rows).init, jax.random.key(0))


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("layers", "width", "heads", "ff", "rows"),
    [(1, 8, 2, 16, 5), (3, 16, 4, 24, 9), (2, 128, 4, 320, 66), (12, 768, 12, 2048, 50304)],
)
def test_parameters_are_counted_right(layers, width, heads, ff, rows, tied):
    model = config.Model(layers=layers, width=width, heads=heads, ff=ff, tied=tied)
    tree = shapes(model, rows)
    counted = flops.parameters(layers=layers, width=width, ff=ff, rows=rows, tied=tied)
    sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in tree.items()}
    assert sum(sizes.values()) == counted.total
    assert sizes["embedding"] + (0 if tied else sizes["head"]) == counted.embedding
    assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


# Table 5 of the paper: name -> parameters in millions, with the embedding of 50257 tokens.
TABLE_5 = {
    "7m": 7.0, "14m": 13.6, "20m": 19.5, "35m": 36.6, "44m": 50.7, "57m": 64.8, "74m": 80.5,
    "90m": 95.0, "106m": 109.6, "117m": 123.6, "140m": 144.8, "163m": 166.1, "175m": 179.2,
    "196m": 198.3, "217m": 217.5, "251m": 250.8, "278m": 275.7, "306m": 300.6, "425m": 416.9,
    "489m": 475.6, "509m": 495.9, "552m": 534.4, "587m": 566.7, "632m": 615.3, "664m": 637.6,
    "724m": 700.3, "816m": 785.2, "893m": 856.4, "1018m": 971.3, "1143m": 1086.3,
    "1266m": 1207.6, "1424m": 1353.6, "1429m": 1358.2, "1593m": 1508.9, "1609m": 1523.2,
    "1731m": 1644.9, "1794m": 1692.9, "2007m": 1899.8, "2283m": 2154.7, "2298m": 2165.3,
    "2639m": 2478.6, "2980m": 2791.9,
}  # fmt: skip


def test_the_ladder_is_table_5_of_the_paper():
    assert set(config.LADDER) == set(TABLE_5)
    for name, (layers, width, _, ff) in config.LADDER.items():
        count = flops.paper_parameters(layers=layers, width=width, ff=ff)
        assert abs(count / 1e6 - TABLE_5[name]) <= 0.0501, name
        ours = flops.parameters(layers=layers, width=width, ff=ff, rows=50257, tied=True)
        assert 0 < count - ours.total < 1e-3 * count, name  # the paper counts norms thrice


def test_forward_flops_are_those_xla_counts():
    model = config.Model(layers=2, width=128, heads=2, ff=320)
    sizes = dict(layers=2, width=128, ff=320, rows=200)
    for length, loops in ((32, 1), (128, 1), (32, 3)):
        network = transformer(dataclasses.replace(model, loops=loops), 200)
        ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
        apply = jax.jit(functools.partial(network.apply, mask="full"))
        counted = apply.lower(shapes(model, 200), ids).cost_analysis()["flops"]
        ours = flops.forward_flops(**sizes, length=length, attention="full", loops=loops)
        assert 0.95 < ours / counted <= 1.0, (ours, counted, loops)


def test_attention_flops_are_four_width_a_pair_that_the_mask_allows():
    sizes = dict(layers=3, width=64, ff=128, rows=10, length=16)
    full, causal = (flops.forward_flops(**sizes, attention=a) for a in ("full", "causal"))
    pairs = {"full": np.ones((16, 16)), "causal": np.tri(16)}
    assert full - causal == 3 * 4 * 64 * (pairs["full"].sum() - pairs["causal"].sum())
    assert flops.training_flops(**sizes, attention="full") == 3 * full


def test_initial_deviations_are_those_of_the_paper():
    model = config.Model(layers=4, width=64, heads=4, ff=192, tied=False)
    init = jax.jit(transformer(model, 300).init)
    params = init(jax.random.key(0))
    small = 0.02 / np.sqrt(2 * 4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/").rsplit("/")[-1]
        if name.endswith("norm"):
            np.testing.assert_array_equal(leaf, 1)
            continue
        expected = small if name in ("out", "down") else 0.02
        error = expected / np.sqrt(2 * leaf.size)
        assert abs(float(jnp.std(leaf)) - expected) < 5 * error, name
        assert abs(float(jnp.mean(leaf))) < 5 * expected / np.sqrt(leaf.size), name
    weights = [np.ravel(x)[:64].tolist() for x in jax.tree.leaves(params) if x.ndim > 1]
    assert len({tuple(w) for w in weights}) == len(weights)  # no two drawn alike
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool(jnp.all(a == b)), params, init(jax.random.key(0)))
    )
    assert not jnp.any(init(jax.random.key(1))["embedding"] == params["embedding"])


def test_parameters_are_plain_nested_dicts():
    params = small()[0]
    assert type(params) is dict and type(params["block_01"]) is dict
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(params))
    assert sorted(params) == ["block_00", "block_01", "embedding", "norm"]


# --- masks --------------------------------------------------------------------------------------

BLOCKS = np.kron(np.eye(2, dtype=bool), np.ones((3, 3), bool))[:T, :T]
STRICT = np.tri(T, k=-1, dtype=bool) | np.eye(1, T, dtype=bool)[0]  # not oneself, save the first
MASKS = {
    "causal": np.tri(T, dtype=bool),
    "full": np.ones((T, T), bool),
    "blocks": BLOCKS,
    "anticausal": np.tri(T, dtype=bool).T,
    "strict": STRICT,
}


@functools.cache
def dependence():
    """mask -> which outputs depend on which float inputs, by the Jacobian, Bool[T, T]."""
    network, vectors = transformer(SMALL, ROWS), small()[0]["embedding"][IDS[:1]]

    @jax.jit
    def jacobian(mask):
        logits = lambda x: network.apply(small()[0], x, mask=mask)[0]  # noqa: E731
        return jnp.abs(jax.jacobian(logits)(vectors)[:, :, 0]).sum(axis=(1, 3))

    return jacobian


@pytest.mark.parametrize("name", MASKS)
def test_nothing_leaks_through_a_mask(name):
    """Exactly zero outside what two layers of the mask and the residual stream reach."""
    mask = MASKS[name]
    step = (mask | np.eye(T, dtype=bool)).astype(int)
    reach = step @ step > 0
    found = np.asarray(dependence()(jnp.asarray(mask)))
    np.testing.assert_array_equal(found != 0, reach)
    assert found[reach].min() > 1e-6


@pytest.mark.parametrize("name", ["causal", "full"])
def test_a_named_mask_is_its_array(name):
    params, apply = small()
    named = apply(params, IDS, mask=name)
    mask = jnp.asarray(MASKS[name])
    for array in (mask, jnp.broadcast_to(mask, (2, T, T))):
        again = masked_apply()(params, IDS, array, jnp.arange(T))
        assert_close(again, named, LOGITS)
    network, vectors = transformer(SMALL, ROWS), params["embedding"][IDS[:1]]
    logits = lambda x: network.apply(params, x, mask=name)[0]  # noqa: E731
    found = jax.jit(jax.jacobian(logits))(vectors)[:, :, 0]
    np.testing.assert_array_equal(np.abs(found).sum(axis=(1, 3)) != 0, MASKS[name])


@pytest.mark.parametrize("length", [256, 300, 1100])
def test_a_causal_mask_in_blocks_is_its_array(length):
    """Every logit and every gradient, in blocks of one length or of two."""
    network = transformer(SMALL, ROWS)
    ids = jax.random.randint(jax.random.key(1), (1, length), 0, ROWS)

    @functools.partial(jax.jit, static_argnums=1)
    def found(params, named):
        mask = "causal" if named else jnp.tri(length, dtype=bool)

        def loss(params):
            logits = network.apply(params, ids, mask=mask)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, has_aux=True)(params)

    named, array = found(small()[0], True), found(small()[0], False)
    assert_close(named[1], array[1], LOGITS)
    jax.tree.map(lambda a, b: assert_close(a, b, GRADIENTS), named[0], array[0])


def test_each_sequence_has_its_own_mask_and_no_other_sequence_is_seen():
    params = small()[0]
    two = jnp.asarray(np.stack([MASKS["causal"], MASKS["full"]]))
    both = masked_apply()(params, IDS, two, jnp.arange(T))
    for row, name in enumerate(("causal", "full")):
        alone = small()[1](params, IDS, mask=name)[row]
        assert_close(both[row], alone, LOGITS)
    other = masked_apply()(params, IDS.at[1].set(0), two, jnp.arange(T))
    np.testing.assert_array_equal(other[0], both[0])


# --- inputs, positions, cache -------------------------------------------------------------------


def test_vectors_in_place_of_ids():
    params, apply = small()
    by_id = apply(params, IDS, mask="causal")
    assert_close(apply(params, params["embedding"][IDS], mask="causal"), by_id, LOGITS)
    assert by_id.shape == (2, T, ROWS) and by_id.dtype == jnp.float32


def test_rotary_positions_are_relative():
    params, full = small()[0], jnp.ones((T, T), bool)
    plain = masked_apply()(params, IDS, full, jnp.arange(T))
    moved = masked_apply()(params, IDS, full, jnp.arange(T) + 37)
    assert_close(moved, plain, LOGITS)
    swapped = jnp.array([1, 0, 2, 3, 4])  # positions travel with their tokens
    permuted = masked_apply()(params, IDS[:, swapped], full, swapped)
    assert_close(permuted[:, swapped], plain, LOGITS)
    stretched = masked_apply()(params, IDS, full, 2 * jnp.arange(T))
    assert np.abs(stretched - plain).max() > 0.01
    still = masked_apply()(params, IDS, full, jnp.zeros(T, jnp.int32))
    assert np.abs(still - plain).max() > 0.01


@pytest.mark.parametrize(("given", "loops"), [(1, 1), (3, 1), (3, 2)])
def test_a_cache_changes_nothing(given, loops):
    """A prompt of `given` tokens in one call, then token by token."""
    model = dataclasses.replace(SMALL, loops=loops)
    params, apply = small(model)
    network = transformer(model, ROWS)
    assert len(network.cache(2, T)) == model.layers * loops
    whole = apply(params, IDS, mask="causal")

    @jax.jit
    def step(ids, positions, cache):
        mask = jnp.tri(T, dtype=bool)[positions]
        return network.apply(params, ids, mask=mask, positions=positions, cache=cache)

    logits, cache = step(IDS[:, :given], jnp.arange(given), network.cache(2, T))
    parts = [logits]
    for position in range(given, T):
        logits, cache = step(IDS[:, position : position + 1], jnp.array([position]), cache)
        parts.append(logits)
    assert_close(jnp.concatenate(parts, axis=1), whole, LOGITS)


def test_cudnn_without_a_gpu_is_refused_before_anything_is_computed(monkeypatch):
    model = dataclasses.replace(SMALL, attention="cudnn", dtype="bfloat16")
    make = transformer.__wrapped__  # not the cached one
    for backend in ("cpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        with pytest.raises(DlmError) as error:
            make(model, ROWS)
        told = str(error.value)
        assert told.startswith("config.model.attention='cudnn': must be xla: cudnn needs a GPU")
        assert f"JAX runs on {backend} here" in told and "\n" not in told
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert callable(make(model, ROWS).apply)


@pytest.mark.parametrize("queries, keys", [(5, 5), (6, 6), (1, 5), (2, 5)])
@pytest.mark.parametrize("mask", ["full", "causal", "array", "arrays"])
def test_fused_attention_of_odd_lengths_is_the_written_out_one(mask, queries, keys):
    """cuDNN's way with XLA in its place: each value and gradient, with a position more or without."""
    if mask == "causal" and queries != keys:
        pytest.skip("a causal mask by name has as many queries as keys")
    module = importlib.import_module("dlm.model.transformer")
    drawn = jax.random.split(jax.random.key(2), 4)
    shapes = [(2, length, 2, 8) for length in (queries, keys, keys, queries)]
    *parts, slope = (jax.random.normal(*each) for each in zip(drawn, shapes, strict=True))
    one = jnp.tri(queries, keys, keys - queries, dtype=bool)
    array = {"array": one, "arrays": jnp.stack([one, one | True])}.get(mask, mask)

    def fused(q, k, v):
        return module._fused(q, k, v, array, implementation="xla")

    def written(q, k, v):
        return module._attention(q, k, v, array, SMALL, None)

    values = [jax.vjp(way, *parts) for way in (fused, written)]
    assert_close(values[0][0], values[1][0], LOGITS)
    for a, b in zip(*(back(slope) for _, back in values), strict=True):
        assert_close(a, b, GRADIENTS)


# --- dropout and precision ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["embedding", "residual", "attention"])
def test_dropout_is_on_with_a_key_and_off_without(kind):
    model = dataclasses.replace(SMALL, layers=1, dropout=config.Dropout(**{kind: 0.5}))
    network = transformer(model, ROWS)
    params = jax.jit(network.init)(jax.random.key(0))
    apply = jax.jit(lambda key: network.apply(params, IDS, mask="full", key=key))
    off, on, again, other = (apply(key) for key in (None, *map(jax.random.key, (1, 1, 2))))
    plain = transformer(dataclasses.replace(SMALL, layers=1), ROWS)
    none = jax.jit(lambda key: plain.apply(params, IDS, mask="full", key=key))
    assert_close(off, none(None), LOGITS)
    assert_close(off, none(jax.random.key(1)), LOGITS)  # a key, all rates 0
    np.testing.assert_array_equal(on, again)
    assert np.abs(on - off).max() > 1e-3 and np.abs(on - other).max() > 1e-3
    assert np.all(np.isfinite(on))


def test_bfloat16_computes_in_bfloat16_and_returns_float32():
    model = dataclasses.replace(SMALL, dtype="bfloat16")
    params, apply = small(model)
    half, full = apply(params, IDS, mask="causal"), small()[1](small()[0], IDS, mask="causal")
    assert half.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert jax.tree.leaves(transformer(model, ROWS).cache(1, 4))[0].dtype == jnp.bfloat16
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-5 < error < 0.05


# --- layers in a loop, and what the backward pass computes again -----------------------------------


@functools.cache
def gradients(model: config.Model):
    """Of a loss with dropout: its value and its gradients, layer by layer, of three layers."""
    network = transformer(model, 9)
    tokens = jax.random.randint(jax.random.key(1), (2, 6), 0, 9)

    def loss(params):
        logits = network.apply(params, tokens, mask="causal", key=jax.random.key(2))
        return jnp.mean(logits**2)

    value, found = jax.jit(jax.value_and_grad(loss))(jax.jit(network.init)(jax.random.key(0)))
    found = jax.tree.map(np.asarray, found)
    if "layers" in found:
        layers = found.pop("layers")
        found |= {f"block_{i:02d}": jax.tree.map(lambda x, i=i: x[i], layers) for i in range(3)}
    return value, found


@pytest.mark.parametrize(
    "change",
    [dict(scan=True), dict(remat="block"), dict(remat="dots"), dict(scan=True, remat="block")],
)
def test_scan_and_remat_change_no_logit_and_no_gradient(change) -> None:
    plain = config.Model(
        layers=3,
        width=16,
        heads=2,
        ff=32,
        time_conditioning="adaln",
        dropout=config.Dropout(residual=0.2),
    )
    expected, found = gradients(plain), gradients(dataclasses.replace(plain, **change))
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=NATS)
    for a, b in zip(jax.tree.leaves(expected[1]), jax.tree.leaves(found[1]), strict=True):
        assert_close(b, a, GRADIENTS)
    assert jax.tree.structure(expected[1]) == jax.tree.structure(found[1])


@pytest.mark.parametrize("loops", [1, 2])
def test_a_scanned_model_reads_its_cache_like_any_other(loops) -> None:
    model = config.Model(layers=2, width=16, heads=2, ff=32, scan=True, loops=loops)
    network = transformer(model, 9)
    params = jax.jit(network.init)(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 5), 0, 9)

    @jax.jit
    def both(params):
        places = dict(positions=jnp.arange(5), cache=network.cache(2, 5))
        cached, _ = network.apply(params, tokens, mask=jnp.tri(5, dtype=bool), **places)
        return network.apply(params, tokens, mask="causal"), cached

    whole, cached = both(params)
    assert_close(cached, whole, LOGITS)


# --- looped depth -------------------------------------------------------------------------------

LOOPED = config.Model(
    layers=2,
    width=16,
    heads=2,
    ff=24,
    loops=2,
    init_std=0.3,
    time_conditioning="adaln",
    dropout=config.Dropout(embedding=0.1, residual=0.2),
)
DEEP = dataclasses.replace(LOOPED, layers=4, loops=1)


@functools.cache
def slopes(model: config.Model):
    """params -> (logits with dropout on, gradient of a loss), compiled."""
    network = transformer(model, ROWS)

    def loss(params):
        logits = network.apply(params, IDS, mask="causal", key=jax.random.key(2))
        return jnp.sum(jnp.sin(logits)), logits

    def logits_first(params):
        slope, logits = jax.grad(loss, has_aux=True)(params)
        return logits, slope

    return jax.jit(logits_first)


@functools.cache
def unrolled():
    """The parameters of LOOPED, and logits and gradient of DEEP with each block's weights twice.

    The gradients of the two blocks that hold the same weights are added.
    """
    params = jax.jit(transformer(LOOPED, ROWS).init)(jax.random.key(0))
    params |= {
        f"block_{i:02d}": params[f"block_{i:02d}"] | {"time_mod": jnp.full((16, 4, 16), 0.1 + i)}
        for i in range(2)
    }
    twice = {f"block_{i + 2:02d}": params[f"block_{i:02d}"] for i in range(2)}
    logits, slope = slopes(DEEP)(params | twice)
    for i in range(2):
        again = slope.pop(f"block_{i + 2:02d}")
        slope[f"block_{i:02d}"] = jax.tree.map(jnp.add, slope[f"block_{i:02d}"], again)
    return params, logits, slope


@pytest.mark.parametrize("change", [{}, dict(scan=True, remat="block")], ids=["plain", "scan"])
def test_two_loops_are_a_model_of_twice_the_layers_with_the_same_weights_twice(change):
    """Logits and gradients, with dropout: its keys differ between the loops as between layers."""
    params, logits, slope = unrolled()
    blocks = ("block_00", "block_01")
    stack = lambda x, y: jnp.stack([x, y])  # noqa: E731
    if change:
        params, slope = (
            {name: part for name, part in tree.items() if name not in blocks}
            | {"layers": jax.tree.map(stack, *(tree[name] for name in blocks))}
            for tree in (params, slope)
        )
    looped_logits, looped_slope = slopes(dataclasses.replace(LOOPED, **change))(params)
    assert_close(looped_logits, logits, LOGITS)
    assert jax.tree.structure(looped_slope) == jax.tree.structure(slope)
    for a, b in zip(jax.tree.leaves(looped_slope), jax.tree.leaves(slope), strict=True):
        assert_close(a, b, GRADIENTS)


def test_loops_add_no_parameter_and_start_output_projections_smaller():
    once, thrice = (
        jax.eval_shape(transformer(model, ROWS).init, jax.random.key(0))
        for model in (SMALL, dataclasses.replace(SMALL, loops=3))
    )
    assert jax.tree.structure(once) == jax.tree.structure(thrice)
    params, _ = small()
    looped = small(dataclasses.replace(SMALL, loops=2))[0]
    for name, part in params["block_00"].items():
        smaller = 2 if name in ("out", "down") else 1
        assert_close(smaller * looped["block_00"][name], part, LOGITS)


def test_flops_of_loops_by_hand():
    """Two loops of three layers: all but the logits counts twice."""
    sizes = dict(layers=3, width=8, ff=16, rows=10, length=5)
    layer = 2 * 5 * (4 * 8**2 + 3 * 8 * 16) + 4 * 8 * 15  # 15 pairs of query and key
    logits = 2 * 5 * 8 * 10
    assert flops.forward_flops(**sizes, attention="causal") == 3 * layer + logits
    assert flops.forward_flops(**sizes, attention="causal", loops=2) == 6 * layer + logits


def test_norms_of_stacked_layers_are_not_decayed() -> None:
    from dlm.training import optimizer

    for scan in (False, True):
        model = config.Model(layers=2, width=16, heads=2, ff=32, scan=scan)
        params = jax.jit(transformer(model, 9).init)(jax.random.key(0))

        @jax.jit
        def change_of(params):
            update = optimizer.optimizer(config.Optimizer(), jnp.float32(1.0), jnp.float32(0.5))
            zeros = jax.tree.map(jnp.zeros_like, params)
            return update.update(zeros, update.init(params), params)[0]

        change = change_of(params)
        for path, leaf in jax.tree.leaves_with_path(change):
            assert bool(jnp.any(leaf != 0)) != ("norm" in jax.tree_util.keystr(path)), path
