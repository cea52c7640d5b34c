"""Sequences of integers of your own (actions, codes, tokens): .npy, .npz or .jsonl of token ids.

.npy: an array of whole numbers, [n, L] for n documents of L, or [L] for one. .npz: each of its
arrays, read in the same way. .jsonl (also .gz, .xz): a list of numbers a line, or an object with
the field `field`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlm.corpora import files
from dlm.corpora.source import Source
from dlm.errors import DlmError

KINDS = (".npy", ".npz", ".jsonl")


def ids(paths: str | list[str], vocab_size: int, field: str = "ids") -> Source:
    """The documents of every file that matches `paths`; ids are 0 to `vocab_size` - 1.

    Raises:
      DlmError: nothing matches, or a match is of no known kind; while reading, a file that is broken,
        or holds what are no token ids (names the file and the array or line).
    """
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or vocab_size < 2:
        raise DlmError(
            f"config.corpus.options.vocab_size={vocab_size!r}: must be a whole number, 2 or above"
        )
    found = files.find(paths, KINDS)
    state = [[name, p.stat().st_size, p.stat().st_mtime_ns] for name, p in found.items()]
    return Source(documents=_documents(found, field), vocab_size=vocab_size, state=state)


def _documents(found: dict[str, Path], field: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, path in found.items():
        if files.kind(path) == ".jsonl":
            yield from _lines(name, path, field)
            continue
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DlmError(
                f"{path}: not a readable {path.suffix} file of numbers: {error}"
            ) from None
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
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


def _lines(name: str, path: Path, field: str) -> Iterator[tuple[str, np.ndarray]]:
    with files.open_any(path) as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                record = json.loads(raw)
            except ValueError as error:
                raise DlmError(f"{path}:{number}: not JSON: {error}") from None
            if isinstance(record, dict):
                if field not in record:
                    raise DlmError(
                        f"{path}:{number}: no field {field!r}; there are "
                        f"{', '.join(record) or 'none'}; name one in config.corpus.options.field"
                    )
                record = record[field]
            whole = isinstance(record, list) and all(type(v) is int for v in record)
            if not whole:
                raise DlmError(f"{path}:{number}: must be a list of whole numbers")
            yield f"{name}:{number}", np.array(record, np.int64)
