"""Fits as minimisation problems, solved side by side: coordinates, objective, derivatives.

The search works on the objective over its scale, in centred logarithms of the coefficients.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.dual import Dual
from dlm.laws.forms import Coefficient, Law
from dlm.laws.minimise import Objective, minimise
from dlm.laws.robust_loss import RobustLoss
from dlm.laws.table import Table

ELEMENTS = 20_000  # problems times rows of one pass: its arrays stay in a core's cache
EXACT = 1e-13  # relative tolerance of the objective
ROUGH = 1e-6  # in screening, profiles and resamples: far below the noise


@dataclass(frozen=True, eq=False)
class Problem:
    """Problems m = 0, 1, ... in coordinates x [M, P]: centred logarithms of the free coefficients.

    `fixed`: a number, or an array of which problem m has element m modulo its length. `held`: the
    number of a coordinate [M] that problem m keeps at its start: there the coefficient's logarithm,
    not centred.
    """

    law: Law
    table: Table
    loss: RobustLoss
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
        powers = ((col, named[p] if isinstance(p, str) else p) for col, p in c.centre)
        return sum(power * self.typical[column] for column, power in powers)

    def values(self, x: np.ndarray, members: np.ndarray, *, dual: bool) -> dict[str, Any]:
        """Coefficients [M, 1], as duals or as arrays."""
        coefficients: dict[str, Any] = {}
        for name, value in self.fixed.items():
            array = np.asarray(value, float).reshape(-1, 1)
            coefficients[name] = array[members % len(array)] if len(array) > 1 else array
        order = sorted(self.free, key=lambda n: bool(self.law.coefficient(n).centre))
        for name in order:  # exponents before the amplitudes that are centred by them
            c, k = self.law.coefficient(name), self.free.index(name)
            at: Any = x[:, k : k + 1]
            at = Dual(at, {k: np.ones_like(at)}) if dual else at
            if not c.amplitude:  # a flat direction ends at the coefficient's limit
                at = np.minimum(np.maximum(at, math.log(c.limits[0])), math.log(c.limits[1]))
            if c.centre:
                shift = self._shift(c, coefficients)
                at = at + (
                    shift if self.held is None else shift * (self.held[members] != k)[:, None]
                )
            coefficients[name] = np.exp(at)
        return coefficients

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
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.table.columns

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

    def jacobian(self, x: np.ndarray, *columns: Any) -> tuple[np.ndarray, np.ndarray]:
        """log L at runs [R], and its derivatives by the coordinates x [P]: [R] and [R, P].

        `columns`: N, D and U of the runs, and maybe loops and share, as `Law.predict` takes them.
        """
        with np.errstate(all="ignore"):
            log, J = self._logarithms(x[None], np.zeros(1, int), *columns)
        return log[0], J[0].T

    def logarithm(self, x: np.ndarray, name: str) -> np.ndarray:
        """The derivatives of the log of a coefficient by the coordinates x [P]: [P]."""
        slopes = np.zeros(len(x))
        slopes[self.free.index(name)] = 1.0
        values = self.values(x[None], np.zeros(1, int), dual=False)
        for column, power in self.law.coefficient(name).centre:
            tied = self.law.ties.get(power, power) if isinstance(power, str) else ""
            if tied in self.free:  # log A = coordinate + alpha log N0, by log alpha
                at = float(values[tied].ravel()[0])
                slopes[self.free.index(tied)] += at * self.typical[column]
        return slopes

    def coefficients(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Of coordinates [M, P], every free coefficient as [M]."""
        with np.errstate(all="ignore"):
            coefficients = self.values(x, np.arange(len(x)), dual=False)
        return {name: np.broadcast_to(coefficients[name][:, 0], (len(x),)) for name in self.free}
