"""What a corpus function returns, and how it refuses its options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from dlm.errors import fail


@dataclass(frozen=True)
class NoText:
    """Stands for the content of a row that has no text, which is counted and left out."""

    reason: str  # such as "is empty"; the row's name goes before it


@dataclass(frozen=True)
class Source:
    """Documents, each with the name that messages give it, read only when they are iterated.

    Content is text, or, when `vocab_size` is given, 1-D arrays of ids below it: then there is no
    tokenizer. A row without text is given as `NoText`; more than the share `without_text` of all rows
    are refused. `validation` is the source's own held-out documents: then no other is held out, and
    both sides keep the order of the source. `entropy` is that of the source in nats per token of
    whole documents, where it is known. `state` is what the content depends on beside the options, as
    plain JSON (the Python version, the sizes of files); a store is reused only while it stays the
    same.

    A build that was interrupted goes on where it was, rather than start again, if `documents` and
    `validation` have an attribute `place`: plain JSON, replaced with each document that is given;
    iterating begins there.
    """

    documents: Iterable[tuple[str, str | np.ndarray | NoText]]
    vocab_size: int | None = None
    state: Any = None
    entropy: float | None = None
    validation: Iterable[tuple[str, str | np.ndarray | NoText]] | None = None
    without_text: float = 0.0


def refuse(option: str, value: Any, right: str) -> NoReturn:
    """The error of an option of a corpus: its name, its value, and what would be right."""
    fail(f"corpus.options.{option}", value, right)


def check_whole(limits: dict[str, tuple[int, int]], **values: Any) -> None:
    """Refuses an option that is no whole number within its limits, both included."""
    for name, value in values.items():
        low, high = limits[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            refuse(name, value, f"a whole number, {low:,} to {high:,}")


def is_share(value: Any) -> bool:
    """Whether an option is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
