"""Repetition is exact: epochs, subsets, exposures, restarts; why grain's own orders are not used."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import grain
import numpy as np
import pytest

from dlm import config
from dlm.config import planning
from dlm.data import windows as data
from dlm.data.store import Manifest, Split, Store
from dlm.errors import DlmError

L = 4


def numbers(lengths: list[int], validation: list[int] | None = None) -> Store:
    """A store, in memory, of documents of these lengths in which token k is the number k."""
    validation = validation or [8]
    sizes = {"train": lengths, "validation": validation}
    splits = {
        name: Split(documents=len(v), tokens=sum(v), bytes=None, unique_documents=len(v))
        for name, v in sizes.items()
    }
    manifest = Manifest(
        format="", name="numbers", options={}, validation_share=0.1, fingerprint="", vocab_size=999,
        eod=None, tokenizer=None, tokenizer_fingerprint=None, python="", entropy=None,
        unique_ngrams=1.0,
        document_length=lengths[0] if len({*lengths, *validation}) == 1 else None, **splits,
    )  # fmt: skip
    return Store(
        path=Path("/nowhere"),
        manifest=manifest,
        train=np.arange(sum(lengths), dtype=np.uint16),
        validation=np.arange(sum(validation), dtype=np.uint16),
        train_offsets=np.cumsum([0, *lengths]),
        validation_offsets=np.cumsum([0, *validation]),
    )


def windows_of(n: int) -> np.ndarray:
    return np.arange(n * L, dtype=np.int32).reshape(n, L)


def all_batches(
    store, windows, *, mode: str = "epoch", batch: int = 3, steps: int = 20, seed: int = 0
):
    settings = config.Data(seq_len=windows.shape[1], mode=mode, subset="documents")
    training = config.Train(batch_size=batch, seed=seed)
    return data.batches(windows, store.train_offsets, settings, training, steps)


def same(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in ("tokens", "origin"))


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", ["windows", "documents"])
def test_budgets_nest(subset: str) -> None:
    store = numbers([8] * 10)
    whole = data.training_windows(store, L, 80, subset)
    assert sorted(whole.ravel().tolist()) == list(range(80))  # token k is the number k
    assert np.array_equal(whole, whole[:, :1] + np.arange(L))  # windows are whole
    for unique in (4, 16, 40):
        part = data.training_windows(store, L, unique, subset)
        assert np.array_equal(part, whole[: unique // L])
    if subset == "documents":
        assert np.array_equal(whole.ravel(), store.train)
    else:
        assert not np.array_equal(whole.ravel(), store.train)


@pytest.mark.parametrize("subset", ["windows", "documents"])
def test_each_training_window_knows_its_document(subset: str) -> None:
    store = numbers([3, 9, 1, 7, 12, 8])
    for unique in (8, 40):
        windows = data.training_windows(store, L, unique, subset)
        found = data.training_documents(store, L, unique, subset)
        expected = [np.searchsorted(store.train_offsets, w[0], side="right") - 1 for w in windows]
        assert found.tolist() == expected


def plan(store: Store, length: int) -> planning.Plan:
    base = config.Config(data=config.Data(seq_len=length), train=config.Train(batch_size=1))
    return planning.plan(base, **store.sizes)


def test_a_window_must_divide_documents_of_one_length() -> None:
    with pytest.raises(DlmError, match="config.data.seq_len=3: must be a divisor of 8, the length"):
        plan(numbers([8] * 10), 3)
    assert plan(numbers([8, 7]), 3).windows == 5  # text: any length


def test_validation_windows_and_too_little_of_it() -> None:
    store = numbers([8, 4], [5, 5])
    assert data.validation_windows(store, L).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert plan(store, 10).held_out == 1
    with pytest.raises(DlmError, match="config.data.seq_len=11: must be at most 10"):
        plan(store, 11)


def test_copies_of_a_validation_document_are_one(monkeypatch) -> None:
    store = numbers([8], [6, 5, 6, 3])
    assert data.validation_documents(store, L).tolist() == [0, 0, 1, 2, 2]
    split = dataclasses.replace(store.manifest.validation, unique_documents=3)
    manifest = dataclasses.replace(store.manifest, validation=split)
    tokens = np.array([*range(6), *range(50, 55), *range(6), 1, 2, 3], np.uint16)
    copies = dataclasses.replace(store, manifest=manifest, validation=tokens)
    assert data.validation_documents(copies, L).tolist() == [0, 0, 1, 0, 0]


def test_window_documents_names_the_document_a_window_starts_in() -> None:
    offsets = np.array([0, 5, 6, 14, 20])
    # windows start at 0, 4, 8, 12, 16
    assert data.window_documents(offsets, L, 5).tolist() == [0, 0, 2, 2, 3]
    assert data.window_documents(np.arange(0, 81, 8), 8, 10).tolist() == list(range(10))


# --- epochs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_each_epoch_is_a_permutation_of_exactly_the_unique_windows(n: int) -> None:
    windows = windows_of(n)
    where = data.epochs(n, L, seed=3)
    orders = []
    for epoch in range(5):
        tokens = windows.ravel()[where(epoch * n + np.arange(n))]
        origins = (tokens[:, 0] // L).tolist()  # token k is the number k
        assert sorted(origins) == list(range(n))
        assert np.array_equal(tokens, windows[origins])
        orders.append(tuple(origins))
    across = where(np.arange(3 * n, 5 * n))  # items of two epochs in one call
    assert tuple(across[:, 0] // L) == orders[3] + orders[4]
    if n > 6:
        assert len(set(orders)) == 5


def test_seed_and_epoch_do_not_trade_places() -> None:
    orders = {
        (seed, epoch): tuple(data.permutation(seed, epoch, 40))
        for seed, epoch in itertools.product(range(6), range(6))
    }
    assert len(set(orders.values())) == 36
    assert data.permutation(0, 0, 8).tolist() == data.permutation(0, 0, 8).tolist()


def test_an_order_is_pinned() -> None:
    """A change here changes every run ever made: the run id does not know of it."""
    assert data.permutation(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert data.permutation(1, 2, 8).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["epoch", "multiset"])
def test_batch_i_is_a_pure_function(mode: str) -> None:
    store = numbers([8] * 10)
    windows = data.training_windows(store, L, 44, "documents")  # the last document is cut in two
    first = list(all_batches(store, windows, mode=mode))
    again = list(all_batches(store, windows, mode=mode))
    assert len(first) == 20 and all(map(same, first, again))
    assert all(b["tokens"].shape == (3, L) for b in first)
    other = list(all_batches(store, windows, mode=mode, seed=1))
    assert not all(map(same, first, other))
    for i in (0, 1, 7, 19):
        iterator = all_batches(store, windows, mode=mode)
        for _ in range(i):
            next(iterator)
        resumed = all_batches(store, windows, mode=mode)
        resumed.set_state(iterator.get_state())
        rest = list(resumed)
        assert len(rest) == 20 - i and all(map(same, first[i:], rest))


@pytest.mark.parametrize("mode", ["epoch", "multiset"])
@pytest.mark.parametrize("batch, steps", [(1, 11), (3, 20), (4, 33), (11, 4)])
def test_exposures_sum_to_steps_times_batch_also_after_a_resume(mode, batch, steps) -> None:
    store = numbers([8] * 10)
    windows = data.training_windows(store, L, 44, "documents")
    whole = np.zeros(len(windows), np.int64)
    for item in all_batches(store, windows, mode=mode, batch=batch, steps=steps):
        data.record_exposures(whole, item["origin"])
    assert whole.sum() == steps * batch * L
    resumed = np.zeros(len(windows), np.int64)
    iterator = all_batches(store, windows, mode=mode, batch=batch, steps=steps)
    for step in range(steps):
        if step == steps // 2:  # a new process: nothing but the state goes over
            state = iterator.get_state()
            iterator = all_batches(store, windows, mode=mode, batch=batch, steps=steps)
            iterator.set_state(state)
        data.record_exposures(resumed, next(iterator)["origin"])
    assert np.array_equal(whole, resumed)
    with pytest.raises(StopIteration):
        next(iterator)


def test_in_epoch_mode_no_window_is_more_than_one_epoch_ahead() -> None:
    store = numbers([8] * 10)
    windows = data.training_windows(store, L, 44, "documents")  # 11; 3 a batch
    ledger = np.zeros(11, np.int64)
    for step, item in enumerate(all_batches(store, windows), 1):
        data.record_exposures(ledger, item["origin"])
        seen = step * 3
        assert ledger.max() <= L * -(-seen // 11) and ledger.min() >= L * (seen // 11)


# --- multiset -------------------------------------------------------------------------------------


def stream(windows: np.ndarray, store, items: int) -> np.ndarray:
    """The tokens of a multiset; token k of the corpus is the number k, so this is where, too."""
    where = data.multiset(len(windows), L, store.train_offsets, 0, items)
    return windows.ravel()[where(np.arange(items))]


@pytest.mark.parametrize("lengths", [[8] * 6, [1, 2, 3, 4, 5, 6, 7, 8, 12]])
@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_multiset_shows_every_token_of_every_document_once_an_epoch(lengths, epochs) -> None:
    store = numbers(lengths)
    unique = sum(lengths)
    windows = data.training_windows(store, L, unique, "documents")
    tokens = stream(windows, store, epochs * unique // L)
    assert np.array_equal(np.bincount(tokens.ravel(), minlength=unique), [epochs] * unique)


def test_multiset_keeps_documents_whole_and_changes_their_neighbours() -> None:
    lengths = [3, 5, 6, 2, 4, 7, 5]
    store = numbers(lengths)
    windows = data.training_windows(store, L, 32, "documents")
    tokens = stream(windows, store, 8 * 12)
    ends = store.train_offsets[1:] - 1
    follows: dict[int, set[int]] = {}
    for row in tokens:
        for a, b in itertools.pairwise(row.tolist()):
            if a in ends:
                follows.setdefault(a, set()).add(b)
            else:
                assert b == a + 1  # inside a document nothing moves
    assert all(b in store.train_offsets[:-1] for after in follows.values() for b in after)
    assert max(map(len, follows.values())) > 1  # other neighbours
    places = {(int(row[i]), i) for row in tokens for i in range(L)}
    assert len({i for token, i in places if token == 0}) > 1  # other offsets


def test_multiset_cuts_the_last_document_where_the_budget_ends() -> None:
    store = numbers([10, 10, 10])
    windows = data.training_windows(store, L, 16, "documents")
    tokens = stream(windows, store, 12)
    assert sorted(tokens.ravel().tolist()) == sorted(list(range(16)) * 3)


# --- why not grain's own orders -------------------------------------------------------------------


def grain_epochs(seed: int, n: int = 12, epochs: int = 2) -> list[list[int]]:
    dataset = grain.MapDataset.range(n).shuffle(seed=seed).repeat(epochs)
    return [[int(dataset[e * n + i]) for i in range(n)] for e in range(epochs)]


def test_grains_shuffle_lets_seed_and_epoch_trade_places() -> None:
    assert grain_epochs(0)[1] == grain_epochs(1)[0]  # the trap
    ours = [data.permutation(seed, epoch, 12).tolist() for seed, epoch in ((0, 1), (1, 0))]
    assert ours[0] != ours[1]


def test_grains_shuffle_before_slice_leaks_rows_outside_the_subset() -> None:
    n, subset, epochs = 100, 10, 5
    dataset = grain.MapDataset.range(n).shuffle(seed=0)[:subset].repeat(epochs)
    rows = [int(dataset[i]) for i in range(len(dataset))]
    assert len(set(rows)) > subset  # the trap, google/grain#1200
    ours = data.epochs(subset, L, seed=0)(np.arange(subset * epochs))
    assert set((ours // L).ravel()) == set(range(subset))


# The third, its slowness for small n (12.8 ms an item at n = 4), is a time and no test.
