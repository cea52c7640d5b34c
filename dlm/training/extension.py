"""Extends a finished run to a longer one: `dlm train --extend RUN --config.train.duration=...`.

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
from dlm.runs.folder import CHECKPOINTS, LOG
from dlm.runs.schema import RunInfo, RunResult
from dlm.training import checkpoint, run, step


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
    if (status := run_folder.status(folder)) != "finished":
        raise DlmError(f"{folder}: is {status}; must be finished to be extended")
    longer = experiment.edited(c, values.items())
    tokens = dict(train_tokens=len(store.train), validation_tokens=len(store.validation))
    before, after = (
        planning.plan(each, **tokens, vocab_size=store.vocab_size) for each in (c, longer)
    )
    _check(folder, c, longer, before, after)
    planning.check(longer, after, sharding.machine())
    info = _info(run_folder.read_start(folder), config.run_id(longer, store.fingerprint), values)
    place = folder.parent / info.run_id
    last = _last_shared(c, before, after)
    begin = _begin(folder, place, c, store, info.run_id, last, after.steps)
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


def _check(
    folder: Path, c: config.Config, longer: config.Config, before: Plan, after: Plan
) -> None:
    """Refuses a longer run whose first steps are not those of the finished one."""
    if after.steps <= before.steps:
        raise DlmError(
            f"config.train.duration={longer.train.duration!r}: is {after.steps:,} steps; must be more "
            f"than the {before.steps:,} of {folder.name}"
        )
    if c.optimizer.schedule not in ("constant", "wsd"):
        raise DlmError(
            f"{folder}: config.optimizer.schedule={c.optimizer.schedule!r} lowers the rate from the "
            "first steps by the length of the run, so a longer run shares none of them; train it "
            "from scratch, or use constant or wsd"
        )
    if c.data.mode != "epoch":
        raise DlmError(
            f"{folder}: config.data.mode={c.data.mode!r} shuffles all epochs together, so a longer "
            "run shares no step; train it from scratch"
        )
    for name, amount, steps in (
        ("optimizer.warmup", c.optimizer.warmup, (before.warmup, after.warmup)),
        ("evaluation.every", c.evaluation.every, (before.evaluate_every, after.evaluate_every)),
    ):
        if steps[0] != steps[1]:
            raise DlmError(
                f"{folder}: config.{name}={amount!r} is {steps[0]} steps there and {steps[1]} in the "
                "longer run, which shares no step then; train it from scratch"
            )
    result = run_folder.read_result(folder)
    if isinstance(result, RunResult) and result.steps < before.steps:
        raise DlmError(
            f"{folder}: config.evaluation.patience ended it at step {result.steps:,} of "
            f"{before.steps:,}; a longer run ends there too"
        )


def _last_shared(c: config.Config, before: Plan, after: Plan) -> int:
    """The last step up to which both runs do the same."""
    last = before.steps if before.steps in after.evaluate_at else before.steps - 1
    if c.optimizer.schedule == "wsd":
        last = min(last, *(plan.steps - plan.decay for plan in (before, after)))
    return last


def _begin(
    folder: Path, place: Path, c: config.Config, store: Store, run_id: str, last: int, steps: int
) -> int:
    """Puts the finished run's last checkpoint up to step `last` into the longer run's `place`.

    Returns the step at which the longer run begins; 0 if there is no such checkpoint, and it begins
    from scratch. A longer run with checkpoints of its own keeps them.
    """
    parts = step.saved_parts(c, store.vocab_size, sharding.make_mesh(c))
    finished_id = config.run_id(c, store.fingerprint)
    with run_folder.claim(place) as mine:
        if not mine:
            raise DlmError(f"{place}: another process is training this run")
        with (
            checkpoint.open_checkpoints(place / CHECKPOINTS, run_id) as own,
            checkpoint.open_checkpoints(folder / CHECKPOINTS, finished_id) as finished,
        ):
            if own.steps():
                return own.steps()[-1]
            if run_folder.status(place) in run_folder.SETTLED:
                return steps
            saved = checkpoint.restore(finished, last, **parts)
            if saved is None:
                return 0
            disk.write(place / LOG, (folder / LOG).read_bytes())
            progress = saved["progress"] | {"shared_steps": saved["progress"]["step"]}
            ledger = saved["ledger"]["exposures"]
            checkpoint.save(own, progress, ledger, state=saved["state"], best=saved["best"])
            return progress["step"]
