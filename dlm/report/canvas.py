"""Draws figures: named panels, one legend, any width, as PNG, SVG and PDF files.

A `Drawing` is a figure before it is drawn: a painter for each panel and what the panels share. So
each panel can also be drawn alone, at the width of a column of a paper or of a page.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlm import disk
from dlm.errors import DlmError
from dlm.format import shortened, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Paint = Callable[["Axes"], None]

INK = "#333333"
COLOURS = ("#009E73", "#CC79A7", "#6B6B6B", "#56B4E9", "#E69F00", "#8B5A2B", "#882255")
MARKERS = ("^", "D", "v", "P", "X", "<", ">", "h", "p")
DASHES: tuple[Any, ...] = ((0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1)), (0, (6, 1)))
# colour, marker and line style of the two families of the question (Okabe and Ito's colours)
STYLES: dict[str, tuple[str, str, Any]] = {
    "ar": ("#0072B2", "o", "-"),
    "masked": ("#D55E00", "s", (0, (5, 1.5))),
}
TEXT, NARROW_TEXT = 9.5, 8.5  # points: shown 700 pixels wide, and printed in a paper
NARROW, NARROWEST, WIDEST = 7.5, 1.0, 60.0  # inches


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn: panels by name, and their shared labels. Sizes in inches."""

    panels: Mapping[str, Paint]
    caption: str
    heading: str = ""
    x_label: str = ""  # below the lowest panels; "": each painter's own
    y_label: str = ""  # beside the first of each row
    legend: bool = False  # one for all panels, below them
    columns: int = 2  # panels side by side, at most
    size: tuple[float, float] = (3.6, 3.1)  # of a panel, if no width is asked for
    least: float = 2.3  # width of a panel below which fewer stand side by side


def style(families: Any, name: str) -> tuple[str, str, Any]:
    """Colour, marker and line style of a family among others: two that are drawn never agree."""
    if name in STYLES:
        return STYLES[name]
    k = sorted(set(families) - set(STYLES)).index(name)
    return COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)], DASHES[k % len(DASHES)]


def shown(name: str) -> str:
    """A name as a figure shows it: on one line, not too long, and never taken for hidden."""
    text = shortened(name)
    return f"\u200a{text}" if text.startswith("_") else text  # Matplotlib hides "_" in legends


def settings(text: float = TEXT) -> Any:
    """Matplotlib's settings for a base size of text in points."""
    return {
        "font.size": text,
        "axes.titlesize": text,
        "axes.labelsize": text,
        "xtick.labelsize": text - 0.5,
        "ytick.labelsize": text - 0.5,
        "legend.fontsize": text - 0.5,
        "text.parse_math": False,  # a $ in a name is a $
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#666666",
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "svg.hashsalt": "dlm",  # else the ids, and so the bytes, differ from call to call
        "pdf.fonttype": 42,  # journals take TrueType
    }


def draw(drawing: Drawing, panel: str | None = None, width: float = 0.0) -> Figure:
    """The whole drawing, or one panel of it, `width` inches wide (0: as suits its panels).

    Raises:
      DlmError: no panels, or none of this name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    paints = dict(drawing.panels)
    if panel is not None:
        if panel not in paints:
            raise DlmError(f"panel {panel!r}: must be one of {', '.join(paints)}")
        paints = {panel: paints[panel]}
    if not paints:
        raise DlmError("there is nothing to draw")
    natural, height = drawing.size
    columns = min(len(paints), drawing.columns)
    total = width or max(natural * columns + 0.2, 4.6)
    columns = max(1, min(columns, int(total / drawing.least)))
    rows = math.ceil(len(paints) / columns)
    height *= min(1.0, max(total / columns / natural, 0.75))
    text = NARROW_TEXT if 0 < width < NARROW else TEXT
    with matplotlib.rc_context(settings(text)):
        figure = Figure(
            figsize=(total, height * rows), dpi=300 if width else 150, layout="constrained"
        )
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in grid[len(paints) :]:
            ax.remove()
        for k, (ax, paint) in enumerate(zip(grid, paints.values(), strict=False)):
            paint(ax)
            _wrap_title(ax, 72 * total / columns)
            if drawing.x_label and k + columns >= len(paints):
                ax.set_xlabel(drawing.x_label)
            if drawing.y_label and k % columns == 0:
                ax.set_ylabel(drawing.y_label)
        if drawing.legend:
            _legend_below(figure, list(grid[: len(paints)]))
        figure.draw_without_rendering()  # lays it out, once for all files
        figure.set_layout_engine("none")
    return figure


def _wrap_title(ax: Axes, points: float) -> None:
    title = ax.get_title(loc="left")
    if title:
        size: Any = ax.title.get_fontsize()
        ax.set_title(_wrapped(title, 0.85 * points, size), loc="left", fontsize=size)


def _wrapped(text: str, points: float, size: float) -> str:
    """The text in lines of at most so many points, at about 0.55 of the font size a letter."""
    return textwrap.fill(text, max(12, int(points / (0.55 * size))))


def _legend_below(figure: Figure, axes: list[Axes]) -> None:
    """One legend for all panels, in as many columns as the longest entry leaves room for."""
    import matplotlib

    entries: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= {k: v for k, v in zip(labels, handles, strict=True) if k not in entries}
    if not entries:
        return
    size, handle = float(matplotlib.rcParams["legend.fontsize"]), 50.0
    points = 72 * figure.get_figwidth() - 10
    longest = 0.55 * size * max(map(len, entries)) + handle
    columns = max(1, min(len(entries), 3, int(points / longest)))
    labels = [_wrapped(label, points / columns - handle, size) for label in entries]
    extra = size / 72 * 1.35 * sum(1 + label.count("\n") for label in labels) / columns
    figure.set_figheight(figure.get_figheight() + extra)
    options: Any = dict(loc="outside lower left", ncols=columns, frameon=False, handlelength=3.2)
    figure.legend(list(entries.values()), labels, **options)


def set_axis(ax: Axes, which: str, text: Any = tick, scale: str = "linear") -> None:
    """Sets one axis ("x" or "y") to linear, log, or log10 (its data are log10 of the values), with
    ticks that fit, labelled by `text`."""
    import matplotlib

    from dlm.report import ticks

    if scale == "log":
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    # Ticks are also made when the figure is saved, where the settings are others.
    target: Any = which
    ax.tick_params(axis=target, labelsize=matplotlib.rcParams["xtick.labelsize"])
    ticks.fit(ax.xaxis if which == "x" else ax.yaxis, text, scale == "log10")


def keywords(**options: Any) -> dict[str, Any]:
    """Options as a dict of any types, so that Matplotlib's long signatures are not held against it."""
    return options


