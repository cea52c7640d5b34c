"""The token store: what it holds, that it is whole or absent, and what bad input is told."""

from __future__ import annotations

import errno
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dlm import config, sealed
from dlm.data import build as corpus
from dlm.data import corpora, resumable_log, tokenizers
from dlm.data.corpora import Source, stdlib, topics
from dlm.data.store import notes
from dlm.errors import DlmError
from places import ROOT
from stores import DOCUMENTS, build, expected_split, place_of, register, texts_of

# --- what a store holds ---------------------------------------------------------------------------


def test_a_store_gives_every_document_back_on_the_side_its_content_says(
    monkeypatch, tmp_path
) -> None:
    register(monkeypatch, DOCUMENTS)
    store = build(tmp_path, validation=0.25)
    train, validation = expected_split([text for _, text in DOCUMENTS], 0.25)
    assert texts_of(store, "train") == train
    assert texts_of(store, "validation") == validation
    manifest = store.manifest
    assert manifest.train.documents == len(train) == len(store.train_offsets) - 1
    assert manifest.train.bytes == sum(len(text.encode()) for text in train)
    characters = sum(len(text) for text in train)
    assert manifest.train.tokens == characters + len(train) == len(store.train)
    assert (store.train == manifest.eod).sum() == len(train)
    assert store.train.dtype == np.uint16 and isinstance(store.train, np.memmap)
    size = sum(len(text.encode()) for text in validation)
    assert store.bytes_per_token == pytest.approx(size / (size + len(validation)))


