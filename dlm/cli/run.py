"""`dlm run`: trains every run of an experiment, then writes its table and report."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlm import inputs
from dlm.cli import forecast, options
from dlm.cli import jobs as cli_jobs
from dlm.cli.options import Overrides
from dlm.cli.output import DONE, SOME_FAILED, show
from dlm.errors import DlmError, one_line
from dlm.format import scientific, size
from dlm.runs import bucket, names

if TYPE_CHECKING:
    from dlm.sweep.jobs import Job

SUMMARY = "train every run of an experiment, then write its table and report"
EXAMPLES = """examples:
  dlm run experiments/quickstart.py                     all of it, a worker a core
  dlm run experiments/smoke.py --jobs 1                 one run at a time
  dlm run experiments/topics.py --config.model.layers=4  every run with four layers
  dlm run experiments/quickstart.py --dry-run           list the runs and their FLOPs
  dlm run experiments/quickstart.py --distributed       on every host of a pod: one run at a time
  dlm run experiments/smoke.py --extend --config.train.duration="400 epochs"
  dlm run experiments/quickstart.py --executor slurm --slurm time=720 --slurm gpus_per_node=1

--extend trains longer runs in the bits of runs from scratch: each begins at the last checkpoint that it
shares with the finished run which differs in duration alone. Schedules constant and wsd have one,
cosine has none.

