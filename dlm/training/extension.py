"""Goes on from a finished run as a longer one: `dlm train --extend RUN --config.train.duration=...`,
and `dlm run EXPERIMENT --extend --config.train.duration=...` for each run of a sweep.

The longer run has the id of a longer run from scratch and ends in its bits: it begins at the last
checkpoint up to which the two take the same steps. With schedule constant that is the last
checkpoint, with wsd the last one before the decay. A checkpoint at the end of the finished run counts
only if the longer run evaluates there too, as an evaluation may choose the best weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dlm import config, disk
from dlm.config import experiment, planning
from dlm.config.planning import Plan
from dlm.data.store import Store
from dlm.errors import DlmError
from dlm.model import sharding
from dlm.runs import folder as run_folder
from dlm.runs import names
from dlm.runs.folder import CHECKPOINTS, LOG
from dlm.runs.schema import RunInfo
from dlm.training import checkpoint, run, step
from dlm.training.longer import check, last_shared


class Longer(NamedTuple):
    """The longer run, as `dlm.sweep.jobs.Job` takes it, and the step at which it begins."""

    config: config.Config
    store: Path
    folder: Path
    info: RunInfo
    plan: Plan
    begin: int


def extend(folder: Path, overrides: Iterable[tuple[str, Any]], trust: bool = False) -> Longer:
    """The longer run, ready to train in a folder beside the finished one.

    `overrides` sets train.duration and nothing else. A longer run that has begun already is left
    unchanged. `trust`: see `dlm.training.run.opened`.

    Raises:
      DlmError: the run is not finished, the two share no steps, or the duration is not longer.
    """
    values = dict(overrides)
    if other := [key for key in values if key != "train.duration"]:
        raise DlmError(f"config.{other[0]}: --extend changes train.duration alone")
    if "train.duration" not in values:
        raise DlmError("--extend: needs the new length, --config.train.duration='400 epochs'")
    c, store = run.opened(folder, trust)
    longer = experiment.edited(c, values.items())
    before, after = (planning.plan(each, **store.sizes) for each in (c, longer))
    check(folder, c, longer, before, after)
    planning.check(longer, after, sharding.machine())
    identity = config.run_id(longer, store.fingerprint)
    info = _info(run_folder.read_start(folder), identity, values)
    (place,) = names.places(folder.parent, [(identity, info.label)])
    with run_folder.claim(place) as mine:
        if not mine:
            raise DlmError(f"{place}: another process is training this run")
        begin = take(folder, place, longer, store, trust)
    return Longer(longer, store.path, place, info, after, begin)


def _info(finished: RunInfo, run_id: str, values: dict[str, Any]) -> RunInfo:
    """The longer run's info: that of the finished one, with the new duration in the label."""
    label = re.sub(r" duration=\S+( [a-z]+\b(?!=))?", "", finished.label)
    return RunInfo(
        experiment=finished.experiment,
        run_id=run_id,
        label=f"{label} duration={values['train.duration']}",
        overrides=finished.overrides | values,
        question=finished.question,
    )


def take(
    folder: Path, place: Path, longer: config.Config, store: Store, trust: bool = False
) -> int:
    """Puts the finished run's last checkpoint that both share into the longer run's `place`; its step.

    0: there is none, and the run begins from scratch. A run with checkpoints of its own keeps them.
    The caller holds the claim on `place`.

    Raises:
      DlmError: see `extend`.
    """
    c, _ = run.opened(folder, trust)
    before, after = (planning.plan(each, **store.sizes) for each in (c, longer))
    check(folder, c, longer, before, after)
    own_id, finished_id = (config.run_id(each, store.fingerprint) for each in (longer, c))
    parts = step.saved_parts(c, store.vocab_size, sharding.make_mesh(c))
    with (
        checkpoint.open_checkpoints(place / CHECKPOINTS, own_id) as own,
        checkpoint.open_checkpoints(folder / CHECKPOINTS, finished_id) as finished,
    ):
        if own.steps():
            return own.steps()[-1]
        if run_folder.status(place) in run_folder.SETTLED:
            return after.steps
        saved = checkpoint.restore(finished, last_shared(c, before, after), **parts)
        if saved is None:
            return 0
        disk.write(place / LOG, (folder / LOG).read_bytes())
        progress = saved["progress"] | {"shared_steps": saved["progress"]["step"]}
        ledger = saved["ledger"]["exposures"]
        checkpoint.save(own, progress, ledger, state=saved["state"], best=saved["best"])
        return progress["step"]
