"""Goes on from finished runs as longer ones, in the bits of runs from scratch.

`dlm train --extend RUN` makes one longer run; `dlm run EXPERIMENT --extend` finds the finished run
that each run of a sweep goes on from. `dlm.training.extension` says where a longer run begins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlm import config, runs
from dlm.config import experiment, planning
from dlm.config.planning import Plan
from dlm.data import build
from dlm.data.store import Store
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.runs import names
from dlm.runs.schema import RunInfo
from dlm.sweep.jobs import Job
from dlm.training import longer

DURATION = re.compile(r" duration=\S+( [a-z]+\b(?!=))?")  # of a label


class Finished(NamedTuple):
    """A finished run."""

    folder: Path
    config: config.Config
    plan: Plan


def extend(
    folder: Path, overrides: Iterable[tuple[str, Any]], trust: bool = False
) -> tuple[Job, int]:
    """The longer run, ready to train in a folder beside the finished one, and the step it begins at.

    `overrides` sets train.duration and nothing else. A longer run that has begun already is left
    unchanged. `trust`: see `dlm.training.run.opened`. Loads JAX.

    Raises:
      DlmError: the run is not finished, the two share no steps, or the duration is not longer.
    """
    from dlm.training import extension, run

    values = dict(overrides)
    if other := [key for key in values if key != "train.duration"]:
        raise DlmError(f"config.{other[0]}: --extend changes train.duration alone")
    if "train.duration" not in values:
        raise DlmError("--extend: needs the new length, --config.train.duration='400 epochs'")
    c, store = run.opened(folder, trust)
    extended = experiment.edited(c, values.items())
    before, after = (planning.plan(each, **store.sizes) for each in (c, extended))
    longer.check(folder, c, extended, before, after)
    start = run_folder.read_start(folder)
    info = RunInfo(
        experiment=start.experiment,
        run_id=config.run_id(extended, store.fingerprint),
        label=f"{DURATION.sub('', start.label)} duration={values['train.duration']}",
        overrides=start.overrides | values,
        question=start.question,
    )
    (place,) = names.places(folder.parent, [(info.run_id, info.label)])
    with run_folder.claim(place) as mine:
        if not mine:
            raise DlmError(f"{place}: another process is training this run")
        begin = extension.take(folder, place, extended, store, trust)
    return Job(extended, store.path, place, info, after), begin


def with_sources(jobs: Sequence[Job]) -> list[Job]:
    """The runs, each with the longest finished run that differs from it in its duration alone.

    A run that is done needs none, and one that has begun may go on from its own checkpoints.

    Raises:
      DlmError: there is no such run, it is not shorter, or the two share no steps (schedule cosine).
    """
    stores = {job.store: build.load(job.store) for job in jobs}
    known = _finished(jobs[0].folder.parent, list(stores.values()))
    return [_with_source(job, known, stores[job.store]) for job in jobs]


def _with_source(job: Job, known: dict[str, list[Finished]], store: Store) -> Job:
    if run_folder.status(job.folder) in run_folder.SETTLED:
        return job
    candidates = known.get(_key(job.config, store.fingerprint), [])
    if not candidates and (job.folder / "checkpoints").is_dir():
        return job
    if not candidates:
        raise DlmError(
            f"--extend: {job.info.label!r}: no finished run in {job.folder.parent} differs from "
            "it in train.duration alone; leave --extend out to train it from scratch"
        )
    shorter = [each for each in candidates if each.plan.steps < job.plan.steps] or candidates
    source = max(shorter, key=lambda each: each.plan.steps)
    longer.check(source.folder, source.config, job.config, source.plan, job.plan)
    return dataclasses.replace(job, source=source.folder)


def _finished(folder: Path, stores: Sequence[Store]) -> dict[str, list[Finished]]:
    """The finished runs of an experiment, by what they share with those of another duration."""
    by_fingerprint = {store.fingerprint: store for store in stores}
    finished: dict[str, list[Finished]] = {}
    for place in runs.folders(folder) if folder.is_dir() else ():
        if run_folder.status(place) != "finished":
            continue
        c = config.from_json(run_folder.read_json(place / "config.json"))
        store = by_fingerprint.get(run_folder.read_json(place / "result.json")["fingerprint"])
        if store is not None:
            plan = planning.plan(c, **store.sizes)
            finished.setdefault(_key(c, store.fingerprint), []).append(Finished(place, c, plan))
    return finished


def _key(c: config.Config, fingerprint: str) -> str:
    """The id that runs would have if they had one duration."""
    train = dataclasses.replace(c.train, duration="1 steps")
    return config.run_id(dataclasses.replace(c, train=train), fingerprint)
