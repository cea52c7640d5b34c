"""The run folder: the names of its files, its lock, and what was made of the run in it.

config.json and run.json are written at the start, result.json last: if it is there, and its status is
not "failed", the run is done. All three are sealed (`dlm.sealed`), and result.json holds the sha256
of each other file, so that files that do not belong together are found out.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from dlm import config, disk, inputs, sealed
from dlm.errors import DlmError, one_line, reason
from dlm.runs import schema
from dlm.runs.schema import (
    DIVERGED,
    FAILED,
    FINISHED,
    UNREADABLE,
    RunFailure,
    RunInfo,
    RunResult,
    RunStart,
)

CONFIG, START, RESULT, ERROR = "config.json", "run.json", "result.json", "error.txt"
LOG = "metrics.jsonl"
LEDGER, NLL, NLL_DOCUMENTS = "ledger.npy", "nll.npy", "nll_documents.npy"
SAMPLES, SAMPLES_TEXT = "samples.npy", "samples.txt"
LOCK, CHECKPOINTS, TENSORBOARD = ".lock", "checkpoints", "tensorboard"

WRITTEN_INTO = (LOCK, LOG, TENSORBOARD, CHECKPOINTS)
# Files whose sha256 stands in result.json, if they are there.
SEALED = (CONFIG, START, LOG, LEDGER, NLL, NLL_DOCUMENTS, SAMPLES, SAMPLES_TEXT)

DONE = (FINISHED, DIVERGED)  # statuses of a run that is not trained again
SETTLED = (*DONE, UNREADABLE)  # statuses of a run that is left alone by whatever trains


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Yields whether this process alone may work in a run's folder. The lock goes with the process.

    Raises:
      DlmError: the folder, or a thing in it that is written into, is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent, folder, *(folder / name for name in WRITTEN_INTO)):
        disk.refuse_link(path)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


# --- reading ------------------------------------------------------------------------------------


def status(folder: Path) -> str:
    """new, started, failed, finished, diverged or unreadable. The first three are to be trained."""
    return _status(folder, "")[0]


def problem(folder: Path, run_id: str = "") -> str:
    """Why a run is unreadable and what to do, in one line; "" if it is not.

    `run_id`: the id that a result in this folder must have.
    """
    return _status(folder, run_id)[1]


def _status(folder: Path, run_id: str) -> tuple[str, str]:
    try:
        names = os.listdir(folder)
        if RESULT not in names:
            return "started" if START in names else "new", ""
        values = sealed.read(folder / RESULT)
        result = schema.result(values)
        if run_id and result.run_id != run_id:
            raise DlmError(f"{RESULT} is of run {result.run_id!r}, not of {run_id!r}")
        sealed.check_files(folder, values)
    except FileNotFoundError:
        return "new", ""
    except OSError as error:
        return UNREADABLE, f"{folder}: cannot be read: {reason(error)}"
    except DlmError as error:
        remedy = f"delete its {RESULT} and it is finished again from its checkpoint"
        return UNREADABLE, f"{folder}: {error}; {remedy}"
    return result.status, ""


def read_json(path: Path) -> dict[str, Any]:
    """A sealed file of a run, without its digest.

    Raises:
      DlmError: it is missing, unreadable, or not as it was written.
    """
    with _naming(path.parent):
        return sealed.read(path)


def read_start(folder: Path) -> RunStart:
    """run.json of a run. Raises DlmError if it is missing, damaged or of another version."""
    with _naming(folder):
        return schema.start(sealed.read(folder / START))


def read_result(folder: Path) -> RunResult | RunFailure:
    """result.json of a run. Raises DlmError if it is missing, damaged or of another version."""
    with _naming(folder):
        return schema.result(sealed.read(folder / RESULT))


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Puts the folder before an error that names a file in it."""
    try:
        yield
    except DlmError as error:
        raise DlmError(f"{folder}: {error}") from None


class Rows(NamedTuple):
    """The rows of a log, the line that each stands in, and what is wrong with the first other line."""

    rows: list[dict[str, Any]]
    lines: list[str]  # with their line ends
    problem: str  # "" if every line is a row


def read_rows(path: Path) -> Rows:
    """Reads metrics.jsonl: a JSON object with a whole number `step` in each line.

    A last line without a line end was cut short by a kill; it is left out and is no problem.

    Raises:
      OSError: the file is missing, cannot be read, or is no regular file.
    """
    text = inputs.read_bytes(path).decode(errors="replace")
    rows, lines, problem = [], [], ""
    whole = text.splitlines(keepends=True)
    for number, line in enumerate(whole, 1):
        try:
            row = json.loads(line)
            if isinstance(row["step"], bool) or not isinstance(row["step"], int):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            cut_short = number == len(whole) and not line.endswith("\n")
            if not cut_short:
                problem = problem or f"line {number} is not a JSON object with a step"
            continue
        rows.append(row)
        lines.append(line.rstrip("\r\n") + "\n")
    return Rows(rows, lines, problem)


# --- writing ------------------------------------------------------------------------------------


def begin(folder: Path, c: config.Config, start: RunStart) -> None:
    """Writes config.json and run.json, and removes what an earlier failure left.

    Raises:
      DlmError: the folder has a result that cannot be read; it stays.
    """
    if words := problem(folder):
        raise DlmError(words)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    sealed.write(folder / CONFIG, config.to_json(c))
    sealed.write(folder / START, schema.to_json(start), [CONFIG])


def finish(folder: Path, result: RunResult) -> None:
    """Writes result.json, last of all, with the digests of the files beside it."""
    there = os.listdir(folder)
    files = [name for name in SEALED if name in there]
    sealed.write(folder / RESULT, schema.to_json(result), files)


def fail(folder: Path, c: config.Config, info: RunInfo, error: BaseException) -> str:
    """Records a failed run with its traceback; returns the reason in one line.

    A result that is there stays, unless it is that of an earlier failure.
    """
    words = one_line(error)
    if status(folder) not in SETTLED:
        folder.mkdir(parents=True, exist_ok=True)
        disk.write(folder / ERROR, "".join(traceback.format_exception(error)))
        failure = RunFailure(**identity(c, info), status=FAILED, reason=words)
        sealed.write(folder / RESULT, schema.to_json(failure))
    return words


def identity(c: config.Config, info: RunInfo) -> dict[str, Any]:
    """The fields of a result that tell which run it is of, whatever became of it."""
    return dict(
        experiment=info.experiment,
        run_id=info.run_id,
        label=info.label,
        objective=c.objective.name,
        corpus=c.corpus.name,
        seed=c.train.seed,
        kind=c.objective.family.kind,
    )
