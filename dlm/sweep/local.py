"""Trains the runs of an experiment in worker processes of this machine.

The parent never imports JAX. Each worker is a `python -m dlm.sweep.worker`, pinned to its cores or its
device before Python starts, told one run at a time by a JSON line; it answers with JSON lines. A run
belongs to whoever holds the lock on its folder, so several sweeps may share one directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm import format
from dlm.config import planning
from dlm.config.memory import Machine
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.runs.folder import DONE
from dlm.sweep.jobs import Job, ordered
from dlm.sweep.machine import placements

WORKER = (sys.executable, "-m", "dlm.sweep.worker")
GRACE = 5.0  # seconds that a worker has between closing its output and its end, either one first


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
    if run_folder.status(folder) != "failed":
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
