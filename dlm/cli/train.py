"""`dlm train`: trains one run in this process, or goes on with a finished one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dlm.cli import jobs as cli_jobs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import DONE
from dlm.errors import DlmError
from dlm.runs import addresses
from dlm.runs.schema import FINISHED, RunFailure, RunResult

if TYPE_CHECKING:
    from dlm.sweep.jobs import Job

SUMMARY = "train one run, in this process, or go on with a finished one"
EXAMPLES = """examples:
  dlm train experiments/smoke.py                        the first run of its sweep
  dlm train experiments/smoke.py --run 1                the second run of its sweep
  dlm train experiments/smoke.py --config.objective.name=masked --config.train.seed=3
  dlm train --extend 0123 --config.train.duration="400 epochs"

--extend makes a new run beside a finished one, in the bits of one trained from scratch. It begins at
the last checkpoint that both share: schedules constant and wsd have one, cosine has none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser, needed=False)
    parser.usage = "dlm train EXPERIMENT [options] [--config.GROUP.FIELD=VALUE ...]"
    options.add_distributed(parser)
    options.add_run_number(parser)
    parser.add_argument(
        "--extend", metavar="RUN", help="a finished run, to go on with for a longer duration"
    )
    options.add_trust(parser, "of --extend: run the objective file that it names")


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm import api

    if a.extend:
        return _extend(a, overrides)
    options.refuse(a, ["trust"], "only with --extend; an experiment's own files are yours")
    if not a.experiment:
        raise DlmError("dlm train: needs EXPERIMENT; dlm train --help shows examples")
    stop = cli_jobs.join(a)
    jobs = cli_jobs.plan_jobs_here(a, overrides)
    job = api.chosen(jobs, a.run or 0)
    print(f"{job.info.label}: {job.folder}", flush=True)
    cli_jobs.train_here([job], stop)
    from dlm.training import distributed

    return _tell(job) if distributed.primary() else DONE  # one of the hosts has the result


def _extend(a: argparse.Namespace, overrides: Overrides) -> int:
    for name, value in (("EXPERIMENT", a.experiment), ("--run", a.run)):
        if value is not None:
            raise DlmError(f"{name} {value}: goes without --extend, which takes all from its run")
    options.refuse(a, ["scale"], "goes without --extend, which takes all from its run")
    if a.distributed:
        raise DlmError("--distributed: goes without --extend; extend in one process")
    folder = addresses.run(a.extend, a.workdir)
    from dlm.sweep import extend

    stop = cli_jobs.join(a)
    job, begin = extend.extend(folder, overrides, a.trust)
    steps = f"from step {begin:,} of {job.plan.steps:,}"
    print(f"{job.info.label}: {job.folder}, {steps}", flush=True)
    cli_jobs.train_here([job], stop)
    return _tell(job)


def _tell(job: Job) -> int:
    from dlm.runs import folder as run_folder

    if problem := run_folder.problem(job.folder, job.info.run_id):
        raise DlmError(problem)
    result = run_folder.read_result(job.folder)
    print(_sentence(result))
    for warning in result.warnings if isinstance(result, RunResult) else ():
        print(f"warning: {warning}")
    return DONE


def _sentence(result: RunResult | RunFailure) -> str:
    if not isinstance(result, RunResult) or result.status != FINISHED:
        return f"{result.status}: {result.reason}"
    return (
        f"validation {result.validation_loss:.4f} ± {result.validation_stderr:.4f} "
        f"nats/token ({result.kind}) at epoch {result.best_epoch:.4g} of {result.epochs:.4g}"
    )
