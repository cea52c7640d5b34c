"""Groups of runs that may be compared: panels, their families, and the settings of each family.

Nothing is dropped silently: a run that is in no group is listed with the reason.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlm.config import FAMILIES
from dlm.errors import DlmError
from dlm.runs import ensembles
from dlm.runs.ensembles import Ensemble
from dlm.runs.estimate import KINDS
from dlm.runs.load import Run, value_at
from dlm.runs.schema import DIVERGED, FINISHED

# Parts of a config that do not make two settings different: the seed, fields that change no number
# (see `config.run_id`), and fields that the fingerprint of the corpus covers.
NOT_A_SETTING = (
    *("corpus", "tokenizer", "mesh", "train.seed"),
    *("model.remat", "train.microbatches", "train.steps_per_call", "train.checkpoint_every"),
)

DATA = ("corpus", "fingerprint", "unique_tokens", "seq_len")  # of a result; see `panel_key`
ENSEMBLE = ", ensemble of "  # in an ensemble's name, between its members' family and their number
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
    # by name, such as "ar, ensemble of 3"; a setting is one ensemble, as a run (`dlm.runs.ensembles`)
    ensembles: dict[str, Family] = field(default_factory=dict)

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
    Ensembles over seeds that are kept beside the runs stand in the panel of their members.
    """
    runs = list(runs)
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
    kept, broken = _kept_ensembles(runs)
    excluded += broken
    grouped = []
    for key in sorted(chosen, key=lambda k: (k[0], k[2], k[3], k[1])):
        families = {
            name: _family(name, settings, len(trials[key, name]))
            for name, settings in sorted(chosen[key].items())
        }
        corpus, fingerprint, unique_tokens, seq_len, _ = key
        panel = Panel(corpus, fingerprint, unique_tokens, seq_len, families)
        mine = [each for each in kept if panel_key(each.members[0]) == key]
        grouped.append(dataclasses.replace(panel, ensembles=_ensembles(families, mine)))
    return grouped, excluded


def check_seeds(runs: Sequence[Run]) -> None:
    """Checks that runs are finished, and of one setting on one data set, each with its own seed.

    Raises:
      DlmError: names the run that is not, or two and what they differ in.
    """
    for run in runs:
        if run.status != FINISHED:
            raise DlmError(f"run {run.run} is {run.status}: {run.reason}; members must be finished")
    first, *others = runs
    right = "members of an ensemble must differ in their seed alone"
    seeds = {first.seed: first.run}
    for run in others:
        both = f"runs {first.run} and {run.run}"
        keys = (*DATA, "data.subset")
        for name, *values in zip(keys, panel_key(first), panel_key(run), strict=True):
            if values[0] != values[1]:
                raise DlmError(f"{both} have {name} {values[0]} and {values[1]}; {right}")
        a, b = (flatten(setting_of(each.config)) for each in (first, run))
        if differ := [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]:
            values = f"{differ[0]} {a.get(differ[0])} and {b.get(differ[0])}"
            more = f", and {len(differ) - 1} other settings that differ" if differ[1:] else ""
            raise DlmError(f"{both} have {values}{more}; {right}")
        if run.seed in seeds:
            both = f"runs {seeds[run.seed]} and {run.run} both"
            raise DlmError(f"{both} have seed {run.seed}; {right}")
        seeds[run.seed] = run.run


def _kept_ensembles(runs: Sequence[Run]) -> tuple[list[Ensemble], list[tuple[Run, str]]]:
    """The ensembles kept beside runs, and those that cannot be compared, each with its reason."""
    kept, broken = [], []
    for each in ensembles.read(runs):
        if each.run.status != FINISHED:
            broken.append((each.run, f"{each.run.status}: {each.run.reason}"))
            continue
        try:
            check_seeds(each.members)
        except DlmError as error:
            broken.append((each.run, str(error)))
        else:
            kept.append(each)
    return kept, broken


def _ensembles(families: dict[str, Family], kept: Sequence[Ensemble]) -> dict[str, Family]:
    """Ensembles by the family and the number of their members, those of the lowest loss first.

    Of several of one setting the first seeds count: the lowest loss would be chosen among seeds.
    """
    settings: dict[str, dict[str, Setting]] = {}
    trials: collections.Counter[str] = collections.Counter()
    for run, members in sorted(kept, key=lambda each: each.run.result["seeds"]):
        first = members[0]
        family = families[family_of(first.objective, first.result["kind"])]
        own = setting_of(first.config)
        label = next(s.name for s in family.settings if setting_of(s.runs[0].config) == own)
        seeds = f"seeds {', '.join(map(str, run.result['seeds']))}"
        name = f"{family.name}{ENSEMBLE}{len(members)}"
        setting = Setting(f"{label}, {seeds}" if label else seeds, (run,))
        settings.setdefault(name, {}).setdefault(label, setting)
        trials[name] += 1
    ordered = {}
    for name in sorted(settings, key=lambda name: (base_of(name), len(name), name)):
        listed = sorted(
            settings[name].values(), key=lambda s: (s.runs[0].result["validation_loss"], s.name)
        )
        kind = listed[0].runs[0].result["kind"]
        ordered[name] = Family(name, kind, tuple(listed), trials[name])
    return ordered


def base_of(name: str) -> str:
    """The family of an ensemble's members: "ar" of "ar, ensemble of 3"; of a family its own name."""
    return name.partition(ENSEMBLE)[0]


def family_of(objective: str, kind: str | None) -> str:
    """The name of a run's family: its objective, and the kind of its number ("dual-exact") if that
    is another than the objective's own. Losses of two kinds are never those of one family."""
    known = FAMILIES.get(objective)
    own = known.kind if known else kind
    return objective if kind is None or kind == own else objective + OF_KIND[kind]


def panel_key(run: Run) -> tuple[Any, ...]:
    """Runs with the same key may be compared by their losses."""
    return (*(run.result.get(name) for name in DATA), str(value_at(run.config, "data.subset")))


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
