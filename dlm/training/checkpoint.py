"""Checkpoints by Orbax: everything that a run needs to resume, in one folder a step, with checksums.

A folder holds `state` (step, parameters, optimizer, average), `best` (the weights with the best
validation loss so far), `ledger` (exposures) and `progress` (JSON, with the place in the data). They
lie in one folder, so a kill between two writes cannot leave the best weights ahead of the state. Each
process saves its shards, and restores those of its devices; the number of devices may differ.

When Orbax has finished a folder, the primary process adds SHA256SUMS, the checksums of its files, as
`sha256sum --check` reads them. A folder without SHA256SUMS is a save that was cut short, and does not
count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from dlm.errors import DlmError, reason
from dlm.runs import bucket
from dlm.training import distributed

SUMS = "SHA256SUMS"
KEEP = 2  # checkpoints of a run: the last, and the one before it in case the last gets damaged
LEAST_SLICE = 1 << 20  # bytes; an array with a smaller share for each device is saved by one
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
# Copies that stay valid after the originals are donated to the next step.
copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


class Damaged(DlmError):
    """A folder has checkpoints, but none is as it was saved."""


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints of one run or trunk, and the save under way."""

    folder: epath.Path
    owner: str  # the id of the run or trunk, which each checkpoint holds too
    keep: int | None  # how many of the latest checkpoints to keep; None: all
    finisher: futures.ThreadPoolExecutor
    saving: futures.Future[None] | None = None

    def steps(self) -> list[int]:
        """The steps whose saves were finished, in order. Their files may have been damaged since."""
        return [
            step for step in _numbered(self.folder) if (self.folder / f"{step}" / SUMS).exists()
        ]

    def wait(self) -> None:
        """Waits for the save under way. Raises the error that ended it, if there was one."""
        saving, self.saving = self.saving, None
        try:
            if saving:
                saving.result()
        except Exception as error:  # Orbax tells a full disk as a ValueError
            for number in DISK_ERRORS:
                if not isinstance(error, OSError) and os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number), str(self.folder)) from error
            raise


@contextlib.contextmanager
def open_checkpoints(folder: Path, owner: str, keep: int | None = KEEP) -> Iterator[Checkpoints]:
    """Opens the checkpoints in a folder, here or in its bucket; at the end waits for the last save."""
    with futures.ThreadPoolExecutor(1, "checkpoint") as finisher:
        checkpoints = Checkpoints(epath.Path(bucket.place(folder)), owner, keep, finisher)
        try:
            yield checkpoints
        finally:
            checkpoints.wait()


# --- saving -------------------------------------------------------------------------------------


def save(
    checkpoints: Checkpoints,
    progress: dict[str, Any],
    ledger: np.ndarray,
    files: Mapping[str, bytes] | None = None,
    **parts: Any,
) -> None:
    """Starts to save; the arrays may be changed or donated as soon as it returns.

    The arrays are copied first: on a CPU a host array is a view of the device's buffer, and the next
    step would write into it while Orbax still writes it out. `progress` is written later too.
    `files` (name -> content) are added beside the parts.

    Raises:
      OSError, or any exception of Orbax: the save before this one failed.
    """
    checkpoints.wait()
    step = progress["step"]
    parts = copied(parts) | {"ledger": {"exposures": ledger.copy()}}
    checkpoints.folder.mkdir(parents=True, exist_ok=True)
    context = ocp.Context()
    # Otherwise, if one thread of Orbax fails to make the folders, the others wait for 20 minutes.
    context.asynchronous.create_directories_asynchronously = False
    # A copy on each device is no reason to cut a small array into one slice for each of them.
    context.array.saving.min_slice_bytes_for_replica_parallel = LEAST_SLICE
    with context:
        response = ocp.save_checkpointables_async(
            checkpoints.folder / str(step),
            parts,
            overwrite=True,  # one that was cut short, or damaged
            custom_metadata=dict(progress) | {"owner": checkpoints.owner},
        )
    checkpoints.saving = checkpoints.finisher.submit(
        _finish, checkpoints, step, response, files or {}
    )


def _finish(checkpoints: Checkpoints, step: int, response: Any, files: Mapping[str, bytes]) -> None:
    """Waits for Orbax in all processes, writes the checksums, then removes older checkpoints."""
    response.result()  # also ends the thread and the event loop that Orbax opened for this save
    if not distributed.primary():
        return
    folder = checkpoints.folder / str(step)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    lines = [f"{_sha256(path)}  {name}\n" for name, path in sorted(_files(folder).items())]
    partial = checkpoints.folder / f"{step}.{SUMS}.partial"
    partial.write_text("".join(lines))
    partial.replace(folder / SUMS)
    if checkpoints.keep is not None:
        kept = [earlier for earlier in checkpoints.steps() if earlier <= step][-checkpoints.keep :]
        for path in checkpoints.folder.iterdir():
            if path.name[0].isdecimal() and path.name not in map(str, kept):
                _remove(path)


