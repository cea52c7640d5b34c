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

from dlm.laws.fits import LEVEL, Fit
from dlm.laws.intervals import affordable, interval, weights_of, widened
from dlm.laws.table import Table, alike

# Gaps of log compute: smaller ones never part two budgets, larger ones always do; in between, those
# that are CLEAR times the next smaller gap.
NEVER, ALWAYS, CLEAR = 0.02, 0.25, 2.5
WIDE = 0.3  # in log compute, the widest budget: beyond it runs are spread, not at one compute
FLAT = 1e-6  # of the loss: a parabola that bends less over the sizes trained has no minimum
RESAMPLES = 400  # at most: an exponent's interval needs no more


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


def chinchilla_optimum(c: Any, compute: Any) -> tuple[Any, Any]:
    """N and D that minimise E + A/N^alpha + B/D^beta at C = 6ND (Hoffmann et al., equation 4)."""
    with np.errstate(all="ignore"):  # exponents near 0: sizes out of range are infinite
        G = (c.alpha * c.A / (c.beta * c.B)) ** (1 / (c.alpha + c.beta))
        N = G * (compute / 6) ** (c.beta / (c.alpha + c.beta))
        return N, compute / 6 / N


def by_gaps(values: Any) -> list[np.ndarray]:
    """Indices of positive values, parted at gaps of their logarithms, from the lowest up.

    A gap parts where it is larger than ALWAYS, or larger than NEVER and CLEAR times the next
    smaller one: the clearest such step among as many gaps as leave three values a part. A part that
    is wider than the gaps around it is looked at again by itself.
    """
    logs = np.log(np.asarray(values, float))
    order = np.argsort(logs, kind="stable")
    whole, parts = [(order, 0.0)], []
    while whole:
        rows, around = whole.pop()
        gaps = np.diff(logs[rows])
        large = np.sort(np.maximum(gaps, NEVER))[::-1][: max(len(rows) // 3, 1)]
        steps = large[:-1] / large[1:]
        least = ALWAYS
        if len(steps) and steps.max() >= CLEAR:
            least = min(least, float(large[steps.argmax()]))
        cuts = np.flatnonzero(gaps >= least) + 1
        if np.ptp(logs[rows]) < around or not len(cuts):
            parts.append(np.sort(rows))
            continue
        sides = np.concatenate([[np.inf], gaps[cuts - 1], [np.inf]])
        pieces = zip(np.split(rows, cuts), np.minimum(sides[:-1], sides[1:]), strict=True)
        whole += list(pieces)[::-1]
    return parts


def budgets(table: Table) -> list[np.ndarray]:
    """Rows of each compute budget of three sizes or more, from the lowest up.

    Budgets are those of the table's column `budget`, else they are parted at gaps (`by_gaps`), and
    no wider than WIDE.
    """
    if table.budget is not None:
        named = np.unique(table.budget[~np.isnan(table.budget)])
        parts = [np.flatnonzero(table.budget == value) for value in named]
    else:
        parts = [p for p in by_gaps(table.flops) if np.ptp(np.log(table.flops[p])) <= WIDE]
    return [rows for rows in parts if len(alike(table.N[rows], 0.01)) >= 3]


def parabola_vertices(
    table: Table, rows: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log size at the vertex of a budget's parabola of loss in log N, for each weighting [S, R] of
    the table's rows, and whether it is a minimum within the sizes trained: [S] each."""
    x, y, w = np.log(table.N[rows]), table.loss[rows], weights[:, rows]
    middle, half = (x.max() + x.min()) / 2, np.ptp(x) / 2
    z = (x - middle) / half  # from -1 to 1
    sizes = np.stack([np.isin(np.arange(len(rows)), same) for same in alike(table.N[rows], 0.01)])
    enough = (w @ sizes.T > 0).sum(1) >= 3
    powers = z ** np.arange(3)[:, None]
    moments = np.einsum("sr,ir,jr->sij", w, powers, powers)
    moments[~enough] = np.eye(3)
    level = y.mean()
    sums = np.einsum("sr,ir->si", w * (y - level), powers)
    _, b, a = np.linalg.solve(moments, sums[:, :, None])[:, :, 0].T
    bent = enough & (a > FLAT * level)
    at = -b / (2 * np.where(bent, a, 1.0))
    return middle + half * at, bent & (np.abs(at) <= 1)


def isoflop(table: Table, resamples: int = 1000, seed: int = 0) -> Exponent:
    """Approach 2's exponent; budgets whose vertex lies outside the sizes trained do not count."""
    name, groups = "isoFLOP (approach 2)", budgets(table)
    if not groups:
        low, high = table.flops.min(), table.flops.max()
        note = f"no budget of three sizes or more in the runs of {low:.3g} to {high:.3g} FLOPs"
        nothing = math.nan
        return Exponent(name, nothing, nothing, nothing, nothing, 0, note)
    C = np.array([np.log(table.flops[rows]).mean() for rows in groups])

    def lines(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs = [parabola_vertices(table, rows, weights) for rows in groups]
        sizes, inside = (np.stack(each, axis=1) for each in zip(*pairs, strict=True))
        return _lines(C, sizes, inside)

    exponent = _exponent(name, table, lines, resamples, seed)
    several = "s" if len(groups) > 1 else ""
    note = f"{len(groups)} budget{several}, {exponent.points} with an inside minimum"
    return dataclasses.replace(exponent, note=f"{note}, {exponent.note}" if exponent.note else note)


def envelope(table: Table, resamples: int = 1000, seed: int = 0) -> Exponent:
    """Approach 1: the runs that have the lowest loss at or below their compute."""
    order = np.lexsort((table.loss, table.flops))
    C, N, loss = (v[order] for v in (np.log(table.flops), np.log(table.N), table.loss))

    def lines(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drawn = np.where(weights[:, order] > 0, loss, np.inf)
        before = np.minimum.accumulate(drawn, axis=1)[:, :-1]
        lowest = drawn < np.pad(before, ((0, 0), (1, 0)), constant_values=np.inf)
        return _lines(C, np.broadcast_to(N, lowest.shape), lowest)

    return _exponent("envelope (approach 1)", table, lines, resamples, seed)


def approach_3(fit: Fit) -> Exponent:
    """beta/(alpha + beta) of the law."""

    def exponent(values: dict[str, Any]) -> Any:
        c = fit.law.complete(values)
        return c.beta / (c.alpha + c.beta)

    value = float(exponent(fit.coefficients))
    wide = widened(LEVEL, fit)
    low, high = interval(exponent(fit.samples), wide) if fit.samples else (math.nan, math.nan)
    note = "" if high - low > 1e-9 or math.isnan(low) else "fixed, not estimated"
    low, high = (math.nan, math.nan) if note else (low, high)
    N, _ = chinchilla_optimum(fit.law.complete(fit.coefficients), 1.0)
    name = f"law ({fit.law.name}, approach 3)"
    return Exponent(name, value, low, high, float(N), len(fit.table), note)


def _lines(
    x: np.ndarray, y: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, level at x = 0 and number of points of the line through the kept points of each row of
    y [S, K]; NaN where they are fewer than two, or at one compute."""
    count = kept.sum(1)
    some = np.maximum(count, 1)
    x_mean, y_mean = (kept * x).sum(1) / some, np.where(kept, y, 0.0).sum(1) / some
    away = kept * (x - x_mean[:, None])
    across = (away**2).sum(1)
    known = (count >= 2) & (across > NEVER**2 / 2)
    slope = (away * np.where(kept, y, 0.0)).sum(1) / np.where(known, across, np.nan)
    return slope, y_mean - slope * x_mean, count


def _exponent(name: str, table: Table, lines: Any, resamples: int, seed: int) -> Exponent:
    slope, start, count = (v[0] for v in lines(np.ones((1, len(table)))))
    nothing = math.nan
    if math.isnan(slope):
        return Exponent(name, nothing, nothing, nothing, nothing, int(count), "too few points")
    low = high = lost = nothing
    if resamples:
        drawn = affordable(table, min(resamples, RESAMPLES))
        samples = lines(weights_of(table, drawn, seed))[0]
        low, high = interval(samples, LEVEL)
        lost = float(np.isnan(samples).mean())
    note = f"{lost:.0%} of resamples have too few points" if lost > 0.05 else ""
    constant = float(np.exp(np.clip(start, -700, 700)))
    return Exponent(name, float(slope), low, high, constant, int(count), note)


def approaches(fit: Fit, resamples: int = 1000) -> list[Exponent]:
    """All three approaches; 1 and 2 use the runs of one epoch alone if there are at least six."""
    fresh = fit.table.epochs < 1.0 + 1e-6
    some = fresh.sum() >= 6 and not fresh.all()
    table = fit.table.only(fresh) if some else fit.table
    exponents = [envelope(table, resamples), isoflop(table, resamples)]
    if some:
        words = f"on the {len(table)} runs of one epoch"
        exponents = [
            dataclasses.replace(e, note=f"{words}, {e.note}" if e.note else words)
            for e in exponents
        ]
    complete = vars(fit.law.complete(fit.coefficients))
    return [*exponents, approach_3(fit)] if {"alpha", "beta"} <= set(complete) else exponents
