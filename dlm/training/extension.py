"""Goes on from a finished run as a longer one: `dlm train --extend RUN --config.train.duration=...`.

The longer run has the id and ends in the bits of one that is trained from scratch, as it begins at
the last checkpoint up to which the two take the same steps: with schedule constant the last one, with
wsd the last one before the decay. A checkpoint at the end of the finished run counts only if the
longer run evaluates there too, as an evaluation may choose the best weights.
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
from dlm.training import checkpoint, record, run, step

ROWS = "metrics.jsonl"


class Longer(NamedTuple):
    """The longer run, as `dlm.sweep.jobs.Job` takes it, and the step at which it begins."""

    config: config.Config
    store: Path
    folder: Path
    about: dict[str, Any]
    plan: Plan
    begin: int


def extend(folder: Path, overrides: Iterable[tuple[str, Any]], trust: bool = False) -> Longer:
    """The longer run, ready to train in a folder beside the finished one.

    `overrides` set train.duration and nothing else. A longer run that has begun already is left as
    it is. `trust`: see `dlm.training.run.opened`.

    Raises:
      DlmError: the run is not finished, the two share no steps, or the duration is not longer.
    """
    values = dict(overrides)
    if other := [key for key in values if key != "train.duration"]:
        raise DlmError(f"config.{other[0]}: --extend changes train.duration alone")
    if "train.duration" not in values:
        raise DlmError("--extend: needs the new length, --config.train.duration='400 epochs'")
    c, store = run.opened(folder, trust)
    if (status := record.status(folder)) != "finished":
        raise DlmError(f"{folder}: is {status}; must be finished to be extended")
    longer = experiment.edited(c, values.items())
    tokens = dict(train_tokens=len(store.train), validation_tokens=len(store.validation))
    before, after = (
        planning.plan(each, **tokens, vocab_size=store.vocab_size) for each in (c, longer)
    )
    _check(folder, c, longer, before, after)
    planning.check(longer, after, sharding.machine())
    identity = config.run_id(longer, store.fingerprint)
    about, place = _about(folder, values) | {"run": identity}, folder.parent / identity
    begin = _begin(folder, place, c, store, _last_shared(c, before, after), after.steps)
    return Longer(longer, store.path, place, about, after, begin)


def _about(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What the longer run says of itself: as the finished one, with its duration in the label."""
    start = record.read_json(folder / "run.json")
    label = re.sub(r" duration=\S+( [a-z]+\b(?!=))?", "", str(start.get("label")))
    return {
        "experiment": start.get("experiment"),
        "label": f"{label} duration={values['train.duration']}",
        "overrides": (start.get("overrides") or {}) | values,
        "question": start.get("question"),
    }


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
    result = record.read_json(folder / "result.json")
    if result["steps"] < before.steps:
        raise DlmError(
            f"{folder}: config.evaluation.patience ended it at step {result['steps']:,} of "
            f"{before.steps:,}; a longer run ends there too"
        )


def _last_shared(c: config.Config, before: Plan, after: Plan) -> int:
    """The last step up to which both runs do the same."""
    last = before.steps if before.steps in after.evaluate_at else before.steps - 1
    if c.optimizer.schedule == "wsd":
        last = min(last, *(plan.steps - plan.decay for plan in (before, after)))
    return last


def _begin(folder: Path, place: Path, c: config.Config, store: Store, last: int, steps: int) -> int:
    """Puts the finished run's last checkpoint up to a step into the longer run's `place`; its step.

    0: there is none, and the run begins from scratch. A run with checkpoints of its own keeps them.
    """
    parts = step.saved_parts(c, store.vocab_size, sharding.make_mesh(c))
    with run.claim(place) as mine:
        if not mine:
            raise DlmError(f"{place}: another process is training this run")
        with (
            checkpoint.open_checkpoints(place / "checkpoints", place.name) as own,
            checkpoint.open_checkpoints(folder / "checkpoints", folder.name) as finished,
        ):
            if own.steps():
                return own.steps()[-1]
            if record.status(place) in record.SETTLED:
                return steps
            saved = checkpoint.restore(finished, last, **parts)
            if saved is None:
                return 0
            disk.write(place / ROWS, (folder / ROWS).read_bytes())
            progress = saved["progress"] | {"shared_steps": saved["progress"]["step"]}
            ledger = saved["ledger"]["exposures"]
            checkpoint.save(own, progress, ledger, state=saved["state"], best=saved["best"])
            return progress["step"]
