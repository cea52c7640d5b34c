"""What the families of a panel of runs say of each other: crossings and final numbers.

The crossing of the frontiers is that of dlm/laws/crossings.py, from every loss tracked while training;
the final comparison uses the best weights on the whole validation split.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlm.laws import crossings, frontiers
from dlm.laws.crossings import Crossover
from dlm.laws.frontiers import FamilyLosses, Frontier, RunLosses, SettingLosses
from dlm.runs import Family, Panel, Run, Setting, panel_key, panels, setting_of
from dlm.runs.estimate import Comparison, Estimate, compare, standard_error

REFERENCE = "ar"  # the family that the others have to pass
EQUAL = REFERENCE + frontiers.AT_EQUAL
NAMES = {
    "ar": "AR",
    EQUAL: "AR at equal settings",
    "orders": "AR in several orders",
    "noise": "AR with noise",
    "any_order": "any-order AR",
    "masked": "masked diffusion",
    "block": "block diffusion",
    "d3pm": "jump diffusion",
    "flow": "flow matching",
    "gaussian": "Gaussian diffusion",
}


def name_of(objective: str) -> str:
    return NAMES.get(objective, objective)


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
    found: dict[str, dict[int, FamilyLosses]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.path in of_run:  # finished, and no other's double
            losses = losses_of(of_run[run.path])
            found.setdefault(name, {})[id(losses)] = losses
    return {name: tuple(each.values()) for name, each in found.items()}


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
    """The reference's frontier at the challenger's settings, where it has others too."""
    reference = panel.families.get(REFERENCE)
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


def _pairs(panel: Panel, axis: str) -> list[tuple[FamilyLosses, FamilyLosses]]:
    if REFERENCE not in panel.families:
        return []
    first = losses_of(panel.families[REFERENCE], axis)
    return [(first, losses_of(f, axis)) for name, f in panel.families.items() if name != REFERENCE]


# --- the final numbers --------------------------------------------------------------------------


@dataclass(frozen=True)
class Final:
    """Best setting against best setting: best weights, whole validation split."""

    reference: str
    challenger: str
    reference_estimate: Estimate
    challenger_estimate: Estimate
    comparison: Comparison  # challenger minus reference
    stderr_seeds: float | None
    stderr_windows: float
    paired: bool  # stderr_windows is of the per-window differences
    clustered: bool  # and the windows of one document were taken together


def estimate(setting: Setting) -> Estimate:
    """Mean final loss over seeds; its standard error is over seeds, of one seed over documents."""
    losses = setting.values("validation_loss")
    stderr = (
        losses.std(ddof=1) / math.sqrt(len(losses))
        if len(losses) > 1
        else setting.values("validation_stderr")[0]
    )
    first = setting.runs[0].result
    return Estimate(float(losses.mean()), float(stderr), first["kind"], first["validation_tokens"])


def finals(panel: Panel) -> list[Final]:
    """The best setting of each family against that of the reference."""
    if REFERENCE not in panel.families:
        return []
    others = [family for name, family in panel.families.items() if name != REFERENCE]
    return [final(panel.families[REFERENCE], family) for family in others]


def final(reference: Family, challenger: Family) -> Final:
    """Challenger minus reference, with the noise of seeds and of windows added in quadrature.

    The seeds of both families are scored on the same windows, so the noise of windows is that of
    the per-window differences where nll.npy is there, and the two standard errors in quadrature
    where it is not, which is too large. Windows of one document go together where
    nll_documents.npy, int [n], says which document each window is of; else each stands alone.
    """
    a, b = estimate(reference.best), estimate(challenger.best)
    seeds = None
    if reference.best.seeds > 1 and challenger.best.seeds > 1:
        seeds = math.hypot(a.stderr, b.stderr)
    per_window = [_per_window(family.best) for family in (reference, challenger)]
    x, y = per_window
    paired = x is not None and y is not None and len(x) == len(y) and len(x) > 1
    documents = _documents(reference.best.runs[0], len(x)) if x is not None and paired else None
    if x is not None and y is not None and paired:
        windows = standard_error(y - x, documents)
    else:
        noise = [f.best.values("validation_stderr").mean() for f in (reference, challenger)]
        windows = math.hypot(*noise)
    names = (name_of(challenger.name), name_of(reference.name))
    total = math.hypot(seeds or 0.0, windows)
    compared = compare(b, a, total, names)
    return Final(
        reference.name,
        challenger.name,
        a,
        b,
        compared,
        seeds,
        windows,
        paired,
        documents is not None and len(np.unique(documents)) > 1,
    )


def _per_window(setting: Setting) -> np.ndarray | None:
    """Nats per token of each validation window, mean over seeds, [n]; None if a seed has none."""
    found = []
    for run in setting.runs:
        nll = _array(run, "nll.npy")
        if nll is None or not np.isfinite(nll).all() or (found and len(nll) != len(found[0])):
            return None
        found.append(nll / run.result["seq_len"])
    return np.mean(found, axis=0)


def _documents(run: Run, windows: int) -> np.ndarray | None:
    documents = _array(run, "nll_documents.npy")
    return documents if documents is not None and len(documents) == windows else None


def _array(run: Run, name: str) -> np.ndarray | None:
    """A one-dimensional array of the run's folder; None where there is none that can be read."""
    try:
        values = np.load(run.path / name, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.ndim == 1 else None
