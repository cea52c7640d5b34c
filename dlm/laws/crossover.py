"""Compares the families of a panel of runs: crossings of frontiers, and final numbers.

The crossing of the frontiers is that of dlm/laws/crossings.py, from every loss tracked while training;
the final comparison uses the best weights on the whole validation split.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlm.config import FAMILIES
from dlm.errors import DlmError, nearest
from dlm.laws import crossings, final_numbers, frontiers
from dlm.laws.crossings import Crossover
from dlm.laws.frontiers import FamilyLosses, Frontier, RunLosses, SettingLosses
from dlm.runs import (
    ENSEMBLE,
    OF_KIND,
    Family,
    Panel,
    Run,
    Setting,
    base_of,
    panel_key,
    panels,
    setting_of,
)
from dlm.runs.estimate import Comparison, Estimate

EQUAL = "ar" + frontiers.AT_EQUAL
OTHERS = ", other settings"  # after the reference's name, if one of its settings is the reference


def name_of(objective: str) -> str:
    """The family's name in sentences, "AR at equal settings" for "ar at equal settings"."""
    for suffix in (frontiers.AT_EQUAL, frontiers.WITH_ENSEMBLES, OTHERS):
        if objective.endswith(suffix):
            return name_of(objective.removesuffix(suffix)) + suffix
    base, of, count = objective.rpartition(ENSEMBLE)
    if of:
        return f"{name_of(base)}{of}{count}"
    for kind, suffix in OF_KIND.items():
        if objective.endswith(suffix):
            return f"{name_of(objective.removesuffix(suffix))} ({kind})"
    family = FAMILIES.get(objective)
    return family.title if family else objective


def against(panels: Sequence[Panel], reference: str) -> list[Panel]:
    """The panels with another reference than AR: a family, or one setting of a family.

    `reference`: "masked", or "masked optimizer.lr=0.002", the family and the setting's name. That
    setting is then the whole reference, and the family's other settings are a family beside it.

    Raises:
      DlmError: no panel has this family or setting; lists those that there are.
    """
    name, _, setting = " ".join(reference.split()).partition(" ")
    families = [p.families[name] for p in panels if name in p.families]
    if not families:
        known = sorted({family for p in panels for family in p.families})
        raise DlmError(
            f"--reference {reference!r}: must be one of {', '.join(known) or 'no finished family'}"
            + nearest(name, known)
        )
    if not setting:
        return [dataclasses.replace(p, reference=name) for p in panels]
    known = list(dict.fromkeys(s.name for f in families for s in f.settings if s.name))
    if setting not in known:
        listed = "; ".join(known) or "no setting of a name, as it has one only"
        raise DlmError(f"--reference {reference!r}: {name} has {listed}{nearest(setting, known)}")
    return [_against_setting(p, name, setting) for p in panels]


def _against_setting(panel: Panel, name: str, setting: str) -> Panel:
    family = panel.families.get(name)
    chosen = [s for s in family.settings if s.name == setting] if family else []
    if family is None or not chosen:
        families = {k: f for k, f in panel.families.items() if k != name}
        if family is not None:
            families[name + OTHERS] = dataclasses.replace(family, name=name + OTHERS)
        return dataclasses.replace(panel, reference=name, families=families)
    rest = tuple(s for s in family.settings if s.name != setting)
    families = panel.families | {
        name: dataclasses.replace(family, settings=tuple(chosen), trials=1)
    }
    if rest:
        others = Family(name + OTHERS, family.kind, rest, family.trials - 1)
        families[others.name] = others
    return dataclasses.replace(panel, reference=name, families=families)


# --- the crossing -------------------------------------------------------------------------------

# What two runs at equal settings may differ in: the objective, and how long it is worth training.
FREE = ("objective", "evaluation", "train.duration")


def compute_of(run: Run, axis: str = "flops") -> np.ndarray:
    """Cumulative training FLOPs at each evaluation, [E]: analytic, or as 6ND."""
    ratio = run.result["flops_6nd"] / run.result["flops"] if axis == "flops_6nd" else 1.0
    return run.curve.flops * ratio


@functools.lru_cache(maxsize=256)  # families are records compared by identity
def losses_of(family: Family, axis: str = "flops") -> FamilyLosses:
    """Every tracked loss of a family's runs."""
    settings = tuple(
        SettingLosses(
            tuple(
                RunLosses(compute_of(run, axis), run.curve.validation_loss, run.curve.epoch)
                for run in setting.runs
            ),
            _shared(setting),
        )
        for setting in family.settings
    )
    first = family.best.runs[0]
    return FamilyLosses(
        family=family.name,
        kind=family.kind,
        settings=settings,
        trials=family.trials,
        unique_tokens=float(first.result["unique_tokens"]),
        data=repr(panel_key(first)),
    )


