"""One transformer for every objective: pre-norm RMSNorm, RoPE, SwiGLU, no biases (the Llama shape).

The attention mask, the positions and the kind of input (ids or vectors) are arguments, so a family
of models is a way of calling `apply`. Parameters are plain nested dicts; Flax NNX writes the module
and is split off here, in the only file that imports it.

Shapes: B batch, T input positions, S key positions, D width, H heads, K head size, F feed-forward,
R rows of the embedding (vocabulary and extra tokens).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dlm import config, errors
from dlm.model.keys import RowKeys, row_keys

Params = dict[str, Any]
Cache = tuple[tuple[Array, Array], ...]
Mask = str | Bool[Array, "T S"] | Bool[Array, "B T S"]

NORM_EPS = 1e-5  # paper, section 9
TIME_FEATURES = 64


class Transformer(NamedTuple):
    """`init(key) -> params`; `apply(params, inputs, ...)`; `cache(batch, length)`, empty."""

    init: Callable[[PRNGKeyArray], Params]
    apply: Callable[..., Any]
    cache: Callable[[int, int], Cache]


@functools.lru_cache(maxsize=64)
def transformer(model: config.Model, rows: int) -> Transformer:
    """The transformer of a config with `rows` embedding rows, as pure functions.

    `apply(params, inputs, *, mask, positions=None, queries=None, time=None, key=None, cache=None,
           hidden=False)`:
      inputs     Int[B T] ids, or Float[B T D] vectors in place of their embeddings
      mask       "causal", "full", or True where a query may see a key, Bool[T S] or Bool[B T S]
      positions  Int[T] or Int[B T] for rotary embedding; 0..T-1 if absent
      queries    Int[B T] positions that queries ask from, where they are not their inputs'
      time       Float[B] in [0, 1], read by models with model.time_conditioning="adaln" and by no other
      hidden     the last Float[B T D] in place of logits
      key        switches dropout on; of the batch, or the `keys.RowKeys` of its rows
      cache      keys and values of S positions, of each block in each loop, written at `positions`
                 (consecutive); then `apply` returns (logits, cache) and `mask` is over all S
    Returns float32 logits Float[B T R].

    Raises:
      DlmError: attention by cuDNN, and no GPU here.
    """
    if model.attention == "cudnn" and jax.default_backend() != "gpu":
        right = f"xla: cudnn needs a GPU, and JAX runs on {jax.default_backend()} here"
        errors.fail("model.attention", model.attention, right)
    whole = nnx.eval_shape(lambda: _Transformer(model, rows, nnx.Rngs(0)))
    graph = nnx.graphdef(whole)
    names = [f"block_{layer:02d}" for layer in range(model.layers)]

    def init(key: PRNGKeyArray) -> Params:
        params = nnx.to_pure_dict(nnx.state(_Transformer(model, rows, nnx.Rngs(params=key))))
        if model.scan:
            layers = [params.pop(name) for name in names]
            params["layers"] = jax.tree.map(lambda *x: jnp.stack(x), *layers)
        return params

    def apply(
        params: Params,
        inputs: Int[Array, "B T"] | Float[Array, "B T D"],
        *,
        mask: Mask,
        positions: Int[Array, "*B T"] | None = None,
        queries: Int[Array, "*B T"] | None = None,
        time: Float[Array, " B"] | None = None,
        key: PRNGKeyArray | RowKeys | None = None,
        cache: Cache | None = None,
        hidden: bool = False,
    ) -> Any:
        layers = params.get("layers")
        if layers is not None:
            parts = [jax.tree.map(lambda x, i=i: x[i], layers) for i in range(model.layers)]
            params = params | dict(zip(names, parts, strict=True))
            del params["layers"]
        layers = layers if cache is None else None  # with a cache, one after another
        run = nnx.merge(graph, params)
        return run(inputs, mask, positions, queries, time, key, cache, hidden, layers)

    def cache(batch: int, length: int) -> Cache:
        shape = (batch, length, model.heads, model.width // model.heads)
        empty = jnp.zeros(shape, model.dtype)
        return tuple((empty, empty) for _ in range(model.layers * model.loops))

    return Transformer(init, apply, cache)


class _Transformer(nnx.Module):
    def __init__(self, c: config.Model, rows: int, rngs: nnx.Rngs):
        self.c = c
        self.embedding = _normal(rngs, (rows, c.width), c.init_std)
        for layer in range(c.layers):
            setattr(self, f"block_{layer:02d}", _Block(c, rngs))
        self.norm = nnx.Param(jnp.ones(c.width))
        if c.time_conditioning == "adaln":
            self.time_in = _normal(rngs, (TIME_FEATURES, c.width), TIME_FEATURES**-0.5)
            self.time_out = nnx.Param(jnp.zeros((c.width, 2, c.width)))
        if not c.tied:
            self.head = _normal(rngs, (rows, c.width), c.init_std)

    def __call__(self, inputs, mask, positions, queries, time, key, cache, hidden, layers):
        c = self.c
        table = self.embedding[...]
        x = (table[inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs).astype(c.dtype)
        if positions is None:
            positions = jnp.arange(x.shape[1])
        rotate = functools.partial(_rotation, head=c.width // c.heads, theta=c.rope_theta)
        rotation = rotate(positions)
        asking = rotation if queries is None else rotate(queries)
        condition = None
        if c.time_conditioning == "adaln":
            time = jnp.zeros(x.shape[0]) if time is None else time
            condition = jax.nn.silu(_time_features(time) @ self.time_in[...]).astype(c.dtype)
        drops = None
        if key is not None and c.dropout != config.Dropout():
            drops = row_keys(key, len(x))
            x = _dropout(x, c.dropout.embedding, drops.fold_in(c.layers * c.loops))
        written = []
        blocks = [getattr(self, f"block_{i:02d}") for i in range(c.layers)] * c.loops
        if layers is not None:
            graph = nnx.graphdef(blocks[0])

            def body(x, layer):
                number, weights = layer
                run, drop = nnx.merge(graph, weights), drops and drops.fold_in(number)
                return run(x, mask, (asking, rotation), condition, drop)[0], None

            for start in range(0, len(blocks), c.layers):  # the first block of each loop
                numbers = jnp.arange(start, start + c.layers)
                x, _ = jax.lax.scan(_remat(body, c.remat), x, (numbers, layers))
            blocks = []
        for i, block in enumerate(blocks):
            drop = drops and drops.fold_in(i)
            if cache is None:

                def forward(x, block=block, drop=drop):
                    return block(x, mask, (asking, rotation), condition, drop)[0]

                x = _remat(forward, c.remat)(x)
            else:
                past = (*cache[i], positions[0])
                x, present = block(x, mask, (asking, rotation), condition, drop, past)
                written.append(present)
        x = _rms_norm(x, self.norm[...])
        if condition is not None:
            x = _shifted(x, _project(condition[:, None], self.time_out[...]))
        if hidden:
            return x.astype(jnp.float32)
        head = table if c.tied else self.head[...]
        logits = jnp.einsum(
            "ND,RD->NR",
            *(x.reshape(-1, c.width), head.astype(c.dtype)),
            preferred_element_type=jnp.float32,
        ).reshape(*x.shape[:2], -1)
        return logits if cache is None else (logits, tuple(written))


class _Block(nnx.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)).

    Output projections start at 1/(loops·sqrt(2·layers)) of the deviation of the others: what layers
    of their own weights add up grows with the root of their number, what the same weights add in
    each loop grows with the number of loops (arXiv 2606.18524).
    """

    def __init__(self, c: config.Model, rngs: nnx.Rngs):
        self.c = c
        heads, head = c.heads, c.width // c.heads
        small = c.init_std * (2 * c.layers) ** -0.5 / c.loops
        self.attention_norm = nnx.Param(jnp.ones(c.width))
        self.qkv = _normal(rngs, (c.width, 3, heads, head), c.init_std)
        self.out = _normal(rngs, (heads, head, c.width), small)
        self.ff_norm = nnx.Param(jnp.ones(c.width))
        self.gate_up = _normal(rngs, (c.width, 2, c.ff), c.init_std)
        self.down = _normal(rngs, (c.ff, c.width), small)
        if (
            c.time_conditioning == "adaln"
        ):  # scale and shift of both norms; zeros: the model without time
            self.time_mod = nnx.Param(jnp.zeros((c.width, 4, c.width)))

    def __call__(self, x, mask, rotations, condition, drop: RowKeys | None = None, past=None):
        c = self.c
        drops = drop.split(4) if drop else [None] * 4
        normed = _rms_norm(x, self.attention_norm[...])
        if condition is not None:
            changes = _project(condition[:, None], self.time_mod[...])
            normed = _shifted(normed, changes[:, :, :2])
        q, k, v = _parts(_project(normed, self.qkv[...]))
        q, k = (_rotate(x, rotation) for x, rotation in zip((q, k), rotations, strict=True))
        if past is not None:
            k = jax.lax.dynamic_update_slice_in_dim(past[0], k, past[2], axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(past[1], v, past[2], axis=1)
        mixed = _attention(q, k, v, mask, c, drops[0])
        out = self.out[...].reshape(-1, c.width)
        mixed = _project(mixed.reshape(*x.shape[:2], -1), out)
        x = x + _dropout(mixed, c.dropout.residual, drops[1])
        normed = _rms_norm(x, self.ff_norm[...])
        if condition is not None:
            normed = _shifted(normed, changes[:, :, 2:])
        gate, up = _parts(_project(normed, self.gate_up[...]))
        hidden = jax.nn.silu(gate) * up
        hidden = _dropout(hidden, c.dropout.mlp, drops[2])
        x = x + _dropout(_project(hidden, self.down[...]), c.dropout.residual, drops[3])
        return x, (k, v)


def _attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    mask: Mask,
    c: config.Model,
    drop: RowKeys | None,
) -> Float[Array, "B T H K"]:
    """Scaled dot-product attention; the one place where it is computed.

    By cuDNN if the config asks for it; elsewhere written out, heads first and divided by
    the sum of weights at the end, which is faster on a CPU (BUILD_NOTES) and lets dropout act on the
    weights.
    """
    dropping = drop is not None and c.dropout.attention > 0
    if c.attention == "cudnn" and not dropping:
        return _fused(q, k, v, mask)
    q, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, v))
    mix = functools.partial(_mixed, rate=c.dropout.attention)
    if not isinstance(mask, str):
        mixed = mix(q, k, v, mask if mask.ndim == 2 else mask[:, None], drop)
    elif mask == "full":
        mixed = mix(q, k, v, None, drop)
    else:
        mixed = []
        for start, end in _blocks(q.shape[2]):
            earlier = jnp.tri(end - start, end, start, dtype=bool)
            own = drop and drop.fold_in(start)
            mixed.append(mix(q[:, :, start:end], k[:, :end], v[:, :, :end], earlier, own))
        mixed = jnp.concatenate(mixed, axis=2)
    return mixed.swapaxes(1, 2)


