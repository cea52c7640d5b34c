"""Datasets of the Hub, from local files in the same formats: which documents, their order, resuming."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from dlm import config
from dlm.data import build as corpus
from dlm.data import resumable_log
from dlm.data import windows as data
from dlm.data.corpora import CORPORA, hub
from dlm.errors import DlmError
from places import PUBLIC, ROOT

datasets = pytest.importorskip("datasets", reason="needs the extra [hf]")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
TRAIN = [f"Document {i} of the web, naïve, {'long ' * (i % 5)}end." for i in range(30)]
HELD = [f"Held out {i}." for i in range(8)]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test reaches the Hub; `datasets` keeps its locks out of the home folder."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["json", "parquet"])
def local(request, tmp_path) -> dict:
    """Options of local files as C4 (three .json.gz) or FineWeb-Edu (three .parquet) has them."""
    files = {}
    for split, texts, count in (("train", TRAIN, 3), ("validation", HELD, 1)):
        for number, part in enumerate(np.array_split(np.array(texts), count)):
            name = f"c4-{split}.{number:05d}-of-{count:05d}"
            write(tmp_path / name, request.param, part.tolist())
        files[split] = str(tmp_path / f"c4-{split}.*")
    return {"dataset": request.param, "files": files}


def write(path: Path, kind: str, texts: list[str]) -> None:
    rows = [{"text": text, "url": f"u{i}", "score": 0.5} for i, text in enumerate(texts)]
    if kind == "json":
        with gzip.open(f"{path}.json.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, f"{path}.parquet", row_group_size=4)


def texts(stream) -> list[str]:
    return [text for _, text in stream if isinstance(text, str)]


def stream(local: dict, **options) -> hub.Stream:
    made = CORPORA["hub"](**(local | options)).documents
    assert isinstance(made, hub.Stream)
    return made


def build(folder: Path, local: dict, kind: str = "bytes", **options) -> corpus.Store:
    chosen = config.Corpus(name="hub", options=local | options)
    return corpus.build(chosen, config.Tokenizer(kind=kind), folder)


def documents(store: corpus.Store, side: str) -> list[str]:
    tokens, offsets = getattr(store, side), getattr(store, f"{side}_offsets")
    return [store.decode(tokens[a : b - 1]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


# --- which documents, in which order --------------------------------------------------------------


def test_the_first_documents_in_the_datasets_own_order(local) -> None:
    assert texts(stream(local)) == TRAIN
    for count in (1, 10, 11, 30):
        assert texts(stream(local, documents=count)) == TRAIN[:count]
    assert texts(stream(local, split="validation")) == HELD
    with pytest.raises(DlmError, match="31 documents are asked for, .*'train' of .* has 30"):
        texts(stream(local, documents=31))


def test_a_split_of_its_own_keeps_its_order_and_budgets_are_its_first_documents(
    local, tmp_path
) -> None:
    own = dict(validation_split="validation", validation_documents=5, documents=20)
    store = build(tmp_path / "stores", local, **own)
    assert documents(store, "train") == TRAIN[:20]
    assert documents(store, "validation") == HELD[:5]
    manifest = store.manifest
    assert manifest.validation_share is None
    assert manifest.places and [p["documents"] for p in manifest.places] == [20, 5]
    windows = data.training_windows(store, 16, 8 * 16, "documents")
    stream = "\0".join([*TRAIN, ""]).encode()  # one end of document each
    ids = np.frombuffer(stream, np.uint8).astype(np.int32)
    ids[ids == 0] = 256
    np.testing.assert_array_equal(windows.reshape(-1), ids[: 8 * 16])


def test_without_one_documents_are_held_out_by_hash(local, tmp_path) -> None:
    store = build(tmp_path / "stores", local)
    sides = documents(store, "train"), documents(store, "validation")
    assert sorted(sides[0] + sides[1]) == sorted(TRAIN) and min(map(len, sides)) > 0
    assert store.manifest.validation_share == 0.1


def test_the_share_of_a_hash_split_is_no_part_of_a_split_of_its_own(local, tmp_path) -> None:
    options = local | {"validation_split": "validation"}
    paths = {
        corpus.build(
            config.Corpus(name="hub", options=options, validation_fraction=share),
            config.Tokenizer(kind="bytes"),
            tmp_path / "stores",
        ).path
        for share in (0.1, 0.2)
    }
    assert len(paths) == 1


def test_both_formats_are_one_corpus(tmp_path, request) -> None:
    pq.write_table(pa.table({"text": TRAIN}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TRAIN))
    stores = [
        build(tmp_path / "stores", {"dataset": kind, "files": str(tmp_path / name)})
        for kind, name in (("json", "a.jsonl"), ("parquet", "a.parquet"))
    ]
    assert stores[0].path != stores[1].path
    assert stores[0].fingerprint == stores[1].fingerprint


def test_a_dataset_that_the_library_saved_is_read_as_files(tmp_path) -> None:
    rows = datasets.Dataset.from_dict({"n": range(30), "text": TRAIN}).select(range(10, 30))
    rows.save_to_disk(tmp_path / "saved", num_shards=3)
    assert texts(CORPORA["files"](paths=str(tmp_path / "saved")).documents) == TRAIN[10:]
    datasets.DatasetDict({"a": rows, "b": rows}).save_to_disk(tmp_path / "both")
    with pytest.raises(DlmError, match="of several splits; name one of .*/both/a, .*/both/b"):
        CORPORA["files"](paths=str(tmp_path / "both"))


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25, 30])
def test_a_stream_goes_on_from_its_place(local, count) -> None:
    first, second = stream(local), stream(local)
    beginning = [text for _, (_, text) in zip(range(count), first, strict=False)]
    second.place = json.loads(json.dumps(first.place))
    assert beginning + texts(second) == TRAIN


def test_files_that_were_read_are_not_read_again(local, tmp_path) -> None:
    first, second = stream(local), stream(local)
    for _ in zip(range(12), first, strict=False):
        pass
    second.place = first.place
    write(tmp_path / "c4-train.00000-of-00003", local["dataset"], ["of another length"] * 3)
    assert texts(second) == TRAIN[12:]


@pytest.mark.parametrize("side", ["train", "validation"])
def test_a_download_that_breaks_off_goes_on_to_the_same_bits(
    local, tmp_path, monkeypatch, side
) -> None:
    options = local | {"validation_split": "validation"}
    whole = build(tmp_path / "whole", options)
    given: list[str] = []
    fault: list[str] = [side]
    original = hub.Stream._text

    def text(self, example, number):
        if [self.split] == fault and number == 6:
            raise ConnectionError("the line is down")
        given.append(f"{self.split}:{number}")
        return original(self, example, number)

    monkeypatch.setattr(hub.Stream, "_text", text)
    monkeypatch.setattr(resumable_log, "BLOCK", 100)
    with pytest.raises(DlmError, match="the line is down; the 5 documents before it are kept"):
        build(tmp_path / "stores", options)
    assert [p.suffix for p in (tmp_path / "stores").glob(".hub*")].count(".partial") == 1
    fault.clear()
    store = build(tmp_path / "stores", options)
    assert len(given) == len(set(given)) == len(TRAIN) + len(HELD)
    assert not list((tmp_path / "stores").glob(".hub*.partial"))
    assert store.manifest == whole.manifest
    for name in ("tokens.bin", "offsets.npy"):
        assert (store.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("at", [1, 4, 6])
def test_rows_without_text_are_counted_once_in_two_attempts(tmp_path, monkeypatch, at) -> None:
    rows = [*TRAIN[:3], None, "", *TRAIN[3:]]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    local = {"dataset": "json", "files": str(path), "without_text": 0.1}
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TRAIN))
    whole = build(tmp_path / "whole", {"dataset": "json", "files": str(tmp_path / "b.jsonl")})
    original, calls = hub.Stream._text, []

    def text(self, example, number):
        calls.append(number)
        if len(calls) == at:
            raise ConnectionError("down")
        return original(self, example, number)

    monkeypatch.setattr(hub.Stream, "_text", text)
    monkeypatch.setattr(resumable_log, "BLOCK", 1)
    with pytest.raises(DlmError, match="cannot be read: down"):
        build(tmp_path / "s", local)
    store = build(tmp_path / "s", local)
    assert len(calls) == len(rows) + 1  # the row that failed is read again, and no other
    assert store.fingerprint == whole.fingerprint
    assert store.manifest.without_text == 2
    assert store.manifest.first_without_text == "after train:3: 'text' is null"
    assert texts(stream(local, documents=4))[-1] == TRAIN[3]
    with pytest.raises(DlmError, match="without_text=0.05: 2 of 32 rows have no text"):
        build(tmp_path / "s", local | {"without_text": 0.05})


def test_a_newest_revision_is_found_once_and_kept_to(monkeypatch, tmp_path) -> None:
    """The Hub, with its two calls replaced: a commit for a name, and local files for a dataset."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TRAIN))
    asked, loaded, fail = [], [], [True]

    def about(self, name, revision=None):
        asked.append((name, revision))
        return types.SimpleNamespace(sha=revision or "c0ffee")

    def load(name, subset, *, split, streaming, revision, data_files):
        assert streaming and data_files is None
        loaded.append((name, subset, split, revision))
        return load_dataset("json", data_files=str(path), split="train", streaming=True)

    def text(self, example, number):
        if number == 20 and fail:
            fail.clear()
            raise ConnectionError("down")
        return example["text"]

    load_dataset = datasets.load_dataset
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", about)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub.Stream, "_text", text)
    options = {"dataset": "allenai/c4", "subset": "en"}
    with pytest.raises(DlmError, match="allenai/c4:en:train cannot be read: down; the 19 doc"):
        build(tmp_path / "stores", options)
    store = build(tmp_path / "stores", options)
    assert asked == [("allenai/c4", None), ("allenai/c4", "c0ffee")]
    assert loaded == [("allenai/c4", "en", "train", "c0ffee")] * 2
    places = [{"revision": "c0ffee", "shard": 0, "row": 30, "documents": 30}]
    assert store.manifest.places == places
    monkeypatch.setattr(datasets, "load_dataset", None)  # a store that is there asks nobody
    assert build(tmp_path / "stores", options).path == store.path
    assert len(asked) == 2