def tracked(runs: Sequence[Run], names: Sequence[str]) -> dict[str, tuple[FamilyLosses, ...]]:
    """Every tracked loss of runs, by the names that the runs' families have in a table."""
    of_run = {
        run.path: family
        for panel in panels(runs)[0]
        for family in panel.families.values()
        for setting in family.settings
        for run in setting.runs
    }
    by_name: dict[str, dict[int, FamilyLosses]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.path in of_run:  # finished, and no other's double
            losses = losses_of(of_run[run.path])
            by_name.setdefault(name, {})[id(losses)] = losses
    return {name: tuple(each.values()) for name, each in by_name.items()}


def _shared(setting: Setting) -> str:
    kept = setting_of(setting.runs[0].config)
    for name in FREE:
        *groups, last = name.split(".")
        group = kept[groups[0]] if groups else kept
        group.pop(last, None)
    return json.dumps(kept, sort_keys=True)


def frontier(family: Family, axis: str = "flops") -> Frontier:
    return frontiers.frontier(losses_of(family, axis))


def equal_frontier(panel: Panel, challenger: Family, axis: str = "flops") -> Frontier | None:
    """The reference's frontier at the challenger's settings; None if it has no others."""
    reference = panel.families.get(panel.reference)
    if reference is None:
        return None
    equal = frontiers.equally_set(losses_of(reference, axis), losses_of(challenger, axis))
    return frontiers.frontier(equal) if equal else None


def crossovers(panel: Panel, axis: str = "flops") -> list[Crossover]:
    """Each family of a panel against the best of all the reference's settings tried.

    Empty without the reference or without challengers.
    """
    return [crossings.crossover(a, b, axis) for a, b in _pairs(panel, axis)]


def equal_crossovers(panel: Panel, axis: str = "flops") -> list[Crossover]:
    """Each challenger against the reference at the challenger's own settings.

    The paper compares the families so: one set of hyper-parameters, tuned for neither.
    """
    pairs = [(frontiers.equally_set(a, b), b) for a, b in _pairs(panel, axis)]
    return [crossings.crossover(a, b, axis) for a, b in pairs if a]


def ensemble_crossovers(panel: Panel, axis: str = "flops") -> list[Crossover]:
    """The same with ensembles over seeds on the frontiers of both, each at its members' FLOPs added
    up; only of pairs of which one has ensembles."""
    pairs = [
        (_with_ensembles(panel, a, axis), _with_ensembles(panel, b, axis), a, b)
        for a, b in _pairs(panel, axis)
    ]
    return [crossings.crossover(x, y, axis) for x, y, a, b in pairs if (x, y) != (a, b)]


@functools.lru_cache(maxsize=64)  # panels and losses are records compared by identity
def _with_ensembles(panel: Panel, losses: FamilyLosses, axis: str) -> FamilyLosses:
    """A family's losses and those of ensembles of its runs; the same if there are none."""
    added = [losses_of(f, axis) for f in ensembles(panel, losses.family)]
    if not added:
        return losses
    settings = (*losses.settings, *(setting for each in added for setting in each.settings))
    trials = losses.trials + sum(each.trials for each in added)
    name = losses.family + frontiers.WITH_ENSEMBLES
    return dataclasses.replace(losses, family=name, settings=settings, trials=trials)


def _pairs(panel: Panel, axis: str) -> list[tuple[FamilyLosses, FamilyLosses]]:
    reference = panel.families.get(panel.reference)
    if reference is None:
        return []
    return [(losses_of(reference, axis), losses_of(f, axis)) for f in challengers(panel)]


def challengers(panel: Panel) -> list[Family]:
    """All families of a panel but its reference."""
    return [family for name, family in panel.families.items() if name != panel.reference]


def ensembles(panel: Panel, family: str) -> list[Family]:
    """The ensembles over seeds of a family of a panel, the fewest members first."""
    return [each for name, each in panel.ensembles.items() if base_of(name) == family]


# --- the final numbers --------------------------------------------------------------------------


@dataclass(frozen=True)
class Final:
    """Best setting against best setting: best weights, by the numbers that say most of the two."""

    reference: str
    challenger: str
    reference_estimate: Estimate
    challenger_estimate: Estimate
    comparison: Comparison  # challenger minus reference
    stderr_seeds: float | None
    stderr_windows: float
    paired: bool  # stderr_windows is of the per-window differences
    clustered: bool  # and the windows of one document were taken together
    reference_by: str = ""  # how the reference's number was scored; "": the loss in its results
    challenger_by: str = ""

    @property
    def tightened(self) -> bool:
        """Whether a number beyond the losses in the results is compared."""
        return bool(self.reference_by or self.challenger_by)


def estimate(setting: Setting) -> Estimate:
    """Mean final loss over seeds; its standard error is over seeds, of one seed over documents."""
    return final_numbers.loss(setting).estimate


def finals(panel: Panel) -> list[Final]:
    """The best setting of each family against that of the reference."""
    reference = panel.families.get(panel.reference)
    return [final(reference, family) for family in challengers(panel)] if reference else []


def ensemble_finals(panel: Panel) -> list[Final]:
    """Each ensemble against the best setting of its own family; each challenger and its ensembles
    against the reference and its ensembles, except the pairs of `finals`."""
    gains = [
        final(family, each)
        for family in panel.families.values()
        for each in ensembles(panel, family.name)
    ]
    reference = panel.families.get(panel.reference)
    if reference is None:
        return gains
    rivals = [reference, *ensembles(panel, reference.name)]
    return gains + [
        final(a, b)
        for family in challengers(panel)
        for b in (family, *ensembles(panel, family.name))
        for a in rivals
        if (a, b) != (reference, family)
    ]


def final(reference: Family, challenger: Family) -> Final:
    """The challenger's best setting minus the reference's."""
    return paired(
        reference.best, challenger.best, reference=reference.name, challenger=challenger.name
    )


def paired(a: Setting, b: Setting, reference: str, challenger: str) -> Final:
    """Setting b, of the challenger, minus setting a, of the reference; see
    `final_numbers.compare_best`."""
    pair = final_numbers.compare_best(a, b, (name_of(challenger), name_of(reference)))
    return Final(
        reference, challenger, pair.first.estimate, pair.second.estimate, pair.comparison,
        pair.stderr_seeds, pair.stderr_windows, pair.paired, pair.clustered,
        pair.first.name, pair.second.name,
    )  # fmt: skip
