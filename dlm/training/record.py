"""The run directory, as training writes it: `<workdir>/<experiment>/<run id>/`.

`config.json` and `run.json` at the start, `result.json` last: its presence, with any status but
"failed", means that the run is done. All three are sealed (`dlm.sealed`), and result.json holds the
sha256 of each other file, so that parts that do not belong together are told. Readers are on the
other side (`dlm.runs`).
"""

from __future__ import annotations

import os
import platform
import traceback
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import config, disk, sealed
from dlm.data.store import notes
from dlm.errors import DlmError, one_line, reason

if TYPE_CHECKING:
    from dlm.training.prepare import Prepared

# Statuses of a run that is not trained again.
DONE = ("finished", "diverged")
UNREADABLE = "unreadable"  # of a run with a result that is damaged, or whose files are
SETTLED = (*DONE, UNREADABLE)  # left alone by whatever trains
# Files that result.json speaks for, if they are there.
FILES = (
    *("config.json", "run.json", "metrics.jsonl", "ledger.npy"),
    *("nll.npy", "nll_documents.npy", "samples.npy", "samples.txt"),
)


def read_json(path: Path) -> dict[str, Any]:
    """A sealed file of a run, without its digest.

    Raises:
      DlmError: it is missing, unreadable, or not as it was written.
    """
    try:
        return sealed.read(path)
    except DlmError as error:
        raise DlmError(f"{path.parent}: {error}") from None


def status(folder: Path) -> str:
    """new, started, failed, finished, diverged or unreadable. The first three are to be trained."""
    return _status(folder, "")[0]


def problem(folder: Path, run: str = "") -> str:
    """Why a run is unreadable and what to do, in one line; empty if it is not.

    `run`: the id that a result in this folder must have.
    """
    return _status(folder, run)[1]


def _status(folder: Path, run: str) -> tuple[str, str]:
    try:
        names = os.listdir(folder)
        if "result.json" not in names:
            return "started" if "run.json" in names else "new", ""
        result = sealed.read(folder / "result.json")
        if result.get("status") not in (*DONE, "failed"):
            raise DlmError(
                f"result.json has status {result.get('status')!r}, which is none of dlm's"
            )
        if run and result.get("run") != run:
            raise DlmError(f"result.json is of run {result.get('run')!r}")
        sealed.check_files(folder, result)
    except FileNotFoundError:
        return "new", ""
    except OSError as error:
        return UNREADABLE, f"{folder}: cannot be read: {reason(error)}"
    except DlmError as error:
        remedy = "delete its result.json and it is finished again from its checkpoint"
        return UNREADABLE, f"{folder}: {error}; {remedy}"
    return result["status"], ""


def finish(folder: Path, result: dict[str, Any]) -> None:
    """Writes result.json, last of all, with the digests of what lies beside it."""
    there = os.listdir(folder)
    sealed.write(folder / "result.json", result, [name for name in FILES if name in there])


def start(folder: Path, prepared: Prepared, about: dict[str, Any]) -> None:
    """Writes config.json and run.json. `about`: experiment, run, label, overrides and question.

    Raises:
      DlmError: the folder has a result that cannot be read; it stays.
    """
    if words := problem(folder):
        raise DlmError(words)
    c, store, plan = prepared.config, prepared.store, prepared.plan
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    sealed.write(folder / "config.json", config.to_json(c))
    corpus = dict(
        path=os.path.relpath(store.path, folder), name=store.manifest.name,
        fingerprint=store.fingerprint, vocab_size=store.vocab_size,
        bytes_per_token=store.bytes_per_token, python=store.manifest.python,
        notes=notes(store.manifest),
    )  # fmt: skip
    numbers = dict(
        steps=plan.steps, epochs=plan.epochs, unique_tokens=plan.unique_tokens,
        tokens_per_step=plan.tokens_per_step, params=plan.parameters.total,
        flops=plan.steps * plan.flops_per_step,
    )  # fmt: skip
    running = dict(
        status="running", plan=numbers, corpus=corpus, versions=versions(), device=device()
    )
    sealed.write(folder / "run.json", about | running, ["config.json"])


def identity(c: config.Config, about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("experiment", "run", "label")} | dict(
        objective=c.objective.name, seed=c.train.seed, corpus=c.corpus.name,
        kind="exact" if c.objective.family.exact else "upper bound",
    )  # fmt: skip


def fail(folder: Path, c: config.Config, about: dict[str, Any], error: BaseException) -> str:
    """Records a failed run with its traceback; returns the reason, one line.

    A result that is there stays, unless it is that of an earlier failure.
    """
    words = one_line(error)
    if status(folder) not in SETTLED:
        folder.mkdir(parents=True, exist_ok=True)
        disk.write(folder / "error.txt", "".join(traceback.format_exception(error)))
        failed = identity(c, about) | dict(status="failed", reason=words)
        sealed.write(folder / "result.json", failed)
    return words


def versions() -> dict[str, str]:
    names = ("dlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def device() -> str:
    import jax

    kind, count = jax.devices()[0].device_kind, jax.device_count()
    name = f"{processor()} ({len(cores())} core)" if kind == "cpu" else kind
    return name if count == 1 else f"{count} x {name}"


def cores() -> list[int]:
    """The cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or "cpu"
