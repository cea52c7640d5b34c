"""What a build has so far, in logs that survive a kill.

A log is a folder of three files that grow block by block: `data`, `rows` (fixed-size records, one a
document) and `journal`, a line of JSON for each finished block: the bytes it added to the two, their
sha256, and any JSON that says where to go on. A block that is torn, or was never finished, is found
by its sha256 and dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dlm.data.corpora import NoText, Source
from dlm.errors import DlmError

BLOCK = 1 << 22  # bytes of documents: as much is in memory at once, and lost by a kill
HOPELESS = 1000  # rows at the beginning of a source: if none has text, the rest is not read
START = {"place": None, "without_text": 0, "first": ""}  # of a stream of which nothing was read
FILES = ("data", "rows", "journal")
# Of a document: the first half of its content's sha256, its bytes, and 0 if it is from
# `Source.documents`, 1 from `Source.validation`.
ROW = np.dtype([("content", ">u8", 2), ("size", "<i8"), ("side", "<i8")])


def recover(log: Path) -> Any:
    """What the last whole block said, None if there is none; whatever follows it is cut off."""
    log.mkdir(exist_ok=True)
    paths = [log / name for name in FILES]
    for path in paths:
        path.touch()
    place, whole = None, np.zeros(3, np.int64)
    with (
        open(paths[0], "rb") as data,
        open(paths[1], "rb") as rows,
        open(paths[2], "rb") as journal,
    ):
        for line in journal:
            try:
                sizes, digest, state = json.loads(line)
            except (ValueError, TypeError):
                break
            added = data.read(sizes[0]), rows.read(sizes[1])
            if not line.endswith(b"\n") or _digest(*added) != digest:
                break
            place, whole = state, whole + [*map(len, added), len(line)]
    for path, size in zip(paths, whole.tolist(), strict=True):
        os.truncate(path, size)
    return place


def append(log: Path, data: bytes, rows: bytes, place: Any = None) -> None:
    """Adds a block to a log that `recover` has opened."""
    line = json.dumps([[len(data), len(rows)], _digest(data, rows), place]) + "\n"
    for name, content in zip(FILES, (data, rows, line.encode()), strict=True):
        with open(log / name, "ab") as file:
            file.write(content)


def _digest(data: bytes, rows: bytes) -> str:
    return hashlib.sha256(data + rows).hexdigest()


def documents(source: Source, log: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """ROW[documents], their bytes in log/data (UTF-8 of text, int32 of integers), in the order of the
    source; and for each of its streams the place at which it ended (None if it has no places), how many
    rows had no text, and what the first of these was.

    What the log holds already is not read again.

    Raises:
      DlmError: a document of the wrong kind, or more rows without text than the source allows.
    """
    streams = [source.documents, *([] if source.validation is None else [source.validation])]
    states = recover(log) or [
        dict(START)
    ]  # one for each stream that was begun: its last is read now
    while len(states) <= len(streams):
        side = len(states) - 1
        stream: Any = streams[side]
        if states[side]["place"] is not None:
            stream.place = states[side]["place"]
        block: list[tuple[bytes, bytes, Any, str]] = []
        size, hopeless = 0, states[side] == START and source.without_text < 1
        try:
            for number, (name, content) in enumerate(stream, 1):
                if isinstance(content, NoText):
                    raw, row, missing = b"", b"", f"{name}: {content.reason}"
                else:
                    raw = _raw(name, content, source.vocab_size)
                    row, missing = _row(raw, side), ""
                block.append((raw, row, getattr(stream, "place", None), missing))
                size += len(raw) + ROW.itemsize
                if size >= BLOCK:
                    full, block, size = block, [], 0
                    _append(log, full, states)
                hopeless = hopeless and bool(missing)
                if hopeless and number == HOPELESS:
                    raise _too_many(source.without_text, number, number, block[0][3])
        finally:  # the network may fail: what came before is kept
            if block:
                _append(log, block, states)
        states.append(dict(START))
        append(log, b"", b"", states)
    rows, states = np.fromfile(log / "rows", ROW), states[:-1]
    without = sum(state["without_text"] for state in states)
    if without > source.without_text * (total := len(rows) + without):
        first = next(state["first"] for state in states if state["first"])
        raise _too_many(source.without_text, without, total, first)
    return rows, states


def _append(log: Path, block: list[tuple[bytes, bytes, Any, str]], states: list[Any]) -> None:
    data, rows, places, missing = zip(*block, strict=True)
    state, reasons = states[-1], [reason for reason in missing if reason]
    states[-1] = dict(
        place=places[-1],
        without_text=state["without_text"] + len(reasons),
        first=state["first"] or (reasons[0] if reasons else ""),
    )
    append(log, b"".join(data), b"".join(rows), states)


def _too_many(share: float, without: int, rows: int, first: str) -> DlmError:
    return DlmError(
        f"config.corpus.options.without_text={share:g}: {without:,} of {rows:,} rows have no text, "
        f"the first {first}; allow a larger share, or name the field that holds the text"
    )


def _row(raw: bytes, side: int) -> bytes:
    return hashlib.sha256(raw).digest()[:16] + struct.pack("<qq", len(raw), side)


def _raw(name: str, content: str | np.ndarray, vocab_size: int | None) -> bytes:
    if vocab_size is None:
        if not isinstance(content, str):
            raise DlmError(f"document {name}: must be text, or the Source must name a vocab_size")
        try:
            return content.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
            whole = content.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return whole.encode()
    ids = np.asarray(content)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DlmError(f"document {name}: must be a 1-D array of integers")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise DlmError(
            f"document {name}: ids {ids.min()} to {ids.max()}, must be 0 to {vocab_size - 1}"
        )
    return ids.astype(np.int32).tobytes()