CHILD = """
import sys, time
from pathlib import Path
from dlm import config
from dlm.data import build, resumable_log, tokenizers

encode, log, pause = tokenizers.Tokenizer.encode_batch, open(sys.argv[3], "a"), float(sys.argv[4])

def slow(self, texts):
    log.write("".join(text.split(",")[0] + "\\n" for text in texts))
    log.flush()
    time.sleep(pause)
    return encode(self, texts)

tokenizers.Tokenizer.encode_batch = slow
resumable_log.BLOCK = 150
options = {"dataset": "json", "files": sys.argv[2]}
print(build.build(config.Corpus(name="hub", options=options), config.Tokenizer(), Path(sys.argv[1])).fingerprint)
"""  # noqa: E501


def test_a_kill_in_the_middle_of_tokenising_keeps_what_is_done(tmp_path) -> None:
    path, log, stores = tmp_path / "a.jsonl", tmp_path / "log", tmp_path / "stores"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TRAIN))
    root = str(ROOT)
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(tmp_path / "home")

    def child(pause: float) -> subprocess.Popen:
        words = [sys.executable, "-c", CHILD, str(stores), str(path), str(log), str(pause)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)

    victim = child(0.3)
    journals = []
    while not (journals and journals[0].read_text().count("\n") >= 2):
        assert victim.poll() is None
        time.sleep(0.02)
        journals = list(stores.glob(".hub-*.partial/tokens-*/journal"))
    victim.kill()
    victim.communicate()
    assert victim.returncode == -9 and not list(stores.glob("hub-*"))
    before = log.read_text().splitlines()
    for name in resumable_log.FILES:  # a block half written, as if the power had gone
        with open(journals[0].with_name(name), "ab") as file:
            file.write(b"[[torn")
    log.unlink()
    second = child(0.0)
    fingerprint = second.communicate(timeout=60)[0].strip()
    after = log.read_text().splitlines()
    whole = build(tmp_path / "whole", {"dataset": "json", "files": str(path)}, kind="chars")
    assert fingerprint == whole.fingerprint
    assert sorted(set(before + after)) == sorted(t.split(",")[0] for t in TRAIN)
    assert len(set(before) & set(after)) <= len(before) - 2  # two blocks at least were kept
    assert len(after) == len(set(after)) < len(TRAIN)


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options, message", [
    ({"field": "body"}, r"options.field='body': must be a field of json, one of score, text, url"),
    ({"field": "score"}, r"options.field='score': must be text; document 1 of train has 0.5"),
    ({"files": "nowhere/*.gz"}, r"options.files='nowhere/\*.gz': must be a file that exists"),
    ({"files": {"train": "pyproject.toml"}, "validation_split": "v"}, "here also of 'v'"),
    ({"files": "."}, "options.files='.': must be a file, not a folder"),
    ({"without_text": 2}, "options.without_text=2: must be from 0 to 1"),
    ({"files": [3]}, r"options.files=\[3\]: must be a glob, a list of globs"),
    ({"files": ""}, "options.files='': must be given with dataset=json or parquet"),
    ({"dataset": "allenai/c4"}, "options.files=.*: must be given with dataset=json or parquet"),
    ({"documents": -1}, "options.documents=-1: must be from 0 to 1,000,000,000,000,000"),
    ({"validation_documents": 3}, "options.validation_documents=3: must be 0 without"),
    ({"validation_split": "train"}, "options.validation_split='train': must be another"),
    ({"split": ""}, "options.split='': must be a name"),
])  # fmt: skip
def test_a_wrong_option_is_named(tmp_path, monkeypatch, options, message) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "a.jsonl"
    path.write_text('{"score": 0.5, "text": "a", "url": "u"}\n')
    with pytest.raises(DlmError, match=message):
        given = {"dataset": "json", "files": str(path)} | options
        filled = corpus.options(config.Corpus(name="hub", options=given))
        texts(CORPORA["hub"](**filled).documents)


