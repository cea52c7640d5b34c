"""The paper's figures of training curves: by repetition, and by variant beside AR and diffusion."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import count
from dlm.laws.table import Table, alike, settings, unique_budgets, with_unique
from dlm.report.canvas import Drawing, keywords, set_axis, shown
from dlm.report.law_figures import LOSS, by_family, named, parted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST = "best masked diffusion (bound)"


# --- 4: training curves by repetition -----------------------------------------------------------


def repetition(tables: Sequence[Table]) -> Drawing:
    """Figure 4: loss while training, one line per number of epochs; tables of curves.

    Where a size was trained on several budgets at one compute, that size and compute alone.
    """
    return Drawing(
        by_family(tables, _repetition_panel),
        "Loss while training, one line per number of epochs.",
        "Loss while training",
        x_label="training tokens; beside each line its epochs",
        y_label=LOSS,
        columns=4,
    )


def _repetition_panel(ax: Axes, t: Table) -> None:
    parts = sorted(_one_compute(list(settings(t).values())), key=lambda p: p.epochs.max())
    parts = parts[:: max(1, len(parts) // 8)]
    for k, part in enumerate(parts):
        x, mean, stderr, _ = _mean_curve(part)
        D, colour = x * float(np.median(part.U)), _shade(k, len(parts))
        ax.plot(D, mean, color=colour, marker="o", ms=2.5, lw=1.3)
        ax.fill_between(D, mean - stderr, mean + stderr, color=colour, alpha=0.2, lw=0)
        ax.annotate(f" {x[-1]:.0f}", (D[-1], mean[-1]), fontsize="small", va="center")
    set_axis(ax, "x", count, "log")
    set_axis(ax, "y")
    sizes = sorted({p.N[0] for p in parts})
    size = " to ".join(dict.fromkeys((count(sizes[0]), count(sizes[-1]))))
    ax.set_title(f"{named(t.family)}, {size} parameters", loc="left")


def _one_compute(parts: list[Table]) -> list[Table]:
    """The most that share a size and a number of training tokens, or all where no two do."""
    tokens, sizes = (np.array(v) for v in zip(*((p.D.max(), p.N[0]) for p in parts), strict=True))
    groups = [rows[same] for rows in alike(tokens, 0.05) for same in alike(sizes[rows], 0.02)]
    largest = max(sorted(groups, key=lambda rows: tokens[rows].min()), key=len)
    return [parts[i] for i in largest] if len(largest) > 1 else parts


def _shade(k: int, total: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"](0.9 * k / max(total - 1, 1))


# --- 7 and 8: orderings, dropout, masking -------------------------------------------------------


def beside(t: Table, tables: Sequence[Table]) -> tuple[dict[str, Table], float]:
    """For `variants`: the settings of a family, of a kind of AR after AR's best, and the lowest mean
    loss of masked diffusion on the same unique tokens, NaN without any."""
    (corpus, key), budgets = parted(t.family), unique_budgets([t])
    variants_by_name = dict(sorted(settings(t).items(), key=lambda pair: _by_numbers(pair[0])))

    def best(of: str) -> tuple[float, str, Table]:
        """The lowest of a family's mean lowest losses, the setting that has it, and its curves."""
        same = [with_unique(o, budgets[0]) for o in tables if parted(o.family) == (corpus, of)]
        parts = [pair for each in same if len(each) for pair in settings(each).items()]
        means = [(float(_mean_curve(p)[3].mean()), name, p) for name, p in parts]
        return min(means, key=lambda m: m[0], default=(math.nan, "", t))

    if len(budgets) > 1:
        return variants_by_name, math.nan
    loss, setting, curves = best("ar")
    if key in ("orders", "any_order", "noise") and not math.isnan(loss):
        variants_by_name = {
            "AR" if setting == "base" else f"AR, {setting}": curves,
            **variants_by_name,
        }
    return variants_by_name, math.nan if key == "masked" else best("masked")[0]


def _by_numbers(name: str) -> list[tuple[str, float]]:
    """A key that sorts orders=2 before orders=16."""
    parts = re.findall(r"([^\d]*)(\d+\.?\d*)?", name)
    return [(words, float(number or -1)) for words, number in parts]


def variants(tables: Mapping[str, Table], best: float = math.nan) -> Drawing:
    """Figures 7 and 8: curves of loss against epochs, a line per variant, and each one's lowest.

    `best`: a horizontal line, the loss of the best masked diffusion model, an upper bound.

    Raises:
      DlmError: there is only one variant.
    """
    if len(tables) < 2:
        raise DlmError("one setting only, nothing to compare")

    def curves(ax: Axes) -> None:
        for k, (label, t) in enumerate(tables.items()):
            colour, marker = _variant(k, len(tables))
            x, mean, stderr, _ = _mean_curve(t)
            ax.plot(x, mean, color=colour, marker=marker, ms=3.5, lw=1.3, label=shown(label))
            ax.fill_between(x, mean - stderr, mean + stderr, color=colour, alpha=0.2, lw=0)
        _best_line(ax, best)
        set_axis(ax, "x", scale="log")
        set_axis(ax, "y")
        ax.set_xlabel("epochs")

    def lowest(ax: Axes) -> None:
        for k, (label, t) in enumerate(tables.items()):
            colour, marker = _variant(k, len(tables))
            losses = _mean_curve(t)[3]
            error = losses.std(ddof=1) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
            marks = keywords(color=colour, marker=marker, ms=6, capsize=3, label=shown(label))
            ax.errorbar([k], [losses.mean()], yerr=[error], **marks)
        _best_line(ax, best)
        set_axis(ax, "y")
        ax.set_xticks([])
        ax.set_title("lowest loss, standard error over seeds", loc="left")

    return Drawing(
        {"curves": curves, "lowest": lowest},
        "Loss against epochs of each setting, and each one's lowest.",
        "Settings",
        y_label=LOSS,
        legend=True,
    )


def _variant(k: int, total: int) -> tuple[Any, str]:
    return _shade(k, total), "os^DvPX"[k % 7]


def _best_line(ax: Axes, best: float) -> None:
    if math.isfinite(best):
        ax.axhline(best, color="#D55E00", ls=(0, (5, 1.5)), lw=1.5, label=BEST)


def _mean_curve(t: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, mean loss and its standard error over runs, and each run's lowest loss."""
    parts = [t.only(t.group == g) for g in np.unique(t.group)]
    end = min(p.epochs.max() for p in parts)
    x = np.unique(parts[0].epochs[parts[0].epochs <= end + 1e-9])
    curves = np.array(
        [np.interp(x, np.sort(p.epochs), p.loss[np.argsort(p.epochs)]) for p in parts]
    )
    error = curves.std(0, ddof=1) / math.sqrt(len(parts)) if len(parts) > 1 else np.zeros(len(x))
    return x, curves.mean(0), error, np.array([p.loss.min() for p in parts])
