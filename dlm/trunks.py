"""One long run yields many budgets: states that runs share until the first of them decays.

With schedule wsd a run of 100 epochs takes the steps of one of 50 until that one's rate decays. Each
leaves its state there, in a folder that `config.trunk_id` names, and the next goes on from it: a
frontier over epochs costs one trunk and a decay for each point (Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from dlm import checkpoint


def take(start: Callable, trunk: Path, folder: Path, decays: int) -> Any:
    """What `start(checkpoints, at_most=)` restores of the last state up to step `decays`, or None.

    The run's `folder` gets the rows of the log up to that step.
    """
    with checkpoint.open_checkpoints(trunk, keep=None) as shared:
        begun = start(shared, at_most=decays)
    if begun is not None:
        progress = begun[-1]
        progress["shared_steps"] = progress["step"]
        shutil.copy(_rows(trunk, progress["step"]), folder / "metrics.jsonl")
    return begun


def leave(trunk: Path, progress: dict, ledger: Any, state: Any, best: Any, folder: Path) -> None:
    """Adds a state to a trunk; the rows of the log first, so that no state lacks them."""
    with (
        filelock.FileLock(trunk.with_suffix(".lock")),
        checkpoint.open_checkpoints(trunk, keep=None) as shared,
    ):
        if progress["step"] not in [saved.step for saved in shared.checkpoints]:
            shutil.copy(folder / "metrics.jsonl", _rows(trunk, progress["step"]))
            checkpoint.save(shared, progress, ledger, state=state, best=best)


def _rows(trunk: Path, step: int) -> Path:
    return trunk / f"metrics-{step}.jsonl"
