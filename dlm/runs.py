"""Runs on disk as plain records, and the groups in which they may be compared.

A run is a folder: copy the folder and you have the run. Nothing here imports JAX, and nothing is
dropped silently: a run that cannot be used is a record whose `status` and `reason` say why.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlm import disk
from dlm.errors import DlmError

FILES = ("config.json", "run.json", "metrics.jsonl", "result.json")

# Columns of the table, with their types; nearly all are fields of result.json.
COLUMNS: dict[str, type] = {
    **{
        name: str
        for name in ("experiment", "run", "label", "status", "reason", "objective", "kind")
    },
    **{"seed": int, "corpus": str, "fingerprint": str, "vocab_size": int, "bytes_per_token": float},
    "entropy": float,
    **{"seq_len": int, "subset": str, "unique_tokens": int, "epochs": float, "steps": int},
    "tokens": int,
    **{"batch_size": int, "params": int, "params_non_embedding": int},
    **{name: float for name in ("flops", "flops_6nd")},
    **{"best_step": int, "best_epoch": float, "best_tokens": int, "best_flops": float},
    **{
        "validation_loss": float,
        "validation_stderr": float,
        "validation_tokens": int,
        "passes": int,
    },
    **{"train_loss": float, "train_stderr": float, "last_validation_loss": float},
    **{name: float for name in ("bits_per_byte", "seconds", "tokens_per_second", "mfu")},
    **{"device": str, "versions": str, "overrides": str, "warnings": str},
}
# Columns that stand in run.json or config.json too, which a run has before it has a result.
FROM_THE_START = {
    "device": "device",
    "versions": "versions",
    "overrides": "overrides",
    "fingerprint": "corpus.fingerprint",
    "vocab_size": "corpus.vocab_size",
    "seq_len": "config.data.seq_len",
    "subset": "config.data.subset",
}
# Numbers without which a finished run cannot be compared.
REQUIRED = (
    *("seed", "seq_len", "unique_tokens", "epochs", "steps", "tokens", "params", "flops"),
    *("flops_6nd", "best_epoch", "best_flops", "validation_loss", "validation_stderr"),
    "validation_tokens",
)
# Parts of a config that tell no two settings apart: the seed, what moves no number (see
# `config.run_id`), and what the fingerprint of the corpus stands for.
NOT_A_SETTING = (
    *("corpus", "tokenizer", "mesh", "train.seed"),
    *("model.remat", "train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)


@dataclass(frozen=True, eq=False)
class Curve:
    """The evaluation rows of metrics.jsonl in step order: float64 arrays of one length, [E]."""

    step: np.ndarray
    tokens: np.ndarray
    epoch: np.ndarray
    flops: np.ndarray
    seconds: np.ndarray
    validation_loss: np.ndarray  # nats per token, as is the next
    train_eval_loss: np.ndarray  # NaN where it was not measured


@dataclass(frozen=True, eq=False)
class Run:
    path: Path
    experiment: str
    run: str
    label: str
    status: str  # finished, diverged, failed, unfinished, unreadable
    reason: str  # why it is not finished; "" when it is
    objective: str
    corpus: str
    seed: int | None
    config: dict[str, Any]
    start: dict[str, Any]  # run.json
    result: dict[str, Any]  # result.json; {} until it is there
    curve: Curve

    @property
    def nll_path(self) -> Path | None:
        path = self.path / "nll.npy"
        return path if path.is_file() else None


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed only, by seed."""

    name: str  # what sets it apart within its family, such as "optimizer.lr=0.002"
    runs: tuple[Run, ...]

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

    @property
    def title(self) -> str:
        return f"{self.corpus}, {self.unique_tokens:,} unique tokens"


# --- reading ------------------------------------------------------------------------------------


