"""The figures, one function each: panels in, a matplotlib Figure out, no state kept.

A family is told by colour (Okabe and Ito's, safe for the colour-blind), by line style and by
marker, so the figures also read in grey. Text is sized for a figure shown 700 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm import crossings
from dlm import crossover as cross
from dlm.errors import DlmError
from dlm.runs import Family, Panel, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# colour, marker, line style; by family, then for families that have no entry
STYLES: dict[str, tuple[str, str, Any]] = {
    "ar": ("#0072B2", "o", "-"),
    "masked": ("#D55E00", "s", (0, (5, 1.5))),
}
MORE: list[tuple[str, str, Any]] = [
    ("#009E73", "^", (0, (4, 1, 1, 1))),
    ("#CC79A7", "D", (0, (2, 1))),
    ("#6B6B6B", "v", (0, (1, 1))),
]
INK = "#333333"
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "dlm",  # else the ids, and so the bytes, differ from call to call
}
POWERS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def style(families: Sequence[str], name: str) -> tuple[str, str, Any]:
    if name in STYLES:
        return STYLES[name]
    others = sorted(set(families) - set(STYLES))
    return MORE[others.index(name) % len(MORE)]


def scientific(value: float | None, digits: int = 2) -> str:
    """3.24e12 as 3.2×10¹², in so many significant digits."""
    if value is None or not math.isfinite(value):
        return "none in reach" if value is not None and value > 0 else ""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(POWERS)}"


def interval(low: float, high: float) -> str:
    """1.18 to 1.24×10¹², with one power of ten where both have the same."""
    if not math.isfinite(low):
        return "beyond the data"
    if not math.isfinite(high):
        return f"above {scientific(low, 3)}, open"
    a, b = scientific(low, 3), scientific(high, 3)
    if a.split("×")[1] == b.split("×")[1]:
        a = a.split("×")[0]
    return f"{a} to {b}"


# --- loss against compute -----------------------------------------------------------------------


def frontier(panels: Sequence[Panel], axis: str = "flops") -> Figure:
    """Validation loss against training compute, a panel per data set.

    Bold: each family's frontier, with a band of one standard error over seeds. Faint: each seed of
    each setting. The crossover is marked with its 90% interval; where there is none, the gap.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(panels)
        for ax, panel in zip(axes, panels, strict=True):
            _frontier_panel(ax, panel, axis)
        counted = "analytic" if axis == "flops" else "6ND"
        _finish(figure, axes, f"training compute, FLOPs ({counted})")
    return figure


def _frontier_panel(ax: Axes, panel: Panel, axis: str) -> None:
    lows, highs, tops = [], [], []
    end = max(cross.frontier(family, axis).compute[-1] for family in panel.families.values())
    for family in panel.families.values():
        colour, marker, line = style(list(panel.families), family.name)
        for setting in family.settings:
            for run in setting.runs:
                x, y = cross.compute_of(run, axis), run.curve.validation_loss
                ax.plot(x, y, color=colour, lw=0.6, alpha=0.4 if setting is family.best else 0.18)
        edge = cross.frontier(family, axis)
        label = f"{cross.name_of(family.name)}, frontier ({_kind(family)})"
        ax.plot(
            *(edge.compute, edge.loss),
            **_line(color=colour, lw=2.0, ls=line, marker=marker, ms=4.5, label=label, zorder=4),
            **_line(markevery=_marks(edge.compute), markeredgecolor="white", markeredgewidth=0.6),
        )
        if edge.compute[-1] < end:  # nothing more was trained: its best stands
            ax.plot(
                [edge.compute[-1], end], [edge.loss[-1]] * 2, color=colour, lw=1.0, ls=(0, (1, 1))
            )
        band = np.nan_to_num(edge.stderr)
        ax.fill_between(
            edge.compute,
            edge.loss - band,
            edge.loss + band,
            color=colour,
            alpha=0.2,
            lw=0,
            zorder=3,
        )
        lows.append(np.nanmin(edge.loss - band))
        highs.append(np.nanmin(edge.loss))
        tops.append(np.nanmax(edge.loss))
        edge = cross.equal_frontier(panel, family, axis)
        if edge is not None:
            colour = style(list(panel.families), cross.REFERENCE)[0]
            x, y = np.append(edge.compute, end), np.append(edge.loss, edge.loss[-1])
            ax.plot(x, y, color=colour, lw=1.3, ls=(0, (5, 2)), label=cross.name_of(cross.EQUAL))
            highs.append(np.nanmin(edge.loss))
    ax.set_xscale("log")
    # The frontiers end close together far below where they start: cut the axis so that the
    # difference at the end can be read.
    span = max(max(tops) - min(lows), 1e-3)
    height = min(span, max(6 * (max(highs) - min(lows)), 0.3 * span))
    challengers = cross.crossovers(panel, axis)
    words = min(0.09 + 0.155 * len(challengers), 0.7)  # share of the axis for words below the lines
    below = 1.05 * words / (1 - words) if challengers else 0.08
    ax.set_ylim(min(lows) - below * height, min(lows) + 1.05 * height)
    ax.set_title(panel.title, loc="left")
    for found in cross.equal_crossovers(panel, axis):
        _mark_equal(ax, panel, found, axis)
    for number, found in enumerate(challengers):
        name = f"{cross.name_of(found.challenger)}: " if len(challengers) > 1 else ""
        _mark(ax, panel, found, 0.03 + 0.155 * number, name)


