"""The table of runs: a row a run, of every status, for dlm runs, CSV, Parquet and the report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import disk
from dlm.runs.load import Run, value_at
from dlm.runs.schema import UNREADABLE

if TYPE_CHECKING:
    import pyarrow as pa

# Columns with their types; nearly all are fields of result.json (`dlm.runs.schema.RunResult`).
COLUMNS: dict[str, type] = {
    **{
        name: str
        for name in ("experiment", "run", "label", "status", "reason", "objective", "kind")
    },
    **{"seed": int, "corpus": str, "fingerprint": str, "vocab_size": int, "bytes_per_token": float},
    "entropy": float,
    **{"seq_len": int, "subset": str, "unique_tokens": int, "epochs": float, "steps": int},
    "tokens": int,
    **{"batch_size": int, "params": int, "params_non_embedding": int, "loops": int},
    **{name: float for name in ("flops", "flops_6nd")},
    **{"best_step": int, "best_epoch": float, "best_tokens": int, "best_flops": float},
    **{
        "validation_loss": float,
        "validation_stderr": float,
        "validation_mc_stderr": float,
        "validation_tokens": int,
        "mc_samples": int,
    },
    **{"train_loss": float, "train_stderr": float, "last_validation_loss": float},
    **{name: float for name in ("bits_per_byte", "seconds", "tokens_per_second", "mfu")},
    **{"device": str, "versions": str, "overrides": str, "gaps": str, "warnings": str},
}
# Columns that every run has, whatever can be read of its folder.
OF_A_RUN = ("experiment", "run", "label", "status", "reason", "objective", "corpus", "seed")
# Where the value of a column stands before there is a result.
FROM_THE_START = {
    "device": "device",
    "versions": "versions",
    "overrides": "overrides",
    "fingerprint": "corpus.fingerprint",
    "vocab_size": "corpus.vocab_size",
    "seq_len": "config.data.seq_len",
    "subset": "config.data.subset",
    "loops": "config.model.loops",
}


def rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per run, of every status, with the columns of COLUMNS; None: no value."""
    return [
        dict.fromkeys(COLUMNS)
        | ({} if run.status == UNREADABLE else _row(run))
        | {name: None if (value := getattr(run, name)) == "" else value for name in OF_A_RUN}
        for run in runs
    ]


def data_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a table row was trained on, but for the number of unique tokens: two rows that differ
    here share no law. Corpus, fingerprint, sequence length, kind of subset."""
    return tuple(record[name] for name in ("corpus", "fingerprint", "seq_len", "subset"))


def safe(cell: Any) -> Any:
    """A cell of a table: a text that a spreadsheet would compute gets a ' before it; see `unsafe`."""
    computed = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "'"))
    return f"'{cell}" if computed else cell


def unsafe(text: str) -> str:
    """The text that `safe` made a cell of."""
    return text[1:] if text.startswith("'") and safe(text[1:]) == text else text


def table(runs: Iterable[Run]) -> pa.Table:
    """One row per run, of every status, as runs.parquet has it: the columns of COLUMNS."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    return pa.Table.from_pylist(_safe_rows(runs), schema=schema)


def _safe_rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    return [{name: safe(cell) for name, cell in row.items()} for row in rows(runs)]


def write_table(runs: Iterable[Run], folder: Path | str) -> tuple[Path, Path]:
    """Writes runs.csv and runs.parquet, and returns their paths."""
    import pyarrow.parquet as pq

    folder, runs = Path(folder), list(runs)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(_safe_rows(runs))
    disk.write(folder / "runs.csv", text.getvalue())
    with disk.replacing(folder / "runs.parquet") as draft:
        pq.write_table(table(runs), draft)
    return folder / "runs.csv", folder / "runs.parquet"


def _row(run: Run) -> dict[str, str | float | None]:
    """The columns that stand in a run's files; None: no value."""
    row: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        value = run.result.get(name)
        if value is None and name in FROM_THE_START:
            value = value_at(run.start | {"config": run.config}, FROM_THE_START[name])
        if name in ("gaps", "warnings") and value is not None:
            value = "; ".join(value)
        if name in ("versions", "overrides") and value is not None:
            value = json.dumps(value, sort_keys=True)
        row[name] = None if value is None or value == "" else kind(value)
    if all(row[name] for name in ("tokens", "flops", "best_flops")):
        row["best_tokens"] = best_tokens(row)
    return row


def best_tokens(record: Mapping[str, Any]) -> int:
    """The tokens that a run's best weights were trained on, by its result or its table row."""
    return round(record["tokens"] * (record["best_flops"] / record["flops"]))
