"""What a corpus function returns, and the options that several of them have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import numpy as np

from dlm.config.fields import Range
from dlm.errors import fail

Globs = Any  # a glob or a list of globs, which `files.find` checks
Documents = Annotated[int, Range(1, 10**8)]  # more are never built in a day
Length = Annotated[int, Range(1, 10**6)]  # tokens of each document
Seed = Annotated[int, Range(0, 2**63 - 1)]


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
