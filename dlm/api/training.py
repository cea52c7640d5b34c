"""Trains a run of an experiment, and makes objectives. JAX is imported inside the functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import config, inputs
from dlm.api.runs import Run, load
from dlm.errors import ArgumentError, DlmError, nearest
from dlm.runs import bucket

if TYPE_CHECKING:
    from dlm.objectives import Objective
    from dlm.sweep.jobs import Job


@inputs.checked
def train(
    experiment: str | Path,
    overrides: Mapping[str, Any] | None = None,
    run: int = 0,
    workdir: str | Path = "runs",
    scale: str = "laptop",
) -> Run:
    """Trains one run of an experiment in this process, or goes on with it, and returns it.

    `overrides` sets config fields by dotted keys, `run` counts the runs of its sweep from 0. A run
    that is finished is returned as it is; after an interruption the same call goes on. Loads JAX.

    >>> run = dlm.train("tiny.py", {"train.duration": "2 steps"}, run=1, workdir="more")
    >>> run.status, run.result["steps"]
    ('finished', 2)

    Raises:
      DlmError: anything wrong with the experiment, an override, its corpus, or `run`; before it trains.
    """
    from dlm.model import sharding
    from dlm.sweep import in_process, worker
    from dlm.sweep.jobs import plan_jobs

    worker.prepare_jax()
    values, where = (overrides or {}).items(), bucket.local(str(workdir))
    jobs = plan_jobs(str(experiment), scale, values, where, machine=sharding.machine())
    job = chosen(jobs, run)
    in_process.execute([job], lambda: False)
    return load(job.folder)[0]


def chosen(jobs: Sequence[Job], run: int) -> Job:
    """One run of a sweep by its number.

    Raises:
      DlmError: there is no such number.
    """
    if not 0 <= run < len(jobs):
        raise ArgumentError("run", f"={run}: must be 0 to {len(jobs) - 1}")
    return jobs[run]


@inputs.checked
def objective(name: str, vocab_size: int, **options: Any) -> Objective:
    """An objective over ids 0 to vocab_size - 1: its `loss`, `nll` and `sample`. Loads JAX.

    `name` is a family of `dlm objectives`, or a Python file of one's own, which is run; `options` are
    fields of the config's group objective. `loss(apply, params, tokens, key)` gives a Sum in nats.

    >>> masked = dlm.objective("masked", vocab_size=257, schedule="cosine")
    >>> masked.name, masked.family.exact, masked.family.extra_tokens
    ('masked', False, 2)

    Raises:
      DlmError: no such family, file or option, or a value out of range.
    """
    from dlm import objectives

    if vocab_size < 1:
        raise DlmError(f"vocab_size={vocab_size!r}: must be a whole number from 1")
    values = {f"objective.{key}": value for key, value in options.items()}
    return objectives.make(objective_config(name, values.items()).objective, vocab_size)


def objective_config(name: str, overrides: Iterable[tuple[str, Any]]) -> config.Config:
    """The default config with a built-in objective, or one of a Python file, and overrides.

    Raises:
      DlmError: the name is no family and no Python file, or an override is wrong.
    """
    from dlm import private
    from dlm.config import experiment

    values: Any = config.base()
    if name.endswith(".py"):
        values.objective.file, values.objective.name = name, Path(name).stem
    elif name in config.FAMILIES:
        values.objective.name = name
    else:
        names = nearest(name, config.FAMILIES)
        raise DlmError(f"{name!r}: must be a Python file or an objective's name{names}")
    c = experiment.edited(values, overrides)
    if c.objective.file:
        private.trust(c.objective.file)
    return c