def test_the_order_of_the_source_changes_nothing(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    first = build(tmp_path / "a")
    register(monkeypatch, DOCUMENTS[::-1])
    second = build(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.train, second.train)


def test_more_documents_move_none_across_the_split(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    all_of_them = build(tmp_path)
    register(monkeypatch, DOCUMENTS[:120], state="fewer")
    some = build(tmp_path)
    assert set(texts_of(some, "validation")) <= set(texts_of(all_of_them, "validation"))
    assert set(texts_of(some, "train")) <= set(texts_of(all_of_them, "train"))


def test_a_name_moves_no_document_and_copies_stand_together_on_one_side(
    monkeypatch, tmp_path
) -> None:
    register(monkeypatch, DOCUMENTS)
    first = build(tmp_path / "a")
    register(monkeypatch, [(f"renamed/{i}", text) for i, text in DOCUMENTS])
    assert build(tmp_path / "b").fingerprint == first.fingerprint
    register(monkeypatch, [(f"copy {n}", text) for n in range(3) for _, text in DOCUMENTS[:40]])
    store = build(tmp_path / "c", validation=0.25)
    train, validation = expected_split([text for _, text in DOCUMENTS[:40]], 0.25)
    assert texts_of(store, "train") == [text for text in train for _ in range(3)]
    assert texts_of(store, "validation") == [text for text in validation for _ in range(3)]
    manifest = store.manifest
    assert manifest.validation.documents == 3 * manifest.validation.unique_documents > 0
    assert manifest.both_sides == 0


@pytest.mark.parametrize("kind, fields", [("chars", {}), ("bpe", {"vocab_size": 400})])
def test_the_tokenizer_sees_training_documents_only(monkeypatch, tmp_path, kind, fields) -> None:
    train, _ = expected_split([text for _, text in DOCUMENTS], 0.1)
    marked = [f"{text} Ж" for _, text in DOCUMENTS]
    _, validation = expected_split(marked, 0.1)
    register(monkeypatch, [(f"d{i}", text) for i, text in enumerate(train + validation)])
    store = build(tmp_path, kind=kind, **fields)
    plain = tokenizers.make(config.Tokenizer(kind=kind, **fields), lambda: train)
    assert store.manifest.tokenizer_fingerprint == plain.fingerprint
    shown = "".join(texts_of(store, "validation"))
    assert ("\ufffd" in shown, "Ж" in shown) == (
        (True, False) if kind == "chars" else (False, True)
    )


def test_the_fingerprint_follows_content_split_and_tokenizer(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    prints = {
        build(tmp_path).fingerprint,
        build(tmp_path, kind="bytes").fingerprint,
        build(tmp_path, kind="bpe", vocab_size=400).fingerprint,
        build(tmp_path, kind="bpe", vocab_size=401).fingerprint,
        build(tmp_path, validation=0.3).fingerprint,
    }
    changed = [*DOCUMENTS[:-1], (DOCUMENTS[-1][0], DOCUMENTS[-1][1].replace("end", "dne"))]
    register(monkeypatch, changed, state="changed")
    prints.add(build(tmp_path).fingerprint)
    assert len(prints) == 6
    register(monkeypatch, DOCUMENTS, state="again")
    assert build(tmp_path / "elsewhere").fingerprint in prints


def test_distinct_documents_and_ngrams_are_counted(monkeypatch, tmp_path) -> None:
    rng = np.random.default_rng(0)
    bases = [rng.integers(0, 50, 40) for _ in range(100)]
    register(monkeypatch, [(f"d{i}", bases[i % 100]) for i in range(120)], vocab_size=50)
    store = build(tmp_path)
    held_out = {i for i, base in enumerate(bases) if place_of(base) < 0.1}
    manifest = store.manifest
    assert manifest.validation.unique_documents == len(held_out) > 0
    assert manifest.train.unique_documents == 100 - len(held_out)
    assert manifest.train.documents == sum(i % 100 not in held_out for i in range(120))
    grams = [tuple(store.train[i : i + 13].tolist()) for i in range(len(store.train) - 12)]
    assert manifest.unique_ngrams == len(set(grams)) / len(grams) < 1
    assert manifest.train.bytes is None and manifest.eod is None and store.bytes_per_token is None
    assert corpus.unique_ngrams(np.zeros(100, np.uint16)) == 1 / 88
    assert corpus.unique_ngrams(np.zeros(5, np.uint16)) == 1.0


def test_lone_halves_of_surrogate_pairs_are_replaced(monkeypatch, tmp_path) -> None:
    register(monkeypatch, [(i, text + "\ud83d\ude00\ud800") for i, text in DOCUMENTS])
    store = build(tmp_path, kind="bytes")
    assert texts_of(store, "train")[0].endswith("😀\ufffd")


# --- whole or absent ------------------------------------------------------------------------------


def test_a_store_is_opened_again_without_reading_the_source(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    first = build(tmp_path)

    def broken():
        raise AssertionError("the source was read")
        yield

    register(monkeypatch, broken())
    assert build(tmp_path).path == first.path
    assert corpus.load(first.path).manifest == first.manifest
    register(monkeypatch, DOCUMENTS, state="another")
    assert build(tmp_path).path != first.path


@pytest.mark.parametrize("fault", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_source_that_fails_leaves_nothing(monkeypatch, tmp_path, fault) -> None:
    def failing():
        yield from DOCUMENTS[:100]
        raise fault

    register(monkeypatch, failing())
    with pytest.raises(type(fault)):
        build(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_a_full_disk_is_one_line_and_leaves_nothing(monkeypatch, tmp_path) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    register(monkeypatch, DOCUMENTS)
    kept = build(tmp_path, validation=0.3)
    with monkeypatch.context() as context:
        context.setattr(np, "save", full)
        with pytest.raises(DlmError, match=f"{tmp_path}: .*No space left on device.*--workdir"):
            build(tmp_path)
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == [kept.path]
    register(monkeypatch, DOCUMENTS)
    train, _ = expected_split([text for _, text in DOCUMENTS], 0.1)
    assert build(tmp_path).manifest.train.documents == len(train)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DlmError, match=f"{folder}: the token store cannot be written"):
            build(folder)


CHILD = """
import sys, time
from pathlib import Path
from dlm import config
from dlm.data import build, corpora

def slow():
    with open(sys.argv[2], "a") as file:
        file.write("reading\\n")
    for i in range(50):
        yield f"d{i}", f"document {i}"
        time.sleep(float(sys.argv[3]))

corpora.CORPORA["slow"] = lambda: corpora.Source(documents=slow())
store = build.build(config.Corpus(name="slow"), config.Tokenizer(), Path(sys.argv[1]))
print(store.fingerprint)
"""


def child(folder: Path, log: Path, pause: float) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(folder), str(log), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_that_build_at_once_build_once(tmp_path) -> None:
    log = tmp_path / "log"
    children = [child(tmp_path / "stores", log, 0.01) for _ in range(3)]
    prints = [process.communicate(timeout=60)[0].strip() for process in children]
    assert all(process.returncode == 0 for process in children)
    assert len(set(prints)) == 1 and len(prints[0]) == 64
    assert log.read_text() == "reading\n"


def test_a_build_that_is_killed_leaves_no_store_and_is_made_good(tmp_path) -> None:
    folder, log = tmp_path / "stores", tmp_path / "log"
    victim = child(folder, log, 10.0)
    deadline = time.monotonic() + 60
    while not list(folder.glob(".slow-*.partial/documents")) and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert list(folder.glob(".slow-*.partial")) and not list(folder.glob("slow-*"))
    second = child(folder, log, 0.0)
    assert len(second.communicate(timeout=60)[0].strip()) == 64
    assert list(folder.glob("slow-*")) and not list(folder.glob(".slow-*.partial"))


# --- a source with places, a source with a split of its own ---------------------------------------


class Placed:
    """Documents that can be read from anywhere; number `bad` raises, or is what `bad` maps it to."""

    def __init__(self, documents, bad: dict | None = None):
        self.documents, self.bad, self.place, self.read = documents, bad or {}, 0, []

    def __iter__(self):
        for i in range(self.place, len(self.documents)):
            if isinstance(self.bad.get(i), BaseException):
                raise self.bad[i]
            self.read.append(i)
            self.place = i + 1
            yield self.documents[i][0], self.bad.get(i, self.documents[i][1])


def same(first: corpus.Store, second: corpus.Store) -> bool:
    names = ("tokens.bin", "offsets.npy", "tokenizer/kind.json")
    return first.fingerprint == second.fingerprint and all(
        (first.path / name).read_bytes() == (second.path / name).read_bytes() for name in names
    )


@pytest.mark.parametrize("fault", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [0, 1, 57, 199])
def test_a_source_with_places_goes_on_after_a_fault(monkeypatch, tmp_path, fault, at) -> None:
    monkeypatch.setattr(resumable_log, "BLOCK", 300)
    register(monkeypatch, DOCUMENTS)
    whole = build(tmp_path / "whole")
    source = Placed(DOCUMENTS, {at: fault})
    monkeypatch.setitem(corpora.CORPORA, "notes", lambda: Source(documents=source))
    with pytest.raises(type(fault)):
        build(tmp_path)
    source.bad, source.place = {}, -1  # the place must come from the disk...
    if at == 0:
        source.place = 0  # ...where there is one
    assert same(build(tmp_path), whole)
    assert source.read == list(range(200))
    assert not list(tmp_path.glob(".notes*.partial"))


def test_a_document_that_is_refused_is_not_passed_over(monkeypatch, tmp_path) -> None:
    source = Placed(DOCUMENTS, {30: 5})
    monkeypatch.setitem(corpora.CORPORA, "notes", lambda: Source(documents=source))
    for _ in range(2):
        with pytest.raises(DlmError, match="document note-30: must be text"):
            build(tmp_path)


@pytest.mark.parametrize("block", [1, 400, 10**9])
def test_blocks_change_no_bit(monkeypatch, tmp_path, block) -> None:
    integers = [(i, np.frombuffer(text.encode(), np.uint8)) for i, text in DOCUMENTS]
    for documents, vocab_size in ((DOCUMENTS, None), (integers, 256)):
        register(monkeypatch, documents, vocab_size, state=vocab_size)
        first = build(tmp_path / "a")
        with monkeypatch.context() as context:
            context.setattr(resumable_log, "BLOCK", block)
            register(monkeypatch, documents, vocab_size, state=vocab_size)
            assert build(tmp_path / "b").fingerprint == first.fingerprint


@pytest.mark.parametrize("name", resumable_log.FILES)
@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw[:-2] + b"?" + raw[-1:],
    lambda raw: b"", lambda raw: raw + raw[-7:],
])  # fmt: skip
def test_a_torn_block_is_dropped_and_written_again(tmp_path, name, damage) -> None:
    log, blocks = tmp_path / "log", [(b"one", b"12345678"), (b"", b""), (b"three!", b"abcdefgh")]
    assert resumable_log.recover(log) is None
    for number, block in enumerate(blocks):
        resumable_log.append(log, *block, {"blocks": number + 1})
    whole = {file: (log / file).read_bytes() for file in resumable_log.FILES}
    (log / name).write_bytes(damage(whole[name]))
    place = resumable_log.recover(log)
    left = place["blocks"] if place else 0
    assert (log / "data").read_bytes() == b"".join(data for data, _ in blocks[:left])
    for number, block in enumerate(blocks[left:], left):
        resumable_log.append(log, *block, {"blocks": number + 1})
    assert {file: (log / file).read_bytes() for file in resumable_log.FILES} == whole
    assert resumable_log.recover(log) == {"blocks": 3}


def test_a_split_of_the_sources_own_keeps_its_order(monkeypatch, tmp_path) -> None:
    def own(held) -> None:
        source = Source(documents=DOCUMENTS[:150], validation=held)
        monkeypatch.setitem(corpora.CORPORA, "notes", lambda: source)

    own(DOCUMENTS[150:])
    store = build(tmp_path)
    assert texts_of(store, "train") == [text for _, text in DOCUMENTS[:150]]
    assert texts_of(store, "validation") == [text for _, text in DOCUMENTS[150:]]
    assert store.manifest.validation_share is None and store.manifest.places is None
    assert build(tmp_path, validation=0.4).path == store.path
    assert store.manifest.both_sides == 0
    own(DOCUMENTS[147:])
    assert build(tmp_path / "overlap").manifest.both_sides == 3
    own([])
    with pytest.raises(DlmError, match="corpus.name='notes': its validation split holds no text"):
        build(tmp_path / "empty")


# --- few documents --------------------------------------------------------------------------------

PARAGRAPHS = [
    f"Paragraph {i} begins here.\n" + f"It says {i * i}, and {i} again.\n" * (3 + i % 7)
    for i in range(200)
]
BOOK = "\n".join(PARAGRAPHS)


def test_one_book_is_split_by_passages_within_it(monkeypatch, tmp_path) -> None:
    register(monkeypatch, [("book", BOOK)])
    store = build(tmp_path)
    train, validation = texts_of(store, "train"), texts_of(store, "validation")
    assert len(train) > 5 < len(validation)
    assert 0.08 < sum(map(len, validation)) / len(BOOK) < 0.12
    # Each piece is contiguous text of the book, and together they are all of it.
    pieces = sorted(train + validation, key=BOOK.index)
    assert "".join(pieces) == BOOK
    sides = ["train" if piece in train else "validation" for piece in pieces]
    assert all(a != b for a, b in itertools.pairwise(sides))  # cut only where the side changes
    assert sum(piece.endswith("\n\n") for piece in pieces[:-1]) > 0.7 * len(pieces)
    manifest = store.manifest
    assert (manifest.source_documents, manifest.cut_documents, manifest.both_sides) == (1, 1, 0)
    assert manifest.document_length is None
    (note,) = notes(manifest)
    assert note.startswith(
        "1 distinct document, too few to hold out a share of 0.1 of them: passages"
    )
    assert "Standard errors are over passages" in note
    register(monkeypatch, [("renamed", BOOK)], state="again")
    assert build(tmp_path).fingerprint == store.fingerprint
    assert texts_of(build(tmp_path, validation=0.3), "train") != train


def test_a_few_short_files_are_split_and_copies_stay_together(monkeypatch, tmp_path) -> None:
    few = ["\n".join(PARAGRAPHS[i : i + 5]) for i in range(0, 70, 5)]
    register(monkeypatch, [(f"f{i}", text) for i, text in enumerate(few)])
    store = build(tmp_path)
    assert min(len(texts_of(store, side)) for side in ("train", "validation")) > 0
    register(monkeypatch, [(f"f{i}", text) for i, text in enumerate(few[::-1])], state="reversed")
    assert build(tmp_path).fingerprint == store.fingerprint
    register(monkeypatch, [(f"f{i}", text) for i, text in enumerate(few * 3)], state="thrice")
    thrice = build(tmp_path)
    assert set(texts_of(thrice, "validation")) == set(texts_of(store, "validation"))
    assert thrice.manifest.both_sides == 0
    assert "2 of 3" not in " ".join(notes(thrice.manifest))
    many = [(f"f{i}", f"{text} {i}") for i, text in enumerate(few * 20)]
    register(monkeypatch, many, state="enough for whole documents")
    assert build(tmp_path).manifest.passage_bytes == 0


@pytest.mark.parametrize(
    "text", ["東京" * 3000, "no mark at all ".replace(" ", "") * 900, "é" * 5001]
)
def test_passages_end_between_characters(monkeypatch, tmp_path, text) -> None:
    numbered = "".join(f"{text[i : i + 50]}{i}" for i in range(0, len(text), 50))
    register(monkeypatch, [("one", numbered)])
    store = build(tmp_path, kind="bytes")
    pieces = [*texts_of(store, "train"), *texts_of(store, "validation")]
    assert "".join(sorted(pieces, key=numbered.index)) == numbered


def test_integers_are_cut_unless_their_length_means_something(monkeypatch, tmp_path) -> None:
    long = np.arange(20_000) % 977
    register(monkeypatch, [("one", long)], vocab_size=977)
    store = build(tmp_path)
    assert len(store.train) + len(store.validation) == 20_000
    assert 1500 < len(store.validation) < 2500 and store.manifest.document_length is None
    rest = np.concatenate([store.train, store.validation])
    assert np.array_equal(np.bincount(rest), np.bincount(long))
    images = [(f"i{i}", np.full(1024, i)) for i in range(8)]
    register(monkeypatch, images, vocab_size=8, state="images")
    store = build(tmp_path)
    assert store.manifest.document_length == 1024
    assert (store.manifest.train.documents, store.manifest.validation.documents) == (7, 1)
    assert "8 distinct documents, too few" in notes(store.manifest)[0]


# --- what a tokenizer loses -----------------------------------------------------------------------


def test_bits_per_byte_are_withheld_if_the_tokenizer_alters_text(monkeypatch, tmp_path) -> None:
    train, validation = expected_split([text for _, text in DOCUMENTS], 0.1)
    register(monkeypatch, DOCUMENTS)
    known = build(tmp_path)
    trip = known.manifest.validation.round_trip
    assert trip and (trip.altered, trip.lost, trip.texts) == (0, 0.0, len(validation))
    assert known.bytes_per_token is not None and notes(known.manifest) == []
    rare = next(t for i in range(999) if place_of(t := f"Жabc {i} é") < 0.1)
    register(monkeypatch, [*DOCUMENTS, ("rare", rare)], state="rare")
    store = build(tmp_path)
    trip = store.manifest.validation.round_trip
    assert trip and trip.altered == 1 and set(trip.characters) == set("Жé")
    size = sum(len(text) for text in [*validation, rare])
    assert trip.lost == pytest.approx(2 / size)
    assert store.bytes_per_token is None
    assert store.manifest.train.round_trip.altered == 0
    (note,) = notes(store.manifest)
    assert "1 of 20 validation texts come back altered" in note and "withheld" in note
    assert build(tmp_path, kind="bytes").bytes_per_token is not None


# --- damage ---------------------------------------------------------------------------------------


def damage_truncate(path: Path) -> str:
    file = path / "tokens.bin"
    file.write_bytes(file.read_bytes()[:-2])
    return "tokens.bin is not as it was written"


def damage_json(path: Path) -> str:
    (path / "manifest.json").write_text('{"format": ')
    return "manifest.json is not readable JSON"


def damage_foreign(path: Path) -> str:
    sealed.write(path / "manifest.json", {"format": "somebody-else-7"})
    return "manifest.json has format 'somebody-else-7', this dlm reads 'dlm-corpus-4'"


def damage_list(path: Path) -> str:
    (path / "manifest.json").write_text("[1, 2]")
    return "manifest.json holds a list"


def damage_seal(path: Path) -> str:
    file = path / "manifest.json"
    file.write_text(file.read_text().replace(sealed.DIGEST, "digest"))
    return "manifest.json has no sha256"


def damage_key(path: Path) -> str:
    file = path / "manifest.json"
    values = sealed.read(file)
    del values["vocab_size"]
    sealed.write(file, values)
    return "manifest.json is corrupt.*vocab_size"


def damage_number(path: Path) -> str:
    file = path / "manifest.json"
    text = file.read_text()
    assert '"vocab_size": ' in text
    file.write_text(text.replace('"vocab_size": ', '"vocab_size": 1'))
    return "manifest.json is not as it was written"


def damage_offsets(path: Path) -> str:
    np.save(path / "offsets.npy", np.arange(500))
    return "offsets.npy is not as it was written"


def damage_tokenizer(path: Path) -> str:
    file = path / "tokenizer" / "chars.json"
    file.write_text(file.read_text().replace("a", "A"))
    return "tokenizer/chars.json is not as it was written"


def damage_missing(path: Path) -> str:
    (path / "tokens.bin").unlink()
    return "tokens.bin is missing"


def damage_folder(path: Path) -> str:
    (path / "tokens.bin").unlink()
    (path / "tokens.bin").mkdir()
    return "tokens.bin cannot be read: is a folder"


def damage_ids(path: Path) -> str:
    """Whole, by its digests, but of ids that the vocabulary has not."""
    file = path / "tokens.bin"
    tokens = np.fromfile(file, "<u2")
    tokens[-1] = 999
    tokens.tofile(file)
    values = sealed.read(path / "manifest.json")
    sealed.write(path / "manifest.json", values, values[sealed.FILES])
    return "tokens.bin holds id 999; the vocabulary has"


@pytest.mark.parametrize(
    "damage", [v for k, v in dict(globals()).items() if k.startswith("damage_")]
)
def test_a_damaged_store_is_refused_by_name(monkeypatch, tmp_path, damage) -> None:
    register(monkeypatch, DOCUMENTS)
    path = build(tmp_path).path
    message = damage(path)
    for attempt in (lambda: corpus.load(path), lambda: build(tmp_path)):
        with pytest.raises(DlmError, match=message) as error:
            attempt()
        assert f"delete {path}" in str(error.value) and "\n" not in str(error.value)


def test_a_bit_flipped_in_any_file_of_a_store_is_refused_or_harmless(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    whole = build(tmp_path)
    files = [path for path in sorted(whole.path.rglob("*")) if path.is_file()]
    names = ["chars.json", "kind.json", "manifest.json", "offsets.npy", "tokens.bin"]
    assert sorted(path.name for path in files) == names
    random, refused = np.random.default_rng(0), 0
    for file in files:
        content = file.read_bytes()
        for bit in random.integers(0, 8 * len(content), 12):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                store = corpus.load(whole.path)
            except DlmError as error:
                assert file.name in str(error) and f"delete {whole.path}" in str(error)
                refused += 1
            else:  # white space of the manifest
                assert file.name == "manifest.json" and store.manifest == whole.manifest
        file.write_bytes(content)
    assert refused > 12 * (len(files) - 1)
    np.testing.assert_array_equal(corpus.load(whole.path).train, whole.train)


def test_a_store_is_checked_once_by_a_process_and_may_be_copied(monkeypatch, tmp_path) -> None:
    register(monkeypatch, DOCUMENTS)
    path, reads = build(tmp_path).path, []
    monkeypatch.setattr(
        sealed, "file_digest", lambda p, real=sealed.file_digest: reads.append(p) or real(p)
    )
    first = corpus.load(path)
    assert corpus.load(path) is first and not reads  # it was checked when it was built
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(path, copy)
    assert corpus.load(copy).fingerprint == first.fingerprint
    assert {p.name for p in reads} == {"tokens.bin", "offsets.npy", "chars.json", "kind.json"}


def test_no_store_is_told_as_such(tmp_path) -> None:
    with pytest.raises(DlmError, match="nowhere: no such token store"):
        corpus.load(tmp_path / "nowhere")


# --- bad choices ----------------------------------------------------------------------------------


def test_unknown_corpora_and_options_get_the_nearest_name(tmp_path) -> None:
    with pytest.raises(DlmError, match="config.corpus.name='digit': .*did you mean digits"):
        build(tmp_path, name="digit")
    with pytest.raises(DlmError, match="config.corpus.options.sede: .*did you mean seed"):
        build(tmp_path, name="topics", sede=1)
    with pytest.raises(DlmError, match="config.corpus.options.paths: missing"):
        build(tmp_path, name="files")
    with pytest.raises(DlmError, match="config.corpus.options.documents='many'"):
        build(tmp_path, name="topics", documents="many")
    with pytest.raises(DlmError, match="config.corpus.options.length=0: .*1 to 1,000,000"):
        build(tmp_path, name="topics", length=0)
    assert list(tmp_path.iterdir()) == []


def test_a_split_needs_a_document_on_each_side(monkeypatch, tmp_path) -> None:
    for number, texts in enumerate((["one"], [""] * 50, ["a copy of a line"] * 50, [])):
        register(monkeypatch, [(f"d{i}", text) for i, text in enumerate(texts)], state=number)
        size = len("".join(texts))
        with pytest.raises(
            DlmError, match=f"validation_fraction=0.1: {size} bytes of text, .*more text"
        ):
            build(tmp_path)


def test_integers_are_whole_and_in_range(monkeypatch, tmp_path) -> None:
    for bad, message in (
        (np.array([0, 5]), "ids 0 to 5, must be 0 to 4"),
        (np.zeros((2, 2), int), "1-D"),
        (np.array([0.5]), "integers"),
    ):
        register(monkeypatch, [("a", bad)], vocab_size=5)
        with pytest.raises(DlmError, match=f"document a: .*{message}"):
            build(tmp_path)


# --- the corpora ----------------------------------------------------------------------------------


def test_digits_are_the_1797_images(tmp_path) -> None:
    store = build(tmp_path, name="digits")
    manifest = store.manifest
    assert manifest.train.documents + manifest.validation.documents == 1797
    assert (
        store.manifest.document_length == 64 and store.vocab_size == 17 and store.tokenizer is None
    )
    assert manifest.train.unique_documents == manifest.train.documents  # no image is there twice
    everything = np.concatenate([store.train, store.validation])
    assert len(everything) == 1797 * 64 and everything.max() == 16
    assert everything.sum() == 561718  # of scikit-learn's array
    rows = store.decode(store.train[:64]).split("\n")
    assert [len(row) for row in rows] == [8] * 8
    assert store.decode([0, 16, 17, 99]) == " @??"


def test_topics_follow_their_seed(tmp_path) -> None:
    first = build(tmp_path / "a", name="topics", documents=300)
    again = build(tmp_path / "b", name="topics", documents=300)
    other = build(tmp_path, name="topics", documents=300, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.manifest.document_length == 64 and first.vocab_size == 128
    few, many = (dict(topics.topics(documents=n).documents) for n in (20, 60))
    assert all(np.array_equal(few[name], many[name]) for name in few)
    assert first.decode([3, 127, 128]) == "3 127 ?"


def test_topics_carry_no_information_in_their_order() -> None:
    # Within a document, positions are exchangeable: how often neighbours are equal is how often
    # any two positions are equal, while across documents equality is much rarer.
    tokens = np.array([ids for _, ids in topics.topics(documents=2000).documents])
    near = (tokens[:, 1:] == tokens[:, :-1]).mean(axis=1)
    far = (tokens[:, 32:] == tokens[:, :32]).mean(axis=1)
    difference = near - far
    assert abs(difference.mean()) < 4 * difference.std() / len(tokens) ** 0.5
    across = (tokens[1:] == tokens[:-1]).mean()
    assert near.mean() > 3 * across
    first, last = (np.bincount(tokens[:, i], minlength=128) for i in (0, 63))
    spread = np.sqrt(np.maximum(first + last, 1))
    assert (np.abs(first - last) / spread).max() < 4.5


def test_the_standard_library_is_english_prose() -> None:
    source = stdlib.stdlib()
    documents = [(name, str(content)) for name, content in source.documents]
    assert len({name for name, _ in documents}) == len(documents) > 300
    text = "".join(content for _, content in documents)
    assert 1_100_000 < len(text) < 1_800_000
    assert set(text) <= {chr(i) for i in range(32, 127)} | {"\n"}
    paragraphs = text.rstrip("\n").split("\n")
    assert len(set(paragraphs)) == len(paragraphs)
    assert ">>>" not in text and "::=" not in text
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    assert words["the"] > 0.05 * sum(words.values())  # as in English, where code has none
    assert any(name.startswith("module/json") for name, _ in documents)
    assert platform.python_version() in source.state.values()


def test_prose_is_told_from_code() -> None:
    docstring = """Return the “first” line — of the file.

    This is a longer paragraph, which goes on and
    on, and holds a self-
    contained word.

        >>> first("x")
        'x'

    Column   Meaning
    ------   -------

    * the point of a list, in words and with an end.
    * path -- p

    def f(x, y): return x + y
    """
    assert list(stdlib.paragraphs(docstring)) == [
        'Return the "first" line - of the file.',
        "This is a longer paragraph, which goes on and on, and holds a self-contained word.",
        "the point of a list, in words and with an end.",
    ]
