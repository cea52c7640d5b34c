"""Runs on disk as plain records, and the groups in which they may be compared.

A run is a folder: copy the folder and you have the run. Nothing here imports JAX, and nothing is
dropped silently: a run that cannot be used is a record whose `status` and `reason` say why. A
damaged file of one run costs that run alone.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dlm import disk, sealed
from dlm.errors import DlmError, reason

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
    **{"device": str, "versions": str, "overrides": str, "gaps": str, "warnings": str},
}
# Columns that every record has, whatever can be read of its folder.
OF_A_RUN = ("experiment", "run", "label", "status", "reason", "objective", "corpus", "seed")
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
POSITIVE = (
    *("seq_len", "unique_tokens", "epochs", "steps", "tokens", "params", "flops", "flops_6nd"),
    "validation_tokens",
)
# Groups of a config, which is read by their names.
GROUPS = ("corpus", "tokenizer", "data", "model", "objective", "optimizer", "train", "evaluation")
UNREAD = ("ledger.npy",)  # no reader here needs it, and it may be long
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


CURVE = tuple(field.name for field in fields(Curve))
LOGGED = ("step", "tokens", "epoch", "flops", "seconds")  # numbers in every row


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
    def gaps(self) -> list[str]:
        """What its curve lacks, a sentence each; nearly always none."""
        return [str(gap) for gap in self.result.get("gaps") or ()]

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
    for child in _subfolders(directory):
        inside = [] if is_run(child) else _subfolders(child)
        found += [path for path in (child, *inside) if is_run(path)]
    return found


def is_run(path: Path) -> bool:
    """Whether a folder holds one of the files of a run, or may hold one but cannot be listed."""
    try:
        return not {*FILES}.isdisjoint(os.listdir(path))
    except PermissionError:
        return True
    except OSError:
        return False


def _subfolders(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        return sorted(Path(entry) for entry in entries if entry.is_dir())


def _read(path: Path) -> Run:
    """One run; a file that is missing, damaged or foreign makes it unreadable, with the reason."""
    problems: list[str] = []

    def part(name: str, *, needed: bool = True) -> dict[str, Any]:
        try:
            return sealed.read(path / name) if needed or os.path.lexists(path / name) else {}
        except DlmError as error:
            problems.append(str(error))
            return {}

    result = part("result.json", needed=False)
    failed = result.get("status") == "failed"  # maybe before it wrote the rest
    start = part("run.json", needed=not failed)
    config = part("config.json", needed=not failed)
    curve, last_step = _curve([]), None
    try:
        lines = _rows(path / "metrics.jsonl", torn_end=failed or not result)
        curve = _curve(lines)
        last_step = lines[-1].get("step") if lines else None
        if not problems:
            _check(path, config, start, result, curve)
    except DlmError as error:
        problems.append(str(error))
    status, why = "unreadable", "; ".join(dict.fromkeys(problems))
    if not problems and result:
        status, why = result["status"], str(result.get("reason") or "")
        why = why or ("" if status == "finished" else "no reason was recorded")
    elif not problems:
        status, why = "unfinished", f"no result.json: {_progress(last_step, start)}"
    known = start | {key: value for key, value in result.items() if value is not None}
    return Run(
        path=path,
        experiment=str(known.get("experiment", path.parent.name)),
        run=str(known.get("run", path.name)),
        label=str(known.get("label", path.name)),
        status=status,
        reason=why,
        objective=str(_at(config, "objective.name") or known.get("objective") or ""),
        corpus=str(_at(start, "corpus.name") or known.get("corpus") or ""),
        seed=seed if type(seed := _at(config, "train.seed")) is int else None,
        config=config,
        start=start,
        result=result,
        curve=curve,
    )


def _rows(path: Path, *, torn_end: bool) -> list[dict[str, Any]]:
    """Rows of a JSONL file; `torn_end` forgives a last line that a kill cut short."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        if torn_end:  # it has not logged yet
            return []
        raise DlmError(f"{path.name} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DlmError(f"{path.name} cannot be read: {reason(error)}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except (ValueError, RecursionError):
            if torn_end and number == len(lines):
                break
            raise DlmError(f"{path.name} line {number} is not a JSON object") from None
        if "step" not in row:
            raise DlmError(f"{path.name} line {number} has no step")
        for name in CURVE:
            value = row.get(name, 0.0)
            if type(value) is float or _is_number(value) or (value is None and name not in LOGGED):
                continue
            raise DlmError(f"{path.name} line {number}: {name}={_short(value)}, no number")
        rows.append(row)
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

    return Curve(**{name: column(name) for name in CURVE})


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float holds; NaN and infinity are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _check(
    path: Path,
    config: dict[str, Any],
    start: dict[str, Any],
    result: dict[str, Any],
    curve: Curve,
) -> None:
    """Checks that the parts of a run belong together and hold what readers need.

    Raises:
      DlmError: says which file does not, and why.
    """
    sealed.check_files(path, result or start, UNREAD)
    failed = result.get("status") == "failed"
    if result and result.get("status") not in ("finished", "diverged", "failed"):
        raise DlmError(f"result.json: status={_short(result.get('status'))} is none of dlm's")
    for group in GROUPS if config or not failed else ():
        if not isinstance(config.get(group), dict):
            raise DlmError(f"config.json has no {group}")
    for name, tree in (("run.json", start), ("result.json", result)):
        for key, kind in (("versions", dict), ("corpus", dict if tree is start else str)):
            if not isinstance(tree.get(key), kind | None):
                raise DlmError(f"{name}: {key}={_short(tree[key])}, must be a {kind.__name__}")
    _row(config, start, result)
    if result.get("status") != "finished":
        return
    for name in ("objective", "kind", "corpus", "fingerprint"):
        if not isinstance(result.get(name), str):
            raise DlmError(f"result.json has no {name}")
    for name in REQUIRED:
        value = result.get(name)
        if not (_is_number(value) and math.isfinite(float(value or 0))):
            raise DlmError(f"result.json: {name}={_short(value)}, must be a finite number")
        if name in POSITIVE and not float(value or 0) > 0:
            raise DlmError(f"result.json: {name}={_short(value)}, must be above 0")
    if not len(curve.step):
        raise DlmError("metrics.jsonl has no evaluation row")
    _check_loss(path / "nll.npy", result)


def _check_loss(path: Path, result: dict[str, Any]) -> None:
    """Compares the validation loss with the windows that it is the mean of, if they are there."""
    if not path.exists():
        return
    try:
        nll = np.load(path, allow_pickle=False)
        loss = float(np.mean(nll, dtype=float)) / result["seq_len"]
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise DlmError(f"{path.name} is not an array of numbers: {reason(error)}") from None
    if nll.ndim != 1 or not math.isclose(loss, result["validation_loss"], rel_tol=1e-5):
        raise DlmError(
            f"result.json: validation_loss={result['validation_loss']}, but {path.name} has {loss:.6g}"
        )


def _progress(step: Any, start: dict[str, Any]) -> str:
    if step is None:
        return "before its first record"
    total = _at(start, "plan.steps")
    return f"at step {step} of {total}" if total else f"at step {step}"


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
        dict.fromkeys(COLUMNS)
        | ({} if run.status == "unreadable" else _row(run.config, run.start, run.result))
        | {name: None if (value := getattr(run, name)) == "" else value for name in OF_A_RUN}
        for run in runs
    ]


