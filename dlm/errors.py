"""The one exception that a user's mistake raises; the command line prints it as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DlmError(ValueError):
    """Names the field or file, the value found, and what would be right."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean layers?", or nothing where no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
