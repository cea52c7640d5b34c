"""Reads a file as a sheet of titles and cells, whatever its encoding, separator or compression."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.errors import DlmError

# The first bytes of a file decide its kind, not its name.
PACKED: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ\x00": ("xz", lzma.decompress),
    b"\x28\xb5\x2f\xfd": ("Zstandard", lambda packed: _unpack_zstd(packed)),
}
ELSE = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a pickle",
    b"{": "JSON",
    b"[": "JSON",
}
RIGHT = (
    "must be CSV (also tabs or semicolons, also .gz, .bz2, .xz, .zst), Parquet or a folder of runs"
)
SEPARATORS = ",;\t|"
CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f]")


@dataclass(frozen=True, eq=False)
class Sheet:
    """Titles [C] and rows: each with its number (the titles are row 1) and its cells [C]."""

    name: str
    titles: tuple[str, ...]
    rows: tuple[tuple[int, tuple[Any, ...]], ...]

    def column(self, at: int) -> list[Any]:
        return [cells[at] for _, cells in self.rows]


def read(path: Path) -> Sheet:
    """Reads a CSV or a Parquet file.

    Raises:
      DlmError: the file is damaged, or neither; the message says where and what would be right.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DlmError(f"{path}: cannot be read ({error.strerror})") from None
    for magic, (kind, unpack) in PACKED.items():
        if content.startswith(magic):
            try:
                content = unpack(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise DlmError(f"{path}: damaged {kind} file ({_line(error)})") from None
    if content.startswith(b"PAR1") or path.suffix == ".parquet":
        return _parquet(path, content)
    for magic, kind in ELSE.items():
        if content.startswith(magic):
            raise DlmError(f"{path}: is {kind}; {RIGHT}")
    return _csv(path, _decode(path, content))


def _unpack_zstd(packed: bytes) -> bytes:
    import pyarrow as pa

    with pa.input_stream(pa.BufferReader(packed), compression="zstd") as stream:
        return stream.read()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _parquet(path: Path, content: bytes) -> Sheet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DlmError(f"{path}: not a Parquet file, or damaged ({_line(error)})") from None
    rows = enumerate(zip(*columns, strict=True), 2)
    return Sheet(path.name, tuple(table.column_names), tuple(rows))


def _decode(path: Path, content: bytes) -> str:
    """The text of UTF-8 or UTF-16 with or without a byte-order mark, else of Windows-1252."""
    encodings = ["utf-8-sig", "cp1252"]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif content[1:2] == b"\x00" or content[:1] == b"\x00":
        encodings = ["utf-16-le" if content[1:2] == b"\x00" else "utf-16-be"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if control := CONTROL.search(text):
            line = text.count("\n", 0, control.start()) + 1
            raise DlmError(f"{path}, line {line}: holds the byte {control[0]!r}: damaged? {RIGHT}")
        return text
    raise DlmError(f"{path}: not a text file; {RIGHT}")


def _csv(path: Path, text: str) -> Sheet:
    text = text.lstrip("\r\n")
    declared = re.match(r'"?sep=(.)"?\r?\n', text)  # as spreadsheets write it above the titles
    head = next((line for line in text.splitlines() if line.strip()), "")
    between = declared[1] if declared else max(SEPARATORS, key=head.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    try:
        lines = list(reader)[1 if declared else 0 :]
    except csv.Error as error:
        raise DlmError(f"{path.name}, line {reader.line_num}: {_line(error)}") from None
    while lines and not any(map(str.strip, lines[0])):
        lines = lines[1:]
    if not lines:
        raise DlmError(f"{path}: is empty; {RIGHT}")
    titles = [title.strip() for title in lines[0]]
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if any(cells[len(titles) :]):
            raise DlmError(
                f"{path.name}, row {number}: has more fields than the titles ({len(cells)} for "
                f"{len(titles)}): a comma within a number or a name?"
            )
        cells += [""] * (len(titles) - len(cells))
        rows.append((number, tuple(cells[: len(titles)])))
    return Sheet(path.name, tuple(titles), tuple(rows))
