"""Plans the runs of an experiment: expands its sweep, builds its corpora, checks every config."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm import config, private
from dlm.config import experiment, labels, planning
from dlm.config.memory import Machine
from dlm.data import build, tokenizers
from dlm.errors import DlmError
from dlm.runs import bucket, names
from dlm.runs import folder as run_folder
from dlm.runs.schema import RunInfo

NO_ID = "----------"  # of a job that is only planned, its corpus being elsewhere


@dataclass(frozen=True)
class Job:
    """One run of an experiment, ready to start."""

    config: config.Config
    store: Path
    folder: Path
    info: RunInfo
    plan: planning.Plan
    trunk: Path | None = None  # of states shared with other runs; see `dlm.training.loop.train`
    source: Path | None = None  # a finished run to go on from; see `dlm.training.extension`

    @property
    def flops(self) -> float:
        return self.plan.steps * self.plan.flops_per_step

    @property
    def work(self) -> planning.Work:
        """FLOPs of its training, its scores and its samples."""
        return planning.work(self.config, self.plan)

    @property
    def devices(self) -> int:
        """The fewest that its mesh takes."""
        return planning.fewest_devices(self.config)

    def message(self) -> str:
        return json.dumps(
            dict(
                config=config.to_json(self.config),
                store=str(self.store),
                folder=str(self.folder),
                info=dataclasses.asdict(self.info),
                trunk=self.trunk and str(self.trunk),
                source=self.source and str(self.source),
            )
        )


def plan_jobs(
    path: str,
    scale: str,
    overrides: Iterable[tuple[str, Any]],
    workdir: Path,
    on_corpus: Callable[[str], None] = lambda name: None,
    fetch: bool = True,
    machine: Machine | None = None,
) -> list[Job]:
    """The runs of an experiment in the order of its sweep. Builds the corpora that are missing.

    Every config is checked, and planned against its corpus, before any run starts. Without `fetch`
    a corpus that would have to be fetched is not: its runs are planned by what their configs say,
    and have no store and no id. What cannot fit on `machine` is refused; without one, the runs train
    elsewhere.

    Raises:
      DlmError: anything wrong with the experiment, an override, a corpus or the workdir.
    """
    base, sweep = experiment.load(path, scale)
    by_hand = dict(overrides)
    label_keys = labels.keys(base, sweep, by_hand)
    base, sweep = experiment.with_overrides(base, sweep, by_hand)
    configs = experiment.expand(base, sweep)
    for c in configs:
        labels.check_sizes(c, by_hand)
        planning.check_before(c, machine)
    writable(workdir)
    for file in {c.objective.file for c in configs if c.objective.file}:
        private.trust(file)
    name = Path(path).stem + ("" if scale == experiment.SCALES[0] else f"-{scale}")
    by_id: dict[str, Job] = {}
    for c, run in zip(configs, sweep, strict=True):
        info = RunInfo(
            experiment=name,
            run_id=NO_ID,
            label=labels.label(c, run, label_keys),
            overrides=run,
            question=_question(path),
        )
        known = c.data.unique_tokens and c.tokenizer.kind in tokenizers.SIZES
        if not fetch and known and build.to_fetch(c.corpus, c.tokenizer, workdir / "corpora"):
            size = tokenizers.SIZES[c.tokenizer.kind]
            plan = planning.plan(c, train_tokens=c.data.unique_tokens, vocab_size=size)
            job = Job(c, Path(), workdir / name / NO_ID, info, plan)
            by_id.setdefault(config.run_id(c, NO_ID), job)
            continue
        on_corpus(c.corpus.name)
        store = build.build(c.corpus, c.tokenizer, workdir / "corpora")
        plan = planning.plan(c, **store.sizes)
        key = config.run_id(c, store.fingerprint)
        info = dataclasses.replace(info, run_id=key)
        job = Job(c, store.path, workdir / name / key, info, plan)
        by_id.setdefault(key, job)
    jobs = _placed(list(by_id.values()), workdir / name)
    for job in jobs:
        if job.info.run_id != NO_ID and run_folder.status(job.folder) not in run_folder.DONE:
            planning.check(job.config, job.plan, machine)
    return _trunks(jobs, workdir / name / "trunks")


def _placed(jobs: list[Job], folder: Path) -> list[Job]:
    """Gives each run its folder: the one that it has already, under whatever label, else a new one."""
    places = names.places(folder, ((job.info.run_id, job.info.label) for job in jobs))
    return [dataclasses.replace(job, folder=place) for job, place in zip(jobs, places, strict=True)]


def _trunks(jobs: list[Job], folder: Path) -> list[Job]:
    """Names the trunk of each run that shares one with another of them; not in a bucket."""
    if bucket.place(folder) != folder.absolute():
        return jobs
    ids = []
    for job in jobs:
        if job.info.run_id == NO_ID:
            ids.append("")
            continue
        fingerprint = build.load(job.store).fingerprint
        ids.append(
            config.trunk_id(job.config, fingerprint, job.plan.warmup, job.plan.evaluate_every)
        )
    return [
        dataclasses.replace(job, trunk=folder / key if key and ids.count(key) > 1 else None)
        for job, key in zip(jobs, ids, strict=True)
    ]


def ordered(jobs: list[Job]) -> list[Job]:
    """Longest first; runs of one trunk together, the shortest of them first, as each leaves a state
    that the next goes on from.
    """
    longest: dict[Any, float] = {}
    for job in jobs:
        key = job.trunk or job.folder
        longest[key] = max(job.flops, longest.get(key, 0.0))
    return sorted(
        jobs, key=lambda job: (-longest[job.trunk or job.folder], str(job.trunk), job.flops)
    )


def writable(folder: Path) -> None:
    """Raises DlmError unless files can be made in the folder, which is made if it is missing."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise DlmError(
            f"--workdir={folder}: cannot write there ({error.strerror}); choose a folder you own"
        ) from error


def _question(path: str) -> str:
    """The first paragraph of an experiment's docstring."""
    text = ast.get_docstring(ast.parse(Path(path).read_bytes())) or ""
    return " ".join(text.split("\n\n")[0].split())
