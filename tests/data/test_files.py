"""Files as corpora: each format gives the same documents, and a broken file is named in one line."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm import config
from dlm.data import build as corpus
from dlm.data import corpora
from dlm.data.corpora import NoText, formats
from dlm.data.store import notes
from dlm.errors import DlmError
from places import PUBLIC
from stores import build, expected_split, register, texts_of

LINES = [{"text": f"Line {i}, naïve.", "n": i, "body": f"b{i}"} for i in range(40)]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.bz2", ".ndjson")


def write_jsonl(path: Path, records=LINES) -> Path:
    openers = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    opener = openers.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def read(*paths: Path | str, **options) -> dict[str, str]:
    source = corpora.CORPORA["files"](paths=[str(p) for p in paths], **options)
    return {name: content for name, content in source.documents if isinstance(content, str)}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_jsonl_is_a_document_a_line(tmp_path, suffix) -> None:
    path = write_jsonl(tmp_path / f"notes{suffix}")
    assert read(path) == {f"{path.name}:{i + 1}": r["text"] for i, r in enumerate(LINES)}
    assert read(path, text_field="body")[f"{path.name}:3"] == "b2"


def test_text_files_are_a_document_each_and_globs_work(tmp_path) -> None:
    for name in ("b/x.txt", "a/y.txt", "z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"\ufefftext of {name}\r\nend", newline="")
    found = read(tmp_path / "**" / "*.txt")
    assert found == {
        n: f"text of {w}\r\nend"
        for n, w in (("x.txt", "b/x.txt"), ("y.txt", "a/y.txt"), ("z.txt", "z.txt"))
    }
    (tmp_path / "a" / "z.txt").write_text("same name")
    assert set(read(tmp_path / "**" / "*.txt")) == {"a/y.txt", "a/z.txt", "b/x.txt", "z.txt"}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_a_document_an_element(tmp_path, monkeypatch, chunk, indent) -> None:
    monkeypatch.setattr(formats, "CHUNK", chunk)
    path = tmp_path / "notes.json"
    path.write_text(json.dumps([*LINES, "just text"], indent=indent, ensure_ascii=False) + "\n")
    expected = {f"notes.json:{i + 1}": r["text"] for i, r in enumerate(LINES)}
    assert read(path) == expected | {"notes.json:41": "just text"}
    path.write_text("\ufeff[ ]")
    with pytest.raises(DlmError, match="notes.json: is empty"):
        read(path)
    write_jsonl(path)  # lines are read as well, as C4's files have them
    assert read(path) == expected


@pytest.mark.parametrize("name, separator", [("notes.csv", ","), ("notes.tsv", "\t")])
def test_a_table_is_a_document_a_row(tmp_path, name, separator) -> None:
    texts = [*(r["text"] for r in LINES), 'two\nlines, and "quotes"', "long " * 50_000]
    with open(tmp_path / name, "w", newline="") as file:
        rows = csv.writer(file, delimiter=separator)
        rows.writerows([("id", "text"), *enumerate(texts)])
    assert list(read(tmp_path / name).values()) == texts
    assert set(read(tmp_path / name)) == {f"{name}:{i}" for i in range(1, len(texts) + 1)}


def test_arrow_and_zstandard_and_a_saved_dataset_are_the_same_documents(tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    texts = [r["text"] for r in LINES]
    table = pa.table({"n": range(40), "text": texts})
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)
    feather.write_feather(table, tmp_path / "a.feather")
    raw = "".join(json.dumps(record) + "\n" for record in LINES).encode()
    frames = [pa.compress(part, "zstd", asbytes=True) for part in (raw[:999], raw[999:])]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    saved = tmp_path / "saved"
    saved.mkdir()
    with pa.ipc.new_stream(saved / "data-00000-of-00001.arrow", table.schema) as file:
        file.write_table(table)
    files = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (saved / "state.json").write_text(json.dumps(files))
    for name in ("stream.arrow", "file.arrow", "a.feather", "a.jsonl.zst", "saved"):
        assert list(read(tmp_path / name).values()) == texts, name
    with pytest.raises(DlmError, match=r"file.arrow: no column 'body'; there are n, text"):
        read(tmp_path / "file.arrow", text_field="body")
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames)[:-20])
    with pytest.raises(DlmError, match="not a whole .zst file"):
        read(tmp_path / "a.jsonl.zst")
    flipped = bytearray((tmp_path / "stream.arrow").read_bytes())
    at = flipped.index("naïve".encode())
    flipped[at + 2] = 0xFF
    (tmp_path / "stream.arrow").write_bytes(flipped)
    with pytest.raises(DlmError, match=r"stream.arrow: not a whole .arrow file, from row 1 on: "):
        read(tmp_path / "stream.arrow")
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(DlmError, match=f"holds a dataset of several splits; name one of {saved}"):
        read(tmp_path)
    (saved / "state.json").write_text("[]")
    with pytest.raises(DlmError, match="state.json: not written by datasets"):
        read(saved)


def test_rows_without_text_are_counted_up_to_a_share(tmp_path) -> None:
    records = [*LINES, {"text": None}, {"text": ""}, {"body": "x"}]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    message = (
        r"without_text=0.01: 3 of 43 rows have no text, the first a.jsonl:41: 'text' is null; "
        "allow a larger share"
    )
    with pytest.raises(DlmError, match=message):
        build(tmp_path / "s", name="files", paths=str(path))
    store = build(tmp_path / "s", name="files", paths=str(path), without_text=0.1)
    write_jsonl(tmp_path / "whole.jsonl")
    whole = build(tmp_path / "s", name="files", paths=str(tmp_path / "whole.jsonl"))
    assert store.fingerprint == whole.fingerprint
    manifest = store.manifest
    assert (manifest.without_text, whole.manifest.without_text) == (3, 0)
    assert manifest.first_without_text == "a.jsonl:41: 'text' is null"
    (note,) = [n for n in notes(manifest) if "rows without text" in n]
    assert note == "3 of 43 rows without text left out; the first: a.jsonl:41: 'text' is null."
    for wrong in (-0.1, 1.5, "none", True, float("nan")):
        options = {"paths": str(path), "without_text": wrong}
        with pytest.raises(DlmError, match="options.without_text=.*: must be (from 0|a number)"):
            corpus.options(config.Corpus(name="files", options=options))


def test_a_field_that_no_row_has_is_told_before_all_is_read(monkeypatch, tmp_path) -> None:
    rows = []

    def source() -> Iterator[tuple[str, NoText]]:
        for i in range(5000):
            rows.append(i)
            yield f"d{i}", NoText("has no field")

    register(monkeypatch, source())
    with pytest.raises(DlmError, match="1,000 of 1,000 rows have no text, the first d0: has no"):
        build(tmp_path)
    assert len(rows) == 1000


def test_a_pipe_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name in ("a.txt", "zero.txt", "*.txt"):
        with pytest.raises(DlmError, match=r"\.txt: is a (pipe|device); must be a file"):
            read(tmp_path / name)
    for wrong in (None, 5, "", [None]):
        with pytest.raises(DlmError, match="paths=.*: must be a glob or a list of globs"):
            corpora.CORPORA["files"](paths=wrong)


def test_parquet_is_a_document_a_row(tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "notes.parquet"
    table = pa.table({"text": [r["text"] for r in LINES], "n": range(40)})
    pq.write_table(table, path, row_group_size=7)
    assert read(path) == {f"notes.parquet:{i + 1}": r["text"] for i, r in enumerate(LINES)}
    with pytest.raises(DlmError, match="notes.parquet: no column 'body'; there are text, n"):
        read(path, text_field="body")
    with pytest.raises(DlmError, match="notes.parquet:1: 'n' must be text, not 0"):
        read(path, text_field="n")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DlmError, match="notes.parquet: not a whole .parquet file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(DlmError, match="notes.parquet: "):
        read(path)


def test_a_changed_file_is_read_again(tmp_path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl")
    first = build(tmp_path / "stores", name="files", paths=str(path))
    write_jsonl(path, [*LINES, {"text": "one more"}])
    second = build(tmp_path / "stores", name="files", paths=str(path))
    assert first.path != second.path
    assert first.manifest.train.documents + first.manifest.validation.documents == 40
    assert second.manifest.train.documents + second.manifest.validation.documents == 41


def bad_files() -> dict[str, tuple[str, bytes, str]]:
    """Name of the case: (file, content, what the error says)."""
    good = '{"text": "a naïve but good line"}\n'.encode()
    packed = gzip.compress(good * 1000)
    return {
        "empty txt": ("a.txt", b"", r"1 of 1 rows have no text, the first a\.txt: is empty;"),
        "empty jsonl": ("a.jsonl", b"\n\n", r"a\.jsonl: is empty"),
        "empty gz": ("a.jsonl.gz", gzip.compress(b""), r"a\.jsonl\.gz: is empty"),
        "latin-1": ("a.txt", "caf\u00e9".encode("latin-1"), r"a\.txt: not UTF-8 at byte 3"),
        "latin-1 line": ("a.jsonl", good * 2 + b'{"text": "\xe9"}', rf"byte {2 * len(good) + 10};"),
        "not json": ("a.jsonl", good * 3 + b"{text}\n", r"a\.jsonl:4: not JSON"),
        "no field": (
            "a.jsonl",
            good + b'{"body": "x", "id": 1}\n',
            r"1 of 2 rows have no text, the first a\.jsonl:2: has no field 'text'; there are body, id",
        ),
        "not a string": ("a.jsonl", b'{"text": 5}\n', r":1: 'text' must be text, not 5"),
        "not an object": ("a.jsonl", b'["text"]\n', r":1: 'text' must be text, not \['text'\]"),
        "not gzip": ("a.jsonl.gz", good, r"a\.jsonl\.gz: not a whole \.gz file"),
        "cut gzip": ("a.jsonl.gz", packed[:-20], r"a\.jsonl\.gz: not a whole \.gz file"),
        "not xz": ("a.jsonl.xz", good, r"a\.jsonl\.xz: not a whole \.xz file"),
        "deep": (
            "a.jsonl",
            b"[" * 200_000 + b"\n",
            r"a\.jsonl:1: not JSON: brackets are nested too deep",
        ),
        "long number": ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", r"a\.jsonl:1: not JSON: "),
        "open array": ("a.json", b'[{"text": "a"}, {"text": "b"}', r"element 3: Expecting value"),
        "no array": ("a.json", b'{\n "text": "a"}', r"a\.json:1: not JSON: .* one array"),
        "bad array": ("a.json", b'[{"text": "a"} {"text": "b"}]', r"element 2: neither , nor \]"),
        "two arrays": ("a.json", b'[{"text": "a"}]\n["b"]', r"goes on after its array"),
        "latin-1 array": ("a.json", b'["a", "\xe9"]', r"not UTF-8 at byte 7;"),
        "deep array": ("a.json", b"[" * 200_000, r"element 1: brackets are nested too deep"),
        "no column": ("a.csv", b"id,body\n1,x\n", r"a\.csv: no column 'text'; there are id, body"),
        "empty csv": ("a.csv", b"text\n", r"a\.csv: is empty"),
        "not bz2": ("a.jsonl.bz2", good, r"a\.jsonl\.bz2: not a whole \.bz2 file: "),
        "cut bz2": ("a.jsonl.bz2", bz2.compress(good * 99)[:-9], r"not a whole \.bz2 file: "),
        "not zst": ("a.jsonl.zst", good, r"a\.jsonl\.zst: not a whole \.zst file: "),
        "not arrow": ("a.arrow", good, r"a\.arrow: not a whole \.arrow file"),
        "empty arrow": ("a.arrow", b"", r"a\.arrow: not a whole \.arrow file"),
        "other kind": ("a.pdf", b"x", r"a\.pdf: must end in \.txt, \.md, \.jsonl, .*\.zst"),
    }


@pytest.mark.parametrize("case", bad_files())
def test_a_bad_file_is_named_with_the_place(tmp_path, case) -> None:
    name, content, message = bad_files()[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DlmError, match=message) as error:
        build(tmp_path / "stores", name="files", paths=[str(tmp_path / "a*")])
    assert "rows have no text" in message or str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
    assert not [p for p in tmp_path.glob("stores/*") if p.is_dir()]


def test_paths_that_match_nothing_or_a_folder(tmp_path) -> None:
    with pytest.raises(DlmError, match=r"config.corpus.options.paths='.*\*\.txt': no file matches"):
        read(tmp_path / "*.txt")
    write_jsonl(tmp_path / "a.jsonl.gz")
    with pytest.raises(
        DlmError, match=rf"{tmp_path}: is a folder; name .* '{tmp_path}/\*\*/\*.jsonl.gz'"
    ):
        read(tmp_path)
    with pytest.raises(DlmError, match=r"config.corpus.options.paths=\[\]"):
        corpora.CORPORA["files"](paths=[])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_named(tmp_path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl")
    path.chmod(0)
    with pytest.raises(DlmError, match=r"a\.jsonl: cannot be read: Permission denied"):
        read(path)


def test_a_sample_of_c4(tmp_path) -> None:
    path = PUBLIC / "corpora" / "c4_en_sample" / "c4_en_validation.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    store = build(tmp_path, name="files", kind="bytes", paths=str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        documents = {f"{path.name}:{i}": json.loads(line)["text"] for i, line in enumerate(file, 1)}
    train, validation = expected_split(list(documents.values()), 0.1)
    assert texts_of(store, "train") == train
    assert texts_of(store, "validation") == validation


def test_the_beginning_of_the_novels(tmp_path) -> None:
    path = PUBLIC / "corpora" / "novels98.jsonl.xz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    documents = iter(corpora.CORPORA["files"](paths=str(path)).documents)
    names = [
        name for name, _ in (next(documents) for _ in range(3))
    ]  # streams: the rest is not read
    assert names == [f"novels98.jsonl.xz:{i}" for i in (1, 2, 3)]