Rerun the command to resume: finished runs are skipped. Exit codes: 0 all runs done, 1 a run failed
(its error.txt says why), 2 a mistake in the input, 75 interrupted, saved."""

MOST_WORKERS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser)
    parser.add_argument(
        "--jobs",
        type=inputs.whole(0, MOST_WORKERS),
        default=0,
        help="worker processes (default: a core each)",
    )
    options.add_distributed(parser)
    words = "go on from finished runs that differ in their duration alone"
    parser.add_argument("--extend", action="store_true", help=words)
    parser.add_argument("--dry-run", action="store_true", help="list the runs, train nothing")
    parser.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="here, or a job for each run",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for sbatch; time in minutes",
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    _check(a)
    start = time.monotonic()
    submit = _cluster(a) if a.executor == "slurm" and not a.dry_run else None
    stop = cli_jobs.join(a) if a.distributed and not a.dry_run else None
    if stop:
        jobs = cli_jobs.plan_jobs_here(a, overrides)
    else:
        jobs = cli_jobs.plan_jobs(a, overrides, _machine(a), fetch=not a.dry_run)
    if a.extend:
        from dlm.sweep import extend

        jobs = extend.with_sources(jobs)
    plan = _sort_out(jobs)
    _announce(a, plan)
    if a.dry_run:
        return _list(a, plan)
    ended: dict[str, str] = {}
    if stop:
        from dlm.training import distributed

        ended = cli_jobs.train_here(jobs, stop)
        if not distributed.primary():
            return DONE
    elif plan.todo:
        ended = _train(a, plan, submit)
    reported = _report(plan.folder, start)
    failed = [job for job in plan.todo if ended.get(job.info.run_id) == "failed"]
    for job in failed:
        print(f"failed: {job.info.label}: see {job.folder / 'error.txt'}", file=sys.stderr)
    return SOME_FAILED if failed or plan.problems or not reported else DONE


class _Plan(NamedTuple):
    """The runs of the experiment, sorted by what is to be done."""

    jobs: list[Job]
    todo: list[Job]
    damaged: dict[str, str]  # run id -> why it cannot be read; "" for most

    @property
    def folder(self) -> Path:
        return self.jobs[0].folder.parent

    @property
    def problems(self) -> list[str]:
        return [problem for problem in self.damaged.values() if problem]


def _sort_out(jobs: list[Job]) -> _Plan:
    from dlm.runs import folder as run_folder

    damaged = {job.info.run_id: run_folder.problem(job.folder, job.info.run_id) for job in jobs}
    whole = [job for job in jobs if not damaged[job.info.run_id]]
    todo = [job for job in whole if run_folder.status(job.folder) not in run_folder.DONE]
    return _Plan(jobs, todo, damaged)


def _announce(a: argparse.Namespace, plan: _Plan) -> None:
    """Prints what is to be done and what it takes; warns of a long run that cannot answer."""
    from dlm.sweep import machine

    unreadable = f", {len(plan.problems)} unreadable" if plan.problems else ""
    counts = f"{len(plan.todo)} to do{unreadable}"
    if plan.todo:
        devices = max(job.devices for job in plan.todo)
        workers = a.jobs or machine.default_workers(devices)
        takes, how = forecast.of_finished(plan.todo, a.workdir, workers)
        counts += f", {forecast.words(takes, workers, how)}"
    print(f"{len(plan.jobs)} runs in {plan.folder}, {counts}", flush=True)
    for warning in forecast.warnings(plan.todo, takes.seconds) if plan.todo else ():
        print(f"warning: {warning}", file=sys.stderr)
    for problem in plan.problems:
        print(f"unreadable: {problem}", file=sys.stderr)


def _check(a: argparse.Namespace) -> None:
    """Refuses options that do not go together, before a corpus is built."""
    if a.slurm and a.executor != "slurm":
        raise DlmError(f"--slurm {a.slurm[0]}: only with --executor slurm")
    if a.distributed and (a.jobs or a.executor != "local"):
        raise DlmError("--distributed: goes without --jobs and --executor; it takes run after run")
    if a.distributed and a.extend:
        raise DlmError("--distributed: goes without --extend; extend by worker processes")
    if a.executor == "slurm":
        from dlm.sweep import slurm

        slurm.parameters(a.slurm, a.jobs)


def _machine(a: argparse.Namespace) -> Any:
    """Where the workers train; None if the command trains nothing, or elsewhere."""
    from dlm.sweep import machine

    return machine.machine() if a.executor == "local" and not a.dry_run else None


def _cluster(a: argparse.Namespace) -> Any:
    from dlm.sweep import slurm

    return slurm.cluster(a.slurm, a.workdir / "slurm", a.jobs)


def _list(a: argparse.Namespace, plan: _Plan) -> int:
    """`--dry-run`: one line for each run."""
    from dlm.runs import folder as run_folder
    from dlm.sweep import jobs, slurm

    for job in plan.jobs:
        run = job.info.run_id
        state = "no store" if run == jobs.NO_ID else run_folder.status(job.folder)
        state = run_folder.UNREADABLE if plan.damaged[run] else state
        source = f" from {names.run_id(job.source)}" if job.source else ""
        print(f"  {run}  {_size(job)}  {state:9} {job.info.label}{source}")
    if a.executor == "slurm":
        print("\n".join(slurm.planned(a.slurm, a.workdir / "slurm", a.jobs, len(plan.todo))))
    return SOME_FAILED if plan.problems else DONE


def _size(job: Job) -> str:
    """What a planned run takes: training and scoring in FLOPs, memory of each device in bytes."""
    from dlm.config import planning
    from dlm.sweep import machine

    anywhere = machine.machine()._replace(devices=0)
    held = planning.bytes_on_device(job.config, job.plan, anywhere).total
    after = job.work.after
    scores = f" + {scientific(after)} to score and sample" if job.plan.held_out else ""
    return f"{scientific(job.flops)} FLOPs{scores}, {size(held)} a device"


def _train(a: argparse.Namespace, plan: _Plan, cluster: Any) -> dict[str, str]:
    """Trains what is to be done by workers of this machine or by Slurm; run id -> status."""
    from dlm.sweep import local, machine, progress, slurm

    workers = a.jobs or machine.default_workers(max(job.devices for job in plan.todo))
    here = _machine(a)
    if here and (problem := local.memory_warning(plan.todo, workers, here)):
        print(f"warning: {problem}", file=sys.stderr)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with progress.show(plan.todo) as tell:
        if cluster:
            return slurm.execute(plan.todo, cluster, tell)
        return local.execute(plan.todo, workers, plan.folder / "workers.log", tell)


def _report(folder: Path, start: float) -> bool:
    """Writes and prints the report; the runs are saved, whatever becomes of it."""
    from dlm.report import page

    written = False
    try:
        loaded = page.load(folder)
        path = page.write(folder, loaded=loaded)
        show(page.summary(folder, loaded))
        print(f"report: {path}   ({time.monotonic() - start:.0f} s)")
        written = True
    except Exception as error:
        print(
            f"no report: {one_line(error)}; the runs are saved, dlm report {folder} tries again",
            file=sys.stderr,
        )
    if problem := bucket.try_send(folder):
        print(f"not sent: {problem}; rerun the command to send", file=sys.stderr)
    return written
