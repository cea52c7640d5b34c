"""Compares two families: where their laws and their runs cross, and what equal loss costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import number, scientific
from dlm.laws import measured
from dlm.laws.critical import Critical, Fitted, PowerLaw, closed_form, critical, critical_law
from dlm.laws.crossings import CROSSES, Crossover
from dlm.laws.table import Table
from dlm.laws.verdicts import unidentified_by_bootstrap
from dlm.laws.worth import Equivalence, at_epochs, equivalence

EPOCHS = (1, 2, 4, 16, 64, 256)  # of the reference's best use of U


@dataclass(frozen=True, eq=False)
class Comparison:
    families: tuple[str, str]  # the reference, the challenger
    points: tuple[Critical, ...] = ()  # of the laws, by U, under each convention of E
    powers: tuple[PowerLaw, ...] = ()
    observed: tuple[Crossover, ...] = ()  # of the runs
    alone: tuple[str, ...] = ()  # "family: unique tokens" on which the other has no run
    equivalence: Equivalence | None = None
    unique_tokens: float = math.nan  # of the equivalence
    closed: float = math.nan  # C at which the fresh-data optima meet, E left out; NaN
    unidentified_by_bootstrap: tuple[
        str, ...
    ] = ()  # coefficients that the runs leave open, "family: names"
    unknown: tuple[str, ...] = ()  # families whose laws come without the range of their runs


def compare(
    families: tuple[str, str],
    laws: Mapping[str, Fitted],
    tables: Mapping[str, Table],
    unique: Sequence[float],
) -> Comparison:
    """Compares two families by their runs and, if `laws` holds any, by their laws.

    Raises:
      DlmError: no laws, and no unique tokens on which both families have runs.
    """
    observed, alone = [], {}
    if set(families) <= set(tables):
        pair = [tables[name] for name in families]
        observed, alone = measured.observed(*pair), measured.alone(*pair)
    listed = [f"{name}: {', '.join(f'{u:.4g}' for u in us)}" for name, us in alone.items() if us]
    runs = Comparison(families, observed=tuple(observed), alone=tuple(listed))
    if laws:
        return _with_laws(runs, laws[families[0]], laws[families[1]], unique)
    if not observed:
        raise DlmError(f"{' and '.join(families)} have no runs on the same data")
    return runs


def _with_laws(
    runs: Comparison, first: Fitted, second: Fitted, unique: Sequence[float]
) -> Comparison:
    points, powers = [], []
    for drop in (False, True):
        crossings = [critical(first, second, u, drop=drop) for u in unique]
        points += crossings
        if sum(p.status == CROSSES for p in crossings) > 1:
            powers.append(critical_law(first, second, unique, drop=drop, points=crossings))
    U = unique[len(unique) // 2]
    budgets = at_epochs(first, U, EPOCHS)
    meet = next((p.compute for p in points if p.unique_tokens == U and p.status == CROSSES), None)
    budgets = np.sort(np.append(budgets[np.isfinite(budgets)], [] if meet is None else [meet]))
    both = list(zip(runs.families, (first, second), strict=True))
    return dataclasses.replace(
        runs,
        points=tuple(points),
        powers=tuple(powers),
        equivalence=equivalence(first, second, U, budgets),
        unique_tokens=U,
        closed=closed_form(first, second),
        unidentified_by_bootstrap=tuple(
            f"{name}: {', '.join(loose)}"
            for name, f in both
            if (loose := unidentified_by_bootstrap(f))
        ),
        unknown=tuple(name for name, f in both if f.ranges is None),
    )


def as_json(c: Comparison) -> dict[str, Any]:
    """The comparison as `words.plain` takes it: the equivalence is a list with one object per
    compute. Its ratio is null if the challenger never reaches that loss."""
    if c.equivalence is None:
        return dataclasses.asdict(c)
    columns = dataclasses.asdict(c.equivalence)
    rows = [
        dict(zip(columns, map(float, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    return dataclasses.asdict(c) | {"equivalence": rows}


def cautions(c: Comparison) -> list[str]:
    """Warnings about what the crossings rest on, each once."""
    words = [
        f"U = {number(p.unique_tokens)}, E {p.irreducible}: {note}."
        for p in c.points
        for note in p.notes
    ]
    if c.unknown:
        words.append(
            f"The laws of {', '.join(c.unknown)} come without the range of their runs: how far these "
            "crossings extrapolate is unknown."
        )
    if c.unidentified_by_bootstrap:
        words.append(
            "These crossings use coefficients that the bootstrap does not identify ("
            f"{'; '.join(c.unidentified_by_bootstrap)}): beyond the runs they are guesses."
        )
    if c.points and min(p.unique_tokens for p in c.points) < c.closed < 1e40:
        words.append(
            "On fresh data alone, E dropped, the two optima meet at "
            f"{scientific(c.closed)} FLOPs (closed form)."
        )
    if c.alone:
        words.append(
            f"Unique tokens on which only one family has runs ({'; '.join(c.alone)}): no crossing of "
            "runs there."
        )
    return words
