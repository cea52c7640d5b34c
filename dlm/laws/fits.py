"""Fits a law to a table of runs: solves many starts and keeps the distinct local minima.

The objective is a sum over runs of rho(log L_predicted - log L_observed), natural logarithms; see
dlm/laws/robust_loss.py for rho and dlm/laws/problem.py for the search.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.forms import LAWS, Law
from dlm.laws.problem import EXACT, ROUGH, Problem
from dlm.laws.robust_loss import HUBER, RobustLoss
from dlm.laws.table import Ranges, Table

STARTS = 128
SAME_LOSS = 1e-9  # losses that differ by no larger share are one
SCREENED = 512  # rows of a larger table, drawn at random, that starts are solved on first
LEVEL = 0.90
POLISHED = 24  # distinct minima of the starts, solved to the end


@dataclass(frozen=True)
class Minimum:
    coefficients: dict[str, float]
    objective: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A law at its best coefficients for a table, with the other minima and the bootstrap samples."""

    law: Law
    table: Table
    loss: RobustLoss
    fixed: dict[str, float]
    coefficients: dict[str, float]
    objective: float  # a sum over runs
    minima: tuple[Minimum, ...]  # distinct local minima, best first
    first: Fit | None = None  # the one-epoch fit that `fixed` comes from, if any
    samples: dict[str, np.ndarray] = field(default_factory=dict)  # bootstrap, [S] each
    requested_resamples: int = 0  # a large table gets fewer

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in self.law.names if name not in self.fixed)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        return self.predict(*self.table.columns)

    @property
    def residuals(self) -> np.ndarray:
        """log L_predicted - log L_observed, [R]."""
        return np.log(self.predicted) - np.log(self.table.loss)

    @property
    def r2(self) -> float:
        """Share of the variance of the loss (not of its logarithm) that the law explains."""
        loss = self.table.loss
        return float(1 - ((loss - self.predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum())

    def predict(self, *columns: Any) -> np.ndarray:
        """The loss of runs of these params, tokens, unique tokens, maybe loops: as `Law.predict`."""
        return self.law.predict(self.coefficients, *columns)

    @property
    def ranges(self) -> Ranges:
        return self.table.ranges

    @property
    def max_epochs(self) -> float:
        return float(self.table.epochs.max())


def cautions(fit: Fit) -> list[str]:
    """What the law makes of runs of several loops: nothing if it does not know them."""
    loops = np.unique(fit.table.loops)
    if len(loops) < 2:
        return []
    span = f"runs of {loops[0]:g} to {loops[-1]:g} loops"
    if fit.law.looped:
        return [f"{span}; optima and crossings are of models of one loop"]
    known = " and ".join(law.name for law in LAWS.values() if law.looped)
    return [f"{span} are fitted as if loops changed nothing; {known} know them"]


def problem(fit: Fit, **changes: Any) -> Problem:
    base = Problem(fit.law, fit.table, fit.loss, fit.free, fit.fixed)
    return dataclasses.replace(base, **changes)


# --- the fit ------------------------------------------------------------------------------------


def fit(
    law: Law,
    table: Table,
    *,
    loss: RobustLoss = HUBER,
    fixed: Mapping[str, float] | None = None,
    starts: int = STARTS,
    first: Fit | None = None,
    tolerance: float = EXACT,
) -> Fit:
    """Solves many starts, always the same, and keeps the best minimum.

    A table of more than SCREENED rows is screened first: the starts are solved on SCREENED rows
    (always the same), then their distinct minima on every row.

    Raises:
      DlmError: the table cannot determine the law, whatever its losses are.
    """
    fixed = _held(law, table) | dict(fixed or {})
    free = tuple(name for name in law.names if name not in fixed)
    check(law, table, free)
    p = Problem(law, table, loss, free, fixed)
    points = _starts(p, starts)
    screened = _screened(p)
    rough = _distinct(screened, *screened.solve(points, tolerance=ROUGH), keep=POLISHED)
    if not rough:
        raise DlmError(f"{table.name}: no start of {law.name} has a finite objective")
    points = np.stack([p.coordinates(fixed | m.coefficients) for m in rough])
    minima = _distinct(p, *p.solve(points, tolerance=tolerance))
    best = minima[0]
    return Fit(
        law=law,
        table=table,
        loss=loss,
        fixed=fixed,
        coefficients=fixed | best.coefficients,
        objective=best.objective,
        minima=minima,
        first=first,
    )


def _held(law: Law, table: Table) -> dict[str, float]:
    """The coefficients that no fit changes: a count of the typical run, to one digit."""
    held = [(c.name, np.log(getattr(table, c.held_at))) for c in law.coefficients if c.held_at]
    return {name: float(f"{np.exp(logs.mean()):.0e}") for name, logs in held if len(logs)}


def check(law: Law, table: Table, free: tuple[str, ...]) -> None:
    """Refuses a table that cannot determine the free coefficients, whatever its losses are."""
    where = f"{table.name}, family {table.family}"
    if not free:
        raise DlmError(f"{where}: nothing to fit: every coefficient of {law.name} is fixed")
    if not len(table):
        raise DlmError(f"{where}: no runs to fit")
    if table.loss.min() < law.coefficient("E").limits[0]:
        raise DlmError(
            f"{where}: the lowest loss is {table.loss.min():g} nats per token, below the least that "
            f"the law can have ({law.coefficient('E').limits[0]:g}): is the column in other units?"
        )
    if len(table) > 1 and np.ptp(np.log(table.loss)) < SAME_LOSS:
        raise DlmError(
            f"{where}: every run has the loss {table.loss[0]:.6g}: nothing tells what N or D change"
        )
    if len(np.unique(np.round(np.log(table.N), 6))) < 2 and {"A", "alpha", "R_N"} & set(free):
        raise DlmError(
            f"{where}: one model size only ({table.N[0]:,.0f} parameters), so alpha and A are not "
            "identifiable; train at least three sizes, or use --law one-size"
        )
    if len(np.unique(np.round(np.log(table.D), 6))) < 2:
        raise DlmError(f"{where}: every run has {table.D[0]:,.0f} tokens: beta is not identifiable")
    repeats = {"R_D", "k_D", "p_D", "K", "kappa", "growth"} & set(free)
    if repeats and table.epochs.max() < 1.0 + 1e-6:
        raise DlmError(
            f"{where}: every run has one epoch, which does not tell {', '.join(sorted(repeats))}; use "
            f"--law {'chinchilla-looped' if law.looped else 'chinchilla'}, or add runs that repeat "
            "their data"
        )
    if "growth" in free and "U_0" in law.names and len(np.unique(np.round(np.log(table.U), 6))) < 2:
        raise DlmError(
            f"{where}: every run has {table.U[0]:,.0f} unique tokens: growth is not identifiable; use "
            "--law data-constrained"
        )
    if table.groups <= len(free):
        raise DlmError(
            f"{where}: {table.groups} independent runs for the {len(free)} coefficients of "
            f"{law.name} ({', '.join(free)}): must be more runs than coefficients"
        )


def _starts(p: Problem, count: int) -> np.ndarray:
    """Points spread evenly over the coefficients' start ranges, [count, P].

    The additive recurrence by powers of the root of x^(P+1) = x + 1 (Roberts 2018): each further
    point falls into the largest gaps that are left.
    """
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (len(p.free) + 1))
    steps = root ** -np.arange(1.0, len(p.free) + 1)
    unit = (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
    columns = []
    for k, name in enumerate(p.free):
        c = p.law.coefficient(name)
        low, high = np.log(c.start)
        if c.amplitude:
            low, high = low + math.log(p.table.loss.mean()), high + math.log(p.table.loss.mean())
        elif name == "E":
            low, high = low + math.log(p.table.loss.min()), high + math.log(p.table.loss.min())
        columns.append(low + (high - low) * unit[:, k])
    return np.stack(columns, axis=1)


def _screened(p: Problem) -> Problem:
    """The problem on at most SCREENED of its rows."""
    rows = len(p.table)
    if rows <= SCREENED:
        return p
    drawn = np.random.default_rng(0).permutation(rows) < SCREENED
    return dataclasses.replace(p, table=p.table.only(drawn))


def _distinct(p: Problem, x: np.ndarray, f: np.ndarray, keep: int = 12) -> tuple[Minimum, ...]:
    """The distinct local minima, best first: those that differ by more than 1% in a coordinate."""
    x = x.copy()
    for k, c in enumerate(p.law.coefficient(name) for name in p.free):
        if not c.amplitude:  # beyond its limit a coefficient is at its limit
            x[:, k] = np.clip(x[:, k], *np.log(c.limits))
    apart: list[int] = []
    for i in np.argsort(f, kind="stable"):
        if np.isfinite(f[i]) and all(np.abs(x[i] - x[j]).max() > 0.01 for j in apart):
            apart.append(int(i))
        if len(apart) == keep:
            break
    values = p.coefficients(x[apart])
    return tuple(
        Minimum({name: float(v[k]) for name, v in values.items()}, float(f[i]))
        for k, i in enumerate(apart)
    )


def two_step(law: Law, step_one: Law, table: Table, **options: Any) -> Fit:
    """Fits in two steps, as published: `step_one` on the runs of one epoch, then the rest on all.

    Raises:
      DlmError: too few runs of one epoch.
    """
    fresh = table.only(table.epochs < 1.0 + 1e-6)
    try:
        first = fit(step_one, fresh, **options)
    except DlmError as error:
        raise DlmError(
            f"step one, {step_one.name} on runs of one epoch: {error}; fit jointly with "
            "--stages joint, or give the constants with --fixed"
        ) from None
    constants = vars(step_one.complete(first.coefficients))
    known = {name: constants[name] for name in law.names if name in constants}
    return fit(law, table, fixed=known, first=first, **options)
