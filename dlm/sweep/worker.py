"""Trains the runs it is told of, one JSON line each: `python -m dlm.sweep.worker CORE...`.

It stops, after saving a checkpoint, on SIGTERM or when its parent is gone (its standard input ends).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlm.errors import one_line

INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it


def main(cores: list[int]) -> int:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before JAX counts them
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log

    def tell(event: str, **row: Any) -> None:
        try:
            out.write(json.dumps({"event": event, **row}) + "\n")
        except BrokenPipeError:
            stopping.set()

    stopping, lines = threading.Event(), queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")
        if not idle.is_set():
            stopping.set()  # the parent went away in the middle of a run

    idle = threading.Event()
    idle.set()
    threading.Thread(target=listen, daemon=True).start()
    try:
        prepare_jax()
        while line := lines.get():
            idle.clear()
            if not work(json.loads(line), tell, stopping):
                return INTERRUPTED
            idle.set()
            if stopping.is_set():
                break
    except BaseException as error:  # not of the run, which `work` tells: of this process
        traceback.print_exc()
        tell("failed", reason=one_line(error))
        return 1
    return 0


def work(job: dict[str, Any], tell: Callable[..., None], stopping: threading.Event) -> bool:
    """Trains one run if it is free and not done; False if asked to stop in the middle."""
    from dlm import config
    from dlm.data import build
    from dlm.errors import one_line
    from dlm.runs import folder as run_folder
    from dlm.runs import schema
    from dlm.training import extension, loop, run

    folder, info = Path(job["folder"]), schema.RunInfo(**job["info"])
    c = config.from_json(job["config"])
    last, phase = 0.0, None

    def report(row: dict[str, Any]) -> None:
        nonlocal last, phase
        now = time.monotonic()
        if now - last > 0.2 or row.get("phase") != phase:  # a phase may be a long one
            last, phase = now, row.get("phase")
            tell("progress", **row)

    with run_folder.claim(folder) as mine:
        if not mine:
            tell("busy")
            return True
        if (status := run_folder.status(folder)) in run_folder.DONE:
            tell(status)
            return True
        tell("start")
        try:
            with run.recorded(folder, c, info):
                store = build.load(Path(job["store"]))
                if job["source"]:
                    extension.take(Path(job["source"]), folder, c, store)
                trunk = job["trunk"] and Path(job["trunk"])
                result = run.train_and_score(
                    c, store, folder, info, trunk=trunk, stop=stopping.is_set, report=report
                )
        except loop.Interrupted:
            return False
        except Exception as error:
            result = None
            with contextlib.suppress(Exception):  # it may not have been recorded: a full disk
                if run_folder.status(folder) in run_folder.DONE:  # it went wrong after its result
                    result = run_folder.read_result(folder)
            if result is None:
                tell(schema.FAILED, reason=one_line(error))
                return True
    tell(result.status, **schema.headline(result))
    return True


def prepare_jax() -> None:
    """Turns on the persistent compilation cache, in a folder that only the user can write.

    Small programs are kept too: together they take a new process a second to compile.
    """
    import jax

    from dlm import private

    folder = private.folder("xla")
    if folder is None:
        return  # every process compiles for itself
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


if __name__ == "__main__":
    code = 1
    try:
        code = main([int(core) for core in sys.argv[1:]])
        sys.stderr.flush()
    finally:
        os._exit(code)  # all is saved; no thread of a library may hold up the exit
