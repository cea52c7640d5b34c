"""Several processes as one: who they are, who writes, when they stop together.

Every process runs the same command and the same steps of the same runs; `jax.distributed` joins
them. With one process all of this is free of cost.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from dlm.errors import DlmError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 30  # seconds without a sign of life after which a process is taken for dead


def start() -> None:
    """Joins the processes. A TPU pod, Slurm, MPI and GKE say who they are; elsewhere VARIABLES do.

    Raises:
      DlmError: nothing says how many there are, or some of VARIABLES are missing.
    """
    address, count, number = (os.environ.get(name, "") for name in VARIABLES)
    given = [bool(address), count.isdecimal(), number.isdecimal()]
    if any(given) and not all(given):
        wrong = VARIABLES[given.index(False)]
        raise DlmError(f"{wrong}={os.environ.get(wrong)!r}: must be set, as {VARIABLES} all are")
    try:
        if address:
            where = (address, int(count), int(number))
            jax.distributed.initialize(*where, heartbeat_timeout_seconds=PATIENCE)
        else:
            jax.distributed.initialize(heartbeat_timeout_seconds=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise DlmError(
            f"--distributed: {str(error).splitlines()[0]}; on a TPU pod, Slurm or GKE it needs "
            f"nothing, elsewhere set {', '.join(VARIABLES)}"
        ) from error


def alone() -> bool:
    return jax.process_count() == 1


def primary() -> bool:
    """Whether this process writes what all of them share."""
    return jax.process_index() == 0


def agreed(value: bool) -> bool:
    """The primary's answer, in every process. All have to ask."""
    if alone():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """The body runs in the primary process, then in the others."""
    if not alone() and not primary():
        multihost_utils.sync_global_devices("primary_first")
    try:
        yield
    finally:
        if not alone() and primary():
            multihost_utils.sync_global_devices("primary_first")


def preempted() -> Callable[[], bool]:
    """Asks whether any process was sent SIGTERM; all get the same answer at the same call.

    Once it is yes it stays yes. Every process has to ask equally often.
    """
    calls, found = [0], [False]

    def ask() -> bool:
        calls[0] += 1
        found[0] = found[0] or multihost_utils.reached_preemption_sync_point(calls[0])
        return found[0]

    return ask
