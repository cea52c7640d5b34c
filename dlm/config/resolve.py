"""Turns the ConfigDict of an experiment into frozen, checked records, and names runs.

An experiment file returns `base()` with edits; `--config.model.layers=6` edits it again; `resolve`
turns it into a `Config` and checks it. All other code reads typed fields and knows no defaults: these
stand in `dlm.config.schema` and `dlm.config.families`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dlm import inputs
from dlm.config.family import FAMILIES, Objective, digest, load_custom
from dlm.config.fields import flat, hints, validated
from dlm.config.rules import check
from dlm.config.schema import Config
from dlm.errors import DlmError, fail, nearest


def _paper_ff(width: int) -> int:
    """Rounds 8/3 of the width down to a multiple of 64, the paper's rule."""
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


# Settings that change no result, except by rounding. A run keeps its id if they change.
SAME_RUN = (
    *("mesh", "model.remat"),
    *("train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)


GROUP = "objective"
LARGEST = 16 * inputs.MIB  # most bytes of a user's Python file


def base() -> ConfigDict:
    """Returns the defaults as a locked ConfigDict. Only `corpus.options` and `objective` take new keys.

    The options of `objective` depend on its name, so `resolve` checks them, once both are known.
    """
    config: Any = ConfigDict(dataclasses.asdict(Config())).lock()
    config["corpus"]["options"].unlock()
    config["objective"].unlock()
    return config


def resolve(config: ConfigDict) -> Config:
    """Returns the typed, complete config, after all checks that need no corpus.

    Raises:
      DlmError: names the field, its value, and what would be right.
    """
    values = config.to_dict()
    if values["objective"].get("file"):
        values["objective"] |= _file_and_digest(values["objective"]["file"])
    resolved = _typed(values)
    model = resolved.model
    if model.size:
        if model.size not in LADDER:
            fail("model.size", model.size, f"one of Table 5{nearest(model.size, LADDER)}")
        layers, width, heads, ff = LADDER[model.size]
        model = dataclasses.replace(model, layers=layers, width=width, heads=heads, ff=ff)
    elif model.ff == 0:
        model = dataclasses.replace(model, ff=max(64, _paper_ff(model.width)))
    resolved = dataclasses.replace(resolved, model=model)
    check(resolved)
    return resolved


def from_json(values: dict[str, Any]) -> Config:
    """Returns the Config of a run's config.json. Runs the user's file that `objective.file` names.

    Raises:
      DlmError: names the field that is missing, unknown or wrong.
    """
    config = _typed(values)
    if missing := flat(to_json(config)).keys() - flat(values).keys():
        raise DlmError(f"config.{min(missing)}: missing")
    return config


def _file_and_digest(file: Any) -> dict[str, str]:
    """Returns the absolute path of an objective's file, and its digest."""
    problem = inputs.unreadable(file, LARGEST) if isinstance(file, str) else "is no path"
    if problem == "no such file":
        near = nearest(file, map(str, Path(file).parent.glob("*.py")))
        raise DlmError(f"config.objective.file={file!r}: no such file{near}")
    if problem:
        fail("objective.file", file, f"a Python file with FAMILY and make; it {problem}")
    path = Path(file).resolve()
    return {"file": str(path), "digest": digest(path)}


def _typed(values: dict[str, Any]) -> Config:
    """Builds the records of a config from nested dicts of plain values."""
    if isinstance(values.get("objective"), dict):
        values = values | {"objective": _options(values["objective"])}
    return validated(Config, values)


def _options(values: dict[str, Any]) -> Objective:
    """Builds the options record of the family that the group `objective` names."""
    shared = validated(Objective, {k: v for k, v in values.items() if k in hints(Objective)}, GROUP)
    name = shared.name
    if shared.file:
        record = load_custom(shared.file, shared.digest).FAMILY.options
    elif name in FAMILIES:
        record = FAMILIES[name].options
    else:
        fail("objective.name", name, f"one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}")
    own = hints(record).keys() - hints(Objective).keys()
    for key in values.keys() - hints(record).keys():
        has = f"it has {', '.join(k for k in hints(record) if k in own)}" if own else "it has none"
        raise DlmError(
            f"config.objective.{key}: {name} has no such option{nearest(key, own)}; {has}"
        )
    return validated(record, values, GROUP)


def to_json(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def run_id(config: Config, fingerprint: str) -> str:
    """Returns ten hex digits of a hash of everything that determines the result.

    That is the fingerprint of the tokens, which covers corpus and tokenizer, and the rest of the
    config except the settings in `SAME_RUN`.
    """
    values = to_json(config)
    # The digest of an objective's file stays.
    for key in ("corpus", "tokenizer", "objective.file", *SAME_RUN):
        *group, name = key.split(".")
        del (values[group[0]] if group else values)[name]
    text = json.dumps([values, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def trunk_id(config: Config, fingerprint: str, warmup: int, every: int) -> str:
    """Names the steps that a run can share with others: those before the decay of schedule wsd.

    Runs that differ only in duration and decay take the same steps until the first of them decays.
    `warmup` and `every` (of evaluations) are in steps. Returns "" if nothing can be shared: other
    schedules differ from the first step, and mode "multiset" shuffles all epochs together.
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
