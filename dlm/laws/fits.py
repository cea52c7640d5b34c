"""Fitting a law to a table of runs: many starts, and the other minima.

The objective is a sum over runs of rho(log L_predicted - log L_observed), natural logarithms:
Huber (Hoffmann et al., appendix D.3), the absolute value, or half the square. The search works on
the objective over its scale, in centred logarithms of the coefficients.
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
from dlm.laws.dual import Dual
from dlm.laws.forms import LOSSES, Coefficient, Law
from dlm.laws.minimise import Objective, minimise
from dlm.laws.table import Ranges, Table

DELTA = 1e-3  # Hoffmann et al. 2022; also Muennighoff et al. 2023
STARTS = 128
SAME_LOSS = 1e-9  # losses that differ by no larger share are one
SCREENED = 512  # rows of a larger table, drawn at random, that starts are solved on first
LEVEL = 0.90
POLISHED = 24  # distinct minima of the starts, solved to the end
ELEMENTS = 20_000  # problems times rows of one pass: its arrays stay in a core's cache
EXACT = 1e-13  # relative tolerance of the objective
ROUGH = 1e-6  # in screening, profiles and resamples: far below the noise
SMOOTHED = (1e-3, 1e-5, 1e-7)  # widths of Huber that lead to the absolute value


@dataclass(frozen=True)
class Loss:
    """rho: huber with its delta, lad (absolute), gaussian (half the square)."""

    name: str = "huber"
    delta: float = DELTA

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise DlmError(f"loss={self.name!r}: must be one of {', '.join(LOSSES)}")
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise DlmError(f"delta={self.delta}: must be above 0; Hoffmann et al. use 1e-3")

    @property
    def width(self) -> float:
        """Residuals smaller than this are squared."""
        return {"huber": self.delta, "lad": 0.0, "gaussian": math.inf}[self.name]

    @property
    def stages(self) -> tuple[Loss, ...]:
        """The losses to minimise one after another, each from the last one's minimum.

        The absolute value bends nowhere but at zero, so it is reached through Huber losses.
        """
        return tuple(Loss("huber", w) for w in SMOOTHED) if self.name == "lad" else (self,)

    def sum(self, residuals: np.ndarray, weights: Any = 1.0) -> np.ndarray:
        """The objective, over the last axis."""
        size = np.abs(residuals)
        if self.name == "lad":
            return (weights * size).sum(-1)
        small = np.minimum(size, self.width)
        return (weights * small * (size - small / 2)).sum(-1)

    def slope(self, residuals: np.ndarray) -> np.ndarray:
        """rho'."""
        if self.name == "lad":
            return np.sign(residuals)
        return np.clip(residuals, -self.width, self.width)

    def weight(self, residuals: np.ndarray) -> np.ndarray:
        """rho'(r)/r: the least parabola that touches rho at r lies above it with this curvature."""
        if self.name == "gaussian":
            return np.ones_like(residuals)
        size = np.abs(residuals)
        if self.name == "lad":
            return 1.0 / np.maximum(size, SMOOTHED[-1])
        return self.width / np.maximum(size, self.width)

    def stiffness(self, residuals: np.ndarray) -> float:
        """The mean of rho'' over the density of the residuals, which is smoothed by a kernel."""
        if self.name == "gaussian":
            return 1.0
        from scipy import special

        middle = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
        spread = min(float(residuals.std()), middle or math.inf)
        h = max(1.06 * spread * len(residuals) ** -0.2, 1e-12)
        if self.name == "lad":
            density = np.exp(-((residuals / h) ** 2) / 2) / math.sqrt(2 * math.pi)
            return float(2 * density.mean() / h)
        ends = (special.ndtr((end - residuals) / h) for end in (self.delta, -self.delta))
        upper, lower = ends
        return float((upper - lower).mean())


HUBER = Loss()


