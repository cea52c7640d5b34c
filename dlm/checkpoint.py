"""Checkpoints by Orbax: everything that a run needs to go on, in one atomic step folder.

`state` (step, parameters, optimizer, average), `best` (the weights with the best validation loss so
far), `ledger` (exposures) and `progress` (plain JSON beside them, with the place in the data). One
folder, so a kill between two writes can not leave the best weights ahead of the state. Every process
saves its shards, and restores those of its devices, however many there were when it was saved.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from dlm import bucket
from dlm.errors import DlmError

# Copies that no later donation reaches.
copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


@contextlib.contextmanager
def open_checkpoints(folder: Path, keep: int | None = 1) -> Iterator[ocp.training.Checkpointer]:
    """The checkpointer of a run; keeps the latest (`keep` None: all), and waits for a save under way
    when it closes.
    """
    latest: Any = ocp.training.preservation_policies.LatestN(keep)
    place: Any = bucket.place(folder)
    with ocp.training.Checkpointer(place, preservation_policy=latest) as checkpointer:
        yield checkpointer


def save(
    checkpointer: ocp.training.Checkpointer,
    progress: dict[str, Any],
    ledger: np.ndarray,
    **parts: Any,
) -> None:
    """Starts to save; all may be changed or donated as soon as it returns.

    On a CPU a host array is a view of the device's buffer, which the next step would write into
    while Orbax still writes it out: hence the copy. `progress` too is written later.
    """
    parts = copied(parts) | {"ledger": {"exposures": ledger.copy()}}
    checkpointer.save_checkpointables_async(
        progress["step"], parts, force=True, custom_metadata=dict(progress)
    )


def restore(
    checkpointer: ocp.training.Checkpointer, at_most: float = math.inf, **abstract: Any
) -> dict[str, Any] | None:
    """The parts of the latest checkpoint, placed as `abstract` says, and its `progress`; or None.

    The latest is that of the last step up to `at_most`.

    Raises:
      DlmError: the checkpoint can not be read, or names the first leaf of another shape.
    """
    found = [saved for saved in checkpointer.checkpoints if saved.step <= at_most]
    if not found:
        return None
    latest = max(found, key=lambda saved: saved.step)
    where = Path(str(checkpointer.directory)) / str(latest.step)
    try:
        _compare_shapes(checkpointer, latest.step, abstract["state"], where)
        progress = checkpointer.checkpointables_metadata(latest.step).custom_metadata
        return checkpointer.load_checkpointables(latest.step, abstract) | {"progress": progress}
    except DlmError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise DlmError(
            f"{where}: can not read this checkpoint ({type(error).__name__}: {reason}); delete that "
            "folder to start the run again"
        ) from error


def _compare_shapes(checkpointer, step: int, state: Any, where: Path) -> None:
    """Orbax's own message for another shape does not say which leaf it means."""
    saved = checkpointer.checkpointables_metadata(step).metadata["state"]
    found = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(saved)}
    for path, leaf in jax.tree.leaves_with_path(state):
        name = _name(path)
        if name not in found:
            raise DlmError(f"{where}: has no {name}; it is a checkpoint of another model")
        if tuple(found[name].shape) != tuple(leaf.shape):
            raise DlmError(
                f"{where}: {name} has shape {tuple(found[name].shape)}, this config's model has "
                f"{tuple(leaf.shape)}; it is a checkpoint of another model"
            )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