def _fused(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    mask: Mask,
    implementation: str = "cudnn",
) -> Float[Array, "B T H K"]:
    """Attention by `jax.nn.dot_product_attention`.

    JAX trains with cuDNN on even lengths only, and BOS makes most lengths odd. So an odd length gets
    one more position at the end, which no query before it sees.
    """
    length, keys = q.shape[1], k.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    allowed, lengths = None, None
    if not isinstance(mask, str):
        allowed = jnp.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(0, length % 2), (0, keys % 2)])
        allowed = allowed[None, None] if mask.ndim == 2 else allowed[:, None]
    elif mask == "full" and keys % 2:
        lengths = jnp.full(len(k), keys, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=allowed,
        is_causal=isinstance(mask, str) and mask == "causal",
        key_value_seq_lengths=lengths,
        implementation=implementation,  # pyright: ignore (one of its literals)
    )
    return mixed[:, :length]


def _blocks(length: int) -> list[tuple[int, int]]:
    """Starts and ends of up to 8 blocks of 128 queries or more; each sees the keys before its end.

    Of eight, a causal mask leaves 9/16 of the scores to be computed and kept (BUILD_NOTES).
    """
    count = min(max(length // 128, 1), 8)
    ends = [length * (i + 1) // count for i in range(count)]
    return list(zip([0, *ends], ends, strict=False))


def _mixed(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B H S K"],
    allowed: Bool[Array, "*B T S"] | None,
    drop: RowKeys | None,
    *,
    rate: float,
) -> Float[Array, "B H T K"]:
    """Values under softmax(q k') where allowed."""
    scores = _scores(q, k).astype(jnp.float32)
    if allowed is not None:
        scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = _dropout(weights, rate, drop).astype(v.dtype)
    return (jnp.einsum("BHTS,BHSK->BHTK", weights, v) / total).astype(v.dtype)


def _remat(function: Callable, kept: str) -> Callable:
    """`function`, whose backward pass computes anew: nothing, all but matrix products, or all."""
    if kept == "none":
        return function
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(function, policy=dots if kept == "dots" else None)


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], deviation: float) -> nnx.Param:
    return nnx.Param(deviation * jax.random.normal(rngs.params(), shape))


def _project(x: Float[Array, "B T D"], kernel: Array) -> Array:
    """x @ kernel over D as one product of two matrices, whatever the kernel's output axes.

    On a CPU the products of a backward pass over B and T apart take twice the time (BUILD_NOTES).
    """
    flat = kernel.astype(x.dtype).reshape(kernel.shape[0], -1)
    return (x.reshape(-1, x.shape[-1]) @ flat).reshape(*x.shape[:2], *kernel.shape[1:])


@jax.custom_vjp
def _parts(x: Float[Array, "B T P *S"]) -> tuple[Float[Array, "B T *S"], ...]:
    """x[:, :, 0], x[:, :, 1], ...; their gradients are stacked, not padded and added (BUILD_NOTES)."""
    return tuple(x[:, :, i] for i in range(x.shape[2]))


_parts.defvjp(lambda x: (_parts(x), None), lambda _, parts: (jnp.stack(parts, axis=2),))


@jax.custom_vjp
def _scores(q: Float[Array, "B H T K"], k: Float[Array, "B S H K"]) -> Float[Array, "B H T S"]:
    """q k', whose gradient for k is taken as K x S, at twice the speed on a CPU (BUILD_NOTES)."""
    return jnp.einsum("BHTK,BSHK->BHTS", q, k)


def _scores_backward(saved: tuple[Array, Array], slope: Float[Array, "B H T S"]):
    q, k = saved
    of_k = jnp.einsum("BHTK,BHTS->BHKS", q, slope)
    of_k = jax.lax.optimization_barrier(of_k)  # or XLA would turn the product around
    return jnp.einsum("BHTS,BSHK->BHTK", slope, k), of_k.transpose(0, 3, 1, 2)


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_backward)


