"""Run folders as records: whatever can be read, and why if something cannot.

A damaged file of one run costs that run alone: it becomes a record of status unreadable.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dlm import inputs, sealed
from dlm.errors import DlmError, printed, reason
from dlm.runs.estimate import KINDS

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
        "mc_samples": int,
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
LARGEST = 1e30  # of any number in a run's files; the largest training so far took 1e26 FLOPs
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

    def __repr__(self) -> str:
        return f"<run {self.run}: {self.label}, {self.status}>"

    @property
    def gaps(self) -> list[str]:
        """What its curve lacks, a sentence each; nearly always none."""
        return [str(gap) for gap in self.result.get("gaps") or ()]

    @property
    def nll_path(self) -> Path | None:
        path = self.path / "nll.npy"
        return path if path.is_file() else None


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
        experiment=printed(str(known.get("experiment", path.parent.name))),
        run=printed(str(known.get("run", path.name))),
        label=printed(str(known.get("label", path.name))),
        status=status,
        reason=printed(why),
        objective=str(value_at(config, "objective.name") or known.get("objective") or ""),
        corpus=str(value_at(start, "corpus.name") or known.get("corpus") or ""),
        seed=seed if type(seed := value_at(config, "train.seed")) is int and seed < 2**63 else None,
        config=config,
        start=start,
        result=result,
        curve=curve,
    )


def _rows(path: Path, *, torn_end: bool) -> list[dict[str, Any]]:
    """Rows of a JSONL file; `torn_end` forgives a last line that a kill cut short."""
    try:
        lines = inputs.read_bytes(path).decode().splitlines()
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
            if value is None and name not in LOGGED:
                continue
            if _is_number(value) and (math.isfinite(float(value or 0)) or name not in LOGGED):
                continue
            raise DlmError(f"{path.name} line {number}: {name}={_short(value)}, no number")
        rows.append(row)
    return rows


def _curve(rows: Iterable[dict[str, Any]]) -> Curve:
    """The evaluation rows with a finite loss; of a step logged twice (a resume) the later row."""
    by_step = {}
    for row in rows:
        loss = row.get("validation_loss")
        if loss is not None and abs(loss) < LARGEST and row.get("flops", 0) > 0:
            by_step[row["step"]] = row
    ordered = [by_step[step] for step in sorted(by_step)]

    def column(name: str) -> np.ndarray:
        values = [row.get(name) for row in ordered]
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    return Curve(**{name: column(name) for name in CURVE})


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number of sane size; NaN and infinity are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else True


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
    table_row(config, start, result)
    if result.get("status") != "finished":
        return
    for name in ("objective", "kind", "corpus", "fingerprint"):
        if not isinstance(result.get(name), str):
            raise DlmError(f"result.json has no {name}")
    if result["kind"] not in KINDS:
        raise DlmError(
            f"result.json: kind={_short(result['kind'])}, must be one of {', '.join(KINDS)}"
        )
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
    except (OSError, ValueError, EOFError, TypeError, MemoryError) as error:
        raise DlmError(f"{path.name} is not an array of numbers: {reason(error)}") from None
    if nll.ndim != 1 or not math.isclose(loss, result["validation_loss"], rel_tol=1e-5):
        raise DlmError(
            f"result.json: validation_loss={result['validation_loss']}, but {path.name} has {loss:.6g}"
        )


def _progress(step: Any, start: dict[str, Any]) -> str:
    if step is None:
        return "before its first record"
    total = value_at(start, "plan.steps")
    return f"at step {step} of {total}" if total else f"at step {step}"


def value_at(tree: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


# --- the columns of the table -------------------------------------------------------------------


def table_row(
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
            value = value_at(start | {"config": config}, FROM_THE_START[name])
            file = "config.json or run.json"
        if name in ("gaps", "warnings") and isinstance(value, list):
            value = "; ".join(map(str, value))
        if name in ("versions", "overrides") and value is not None:
            value = json.dumps(value, sort_keys=True)
        row[name] = _cell(value, kind, f"{file}: {name}")
    if all(row[name] for name in ("tokens", "flops", "best_flops")):
        best, whole = float(row["best_flops"] or 0), float(row["flops"] or 0)
        if not 0 < best < 1.01 * whole:
            raise DlmError(f"result.json: best_flops={best:g}, must be at most flops={whole:g}")
        row["best_tokens"] = best_tokens(row)
    return row | {"seed": _cell(value_at(config, "train.seed"), int, "config.json: train.seed")}


def best_tokens(record: Mapping[str, Any]) -> int:
    """The tokens that a run's best weights had been trained on, of its result or table row."""
    return round(record["tokens"] * (record["best_flops"] / record["flops"]))


def _cell(value: Any, kind: type, where: str) -> str | float | None:
    """A value as its column has it; None if it is empty."""
    if value is None or value == "":
        return None
    if kind is str:
        if not isinstance(value, str):
            raise DlmError(f"{where}={_short(value)}, must be a text")
        return value
    within = _is_number(value) and (abs(value) < 2**63 or kind is float)
    if not within or not (math.isfinite(value) or kind is float):
        raise DlmError(f"{where}={_short(value)}, must be a number")
    return kind(value)
