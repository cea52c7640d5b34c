"""The one exception that a user's mistake raises; the command line prints it as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn


class DlmError(ValueError):
    """Names the field or file, the value found, and what would be right."""


def fail(name: str, value: Any, right: str) -> NoReturn:
    """The error of a config's field: its name, its value, and what would be right."""
    raise DlmError(f"config.{name}={value!r}: must be {right}")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean layers?", or nothing where no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def reason(error: BaseException) -> str:
    """Why, in one line that is never empty: the system's words, the message, else the class."""
    words = str(getattr(error, "strerror", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__