def _mark_equal(ax: Axes, panel: Panel, found: cross.Crossover, axis: str) -> None:
    """A ring where the challenger passes the reference at the challenger's own settings."""
    if found.compute is None:
        return
    y = cross.frontier(panel.families[found.challenger], axis).at(found.compute)
    ax.plot([found.compute], [y], marker="o", ms=9, mfc="none", mec=INK, mew=1.2, zorder=5)
    left, right = ax.get_xlim()
    late = math.log(found.compute / left) > 0.75 * math.log(right / left)
    note = ax.annotate(
        f"equal settings:\n{scientific(found.compute)}",
        (found.compute, float(y)),
        **_line(xytext=(4, -9) if late else (8, 6), textcoords="offset points", fontsize=8.5),
        **_line(ha="right" if late else "left", va="top" if late else "bottom"),
        **_line(color=INK, zorder=6),
    )
    note.set_in_layout(False)


def _mark(ax: Axes, panel: Panel, found: cross.Crossover, y: float, name: str) -> None:
    """The crossover as a line, its interval as a band; or the gap at the end in words."""
    colour = style(list(panel.families), found.challenger)[0]
    text = dict[str, Any](
        transform=ax.get_xaxis_transform(), fontsize=8.5, color=INK, va="bottom", zorder=6
    )
    text["bbox"] = dict(facecolor="white", alpha=0.85, lw=0, pad=1.5)
    left, right = ax.get_xlim()
    if found.compute is None:
        words = f"{name}AR's best: {found.status}, {found.gap:+.3f}"
        words += f" ± {found.gap_stderr:.3f}" if found.gap_stderr is not None else ""
        words += " nats"
        if found.trend is not None and math.isfinite(found.trend.compute):
            words += f"\ntrend, extrapolated: {scientific(found.trend.compute)}"
        note = ax.text(0.98, y, words, **text | dict[str, Any](transform=ax.transAxes, ha="right"))
        note.set_in_layout(False)
        return
    ax.axvline(found.compute, color=INK, lw=1.0, ls=(0, (3, 2)), zorder=2)
    words = f"{name}crossover {scientific(found.compute)}"
    if found.status == crossings.FROM_START:
        words = f"{name}{found.status}, {scientific(found.compute)}"
    if found.low is not None and found.high is not None:
        high = min(found.high, right)
        ax.axvspan(found.low, high, color=colour, alpha=0.13, lw=0, zorder=1)
        words += f"\n90%: {interval(found.low, found.high)}"
    share = math.log(found.compute / left) / math.log(right / left)
    # To the side with the room; the frontiers end at the right, so left unless that is too narrow.
    text["ha"] = "right" if share > 0.45 else "left"
    gap = (right / left) ** 0.015
    x = found.compute / gap if share > 0.45 else found.compute * gap
    ax.text(x, y, words, **text)


# --- loss against epochs ------------------------------------------------------------------------


