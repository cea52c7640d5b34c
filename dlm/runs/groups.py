"""Groups of runs that may be compared: panels, their families, and the settings of each family.

Nothing is dropped silently: a run that is in no group is listed with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.config import FAMILIES
from dlm.runs.estimate import KINDS
from dlm.runs.load import Run, value_at
from dlm.runs.schema import DIVERGED, FINISHED

# Parts of a config that do not make two settings different: the seed, fields that change no number
# (see `config.run_id`), and fields that the fingerprint of the corpus covers.
NOT_A_SETTING = (
    *("corpus", "tokenizer", "mesh", "train.seed"),
    *("model.remat", "train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)

OF_KIND = {kind: f"-{kind.replace(' ', '-')}" for kind in KINDS}  # see `family_of`


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed only, by seed."""

    name: str  # how it differs within its family, such as "optimizer.lr=0.002"
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
        if run.status != FINISHED:
            excluded.append((run, f"{run.status}: {run.reason}"))
        if run.status not in (FINISHED, DIVERGED):
            continue
        key = panel_key(run)
        setting = json.dumps(setting_of(run.config), sort_keys=True)
        name = family_of(run.objective, run.result.get("kind"))
        trials.setdefault((key, name), set()).add(setting)
        if run.status == DIVERGED:
            continue
        family = chosen.setdefault(key, {}).setdefault(name, {})
        seeds = family.setdefault(setting, {})
        twin = seeds.setdefault(run.result["seed"], run)
        if twin is not run:
            excluded.append(
                (run, f"the same setting and seed as {twin.path.parent.name}/{twin.run}")
            )
    grouped = []
    for key in sorted(chosen, key=lambda k: (k[0], k[2], k[3], k[1])):
        families = {
            name: _family(name, settings, len(trials[key, name]))
            for name, settings in sorted(chosen[key].items())
        }
        corpus, fingerprint, unique_tokens, seq_len, _ = key
        grouped.append(Panel(corpus, fingerprint, unique_tokens, seq_len, families))
    return grouped, excluded


def family_of(objective: str, kind: str | None) -> str:
    """The name of a run's family: its objective, and the kind of its number ("dual-exact") if that
    is another than the objective's own. Losses of two kinds are never those of one family."""
    known = FAMILIES.get(objective)
    own = known.kind if known else kind
    return objective if kind is None or kind == own else objective + OF_KIND[kind]


def panel_key(run: Run) -> tuple[Any, ...]:
    """Runs with the same key may be compared by their losses."""
    names = ("corpus", "fingerprint", "unique_tokens", "seq_len")
    return (*(run.result.get(name) for name in names), str(value_at(run.config, "data.subset")))


def _family(name: str, settings: dict[str, dict[int, Run]], trials: int) -> Family:
    flat = {text: flatten(json.loads(text)) for text in settings}
    keys = sorted({key for values in flat.values() for key in values})
    differ = [k for k in keys if len({repr(values.get(k)) for values in flat.values()}) > 1]
    listed = []
    for text, seeds in settings.items():
        label = ", ".join(f"{k}={flat[text].get(k)}" for k in differ)
        listed.append(Setting(label, tuple(seeds[seed] for seed in sorted(seeds))))
    listed.sort(key=lambda s: (-s.seeds, s.values("validation_loss").mean(), s.name))
    return Family(name, listed[0].runs[0].result["kind"], tuple(listed), trials)


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
