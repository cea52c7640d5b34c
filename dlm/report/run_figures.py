"""The figures of an experiment, one function each: panels in, a `Drawing` out, no state kept.

A family is told by colour (Okabe and Ito's, safe for the colour-blind), by line style and by
marker, so the figures also read in grey.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import between, file_stems, power, scientific, with_error
from dlm.laws import crossings
from dlm.laws import crossover as cross
from dlm.laws.frontiers import AT_EQUAL
from dlm.report.canvas import INK, Drawing, keywords, set_axis, shown, style
from dlm.runs import Family, Panel, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEHIND = dict(facecolor="white", alpha=0.85, lw=0, pad=1.5)  # notes on top of lines
WORDED = 3  # challengers whose crossings stand in words on a panel
LOSS, EPOCHS = "loss, nats per token", "epochs over the unique tokens"


def _panels(panels: Sequence[Panel], paint: Any, **shared: Any) -> Drawing:
    """A drawing with a panel for each, named after its data."""
    if not panels:
        raise DlmError("figure: no finished run to draw")
    # Panels of one title, as of two sequence lengths, each have a name of their own.
    names = [f"{p.title} L={p.seq_len} {p.fingerprint[:8]}" for p in panels]
    titles = [p.title for p in panels]
    names = [t if titles.count(t) == 1 else n for t, n in zip(titles, names, strict=True)]
    stems = file_stems(names)
    families = sorted({name for p in panels for name in p.families})
    paints = {
        stems[n]: lambda ax, p=p: paint(ax, p, families) for n, p in zip(names, panels, strict=True)
    }
    return Drawing(paints, y_label=LOSS, legend=True, **shared)


# --- loss against compute -----------------------------------------------------------------------


def frontier(panels: Sequence[Panel], axis: str = "flops") -> Drawing:
    """Validation loss against training compute, a panel per data set.

    Bold: each family's frontier, with a band of one standard error over seeds. Faint: each seed of
    each setting. Ring: the family passes the reference at equal settings. Upright with a 90%
    interval: it passes the best of the reference; if it does not, the gap stands in words.
    """
    counted = "analytic" if axis == "flops" else "6ND"
    return _panels(
        panels,
        lambda ax, panel, families: _frontier_panel(ax, panel, families, axis),
        heading="Loss against compute",
        caption=_frontier_caption(panels, axis),
        x_label=f"training compute, FLOPs ({counted})",
    )


def _frontier_caption(panels: Sequence[Panel], axis: str) -> str:
    """Explains the marks that these panels hold, and no others."""
    equal = [crossing for panel in panels for crossing in cross.equal_crossovers(panel, axis)]
    best = [crossing for panel in panels for crossing in cross.crossovers(panel, axis)]
    a = " or ".join(dict.fromkeys(cross.name_of(panel.reference) for panel in panels))
    parts = [
        "Bold: the best validation loss at or below each compute, averaged over seeds, lowest over "
        "settings, with one standard error; dotted on from where a family's runs end. Faint: each "
        "seed of each setting."
    ]
    if any(panel.ensembles for panel in panels):
        parts.append("Star: an ensemble of so many seeds, at the FLOPs of all its members.")
    if equal:
        parts.append(f"Thin and dashed: {a} at the settings of the other family.")
    if any(crossing.compute is not None for crossing in equal):
        parts.append(f"Ring: where the other family passes {a} at equal settings.")
    many = [panel for panel in panels if len(cross.crossovers(panel, axis)) > WORDED]
    if many:
        parts.append(f"Ring: where a family passes the best {a}, as the table says.")
        best = [
            crossing
            for panel in panels
            if panel not in many
            for crossing in cross.crossovers(panel, axis)
        ]
    if any(crossing.compute is not None for crossing in best):
        kinds = {"seeds": "interval over seeds", "settings": "spread over settings"}
        over = " or ".join(
            kinds[over] for over in sorted({crossing.over for crossing in best} - {""})
        )
        shaded = f"; shaded: its 90% {over}" if over else ""
        parts.append(f"Dashed upright: where it passes the best {a}{shaded}.")
    if any(crossing.compute is None for crossing in best):
        parts.append(f"In words: the gap to the best {a} where that is not passed.")
    return " ".join([*parts, "The loss axis is cut to show the difference at the end."])


def _frontier_panel(ax: Axes, panel: Panel, families: list[str], axis: str) -> None:
    lows, highs, tops = [], [], []
    drawn = (*panel.families.values(), *panel.ensembles.values())
    end = max(cross.frontier(family, axis).compute[-1] for family in drawn)
    for family in panel.families.values():
        colour, marker, line = style(families, family.name)
        for setting in family.settings:
            for run in setting.runs:
                x, y = cross.compute_of(run, axis), run.curve.validation_loss
                ax.plot(x, y, color=colour, lw=0.6, alpha=0.4 if setting is family.best else 0.18)
        edge = cross.frontier(family, axis)
        label = f"{shown(cross.name_of(family.name))}, frontier ({_kind(family)})"
        ax.plot(
            *(edge.compute, edge.loss),
            **keywords(color=colour, lw=2.0, ls=line, marker=marker, ms=4.5, label=label, zorder=4),
            **keywords(
                markevery=_marks(edge.compute), markeredgecolor="white", markeredgewidth=0.6
            ),
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
            colour = style(families, panel.reference)[0]
            equal = cross.name_of(panel.reference + AT_EQUAL)
            x, y = np.append(edge.compute, end), np.append(edge.loss, edge.loss[-1])
            ax.plot(x, y, color=colour, lw=1.3, ls=(0, (5, 2)), label=equal)
            highs.append(np.nanmin(edge.loss))
    for family in panel.families.values():
        for ensemble in cross.ensembles(panel, family.name):
            lows.append(_star(ax, families, family, ensemble, axis))
    set_axis(ax, "x", power, "log")
    set_axis(ax, "y")
    # The frontiers end close together far below where they start: cut the axis so that the
    # difference at the end can be read.
    span = max(max(tops) - min(lows), 1e-3)
    height = min(span, max(6 * (max(highs) - min(lows)), 0.3 * span))
    challengers = cross.crossovers(panel, axis)
    if len(challengers) > WORDED:  # rings alone: so many words would hide the lines
        for crossing in challengers:
            _ring(ax, panel, crossing, axis)
        challengers = []
    words = 0.09 + 0.155 * len(challengers)  # share of the axis for words below the lines
    below = 1.05 * words / (1 - words) if challengers else 0.08
    ax.set_ylim(min(lows) - below * height, min(lows) + 1.05 * height)
    ax.set_title(shown(panel.title), loc="left")
    for crossing in cross.equal_crossovers(panel, axis):
        _mark_equal(ax, panel, crossing, axis)
    for number, crossing in enumerate(challengers):
        name = f"{shown(cross.name_of(crossing.challenger))}: " if len(challengers) > 1 else ""
        _mark(ax, families, crossing, 0.03 + 0.155 * number, name)


def _star(ax: Axes, families: list[str], family: Family, ensemble: Family, axis: str) -> float:
    """Marks the best ensemble of so many seeds of a family; returns its loss."""
    run = ensemble.best.runs[0]
    x, y = float(cross.compute_of(run, axis)[0]), float(run.curve.validation_loss[0])
    colour = style(families, family.name)[0]
    marks = keywords(color=colour, marker="*", ms=11, ls="", mec=INK, mew=0.6, zorder=6)
    ax.plot([x], [y], **marks, label=f"{shown(cross.name_of(family.name))}, ensembles")
    beside = keywords(xytext=(6, -3), textcoords="offset points", fontsize="small", zorder=6)
    ax.annotate(f"×{len(run.result['seeds'])}", (x, y), **beside).set_in_layout(False)
    return y


def _mark_equal(ax: Axes, panel: Panel, crossing: cross.Crossover, axis: str) -> None:
    """A ring where the challenger passes the reference at the challenger's own settings."""
    if crossing.compute is None:
        return
    y = _ring(ax, panel, crossing, axis)
    left, right = ax.get_xlim()
    late = math.log(crossing.compute / left) > 0.75 * math.log(right / left)
    note = ax.annotate(
        f"equal settings:\n{scientific(crossing.compute)}",
        (crossing.compute, y),
        **keywords(
            xytext=(4, -9) if late else (8, 6), textcoords="offset points", fontsize="small"
        ),
        **keywords(ha="right" if late else "left", va="top" if late else "bottom"),
        **keywords(color=INK, zorder=6, bbox=BEHIND),
    )
    note.set_in_layout(False)