# --- files --------------------------------------------------------------------------------------


def save(figure: Figure, path: Path | str) -> tuple[Path, Path, Path]:
    """Writes path.png, path.svg and path.pdf; the same figure gives the same bytes.

    Raises:
      DlmError: the folder cannot be written.
    """
    import matplotlib

    path = Path(path)
    png, svg, pdf = (path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg", "pdf"))
    try:
        with matplotlib.rc_context(settings()):
            for place, metadata in (
                (png, {"Software": None}),
                (svg, {"Date": None, "Creator": None}),
                (pdf, {"CreationDate": None, "Creator": None, "Producer": None}),
            ):
                with disk.replacing(place) as draft:
                    figure.savefig(draft, format=place.suffix[1:], metadata=metadata)
    except OSError as error:
        raise DlmError(f"{path.parent}: cannot be written ({error.strerror})") from None
    return png, svg, pdf


def svg_text(figure: Figure) -> str:
    """The figure as an <svg> element, to stand inside a page."""
    import matplotlib

    with matplotlib.rc_context(settings()):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return element(buffer.getvalue())


def element(svg: str) -> str:
    """The <svg> element of an SVG file."""
    return svg[svg.index("<svg") :]


def chosen(
    drawings: Mapping[str, Callable[[], Drawing]], names: Sequence[str]
) -> list[tuple[str, Callable[[], Drawing], str | None]]:
    """The figures to draw: (name, drawing, panel or None for all); all of them if none is asked for.

    Raises:
      DlmError: a name that no figure and no panel has; it lists those there are.
    """
    if not names:
        return [(name, make, None) for name, make in drawings.items()]
    figures: list[tuple[str, Callable[[], Drawing], str | None]] = []
    for wanted in dict.fromkeys(names):
        known = [name for name in drawings if wanted == name or wanted.startswith(f"{name}-")]
        if not known:
            raise DlmError(f"--figure {wanted}: must be one of {', '.join(drawings)}")
        figure = max(known, key=len)
        panel = None if wanted == figure else wanted.removeprefix(f"{figure}-")
        panels = _panels(drawings[figure]) if panel is not None else []
        if panels and panel not in panels:
            known = [figure, *(f"{figure}-{name}" for name in panels)]
            raise DlmError(f"--figure {wanted}: must be one of {', '.join(known)}")
        figures.append((figure, drawings[figure], panel))
    return figures


def _panels(make: Callable[[], Drawing]) -> list[str]:
    """The names of a drawing's panels; none if it cannot be drawn, which `attempt` then explains."""
    try:
        return list(make().panels)
    except Exception:
        return []


class Drawn(NamedTuple):
    """A drawn figure: its files and its SVG for a page, or the reason why it was not drawn."""

    name: str
    heading: str
    caption: str
    svg: str  # the element; "" if it was not drawn
    files: tuple[Path, ...]
    problem: str  # "" if it was drawn


def attempt(name: str, make: Callable[[], Drawing], to: Path | None = None, panel: str | None = None,
            width: float = 0.0) -> Drawn:  # fmt: skip
    """Draws one figure, and writes its files at `to` (without ending). Any error, also a bug, ends
    this figure alone and becomes its `problem`."""
    try:
        drawing = make()
        figure = draw(drawing, panel, width)
        files = save(figure, to) if to is not None else ()
        svg = element(files[1].read_text("utf-8")) if files else svg_text(figure)
        return Drawn(name, drawing.heading or name, drawing.caption, svg, files, "")
    except Exception as error:  # one figure must not cost the others
        kind = "" if isinstance(error, DlmError) else type(error).__name__
        reason = ": ".join(filter(None, [kind, " ".join(str(error).split())]))
        return Drawn(name, name, "", "", (), f"{name}: not drawn: {reason}")
