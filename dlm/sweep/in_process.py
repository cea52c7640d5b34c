"""The runs of an experiment one after another, in this process or in several that act as one.

`dlm train` trains one run like this; with --distributed every process of a pod calls it with the same
runs, and all their devices train each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from dlm.data import build
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.runs import schema
from dlm.sweep.jobs import Job
from dlm.training import distributed, run


def execute(
    jobs: list[Job],
    stop: Callable[[], bool],
    show: Callable[[str, Job, dict[str, Any]], None] = lambda event, job, row: None,
) -> dict[str, str]:
    """Trains every job that is to be trained; returns run id -> status.

    Raises:
      train.Interrupted: `stop` said so; a checkpoint is saved.
      DlmError, or any exception of the training: recorded in the run's folder. It ends all, since
        the other processes can not be asked any more.
    """
    ended = {}
    for job in jobs:
        ended[job.info.run_id] = _one(job, stop, show)
    return ended


def _one(job: Job, stop: Callable[[], bool], show: Callable) -> str:
    def report(row: dict[str, Any]) -> None:
        show("progress", job, row)

    with contextlib.ExitStack() as stack:
        mine = stack.enter_context(run_folder.claim(job.folder)) if distributed.primary() else True
        if not distributed.agreed(mine):
            raise DlmError(f"{job.folder}: another process is training this run")
        status = run_folder.status(job.folder)
        if distributed.agreed(
            status in run_folder.SETTLED
        ):  # perhaps by another process, meanwhile
            return status
        show("start", job, {})
        if distributed.primary():
            stack.enter_context(run.recorded(job.folder, job.config, job.info))
        store = build.load(job.store)
        trunk = job.trunk if distributed.alone() else None
        result = run.train_and_score(
            job.config, store, job.folder, job.info, trunk=trunk, stop=stop, report=report
        )
        distributed.agreed(True)  # the result is written when the primary comes here
    show(result.status, job, schema.headline(result))
    return result.status
