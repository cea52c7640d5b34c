"""An experiment's runs: expand, skip what is done, run the rest in worker processes, resume.

The parent never imports JAX. Each worker is a `python -m dlm.sweep.worker`, pinned to its cores or its
device before Python starts, told one run at a time by a JSON line; it answers with JSON lines. A run
belongs to whoever holds the lock on its folder, so several sweeps may share one directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm import config, format, private
from dlm.config import experiment, labels, planning
from dlm.config.memory import Machine, host_memory
from dlm.data import build, tokenizers
from dlm.errors import DlmError
from dlm.runs import bucket
from dlm.runs import folder as run_folder
from dlm.runs.folder import DONE
from dlm.runs.schema import FAILED, RunInfo
from dlm.training import environment

# glibc: back large allocations by huge pages and keep them; measured in BUILD_NOTES.md.
HUGE_PAGES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=8000000000",
        "glibc.malloc.trim_threshold=16000000000",
    )
)
# What JAX reads the share of a GPU's memory from; it refuses both names at once.
GPU_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
NO_ID = "----------"  # of a job that is only planned, its corpus being elsewhere
WORKER = (sys.executable, "-m", "dlm.sweep.worker")
GRACE = 5.0  # seconds that a worker has between closing its output and its end, either one first


@dataclass(frozen=True)
class Job:
    """One run of an experiment, ready to start."""

    config: config.Config
    store: Path
    folder: Path
    info: RunInfo
    plan: planning.Plan
    trunk: Path | None = (
        None  # of states that it shares with other runs; see `dlm.training.loop.train`
    )

    @property
    def flops(self) -> float:
        return self.plan.steps * self.plan.flops_per_step

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
            )
        )


def jobs(
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
    found: dict[str, Job] = {}
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
            found.setdefault(config.run_id(c, NO_ID), job)
            continue
        on_corpus(c.corpus.name)
        store = build.build(c.corpus, c.tokenizer, workdir / "corpora")
        tokens = dict(train_tokens=len(store.train), validation_tokens=len(store.validation))
        plan = planning.plan(c, **tokens, vocab_size=store.vocab_size)
        planning.check_length(c, store.document_length, len(store.validation))
        key = config.run_id(c, store.fingerprint)
        info = dataclasses.replace(info, run_id=key)
        job = Job(c, store.path, workdir / name / key, info, plan)
        if run_folder.status(job.folder) not in DONE:
            planning.check(c, plan, machine)
        found.setdefault(key, job)
    return _trunks(list(found.values()), workdir / name / "trunks")


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
    import ast

    text = ast.get_docstring(ast.parse(Path(path).read_bytes())) or ""
    return " ".join(text.split("\n\n")[0].split())


# --- workers ------------------------------------------------------------------------------------


@dataclass
class Worker:
    number: int
    process: subprocess.Popen
    job: Job | None = None
    leaving: bool = False  # told to end, after a run that failed in it


Event = tuple[Worker, dict[str, Any]]


def execute(
    todo: list[Job], workers: int, log: Path, show: Callable[[str, Job, dict[str, Any]], None]
) -> dict[str, str]:
    """Runs every job that is not done (see `ordered`); returns run id -> status.

    `show(event, job, row)` is told "start", "progress", "finished", "diverged" and "failed". A run
    that another process holds is looked at again until that process is done with it or gone. A
    worker that dies, or in which a run fails, is replaced: it may be out of memory or handles.

    Raises:
      KeyboardInterrupt: after every worker has saved a checkpoint.
    """
    waiting = ordered(todo)
    ended: dict[str, str] = {}
    events: queue.Queue[Event] = queue.Queue()
    pool: list[Worker] = []
    places = placements(workers, max((job.devices for job in todo), default=1))
    try:
        while len(ended) < len(todo):
            for number in range(workers):
                worker = next((w for w in pool if w.number == number), None)
                if worker and (worker.job or worker.leaving):
                    continue
                busy = {w.job.trunk for w in pool if w.job and w.job.trunk}
                job = _next(waiting, ended, busy)
                if job is None:
                    continue
                if worker is None:
                    worker = _start(number, places[number], log, events)
                    pool.append(worker)
                worker.job = job
                _send(worker, job.message())
            try:
                worker, row = events.get(timeout=0.5)
            except queue.Empty:
                continue
            job, kind = worker.job, row.pop("event")
            if kind == "exit":
                pool.remove(worker)
            if job is None:
                continue
            if kind == "exit":
                kind, row = run_folder.status(job.folder), {}
                if kind not in DONE:  # it may have died after its result was written
                    kind, row = "failed", {"reason": _death(worker.process.wait(), log)}
            if kind == "busy":
                worker.job = None
                waiting.append(job)
                time.sleep(0.2)
                continue
            if kind == "failed":
                _retire(worker)
                if row["reason"] != _recorded_reason(job.folder):  # the worker could not
                    run_folder.fail(job.folder, job.config, job.info, DlmError(row["reason"]))
            show(kind, job, row)
            if kind in (*DONE, "failed"):
                worker.job = None
                ended[job.info.run_id] = kind
    finally:
        _stop(pool)
    return ended


def _next(waiting: list[Job], ended: dict[str, str], busy: set[Path]) -> Job | None:
    """Takes the next job whose trunk is not busy; one that another sweep has finished meanwhile is
    counted, not run.
    """
    while free := [job for job in waiting if job.trunk not in busy]:
        job = free[0]
        waiting.remove(job)
        status = run_folder.status(job.folder)
        if status not in run_folder.SETTLED:
            return job
        ended[job.info.run_id] = status
    return None


def placements(workers: int, devices: int) -> list[dict[str, Any]]:
    """For each worker its cores and, if there are GPUs, its share of them: the environment it starts
    in. Workers on one GPU share the three quarters of its memory that JAX takes for one process.

    Raises:
      DlmError: there are fewer GPUs than a run's mesh takes.
    """
    gpus, cores = _gpus(), environment.cores()
    if gpus and devices > len(gpus):
        raise DlmError(
            f"config.mesh: takes {devices} GPUs; this machine shows {len(gpus)}; several machines "
            "are joined by --distributed"
        )
    shares = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    places = []
    for number in range(workers):
        env = {}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = shares[number % len(shares)]
            together = len(range(number % len(shares), workers, len(shares)))
            if together > 1 and not any(name in os.environ for name in GPU_MEMORY):
                env[GPU_MEMORY[0]] = f"{0.75 / together:.3f}"
        elif sys.platform == "linux":
            env["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES") or HUGE_PAGES
        mine = cores if gpus or workers > len(cores) else cores[number::workers]
        places.append({"env": env, "cores": mine})
    return places


def default_workers(devices: int) -> int:
    """One for each `devices` GPUs, what a run's mesh takes; on CPU one per core; one for a TPU host."""
    if gpus := _gpus():
        return max(len(gpus) // devices, 1)
    return 1 if _tpu() else len(environment.cores())


def _gpus() -> list[str]:
    """The GPUs by their names in CUDA_VISIBLE_DEVICES; where that is not set, all of this machine."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        # As CUDA reads it: an index or an id; what is neither, such as -1, ends the list.
        return list(itertools.takewhile(re.compile(r"\d|GPU-|MIG-").match, map(str.strip, names)))
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def machine() -> Machine:
    """Where the workers of this machine train, as far as that is known without JAX: the memory of a
    GPU or a TPU is not, nor the number of its TPU chips.
    """
    if gpus := _gpus():
        return Machine(len(gpus), math.inf, cpu=False, whole=False)
    if _tpu():
        return Machine(0, math.inf, cpu=False)
    flags = os.environ.get("XLA_FLAGS", "")
    counts = re.findall(r"--xla_force_host_platform_device_count=([1-9]\d*)", flags)
    counts += re.findall(r"^[1-9]\d*$", os.environ.get("JAX_NUM_CPU_DEVICES", ""))
    devices = int([1, *counts][-1])
    return Machine(devices, host_memory() / devices, cpu=True)


def memory_warning(todo: list[Job], workers: int, here: Machine) -> str:
    """One line if the runs that train at a time are estimated to need more memory than there is."""
    sizes = [planning.bytes_on_device(job.config, job.plan, here).total for job in todo]
    at_once = min(workers, len(todo)) if here.cpu else 1
    needs = sum(sorted(sizes)[-at_once:])
    if needs <= here.memory:
        return ""
    fewer = f"; --jobs {max(int(here.memory / max(sizes)), 1)} takes less" if at_once > 1 else ""
    return (
        f"runs, {at_once} at a time, may take {format.size(needs)} of memory, and "
        f"{format.size(here.memory)} are free{fewer}"
    )


def _tpu() -> bool:
    """Whether this is a TPU host: it shows chips as /dev/accel0, since v5e also as /dev/vfio/0."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(any(Path("/dev").glob(chips)) for chips in ("accel[0-9]*", "vfio/[0-9]*"))


def _start(number: int, place: dict[str, Any], log: Path, events: queue.Queue[Event]) -> Worker:
    """Starts a worker. Two threads tell of its events and, whatever ends it, of its "exit"."""
    command = [*WORKER, *map(str, place["cores"])]
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=os.environ | place["env"],
            start_new_session=True,  # ctrl-C reaches the parent alone, which asks them to save
        )
    worker = Worker(number, process)

    def listen() -> None:
        assert process.stdout
        with process.stdout as lines, contextlib.suppress(ValueError):  # cut short by its death
            for line in lines:
                events.put((worker, json.loads(line)))
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:  # nobody hears it any more
            process.kill()

    listener = threading.Thread(target=listen, daemon=True)

    def await_end() -> None:
        process.wait()
        listener.join(GRACE)  # its last lines; a process that it started may hold the pipe open
        events.put((worker, {"event": "exit"}))

    listener.start()
    threading.Thread(target=await_end, daemon=True).start()
    return worker


