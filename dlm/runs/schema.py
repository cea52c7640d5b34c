"""The records of a run folder, typed and with a version: what run.json and result.json say.

The same classes write the files and read them. A file of another version, or with a field that is
missing or of another type, is refused with one line that names the file and the field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from dlm.errors import DlmError
from dlm.runs.estimate import KINDS

VERSION = 1  # of the fields below; raised when one is added, removed or changes its meaning
LARGEST = 1e30  # of any number in a run's files; the largest training so far took 1e26 FLOPs
FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"  # statuses in result.json
UNREADABLE = "unreadable"  # status of a run whose result, or a file that belongs to it, is damaged


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Which run this is."""

    experiment: str
    run_id: str
    label: str  # short and readable, unique in its experiment
    overrides: dict[str, Any]  # by dotted config keys
    question: str  # that the experiment asks


@dataclass(frozen=True, kw_only=True)
class PlanNumbers:
    """What a run will come to if it takes all its steps."""

    steps: int
    epochs: float
    unique_tokens: int
    tokens_per_step: int
    params: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class CorpusInfo:
    """The token store that a run trains on."""

    path: str  # relative to the run's folder
    name: str
    fingerprint: str
    vocab_size: int
    bytes_per_token: float | None  # None: a corpus of integers, or text that the tokenizer alters
    python: str  # that the store was built with
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class RunStart(RunInfo):
    """run.json: written before the first step."""

    plan: PlanNumbers
    corpus: CorpusInfo
    versions: dict[str, str]  # of Python and libraries
    device: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What result.json says of every run that ended, in whatever way."""

    experiment: str
    run_id: str
    label: str
    objective: str
    corpus: str
    seed: int
    kind: str  # of its losses: one of `estimate.KINDS`
    status: str
    reason: str | None  # why it is not finished


@dataclass(frozen=True, kw_only=True)
class RunFailure(Ended):
    """result.json of a run that ended in an error; the next call tries it again."""


@dataclass(frozen=True, kw_only=True)
class RunResult(Ended):
    """result.json of a run that is finished or diverged. Losses are nats per token."""

    fingerprint: str  # of the token store
    vocab_size: int
    bytes_per_token: float | None
    entropy: float | None  # of the source, nats per token, if it is known
    seq_len: int
    unique_tokens: int
    epochs: float
    steps: int
    tokens: int
    batch_size: int
    params: int
    params_non_embedding: int
    flops: float  # by attention kind
    flops_6nd: float  # 6 · params · tokens
    shared_steps: int  # of `steps`, those that another run took
    best_step: int
    best_epoch: float
    best_flops: float
    last_validation_loss: float | None
    mc_samples: int | None  # Monte Carlo samples of the final score; 0: it is exact
    seconds: float  # of training
    tokens_per_second: float
    mfu: float | None
    device: str
    versions: dict[str, str]
    gaps: list[str]  # what the curve lacks; in `warnings` too
    warnings: list[str]  # what went wrong and cost no number
    validation_loss: float | None  # this and what follows: None if the run diverged
    validation_stderr: float | None
    validation_mc_stderr: float | None  # the part of it that is Monte Carlo noise; 0: it is exact
    validation_tokens: int | None
    bits_per_byte: float | None
    train_loss: float | None
    train_stderr: float | None


# Fields of a result that must be above zero, and those that a finished run must have.
POSITIVE = (
    *("seq_len", "unique_tokens", "epochs", "steps", "tokens", "params", "flops", "flops_6nd"),
    "validation_tokens",
)
SCORES = ("validation_loss", "validation_stderr", "validation_tokens", "train_loss", "train_stderr")


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON with its version."""
    return {"version": VERSION} | dataclasses.asdict(record)


def start(values: dict[str, Any]) -> RunStart:
    """run.json, read. Raises DlmError if it is none of this version."""
    return _record(RunStart, values, "run.json")


def result(values: dict[str, Any]) -> RunResult | RunFailure:
    """result.json, read.

    Raises:
      DlmError: another version, a field that is missing or of another type, an unknown status or
        kind, or a number that no run can have.
    """
    file = "result.json"
    status = values.get("status")
    if status == FAILED:
        return _record(RunFailure, values, file)
    if status not in (FINISHED, DIVERGED):
        words = ", ".join((FINISHED, DIVERGED, FAILED))
        raise DlmError(f"{file}: status={short(status)}, must be one of {words}")
    read = _record(RunResult, values, file)
    if read.kind not in KINDS:
        raise DlmError(f"{file}: kind={short(read.kind)}, must be one of {', '.join(KINDS)}")
    for name in SCORES if status == FINISHED else ():
        if getattr(read, name) is None:
            raise DlmError(f"{file}: {name}=None, must be a finite number")
    for name in POSITIVE:
        value = getattr(read, name)
        if value is not None and not value > 0:
            raise DlmError(f"{file}: {name}={short(value)}, must be above 0")
    if not read.best_flops < 1.01 * read.flops:
        raise DlmError(
            f"{file}: best_flops={read.best_flops:g}, must be at most flops={read.flops:g}"
        )
    return read


def headline(result: Ended) -> dict[str, Any]:
    """The fields that a sweep shows when a run ends; a failed run has its reason alone."""
    names = ("validation_loss", "validation_stderr", "reason", "warnings")
    return {name: getattr(result, name) for name in names if hasattr(result, name)}


# --- reading ------------------------------------------------------------------------------------

Record = TypeVar("Record")


def _record(kind: type[Record], values: dict[str, Any], file: str) -> Record:
    version = values.get("version")
    if version != VERSION or isinstance(version, bool):
        raise DlmError(
            f"{file}: version={short(version)}, must be {VERSION}: written by another version of dlm"
        )
    return typed(values, kind, file, "")


def typed(value: Any, kind: Any, file: str, name: str) -> Any:
    """A JSON value as a type: a dataclass, text, number, list, dict, or one of these or None.

    Raises:
      DlmError: names the file, the field, its value, and what it must be.
    """
    if kind is Any:
        return value
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else typed(value, inner[0], file, name)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _mistyped(file, name, value, "an object")
        fields = {}
        for field, expected in _fields(kind).items():
            whole = f"{name}.{field}" if name else field
            if field not in value:
                raise DlmError(f"{file} has no {whole}")
            fields[field] = typed(value[field], expected, file, whole)
        return kind(**fields)
    if origin is list:
        if not isinstance(value, list):
            raise _mistyped(file, name, value, "a list")
        return [typed(item, inner[0], file, name) for item in value]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mistyped(file, name, value, "an object")
        return {key: typed(item, inner[1], file, name) for key, item in value.items()}
    if kind is str:
        if not isinstance(value, str):
            raise _mistyped(file, name, value, "a text")
        return value
    if not is_number(value) or not math.isfinite(value):
        raise _mistyped(file, name, value, "a finite number")
    if kind is int and not (isinstance(value, int) and abs(value) < 2**63):
        raise _mistyped(file, name, value, "a whole number")
    return kind(value)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    """Field name -> type of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _mistyped(file: str, name: str, value: Any, right: str) -> DlmError:
    return DlmError(f"{file}: {name}={short(value)}, must be {right}")


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number of sane size; NaN and infinity are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else True


def short(value: Any) -> str:
    """A value as an error shows it: its first 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
