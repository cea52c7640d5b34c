"""States that runs share until the first of them decays: one long run yields many budgets.

With schedule wsd, runs of 50 and of 100 epochs take the same steps until the shorter one's learning
rate decays. There each run leaves its state in a folder named by `config.trunk_id`, the trunk, and a
longer run resumes from it: a frontier over epochs costs one trunk and one decay for each point (Hu
et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import filelock

from dlm import disk
from dlm.config.planning import Plan
from dlm.runs.folder import LOG
from dlm.training import checkpoint
from dlm.training.prepare import Prepared
from dlm.training.progress import Training


def decay_start(plan: Plan) -> int:
    """The step at which the learning rate of a run with schedule wsd begins to decay."""
    return plan.steps - plan.decay


def take(
    restore: Callable[..., Training | None], trunk: Path, prepared: Prepared, folder: Path
) -> Training | None:
    """Resumes from the last state in the trunk that lies before this run's decay.

    The run's folder gets the rows of the log up to that step. None if there is no such state, or
    none is whole: the run then takes its first steps itself.
    """
    with checkpoint.open_checkpoints(trunk, prepared.trunk_id, keep=None) as shared:
        try:
            training = restore(shared, at_most=decay_start(prepared.plan))
        except checkpoint.Damaged as error:
            print(f"warning: {error}", file=sys.stderr)
            training = None
        if training is not None:
            progress = training.progress
            progress.shared_steps = progress.step
            rows = shared.folder / str(progress.step) / LOG
            disk.write(folder / LOG, rows.read_bytes())
    return training


def leave(trunk: Path, training: Training, folder: Path) -> None:
    """Adds a run's state to the trunk, with the log up to it, unless a whole one is there."""
    owner, now = training.prepared.trunk_id, training.progress.step
    with (
        filelock.FileLock(trunk.with_suffix(".lock")),
        checkpoint.open_checkpoints(trunk, owner, keep=None) as shared,
    ):
        if now in shared.steps() and not checkpoint.damage(shared.folder / str(now)):
            return
        rows = {LOG: (folder / LOG).read_bytes()}
        parts = dict(state=training.state, best=training.best)
        checkpoint.save(shared, training.saved(), training.ledger, rows, **parts)