def epochs(panels: Sequence[Panel]) -> Figure:
    """Losses of each family's best setting against epochs: validation solid, training-set dashed.

    Both are the same estimator on different windows, so the distance between them is memorisation.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(panels)
        for ax, panel in zip(axes, panels, strict=True):
            _epochs_panel(ax, panel)
        _finish(figure, axes, "epochs over the unique tokens")
    return figure


def _epochs_panel(ax: Axes, panel: Panel) -> None:
    top, bottom = 0.0, math.inf
    for family in panel.families.values():
        colour, marker, _ = style(list(panel.families), family.name)
        name = cross.name_of(family.name)
        for field, line, fill, what in (
            ("validation_loss", "-", colour, "validation"),
            ("train_eval_loss", (0, (3, 1.5)), "white", "training set"),
        ):
            for run in family.best.runs:
                ax.plot(
                    run.curve.epoch, getattr(run.curve, field), color=colour, lw=0.6, alpha=0.35
                )
            x, y = mean_curve(family.best, field)
            if not np.isfinite(y).any():
                continue
            ax.plot(
                *(x, y),
                **_line(color=colour, lw=1.8, ls=line, marker=marker, ms=4.5, markevery=_marks(x)),
                **_line(markerfacecolor=fill, markeredgecolor=colour, label=f"{name}, {what}"),
            )
            top, bottom = max(top, np.nanmax(y)), min(bottom, np.nanmin(y))
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_ylim(max(0.0, bottom - 0.06 * (top - bottom)), top + 0.06 * (top - bottom) + 1e-3)
    ax.set_title(panel.title, loc="left")


def every_setting(panels: Sequence[Panel]) -> Figure:
    """Validation loss of every setting against epochs: exact values solid, upper bounds dashed.

    Ordered by each one's lowest loss, which the legend gives.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(panels)
        for ax, panel in zip(axes, panels, strict=True):
            _settings_panel(ax, panel)
        _finish(figure, axes, "epochs over the unique tokens")
    return figure


def _settings_panel(ax: Axes, panel: Panel) -> None:
    import matplotlib

    lines = []
    for family in panel.families.values():
        for setting in family.settings:
            x, y = mean_curve(setting, "validation_loss")
            alone = len(family.settings) == 1
            name = cross.name_of(family.name) + ("" if alone else f", {setting.name}")
            lines.append((float(np.nanmin(y)), name, family.kind, x, y))
    lines.sort(key=lambda line: line[0])
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for k, (lowest, name, kind, x, y) in enumerate(lines):
        exact = kind == "exact"
        label = f"{lowest:.3f} {'' if exact else '(bound) '}{name}"
        dash = "-" if exact else (0, (4, 1.5))
        marks = _line(marker="osD^vPX*<>ph"[k % 12], ms=4.5, markevery=_marks(x))
        ax.plot(x, y, color=shades[k], lw=1.5, ls=dash, label=label, **marks)
    worst = max(lowest for lowest, *_ in lines)
    best = min(lowest for lowest, *_ in lines)
    ax.set_ylim(best - 0.1 * (worst - best) - 0.01, worst + 1.2 * (worst - best) + 0.05)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_title(f"{panel.title}; the lowest of each", loc="left")


