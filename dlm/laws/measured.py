"""Crossings of the measured frontiers of two tables; dlm/laws/crossings.py defines a crossing.

A table read from a folder of runs holds every tracked loss, as the report does. Any other table
holds the losses of its rows: with one row per run the crossing rests on final losses only, and its
`basis` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlm.laws import crossings, frontiers
from dlm.laws.crossings import Crossover
from dlm.laws.frontiers import FamilyLosses, RunLosses, SettingLosses
from dlm.laws.table import Table, unique_budgets, with_unique


def observed(reference: Table, challenger: Table) -> list[Crossover]:
    """The crossings of measured frontiers on the data that both families have, by unique tokens.

    For each, if the settings are known: once at equal settings, then against the best of all the
    reference's settings tried.
    """
    crossovers = []
    for a, b in _pairs(reference, challenger):
        equal = frontiers.equally_set(a, b)
        crossovers += [crossings.crossover(equal, b)] if equal else []
        crossovers.append(crossings.crossover(a, b))
    return crossovers


def alone(reference: Table, challenger: Table) -> dict[str, list[float]]:
    """The unique tokens of the data on which only one of the two has runs, by family."""
    budgets = unique_budgets([reference, challenger])
    both = [_data(a) for a, _ in _pairs(reference, challenger)]
    return {
        t.family: [f.unique_tokens for f in losses(t, budgets) if _data(f) not in both]
        for t in (reference, challenger)
    }


def losses(t: Table, budgets: Sequence[float]) -> list[FamilyLosses]:
    """The losses of a table's runs, apart for each data set or number of unique tokens."""
    if t.tracked:
        return sorted(t.tracked, key=lambda f: f.unique_tokens)
    parts = [(u, with_unique(t, u)) for u in budgets]
    return [_listed(part, u) for u, part in parts if len(part)]


def _pairs(reference: Table, challenger: Table) -> list[tuple[FamilyLosses, FamilyLosses]]:
    budgets = unique_budgets([reference, challenger])
    return [
        (a, b)
        for a in losses(reference, budgets)
        for b in losses(challenger, budgets)
        if _data(a) == _data(b)
    ]


def _data(losses: FamilyLosses) -> tuple[str, float]:
    return losses.data, losses.unique_tokens


def _listed(t: Table, unique_tokens: float) -> FamilyLosses:
    """The rows of a table on one number of unique tokens.

    The seeds of a setting are the runs of one size whose labels differ in the word seed= alone. If
    two of them have one seed, the labels do not tell settings apart: each is a setting of its own.
    """
    settings: dict[tuple[str, ...], list[tuple[str, RunLosses]]] = {}
    one_each = True
    for group in np.unique(t.group):
        rows = np.flatnonzero(t.group == group)
        rows = rows[np.argsort(t.flops[rows], kind="stable")]
        one_each &= len(rows) == 1
        words = t.labels[rows[0]].split()
        seed = " ".join(word for word in words if word.startswith("seed="))
        key = (f"{t.N[rows[0]]:g}", *(word for word in words if not word.startswith("seed=")))
        run = RunLosses(t.flops[rows], t.loss[rows], t.epochs[rows])
        settings.setdefault(key if seed else (*key, str(group)), []).append((seed, run))
    apart: list[tuple[RunLosses, ...]] = []
    for seeds in settings.values():
        losses = tuple(run for _, run in seeds)
        same = len({seed for seed, _ in seeds}) == len(seeds)
        apart += [losses] if same else [(run,) for run in losses]
    return FamilyLosses(
        family=t.family,
        kind="",
        settings=tuple(SettingLosses(seeds) for seeds in apart),
        trials=len(apart),
        unique_tokens=unique_tokens,
        basis=frontiers.FINAL if one_each else frontiers.LISTED,
    )
