"""Numbers that carry their derivatives: forward-mode differentiation of NumPy formulas in float64.

A law is written once, as its formula in NumPy; called with a `Dual` in place of an array it returns
its value and its derivatives with respect to each coefficient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Partial derivatives of the functions that laws use: (value, *arguments) -> one per argument.
RULES: dict[Any, tuple[Callable[..., Any], ...]] = {
    np.add: (lambda v, a, b: 1.0, lambda v, a, b: 1.0),
    np.subtract: (lambda v, a, b: 1.0, lambda v, a, b: -1.0),
    np.multiply: (lambda v, a, b: b, lambda v, a, b: a),
    np.divide: (lambda v, a, b: 1.0 / b, lambda v, a, b: -v / b),
    np.power: (lambda v, a, b: b * v / a, lambda v, a, b: v * np.log(a)),
    np.minimum: (lambda v, a, b: 1.0 * (a < b), lambda v, a, b: 1.0 * (a >= b)),
    np.maximum: (lambda v, a, b: 1.0 * (a > b), lambda v, a, b: 1.0 * (a <= b)),
    np.negative: (lambda v, a: -1.0,),
    np.exp: (lambda v, a: v,),
    np.expm1: (lambda v, a: v + 1.0,),
    np.log: (lambda v, a: 1.0 / a,),
    np.log1p: (lambda v, a: 1.0 / (1.0 + a),),
}


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """A value and its derivatives, by the number of the coordinate; absent: zero.

    A power is exp(b log a): bases are positive, most have few elements, and exp is vectorised.
    """

    __slots__ = ("value", "by")

    def __init__(self, value: Any, by: dict[int, Any]):
        self.value = value
        self.by = by

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options or ufunc not in RULES:
            return NotImplemented
        plain = [x.value if isinstance(x, Dual) else x for x in inputs]
        by: dict[int, Any] = {}
        power = ufunc is np.power
        value = np.exp(plain[1] * np.log(plain[0])) if power else ufunc(*plain)
        for x, rule in zip(inputs, RULES[ufunc], strict=True):
            if isinstance(x, Dual):
                slope = rule(value, *plain)
                for k, derivative in x.by.items():
                    part = slope * derivative
                    by[k] = by[k] + part if k in by else part
        return Dual(value, by)
