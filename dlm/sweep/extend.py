"""Finds the finished run that each run of a sweep goes on from: `dlm run EXPERIMENT --extend`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlm import config, runs
from dlm.config import planning
from dlm.config.planning import Plan
from dlm.data import build
from dlm.data.store import Store
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.sweep.jobs import Job
from dlm.training import longer


class Finished(NamedTuple):
    """A finished run."""

    folder: Path
    config: config.Config
    plan: Plan


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