def mean_curve(setting: Setting, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [E] and the mean over seeds [E], up to where the first seed stops."""
    ends = [run.curve.epoch[-1] for run in setting.runs]
    longest = setting.runs[int(np.argmin(ends))].curve
    x = longest.epoch
    curves = [np.interp(x, run.curve.epoch, getattr(run.curve, field)) for run in setting.runs]
    return x, np.mean(curves, axis=0)


# --- samples of images --------------------------------------------------------------------------


def digits(rows: dict[str, np.ndarray]) -> Figure:
    """8×8 images of 17 grey levels as a sheet: one row per name, ids [S, 64] each."""
    import matplotlib
    from matplotlib.figure import Figure

    count = max(len(ids) for ids in rows.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 0.78 * len(rows)), dpi=150)
        grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for ax, (name, ids) in zip(grid, rows.items(), strict=True):
            sheet = np.full((8, 9 * count - 1), np.nan)
            for k, image in enumerate(ids):
                sheet[:, 9 * k : 9 * k + 8] = np.clip(image, 0, 16).reshape(8, 8)
            ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
            ax.set_title(name, loc="left", fontsize=9, pad=2)
            ax.set_anchor("W")
            ax.axis("off")
        figure.subplots_adjust(
            left=0.01, right=0.99, top=1 - 0.22 / len(rows), bottom=0.01, hspace=0.3
        )
    return figure


def spectrum(found: dict[str, tuple[np.ndarray, np.ndarray]], levels: Sequence[float]) -> Figure:
    """Explained share of each spatial frequency at several levels of knowledge, a panel per run."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        size = (2.6 * len(found) + 0.9, 2.9)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        shades = matplotlib.colormaps["viridis"](np.linspace(0.9, 0, len(levels)))
        for ax, (name, (radius, shares)) in zip(axes, found.items(), strict=True):
            for k, level in enumerate(levels):
                style = _line(color=shades[k], marker="os^Dv"[k % 5], ms=4, label=f"{level:.0%}")
                ax.plot(radius, shares[k], lw=1.5, **style)
            ax.set(xlabel="cycles per image", ylim=(-0.1, 1.05))
            ax.set_title(name, loc="left")
        axes[0].set_ylabel("explained share of variance")
        axes[-1].legend(frameon=False, title="known", fontsize=8, loc="center left",
                        bbox_to_anchor=(1, 0.5))  # fmt: skip
    return figure


def quality(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Samples against the calls spent on them: likelihood under a judge, variety. The rows of
    quality.json; dashed lines are held-out data (steps 0).
    """
    import matplotlib
    from matplotlib.figure import Figure

    data, drawn = ([q for q in found if (q["steps"] == 0) == held] for held in (True, False))
    steps = [q["steps"] for q in drawn]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2)
        nats, errors = ([q[name] for q in drawn] for name in ("nats", "stderr"))
        left.errorbar(steps, nats, yerr=errors, marker="o", ms=4, lw=1.5, capsize=2)
        left.set_ylabel("nats per token, by the judge")
        for k, label in enumerate(("tokens", "pairs", "triples")):
            shares = [q["distinct"][k] for q in drawn]
            (line,) = right.plot(steps, shares, marker="os^"[k], ms=4, lw=1.5, label=label)
            for q in data:
                right.axhline(q["distinct"][k], color=line.get_color(), ls="--", lw=1)
        for q in data:
            left.axhline(q["nats"], color="0.4", ls="--", lw=1, label="held-out data")
        right.set_ylabel("share of distinct")
        for ax in (left, right):
            ax.set_xscale("log", base=2)
            ax.set_xlabel("calls of the model")
            ax.legend(frameon=False, fontsize=8)
    return figure


# --- shared -------------------------------------------------------------------------------------


def _axes(panels: Sequence[Panel]) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    if not panels:
        raise DlmError("figure: no finished run to draw")
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    width = 7.2 if columns == 2 else 5.0
    figure = Figure(figsize=(width, 0.75 + 3.1 * lines), dpi=150)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in grid[len(panels) :]:
        ax.remove()
    return figure, list(grid[: len(panels)])


def _finish(figure: Figure, axes: list[Axes], x_label: str) -> None:
    """Axis labels once, one legend below for all panels."""
    entries: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= {k: v for k, v in zip(labels, handles, strict=True) if k not in entries}
    wide = figure.get_figwidth() > 6 or max(map(len, entries), default=0) <= 30
    columns = 2 if wide else 1
    figure.legend(
        *(list(entries.values()), list(entries)),
        **_line(loc="lower center", ncols=columns, frameon=False, handlelength=3.2),
    )
    below = 0.08 + 0.2 * math.ceil(len(entries) / columns)  # inches that the legend takes
    height = figure.get_figheight() + max(0.0, below - 0.9)
    figure.set_figheight(height)
    figure.tight_layout(rect=(0.03, (below + 0.2) / height, 1, 1), w_pad=1.5)
    figure.supxlabel(x_label, fontsize=9.5, y=below / height, va="bottom")
    middle = (axes[0].get_position().y1 + axes[-1].get_position().y0) / 2
    figure.supylabel("loss, nats per token", fontsize=9.5, x=0.01, y=middle)


def _line(**options: Any) -> dict[str, Any]:
    return (
        options  # so that matplotlib's long signatures are not held against a dict of mixed types
    )


def _marks(x: np.ndarray) -> list[int]:
    """Indices of about ten points, evenly over log x."""
    log = np.log(x)
    wanted = np.linspace(log[0], log[-1], 10)
    return sorted({int(np.abs(log - value).argmin()) for value in wanted})


def _kind(family: Family) -> str:
    return "exact NLL" if family.kind == "exact" else family.kind


def save(figure: Figure, path: Path | str) -> tuple[Path, Path]:
    """Writes path.png and path.svg; the same figure gives the same bytes.

    Raises:
      DlmError: the folder cannot be written.
    """
    import matplotlib

    png, svg = Path(path).with_suffix(".png"), Path(path).with_suffix(".svg")
    try:
        with matplotlib.rc_context(STYLE):
            figure.savefig(png, metadata={"Software": None})
            figure.savefig(svg, metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise DlmError(f"{png.parent}: cannot be written ({error.strerror})") from None
    return png, svg


def svg_text(figure: Figure) -> str:
    """The figure as an <svg> element, to stand inside a page."""
    import io

    import matplotlib

    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
