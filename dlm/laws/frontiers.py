"""Measured losses in one form, of run folders as of tables, and the frontiers that they make.

The frontier of a family at compute C is its best validation loss at or below C, mean over seeds: for
each seed the lowest loss so far, then the mean over the seeds of a setting, then the lowest over
settings. It is a straight line in log C between the computes at which it falls; after the last of
them its best stands. Lines are read, not steps: on planted grids of runs the crossing of steps comes
late (BUILD_NOTES.md). dlm/laws/crossings.py has where two of them cross.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np

# What the losses of a family are.
TRACKED, FINAL, LISTED = "every tracked loss", "final losses only", "the losses of the table"
AT_EQUAL = " at equal settings"  # after the reference's name
WITH_ENSEMBLES = " with ensembles"  # after a family's name, if ensembles over its seeds count too

Line = tuple[np.ndarray, np.ndarray]  # log compute and loss, [G] each


@dataclass(frozen=True, eq=False)
class RunLosses:
    """Losses of one run in the order of compute, [E] each."""

    compute: np.ndarray  # training FLOPs
    loss: np.ndarray  # validation loss, nats per token
    epochs: np.ndarray


@dataclass(frozen=True, eq=False)
class SettingLosses:
    seeds: tuple[RunLosses, ...]
    shared: str = ""  # what an equally set run of another family shares; "": not known


@dataclass(frozen=True, eq=False)
class FamilyLosses:
    """All settings of a family on one data set; where the best is known it comes first."""

    family: str
    kind: str  # exact, upper bound, or "" where it is not known
    settings: tuple[SettingLosses, ...]
    trials: int  # settings tried, those that diverged included
    unique_tokens: float
    data: str = ""  # losses are compared on the same data only
    basis: str = TRACKED  # TRACKED, FINAL or LISTED


@dataclass(frozen=True, eq=False)
class Frontier:
    """The computes at which the frontier falls, and the last one evaluated, [G]."""

    compute: np.ndarray
    loss: np.ndarray
    stderr: np.ndarray  # over seeds; NaN for a single seed
    setting: np.ndarray  # index into family.settings

    def at(self, compute: np.ndarray | float) -> np.ndarray:
        """The loss at other computes; NaN where no run has spent so little."""
        return np.interp(np.log(compute), np.log(self.compute), self.loss, left=math.nan)

    def setting_at(self, compute: float) -> int:
        """Index of the setting that leads at or next after `compute`; after the end the last."""
        at = int(np.searchsorted(self.compute, compute * (1 - 1e-9)))
        return int(self.setting[min(at, len(self.setting) - 1)])


@functools.lru_cache(maxsize=64)
def equally_set(reference: FamilyLosses, challenger: FamilyLosses) -> FamilyLosses | None:
    """The reference at the settings of the challenger's best; None where it has no such run.

    Also None where these are all of the reference's settings, or where settings are not known.
    """
    shared = challenger.settings[0].shared
    equal = tuple(setting for setting in reference.settings if shared and setting.shared == shared)
    if not equal or len(equal) == len(reference.settings):
        return None
    name = reference.family + AT_EQUAL
    return dataclasses.replace(reference, family=name, settings=equal, trials=len(equal))


# --- frontiers ----------------------------------------------------------------------------------


def falls(values: np.ndarray) -> np.ndarray:
    """Whether each value [G] lies below all before it."""
    return values < np.append(math.inf, np.minimum.accumulate(values)[:-1])


@dataclass(frozen=True, eq=False)
class Means:
    """The means over seeds of every setting at its evaluations, in the order of compute, [V]."""

    x: np.ndarray  # log compute
    setting: np.ndarray
    seeds: tuple[np.ndarray, ...]  # per setting the losses of its seeds, [S, V of the setting]
    places: tuple[np.ndarray, ...]  # per setting its indices among the V

    @property
    def row(self) -> np.ndarray:
        """Mean losses [V]."""
        row = np.empty(len(self.x))
        for losses, at in zip(self.seeds, self.places, strict=True):
            row[at] = losses.mean(0)
        return row


@functools.lru_cache(maxsize=64)
def means_of(family: FamilyLosses) -> Means:
    """The mean over seeds of the lowest loss so far, from the compute that every seed has spent."""
    xs, seeds = [], []
    for setting in family.settings:
        runs = setting.seeds
        x = np.unique(np.concatenate([np.log(run.compute) for run in runs]))
        x = x[x >= max(math.log(run.compute[0]) for run in runs)]
        lowest = [np.minimum.accumulate(run.loss) for run in runs]
        pairs = zip(runs, lowest, strict=True)
        xs.append(x)
        seeds.append(np.stack([np.interp(x, np.log(run.compute), loss) for run, loss in pairs]))
    flat = np.concatenate(xs)
    which = np.repeat(np.arange(len(xs)), [len(x) for x in xs])
    order = np.argsort(flat, kind="stable")
    places = tuple(np.flatnonzero(which[order] == k) for k in range(len(xs)))
    return Means(flat[order], which[order], tuple(seeds), places)


def lowest_line(x: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log compute and loss where the lowest of `loss` [V] at or below x [V] falls, and indices."""
    order = np.lexsort((loss, x))  # of equal computes the lowest loss counts
    kept = order[falls(loss[order])]
    return x[kept], loss[kept], kept


@functools.lru_cache(maxsize=64)
def frontier(family: FamilyLosses) -> Frontier:
    """The frontier of a family's losses."""
    means = means_of(family)
    x, loss, kept = lowest_line(means.x, means.row)
    errors = np.full(len(means.x), math.nan)
    for losses, at in zip(means.seeds, means.places, strict=True):
        if len(losses) > 1:
            errors[at] = losses.std(0, ddof=1) / math.sqrt(len(losses))
    at = np.append(kept, kept[-1:]) if x[-1] < means.x[-1] else kept
    x = np.append(x, means.x[-1:])[: len(at)]
    return Frontier(np.exp(x), np.append(loss, loss[-1:])[: len(at)], errors[at], means.setting[at])
