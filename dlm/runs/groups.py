"""Runs on disk as plain records, and the groups in which they may be compared.

A run is a folder: copy the folder and you have the run. Nothing here imports JAX, and nothing is
dropped silently: a run that cannot be used is a record whose `status` and `reason` say why. A
damaged file of one run costs that run alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm import disk
from dlm.runs.folder import (
    COLUMNS,
    OF_A_RUN,
    Run,
    table_row,
    value_at,
)

if TYPE_CHECKING:
    import pyarrow as pa


# Parts of a config that tell no two settings apart: the seed, what moves no number (see
# `config.run_id`), and what the fingerprint of the corpus stands for.
NOT_A_SETTING = (
    *("corpus", "tokenizer", "mesh", "train.seed"),
    *("model.remat", "train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed only, by seed."""

    name: str  # what sets it apart within its family, such as "optimizer.lr=0.002"
    runs: tuple[Run, ...]

    def __repr__(self) -> str:
        return f"<setting {self.name or 'of its family'}: {self.seeds} seeds>"

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def values(self, field: str) -> np.ndarray:
        """A number of result.json of each seed, [S]."""
        return np.array([run.result[field] for run in self.runs], dtype=float)


@dataclass(frozen=True, eq=False)
class Family:
    """All settings of one objective on one data set, the best first."""

    name: str
    kind: str  # of its losses: exact, or upper bound
    settings: tuple[Setting, ...]
    trials: int  # settings tried, those that diverged included

    @property
    def best(self) -> Setting:
        return self.settings[0]


@dataclass(frozen=True, eq=False)
class Panel:
    """Runs whose losses may be compared: the same tokens, unique tokens and length."""

    corpus: str
    fingerprint: str
    unique_tokens: int
    seq_len: int
    families: dict[str, Family]
    reference: str = "ar"  # the family that all others are compared with

    def __repr__(self) -> str:
        return f"<panel {self.title}: {', '.join(self.families)}>"

    @property
    def title(self) -> str:
        return f"{self.corpus}, {self.unique_tokens:,} unique tokens"


# --- grouping -----------------------------------------------------------------------------------


def panels(runs: Iterable[Run]) -> tuple[list[Panel], list[tuple[Run, str]]]:
    """The comparable groups, and the runs left out of them, each with its reason.

    A family's best setting is the one of lowest mean final validation loss among those with the
    most seeds: single-seed trials choose settings, they do not win. Validation makes this choice.
    """
    chosen: dict[tuple, dict[str, dict[str, dict[int, Run]]]] = {}
    trials: dict[tuple, set[str]] = {}
    excluded: list[tuple[Run, str]] = []
    for run in runs:
        if run.status != "finished":
            excluded.append((run, f"{run.status}: {run.reason}"))
        if run.status not in ("finished", "diverged"):
            continue
        key = panel_key(run)
        setting = json.dumps(setting_of(run.config), sort_keys=True)
        trials.setdefault((key, run.objective), set()).add(setting)
        if run.status == "diverged":
            continue
        family = chosen.setdefault(key, {}).setdefault(run.objective, {})
        seeds = family.setdefault(setting, {})
        twin = seeds.setdefault(run.result["seed"], run)
        if twin is not run:
            excluded.append(
                (run, f"the same setting and seed as {twin.path.parent.name}/{twin.run}")
            )
    found = []
    for key in sorted(chosen, key=lambda k: (k[0], k[2], k[3], k[1])):
        families = {
            name: _family(name, settings, len(trials[key, name]))
            for name, settings in sorted(chosen[key].items())
        }
        corpus, fingerprint, unique_tokens, seq_len, _ = key
        found.append(Panel(corpus, fingerprint, unique_tokens, seq_len, families))
    return found, excluded


def panel_key(run: Run) -> tuple[Any, ...]:
    """What runs share whose losses may be compared."""
    names = ("corpus", "fingerprint", "unique_tokens", "seq_len")
    return (*(run.result.get(name) for name in names), str(value_at(run.config, "data.subset")))


def _family(name: str, settings: dict[str, dict[int, Run]], trials: int) -> Family:
    flat = {text: flatten(json.loads(text)) for text in settings}
    keys = sorted({key for values in flat.values() for key in values})
    differ = [k for k in keys if len({repr(values.get(k)) for values in flat.values()}) > 1]
    made = []
    for text, seeds in settings.items():
        label = ", ".join(f"{k}={flat[text].get(k)}" for k in differ)
        made.append(Setting(label, tuple(seeds[seed] for seed in sorted(seeds))))
    made.sort(key=lambda s: (-s.seeds, s.values("validation_loss").mean(), s.name))
    return Family(name, made[0].runs[0].result["kind"], tuple(made), trials)


def setting_of(config: dict[str, Any]) -> dict[str, Any]:
    """A config without its seed and without what cannot move a number of one panel."""
    kept = json.loads(json.dumps(config))
    for key in NOT_A_SETTING:
        *parents, last = key.split(".")
        group = value_at(kept, ".".join(parents)) if parents else kept
        if isinstance(group, dict):
            group.pop(last, None)
    return kept


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a config by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


# --- the table ----------------------------------------------------------------------------------


def rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per run, of every status, with the columns of COLUMNS; None: no value."""
    return [
        dict.fromkeys(COLUMNS)
        | ({} if run.status == "unreadable" else table_row(run.config, run.start, run.result))
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