def test_a_broken_file_is_told_in_one_line(tmp_path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    with pytest.raises(DlmError, match="dataset: json:train cannot be read: Compressed") as error:
        texts(stream({"dataset": "json", "files": str(path)}))
    assert "\n" not in str(error.value)
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    with pytest.raises(DlmError, match="dataset: json:train cannot be read: a file is empty"):
        texts(stream({"dataset": "json", "files": str(path)}))


def test_no_network_and_no_package(monkeypatch) -> None:
    c4 = {"dataset": "allenai/c4", "subset": "en"}
    with pytest.raises(DlmError, match="allenai/c4:en:train cannot be read: .*offline"):
        texts(stream(c4))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DlmError, match=r"config.corpus.name='hub': .*pip install 'dlm\[hf\]'"):
        texts(stream(c4))


def test_options_from_an_experiment_file() -> None:
    c = config.base()
    c.corpus.name = "hub"
    c.corpus.options.dataset = "json"
    c.corpus.options.files = {"train": ["a*", "b*"], "validation": "v*"}
    resolved = config.resolve(c).corpus
    assert resolved.options["files"] == {"train": ["a*", "b*"], "validation": "v*"}
    assert corpus.options(resolved)["split"] == "train"


# --- GPT-2 on C4 ----------------------------------------------------------------------------------


def test_gpt2_on_c4_counts_as_the_library_does(tmp_path) -> None:
    """The library's own byte-level BPE, one document at a time, against the store's lengths."""
    folder, path = PUBLIC / "tokenizers", PUBLIC / "corpora" / "c4_en_sample"
    if not (folder.is_dir() and path.is_dir()):
        pytest.skip(f"{folder} or {path} is not there")
    library = pytest.importorskip("tokenizers")
    files = {"train": str(path / "*train*"), "validation": str(path / "*validation*")}
    options = {"dataset": "json", "files": files, "validation_split": "validation"}
    store = corpus.build(
        config.Corpus(name="hub", options=options | {"documents": 300}),
        config.Tokenizer(kind="gpt2", path=str(folder)),
        tmp_path,
    )
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes(gzip.decompress((folder / f"gpt2-{name}.gz").read_bytes()))
    own = library.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    with gzip.open(path / "c4_en_train.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line)["text"] for line, _ in zip(file, range(300), strict=False)]
    expected = [[*own.encode(text).ids, 50256] for text in lines]
    assert np.diff(store.train_offsets).tolist() == [len(ids) for ids in expected]
    assert store.train.tolist() == [i for ids in expected for i in ids]
    assert store.manifest.validation.documents == 200
