"""Reads run folders: each becomes a `Run`, with the reason if something in it cannot be read.

A damaged file of one run costs that run alone: its status is then "unreadable".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dlm import sealed
from dlm.errors import DlmError, printed, reason
from dlm.runs import folder as run_folder
from dlm.runs import names, schema
from dlm.runs.folder import CONFIG, LOG, NLL, RESULT, START
from dlm.runs.schema import FAILED, FINISHED, LARGEST, UNREADABLE

# Groups of a config, and fields in them, that are read by their names.
GROUPS = ("corpus", "tokenizer", "data", "model", "objective", "optimizer", "train", "evaluation")
FIELDS = {"objective.name": str, "train.seed": int, "data.seq_len": int, "data.subset": str}
UNREAD = (run_folder.LEDGER,)  # no reader here needs it, and it may be long


@dataclass(frozen=True, eq=False)
class Curve:
    """The evaluation rows of metrics.jsonl in step order: float64 arrays of one length, [E]."""

    step: np.ndarray
    tokens: np.ndarray
    epoch: np.ndarray
    flops: np.ndarray
    seconds: np.ndarray
    validation_loss: np.ndarray  # nats per token, as is the next
    train_eval_loss: np.ndarray  # NaN: not measured


CURVE = tuple(field.name for field in fields(Curve))
LOGGED = ("step", "tokens", "epoch", "flops", "seconds")  # numbers in every row


@dataclass(frozen=True, eq=False)
class Run:
    """One run as its folder has it. `start` and `result` have the fields of `dlm.runs.schema`."""

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
    result: dict[str, Any]  # result.json; {}: there is none
    curve: Curve

    def __repr__(self) -> str:
        return f"<run {self.run}: {self.label}, {self.status}>"

    @property
    def gaps(self) -> list[str]:
        """What its curve lacks, a sentence each; nearly always none."""
        return [str(gap) for gap in self.result.get("gaps") or ()]

    @property
    def nll_path(self) -> Path | None:
        path = self.path / NLL
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
    below: list[Path] = []
    for child in _subfolders(directory):
        inside = [] if is_run(child) else _subfolders(child)
        below += [path for path in (child, *inside) if is_run(path)]
    return below


def is_run(path: Path) -> bool:
    """Whether a folder holds one of the files of a run, or may hold one but cannot be listed."""
    try:
        return not {CONFIG, START, LOG, RESULT}.isdisjoint(os.listdir(path))
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

    result = part(RESULT, needed=False)
    failed = result.get("status") == FAILED  # maybe before it wrote the rest
    start = part(START, needed=not failed)
    config = part(CONFIG, needed=not failed)
    curve, last_step = _curve([]), None
    try:
        rows = _rows(path / LOG, needed=bool(result) and not failed)
        curve = _curve(rows)
        last_step = rows[-1]["step"] if rows else None
        if not problems:
            _check(path, config, start, result, curve)
    except DlmError as error:
        problems.append(str(error))
    status, why = UNREADABLE, "; ".join(dict.fromkeys(problems))
    if not problems and result:
        status, why = result["status"], str(result.get("reason") or "")
        why = why or ("" if status == FINISHED else "no reason was recorded")
    elif not problems:
        status, why = "unfinished", f"no {RESULT}: {_progress(last_step, start)}"
    known = start | {key: value for key, value in result.items() if value is not None}
    return Run(
        path=path,
        experiment=printed(str(known.get("experiment", path.parent.name))),
        run=printed(str(known.get("run_id", names.run_id(path)))),
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


def _rows(path: Path, *, needed: bool) -> list[dict[str, Any]]:
    """The rows of a run's log, their numbers checked; `needed`: there has to be a log."""
    try:
        rows, _, problem = run_folder.read_rows(path)
    except FileNotFoundError:
        if not needed:  # it has not logged yet
            return []
        raise DlmError(f"{path.name} is missing") from None
    except OSError as error:
        raise DlmError(f"{path.name} cannot be read: {reason(error)}") from None
    if problem:
        raise DlmError(f"{path.name} {problem}")
    for number, row in enumerate(rows, 1):
        for name in CURVE:
            value = row.get(name, 0.0)
            if value is None and name not in LOGGED:
                continue
            if schema.is_number(value) and (math.isfinite(value or 0) or name not in LOGGED):
                continue
            raise DlmError(f"{path.name} line {number}: {name}={schema.short(value)}, no number")
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
    if config or result.get("status") != FAILED:
        _check_config(config)
    if start:
        schema.start(start)
    if not result or schema.result(result).status != FINISHED:
        return
    if not len(curve.step):
        raise DlmError(f"{LOG} has no evaluation row")
    _check_loss(path / NLL, result)


def _check_config(config: dict[str, Any]) -> None:
    for group in GROUPS:
        if not isinstance(config.get(group), dict):
            raise DlmError(f"{CONFIG} has no {group}")
    for key, kind in FIELDS.items():
        schema.typed(value_at(config, key), kind, CONFIG, key)


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
            f"{RESULT}: validation_loss={result['validation_loss']}, but {path.name} has {loss:.6g}"
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
