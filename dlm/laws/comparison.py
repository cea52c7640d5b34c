"""Two families side by side: where their laws and their runs cross, and what equal loss costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.laws.critical import Critical, Fitted, PowerLaw, closed_form, critical, critical_law
from dlm.laws.fits import Fit
from dlm.laws.frontiers import observed
from dlm.laws.table import Table
from dlm.laws.verdicts import unpinned
from dlm.laws.worth import Equivalence, at_epochs, equivalence

EPOCHS = (1, 2, 4, 16, 64, 256)  # of the reference's best use of U


@dataclass(frozen=True, eq=False)
class Comparison:
    families: tuple[str, str]  # the reference, the challenger
    points: tuple[Critical, ...]  # by U, under each convention of E
    powers: tuple[PowerLaw, ...]
    observed: tuple[Critical, ...]
    equivalence: Equivalence
    unique_tokens: float  # of the equivalence
    closed: float  # C at which the fresh-data optima meet, E left out; NaN
    unpinned: tuple[str, ...]  # coefficients that the runs leave open, "family: names"


def compare(
    families: tuple[str, str],
    laws: Mapping[str, Fitted],
    tables: Mapping[str, Table],
    unique: Sequence[float],
    resamples: int = 1000,
) -> Comparison:
    """Everything that two laws, and the runs where there are any, say of their crossing."""
    first, second = (laws[name] for name in families)
    points, powers = [], []
    for drop in (False, True):
        found = [critical(first, second, u, drop=drop) for u in unique]
        points += found
        if sum(p.status == "crosses" for p in found) > 1:
            powers.append(critical_law(first, second, unique, drop=drop, points=found))
    seen = []
    if set(families) <= set(tables):
        seen = observed(*(tables[name] for name in families), resamples=resamples)
    U = unique[len(unique) // 2]
    budgets = at_epochs(first, U, EPOCHS)
    meet = next((p.compute for p in points if p.unique_tokens == U and p.status == "crosses"), None)
    budgets = np.sort(np.append(budgets[np.isfinite(budgets)], [] if meet is None else [meet]))
    loose = [
        f"{name}: {', '.join(found)}"
        for name, f in zip(families, (first, second), strict=True)
        if isinstance(f, Fit) and (found := unpinned(f))
    ]
    return Comparison(
        families,
        tuple(points),
        tuple(powers),
        tuple(seen),
        equivalence(first, second, U, budgets),
        U,
        closed_form(first, second),
        tuple(loose),
    )


def as_json(c: Comparison) -> dict[str, Any]:
    """The comparison as `words.plain` takes it; of the equivalence an object for each compute,
    whose ratio is null where the challenger never reaches that loss."""
    columns = dataclasses.asdict(c.equivalence)
    rows = [
        dict(zip(columns, map(float, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    return dataclasses.asdict(c) | {"equivalence": rows}


def cautions(c: Comparison) -> list[str]:
    """What the crossings rest on, each thing once."""
    words: list[str] = []
    for p in (*c.points, *c.observed):
        source = "runs" if p in c.observed else f"E {p.irreducible}"
        words += [
            f"U = {p.unique_tokens:.4g}, {source}: {note}."
            for note in p.notes
            if note != "from the runs, no law"
        ]
    if c.unpinned:
        words.append(
            f"Coefficients that resampled runs leave open ({'; '.join(c.unpinned)}) enter these "
            "crossings: beyond the runs they are guesses."
        )
    if math.isfinite(c.closed) and min(p.unique_tokens for p in c.points) < c.closed < 1e40:
        words.append(
            f"On fresh data alone, E dropped, the two optima meet at {c.closed:.3g} FLOPs (closed "
            "form)."
        )
    return words
