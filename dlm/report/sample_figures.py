"""Figures of samples: images as a sheet, what is known of a spectrum, quality against model calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.report.canvas import keywords, set_axis, settings, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def digits(rows: dict[str, np.ndarray]) -> Figure:
    """8×8 images of 17 grey levels as a sheet: one row per name, ids [S, 64] each."""
    import matplotlib
    from matplotlib.figure import Figure

    count = max(len(ids) for ids in rows.values())
    with matplotlib.rc_context(settings()):
        figure = Figure(figsize=(7.0, 0.78 * len(rows)), dpi=150)
        grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for ax, (name, ids) in zip(grid, rows.items(), strict=True):
            sheet = np.full((8, 9 * count - 1), np.nan)
            for k, image in enumerate(ids):
                sheet[:, 9 * k : 9 * k + 8] = np.clip(image, 0, 16).reshape(8, 8)
            ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
            ax.set_title(shown(name), loc="left", fontsize=9, pad=2)
            ax.set_anchor("W")
            ax.axis("off")
        figure.subplots_adjust(
            left=0.01, right=0.99, top=1 - 0.22 / len(rows), bottom=0.01, hspace=0.3
        )
    return figure


def spectrum(
    shares_of: dict[str, tuple[np.ndarray, np.ndarray]], levels: Sequence[float]
) -> Figure:
    """Explained share of each spatial frequency at several levels of knowledge, a panel per run."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(settings()):
        size = (2.6 * len(shares_of) + 0.9, 2.9)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(1, len(shares_of), squeeze=False, sharey=True)[0]
        shades = matplotlib.colormaps["viridis"](np.linspace(0.9, 0, len(levels)))
        for ax, (name, (radius, shares)) in zip(axes, shares_of.items(), strict=True):
            for k, level in enumerate(levels):
                look = keywords(color=shades[k], marker="os^Dv"[k % 5], ms=4, label=f"{level:.0%}")
                ax.plot(radius, shares[k], lw=1.5, **look)
            set_axis(ax, "x")
            set_axis(ax, "y")
            ax.set(xlabel="cycles per image", ylim=(-0.1, 1.05))
            ax.set_title(shown(name), loc="left")
        axes[0].set_ylabel("explained share of variance")
        axes[-1].legend(frameon=False, title="known", fontsize=8, loc="center left",
                        bbox_to_anchor=(1, 0.5))  # fmt: skip
    return figure


def quality(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Likelihood of samples under a judge, and their variety, against the model calls spent on them.

    `rows`: those of quality.json; the rows of 0 steps are held-out data, drawn as dashed lines.
    """
    import matplotlib
    from matplotlib.figure import Figure

    data, drawn = ([q for q in rows if (q["steps"] == 0) == held] for held in (True, False))
    steps = [q["steps"] for q in drawn]
    with matplotlib.rc_context(settings()):
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
            set_axis(ax, "x", scale="log")
            set_axis(ax, "y")
            ax.set_xlabel("calls of the model")
            ax.legend(frameon=False, fontsize=8)
    return figure
