"""The log of a run is metrics.jsonl; TensorBoard event files are a view of it.

Events are written with tensorboard's own writer and protos, so nothing imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlm import config, disk
from dlm.config.fields import flat
from dlm.errors import one_line, reason
from dlm.runs import folder as run_folder

Row = dict[str, Any]
# What a log holds before its first row.
NOTHING = {"rows": 0, "sha256": hashlib.sha256().hexdigest()}


class Metrics:
    """Appends rows to metrics.jsonl and to TensorBoard; opening it at a step drops later rows.

    A resumed run repeats the steps after its last checkpoint, so their rows are dropped, and the
    event file is written again from the rows that stay. Each checkpoint keeps `written` (the number
    of rows and their sha256). When the run resumes, rows that differ from `written` are reported in
    `gap`, one sentence.
    """

    def __init__(
        self,
        folder: Path,
        hparams: dict[str, Any],
        step: int = 0,
        written: Row | None = None,
        write: bool = True,
    ):
        self.gap, self.written = "", written or dict(NOTHING)
        self._writes = write  # one of several processes does
        if not write:
            return
        self._path = folder / run_folder.LOG
        rows, lines, problem = _rows(self._path)
        kept = [(line, row) for line, row in zip(lines, rows, strict=True) if row["step"] <= step]
        self._hash = hashlib.sha256("".join(line for line, _ in kept).encode())
        if written is not None:
            self.gap = _gap(len(kept), self._hash.hexdigest(), written, step, problem)
        self.written = {"rows": len(kept), "sha256": self._hash.hexdigest()}
        disk.write(self._path, "".join(line for line, _ in kept))
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        shutil.rmtree(folder / run_folder.TENSORBOARD, ignore_errors=True)
        self._board = _Board(folder / run_folder.TENSORBOARD, hparams)
        for _, row in kept:
            self._board.scalars(row)

    def write(self, row: Row) -> None:
        if not self._writes:
            return
        line = json.dumps(row) + "\n"
        self._file.write(line)
        self._hash.update(line.encode())
        self.written = {"rows": self.written["rows"] + 1, "sha256": self._hash.hexdigest()}
        self._board.scalars(row)

    def sync(self) -> None:
        """Waits until the rows are on disk, so that no checkpoint is ahead of them."""
        if self._writes:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._writes:
            return
        self.sync()
        self._file.close()
        self._board.close()


def read(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl that can be read; none if there is no such file."""
    return _rows(path).rows


def _rows(path: Path) -> run_folder.Rows:
    """The rows that can be read, and what is wrong with the first line that cannot."""
    try:
        return run_folder.read_rows(path)
    except FileNotFoundError:
        return run_folder.Rows([], [], "the file was missing")
    except OSError as error:
        return run_folder.Rows([], [], f"the file could not be read: {reason(error)}")


def _gap(rows: int, sha256: str, written: Row, step: int, problem: str) -> str:
    """One sentence on the rows up to a step that are missing or changed; "" if none is."""
    if (rows, sha256) == (written["rows"], written["sha256"]):
        return ""
    upto = f"of the {written['rows']} rows up to step {step}, from which the run resumed"
    if rows == written["rows"]:
        return f"metrics.jsonl: some {upto}, were changed since; the curve may be wrong there"
    words = f"metrics.jsonl: {rows} {upto}, were there"
    return f"{words}{f' ({problem})' if problem else ''}; the curve lacks the others"


def hparams(c: config.Config) -> dict[str, Any]:
    """The config as flat `group.field` values, for TensorBoard's HParams tab."""
    values = sorted(flat(config.to_json(c)).items())
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values}


def write_text(folder: Path, tag: str, text: str) -> None:
    """Adds a text to a run's TensorBoard, in an event file of its own."""
    board = _Board(folder / run_folder.TENSORBOARD)
    board.text(tag, text, step=0)
    board.close()


class _Board:
    """Writes TensorBoard's events. If that fails it stops with a warning, and the run goes on."""

    def __init__(self, folder: Path, hparams: dict[str, Any] | None = None):
        self._writer: Any = None
        with self._spared():
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(folder))
        if hparams is not None:
            self._hparams(hparams)

    def scalars(self, row: Row) -> None:
        Summary = _proto("summary_pb2").Summary
        with self._spared():
            values = [
                Summary.Value(tag=_tag(name), simple_value=float(value))
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float)
            ]
            self._add(row["step"], values)

    def text(self, tag: str, text: str, step: int) -> None:
        summary_pb2 = _proto("summary_pb2")
        shape = _proto("tensor_shape_pb2").TensorShapeProto(dim=[{"size": 1}])
        tensor = _proto("tensor_pb2").TensorProto(
            dtype=_proto("types_pb2").DT_STRING, string_val=[text.encode()], tensor_shape=shape
        )
        data = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        metadata = summary_pb2.SummaryMetadata(plugin_data=data)
        self._add(step, [summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])

    def close(self) -> None:
        with self._spared():
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _spared(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._writer = None
            print(f"warning: no more TensorBoard events: {one_line(error)}", file=sys.stderr)

    def _hparams(self, hparams: dict[str, Any]) -> None:
        """Adds the session start of the HParams plugin; `hparams.summary` would need TensorFlow."""
        Summary = _proto("summary_pb2").Summary
        SummaryMetadata = _proto("summary_pb2").SummaryMetadata
        plugin_data_pb2: Any = importlib.import_module(
            "tensorboard.plugins.hparams.plugin_data_pb2"
        )
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for name, value in hparams.items():
            field = start.hparams[name]
            if isinstance(value, bool):
                field.bool_value = value
            elif isinstance(value, int | float):
                field.number_value = value
            else:
                field.string_value = str(value)
        content = plugin_data_pb2.HParamsPluginData(session_start_info=start, version=0)
        data = SummaryMetadata.PluginData(
            plugin_name="hparams", content=content.SerializeToString()
        )
        value = Summary.Value(
            tag="_hparams_/session_start_info", metadata=SummaryMetadata(plugin_data=data)
        )
        self._add(0, [value])

    def _add(self, step: int, values: list[Any]) -> None:
        summary = _proto("summary_pb2").Summary(value=values)
        event = _proto("event_pb2").Event(wall_time=time.time(), step=step, summary=summary)
        with self._spared():
            if self._writer is not None:
                self._writer.add_event(event)


def _proto(name: str) -> Any:
    """A module of protobuf messages, whose names exist only at run time."""
    return importlib.import_module(f"tensorboard.compat.proto.{name}")


def _tag(name: str) -> str:
    """`validation_loss` -> `validation/loss`, so that TensorBoard groups the charts."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if group in ("validation", "train") and rest else f"run/{name}"
