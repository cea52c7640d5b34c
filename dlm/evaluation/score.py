"""Held-out likelihood: every window scored once, the same noise for every model and checkpoint."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config, objectives
from dlm.config import flops
from dlm.model import Params, keys, sharding, transformer
from dlm.runs.estimate import Estimate, standard_error

QUEUED = 2  # batches that a device is given before their nats are awaited
SLOWER = 5  # products in a row that are not faster end the measurement of a device's peak
Tell = Callable[[float], None]  # is told the share of a score that is done, 0 to 1


def silent(share: float) -> None:
    """Tells nobody."""


@functools.lru_cache(maxsize=32)
def _scorer(
    model: config.Model, objective: config.Objective, vocab_size: int, mesh: jax.sharding.Mesh
) -> Callable:
    functions = objectives.make(objective, vocab_size)
    apply = transformer(model, vocab_size + functions.family.extra_tokens).apply

    def nats(
        params: Params, tokens: Int[Array, "B L"], key: PRNGKeyArray, passes: Int[Array, ""]
    ) -> Float[Array, " B"]:
        return functions.nll(
            apply, sharding.with_whole_tables(mesh, params), tokens, key, passes
        ).nats

    return jax.jit(nats, out_shardings=sharding.replicated(mesh))


def score(
    c: config.Config,
    vocab_size: int,
    params: Params,
    windows: Int[np.ndarray, "n L"],
    passes: int,
    mesh: jax.sharding.Mesh,
) -> Float[np.ndarray, " n"]:
    """Nats of each window, in order.

    The key depends on the batch alone, not on run, step or seed (common random numbers), so the
    difference of two models on the same windows is far less noisy than either.
    """
    scorer = _scorer(c.model, c.objective, vocab_size, mesh)
    size = c.evaluation.batch_size
    return over_batches(lambda x, key: scorer(params, x, key, passes), windows, size, mesh)


def over_batches(
    nats_of: Callable[[Int[Array, "B L"], PRNGKeyArray], Float[Array, " B"]],
    windows: Int[np.ndarray, "n L"],
    size: int,
    mesh: jax.sharding.Mesh,
    tell: Tell = silent,
) -> Float[np.ndarray, " n"]:
    """Calls `nats_of(tokens, key)` on batches of `size` windows, placed on the mesh; nats, in order.

    The key depends on the batch alone: common random numbers for all that is scored. `tell` is told the
    share of the batches that are done.
    """
    rows, root = sharding.rows(mesh, size), keys.key_for(0, "evaluation")
    starts = range(0, len(windows), size)
    pending: list[Float[Array, " B"]] = []
    for index, start in enumerate(starts):
        if index >= QUEUED:  # the device has the next ones meanwhile
            pending[index - QUEUED].block_until_ready()
            tell((index - QUEUED + 1) / len(starts))
        batch = windows[start : start + size]
        padding = ((0, size - len(batch)), (0, 0))
        tokens = sharding.put_batch(mesh, np.pad(batch, padding)[rows], axis=0, size=size)
        pending.append(nats_of(tokens, jax.random.fold_in(root, index)))
    nats = np.concatenate([np.asarray(each, np.float64) for each in pending])[: len(windows)]
    tell(1.0)
    return nats


def device_peak(dtype: str) -> float:
    """Peak FLOP/s of one device: from the table, or measured where it has none."""
    return flops.peak(jax.devices()[0].device_kind, dtype) or measured_peak(dtype)


@functools.cache
def measured_peak(dtype: str) -> float:
    """FLOP/s of one device in the fastest of the large matrix products of a tenth of a second, in which
    clocks rise; then until SLOWER in a row are not faster, for at most a third of a second.
    """
    device = jax.devices()[0]
    size = 1024 if device.platform == "cpu" else 8192  # large enough to be bound by the product
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    best, slower, began = math.inf, 0, time.perf_counter()
    while (spent := (start := time.perf_counter()) - began) < 1 / 3 and (
        spent < 0.1 or slower < SLOWER
    ):
        product(a, a).block_until_ready()
        seconds = time.perf_counter() - start
        slower = slower + 1 if seconds > 0.99 * best else 0
        best = min(best, seconds)
    # Devices of a CPU share its cores: the product ran on all of them.
    sharing = jax.local_device_count() if device.platform == "cpu" else 1
    return 2 * size**3 / best / sharing


def estimate(
    nats: Float[np.ndarray, " n"],
    lengths: Int[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
    kind: str,
    mc_variance: Float[np.ndarray, " n"] | None = None,
    sampler: str = "",
) -> Estimate:
    """All nats of some windows over all their tokens, with its standard error over documents.

    Monte Carlo noise is in that error too; `mc_variance`, of the nats of each window, says how much. If
    passages of few documents are held out, they take the documents' place: the error is then that of
    more text of the same documents. With windows of several lengths the standard error is that of a
    ratio: the residuals nats - value * length take the place of the nats. NaN with a single window,
    which says nothing of the spread.
    """
    tokens, mean_length = int(lengths.sum()), float(lengths.mean())
    value = float(nats.mean()) / mean_length
    residuals = nats - value * lengths if (lengths != lengths[0]).any() else nats
    error = standard_error(residuals, documents) / mean_length if len(nats) > 1 else math.nan
    noise = 0.0 if mc_variance is None else float(np.sqrt(mc_variance.sum())) / tokens
    return Estimate(value, error, kind, tokens, noise, sampler)


def bits_per_byte(estimate: Estimate, bytes_per_token: float | None) -> float | None:
    """Nats/token over bytes/token, in bits; None for corpora of integers."""
    return bytes_per_token and estimate.value / bytes_per_token / math.log(2)
