"""Compute-optimal training three ways: the envelope, isoFLOP parabolas, and the fitted law.

Hoffmann et al. 2022 (arXiv 2203.15556), section 3: approach 1 takes the lowest loss at each compute,
approach 2 the vertex of a parabola of loss in log N at each budget, approach 3 the fitted law. Each
gives N_opt ~ C^a; where they disagree, the law's form or the runs are at fault.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.fits import LEVEL, Fit
from dlm.laws.intervals import interval, weights_of, widened
from dlm.laws.table import Table, alike

SAME = 0.06  # budgets closer than this in log compute are one


@dataclass(frozen=True)
class Exponent:
    """N_opt = constant * C^value, with the bootstrap's interval."""

    approach: str
    value: float
    low: float
    high: float
    constant: float
    points: int  # budgets or frontier points that it rests on
    note: str = ""


@dataclass(frozen=True)
class Vertex:
    """The best size at one budget; `edge`: the minimum lies outside the sizes trained."""

    compute: float
    params: float
    loss: float
    edge: bool


def chinchilla_optimum(c: Any, compute: Any) -> tuple[Any, Any]:
    """N and D that minimise E + A/N^alpha + B/D^beta at C = 6ND (Hoffmann et al., equation 4)."""
    G = (c.alpha * c.A / (c.beta * c.B)) ** (1 / (c.alpha + c.beta))
    N = G * (compute / 6) ** (c.beta / (c.alpha + c.beta))
    return N, compute / 6 / N


def budgets(table: Table) -> list[np.ndarray]:
    """Rows of each compute budget, those of three sizes or more."""
    parts = alike(table.flops, SAME)
    return [rows for rows in parts if len(alike(table.N[rows], 0.01)) >= 3]


def vertices(table: Table) -> list[Vertex]:
    """Approach 2: the vertex of a parabola of loss in log N, per budget.

    Raises:
      DlmError: no budget has three sizes.
    """
    found = budgets(table)
    if not found:
        raise DlmError(f"{table.name}: no compute budget with three model sizes: no isoFLOP curve")
    return [v for rows in found if (v := _vertex(table, rows, np.ones(len(rows)))) is not None]


def _vertex(table: Table, rows: np.ndarray, weights: np.ndarray) -> Vertex | None:
    x, y = np.log(table.N[rows]), table.loss[rows]
    if len(np.unique(x[weights > 0])) < 3:
        return None
    centre = x.mean()
    a, b, c = np.polyfit(x - centre, y, 2, w=np.sqrt(weights))
    if a <= 0:
        return None
    at = -b / (2 * a)
    edge = not x.min() <= at + centre <= x.max()
    compute = float(np.exp(np.log(table.flops[rows]).mean()))
    return Vertex(compute, math.exp(at + centre), float(c - b**2 / (4 * a)), bool(edge))


def isoflop(table: Table, resamples: int = 1000, seed: int = 0, level: float = LEVEL) -> Exponent:
    """Approach 2's exponent; budgets whose vertex lies outside the sizes trained do not count."""
    groups = budgets(table)

    def once(weights: np.ndarray) -> tuple[float, float, int]:
        found = [_vertex(table, rows, weights[rows]) for rows in groups]
        inside = [v for v in found if v is not None and not v.edge]
        return _line([v.compute for v in inside], [v.params for v in inside])

    return _exponent("isoFLOP (approach 2)", table, once, resamples, seed, level)


def envelope(table: Table, resamples: int = 1000, seed: int = 0, level: float = LEVEL) -> Exponent:
    """Approach 1: the runs that have the lowest loss at or below their compute."""

    def once(weights: np.ndarray) -> tuple[float, float, int]:
        rows = frontier(table, weights > 0)
        return _line(table.flops[rows], table.N[rows])

    return _exponent("envelope (approach 1)", table, once, resamples, seed, level)


def frontier(table: Table, present: np.ndarray | None = None) -> np.ndarray:
    """Rows on the Pareto frontier of loss and compute, by compute."""
    order = np.lexsort((table.loss, table.flops))
    order = order if present is None else order[present[order]]
    lowest = np.minimum.accumulate(np.append(math.inf, table.loss[order]))[:-1]
    return order[table.loss[order] < lowest]


def approach_3(fit: Fit, level: float = LEVEL) -> Exponent:
    """beta/(alpha + beta) of the law."""

    def exponent(values: dict[str, Any]) -> Any:
        c = fit.law.complete(values)
        return c.beta / (c.alpha + c.beta)

    value = float(exponent(fit.coefficients))
    wide = widened(level, fit)
    low, high = interval(exponent(fit.samples), wide) if fit.samples else (math.nan, math.nan)
    note = "" if high - low > 1e-9 or math.isnan(low) else "fixed, not estimated"
    low, high = (math.nan, math.nan) if note else (low, high)
    N, _ = chinchilla_optimum(fit.law.complete(fit.coefficients), 1.0)
    name = f"law ({fit.law.name}, approach 3)"
    return Exponent(name, value, low, high, float(N), len(fit.table), note)


def _line(compute: Any, params: Any) -> tuple[float, float, int]:
    x, y = np.log(np.asarray(compute, float)), np.log(np.asarray(params, float))
    if len(x) < 2 or np.ptp(x) < SAME:
        return math.nan, math.nan, len(x)
    slope, level = np.polyfit(x - x.mean(), y, 1)
    return float(slope), float(level - slope * x.mean()), len(x)


def _exponent(
    name: str, table: Table, once: Any, resamples: int, seed: int, level: float
) -> Exponent:
    value, constant, points = once(np.ones(len(table)))
    if math.isnan(value):
        return Exponent(name, math.nan, math.nan, math.nan, math.nan, points, "too few budgets")
    low = high = math.nan
    lost = 0.0
    if resamples:
        samples = [once(w)[0] for w in weights_of(table, min(resamples, 400), seed)]
        low, high = interval(np.array(samples), level)
        lost = float(np.isnan(samples).mean())
    note = f"{lost:.0%} of resamples have too few budgets" if lost > 0.05 else ""
    return Exponent(name, value, low, high, math.exp(constant), points, note)


def approaches(fit: Fit, resamples: int = 1000) -> list[Exponent]:
    """All three, for comparison; approaches 1 and 2 use the runs of one epoch where there are."""
    fresh = fit.table.epochs < 1.0 + 1e-6
    some = fresh.sum() >= 6 and not fresh.all()
    table = fit.table.only(fresh) if some else fit.table
    found = [envelope(table, resamples), isoflop(table, resamples)]
    if some:
        words = f"on the {len(table)} runs of one epoch"
        found = [
            dataclasses.replace(e, note=f"{words}, {e.note}" if e.note else words) for e in found
        ]
    complete = vars(fit.law.complete(fit.coefficients))
    return [*found, approach_3(fit)] if {"alpha", "beta"} <= set(complete) else found