def _row(
    config: dict[str, Any], start: dict[str, Any], result: dict[str, Any]
) -> dict[str, str | float | None]:
    """The columns that stand in a run's files.

    Raises:
      DlmError: a value is of another type than its column.
    """
    row: dict[str, str | float | None] = {}
    for name, kind in COLUMNS.items():
        value, file = result.get(name), "result.json"
        if value is None and name in FROM_THE_START:
            value = _at(start | {"config": config}, FROM_THE_START[name])
            file = "config.json or run.json"
        if name in ("gaps", "warnings") and isinstance(value, list):
            value = "; ".join(map(str, value))
        if name in ("versions", "overrides") and value is not None:
            value = json.dumps(value, sort_keys=True)
        row[name] = _cell(value, kind, f"{file}: {name}")
    if all(row[name] for name in ("tokens", "flops", "best_flops")):
        row["best_tokens"] = best_tokens(row)
    return row | {"seed": _cell(_at(config, "train.seed"), int, "config.json: train.seed")}


def best_tokens(record: Mapping[str, Any]) -> int:
    """The tokens that a run's best weights had been trained on, of its result or table row."""
    return round(record["tokens"] * (record["best_flops"] / record["flops"]))


def data_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a table row was trained on, but for the number of unique tokens: two rows that differ
    here share no law. Corpus, fingerprint, sequence length, kind of subset."""
    return tuple(record[name] for name in ("corpus", "fingerprint", "seq_len", "subset"))


def _cell(value: Any, kind: type, where: str) -> str | float | None:
    """A value as its column has it; None if it is empty."""
    if value is None or value == "":
        return None
    if kind is str:
        if not isinstance(value, str):
            raise DlmError(f"{where}={_short(value)}, must be a text")
        return value
    if not _is_number(value) or not (math.isfinite(value) or kind is float):
        raise DlmError(f"{where}={_short(value)}, must be a number")
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
