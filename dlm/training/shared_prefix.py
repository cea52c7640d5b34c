"""One long run yields many budgets: states that runs share until the first of them decays.

With schedule wsd a run of 100 epochs takes the steps of one of 50 until that one's rate decays. Each
leaves its state there, in a folder that `config.trunk_id` names, and the next goes on from it: a
frontier over epochs costs one trunk and a decay for each point (Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from dlm import disk
from dlm.training import checkpoint

ROWS = "metrics.jsonl"


def take(start: Callable, trunk: Path, owner: str, folder: Path, decays: int) -> Any:
    """What `start(checkpoints, at_most=)` restores of the last state up to step `decays`, or None.

    The run's `folder` gets the rows of the log up to that step. If no state is whole the run takes
    its first steps itself.
    """
    with checkpoint.open_checkpoints(trunk, owner, keep=None) as shared:
        try:
            restored = start(shared, at_most=decays)
        except checkpoint.Damaged as error:
            print(f"warning: {error}", file=sys.stderr)
            restored = None
        if restored is not None:
            progress = restored[-1]
            progress["shared_steps"] = progress["step"]
            rows = shared.folder / str(progress["step"]) / ROWS
            disk.write(folder / ROWS, rows.read_bytes())
    return restored


def leave(
    trunk: Path, owner: str, progress: dict, ledger: Any, state: Any, best: Any, folder: Path
) -> None:
    """Adds a state to a trunk, with the rows of the log up to it, unless it has one that is whole."""
    with (
        filelock.FileLock(trunk.with_suffix(".lock")),
        checkpoint.open_checkpoints(trunk, owner, keep=None) as shared,
    ):
        step = progress["step"]
        if step not in shared.steps() or checkpoint.damage(shared.folder / str(step)):
            rows = {ROWS: (folder / ROWS).read_bytes()}
            checkpoint.save(shared, progress, ledger, rows, state=state, best=best)
