"""Which text is held out: whole documents by a hash of their content, or passages of few documents.

A document's side and place depend on its content alone: each side is in order of the contents' hash.
So copies of a text never stand on both sides, and neither other documents nor a file's name move a
document. If there are too few documents for that, they are cut into passages, of which the first by
hash are held out; passages that follow each other on one side stay together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dlm.errors import DlmError

LEAST = 2  # distinct documents on each side, expected and by the hash; else passages are held out
PASSAGES = 20  # wanted on the smaller side
SHORTEST, LONGEST = 256, 1 << 16  # bytes that a passage should have
# A piece of text that stays whole: where it begins in the spool, its bytes, half its sha256.
PIECE = np.dtype([("start", "<i8"), ("size", "<i8"), ("content", ">u8", 2)])


@dataclass(frozen=True)
class Sides:
    """`train` and `validation` are indices of `pieces`, each side in its order."""

    pieces: np.ndarray  # PIECE[n]: documents, or what is left of them between the cuts
    contents: np.ndarray  # int64[n]: the same number for the same content
    train: np.ndarray
    validation: np.ndarray
    passage_bytes: int = 0  # that a passage was to have; 0: whole documents
    cut: int = 0  # documents that are on both sides
    distinct: int = 0  # documents; counted for passages only


def by_source(documents: np.ndarray) -> Sides:
    """The source's own split, in its order. `documents` are spool.ROW, as for the others."""
    pieces = _pieces(documents)
    train, validation = (np.flatnonzero(documents["side"] == side) for side in (0, 1))
    return Sides(pieces, _ranks(pieces), train, validation)


def by_content(documents: np.ndarray, share: float) -> Sides | None:
    """Whole documents on both sides, or None if LEAST asks for passages."""
    pieces = _pieces(documents)
    contents = _ranks(pieces)
    order = np.argsort(contents, kind="stable")
    held_out = pieces["content"][order, 0].astype(np.uint64) * 2.0**-64 < share
    sides = Sides(pieces, contents, order[~held_out], order[held_out])
    filled = pieces["size"] > 0
    counts = [
        int(present(contents[part[filled[part]]], len(pieces)).sum())
        for part in (sides.train, sides.validation)
    ]
    return sides if min(*counts, sum(counts) * min(share, 1 - share)) >= LEAST else None


def by_passages(
    documents: np.ndarray, share: float, read: Callable[[int, int], bytes], text: bool
) -> Sides:
    """Passages of about the share of all bytes, at least one of each side.

    `read(start, size)` are bytes of the spool. Documents of integers that all have one length stay
    whole: it may have a meaning, as that of an image has.

    Raises:
      DlmError: everything is one passage, or copies of one.
    """
    whole = _pieces(documents)
    sizes = whole["size"]
    distinct = np.unique(_ranks(whole), return_index=True)[1]
    count = math.ceil(PASSAGES / min(share, 1 - share))
    size = min(max(int(sizes[distinct].sum()) // count, SHORTEST), LONGEST)
    kept = not text and len(whole) > 1 and bool((sizes == sizes[0]).all())
    ends = _text_ends if text else _integer_ends
    bounds = []
    for start, length in zip(whole["start"].tolist(), sizes.tolist(), strict=True):
        cuts = [length] if kept else ends(read(start, length), size)
        bounds.append([0, *cuts])
    passages = _hashed(
        [(int(s) + a, b - a) for s, cut in zip(whole["start"], bounds, strict=True)
         for a, b in zip(cut[:-1], cut[1:], strict=True)], read,
    )  # fmt: skip
    ranks = _ranks(passages)
    weights = np.bincount(ranks, weights=passages["size"])
    filled = np.flatnonzero(weights)  # in order of the hash
    if len(filled) < 2:
        raise DlmError(
            f"config.corpus.validation_fraction={share}: {int(sizes.sum()):,} bytes of text, all in "
            "one passage or in copies of one, cannot be held out in part; give more text"
        )
    reached = np.cumsum(weights[filled]) - weights[filled] / 2 < share * weights.sum()
    held = filled[: min(max(int(reached.sum()), 1), len(filled) - 1)]
    held_out = np.isin(ranks, held)
    document = np.repeat(np.arange(len(bounds)), [len(cut) - 1 for cut in bounds])
    new = (np.diff(document) != 0) | np.diff(held_out)
    firsts = np.concatenate([[0], np.flatnonzero(new) + 1])
    pieces = _hashed(
        list(zip(passages["start"][firsts].tolist(),
                 np.add.reduceat(passages["size"], firsts).tolist(), strict=True)), read,
    )  # fmt: skip
    contents = _ranks(pieces)
    order = np.argsort(contents, kind="stable")
    side = held_out[firsts][order]
    cut = len(np.intersect1d(document[held_out], document[~held_out]))
    return Sides(pieces, contents, order[~side], order[side], size, cut, len(distinct))


def present(contents: np.ndarray, n: int) -> np.ndarray:
    """Bool[n]: which of the numbers 0 to n - 1 there are among contents."""
    return np.bincount(contents, minlength=n) > 0


def _pieces(documents: np.ndarray) -> np.ndarray:
    pieces = np.zeros(len(documents), PIECE)
    pieces["size"], pieces["content"] = documents["size"], documents["content"]
    pieces["start"] = np.cumsum(documents["size"]) - documents["size"]
    return pieces


def _hashed(places: list[tuple[int, int]], read: Callable[[int, int], bytes]) -> np.ndarray:
    pieces = np.zeros(len(places), PIECE)
    for piece, (start, size) in zip(pieces, places, strict=True):
        digest = hashlib.sha256(read(start, size)).digest()[:16]
        piece["start"], piece["size"] = start, size
        piece["content"] = np.frombuffer(digest, ">u8")
    return pieces


def _ranks(pieces: np.ndarray) -> np.ndarray:
    """The place of each piece's content among the distinct contents, in order of their hash."""
    digests = np.ascontiguousarray(pieces["content"]).view("S16")[:, 0]  # in order of their bytes
    return np.unique(digests, return_inverse=True)[1]


def _text_ends(raw: bytes, size: int) -> Iterator[int]:
    """Where passages of about `size` bytes end: after a paragraph, else a line, a sentence, a word,
    else a character."""
    start = 0
    while len(raw) - start >= size * 3 // 2:
        low, high = start + size, start + size * 2
        for mark in (b"\n\n", b"\n\r\n", b"\n", b". ", b" "):
            if (at := raw.find(mark, low - len(mark), high)) >= 0:
                start = at + len(mark)
                break
        else:
            while low < len(raw) and raw[low] & 0xC0 == 0x80:  # within a character
                low += 1
            start = low
        if start < len(raw):
            yield start
    yield len(raw)


def _integer_ends(raw: bytes, size: int) -> Iterator[int]:
    step = size // 4 * 4
    yield from range(step, len(raw) - step // 2, step)
    yield len(raw)
