"""Labels runs by the settings that differ within a sweep and by overrides of the command line."""

from __future__ import annotations

import copy
import json
from typing import Any

from dlm import config
from dlm.config import experiment
from dlm.errors import DlmError

# Keys that labels name by a word of their own, whatever other keys there are.
ALWAYS = {"train.seed": "seed", "optimizer.name": "optimizer"}


def label(c: config.Config, overrides: dict[str, Any], keys: set[str]) -> str:
    """Names a run among others on the same data: `digits ar lr=0.004 seed=1`."""
    words = []
    for key, value in overrides.items():
        if key in keys:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            words.append(f"{_short(key, keys)}={text}")
    return " ".join([c.corpus.name, c.objective.name, *words])


def _short(key: str, keys: set[str]) -> str:
    """The last parts of a key, as few as no other key ends in, or the word of `ALWAYS`."""
    if key in ALWAYS:
        return ALWAYS[key]
    parts = key.split(".")
    endings = (".".join(parts[-count:]) for count in range(1, len(parts)))
    alone = (e for e in endings if not any(k.endswith(f".{e}") for k in keys - {key}))
    return next(alone, key)


def keys(base: Any, sweep: list[dict[str, Any]], by_hand: dict[str, Any]) -> set[str]:
    """Lists the keys that labels show: those that differ between runs of one corpus and objective, and
    overrides from the command line that change the base config or a key of the sweep.

    Overrides that change no result (`config.SAME_RUN`) are left out: they do not change the id either.
    """
    changed = copy.deepcopy(base)
    before = {key: experiment.override(changed, key, value) for key, value in by_hand.items()}
    swept = {key for run in sweep for key in run}
    changed_by_hand = {
        key
        for key, value in before.items()
        if (key in swept or value != experiment.value_at(changed, key))
        and key not in ("corpus.name", "objective.name")
        and not any(f"{key}.".startswith(f"{same}.") for same in config.SAME_RUN)
    }
    return changed_by_hand | _differing([run | by_hand for run in sweep])


def _differing(sweep: list[dict[str, Any]]) -> set[str]:
    """Finds the keys whose values differ between runs of one corpus and one objective."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in sweep:
        name = json.dumps([run.get("corpus.name"), run.get("objective.name")])
        groups.setdefault(name, []).append(run)
    keys = {key for run in sweep for key in run}
    return {
        key
        for key in keys
        if any(len({repr(run.get(key)) for run in group}) > 1 for group in groups.values())
    }


def check_sizes(c: config.Config, by_hand: dict[str, Any]) -> None:
    """Raises DlmError if the experiment's `model.size` overrules a size of the command line."""
    for name in ("layers", "width", "heads", "ff"):
        value, size = by_hand.get(f"model.{name}"), getattr(c.model, name)
        if c.model.size and "model.size" not in by_hand and value not in (None, size):
            raise DlmError(
                f"config.model.{name}={value}: has no effect, as model.size={c.model.size!r} of the "
                f"experiment sets {size}; add --config.model.size="
            )