def _rms_norm(x: Float[Array, "B T D"], scale: Float[Array, " D"]) -> Float[Array, "B T D"]:
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + NORM_EPS)
    return (wide * scale).astype(x.dtype)


def _time_features(time: Float[Array, " B"]) -> Float[Array, "B F"]:
    """Sines and cosines of 1000 t at geometric frequencies (Vaswani et al. 2017)."""
    half = TIME_FEATURES // 2
    frequency = 1e4 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = 1e3 * time[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _shifted(x: Float[Array, "B T D"], change: Float[Array, "B 1 2 D"]) -> Float[Array, "B T D"]:
    """adaLN (Peebles and Xie 2023): x (1 + scale) + shift."""
    return x * (1 + change[:, :, 0]) + change[:, :, 1]


def _rotation(positions: Int[Array, "*B T"], head: int, theta: float) -> tuple[Array, Array]:
    """cos and sin, each Float[*B T 1 K/2], of half-rotation RoPE."""
    frequency = theta ** (-jnp.arange(0, head, 2, dtype=jnp.float32) / head)
    angle = (positions[..., None].astype(jnp.float32) * frequency)[..., None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x: Float[Array, "B T H K"], rotation: tuple[Array, Array]) -> Float[Array, "B T H K"]:
    cos, sin = (r.astype(x.dtype) for r in rotation)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _dropout(x: Float[Array, "B ..."], rate: float, drop: RowKeys | None) -> Float[Array, "B ..."]:
    if drop is None or rate == 0:
        return x
    return jnp.where(drop.uniform(*x.shape[1:]) < rate, 0, x / (1 - rate))
