"""Rows of files: text, JSON, tables and Arrow, compressed or not, read a row at a time."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.errors import DlmError, reason

TEXT = (".txt", ".md")  # a document each
JSON = (".jsonl", ".ndjson", ".json")
TABLES = {".csv": ",", ".tsv": "\t"}
COLUMNS = (".parquet", ".arrow", ".feather")
KINDS = (*TEXT, *JSON, *TABLES, *COLUMNS)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")  # of all but COLUMNS, which compress within
BATCH = 256  # rows of COLUMNS that are in memory at once
CHUNK = 1 << 20  # bytes of a JSON array that are read at once


def kind(path: Path) -> str:
    """The suffix below a compression, .jsonl of a.jsonl.gz; "" for what no reader knows."""
    if path.suffix not in COMPRESSED:
        return path.suffix
    inner = Path(path.stem).suffix
    return "" if inner in COLUMNS else inner


def values(path: Path, field: str) -> Iterator[tuple[int, Any, str]]:
    """The text of each row: the row's number from 1, what its field holds, and why that is no text.

    A file of text is one row. The value is None for a null, a cell that is missing, and a JSON object
    without the field; the reason counts only if the value is no text or is empty.

    Raises:
      DlmError: a table without the column, or a file that is broken; names the byte, line or row.
    """
    suffix = kind(path)
    if suffix in TEXT:
        with opened(path) as file:
            yield 1, _decode(file.read(), path, 0), "is empty"
    elif suffix in JSON:
        for number, row in json_rows(path):
            yield number, *_field(row, field)
    elif suffix in TABLES:
        for number, value in _table(path, field, TABLES[suffix]):
            yield number, value, _holds(value, field)
    else:
        for number, value in _columns(path, field):
            yield number, value, _holds(value, field)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file for reading bytes, decompressed by its suffix; errors of reading name the file."""
    openers: dict[str, Callable[..., Any]] = {
        ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard
    }  # fmt: skip
    try:
        with openers.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DlmError(f"{path}: not a whole {path.suffix} file: {reason(error)}") from error
    except OSError as error:
        broken = path.suffix in COMPRESSED and error.errno is None
        what = f"not a whole {path.suffix} file" if broken else "cannot be read"
        raise DlmError(f"{path}: {what}: {reason(error)}") from error


def _zstandard(path: Path, mode: str) -> io.BufferedReader:
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise DlmError(f"{path}: this pyarrow cannot read .zst; unpack it with zstd -d")
    stream: Any = pa.CompressedInputStream(pa.OSFile(str(path), mode), "zstd")
    return io.BufferedReader(stream)


def _decode(raw: bytes, path: Path, start: int) -> str:
    """UTF-8 text without its byte order mark; `start` is the place of `raw` in the file."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff" if start == 0 else "")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, start + error.start) from error


def _not_utf8(path: Path, byte: int) -> DlmError:
    where = "uncompressed byte" if path.suffix in COMPRESSED else "byte"
    return DlmError(
        f"{path}: not UTF-8 at {where} {byte:,}; convert it, for example with iconv -t utf-8"
    )


def _lines(file: Any, path: Path) -> Iterator[str]:
    start = 0
    for raw in file:
        yield _decode(raw, path, start)
        start += len(raw)


def _holds(value: Any, field: str) -> str:
    return f"{field!r} is {'null' if value is None else 'empty'}"


# --- JSON ---------------------------------------------------------------------------------------


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Each line of JSON lines with its number, or each element of a .json that is one array."""
    with opened(path) as file:
        beginning = file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip()
        if kind(path) == ".json" and beginning[:1] == b"[":
            yield from enumerate(_elements(file, path), 1)
            return
        for number, line in enumerate(_lines(file, path), 1):
            if line.strip():
                yield number, _parse(line, path, number)


def _parse(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        words = inputs.json_problem(error)
        if kind(path) == ".json":
            words += "; a .json file is one array, or has an object on each line"
        raise DlmError(f"{path}:{number}: not JSON: {words}") from error


def _elements(file: Any, path: Path) -> Iterator[Any]:
    """The elements of one JSON array; no more than a chunk and an element is in memory."""
    decoder, parser = codecs.getincrementaldecoder("utf-8-sig")(), json.JSONDecoder()
    text, read = "", 0

    def grow() -> bool:
        """Reads on, twice as much while an element does not end; False at the end of the file."""
        nonlocal text, read
        waiting = len(decoder.getstate()[0])
        raw = file.read(max(CHUNK, len(text)))
        try:
            text += decoder.decode(raw, not raw)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, read - waiting + error.start) from error
        read += len(raw)
        return bool(raw)

    while not text.strip() and grow():
        pass
    text, number, joined = text.lstrip()[1:], 0, True
    while True:
        text = text.lstrip()
        if text.startswith("]"):
            break
        if not joined and text.startswith(","):
            text, joined = text[1:], True
            continue
        try:
            if not joined and text:
                raise json.JSONDecodeError("neither , nor ] after an element", text, 0)
            row, end = parser.raw_decode(text)
        except (ValueError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError) and grow():
                continue
            words = inputs.json_problem(error)
            raise DlmError(f"{path}: not a JSON array: element {number + 1}: {words}") from error
        if end == len(text) and grow():  # a number may go on
            continue
        text, number, joined = text[end:], number + 1, False
        yield row
    if text[1:].strip() or file.read().strip():
        raise DlmError(f"{path}: goes on after its array; name it .jsonl if each line is one")


def _field(row: Any, field: str) -> tuple[Any, str]:
    """The text in a row of JSON, an object or the text itself, and why it is none."""
    if isinstance(row, dict) and field not in row:
        return None, f"has no field {field!r}; there are {', '.join(row) or 'none'}"
    value = row[field] if isinstance(row, dict) else row
    return value, _holds(value, field)


# --- tables and columns -------------------------------------------------------------------------


def _table(path: Path, field: str, separator: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(2**31 - 1)
    number = 0
    with opened(path) as file:
        try:
            for number, row in enumerate(csv.reader(_lines(file, path), delimiter=separator)):
                if number == 0:
                    place = _place(row, field, path)
                elif row:  # not a blank line
                    yield number, row[place] if place < len(row) else None
        except csv.Error as error:
            raise DlmError(f"{path}: row {number + 1}: {reason(error)}") from error


def _place(columns: list[str], field: str, path: Path) -> int:
    if field not in columns:
        raise DlmError(
            f"{path}: no column {field!r}; there are {', '.join(columns)}; name one in "
            "config.corpus.options.text_field"
        )
    return columns.index(field)


def _columns(path: Path, field: str) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in _batches(path, field):
            for start in range(0, len(batch), BATCH):
                column = batch.slice(start, BATCH).column(0)
                column.validate(full=True)  # offsets and UTF-8: a flipped bit is not followed
                for value in column.to_pylist():
                    number += 1
                    yield number, value
    except (pa.ArrowException, OSError) as error:
        words = f"not a whole {path.suffix} file, from row {number + 1} on"
        raise DlmError(f"{path}: {words}: {reason(error)}") from error


def _batches(path: Path, field: str) -> Iterator[Any]:
    """Batches of the one column, of Parquet or of Arrow's files and streams."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            _place(file.schema_arrow.names, field, path)
            yield from file.iter_batches(batch_size=BATCH, columns=[field])
        return
    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            file.seek(0)
            batches = reader = pa.ipc.open_stream(file)  # as saved by datasets
        _place(reader.schema.names, field, path)
        for batch in batches:
            yield batch.select([field])