def _ring(ax: Axes, panel: Panel, crossing: cross.Crossover, axis: str) -> float:
    """Rings the challenger's frontier where it passes, if it does; returns the loss there."""
    if crossing.compute is None:
        return math.nan
    y = float(cross.frontier(panel.families[crossing.challenger], axis).at(crossing.compute))
    ax.plot([crossing.compute], [y], marker="o", ms=9, mfc="none", mec=INK, mew=1.2, zorder=5)
    return y


def _mark(ax: Axes, families: list[str], crossing: cross.Crossover, y: float, name: str) -> None:
    """The crossover as a line, its interval as a band; or the gap at the end in words."""
    colour = style(families, crossing.challenger)[0]
    text = dict[str, Any](
        transform=ax.get_xaxis_transform(), fontsize="small", color=INK, va="bottom", zorder=6
    )
    text["bbox"] = BEHIND
    left, right = ax.get_xlim()
    if crossing.compute is None:
        gap = with_error(crossing.gap, crossing.gap_stderr, sign=True)
        best = f"{shown(cross.name_of(crossing.reference))}'s best"
        words = f"{name}{best}: {crossing.status}, {gap} nats"
        if crossing.trend is not None and math.isfinite(crossing.trend.compute):
            words += f"\ntrend, extrapolated: {scientific(crossing.trend.compute)}"
        note = ax.text(0.98, y, words, **text | dict[str, Any](transform=ax.transAxes, ha="right"))
        note.set_in_layout(False)
        return
    ax.axvline(crossing.compute, color=INK, lw=1.0, ls=(0, (3, 2)), zorder=2)
    words = f"{name}crossover {scientific(crossing.compute)}"
    if crossing.status == crossings.FROM_START:
        words = f"{name}{crossing.status}, {scientific(crossing.compute)}"
    if crossing.low is not None and crossing.high is not None:
        high = min(crossing.high, right)
        ax.axvspan(crossing.low, high, color=colour, alpha=0.13, lw=0, zorder=1)
        words += f"\n90%: {between(crossing.low, crossing.high)}"
    share = math.log(crossing.compute / left) / math.log(right / left)
    # To the side with the room; the frontiers end at the right, so left unless that is too narrow.
    text["ha"] = "right" if share > 0.45 else "left"
    gap = (right / left) ** 0.015
    x = crossing.compute / gap if share > 0.45 else crossing.compute * gap
    ax.text(x, y, words, **text)


