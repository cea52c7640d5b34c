"""Fitting a law to a table of runs: many starts, other minima, profiles, bootstrap, verdicts.

The objective is a sum over runs of rho(log L_predicted - log L_observed), natural logarithms:
Huber (Hoffmann et al., appendix D.3), the absolute value, or half the square. A mean, or an
objective of 1e-3 handed to an optimiser with absolute tolerances, stops early; so the search works
on the objective over its scale, in centred logarithms of the coefficients.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.dual import Dual
from dlm.laws.forms import Coefficient, Law
from dlm.laws.minimise import minimise
from dlm.laws.table import Table

LOSSES = ("huber", "lad", "gaussian")
DELTA = 1e-3  # Hoffmann et al. 2022; also Muennighoff et al. 2023
STARTS = 128
LEVEL = 0.90
POLISHED = 4  # of the best minima, solved again with their stiffness known
CHUNK = 1024  # problems solved side by side: the last few to end cost as much as all
ROUGH = 1e-7  # relative tolerance of the objective in profiles and resamples: far below the noise
SPREAD = 10.0  # an interval whose ends are further apart than this factor pins nothing down


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
        return {"huber": self.delta, "lad": 1e-7, "gaussian": math.inf}[self.name]

    def sum(self, residuals: np.ndarray, weights: Any = 1.0) -> np.ndarray:
        """The objective, over the last axis."""
        size = np.abs(residuals)
        if self.name == "lad":
            return (weights * size).sum(-1)
        small = np.minimum(size, self.width)
        return (weights * small * (size - small / 2)).sum(-1)

    def slope(self, residuals: np.ndarray) -> np.ndarray:
        return np.clip(residuals, -self.width, self.width)

    def curvature(self, typical: float) -> float:
        """Of the objective, per squared residual, where residuals are about `typical`."""
        if self.name == "lad":
            return 1.0 / max(typical, 1e-9)
        return min(1.0, self.width / max(typical, 1e-300))

    def log_likelihood(self, objective: np.ndarray | float, rows: float) -> np.ndarray:
        """Of the working density exp(-rho(r)/s)/Z(s) with its scale s at the best value.

        It is the normal law for the square, Laplace's for the absolute value, and between the two
        for Huber: Z = 2 s/delta exp(-delta^2/2s) + sqrt(2 pi s) erf(delta/sqrt(2s)).
        """
        f = np.maximum(np.asarray(objective, float), 1e-300)
        if self.name == "lad":
            return -rows * np.log(f)
        if self.name == "gaussian":
            return -rows / 2 * np.log(f)
        from scipy import special

        grid = np.log(f.min() / rows) + np.linspace(-3, 5, 1601)
        s = np.exp(grid)
        d = self.delta
        tail = 2 * s / d * np.exp(-(d**2) / (2 * s))
        z = tail + np.sqrt(2 * math.pi * s) * special.erf(d / np.sqrt(2 * s))
        values = -rows * np.log(z) - f[..., None] / s
        return values.max(-1)


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
    def max_epochs(self) -> float:
        return float(self.table.epochs.max())


# --- coordinates --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """The law on a table in coordinates x [M, P]: centred logarithms of the free coefficients."""

    law: Law
    table: Table
    loss: Loss
    free: tuple[str, ...]
    fixed: Mapping[str, Any]  # a number, or one per problem [M]

    @functools.cached_property
    def typical(self) -> dict[str, float]:
        t = self.table
        means = {"N": t.N, "D": t.D, "U/N": t.U / t.N, "U/D": t.U / t.D}
        return {name: float(np.log(values).mean()) for name, values in means.items()}

    def _shift(self, c: Coefficient, values: Mapping[str, Any]) -> Any:
        """log of the coefficient minus its coordinate."""
        named = dict(values) | {name: values[to] for name, to in self.law.ties.items()}
        return sum(named[power] * self.typical[column] for column, power in c.centre)

    def values(self, x: np.ndarray, members: np.ndarray | None, *, dual: bool) -> dict[str, Any]:
        """Coefficients [M, 1], as duals or as arrays."""
        made: dict[str, Any] = {}
        for name, value in self.fixed.items():
            array = np.asarray(value, float)
            many = array.ndim and members is not None
            made[name] = array[members][:, None] if many else array.reshape(-1, 1)
        order = sorted(self.free, key=lambda n: bool(self.law.coefficient(n).centre))
        for name in order:  # exponents before the amplitudes that are centred by them
            c, k = self.law.coefficient(name), self.free.index(name)
            at: Any = x[:, k : k + 1]
            at = Dual(at, {k: np.ones_like(at)}) if dual else at
            if not c.amplitude:  # a flat direction ends at the coefficient's limit
                at = np.minimum(np.maximum(at, math.log(c.limits[0])), math.log(c.limits[1]))
            made[name] = np.exp(at + self._shift(c, made)) if c.centre else np.exp(at)
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

    def objective(
        self, weights: np.ndarray | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Values [M] and gradients [M, P], over the scale that makes them of order one."""
        t, log_loss, width, unit = self.table, np.log(self.table.loss), len(self.free), self.unit

        def run(x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values = self.values(x, members, dual=True)
            predicted: Any = self.law.predict(values, t.N, t.D, t.U)
            with np.errstate(all="ignore"):
                r = np.log(predicted.value) - log_loss
                slope = self.loss.slope(r)
                w = 1.0 if weights is None else weights[members]
                total = self.loss.sum(r, w) / unit
                if self.loss.name == "lad":
                    slope = np.sign(r)
                pull = w * slope / predicted.value / unit
                gradient = np.zeros((len(x), width))
                for k, derivative in predicted.by.items():
                    gradient[:, k] = (pull * derivative).sum(-1)
            return total, gradient

        return run

    def solve(
        self,
        starts: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        again: int = 1,
        tolerance: float = 1e-11,
        metric: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima from starts [M, P]; of problem m with weights[m]. Objective unscaled."""
        if not self.free:
            raise DlmError("nothing to fit: every coefficient is fixed")
        options: dict[str, Any] = {"tolerance": tolerance}
        options["iterations"] = 300 if tolerance < ROUGH else 120
        xs, fs = [], []
        fixed = {k: np.asarray(v, float) for k, v in self.fixed.items()}
        for begin in range(0, len(starts), CHUNK):
            part = slice(begin, begin + CHUNK)
            mine = dataclasses.replace(
                self, fixed={k: v[part] if v.ndim else v for k, v in fixed.items()}
            )
            objective = mine.objective(None if weights is None else weights[part])
            x, f = minimise(objective, starts[part], metric=metric, **options)
            for _ in range(again):  # a fresh metric: kinks leave the old one stale
                x, f = minimise(objective, x, metric=metric, **options)
            xs.append(x)
            fs.append(f)
        return np.concatenate(xs), np.concatenate(fs) * self.unit

    def jacobian(self, x: np.ndarray, N: Any, D: Any, U: Any) -> tuple[np.ndarray, np.ndarray]:
        """log L at runs [R], and its derivatives by the coordinates x [P]: [R] and [R, P]."""
        predicted: Any = self.law.predict(self.values(x[None], None, dual=True), N, D, U)
        J = np.zeros((len(N), len(self.free)))
        for k, derivative in predicted.by.items():
            J[:, k] = np.broadcast_to(derivative / predicted.value, (1, len(N)))[0]
        return np.log(predicted.value)[0], J

    def metric(self, x: np.ndarray) -> np.ndarray:
        """About the inverse of the second derivatives of the objective at x [P], [P, P].

        Gauss and Newton's, with a weak pull: what changes no prediction is taken to be as stiff as
        if a factor of e cost one unit of deviance.
        """
        t = self.table
        predicted, J = self.jacobian(x, t.N, t.D, t.U)
        r = predicted - np.log(t.loss)
        curvature = self.loss.curvature(float(np.median(np.abs(r))))
        pull = max(float(self.loss.sum(r)) / len(t), 1e-12)
        return np.linalg.inv(curvature * J.T @ J + pull * np.eye(len(x))) * self.unit

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
    near: tuple[Mapping[str, float], ...] = (),
    first: Fit | None = None,
    tolerance: float = 1e-11,
) -> Fit:
    """The best of many starts (a scrambled Sobol sequence, always the same), and `near`.

    Raises:
      DlmError: the table cannot determine the law, whatever its losses are.
    """
    fixed = dict(fixed or {})
    free = tuple(name for name in law.names if name not in fixed)
    check(law, table, free)
    p = Problem(law, table, loss, free, fixed)
    points = _starts(p, starts)
    if near:
        points = np.concatenate([points, np.stack([p.coordinates(v) for v in near])])
    x, f = p.solve(points, tolerance=tolerance)
    if not np.isfinite(f).any():
        raise DlmError(f"{table.name}: no start of {law.name} has a finite objective")
    top = np.argsort(f, kind="stable")[:POLISHED]
    x[top], f[top] = p.solve(x[top], metric=p.metric(x[top[0]]))
    minima = _distinct(p, x, f)
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
    """Scrambled Sobol points in the coefficients' start ranges, [count, P]."""
    from scipy import stats

    sobol = stats.qmc.Sobol(len(p.free), scramble=True, rng=np.random.default_rng(0))
    unit = sobol.random(max(1 << (count - 1).bit_length(), 2))[:count]
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


def _distinct(p: Problem, x: np.ndarray, f: np.ndarray, keep: int = 12) -> tuple[Minimum, ...]:
    """The local minima found, best first: those that differ by more than 1% in a coordinate."""
    order = [i for i in np.argsort(f, kind="stable") if np.isfinite(f[i])]
    x = x.copy()
    for k, c in enumerate(p.law.coefficient(name) for name in p.free):
        if not c.amplitude:  # beyond its limit a coefficient is at its limit
            x[:, k] = np.clip(x[:, k], *np.log(c.limits))
    found: list[int] = []
    for i in order:
        if all(np.abs(x[i] - x[j]).max() > 0.01 for j in found):
            found.append(i)
        if len(found) == keep:
            break
    values = p.coefficients(x[found])
    return tuple(
        Minimum({name: float(v[k]) for name, v in values.items()}, float(f[i]))
        for k, i in enumerate(found)
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


# --- noise: what objective is as good as the best -----------------------------------------------


def deviance(fit: Fit, objective: np.ndarray) -> np.ndarray:
    """2 (log-likelihood at the fit - at `objective`), rows of one group counted as one run."""
    rows, share = len(fit.table), fit.table.groups / len(fit.table)
    both = np.append(np.asarray(objective, float).ravel(), fit.objective)
    values = fit.loss.log_likelihood(both, rows)
    return np.maximum(2 * share * (values[-1] - values[:-1]), 0.0)


def threshold(fit: Fit, level: float = LEVEL) -> float:
    """The deviance up to which one coefficient's value is as good as the best.

    n log(1 + t^2/(n - p)) with Student's t: exact for a law that is linear in its coefficients and
    half the square, where the objective grows by the factor 1 + t^2/(n - p).
    """
    from scipy import stats

    runs = fit.table.groups
    freedom = max(runs - len(fit.free), 1)
    return float(runs * np.log1p(stats.t.ppf(0.5 + level / 2, freedom) ** 2 / freedom))


@dataclass(frozen=True, eq=False)
class Profile:
    """The best objective at each value of one coefficient, the others free."""

    name: str
    values: np.ndarray
    objective: np.ndarray
    deviance: np.ndarray
    low: float  # of the values within the noise; 0 or infinity where no value tried is worse
    high: float

    @property
    def identified(self) -> bool:
        return bool(self.low > 0 and math.isfinite(self.high) and self.high < SPREAD * self.low)


# Distances in log value at which a profile is taken, to both sides.
OFFSETS = np.array(
    [*(0.003, 0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 1.8)]
    + [*(2.2, 2.7, 3.5, 5.0, 7.0, 10.0, 14.0)]
)


def profile(fit: Fit, name: str, level: float = LEVEL) -> Profile:
    """Warm-started from the minima, then from its neighbours' solutions."""
    c = fit.law.coefficient(name)
    centre = math.log(fit.coefficients[name])
    grid = centre + np.concatenate([-OFFSETS[::-1], [0.0], OFFSETS])
    low, high = np.log(c.limits)
    grid = np.unique(np.append(grid[(grid > low) & (grid < high)], centre))
    others = tuple(n for n in fit.free if n != name)
    if not others:
        p = problem(fit, fixed={**fit.fixed, name: np.exp(grid)})
        predicted = fit.law.predict(
            {k: np.asarray(v).reshape(-1, 1) for k, v in p.fixed.items()},
            *(fit.table.N, fit.table.D, fit.table.U),
        )
        f = fit.loss.sum(np.log(predicted) - np.log(fit.table.loss))
    else:
        f = _profiled(fit, name, others, grid)
    return _profile(fit, name, grid, f, level)


def _profiled(fit: Fit, name: str, others: tuple[str, ...], grid: np.ndarray) -> np.ndarray:
    warm = fit.minima[:4]
    fixed = {k: v for k, v in fit.fixed.items()} | {name: np.repeat(np.exp(grid), len(warm))}
    p = problem(fit, free=others, fixed=fixed)
    starts = []
    for value in np.exp(grid):
        for m in warm:  # amplitudes keep their values at the typical run
            q = problem(fit, free=others, fixed=fit.fixed | {name: value})
            free_of = problem(fit, free=others, fixed=fit.fixed | {name: m.coefficients[name]})
            centred = free_of.coordinates(fit.fixed | m.coefficients)
            plain = q.coordinates(fit.fixed | m.coefficients | {name: value})
            starts.append(centred if np.isfinite(centred).all() else plain)
    at = problem(fit, free=others, fixed=fit.fixed | {name: warm[0].coefficients[name]})
    options: dict[str, Any] = {"again": 0, "tolerance": ROUGH}
    options["metric"] = at.metric(at.coordinates(fit.fixed | warm[0].coefficients))
    x, f = p.solve(np.stack(starts), **options)
    x, f = x.reshape(len(grid), len(warm), -1), f.reshape(len(grid), len(warm))
    best = f.argmin(1)
    x, f = x[np.arange(len(grid)), best], f.min(1)
    p = problem(fit, free=others, fixed=fit.fixed | {name: np.exp(grid)})
    for shift in (1, -1):
        near = np.clip(np.arange(len(grid)) + shift, 0, len(grid) - 1)
        y, g = p.solve(x[near], **options)
        better = g < f
        x[better], f[better] = y[better], g[better]
    return f


def _profile(fit: Fit, name: str, grid: np.ndarray, f: np.ndarray, level: float) -> Profile:
    d = deviance(fit, f)
    limit = threshold(fit, level)
    inside = np.flatnonzero(d <= limit)
    a, b = inside[0], inside[-1]
    # Between two values the root of the objective's rise is about a line, as it is of a square.
    *root, at = np.sqrt(np.expm1(np.minimum(np.append(d, limit) / fit.table.groups, 500.0)))
    low = 0.0 if a == 0 else math.exp(_between(grid, root, a, a - 1, at))
    high = math.inf if b == len(grid) - 1 else math.exp(_between(grid, root, b, b + 1, at))
    return Profile(name, np.exp(grid), f, d, low, high)


def _between(x: np.ndarray, y: list[float], inside: int, outside: int, limit: float) -> float:
    share = (limit - y[inside]) / max(y[outside] - y[inside], 1e-12)
    return float(x[inside] + share * (x[outside] - x[inside]))


# --- bootstrap ----------------------------------------------------------------------------------


def weights_of(table: Table, resamples: int, seed: int) -> np.ndarray:
    """How often each row is drawn when whole groups are, [S, R]."""
    rng = np.random.default_rng(seed)
    numbers = np.unique(table.group, return_inverse=True)[1]
    count = numbers.max() + 1
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return draws[:, numbers].astype(float)


def bootstrap(fit: Fit, resamples: int = 1000, seed: int = 0, keep: int = 2) -> Fit:
    """The fit with `samples`: whole groups resampled, each refitted from the best minima found.

    A two-step fit resamples both steps with the same draws.
    """
    if resamples < 1:
        return fit
    weights = weights_of(fit.table, resamples, seed)
    return dataclasses.replace(fit, samples=_refit(fit, weights, keep))


def _refit(fit: Fit, weights: np.ndarray, keep: int) -> dict[str, np.ndarray]:
    count = len(weights)
    fixed: dict[str, Any] = dict(fit.fixed)
    if fit.first is not None:
        rows = fit.table.epochs < 1.0 + 1e-6
        one = _refit(fit.first, weights[:, rows], keep)
        complete = vars(fit.first.law.complete(one))
        fixed = {name: complete.get(name, fixed[name]) for name in fixed}
    warm = [m for m in fit.minima[: keep + 2] if deviance(fit, np.array([m.objective]))[0] < 8][
        :keep
    ]
    base = problem(fit)
    starts = [base.coordinates(fit.fixed | m.coefficients) for m in warm]
    starts += [back for x in starts if ((back := _off_limits(base, x)) != x).any()]
    best_x, best_f = np.zeros((count, len(fit.free))), np.full(count, np.inf)
    for start in starts:
        p = problem(fit, fixed=fixed)
        x, f = p.solve(
            *(np.tile(start, (count, 1)), weights),
            again=int(fit.loss.name == "lad"),
            tolerance=ROUGH,
            metric=base.metric(start),
        )
        better = f < best_f
        best_x[better], best_f[better] = x[better], f[better]
    p = problem(fit, fixed=fixed)
    with np.errstate(all="ignore"):
        made = p.values(best_x, np.arange(count), dual=False)
    return {
        name: np.broadcast_to(np.asarray(value)[:, 0], (count,)).copy()
        for name, value in made.items()
    }


def _off_limits(p: Problem, x: np.ndarray) -> np.ndarray:
    """Coefficients that ran to a limit, where the objective is flat, put back among the starts."""
    back = x.copy()
    for k, c in enumerate(p.law.coefficient(name) for name in p.free):
        if not c.amplitude and c.name != "E":
            low, high = np.log(c.limits)
            at = math.log(c.start[0]) if x[k] < low + 0.01 else x[k]
            back[k] = math.log(c.start[1]) if x[k] > high - 0.01 else at
    return back


def interval(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The central share of the bootstrap samples."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return float(low), float(high)


def widened(level: float, *found: Any) -> float:
    """The share of the samples that an interval of `level` has to hold, for a few runs.

    Resampled fits scatter less than fits to new runs would, by about sqrt((n - p)/n), and the normal
    quantile is too small; the expanded percentile interval puts both right (Hesterberg 2015, arXiv
    1411.5279, section 5). Of several fits, the one with the fewest runs to spare decides.
    """
    from scipy import stats

    levels = [level]
    for each in found:
        if isinstance(each, Fit):
            runs, free = each.table.groups, len(each.free)
            freedom = max(runs - free, 1)
            z = math.sqrt(runs / freedom) * stats.t.ppf(0.5 + level / 2, freedom)
            levels.append(float(2 * stats.norm.cdf(z) - 1))
    return max(levels)
