"""Repeated unique tokens: nested subsets, epochs, batches, and the ledger of what was seen.

Batch i is a pure function of (corpus, unique tokens, seed, i). The order is ours; grain prefetches
and keeps the place. Three of grain's own orders would break a repetition study, each shown by
a test: `shuffle(seed=s)` in epoch e equals `shuffle(seed=s + 1)` in epoch e - 1; shuffle before
slice leaks rows from outside the subset (google/grain#1200); its index shuffle is slow for small n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from dlm import config
from dlm.data.store import Store

ALL = slice(None)


def training_windows(
    store: Store, seq_len: int, unique_tokens: int, subset: str = "windows"
) -> Int[np.ndarray, "n L"]:
    """The windows of a budget of U unique tokens: a prefix of one fixed order, so that budgets nest.

    subset "windows"    all windows of the training split in one random order: a sample of all of it
    subset "documents"  in the order of the documents: the first K of them, as in the paper; the last
                        is cut where the budget ends
    """
    chosen = _subset(store, seq_len, unique_tokens, subset)
    return _cut(store.train, seq_len)[chosen].astype(np.int32)


def training_documents(
    store: Store, seq_len: int, unique_tokens: int, subset: str = "windows"
) -> Int[np.ndarray, " n"]:
    """The document in which each of the training windows starts."""
    chosen = _subset(store, seq_len, unique_tokens, subset)
    return window_documents(store.train_offsets, seq_len, int(chosen.max()) + 1)[chosen]


def _subset(store: Store, seq_len: int, unique_tokens: int, subset: str) -> Int[np.ndarray, " n"]:
    """Indices of windows of the training split, the whole split's order cut at the budget."""
    total = len(store.train) // seq_len
    order = permutation(0, 0, total) if subset == "windows" else np.arange(total)
    return order[: unique_tokens // seq_len]


def validation_windows(store: Store, seq_len: int) -> Int[np.ndarray, "n L"]:
    """The whole validation split, cut into windows of L; a shorter rest is left out."""
    return _cut(store.validation, seq_len).astype(np.int32)


def validation_documents(store: Store, seq_len: int) -> Int[np.ndarray, " n"]:
    """The document in which each of the validation windows starts; copies of one count as one."""
    n = len(store.validation) // seq_len
    return store.validation_contents[window_documents(store.validation_offsets, seq_len, n)]


def window_documents(offsets: Int[np.ndarray, " d"], length: int, n: int) -> Int[np.ndarray, " n"]:
    """The document in which each of n windows starts; `offsets` are document starts, then the end."""
    return np.searchsorted(offsets, np.arange(n) * length, side="right") - 1


def _cut(tokens: np.ndarray, length: int) -> np.ndarray:
    """A view of memory-mapped tokens as windows; a shorter rest is left out."""
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)


def permutation(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """The order of n items in one epoch. Philox, keyed by both numbers, is stable across NumPy."""
    return np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(n), kind="stable")


Where = Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, "n L"]]


def epochs(windows: int, length: int, seed: int) -> Where:
    """Where in the unique tokens item k lies: window `permutation(seed, epoch, n)[i]` of n, with
    `epoch, i = divmod(k, n)`.
    """
    order = functools.lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, windows))

    def where(items: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n L"]:
        epoch, place = np.divmod(items, windows)
        origin = np.concatenate([order(int(e))[place[epoch == e]] for e in np.unique(epoch)])
        return origin[:, None] * length + np.arange(length)

    return where


def multiset(
    windows: int, length: int, offsets: Int[np.ndarray, " d"], seed: int, items: int
) -> Where:
    """The paper's repetition (section B): E copies of every document shuffled together, then packed.

    The stream is cut into windows and these are shuffled, so there is no epoch boundary, and each
    copy of a document meets other neighbours at another offset.
    """
    unique = windows * length
    copies = -(-items * length // unique)
    starts = offsets[offsets < unique]  # `offsets` are document starts, then the end
    lengths = np.diff(np.append(starts, unique))
    shuffled = permutation(seed, 0, len(starts) * copies) % len(starts)
    starts = starts[shuffled]  # of each copy, in the unique tokens
    ends = np.cumsum(lengths[shuffled])  # of each copy, in the stream
    order = permutation(seed, 1, copies * unique // length)

    def where(items: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n L"]:
        at = order[items][:, None] * length + np.arange(length)  # in the stream
        copy = np.searchsorted(ends, at, side="right")
        return starts[copy] + at - np.where(copy > 0, ends[copy - 1], 0)

    return where


class _Batches:
    """grain's random access: item i is batch i. All origins, and the tokens of `rows`."""

    def __init__(self, windows: Int[np.ndarray, "n L"], where: Where, size: int, steps: int, rows):
        self._tokens, self._length = windows.reshape(-1), windows.shape[1]
        self._where, self._size, self._steps, self._rows = where, size, steps, rows

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        at = self._where(np.arange(i * self._size, (i + 1) * self._size))
        return {"tokens": self._tokens[at[self._rows]], "origin": at // self._length}


def batches(
    windows: Int[np.ndarray, "n L"],
    offsets: Int[np.ndarray, " d"],
    data: config.Data,
    train: config.Train,
    steps: int,
    rows: Int[np.ndarray, " b"] | slice = ALL,
) -> grain.DatasetIterator:
    """An iterator over `steps` batches: {"tokens": Int[b L], "origin": Int[B L]}.

    `offsets` are document starts, then the end, read by mode "multiset"; `rows` are this host's.
    `origin` tells of each token of the whole batch which unique window it is from, so every host keeps
    the same ledger. The state is one number (`get_state`), the same on every host.
    """
    unique, length = windows.shape
    if data.mode == "multiset":
        items = steps * train.batch_size
        where = multiset(unique, length, offsets, train.seed, items)
    else:
        where = epochs(unique, length, train.seed)
    source: Any = _Batches(windows, where, train.batch_size, steps, rows)
    # Tokens are in memory or memory-mapped: one thread keeps ahead of a training step.
    read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=32)
    return iter(grain.MapDataset.source(source).to_iter_dataset(read))


def record_exposures(ledger: Int[np.ndarray, " n"], origin: Int[np.ndarray, "B L"]) -> None:
    """Adds one batch, in place, to the token exposures of each unique window."""
    ledger += np.bincount(origin.reshape(-1), minlength=len(ledger))
