"""`dlm VERB`: a few lines per verb. JAX is imported by the verbs that compute, never for --help."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dlm import api, inputs
from dlm.cli import laws_verbs, trained, usage
from dlm.errors import DlmError, one_line, printed, reason, system_error
from dlm.format import fixed, scientific, size
from dlm.runs import addresses, bucket
from dlm.runs.schema import FINISHED, RunFailure, RunResult

DONE, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 75
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENFILE)


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="backslashreplace")
    with _terminable():
        try:
            return _main(sys.argv[1:] if argv is None else list(argv))
        except KeyboardInterrupt:
            words = "interrupted: what was finished is kept; the same command goes on"
            print(words, file=sys.stderr)
            return INTERRUPTED


def _main(argv: list[str]) -> int:
    workdir = "runs"
    try:
        arguments, words = usage.parse(argv)
        workdir = arguments.workdir
        from dlm.config import experiment

        overrides = [experiment.parse_override(word) for word in words]
        arguments.workdir = bucket.local(arguments.workdir)
        if problem := inputs.no_folder(arguments.workdir):
            raise DlmError(f"--workdir={arguments.workdir}: {problem}; must be a folder")
        if hasattr(arguments, "folder") and not getattr(arguments, "diff", None):
            arguments.folder = addresses.folder(arguments.folder, arguments.workdir)
        return ACTIONS[arguments.verb](arguments, overrides)
    except DlmError as error:
        print(printed(f"error: {error}"), file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader of a pipe left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except MemoryError as error:
        print(printed(f"error: not enough memory for this input: {reason(error)}"), file=sys.stderr)
        return USAGE
    except (OSError, ValueError) as error:
        refused = system_error(error)
        line = _refused(refused, workdir) if refused else ""
        if not line:
            raise
        print(printed(f"error: {line}"), file=sys.stderr)
        return USAGE


def _refused(error: OSError, workdir: Any) -> str:
    """What the system refuses, if that comes of the user's files and names; "" of anything else."""
    if error.errno in UNWRITABLE:
        kept = "what was saved before is kept, and the same command goes on from it"
        return f"{error.filename or workdir}: {error.strerror}; {kept}"
    if error.filename and error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        return f"{error.filename}: {error.strerror}; give another path"
    return ""


# --- verbs --------------------------------------------------------------------------------------


