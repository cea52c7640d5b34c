"""Devices as a mesh (data, fsdp, tensor), and which axis of which parameter lies on which.

The batch is split over data x fsdp. Parameters follow an ordered table of (regex on the path,
PartitionSpec); the optimizer's state and the averaged weights follow it too, since their paths end
in the parameter's path. Inputs carry these shardings into `jax.jit` (once called pjit), which does
the rest.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dlm import config
from dlm.errors import DlmError

RULES: tuple[tuple[str, P], ...] = (
    (r"(embedding|head)$", P(None, "fsdp")),
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
    m, devices = c.mesh, jax.device_count()
    data = m.data or devices // (m.fsdp * m.tensor)
    if data * m.fsdp * m.tensor != devices:
        raise DlmError(
            f"config.mesh: data={m.data} x fsdp={m.fsdp} x tensor={m.tensor} must come to {devices}, "
            "the devices there are"
        )
    batches = {"train": c.train.batch_size, "evaluation": c.evaluation.batch_size}
    for name, size in batches.items():
        if size % (data * m.fsdp):
            raise DlmError(
                f"config.{name}.batch_size={size}: must be a multiple of {data * m.fsdp}, "
                "mesh.data x mesh.fsdp"
            )
    axes = ("data", "fsdp", "tensor")
    return jax.make_mesh((data, m.fsdp, m.tensor), axes, axis_types=(AxisType.Auto,) * 3)


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """A tree of NamedShardings for a tree of arrays or shapes.

    Raises:
      DlmError: names the leaf and the axis that its mesh axis does not divide.
    """

    def one(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise DlmError(
                    f"config.mesh.{axis}={mesh.shape[axis]}: must divide {size}, an axis of {name}"
                )
        return NamedSharding(mesh, spec if leaf.ndim else P())

    return jax.tree.map_with_path(one, state)


def put_batch(mesh: Mesh, batch: np.ndarray, axis: int) -> jax.Array:
    """Places a host array on the mesh with `axis` split over data x fsdp."""
    spec = P(*[None] * axis, ("data", "fsdp"))
    return jax.device_put(batch, NamedSharding(mesh, spec))