@dataclass(frozen=True)
class Minimum:
    coefficients: dict[str, float]
    objective: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A law at the best coefficients found, and what else there is to know about it."""

    law: Law
    table: Table
    loss: Loss
    fixed: dict[str, float]
    coefficients: dict[str, float]
    objective: float  # a sum over runs
    minima: tuple[Minimum, ...]  # the local minima found, best first
    first: Fit | None = None  # the one-epoch fit that `fixed` comes from, if any
    samples: dict[str, np.ndarray] = field(default_factory=dict)  # bootstrap, [S] each
    asked: int = 0  # resamples that were asked for, of which a large table gets fewer

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in self.law.names if name not in self.fixed)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        return self.predict(self.table.N, self.table.D, self.table.U)

    @property
    def residuals(self) -> np.ndarray:
        """log L_predicted - log L_observed, [R]."""
        return np.log(self.predicted) - np.log(self.table.loss)

    @property
    def r2(self) -> float:
        """Share of the variance of the loss (not of its logarithm) that the law explains."""
        loss = self.table.loss
        return float(1 - ((loss - self.predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum())

    def predict(self, params: Any, tokens: Any, unique: Any) -> np.ndarray:
        return self.law.predict(self.coefficients, params, tokens, unique)

    @property
    def ranges(self) -> Ranges:
        return self.table.ranges

    @property
    def max_epochs(self) -> float:
        return float(self.table.epochs.max())


# --- coordinates --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """Problems m = 0, 1, ... in coordinates x [M, P]: centred logarithms of the free coefficients.

    `fixed`: a number, or an array of which problem m has element m modulo its length. `held`: the
    number of a coordinate [M] that problem m keeps at its start: there the coefficient's logarithm,
    not centred.
    """

    law: Law
    table: Table
    loss: Loss
    free: tuple[str, ...]
    fixed: Mapping[str, Any]
    held: np.ndarray | None = None

    @functools.cached_property
    def typical(self) -> dict[str, float]:
        t = self.table
        means = {"N": t.N, "D": t.D, "U/N": t.U / t.N, "U/D": t.U / t.D}
        return {name: float(np.log(values).mean()) for name, values in means.items()}

    def _shift(self, c: Coefficient, values: Mapping[str, Any]) -> Any:
        """log of the coefficient minus its coordinate."""
        named = dict(values) | {name: values[to] for name, to in self.law.ties.items()}
        return sum(named[power] * self.typical[column] for column, power in c.centre)

    def values(self, x: np.ndarray, members: np.ndarray, *, dual: bool) -> dict[str, Any]:
        """Coefficients [M, 1], as duals or as arrays."""
        made: dict[str, Any] = {}
        for name, value in self.fixed.items():
            array = np.asarray(value, float).reshape(-1, 1)
            made[name] = array[members % len(array)] if len(array) > 1 else array
        order = sorted(self.free, key=lambda n: bool(self.law.coefficient(n).centre))
        for name in order:  # exponents before the amplitudes that are centred by them
            c, k = self.law.coefficient(name), self.free.index(name)
            at: Any = x[:, k : k + 1]
            at = Dual(at, {k: np.ones_like(at)}) if dual else at
            if not c.amplitude:  # a flat direction ends at the coefficient's limit
                at = np.minimum(np.maximum(at, math.log(c.limits[0])), math.log(c.limits[1]))
            if c.centre:
                shift = self._shift(c, made)
                at = at + (
                    shift if self.held is None else shift * (self.held[members] != k)[:, None]
                )
            made[name] = np.exp(at)
        return made

    def coordinates(self, values: Mapping[str, float]) -> np.ndarray:
        """The inverse, of one set of coefficients: [P]."""
        return np.array(
            [math.log(values[n]) - self._shift(self.law.coefficient(n), values) for n in self.free]
        )

    @property
    def unit(self) -> float:
        """The scale of the objective."""
        unit = self.loss.delta if self.loss.name == "huber" else 1e-3
        return unit**2 if self.loss.name == "gaussian" else unit

    def objective(self, weights: np.ndarray | None = None) -> Objective:
        """Values [M], gradients [M, P] and curvatures [M, P, P], over the scale that makes them of
        order one; problem m has row m of `weights` [S, R], modulo S."""
        log_loss = np.log(self.table.loss)
        size = max(ELEMENTS // len(log_loss), 1)

        def part(x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, ...]:
            log, J = self._logarithms(x, members, *self.columns)
            r = log - log_loss
            w = 1.0 if weights is None else weights[members % len(weights)]
            pull = w * self.loss.slope(r) / self.unit
            bend = w * self.loss.weight(r) / self.unit
            value = self.loss.sum(r, w) / self.unit
            return (
                value,
                (J @ pull[:, :, None])[:, :, 0],
                (J * bend[:, None]) @ J.transpose(0, 2, 1),
            )

        def run(x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            with np.errstate(all="ignore"):  # a step may go out of range: infinity says so
                parts = [
                    part(x[i : i + size], members[i : i + size]) for i in range(0, len(x), size)
                ]
            f, g, H = (np.concatenate(each) for each in zip(*parts, strict=True))
            if self.held is not None:
                m, k = np.arange(len(x)), self.held[members]
                g[m, k] = H[m, k] = H[m, :, k] = 0.0
            return f, g, H

        return run

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.table.N, self.table.D, self.table.U

    def _logarithms(self, x: np.ndarray, members: np.ndarray, *columns: Any) -> tuple[Any, Any]:
        """log L [M, R], and its derivatives by the coordinates [M, P, R]."""
        predicted: Any = self.law.predict(self.values(x, members, dual=True), *columns)
        J = np.zeros((len(x), len(self.free), len(columns[0])))
        over = 1.0 / predicted.value
        for k, derivative in predicted.by.items():
            np.multiply(derivative, over, out=J[:, k])
        return np.log(predicted.value), J

    def solve(
        self,
        starts: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        tolerance: float = EXACT,
        iterations: int = 200,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima from starts [M, P], and their objectives [M], unscaled; see `objective`."""
        if not self.free:
            raise DlmError("nothing to fit: every coefficient is fixed")
        x, f = starts, np.zeros(len(starts))
        for loss in self.loss.stages:
            mine = dataclasses.replace(self, loss=loss)
            x, f = minimise(mine.objective(weights), x, tolerance=tolerance, iterations=iterations)
        if len(self.loss.stages) > 1:
            f = np.where(np.isfinite(f), self.objective(weights)(x, np.arange(len(x)))[0], np.inf)
        return x, f * self.unit

    def jacobian(self, x: np.ndarray, N: Any, D: Any, U: Any) -> tuple[np.ndarray, np.ndarray]:
        """log L at runs [R], and its derivatives by the coordinates x [P]: [R] and [R, P]."""
        with np.errstate(all="ignore"):
            log, J = self._logarithms(x[None], np.zeros(1, int), N, D, U)
        return log[0], J[0].T

    def logarithm(self, x: np.ndarray, name: str) -> np.ndarray:
        """The derivatives of the log of a coefficient by the coordinates x [P]: [P]."""
        found = np.zeros(len(x))
        found[self.free.index(name)] = 1.0
        values = self.values(x[None], np.zeros(1, int), dual=False)
        for column, power in self.law.coefficient(name).centre:
            tied = self.law.ties.get(power, power)
            if tied in self.free:  # log A = coordinate + alpha log N0, by log alpha
                at = float(values[tied].ravel()[0])
                found[self.free.index(tied)] += at * self.typical[column]
        return found

    def coefficients(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Of coordinates [M, P], every free coefficient as [M]."""
        with np.errstate(all="ignore"):
            made = self.values(x, np.arange(len(x)), dual=False)
        return {name: np.broadcast_to(made[name][:, 0], (len(x),)) for name in self.free}


def problem(fit: Fit, **changes: Any) -> Problem:
    made = Problem(fit.law, fit.table, fit.loss, fit.free, fit.fixed)
    return dataclasses.replace(made, **changes)


# --- the fit ------------------------------------------------------------------------------------


def fit(
    law: Law,
    table: Table,
    *,
    loss: Loss = HUBER,
    fixed: Mapping[str, float] | None = None,
    starts: int = STARTS,
    first: Fit | None = None,
    tolerance: float = EXACT,
) -> Fit:
    """The best of many starts, always the same.

    Of a table of more than SCREENED rows, so many are drawn (always the same) to solve the starts
    on; their distinct minima are then solved on every row.

    Raises:
      DlmError: the table cannot determine the law, whatever its losses are.
    """
    fixed = dict(fixed or {})
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


def check(law: Law, table: Table, free: tuple[str, ...]) -> None:
    """What no choice of losses could repair."""
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
    repeats = {"R_D", "k_D", "p_D", "K", "kappa"} & set(free)
    if repeats and table.epochs.max() < 1.0 + 1e-6:
        raise DlmError(
            f"{where}: every run has one epoch, so {', '.join(sorted(repeats))} are not "
            "identifiable; use --law chinchilla, or add runs that repeat their data"
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
    """The local minima found, best first: those that differ by more than 1% in a coordinate."""
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
    """As published: `step_one` on the runs of one epoch, then only the rest on all runs.

    Raises:
      DlmError: too few runs of one epoch.
    """
    fresh = table.only(table.epochs < 1.0 + 1e-6)
    try:
        first = fit(step_one, fresh, **options)
    except DlmError as error:
        raise DlmError(
            f"step one, {step_one.name} on runs of one epoch: {error}; fit jointly with "
            "--steps joint, or give the constants with --fixed"
        ) from None
    constants = vars(step_one.complete(first.coefficients))
    known = {name: constants[name] for name in law.names if name in constants}
    return fit(law, table, fixed=known, first=first, **options)
