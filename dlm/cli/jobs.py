"""Plans the runs of a command's experiment, and trains runs in this process."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlm.cli.options import Overrides
from dlm.runs import bucket

if TYPE_CHECKING:
    from dlm.config.memory import Machine
    from dlm.sweep.jobs import Job


def plan_jobs(
    a: argparse.Namespace, overrides: Overrides, machine: Machine | None, fetch: bool = True
) -> list[Job]:
    """The runs of the command's experiment in the order of its sweep; builds missing corpora.

    `machine` and `fetch`: see `dlm.sweep.jobs.plan_jobs`.
    """
    from dlm.sweep import jobs

    tell = functools.cache(lambda name: print(f"corpus {name}", flush=True))  # of each once
    return jobs.plan_jobs(a.experiment, a.scale, overrides, a.workdir, tell, fetch, machine)


def plan_jobs_here(a: argparse.Namespace, overrides: Overrides) -> list[Job]:
    """The runs of a command that trains in this process; of several hosts the primary builds the
    corpora that the others then find.
    """
    from dlm.model import sharding

    if not a.distributed:
        return plan_jobs(a, overrides, sharding.machine())
    from dlm.training import distributed

    here = a.workdir.absolute()
    with distributed.primary_first(shared=bucket.place(here) == here):
        return plan_jobs(a, overrides, sharding.machine())


def join(a: argparse.Namespace) -> Callable[[], bool]:
    """Readies this process to train, alone or with others; returns what asks whether to stop.

    With --distributed all but the primary process are silent.
    """
    from dlm.sweep import worker
    from dlm.training import distributed

    worker.prepare_jax()
    if a.distributed:
        distributed.start()
        if not distributed.primary():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
        return distributed.preempted()
    stopping: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stopping.append(number))
    return lambda: bool(stopping)


def train_here(jobs: list[Job], stop: Callable[[], bool]) -> dict[str, str]:
    """Trains one run after another in this process; run id -> status.

    Raises:
      KeyboardInterrupt: asked to stop, a checkpoint is saved.
    """
    from dlm.sweep import in_process, progress
    from dlm.training import loop

    with progress.show(jobs) as show:
        try:
            return in_process.execute(jobs, stop, show)
        except loop.Interrupted:
            raise KeyboardInterrupt from None
