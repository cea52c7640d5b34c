"""Several processes that train one run: how they join, which one writes, when they stop together.

Each process runs the same command and takes the same steps; `jax.distributed` joins them. With one
process nothing here costs time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from dlm.errors import DlmError

# Seconds without a heartbeat after which a process is taken for dead.
PATIENCE = int(os.environ.get("DLM_HOSTS_PATIENCE", "30"))
JOINING = 300  # seconds within which all processes have to start
A_DAY = 86_400_000  # milliseconds: longer than any corpus takes to build
FORMS = {  # of VARIABLES
    "JAX_COORDINATOR_ADDRESS": (r"\S+:\d+", "HOST:PORT, that of the first process"),
    "JAX_NUM_PROCESSES": (r"\d+", "how many there are"),
    "JAX_PROCESS_ID": (r"\d+", "0 for the first, 1, ..."),
}
VARIABLES = tuple(FORMS)


def start() -> None:
    """Joins the processes. A TPU pod, Slurm, MPI or GKE tells each its number; elsewhere VARIABLES do.

    Raises:
      DlmError: the number of processes is unknown, or one of VARIABLES is missing or wrong.
    """
    given = [os.environ.get(name, "") for name in VARIABLES]
    for (name, (form, right)), value in zip(FORMS.items(), given, strict=True):
        if any(given) and not re.fullmatch(form, value):
            raise DlmError(f"{name}={value!r}: must be {right}; {', '.join(VARIABLES)} go together")
    address, count, number = given
    join = functools.partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=PATIENCE,
        initialization_timeout=JOINING,
    )
    try:
        if address:
            words = f"process {number} of {count} joins {address}, for at most {JOINING} s"
            print(words, file=sys.stderr, flush=True)
            join(address, int(count), int(number))
        else:
            join()
        agreed(True)  # connects the devices while all are here: that has 30 s on a CPU
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
    """Returns the primary's value in every process. Every process has to call it."""
    if alone():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def from_primary(what: str, compute: Callable[[], Any]) -> Any:
    """Computes plain JSON in the primary and returns it in every process. Each has to call it.

    `compute` may take hours, so the others wait at a barrier, not in a collective. `what` names the
    barrier and is used once in a process.
    """
    if alone():
        return compute()
    text = json.dumps(compute()).encode() if primary() else b""
    multihost.get_barrier_sync_fn()(key=what, timeout_ms=A_DAY)
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(text))))
    padded = np.frombuffer(text.ljust(size), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)))


@contextlib.contextmanager
def primary_first(shared: bool) -> Iterator[None]:
    """Runs the body in the primary process, then in the others; in all at once unless `shared`.

    `shared`: all processes see the files that the body makes. It may take hours, so the others wait
    at a barrier, not in a collective.
    """
    wait = functools.partial(multihost.get_barrier_sync_fn(), timeout_ms=A_DAY)

    def ready() -> None:
        if shared and primary():
            wait(key="after the primary")
        wait(key="all are ready")

    if shared and not primary():
        wait(key="after the primary")
    try:
        yield
    except Exception:  # the others then fail likewise; after ctrl-C nobody is waited for
        ready()
        raise
    ready()


def preempted() -> Callable[[], bool]:
    """Returns a function that tells whether any process was sent SIGTERM.

    All processes get the same answer at the same call, so each has to ask equally often. Once the
    answer is yes it stays yes. The first ctrl-C counts as SIGTERM; a second one ends the process.
    """
    calls, signalled = [0], [False]

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("to be saved at the next step; ctrl-C again leaves at once", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, interrupted)

    def ask() -> bool:
        calls[0] += 1
        signalled[0] = signalled[0] or multihost_utils.reached_preemption_sync_point(calls[0])
        return signalled[0]

    return ask
