"""Documents from files of your own: one each (.txt, .md), or one a row of JSON, a table or Arrow.

Files may be compressed, and are read a document at a time. A folder that `datasets` saved is read too.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.config.fields import Name, Share
from dlm.data.corpora import formats
from dlm.data.corpora.source import Globs, NoText, Source, refuse
from dlm.errors import DlmError, reason

LONGEST = 4096  # characters of a glob, as of a path


def files(paths: Globs, text_field: Name = "text", without_text: Share = 0.01) -> Source:
    """The documents of every file that matches `paths`, globs such as "books/**/*.txt".

    Ends of names: .txt, .md (one document); .jsonl, .ndjson (one a line), .json (an array, or one a
    line), .csv, .tsv, .parquet, .arrow, .feather (one a row); all but the last three also with .gz,
    .bz2, .xz or .zst. A folder that `datasets` saved stands for its files. The text is in the field
    or column `text_field`. Rows that have none (null, missing, empty) are left out and counted, up to
    the share `without_text` of all rows.

    Raises:
      DlmError: nothing matches, or a match is no file or of no known kind; while reading, a file that
        is broken (names the byte, line or row), or too many rows without text.
    """
    by_name = find(paths, formats.KINDS)
    documents = _documents(by_name, text_field)
    return Source(documents=documents, state=state(by_name.items()), without_text=without_text)


def state(files: Any) -> list[Any]:
    """Name, size and time of change of each file, by which a store is known again."""
    rows = []
    for name, path in files:
        try:
            status = os.stat(path)
        except OSError as error:
            raise DlmError(f"{path}: cannot be read: {reason(error)}") from error
        rows.append([name, status.st_size, status.st_mtime_ns])
    return rows


def find(paths: Globs, kinds: tuple[str, ...]) -> dict[str, Path]:
    """Files by the name that their documents go by in messages, in order of the path."""
    patterns = [paths] if isinstance(paths, str) else paths
    right = isinstance(patterns, list | tuple) and all(isinstance(p, str) and p for p in patterns)
    if not patterns or not right:
        refuse("paths", paths, "a glob or a list of globs")
    matched: set[Path] = set()
    for pattern in patterns:
        if len(pattern) > LONGEST:
            refuse("paths", pattern, f"at most {LONGEST:,} characters")
        pattern = os.path.expanduser(pattern)
        wild = not os.path.exists(pattern)
        matches = glob.glob(pattern, recursive=True) if wild else [pattern]
        new = [Path(os.path.abspath(m)) for m in matches if not (wild and Path(m).is_dir())]
        if not new:
            raise DlmError(f"config.corpus.options.paths={pattern!r}: no file matches")
        for path in new:
            matched.update(_inside(path, kinds) if path.is_dir() else [path])
    for path in sorted(matched):
        if problem := inputs.unreadable(path):
            raise DlmError(f"{path}: {problem}; must be a file")
        if formats.kind(path) not in kinds:
            packed = ", ".join(formats.COMPRESSED)
            raise DlmError(
                f"{path}: must end in {', '.join(kinds)}; text and JSON also in {packed}"
            )
    shared = Path(os.path.commonpath([path.parent for path in matched]))
    names = Counter(path.name for path in matched)
    distinct = max(names.values()) == 1
    return {p.name if distinct else p.relative_to(shared).as_posix(): p for p in sorted(matched)}


def _inside(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    """The files of a dataset that `datasets` saved into a folder."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / "state.json").is_file())
        named = ", ".join(str(folder / split) for split in splits)
        raise DlmError(f"{folder}: holds a dataset of several splits; name one of {named}")
    saved = folder / "state.json"
    if not saved.is_file() or ".arrow" not in kinds:
        there = Counter(formats.kind(p) + p.suffix * (p.suffix in formats.COMPRESSED)
                        for p in folder.rglob("*") if formats.kind(p) in kinds)  # fmt: skip
        ending = there.most_common(1)[0][0] if there else kinds[0]
        raise DlmError(f"{folder}: is a folder; name its files, such as '{folder}/**/*{ending}'")
    try:
        about = json.loads(inputs.contents(saved, "as datasets writes it"))
        names = [file["filename"] for file in about["_data_files"]]
        if about.get("_indices_data_files"):
            raise DlmError(f"{folder}: is of an old datasets; save it anew with a newer version")
        return [folder / str(name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, DlmError):
            raise
        raise DlmError(f"{saved}: not written by datasets ({reason(error)})") from error


def _documents(by_name: dict[str, Path], field: str) -> Iterator[tuple[str, str | NoText]]:
    for name, path in by_name.items():
        single, number = formats.kind(path) in formats.TEXT, 0
        for number, value, words in formats.values(path, field):
            label = name if single else f"{name}:{number}"
            if value is None or value == "":
                yield label, NoText(words)
            elif isinstance(value, str):
                yield label, value
            else:
                what = f"{field!r} must be text, not {value!r:.40}"
                raise DlmError(f"{path}:{number}: {what}; name another field in text_field")
        if not number:
            raise DlmError(f"{path}: is empty; give a file with text, or leave it out")
