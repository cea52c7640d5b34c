"""JSON files that show damage: each carries the sha256 of what it says, and of files beside it.

A digest finds what a disk, a copy or an editor changed. It is no signature: who changes a file on
purpose can write its digest anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlm import disk, inputs
from dlm.errors import DlmError, reason

DIGEST = "sha256"  # the key: sha256 of all other keys, as JSON with sorted keys
FILES = "files"  # the key: name -> sha256 of each file beside it that belongs to it
LARGEST = 256 * inputs.MIB  # of a JSON object that is read
CHANGED = "is not as it was written: its sha256 differs"


def write(path: Path, value: dict[str, Any], files: Iterable[str] = ()) -> Path:
    """Writes a JSON object with its digest and those of `files` beside it; returns the path."""
    whole = disk.finite(value)
    if digests := {name: file_digest(path.parent / name) for name in files}:
        whole[FILES] = digests
    return disk.write_json(path, whole | {DIGEST: digest(whole)})


def read(path: Path) -> dict[str, Any]:
    """The JSON object that `write` wrote, without its digest.

    Raises:
      DlmError: the file, by its name alone, is missing, unreadable or not as it was written.
    """
    try:
        value = json.loads(inputs.read_bytes(path, LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        raise DlmError(f"{path.name} is missing") from None
    except OSError as error:
        raise DlmError(f"{path.name} cannot be read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise DlmError(f"{path.name} is not readable JSON: {reason(error)}") from None
    if not isinstance(value, dict):
        raise DlmError(f"{path.name} holds a {type(value).__name__}, must be an object")
    written = value.pop(DIGEST, None)
    if written is None:
        raise DlmError(f"{path.name} has no {DIGEST} of itself: damaged, or of another dlm")
    if written != digest(value):
        raise DlmError(f"{path.name} {CHANGED}")
    return value


def check_files(folder: Path, value: dict[str, Any], leave_out: Iterable[str] = ()) -> None:
    """Compares the files of a folder with the digests in one of its JSON objects.

    Raises:
      DlmError: names the files that are missing, unreadable or not as they were written.
    """
    if not isinstance(digests := value.get(FILES, {}), dict):
        raise DlmError(f"{FILES} is a {type(digests).__name__}, must be an object")
    problems = []
    for name, written in digests.items():
        if name in leave_out:
            continue
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or not name.isprintable():
            problems.append(f"{FILES} names {name!r}, which is no file of this folder")
            continue
        try:
            problems += [f"{name} {CHANGED}"] if file_digest(folder / name) != written else []
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{name} is missing")
        except OSError as error:
            problems.append(f"{name} cannot be read: {reason(error)}")
    if problems:
        raise DlmError("; ".join(problems))


def digest(value: Any) -> str:
    """The sha256 of a JSON value: of its text with sorted keys, so that spaces do not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes.

    Raises:
      OSError: the file is missing or cannot be read.
    """
    inputs.check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
