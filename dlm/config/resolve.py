"""One experiment's choices: a ConfigDict for people, frozen dataclasses for the code.

An experiment file returns `base()` with edits; `--config.model.layers=6` edits it again; `resolve`
turns it once into a `Config`, checks it, and is the last place where a default or a name is looked
up. Everything after reads typed fields. The defaults are those of `dlm.config.schema`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dlm import inputs
from dlm.config.families import FAMILIES, Family, digest, own
from dlm.config.rules import check, convert
from dlm.config.schema import (
    Config,
    Corpus,
    Data,
    Dropout,
    Evaluation,
    Mesh,
    Model,
    Objective,
    Optimizer,
    Tokenizer,
    Train,
)
from dlm.errors import DlmError, fail, nearest

__all__ = [
    "base",
    "Config",
    "Corpus",
    "Data",
    "Dropout",
    "Evaluation",
    "FAMILIES",
    "Family",
    "from_json",
    "LADDER",
    "Mesh",
    "Model",
    "Objective",
    "Optimizer",
    "own",
    "resolve",
    "run_id",
    "SAME_RUN",
    "to_json",
    "Tokenizer",
    "Train",
    "trunk_id",
]


def _paper_ff(width: int) -> int:
    """8/3 of the width, in whole 64s: the paper's rule, in integers of any size."""
    return 8 * width // (3 * 64) * 64


# Table 5 of the paper: name -> (layers, width, heads, ff). Rows that the specification names only by
# their parameter count were solved from it; tests/model/test_model.py checks every count.
LADDER: dict[str, tuple[int, int, int, int]] = {
    name: (layers, width, heads, _paper_ff(width))
    for width, heads, rows in (
        (128, 4, {"7m": 3}),
        (224, 7, {"14m": 4}),
        (288, 9, {"20m": 5}),
        (448, 7, {"35m": 6}),
        (512, 8, {"44m": 8}),
        (576, 9, {"57m": 9}),
        (640, 10, {"74m": 10, "90m": 13, "106m": 16}),
        (768, 12, {"117m": 12, "140m": 15, "163m": 18}),
        (896, 14, {"175m": 14, "196m": 16, "217m": 18}),
        (1024, 16, {"251m": 16, "278m": 18, "306m": 20}),
        (1280, 10, {"425m": 18, "489m": 21, "552m": 24}),
        (1408, 11, {"509m": 18, "587m": 21, "664m": 24}),
        (1536, 12, {"632m": 19, "724m": 22, "816m": 25}),
        (1792, 14, {"893m": 20, "1018m": 23, "1143m": 26}),
        (2048, 16, {"1266m": 22, "1429m": 25, "1593m": 28}),
        (2176, 17, {"1424m": 22, "1609m": 25, "1794m": 28}),
        (2304, 18, {"1731m": 24, "2007m": 28, "2283m": 32}),
        (2560, 20, {"2298m": 26, "2639m": 30, "2980m": 34}),
    )
    for name, layers in rows.items()
}


# What moves no number of a run (but for rounding), so that a run keeps its id.
SAME_RUN = (
    *("mesh", "model.remat"),
    *("train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)


LARGEST = 16 * inputs.MIB  # bytes of a Python file of the user's


def base() -> ConfigDict:
    """The defaults, as a locked ConfigDict; `corpus.options` alone takes new keys."""
    config: Any = ConfigDict(dataclasses.asdict(Config())).lock()
    config["corpus"]["options"].unlock()
    return config


def resolve(config: ConfigDict) -> Config:
    """The typed, checked, complete config. Everything that needs no corpus is checked here.

    Raises:
      DlmError: names the field, its value, and what would be right.
    """
    resolved = _typed(Config, config.to_dict(), "config")
    model = resolved.model
    if model.size:
        if model.size not in LADDER:
            fail("model.size", model.size, f"one of Table 5{nearest(model.size, LADDER)}")
        layers, width, heads, ff = LADDER[model.size]
        model = dataclasses.replace(model, layers=layers, width=width, heads=heads, ff=ff)
    elif model.ff == 0:
        model = dataclasses.replace(model, ff=max(64, _paper_ff(model.width)))
    objective = resolved.objective
    if objective.file:
        problem = inputs.unreadable(objective.file, LARGEST)
        if problem == "no such file":
            near = nearest(objective.file, map(str, Path(objective.file).parent.glob("*.py")))
            raise DlmError(f"config.objective.file={objective.file!r}: no such file{near}")
        if problem:
            right = f"a Python file with FAMILY and make; it {problem}"
            fail("objective.file", objective.file, right)
        path = Path(objective.file).resolve()
        objective = dataclasses.replace(objective, file=str(path), digest=digest(path))
    resolved = dataclasses.replace(resolved, model=model, objective=objective)
    check(resolved)
    return resolved


def from_json(values: dict[str, Any]) -> Config:
    """The Config of a run's config.json."""
    return _typed(Config, values, "config")


def to_json(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def run_id(config: Config, fingerprint: str) -> str:
    """Ten hex digits of a hash of everything that determines the result.

    That is the fingerprint of the tokens, which covers corpus and tokenizer, and the rest of the
    config without `SAME_RUN`, what moves no number.
    """
    values = to_json(config)
    # The digest of an objective's file stays.
    for key in ("corpus", "tokenizer", "objective.file", *SAME_RUN):
        *group, name = key.split(".")
        del (values[group[0]] if group else values)[name]
    text = json.dumps([values, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def trunk_id(config: Config, fingerprint: str, warmup: int, every: int) -> str:
    """Names the part of a run that it shares with others: all before the decay of schedule wsd.

    Runs that differ in duration and decay alone take the same steps until the first of them decays.
    `warmup` and `every` (of evaluations) are in steps. Empty where nothing can be shared: other
    schedules turn from the start, and mode "multiset" shuffles all epochs together.
    """
    if config.optimizer.schedule != "wsd" or config.data.mode != "epoch":
        return ""
    same = {"optimizer": {"warmup": f"{warmup} steps", "decay": "1 steps", "min_lr_ratio": 0.0}}
    same |= {"train": {"duration": "1 steps"}, "evaluation": {"every": f"{every} steps"}}
    changed = {
        group: dataclasses.replace(getattr(config, group), **values)
        for group, values in same.items()
    }
    return run_id(dataclasses.replace(config, **changed), fingerprint)


def _typed(cls: Callable[..., Any], values: dict[str, Any], where: str) -> Any:
    """Builds a dataclass from nested dicts, refusing unknown and missing fields."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore (a class is a Callable here)
    for name in values:
        if name not in fields:
            raise DlmError(f"{where}.{name}: no such key{nearest(name, fields)}")
    built = {}
    for name, f in fields.items():
        if name not in values:
            raise DlmError(f"{where}.{name}: missing")
        group = getattr(sys.modules[__name__], str(f.type), None)
        value = values[name]
        if dataclasses.is_dataclass(group):
            built[name] = _typed(group, value, f"{where}.{name}")  # pyright: ignore (found by name)
        elif str(f.type).startswith("dict"):
            built[name] = dict(value)
        else:
            kind = {"int": int, "float": float, "str": str, "bool": bool}[str(f.type)]
            built[name] = convert(f"{where}.{name}".removeprefix("config."), value, kind)
    return cls(**built)
