"""Devices as a mesh (data, fsdp, tensor), and which axis of which parameter lies on which.

The batch is split over data x fsdp. Parameters follow an ordered table of (regex on the path,
PartitionSpec); the optimizer's state and the averaged weights follow it too, since their paths end
in the parameter's path. Where layers are stacked (`model.scan`), their axis comes first and stays
whole. Inputs carry these shardings into `jax.jit` (once called pjit), which does the rest.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from dlm import config
from dlm.config import memory, planning
from dlm.errors import DlmError

TABLES = r"(embedding|head)$"
RULES: tuple[tuple[str, P], ...] = (
    (TABLES, P(None, "fsdp")),
    (r"qkv$", P("fsdp", None, "tensor", None)),
    (r"out$", P("tensor", None, "fsdp")),
    (r"gate_up$", P("fsdp", None, "tensor")),
    (r"down$", P("tensor", "fsdp")),
    (r"", P()),
)


def make_mesh(c: config.Config) -> Mesh:
    """The mesh of a config over all devices.

    Raises:
      DlmError: the axes do not multiply to the devices there are, or do not divide the batch.
    """
    shape = planning.mesh(c, jax.device_count())
    return jax.make_mesh(shape, shape._fields, axis_types=(AxisType.Auto,) * 3)


def machine() -> memory.Machine:
    """All devices of JAX, and the memory of one of this process's."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        free = memory.host_memory() / jax.local_device_count()
        return memory.Machine(jax.device_count(), free, cpu=True)
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit", math.inf)
    return memory.Machine(jax.device_count(), limit, cpu=False)


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """A tree of NamedShardings for a tree of arrays or shapes.

    Raises:
      DlmError: names the leaf and the axis that its mesh axis does not divide.
    """

    def one(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
        if "/layers/" in name and leaf.ndim:
            spec = P(None, *spec)
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise DlmError(
                    f"config.mesh.{axis}={mesh.shape[axis]}: must divide {size}, an axis of {name}"
                )
        return NamedSharding(mesh, spec if leaf.ndim else P())

    return jax.tree.map_with_path(one, state)


def with_whole_tables(mesh: Mesh, params: Any) -> Any:
    """Parameters, the embedding and the head gathered on each device before they are used.

    Rows looked up in a table that is split by columns come out split by columns too, and XLA would
    replicate these activations to split them by sequences.
    """

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if mesh.shape["fsdp"] == 1 or not re.search(TABLES, name):
            return leaf
        return jax.lax.with_sharding_constraint(leaf, replicated(mesh))

    return jax.tree.map_with_path(one, params)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def rows(mesh: Mesh, size: int) -> Int[np.ndarray, " b"]:
    """Of a batch of `size`, the rows that lie on this process's devices."""
    spans = NamedSharding(mesh, P(("data", "fsdp"))).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[span] for span in spans.values()]))


def gathered(x: jax.Array) -> np.ndarray:
    """All of an array, in every process; each has to call it."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def put_batch(mesh: Mesh, batch: np.ndarray, axis: int, size: int) -> jax.Array:
    """Places this process's `rows` of a batch of `size` on the mesh, `axis` split over data x fsdp."""
    sharding = NamedSharding(mesh, P(*[None] * axis, ("data", "fsdp")))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    shape = (*batch.shape[:axis], size, *batch.shape[axis + 1 :])
    return jax.make_array_from_process_local_data(sharding, batch, shape)