def _jobs(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> list:
    from dlm.sweep import local

    said: set[str] = set()

    def on_corpus(name: str) -> None:
        if name not in said:
            print(f"corpus {name}", flush=True)
        said.add(name)

    path, scale = arguments.experiment, arguments.scale
    dry = getattr(arguments, "dry_run", False)
    if dry or not getattr(arguments, "distributed", False):
        here = _machine(arguments)
        return local.jobs(path, scale, overrides, arguments.workdir, on_corpus, not dry, here)
    from dlm.model import sharding
    from dlm.training import distributed

    here = arguments.workdir.absolute()
    with distributed.primary_first(
        shared=bucket.place(here) == here
    ):  # it builds what others then find
        machine = sharding.machine()
        return local.jobs(path, scale, overrides, arguments.workdir, on_corpus, machine=machine)


def _machine(arguments: argparse.Namespace) -> Any:
    """Where the command trains; None if it trains nothing, or elsewhere."""
    from dlm.sweep import local

    if arguments.verb == "train":
        from dlm.model import sharding

        return sharding.machine()
    here = arguments.verb == "run" and arguments.executor == "local" and not arguments.dry_run
    return local.machine() if here else None


def _run(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> int:
    from dlm.report import page as report
    from dlm.runs import folder as run_folder
    from dlm.sweep import local, progress
    from dlm.sweep import slurm as executor

    if arguments.slurm and arguments.executor != "slurm":
        raise DlmError(f"--slurm {arguments.slurm[0]}: only with --executor slurm")
    if arguments.distributed and (arguments.jobs or arguments.executor != "local"):
        raise DlmError("--distributed: goes without --jobs and --executor; it takes run after run")
    if arguments.executor == "slurm":
        executor.check(arguments.slurm, arguments.jobs)
    slurm, dry = None, arguments.dry_run
    place = arguments.slurm, arguments.workdir / "slurm", arguments.jobs
    if arguments.executor == "slurm" and not dry:
        slurm = executor.cluster(*place)
    start = time.monotonic()
    stop = _join(arguments) if arguments.distributed and not dry else None
    jobs = _jobs(arguments, overrides)
    folder = jobs[0].folder.parent
    damaged = {job.info.run_id: run_folder.problem(job.folder, job.info.run_id) for job in jobs}
    problems = [f"unreadable: {problem}" for problem in damaged.values() if problem]
    todo = [
        job
        for job in jobs
        if not damaged[job.info.run_id] and run_folder.status(job.folder) not in local.DONE
    ]
    total = sum(job.flops for job in todo)
    counts = f"{len(todo)} to do" + (f", {len(problems)} unreadable" if problems else "")
    print(f"{len(jobs)} runs in {folder}, {counts}, {scientific(total)} FLOPs", flush=True)
    for problem in problems:
        print(problem, file=sys.stderr)
    if dry:
        for job in jobs:
            state = "no store" if job.info.run_id == local.NO_ID else run_folder.status(job.folder)
            state = run_folder.UNREADABLE if damaged[job.info.run_id] else state
            print(f"  {job.info.run_id}  {_size(job)}  {state:9} {job.info.label}")
        if arguments.executor == "slurm":
            print("\n".join(executor.planned(*place, len(todo))))
        return SOME_FAILED if problems else DONE
    ended: dict[str, str] = {}
    if stop:
        from dlm.training import distributed

        ended = _together(jobs, stop)
        if not distributed.primary():
            return DONE
    elif todo:
        devices = max(job.devices for job in todo)
        workers = arguments.jobs or local.default_workers(devices)
        here = _machine(arguments)
        if here and (problem := local.memory_warning(todo, workers, here)):
            print(f"warning: {problem}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        with progress.show(todo) as show:
            if slurm:
                ended = executor.execute(todo, slurm, show)
            else:
                ended = local.execute(todo, workers, folder / "workers.log", show)
    reported = False
    try:  # the runs are saved, whatever becomes of their report
        loaded = report.load(folder)
        page = report.write(folder, loaded=loaded)
        _print(report.summary(folder, loaded))
        print(f"report: {page}   ({time.monotonic() - start:.0f} s)")
        reported = True
    except Exception as error:
        print(
            f"no report: {one_line(error)}; the runs are saved, dlm report {folder} tries again",
            file=sys.stderr,
        )
    if problem := bucket.try_send(folder):
        print(f"not sent: {problem}; rerun the command to send", file=sys.stderr)
    failed = [job for job in todo if ended.get(job.info.run_id) == "failed"]
    for job in failed:
        print(f"failed: {job.info.label}: see {job.folder / 'error.txt'}", file=sys.stderr)
    return SOME_FAILED if failed or problems or not reported else DONE


def _size(job: Any) -> str:
    """What a planned run takes: training and scoring in FLOPs, memory of each device in bytes."""
    from dlm.config import planning
    from dlm.sweep import local

    anywhere = local.machine()._replace(devices=0)
    held = planning.bytes_on_device(job.config, job.plan, anywhere).total
    after = planning.work(job.config, job.plan).after
    scores = f" + {scientific(after)} to score and sample" if job.plan.held_out else ""
    return f"{scientific(job.flops)} FLOPs{scores}, {size(held)} a device"


def _train(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> int:
    if arguments.extend:
        return _extend(arguments, overrides)
    if not arguments.experiment:
        raise DlmError("dlm train: needs EXPERIMENT; dlm train --help shows examples")
    stop = _join(arguments)
    jobs = _jobs(arguments, overrides)
    job = api.chosen(jobs, arguments.run or 0)
    print(f"{job.info.label}: {job.folder}", flush=True)
    _together([job], stop)
    from dlm.training import distributed

    return (
        _tell(job) if distributed.primary() else DONE
    )  # of several hosts one has the result at hand


def _extend(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> int:
    for name, given in (("EXPERIMENT", arguments.experiment), ("--run", arguments.run)):
        if given is not None:
            raise DlmError(f"{name} {given}: goes without --extend, which takes all from its run")
    if arguments.distributed:
        raise DlmError("--distributed: goes without --extend; extend in one process")
    folder = addresses.run(arguments.extend, arguments.workdir)
    from dlm.sweep.local import Job
    from dlm.training import extension

    stop = _join(arguments)
    longer = extension.extend(folder, overrides, arguments.trust)
    job = Job(longer.config, longer.store, longer.folder, longer.info, longer.plan)
    begin = f"from step {longer.begin:,} of {job.plan.steps:,}"
    print(f"{job.info.label}: {job.folder}, {begin}", flush=True)
    _together([job], stop)
    return _tell(job)


def _join(arguments: argparse.Namespace) -> Callable[[], bool]:
    """Readies this process to train, alone or with others; returns what asks whether to stop.

    With --distributed all but the primary process are silent.
    """
    from dlm.sweep import worker
    from dlm.training import distributed

    worker.prepare_jax()
    if arguments.distributed:
        distributed.start()
        if not distributed.primary():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
        return distributed.preempted()
    stopping: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stopping.append(number))
    return lambda: bool(stopping)


def _together(jobs: list, stop: Callable[[], bool]) -> dict[str, str]:
    from dlm.sweep import in_process, progress
    from dlm.training import loop

    with progress.show(jobs) as show:
        try:
            return in_process.execute(jobs, stop, show)
        except loop.Interrupted:
            raise KeyboardInterrupt from None


def _runs(arguments: argparse.Namespace, overrides: list) -> int:
    from dlm import runs
    from dlm.report.terminal import grid

    folder = arguments.folder
    if arguments.diff:
        if folder:
            raise DlmError(f"{folder}: --diff takes two runs and no folder")
        return _show(trained.difference(arguments.diff, arguments.workdir))
    found = api.load(folder)
    rows = [
        [
            row["run"],
            row["status"],
            fixed(row["validation_loss"], 4),
            row["experiment"],
            row["label"],
        ]
        for row in runs.rows(found)
    ]
    rows = [[cell or "" for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print([grid(("run", "status", "loss", "experiment", "label"), rows)])
    else:  # a line a run, for other programs
        for run, status, loss, name, label in rows:
            print(f"{run}  {status:10} {loss:8} {name}: {label}")
    tables = runs.write_table(found, folder)
    print(f"{len(found)} runs; {tables[0]}, {tables[1]}")
    return DONE


def _report(arguments: argparse.Namespace, overrides: list) -> int:
    from dlm.report import page as report

    folder = arguments.folder
    if folder.is_file():
        if arguments.reference:
            raise DlmError(
                "--reference: only with a folder of runs; a table's report compares none"
            )
        chosen = arguments.columns, arguments.figure, arguments.width
        return _show(laws_verbs.report(folder, arguments.law, *chosen))
    if arguments.columns:
        raise DlmError("--columns: only with a table; the runs of a folder have known columns")
    laws_verbs.check_figures(arguments.figure, arguments.width, report.FIGURES)
    loaded = report.load(folder, arguments.reference)
    page = report.write(folder, arguments.figure, arguments.width, loaded)
    _print(report.summary(folder, loaded))
    print(f"report: {page}")
    return DONE


def _corpus(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> int:
    from dlm.data import build

    for path in dict.fromkeys(job.store for job in _jobs(arguments, overrides)):
        manifest = build.load(path).manifest
        print(f"{manifest.name}: {path}")
        print(f"  fingerprint {manifest.fingerprint}")
        kind = manifest.tokenizer or "ids"
        print(f"  vocabulary {manifest.vocab_size:,} ({kind}), Python {manifest.python}")
        for name, part in (("training", manifest.train), ("validation", manifest.validation)):
            what = "passages" if manifest.cut_documents else "documents"
            documents = f"{part.documents:,} {what} ({part.unique_documents:,} distinct)"
            print(f"  {name}: {documents}, {part.tokens:,} tokens")
        if manifest.entropy is not None:
            print(f"  entropy of the source: {manifest.entropy:.4f} nats/token of whole documents")
        print(f"  distinct 13-grams of training tokens: {manifest.unique_ngrams:.1%}")
        for sentence in build.notes(manifest):
            print(f"  note: {sentence}")
    return DONE


def _benchmark(arguments: argparse.Namespace, overrides: list[tuple[str, Any]]) -> int:
    from dlm.data import build

    given = None
    if arguments.experiment and arguments.size:
        named = arguments.size[0]
        raise DlmError(f"--size {named}: goes without an experiment, whose model has a size")
    if arguments.experiment:
        jobs = _jobs(arguments, overrides)
        job = api.chosen(jobs, arguments.run)
        given = job.info.label, job.config, build.load(job.store).vocab_size
    return _show(trained.benchmark(arguments, overrides, given))


def _tensorboard(arguments: argparse.Namespace, overrides: list) -> int:
    folder = arguments.folder
    if not folder.is_dir():
        raise DlmError(f"{folder}: is a file; name a folder of runs")
    words = ["-m", "tensorboard.main", "--logdir", str(folder), "--port", str(arguments.port)]
    os.execv(sys.executable, [sys.executable, *words])


ACTIONS: dict[str, Callable[[argparse.Namespace, list], int]] = {
    "run": _run,
    "train": _train,
    **{
        verb: lambda arguments, overrides, verb=verb: _show(trained.ACTIONS[verb](arguments))
        for verb in trained.ACTIONS
    },
    "runs": _runs,
    "report": _report,
    "corpus": _corpus,
    "benchmark": _benchmark,
    "check-objective": lambda arguments, overrides: _show(trained.check(arguments, overrides)),
    "tensorboard": _tensorboard,
    "fit": lambda arguments, overrides: _show(laws_verbs.fit(arguments)),
    "critical": lambda arguments, overrides: _show(laws_verbs.critical(arguments)),
    "figures": lambda arguments, overrides: _show(laws_verbs.figures(arguments)),
}


def _tell(job: Any) -> int:
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


@contextlib.contextmanager
def _terminable():
    """SIGTERM, as schedulers send it, is taken like ctrl-C: save, then leave."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(renderables: Iterable[Any]) -> int:
    _print(renderables)
    return DONE


def _print(renderables: Iterable[Any]) -> None:
    from rich.console import Console

    console = Console()
    for item in renderables:
        if isinstance(item, str):  # a path is not broken, a bracket is no markup
            print(item, flush=True)
        else:
            console.print(item)
