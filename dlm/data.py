"""Repeated unique tokens: nested subsets, epochs, batches, and the ledger of what was seen.

Batch i is a pure function of (corpus, unique tokens, seed, i). The order is ours; grain batches,
prefetches and checkpoints. Three of grain's own orders would break a repetition study, each shown by
a test: `shuffle(seed=s)` in epoch e equals `shuffle(seed=s + 1)` in epoch e - 1; shuffle before
slice leaks rows from outside the subset (google/grain#1200); its index shuffle is slow for small n.
"""

from __future__ import annotations

from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from dlm import config
from dlm.errors import DlmError
from dlm.store import Store


def training_windows(
    store: Store, seq_len: int, unique_tokens: int, subset: str = "windows"
) -> Int[np.ndarray, "n L"]:
    """The windows of a budget of U unique tokens: a prefix of one fixed order, so that budgets nest.

    subset "windows"    all windows of the training split in one random order: a sample of all of it
    subset "documents"  in the order of the documents: the first K of them, as in the paper; the last
                        is cut where the budget ends

    Raises:
      DlmError: L does not divide the length of the documents, where they all have one length.
    """
    if store.document_length and store.document_length % seq_len:
        raise DlmError(
            f"config.data.seq_len={seq_len}: must divide {store.document_length}, the length of "
            f"each document of {store.manifest.name}"
        )
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
    windows = _cut(store.validation, seq_len).astype(np.int32)
    if len(windows) == 0:
        raise DlmError(
            f"config.data.seq_len={seq_len}: must be at most {len(store.validation)}, the validation "
            "tokens there are"
        )
    return windows


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


class EpochSource:
    """Item k is window `permutation(seed, epoch)[i]` with `epoch, i = divmod(k, n)`.

    `origin` is the unique window that the tokens are from.
    """

    def __init__(self, windows: Int[np.ndarray, "n L"], seed: int, items: int):
        self._windows, self._seed, self._items = windows, seed, items
        self._order = (-1, np.empty(0, int))  # (epoch, its order): one write, as threads share it

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, k: int) -> dict[str, Any]:
        epoch, i = divmod(k, len(self._windows))
        known, order = self._order
        if known != epoch:
            order = permutation(self._seed, epoch, len(self._windows))
            self._order = epoch, order
        return {"tokens": self._windows[order[i]], "origin": order[i]}


class MultisetSource:
    """The paper's repetition (section B): E copies of every document shuffled together, then packed.

    The stream is cut into windows and these are shuffled, so there is no epoch boundary, and each
    copy of a document meets other neighbours at another offset. `origin` says of each token which
    unique window it is from: Int[L].
    """

    def __init__(
        self, windows: Int[np.ndarray, "n L"], offsets: Int[np.ndarray, " d"], seed: int, items: int
    ):
        self._tokens, self._length, self._items = windows.reshape(-1), windows.shape[1], items
        unique = len(self._tokens)
        copies = -(-items * self._length // unique)
        starts = offsets[offsets < unique]  # `offsets` are document starts, then the end
        lengths = np.diff(np.append(starts, unique))
        order = permutation(seed, 0, len(starts) * copies) % len(starts)
        self._starts = starts[order]  # of each copy, in the unique tokens
        self._ends = np.cumsum(lengths[order])  # of each copy, in the stream
        self._order = permutation(seed, 1, copies * unique // self._length)

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, k: int) -> dict[str, Any]:
        at = np.arange(self._length) + self._order[k] * self._length  # in the stream
        copy = np.searchsorted(self._ends, at, side="right")
        begin = np.where(copy > 0, self._ends[copy - 1], 0)
        token = self._starts[copy] + at - begin  # in the unique tokens
        return {"tokens": self._tokens[token], "origin": token // self._length}


def batches(
    windows: Int[np.ndarray, "n L"],
    store: Store,
    data: config.Data,
    train: config.Train,
    steps: int,
) -> grain.DatasetIterator:
    """An iterator over `steps` batches: {"tokens": Int[B L], "origin": Int[B] or Int[B L]}.

    Its state is one number, saved and restored with the run's checkpoint.
    """
    items = steps * train.batch_size
    if data.mode == "multiset":
        source: Any = MultisetSource(windows, store.train_offsets, train.seed, items)
    else:
        source = EpochSource(windows, train.seed, items)
    dataset = grain.MapDataset.source(source).batch(train.batch_size)
    # Tokens are in memory or memory-mapped: one thread keeps ahead of a training step.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=32)))


def record_exposures(ledger: Int[np.ndarray, " n"], origin: np.ndarray, length: int) -> None:
    """Adds one batch, in place, to the token exposures of each unique window."""
    tokens = length if origin.ndim == 1 else 1
    ledger += tokens * np.bincount(origin.reshape(-1), minlength=len(ledger))
