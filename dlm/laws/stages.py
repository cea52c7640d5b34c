"""Shows the progress of an analysis: its stage in a terminal, elsewhere a line per finished stage."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Tell = Callable[[str], None]  # called with the name of each stage as it begins


def silent(stage: str) -> None:
    """Shows nothing."""


@contextlib.contextmanager
def show() -> Iterator[Tell]:
    """Yields a function that shows a stage on stderr. A stage that fails writes no line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda stage: status.update(Text(stage))
        return
    running: list[tuple[str, float]] = []

    def tell(stage: str) -> None:
        for before, since in running:
            print(f"{before}: {time.monotonic() - since:.1f} s", file=sys.stderr, flush=True)
        running[:] = [(stage, time.monotonic())] if stage else []

    yield tell
    tell("")