def _remove(path: epath.Path) -> None:
    """Removes a checkpoint, its checksums first, so that one half removed does not count."""
    (path / SUMS).unlink(missing_ok=True)
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink()


# --- reading ------------------------------------------------------------------------------------


def restore(
    checkpoints: Checkpoints, at_most: float = math.inf, **abstract: Any
) -> dict[str, Any] | None:
    """Restores the latest whole checkpoint up to step `at_most`: its parts and `progress`, or None.

    The parts are placed as `abstract` says. Each file is read and compared with its checksum; if a
    file is damaged the checkpoint before is taken, and a warning that names the file is printed and
    added to `progress["warnings"]`.

    Raises:
      Damaged: no checkpoint is whole; names the first damaged file of the latest one.
      DlmError: the checkpoint belongs to another run, or cannot be read.
    """
    choice = distributed.from_primary(
        f"checkpoint of {checkpoints.folder}", lambda: _latest_whole(checkpoints, at_most)
    )
    if choice["error"]:
        raise Damaged(choice["error"])
    for warning in choice["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if choice["step"] is None:
        return None
    where = checkpoints.folder / str(choice["step"])
    try:
        progress: Any = ocp.checkpointables_metadata(where).custom_metadata
        owner = progress.pop("owner", "none")
        if owner != checkpoints.owner:
            raise DlmError(
                f"{where}: is a checkpoint of run {owner}, not of {checkpoints.owner}; put its own "
                f"back, or delete {checkpoints.folder} to start the run again"
            )
        progress["warnings"] = [*progress.get("warnings", []), *choice["warnings"]]
        return ocp.load_checkpointables(where, abstract) | {"progress": progress}
    except DlmError:
        raise
    except Exception as error:
        raise DlmError(
            f"{where}: cannot read this checkpoint ({type(error).__name__}: {reason(error)[:200]}); "
            f"delete {checkpoints.folder} to start the run again"
        ) from error


def _latest_whole(checkpoints: Checkpoints, at_most: float) -> dict[str, Any]:
    """The `step` of the latest undamaged checkpoint, `warnings` on later ones, and an `error`."""
    problems, error = [], ""
    for step in reversed([step for step in _numbered(checkpoints.folder) if step <= at_most]):
        folder = checkpoints.folder / str(step)
        if not (folder / SUMS).exists():
            problems.append(f"{folder}: has no {SUMS}, as its save was cut short")
            continue
        problem = damage(folder)
        if not problem:
            warnings = [f"{problem}; the checkpoint of step {step} is used" for problem in problems]
            return {"step": step, "warnings": warnings, "error": ""}
        problems.append(problem)
        error = error or (
            f"{problem}; no checkpoint before it is whole; put the file back, or delete "
            f"{checkpoints.folder} to start the run again"
        )
    warnings = [f"{problem}; the run starts again" for problem in problems]
    return {"step": None, "warnings": warnings, "error": error}


def damage(folder: epath.Path) -> str:
    """What is wrong with a checkpoint, naming the file; "" if every file has its checksum."""
    try:
        text = (folder / SUMS).read_text()
    except UnicodeDecodeError:
        text = "?"
    matches = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in text.splitlines()]
    if not matches or not all(matches):
        return f"{folder / SUMS}: is damaged"
    sums = {match[2]: match[1] for match in matches if match}
    files = _files(folder)
    for name in sorted(sums.keys() | files.keys()):
        if name not in files:
            return f"{folder / name}: is missing"
        if name not in sums:
            return f"{folder / name}: does not belong to the checkpoint"
        try:
            if _sha256(files[name]) != sums[name]:
                return f"{folder / name}: is damaged (its sha256 is not that in {SUMS})"
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return f"{folder / name}: cannot be read ({reason(error)})"
    return ""


def _numbered(folder: epath.Path) -> list[int]:
    """The steps that name subfolders, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _files(folder: epath.Path, within: str = "") -> dict[str, epath.Path]:
    """The files of a checkpoint except SHA256SUMS, by their paths in its folder."""
    files: dict[str, epath.Path] = {}
    for path in folder.iterdir():
        if path.is_dir():
            files |= _files(path, f"{within}{path.name}/")
        elif within or path.name != SUMS:
            files[within + path.name] = path
    return files


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore (it is binary)
