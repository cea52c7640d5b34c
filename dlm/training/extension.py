"""Begins a longer run at the state of a finished one: `dlm train --extend`, `dlm run --extend`.

The longer run has the id of a longer run from scratch and ends in its bits: it begins at the last
checkpoint up to which the two take the same steps. With schedule constant that is the last
checkpoint, with wsd the last one before the decay. A checkpoint at the end of the finished run counts
only if the longer run evaluates there too, as an evaluation may choose the best weights.
"""

from __future__ import annotations

from pathlib import Path

from dlm import config, disk
from dlm.config import planning
from dlm.data.store import Store
from dlm.model import sharding
from dlm.runs import folder as run_folder
from dlm.runs.folder import CHECKPOINTS, LOG
from dlm.training import checkpoint, longer, run, step


def take(
    folder: Path, place: Path, extended: config.Config, store: Store, trust: bool = False
) -> int:
    """Puts the finished run's last checkpoint that both share into the longer run's `place`; its step.

    0: there is none, and the run begins from scratch. A run with checkpoints of its own keeps them.
    The caller holds the claim on `place`. `trust`: see `dlm.training.run.opened`.

    Raises:
      DlmError: the run is not finished, the two share no steps, or the duration is not longer.
    """
    c, _ = run.opened(folder, trust)
    before, after = (planning.plan(each, **store.sizes) for each in (c, extended))
    longer.check(folder, c, extended, before, after)
    own_id, finished_id = (config.run_id(each, store.fingerprint) for each in (extended, c))
    parts = step.saved_parts(c, store.vocab_size, sharding.make_mesh(c))
    with (
        checkpoint.open_checkpoints(place / CHECKPOINTS, own_id) as own,
        checkpoint.open_checkpoints(folder / CHECKPOINTS, finished_id) as finished,
    ):
        if own.steps():
            return own.steps()[-1]
        if run_folder.status(place) in run_folder.SETTLED:
            return after.steps
        saved = checkpoint.restore(finished, longer.last_shared(c, before, after), **parts)
        if saved is None:
            return 0
        disk.write(place / LOG, (folder / LOG).read_bytes())
        progress = saved["progress"] | {"shared_steps": saved["progress"]["step"]}
        ledger = saved["ledger"]["exposures"]
        checkpoint.save(own, progress, ledger, state=saved["state"], best=saved["best"])
        return progress["step"]
