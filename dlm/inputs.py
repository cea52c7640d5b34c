"""What a user may name and type: files that can be read to their end, numbers within their limits.

The functions that return a function are types of argparse options: a value that they refuse ends
the command with one line before anything is read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from dlm.errors import DlmError, nearest, reason

MIB = 2**20
SPECIAL = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def unreadable(path: Path | str, largest: int | None = None) -> str:
    """Why a path cannot be read as a file, in words such as "is a pipe"; "" if it can be.

    Links are followed, and nothing is opened: opening a pipe would wait for its writer. `largest` is
    the most bytes that such a file may have.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot be read: {reason(error)}"
    for is_kind, words in SPECIAL:
        if is_kind(status.st_mode):
            return words
    if not os.access(path, os.R_OK):
        return "cannot be read: no permission"
    if largest is not None and status.st_size > largest:
        return f"has {status.st_size:,} bytes, and may have {largest:,}"
    return ""


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a regular file; anything else is refused before it is opened.

    Raises:
      OSError: says why it cannot be read; FileNotFoundError if nothing is there.
    """
    check_regular(path, largest)
    return path.read_bytes()


def check_regular(path: Path, largest: int | None = None) -> None:
    """Raises OSError, which says why, unless a path is a regular file that can be read."""
    if problem := unreadable(path, largest):
        raise FileNotFoundError(problem) if problem == "no such file" else OSError(problem)


def no_folder(path: Path) -> str:
    """Why a path is no folder and cannot become one; "" if it is one, or nothing is there."""
    problem = unreadable(path) or "is a file"
    return "" if problem in ("is a folder", "no such file") else problem


def contents(path: Path, what: str, largest: int = 256 * MIB) -> bytes:
    """The bytes of a file that is read whole. `what` says in errors what the file must be.

    Raises:
      DlmError: it is no regular file, too large, or cannot be read.
    """
    try:
        return read_bytes(path, largest)
    except OSError as error:
        raise DlmError(f"{path}: {reason(error)}; must be {what}") from None


def json_problem(error: Exception) -> str:
    """Why `json.loads` refuses a text."""
    if isinstance(error, RecursionError):
        return "brackets are nested too deep"
    if "integer string conversion" in str(error):
        return "an integer has more than 4,300 digits"
    return error.msg if isinstance(error, json.JSONDecodeError) else reason(error)


# --- types of options ---------------------------------------------------------------------------


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""
    right = f"{least} or more" if most is None else f"{least:,} to {most:,}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also of more digits than Python reads
            raise refusal(text, "a whole number") from None
        if value < least or value > (2**63 - 1 if most is None else most):
            raise refusal(text, right)
        return value

    return parse


def number(words: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """A finite number for which `holds`, as `words` say: "above 0"."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise refusal(text, "a number") from None
        if not (math.isfinite(value) and holds(value)):
            raise refusal(text, words)
        return value

    return parse


def above_zero() -> Callable[[str], float]:
    return number("above 0", lambda value: value > 0)


def zero_or_more(words: str = "0 or more") -> Callable[[str], float]:
    return number(words, lambda value: value >= 0)


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """One of a few words; another is told which of them is near."""
    known = tuple(words)

    def parse(text: str) -> str:
        if text not in known:
            raise refusal(text, f"one of {', '.join(known)}{nearest(text, known)}")
        return text

    return parse


def path(text: str) -> Path:
    """A path that is not empty: pathlib takes "" for the current folder."""
    if not text or "\0" in text:
        raise refusal(text, "a path")
    return Path(text)


def refusal(text: str, right: str) -> argparse.ArgumentTypeError:
    """The error of an option's type; the parser puts the option's name before it."""
    return argparse.ArgumentTypeError(f"={text}: must be {right}")
