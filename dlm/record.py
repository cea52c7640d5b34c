"""The run directory, as training writes it: `<workdir>/<experiment>/<run id>/`.

`run.json` and `config.json` at the start, `result.json` last and atomically: its presence, with any
status but "failed", means that the run is done. Readers are on the other side (`dlm.runs`).
"""

from __future__ import annotations

import json
import os
import platform
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

from dlm import config, disk, planning
from dlm.errors import DlmError, one_line
from dlm.store import Store, notes

# Statuses of a run that is not trained again.
DONE = ("finished", "diverged")


def read_json(path: Path) -> Any:
    """Raises DlmError where the file is missing or not JSON."""
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise DlmError(f"{path}: not a JSON object; delete it and run again")
        return value
    except (FileNotFoundError, NotADirectoryError):
        raise DlmError(f"{path}: no such file; name a run's folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DlmError(f"{path}: not JSON ({error}); delete it and run again") from error


def status(folder: Path) -> str:
    """new, started, finished, diverged or failed. A failed run is tried again."""
    if (folder / "result.json").exists():
        return read_json(folder / "result.json")["status"]
    return "started" if (folder / "run.json").exists() else "new"


def start(folder: Path, c: config.Config, store: Store, about: dict[str, Any]) -> None:
    """`about` holds experiment, run, label, overrides and question."""
    plan = planning.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    disk.write_json(folder / "config.json", config.to_json(c))
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
    disk.write_json(folder / "run.json", about | running)


def identity(c: config.Config, about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("experiment", "run", "label")} | dict(
        objective=c.objective.name, seed=c.train.seed, corpus=c.corpus.name,
        kind="exact" if c.objective.family.exact else "upper bound",
    )  # fmt: skip


def fail(folder: Path, c: config.Config, about: dict[str, Any], error: BaseException) -> str:
    """Records a failed run with its traceback; returns the reason, one line."""
    reason = one_line(error)
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(folder / "error.txt", "".join(traceback.format_exception(error)))
    disk.write_json(
        folder / "result.json", identity(c, about) | dict(status="failed", reason=reason)
    )
    return reason


def versions() -> dict[str, str]:
    names = ("dlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def device() -> str:
    import jax

    kind, count = jax.devices()[0].device_kind, jax.device_count()
    name = f"{_processor()} ({len(cores())} core)" if kind == "cpu" else kind
    return name if count == 1 else f"{count} x {name}"


def cores() -> list[int]:
    """The cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or "cpu"