def _death(code: int, log: Path) -> str:
    """Why a worker ended in the middle of a run, by its exit code."""
    if code >= 0:
        return f"its worker process ended with code {code}; see {log}"
    cause = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        cause += ", as the system does if memory runs out"
    return f"its worker process was ended by {cause}; see {log}"


def _recorded_reason(folder: Path) -> str:
    if run_folder.status(folder) != FAILED:
        return ""
    return run_folder.read_result(folder).reason or ""


def _retire(worker: Worker) -> None:
    """Lets an idle worker end, which it does when its input ends; one that does not is killed."""
    worker.leaving = True
    assert worker.process.stdin
    with contextlib.suppress(OSError):
        worker.process.stdin.close()
    patience = threading.Timer(GRACE, worker.process.kill)
    patience.daemon = True
    patience.start()


def _send(worker: Worker, line: str) -> None:
    assert worker.process.stdin
    with contextlib.suppress(OSError):  # it is gone; its "exit" event says so
        worker.process.stdin.write(line + "\n")
        worker.process.stdin.flush()


def _stop(pool: list[Worker]) -> None:
    """Asks every worker to save and leave, and waits for it."""
    for worker in pool:
        if worker.job and worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
        else:
            _retire(worker)
    for worker in pool:
        worker.process.wait()