def load(directory: Path | str) -> list[Run]:
    """Every run of a workdir, of one experiment's folder, or one run's folder, ordered by path.

    Raises:
      DlmError: the directory does not exist.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DlmError(f"{directory}: no such directory; must be a workdir or an experiment in it")
    return [_read(path) for path in folders(directory)]


def folders(directory: Path) -> list[Path]:
    """The folders of runs that `load` reads; none if the directory does not exist."""
    if is_run(directory) or not directory.is_dir():
        return [directory] if directory.is_dir() else []
    found: list[Path] = []
    for child in sorted(path for path in directory.iterdir() if path.is_dir()):
        inside = [] if is_run(child) else sorted(p for p in child.iterdir() if p.is_dir())
        found += [path for path in (child, *inside) if is_run(path)]
    return found


def is_run(path: Path) -> bool:
    """Whether a folder holds at least one of the files of a run."""
    return any((path / name).is_file() for name in FILES)


def _read(path: Path) -> Run:
    """One run; a file that is missing, torn or foreign makes it unreadable, with the reason."""
    problems: list[str] = []

    def part(name: str, *, needed: bool) -> dict[str, Any]:
        try:
            return _json(path / name) if needed or (path / name).exists() else {}
        except DlmError as error:
            problems.append(str(error))
            return {}

    result = part("result.json", needed=False)
    failed = bool(result) and result.get("status") == "failed"  # maybe before it wrote the rest
    start = part("run.json", needed=not failed)
    config = part("config.json", needed=not failed)
    curve = _curve([])
    try:
        curve = _curve(_rows(path / "metrics.jsonl", torn_end=failed or not result))
        if result:
            _check(path / "result.json", result, curve)
    except DlmError as error:
        problems.append(str(error))
    problem = "; ".join(problems)
    status, reason = "unreadable", problem
    if not problem and result:
        status, reason = str(result["status"]), str(result.get("reason") or "")
        reason = reason or ("" if status == "finished" else "no reason was recorded")
    elif not problem:
        status, reason = "unfinished", f"no result.json: {_progress(path, start)}"
    known = start | {key: value for key, value in result.items() if value is not None}
    return Run(
        path=path,
        experiment=str(known.get("experiment", path.parent.name)),
        run=str(known.get("run", path.name)),
        label=str(known.get("label", path.name)),
        status=status,
        reason=reason,
        objective=str(_at(config, "objective.name") or known.get("objective") or ""),
        corpus=str(_at(start, "corpus.name") or known.get("corpus") or ""),
        seed=_at(config, "train.seed"),
        config=config,
        start=start,
        result=result,
        curve=curve,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DlmError(f"{path.name} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DlmError(f"{path.name} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise DlmError(f"{path.name} holds a {type(value).__name__}, must be an object")
    return value


def _rows(path: Path, *, torn_end: bool) -> list[dict[str, Any]]:
    """Rows of a JSONL file; `torn_end` forgives a last line that a kill cut short."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        if torn_end:  # it has not logged yet
            return []
        raise DlmError(f"{path.name} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DlmError(f"{path.name} is not readable: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
            rows.append(row)
        except ValueError:
            if not (torn_end and number == len(lines)):
                raise DlmError(f"{path.name} line {number} is not a JSON object") from None
    return rows


def _curve(rows: Iterable[dict[str, Any]]) -> Curve:
    """The evaluation rows with a finite loss; of a step logged twice (a resume) the later row."""
    by_step = {}
    for row in rows:
        loss = row.get("validation_loss")
        if loss is not None and math.isfinite(loss) and row.get("flops", 0) > 0:
            by_step[row["step"]] = row
    ordered = [by_step[step] for step in sorted(by_step)]

    def column(name: str) -> np.ndarray:
        values = [row.get(name) for row in ordered]
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    return Curve(**{name: column(name) for name in Curve.__dataclass_fields__})


def _check(path: Path, result: dict[str, Any], curve: Curve) -> None:
    if "status" not in result:
        raise DlmError(f"{path.name} has no status")
    if result["status"] != "finished":
        return
    for name in ("objective", "kind", "corpus", "fingerprint"):
        if not isinstance(result.get(name), str):
            raise DlmError(f"{path.name} has no {name}")
    for name in REQUIRED:
        value = result.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise DlmError(f"{path.name}: {name}={value!r}, must be a finite number")
    if not len(curve.step):
        raise DlmError("metrics.jsonl has no evaluation row")


def _progress(path: Path, start: dict[str, Any]) -> str:
    rows = _rows(path / "metrics.jsonl", torn_end=True)
    step = f"at step {rows[-1].get('step')}" if rows else "before its first record"
    total = _at(start, "plan.steps")
    return f"{step} of {total}" if total and rows else step


def _at(tree: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


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
        key = panel_key(run)
        setting = json.dumps(setting_of(run.config), sort_keys=True)
        if run.status in ("finished", "diverged"):
            trials.setdefault((key, run.objective), set()).add(setting)
        if run.status != "finished":
            excluded.append((run, f"{run.status}: {run.reason}"))
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
    return (*(run.result.get(name) for name in names), str(_at(run.config, "data.subset")))


def _family(name: str, settings: dict[str, dict[int, Run]], trials: int) -> Family:
    flat = {text: _flatten(json.loads(text)) for text in settings}
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
        group = _at(kept, ".".join(parents)) if parents else kept
        if isinstance(group, dict):
            group.pop(last, None)
    return kept


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


# --- the table ----------------------------------------------------------------------------------


def rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per run, of every status, with the columns of COLUMNS; None: no value."""
    return [
        {name: _cell(_field(run, name), kind) for name, kind in COLUMNS.items()} for run in runs
    ]


def _field(run: Run, name: str) -> Any:
    if name in ("experiment", "run", "label", "status", "reason", "objective", "corpus", "seed"):
        return getattr(run, name)
    if name in FROM_THE_START:
        value = run.result.get(name)
        return (
            _at(run.start | {"config": run.config}, FROM_THE_START[name])
            if value is None
            else value
        )
    if name == "warnings":
        return "; ".join(run.result.get(name) or ()) or None
    if name == "best_tokens":
        return best_tokens(run.result) if run.result.get("best_flops") else None
    return run.result.get(name)


def best_tokens(record: Mapping[str, Any]) -> int:
    """The tokens that a run's best weights had been trained on, of its result or table row."""
    return round(record["tokens"] * (record["best_flops"] / record["flops"]))


def data_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a table row was trained on, but for the number of unique tokens: two rows that differ
    here share no law. Corpus, fingerprint, sequence length, kind of subset."""
    return tuple(record[name] for name in ("corpus", "fingerprint", "seq_len", "subset"))


def _cell(value: Any, kind: type) -> Any:
    if value is None or value == "":
        return None
    if kind is str:
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return kind(value)


def safe(cell: Any) -> Any:
    """A cell of a table: a text that a spreadsheet would compute gets a ' before it; see `unsafe`."""
    computed = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "'"))
    return f"'{cell}" if computed else cell


def unsafe(text: str) -> str:
    """The text that `safe` made a cell of."""
    return text[1:] if text.startswith("'") and safe(text[1:]) == text else text


def write_table(runs: Iterable[Run], folder: Path | str) -> tuple[Path, Path]:
    """Writes runs.csv and runs.parquet, and returns their paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    table = [{name: safe(cell) for name, cell in row.items()} for row in rows(runs)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(table)
    disk.write(folder / "runs.csv", text.getvalue())
    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    with disk.replacing(folder / "runs.parquet") as draft:
        pq.write_table(pa.Table.from_pylist(table, schema=schema), draft)
    return folder / "runs.csv", folder / "runs.parquet"
