"""Ticks whose labels never touch: as many round values as have room on the axis as it is drawn.

Imported when a figure is drawn, since Matplotlib takes a second to load.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import Formatter, Locator, LogLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

Text = Callable[[float, int], str]  # a value and a number of digits -> its label
MOST = 8  # labels on one axis
DIGITS = range(6, 13)  # of a label: more where fewer give two ticks one label
GAP = {"x": 1.0, "y": 0.15}  # least space between two labels, in font sizes


def fit(axis: Axis, text: Text, log10: bool = False) -> None:
    """Labels an axis, linear or logarithmic, by `text`; `log10`: its data are log10 of the values."""
    axis.set_major_locator(Fitting(text, log10))
    axis.set_major_formatter(Labels(text, log10))
    if axis.get_scale() == "log":
        axis.set_minor_locator(Between())
    axis.set_minor_formatter(NullFormatter())


def labels(values: Sequence[float], text: Text, even: bool = False) -> list[str]:
    """The values as text, with as many digits as tell them apart; `even`: plain numbers all have as
    many decimals."""
    written: list[str] = []
    for digits in DIGITS:
        written = [text(value, digits) for value in values]
        if len(set(written)) == len(written):
            break
    decimals = max((len(label.partition(".")[2]) for label in written), default=0)
    if even and decimals and all(re.fullmatch(r"-?[\d,]+(\.\d+)?", label) for label in written):
        written = [f"{label}{'' if '.' in label else '.'}" for label in written]
        written = [label.ljust(label.index(".") + 1 + decimals, "0") for label in written]
    return written


@functools.lru_cache(maxsize=1024)  # an axis asks several times at each layout
def candidates(low: float, high: float, log: bool) -> tuple[list[float], ...]:
    """Sets of round values from `low` to `high`, those to prefer first.

    On a log axis 1, 2, 5 of each decade, then fewer; in a range that holds less than three of these,
    all digits, then evenly spaced values, as on a linear axis.
    """
    if log and len(three := _decades(low, high, (1, 2, 5))) > 2:
        strides = (1, 2, 3, 4, 5, 10, 20, 50)
        fewer = (_decades(low, high, (1,), stride) for stride in strides)
        return (three, _decades(low, high, (1, 3)), *fewer, three[len(three) // 2 :][:1])
    sets = [_decades(low, high, range(1, 10))] if log else []
    room = 1e-9 * (high - low)
    for bins in (7, 6, 5, 4, 3, 2, 1):
        steps = MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
        values = steps.tick_values(low, high)
        sets.append([float(v) for v in values if low - room <= v <= high + room])
    return tuple(sets)


def _decades(low: float, high: float, digits: Sequence[int], stride: int = 1) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = range(first - first % stride, last + 1, stride)
    values = (float(f"{digit}e{exponent}") for exponent in every for digit in digits)
    return [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


class Fitting(Locator):
    """The first of the candidates that has at least three ticks, or else two, or one, and room."""

    def __init__(self, text: Text, log10: bool) -> None:
        self.text, self.log10 = text, log10
        size = matplotlib.rcParams["xtick.labelsize"]  # as it is when the axis is set up
        self.font = FontProperties(size=size)

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        log = self.log10 or self.axis.get_scale() == "log"  # type: ignore[union-attr]
        if self.log10:
            low, high = 10.0**low, 10.0**high
        if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
            return []
        for least in (3, 2, 1):
            for values in candidates(low, high, log):
                if least <= len(values) <= MOST and self._fits(values, low, high, log):
                    return [math.log10(v) for v in values] if self.log10 else values
        return []  # not even one round value lies in the range

    def _fits(self, values: list[float], low: float, high: float, log: bool) -> bool:
        """Whether no two neighbouring labels come closer than the gap."""
        axis: Any = self.axis
        name, figure = axis.axis_name, axis.axes.get_figure()
        box = axis.axes.get_window_extent()
        length = 72 * (box.width if name == "x" else box.height) / figure.dpi
        font = self.font
        scale = math.log if log else float
        at = [length * (scale(v) - scale(low)) / (scale(high) - scale(low)) for v in values]
        extents = [_extent(label, font, name) for label in labels(values, self.text, not log)]
        gap = GAP[name] * font.get_size_in_points()
        pairs = zip(at, at[1:], extents, extents[1:], strict=False)
        return all(b - a >= (p + q) / 2 + gap for a, b, p, q in pairs)


class Between(LogLocator):
    """The digits 2 to 9 of each decade as small ticks, up to three decades; beyond, they only blur
    the axis, and cost most of the time of a figure."""

    def __init__(self) -> None:
        super().__init__(subs=tuple(range(2, 10)))

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        return super().tick_values(vmin, vmax) if low > 0 and high <= 1e3 * low else []


@functools.lru_cache(maxsize=4096)  # the same labels are measured at every layout
def _extent(label: str, font: FontProperties, name: str) -> float:
    """Points that a label takes along its axis."""
    if name == "y":
        return 1.1 * font.get_size_in_points()
    return text_to_path.get_text_width_height_descent(label, font, ismath=False)[0]


class Labels(Formatter):
    """Labels of all ticks of an axis at once, so that two never read alike."""

    def __init__(self, text: Text, log10: bool) -> None:
        self.text, self.log10 = text, log10

    def format_ticks(self, values: Any) -> list[str]:
        even = not self.log10 and self.axis.get_scale() == "linear"  # type: ignore[union-attr]
        return labels([10.0**v if self.log10 else float(v) for v in values], self.text, even)

    def __call__(self, x: float, pos: Any = None) -> str:
        return self.text(10.0**x if self.log10 else x, DIGITS[0])
