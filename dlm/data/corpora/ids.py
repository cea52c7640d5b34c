"""Sequences of integers of your own (actions, codes, tokens): .npy, .npz or JSON of token ids.

.npy: an array of whole numbers, [n, L] for n documents of L, or [L] for one. .npz: each of its
arrays, read in the same way. JSON (a line each or an array, also compressed): lists of numbers, or
objects that have one in the field `field`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np

from dlm.config.fields import Name, Range
from dlm.data.corpora import files, formats
from dlm.data.corpora.source import Globs, Source
from dlm.errors import DlmError, reason

KINDS = (".npy", ".npz", *formats.JSON)


Vocabulary = Annotated[int, Range(2, 2**31 - 1)]  # ids are stored as int32


def ids(paths: Globs, vocab_size: Vocabulary, field: Name = "ids") -> Source:
    """The documents of every file that matches `paths`; ids are 0 to `vocab_size` - 1.

    Raises:
      DlmError: nothing matches, or a match is of no known kind; while reading, a file that is broken,
        or holds what are no token ids (names the file and the array or line).
    """
    by_name = files.find(paths, KINDS)
    documents, state = _documents(by_name, field), files.state(by_name.items())
    return Source(documents=documents, vocab_size=vocab_size, state=state)


def _documents(by_name: dict[str, Path], field: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, path in by_name.items():
        if formats.kind(path) in formats.JSON:
            yield from _rows(name, path, field)
            continue
        try:
            loaded = np.load(path, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a member is no array")
        except Exception as error:  # of a damaged file: of the archive, its headers, its arrays
            raise DlmError(
                f"{path}: not a readable {path.suffix} file of numbers: {reason(error)}"
            ) from None
        for part, array in arrays.items():
            where = f"{path}, array {part}" if part else str(path)
            if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.integer):
                raise DlmError(
                    f"{where}: {array.dtype} of shape {array.shape}; must be whole numbers, [n, L] "
                    "or [L]"
                )
            label = f"{name}:{part}" if part else name
            if array.ndim == 1:
                yield label, array
            else:
                for number, row in enumerate(array, 1):
                    yield f"{label}:{number}", row


def _rows(name: str, path: Path, field: str) -> Iterator[tuple[str, np.ndarray]]:
    for number, row in formats.json_rows(path):
        if isinstance(row, dict):
            if field not in row:
                raise DlmError(
                    f"{path}:{number}: no field {field!r}; there are {', '.join(row) or 'none'}; "
                    "name one in config.corpus.options.field"
                )
            row = row[field]
        if not (isinstance(row, list) and all(type(v) is int for v in row)):
            raise DlmError(f"{path}:{number}: must be a list of whole numbers")
        try:
            yield f"{name}:{number}", np.array(row, np.int64)
        except OverflowError as error:
            raise DlmError(f"{path}:{number}: {reason(error)}") from error
