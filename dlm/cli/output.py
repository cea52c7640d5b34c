"""Prints what a verb returns, and the exit codes of all verbs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

DONE, SOME_FAILED = 0, 1


def show(renderables: Iterable[Any]) -> int:
    """Prints strings as they are and Rich's renderables for the terminal's width, as they come."""
    from rich.console import Console

    console = Console()
    for item in renderables:
        if isinstance(item, str):  # a path is not broken, a bracket is no markup
            print(item, flush=True)
        else:
            console.print(item)
    return DONE
