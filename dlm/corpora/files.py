"""Documents from files of your own: .txt (one each), .jsonl (one a line), .parquet (one a row).

Text files may be compressed (.gz, .xz). Files are read one document at a time.
"""

from __future__ import annotations

import glob
import gzip
import json
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dlm.corpora.source import Source
from dlm.errors import DlmError

KINDS = (".txt", ".jsonl", ".parquet")
COMPRESSED = (".gz", ".xz")


def files(paths: str | list[str], text_field: str = "text") -> Source:
    """The documents of every file that matches `paths`, globs such as "books/**/*.txt".

    Ids are "name" for .txt, "name:line" for .jsonl and "name:row" for .parquet, both from 1, where
    name is the file's, or its path below the common folder where two files have the same name.

    Raises:
      DlmError: nothing matches, a match is a folder or of no known kind, or cannot be read; while
        reading, a file that is empty or broken (names the file and the byte, line or row).
    """
    found = find(paths, KINDS)
    if not isinstance(text_field, str) or not text_field:
        raise DlmError(f"config.corpus.options.text_field={text_field!r}: must be a field's name")
    state = []
    for name, path in found.items():
        try:
            status = path.stat()
        except OSError as error:
            raise DlmError(f"{path}: cannot be read: {error.strerror}") from error
        state.append([name, status.st_size, status.st_mtime_ns])
    return Source(documents=_documents(found, text_field), state=state)


def find(paths: str | list[str], kinds: tuple[str, ...]) -> dict[str, Path]:
    """Files by the name that their documents' ids carry, in order of the path."""
    patterns = [paths] if isinstance(paths, str) else list(paths)
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise DlmError(f"config.corpus.options.paths={paths!r}: must be a glob or a list of globs")
    found: set[Path] = set()
    for pattern in patterns:
        pattern = os.path.expanduser(pattern)
        matches = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)
        wild = not Path(pattern).exists()
        new = [Path(os.path.abspath(m)) for m in matches if not (wild and Path(m).is_dir())]
        if not new:
            raise DlmError(f"config.corpus.options.paths={pattern!r}: no file matches")
        found.update(new)
    for path in sorted(found):
        if path.is_dir():
            raise DlmError(f"{path}: is a folder; name its files, such as '{path}/*.txt'")
        if kind(path) not in kinds:
            raise DlmError(
                f"{path}: must end in {', '.join(kinds)} (.txt and .jsonl also with .gz or .xz)"
            )
    shared = Path(os.path.commonpath([path.parent for path in found]))
    names = Counter(path.name for path in found)
    distinct = max(names.values()) == 1
    return {p.name if distinct else p.relative_to(shared).as_posix(): p for p in sorted(found)}


def kind(path: Path) -> str:
    """ "The suffix below a compression, .jsonl of a.jsonl.gz; parquet has one of its own."""
    if path.suffix in COMPRESSED:
        inner = Path(path.stem).suffix
        return "" if inner == ".parquet" else inner
    return path.suffix


def _documents(found: dict[str, Path], text_field: str) -> Iterator[tuple[str, str]]:
    for name, path in found.items():
        suffix, empty = kind(path), True
        try:
            if suffix == ".txt":
                documents = _text(name, path)
            elif suffix == ".jsonl":
                documents = _jsonl(name, path, text_field)
            else:
                documents = _parquet(name, path, text_field)
            for document in documents:
                empty = False
                yield document
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DlmError(f"{path}: not a whole {path.suffix} file: {error}") from error
        except OSError as error:
            raise DlmError(f"{path}: cannot be read: {error.strerror or error}") from error
        if empty:
            raise DlmError(f"{path}: is empty; give a file with text, or leave it out")


def open_any(path: Path) -> BinaryIO:
    opener = {".gz": gzip.open, ".xz": lzma.open}
    opened: Any = opener.get(path.suffix, open)(path, "rb")
    return opened


def _decode(raw: bytes, path: Path, start: int) -> str:
    """UTF-8 text without its byte order mark; `start` is the place of `raw` in the file."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff" if start == 0 else "")
    except UnicodeDecodeError as error:
        where = "uncompressed byte" if path.suffix in COMPRESSED else "byte"
        raise DlmError(
            f"{path}: not UTF-8 at {where} {start + error.start:,}; convert it, for example with "
            "iconv -t utf-8"
        ) from error


def _text(name: str, path: Path) -> Iterator[tuple[str, str]]:
    with open_any(path) as file:
        text = _decode(file.read(), path, 0)
    if text:
        yield name, text


def _jsonl(name: str, path: Path, text_field: str) -> Iterator[tuple[str, str]]:
    start = 0
    with open_any(path) as file:
        for number, raw in enumerate(file, 1):
            line = _decode(raw, path, start)
            start += len(raw)
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DlmError(f"{path}:{number}: not JSON: {error.msg}") from error
            if not isinstance(record, dict):
                raise DlmError(f"{path}:{number}: must be an object with the field {text_field!r}")
            if text_field not in record:
                raise DlmError(
                    f"{path}:{number}: no field {text_field!r}; there are "
                    f"{', '.join(record) or 'none'}; name one in config.corpus.options.text_field"
                )
            if not isinstance(record[text_field], str):
                raise DlmError(f"{path}:{number}: the field {text_field!r} must be a string")
            yield f"{name}:{number}", record[text_field]


def _parquet(name: str, path: Path, text_field: str) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise DlmError(
                    f"{path}: no column {text_field!r}; there are {', '.join(columns)}; name one "
                    "in config.corpus.options.text_field"
                )
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=[text_field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if not isinstance(text, str):
                        raise DlmError(
                            f"{path}: row {number}: {text_field!r} must be text, not {text!r:.40}"
                        )
                    yield f"{name}:{number}", text
    except pa.ArrowException as error:
        raise DlmError(f"{path}: not a whole Parquet file: {error}") from error
