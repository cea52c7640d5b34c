"""Writes files whole or not at all: beside their place, synced to disk, then renamed.

A link at the place is replaced, never followed. After an error, a full disk included, the file that
was there stands as it was and no draft is left.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dlm.errors import DlmError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty draft beside `path` for the body to fill; it then takes the name of `path`.

    Raises:
      OSError: the folder is missing, full, or cannot be written.
      DlmError: the place is a folder.
    """
    if path.is_dir() and not path.is_symlink():
        raise DlmError(f"{path}: is a folder, where a file is to be written; move it away")
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    draft.unlink(missing_ok=True)  # of a killed process that had this number
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield draft
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write(path: Path, content: str | bytes) -> Path:
    """Writes text (UTF-8, its line ends as they are) or bytes; returns the path."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON, NaN and infinity as null; returns the path."""
    return write(path, json.dumps(finite(value), indent=1, ensure_ascii=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> Path:
    """Writes one array as .npy; returns the path."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return path


def refuse_link(path: Path) -> None:
    """Raises DlmError if a place that files are written into is a link."""
    if path.is_symlink():
        raise DlmError(
            f"{path}: is a link, and nothing is written through links below a workdir; to keep runs "
            "elsewhere, name that place with --workdir"
        )


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def finite(value: Any) -> Any:
    """The same value for JSON: numbers of NumPy as Python's, NaN and infinity as None."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
