"""The one exception that a user's mistake raises; the command line prints it as one line."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn


class DlmError(ValueError):
    """Names the field or file, the value found, and what would be right."""


def fail(name: str, value: Any, right: str) -> NoReturn:
    """The error of a config's field: its name, its value, and what would be right."""
    raise DlmError(f"config.{name}={_shown(value)}: must be {right}")


def _shown(value: Any) -> str:
    """The value as Python writes it, without the middle of what is longer than a path."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= 300 else f"{text[:20]}...{text[-20:]}, of {len(text)} characters"


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean layers?", or nothing where no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def in_file(file: str | Path, error: BaseException) -> DlmError:
    """One line on what went wrong in a Python file of the user's: `mine.py:5: TypeError: ...`."""
    same = Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == same:
        where = f":{error.lineno}" if error.lineno else ""
        return DlmError(f"{file}{where}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).resolve() == same]
    text = next(iter(str(error).strip().splitlines()), "")
    if not text:
        text = f"no message, at `{inside[-1].line}`" if inside else "no message"
    where = f":{inside[-1].lineno}" if inside else ""
    return DlmError(f"{file}{where}: {type(error).__name__}: {text}")


def reason(error: BaseException) -> str:
    """Why, in one line that is never empty: the system's words, the message, else the class."""
    words = str(getattr(error, "strerror", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


def one_line(error: BaseException) -> str:
    """The reason with the exception's class before it, which a DlmError goes without."""
    words, kind = reason(error), type(error).__name__
    return words if isinstance(error, DlmError) or words == kind else f"{kind}: {words}"