# --- loss against epochs ------------------------------------------------------------------------


def epochs(panels: Sequence[Panel]) -> Drawing:
    """Losses of each family's best setting against epochs: validation solid, training-set dashed.

    Both are the same estimator on different windows, so the distance between them is memorisation.
    """
    return _panels(
        panels,
        _epochs_panel,
        heading="Loss against epochs",
        caption="The best setting of each family. Solid: validation; dashed: the same estimator on "
        "training windows. The distance between the two is memorisation.",
        x_label=EPOCHS,
    )


def _epochs_panel(ax: Axes, panel: Panel, families: list[str]) -> None:
    top, bottom = 0.0, math.inf
    for family in panel.families.values():
        colour, marker, _ = style(families, family.name)
        name = shown(cross.name_of(family.name))
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
                **keywords(
                    color=colour, lw=1.8, ls=line, marker=marker, ms=4.5, markevery=_marks(x)
                ),
                **keywords(markerfacecolor=fill, markeredgecolor=colour, label=f"{name}, {what}"),
            )
            top, bottom = max(top, np.nanmax(y)), min(bottom, np.nanmin(y))
    set_axis(ax, "x", scale="log")
    set_axis(ax, "y")
    ax.set_ylim(max(0.0, bottom - 0.06 * (top - bottom)), top + 0.06 * (top - bottom) + 1e-3)
    ax.set_title(shown(panel.title), loc="left")


