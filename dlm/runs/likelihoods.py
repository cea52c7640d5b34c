"""Likelihoods that a run was scored by, beyond the loss in its result: `likelihoods.json` beside it.

Each is an estimate on some windows of the validation split, with the nats of each window in a file of
its own, so that runs are compared window by window. NumPy only.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dlm import disk, sealed
from dlm.errors import DlmError
from dlm.runs.estimate import KINDS, Estimate

NAME = "likelihoods.json"


@dataclass(frozen=True, eq=False)
class Scored:
    """One number of a run: `name` says how it was scored, "orders 16" or "path confidence 1"."""

    name: str
    estimate: Estimate
    windows: int  # of the validation split, spread evenly over it
    nats: Float[np.ndarray, " n"]  # of each window


def write(folder: Path, numbers: list[Scored]) -> Path:
    """Adds numbers to a run's, or replaces those of the same name and windows; returns the path.

    Arrays get names of their own, so an interrupted write leaves what was there. A damaged file is
    set aside as likelihoods.damaged.json.
    """
    try:
        old = read(folder)
    except DlmError:
        (folder / NAME).replace(folder / "likelihoods.damaged.json")
        old = []
    kept = [each for each in old if all(_key(each) != _key(new) for new in numbers)]
    entries, files = [], []
    for scored in [*kept, *numbers]:
        files.append(file_name(scored))
        if not (folder / files[-1]).exists():
            disk.write_array(folder / files[-1], scored.nats)
        entry = {"name": scored.name, "windows": scored.windows, "file": files[-1]}
        entries.append(entry | scored.estimate._asdict())
    path = sealed.write(folder / NAME, {"numbers": entries}, files)
    for each in old:
        if file_name(each) not in files:
            (folder / file_name(each)).unlink(missing_ok=True)
    return path


def read(folder: Path) -> list[Scored]:
    """The numbers of a run; none if it was scored by none.

    Raises:
      DlmError: the file, or an array that it names, is damaged.
    """
    if not (folder / NAME).exists():
        return []
    value = sealed.read(folder / NAME)
    sealed.check_files(folder, value)
    try:
        return [_scored(folder, entry, value[sealed.FILES]) for entry in value["numbers"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        missing = f"has no {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise DlmError(f"{NAME} {missing}; score the run again by dlm evaluate --bound") from None


def _scored(folder: Path, entry: dict[str, Any], files: dict[str, str]) -> Scored:
    def number(key: str) -> float:
        return float("nan") if entry[key] is None else float(entry[key])

    kind, tokens, sampler = str(entry["kind"]), int(entry["tokens"]), str(entry["sampler"])
    value, stderr, mc_stderr = (number(key) for key in ("value", "stderr", "mc_stderr"))
    estimate = Estimate(value, stderr, kind, tokens, mc_stderr, sampler)
    name, windows = str(entry["name"]), int(entry["windows"])
    if kind not in KINDS or not np.isfinite(value):
        raise ValueError(f"{name} has kind {kind!r} and value {value}")
    if entry["file"] not in files:  # whose names and bytes are checked
        raise ValueError(f"{entry['file']!r} is none of its files")
    path = folder / entry["file"]
    nats = np.load(path, allow_pickle=False)
    if nats.shape != (windows,) or not np.isfinite(nats).all():
        raise ValueError(f"{path.name} has shape {nats.shape}, must be ({windows},)")
    return Scored(name, estimate, windows, nats)


def file_name(scored: Scored) -> str:
    """`nll-orders-16-on-128-1f0c9a2e.npy`: the file of each window's nats, with a digest of them."""
    digest = hashlib.sha256(np.ascontiguousarray(scored.nats).tobytes()).hexdigest()[:8]
    return f"nll-{re.sub(r'[^a-z0-9]+', '-', scored.name.lower())}-on-{scored.windows}-{digest}.npy"


def spread(count: int, of: int) -> Int[np.ndarray, " count"]:
    """`count` numbers below `of`, spread evenly: windows of all documents, not of the first ones."""
    return np.arange(count) * of // count


def _key(scored: Scored) -> tuple[str, int]:
    return scored.name, scored.windows
