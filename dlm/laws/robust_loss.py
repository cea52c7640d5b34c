"""The robust losses that a fit minimises: Huber, the absolute value and half the square.

A fit minimises a sum over runs of rho(r), r = log L_predicted - log L_observed in natural
logarithms; rho is the robust loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws.forms import LOSSES

DELTA = 1e-3  # Hoffmann et al. 2022; also Muennighoff et al. 2023
SMOOTHED = (1e-3, 1e-5, 1e-7)  # widths of Huber that lead to the absolute value


@dataclass(frozen=True)
class RobustLoss:
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
    def stages(self) -> tuple[RobustLoss, ...]:
        """The losses to minimise one after another, each from the last one's minimum.

        The absolute value bends nowhere but at zero, so it is reached through Huber losses.
        """
        return tuple(RobustLoss("huber", w) for w in SMOOTHED) if self.name == "lad" else (self,)

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


HUBER = RobustLoss()