def every_setting(panels: Sequence[Panel]) -> Drawing:
    """Validation loss of every setting against epochs: exact values solid, upper bounds dashed.

    Ordered by each one's lowest loss, which the legend gives.
    """
    return _panels(
        panels,
        _settings_panel,
        heading="Every setting",
        caption="Validation loss of every setting, by its lowest. Solid lines are exact; dashed "
        "lines are upper bounds, and the likelihoods behind them may be better. A value that most "
        "settings of a family have is not named.",
        x_label=EPOCHS,
    )


def _settings_panel(ax: Axes, panel: Panel, families: list[str]) -> None:
    import matplotlib

    lines = []
    for family in panel.families.values():
        names = unusual([setting.name for setting in family.settings])
        for setting, unlike in zip(family.settings, names, strict=True):
            x, y = mean_curve(setting, "validation_loss")
            name = ", ".join(filter(None, (shown(cross.name_of(family.name)), unlike)))
            lines.append((float(np.nanmin(y)), name, family.kind, x, y))
    lines.sort(key=lambda line: line[0])
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for k, (lowest, name, kind, x, y) in enumerate(lines):
        exact = kind == "exact"
        label = f"{lowest:.3f} {'' if exact else '(bound) '}{name}"
        dash = "-" if exact else (0, (4, 1.5))
        marks = keywords(marker="osD^vPX*<>ph"[k % 12], ms=4.5, markevery=_marks(x))
        ax.plot(x, y, color=shades[k], lw=1.5, ls=dash, label=label, **marks)
    worst = max(lowest for lowest, *_ in lines)
    best = min(lowest for lowest, *_ in lines)
    ax.set_ylim(best - 0.1 * (worst - best) - 0.01, worst + 1.2 * (worst - best) + 0.05)
    set_axis(ax, "x", scale="log")
    set_axis(ax, "y")
    ax.set_title(f"{shown(panel.title)}; the lowest of each", loc="left")


def unusual(names: Sequence[str]) -> list[str]:
    """Names of settings, "a=1, b=2", without the values that more than half of them have.

    >>> unusual(["a=1, b=2", "a=1, b=3", "a=4, b=2"])
    ['', 'b=3', 'a=4']
    """
    parts = [name.split(", ") for name in names]
    counts = collections.Counter(part for listed in parts for part in listed)
    return [", ".join(p for p in listed if counts[p] <= len(names) / 2) for listed in parts]


def mean_curve(setting: Setting, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [E] and the mean over seeds [E], up to where the first seed stops."""
    ends = [run.curve.epoch[-1] for run in setting.runs]
    longest = setting.runs[int(np.argmin(ends))].curve
    x = longest.epoch
    curves = [np.interp(x, run.curve.epoch, getattr(run.curve, field)) for run in setting.runs]
    return x, np.mean(curves, axis=0)


# --- shared -------------------------------------------------------------------------------------


def _marks(x: np.ndarray) -> list[int]:
    """Indices of about ten points, evenly over log x."""
    log = np.log(x)
    wanted = np.linspace(log[0], log[-1], 10)
    return sorted({int(np.abs(log - value).argmin()) for value in wanted})


def _kind(family: Family) -> str:
    return "exact NLL" if family.kind == "exact" else family.kind
