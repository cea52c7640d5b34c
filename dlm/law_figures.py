"""The paper's figures (arXiv 2507.15857), one function each: tables and fits in, a Figure out.

Each reads in grey: families differ by marker and line style, maps carry labelled contour lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm import figures, frontiers
from dlm.crossings import CROSSES, Crossover
from dlm.crossover import NAMES
from dlm.errors import DlmError
from dlm.figures import INK, STYLE, scientific
from dlm.laws import critical as crit
from dlm.laws import measured
from dlm.laws.comparison import Comparison
from dlm.laws.critical import Critical, Fitted
from dlm.laws.fits import LEVEL, Fit
from dlm.laws.intervals import interval, widened
from dlm.laws.table import Table, alike, settings, unique_budgets, with_unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALSO = {"mdm": "masked", "diffusion": "masked", "autoregressive": "ar"}
BEST = "best masked diffusion (bound)"


def look(family: str) -> tuple[str, str, Any]:
    """Colour, marker and line style of a family, by its name in a table."""
    _, key = _parted(family)
    return figures.style([key], key)


def named(family: str) -> str:
    """AR or masked diffusion, after the corpus where the family's name has one."""
    corpus, key = _parted(family)
    name = NAMES.get(key, family.rpartition("/")[2])
    return f"{corpus}, {name}" if corpus else name


def _parted(family: str) -> tuple[str, str]:
    """The corpus, where the name has one, and the family's key."""
    corpus, _, last = family.rpartition("/")
    return corpus, ALSO.get(last.lower(), last.lower())


def _new(columns: int, height: float = 3.2, width: float = 0.0) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width or (3.6 * columns + 0.4), height), dpi=150, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _panels(count: int, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of `columns`."""
    from matplotlib.figure import Figure

    rows, columns = math.ceil(count / columns), min(count, columns)
    size = 3.6 * columns + 0.4, 3.2 * rows
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _styled(draw: Any) -> Any:
    """The house's rc settings around one drawing function."""
    import functools

    @functools.wraps(draw)
    def run(*arguments: Any, **options: Any) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return run


def count(value: float) -> str:
    """1.2e8 as 120M."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= unit * 0.9995:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


# --- 1 and 9: Pareto frontiers and the critical point -------------------------------------------


@_styled
def pareto(tables: Sequence[Table], crossings: Sequence[Crossover] = ()) -> Figure:
    """Figures 1 and 9: the lowest loss at or below each compute, a panel per U, with C_crit."""
    budgets = unique_budgets(tables)
    shown = [u for u in budgets if sum(len(with_unique(t, u)) for t in tables) > 2]
    if not shown:
        raise DlmError("pareto: no unique-token budget has three runs")
    figure, axes = _panels(len(shown))
    for ax, u in zip(axes, shown, strict=True):
        for t in tables:
            part = with_unique(t, u)
            if not len(part):
                continue
            colour, marker, line = look(t.family)
            ax.plot(part.flops, part.loss, ls="", marker=marker, ms=3, color=colour, alpha=0.3)
            for losses in measured.losses(t, [u]):
                if abs(math.log(losses.unique_tokens / u)) < 0.03:
                    edge = frontiers.frontier(losses)
                    style = dict[str, Any](color=colour, ls=line, marker=marker, ms=5)
                    ax.plot(edge.compute, edge.loss, label=named(t.family), **style)
        for found in crossings:
            same = abs(math.log(found.unique_tokens / u)) < 0.03
            if same and found.status == CROSSES and frontiers.AT_EQUAL not in found.reference:
                _upright(ax, found)
        ax.set(xscale="log", yscale="log", xlabel="training compute, FLOPs")
        _plain_ticks(ax)
        ax.set_title(f"{count(u)} unique tokens", loc="left")
    axes[0].set_ylabel("validation loss, nats per token")
    axes[0].legend(frameon=False, loc="upper right")
    return figure


def _upright(ax: Axes, found: Crossover) -> None:
    assert found.compute is not None
    ax.axvline(found.compute, color=INK, lw=1.0, ls=(0, (3, 2)))
    if found.low is not None and found.high is not None and math.isfinite(found.high):
        ax.axvspan(found.low, found.high, color="#999999", alpha=0.2, lw=0)
    ax.annotate(
        f"critical\n{scientific(found.compute)}",
        (found.compute, 0.62),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        bbox=dict(facecolor="white", alpha=0.8, lw=0, pad=1),
    )


def _plain_ticks(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(
        LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high / low > 1.6 else "all")
    )
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


# --- 2: contours over epochs and parameters -----------------------------------------------------


@_styled
def contours(tables: Sequence[Table], fits: Mapping[str, Fit] | None = None) -> Figure:
    """Figure 2: final loss over epochs and parameters at one U, measured; the best run is starred.

    With `fits`, the law's own contours are drawn over it as dotted lines.
    """
    figure, axes = _new(len(tables), 3.4)
    for ax, t in zip(axes, tables, strict=True):
        x, y = np.log10(t.epochs), np.log10(t.N / 1e6)
        steps = np.unique(np.round(np.quantile(t.loss, np.linspace(0, 0.95, 11)), 2))
        if len(steps) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            raise DlmError(f"contours: {t.family} has too few sizes or epoch counts for a map")
        filled = ax.tricontourf(x, y, t.loss, levels=steps, cmap="cividis", extend="max")
        lines = ax.tricontour(x, y, t.loss, levels=steps, colors="white", linewidths=0.5)
        ax.clabel(lines, steps[::2], fontsize=7, fmt="%.2f")
        ax.plot(x, y, ls="", marker="o", ms=2.5, mfc="white", mec=INK, mew=0.5)
        if fits and t.family in fits:
            _law_contours(ax, fits[t.family], t, steps)
        best = int(t.loss.argmin())
        ax.plot(x[best], y[best], marker="*", ms=14, mfc="white", mec=INK)
        where = f"{count(t.N[best])}, {t.epochs[best]:.0f} epochs: {t.loss[best]:.2f}"
        ax.set_title(f"{named(t.family)}; best {where}", loc="left", fontsize=9)
        ax.set(xlabel="epochs")
        for axis, scale in ((ax.xaxis, 1.0), (ax.yaxis, 1e6)):
            axis.set_major_locator(_round_numbers())
            axis.set_major_formatter(lambda v, _, scale=scale: count(10**v * scale))
        ax.grid(visible=False)
        figure.colorbar(filled, ax=ax, pad=0.02).ax.tick_params(labelsize=8)
    axes[0].set_ylabel("parameters")
    return figure


def _round_numbers() -> Any:
    """1, 3, 10, 30, ... on an axis of log10."""
    from matplotlib.ticker import FixedLocator

    return FixedLocator([d + e for d in range(-6, 13) for e in (0.0, math.log10(3))])


def _law_contours(ax: Axes, fit: Fit, t: Table, steps: np.ndarray) -> None:
    N = np.geomspace(t.N.min(), t.N.max(), 60)[:, None]
    e = np.geomspace(t.epochs.min(), t.epochs.max(), 60)[None]
    U = float(np.median(t.U))
    loss = fit.predict(N, e * U, U)
    ax.contour(
        *(np.log10(e[0]), np.log10(N[:, 0] / 1e6), loss),
        levels=steps,
        colors=INK,
        linewidths=0.8,
        linestyles="dotted",
    )


# --- 3: loss against the share of unique data ---------------------------------------------------


@_styled
def data_fraction(tables: Sequence[Table], fits: Mapping[str, Fitted] | None = None) -> Figure:
    """Figure 3: at fixed compute and size, loss against U/D, with the law's line."""
    figure, axes = _new(len(tables))
    for ax, t in zip(axes, tables, strict=True):
        colour, marker, _ = look(t.family)
        pairs = np.stack([np.round(np.log(v) / 0.03) for v in (t.N, t.flops)], axis=1)
        for shade, pair in enumerate(np.unique(pairs, axis=0)):
            part = t.only((pairs == pair).all(1))
            order = np.argsort(part.epochs)
            x, y = 100 / part.epochs[order], part.loss[order]
            grey = (colour, "#444444", "#8A8A8A")[shade % 3]
            label = f"{count(part.N[0])}, {scientific(part.flops[0], 1)} FLOPs"
            ax.plot(x, y, ls="", marker=("o", "s", "^", "D")[shade % 4], color=grey, label=label)
            if fits and t.family in fits:
                law = fits[t.family]
                share = np.geomspace(x.min(), 100, 50)
                D = float(np.median(part.D))
                line = law.law.predict(law.coefficients, part.N[0], D, D * share / 100)
                ax.plot(share, line, color=grey, lw=1.3)
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}%")
        ax.xaxis.set_minor_formatter(lambda v, _: "")
        ax.set(xlabel="unique share of the training tokens")
        ax.set_title(named(t.family), loc="left")
        ax.legend(frameon=False, fontsize=8)
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.3 * (top - bottom))
    axes[0].set_ylabel("validation loss, nats per token")
    return figure


# --- 4: training curves by repetition -----------------------------------------------------------


@_styled
def repetition(tables: Sequence[Table]) -> Figure:
    """Figure 4: loss while training, one line per number of epochs; tables of curves.

    Where a size was trained on several budgets at one compute, that size and compute alone.
    """
    figure, axes = _new(len(tables))
    for ax, t in zip(axes, tables, strict=True):
        parts = sorted(_one_compute(list(settings(t).values())), key=lambda p: p.epochs.max())
        parts = parts[:: max(1, len(parts) // 8)]
        for k, part in enumerate(parts):
            x, mean, stderr, _ = _mean_curve(part)
            D, colour = x * float(np.median(part.U)), _shade(k, len(parts))
            ax.plot(D, mean, color=colour, marker="o", ms=2.5, lw=1.3)
            ax.fill_between(D, mean - stderr, mean + stderr, color=colour, alpha=0.2, lw=0)
            ax.annotate(f" {x[-1]:.0f}", (D[-1], mean[-1]), fontsize=8, va="center")
        ax.set(xlabel="training tokens; beside each line its epochs")
        _log_x(ax)
        sizes = sorted({p.N[0] for p in parts})
        size = " to ".join(dict.fromkeys((count(sizes[0]), count(sizes[-1]))))
        ax.set_title(f"{named(t.family)}, {size} parameters", loc="left", fontsize=9)
    axes[0].set_ylabel("validation loss, nats per token")
    return figure


def _one_compute(parts: list[Table]) -> list[Table]:
    """The most that share a size and a number of training tokens, or all where no two do."""
    tokens, sizes = (np.array(v) for v in zip(*((p.D.max(), p.N[0]) for p in parts), strict=True))
    groups = [rows[same] for rows in alike(tokens, 0.05) for same in alike(sizes[rows], 0.02)]
    largest = max(sorted(groups, key=lambda rows: tokens[rows].min()), key=len)
    return [parts[i] for i in largest] if len(largest) > 1 else parts


def _log_x(ax: Axes) -> None:
    """A log axis whose labels do not run into each other, whatever its span."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    subs = (1.0,) if high / low > 100 else (1.0, 3.0) if high / low > 10 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(lambda v, _: count(v))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _shade(k: int, total: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"](0.9 * k / max(total - 1, 1))


# --- 5: what repetition is worth ----------------------------------------------------------------


@_styled
def worth(fits: Mapping[str, Fitted], params: float, unique_tokens: float) -> Figure:
    """Figure 5: predicted loss with repetition and with fresh data, and a repeated token's worth."""
    figure, (left, right) = _new(2)
    epochs = np.geomspace(1, 1e4, 300)
    for family, f in fits.items():
        colour, _, line = look(family)
        D = epochs * unique_tokens
        fresh = f.law.predict(f.coefficients, params, D, D)
        repeated = f.law.predict(f.coefficients, params, D, unique_tokens)
        left.plot(D, repeated, color=colour, ls=line, lw=1.8, label=f"{named(family)}, repeated")
        left.plot(D, fresh, color=colour, ls=(0, (1, 1)), lw=1.2, label=f"{named(family)}, fresh")
        rate = _decay(f)
        if rate is not None:
            right.plot(epochs, rate(epochs), color=colour, ls=line, lw=1.8, label=named(family))
            if f.samples and "R_D" in f.samples:
                low, high = interval(f.samples["R_D"], widened(LEVEL, f))
                least, most = (np.exp(-(epochs - 1) / r) for r in (low, high))
                right.fill_between(epochs, least, most, color=colour, alpha=0.2, lw=0)
    left.set(xscale="log", xlabel="training tokens", ylabel="predicted loss, nats per token")
    left.set_title(f"N = {count(params)}, U = {count(unique_tokens)}", loc="left")
    right.set(xscale="log", xlabel="epochs", ylabel="worth of one more pass over a token")
    right.axhline(0.5, color=INK, lw=0.8, ls=(0, (3, 2)))
    right.set_title("half-life where a line meets one half", loc="left")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8)
    return figure


def _decay(f: Fitted) -> Any:
    c = f.coefficients
    if "R_D" in c:
        return lambda e: np.exp(-(e - 1) / c["R_D"])
    if "k_D" in c:
        return lambda e: np.exp(-c["k_D"] * (e - 1))
    return (lambda e: e ** -c["p_D"]) if "p_D" in c else None


# --- 6: the gap over U and C, and the critical compute ------------------------------------------


@_styled
def gap(reference: Fitted, challenger: Fitted, found: Comparison) -> Figure:
    """Figure 6: challenger minus reference over U and C, and C_crit(U) with its power law.

    Hatched: the challenger is lower.
    """
    figure, (left, right) = _new(2, 3.4)
    points = [p for p in found.points if p.irreducible == "kept"]
    cross = [p for p in points if p.status == CROSSES]
    U = np.array([p.unique_tokens for p in points])
    ends = [p.compute for p in cross] or [end for p in points for end in p.searched]
    wider = 30 if cross else 1
    low, high = min(ends) / wider, max(ends) * wider
    spread = 1 if len(U) > 1 else 3
    us = np.geomspace(U.min() / spread, U.max() * spread, 60)
    cs = np.geomspace(low, high, 70)
    loss = [
        crit.optimal(f.law, f.coefficients, cs[:, None], us[None]).loss
        for f in (reference, challenger)
    ]
    difference = loss[1] - loss[0]
    top = float(np.abs(np.quantile(difference, [0.02, 0.98])).max())
    mesh = left.pcolormesh(
        us, cs, difference, cmap="PuOr_r", vmin=-top, vmax=top, shading="gouraud", rasterized=True
    )
    if difference.min() < 0:
        left.contourf(us, cs, difference, levels=[-1e9, 0], colors="none", hatches=["//"])
    lines = left.contour(us, cs, difference, levels=9, colors=INK, linewidths=0.4)
    left.clabel(lines, fontsize=7, fmt="%+.2f")
    if difference.min() < 0 < difference.max():
        left.contour(us, cs, difference, levels=[0], colors=INK, linewidths=2)
    first, second = (named(name) for name in found.families)
    left.set_title(f"{second} minus {first}, nats; hatched: below", loc="left", fontsize=9)
    bar = figure.colorbar(mesh, ax=left, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    if cross:
        _crossings(right, cross, INK, "o", "from the laws")
    for power, line in zip(found.powers, ("-", (0, (4, 2))), strict=False):
        factor = 10**power.intercept
        label = f"E {power.irreducible}: {scientific(factor)} $U^{{{power.exponent:.3f}}}$"
        right.plot(us, factor * us**power.exponent, color="#0072B2", ls=line, label=label)
    best = [p for p in found.observed if frontiers.AT_EQUAL not in p.reference]
    stars = [p for p in best if p.status == CROSSES]
    if stars:
        _crossings(right, stars, "#D55E00", "*", "from the runs")
    if cross or stars:
        right.legend(frameon=False, fontsize=8)
    right.set_title(
        "critical compute" if cross else "critical compute: the laws do not cross",
        loc="left",
        fontsize=9,
    )
    for ax in (left, right):
        ax.set(xscale="log", yscale="log", xlabel="unique tokens U", ylabel="compute, FLOPs")
    left.grid(visible=False)
    return figure


def _crossings(
    ax: Axes, found: Sequence[Critical | Crossover], colour: str, marker: str, label: str
) -> None:
    """Points with their intervals; an open end has none."""
    x, y, low, high = (
        np.array([getattr(p, name) for p in found], float)
        for name in ("unique_tokens", "compute", "low", "high")
    )
    errors = np.nan_to_num([y - low, high - y], nan=0.0, posinf=0.0).clip(0)
    style: dict[str, Any] = dict(ls="", marker=marker, ms=11 if marker == "*" else 4, capsize=2)
    ax.errorbar(x, y, yerr=errors, color=colour, label=label, **style)


# --- 7 and 8: orderings, dropout, masking -------------------------------------------------------


def beside(t: Table, tables: Sequence[Table]) -> tuple[dict[str, Table], float]:
    """For `variants`: the settings of a family, of a kind of AR after AR's best, and the lowest mean
    loss of masked diffusion on the same unique tokens, NaN without any."""
    (corpus, key), budgets = _parted(t.family), unique_budgets([t])
    found = dict(sorted(settings(t).items(), key=lambda pair: _by_numbers(pair[0])))

    def best(of: str) -> tuple[float, str, Table]:
        """The lowest of a family's mean lowest losses, the setting that has it, and its curves."""
        same = [with_unique(o, budgets[0]) for o in tables if _parted(o.family) == (corpus, of)]
        parts = [pair for each in same if len(each) for pair in settings(each).items()]
        means = [(float(_mean_curve(p)[3].mean()), name, p) for name, p in parts]
        return min(means, key=lambda m: m[0], default=(math.nan, "", t))

    if len(budgets) > 1:
        return found, math.nan
    loss, setting, curves = best("ar")
    if key in ("orders", "any_order", "noise") and not math.isnan(loss):
        found = {"AR" if setting == "base" else f"AR, {setting}": curves, **found}
    return found, math.nan if key == "masked" else best("masked")[0]


def _by_numbers(name: str) -> list[tuple[str, float]]:
    """A key that sorts orders=2 before orders=16."""
    parts = re.findall(r"([^\d]*)(\d+\.?\d*)?", name)
    return [(words, float(number or -1)) for words, number in parts]


@_styled
def variants(tables: Mapping[str, Table], best: float = math.nan) -> Figure:
    """Figures 7 and 8: curves of loss against epochs, a line per variant, and each one's lowest.

    `best`: a horizontal line, the loss of the best masked diffusion model, an upper bound.
    """
    if len(tables) < 2:
        raise DlmError("variants: one setting only, nothing to compare")
    figure, (left, right) = _new(2, 3.0 + 0.2 * len(tables))
    marks = ("o", "s", "^", "D", "v", "P", "X")
    for k, (label, t) in enumerate(tables.items()):
        colour, marker = _shade(k, len(tables)), marks[k % len(marks)]
        x, mean, stderr, lowest = _mean_curve(t)
        left.plot(x, mean, color=colour, marker=marker, ms=3.5, lw=1.3, label=label)
        left.fill_between(x, mean - stderr, mean + stderr, color=colour, alpha=0.2, lw=0)
        error = lowest.std(ddof=1) / math.sqrt(len(lowest)) if len(lowest) > 1 else 0.0
        right.errorbar(
            [k], [lowest.mean()], yerr=[error], color=colour, marker=marker, ms=6, capsize=3
        )
    for ax in (left, right):
        if math.isfinite(best):
            ax.axhline(best, color="#D55E00", ls=(0, (5, 1.5)), lw=1.5, label=BEST)
    left.set(xlabel="epochs", ylabel="validation loss, nats per token")
    _log_x(left)
    right.set_xticks([])
    right.set_title("lowest loss, standard error over seeds", loc="left", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8)
    return figure


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


# --- diagnostics of a fit -----------------------------------------------------------------------


@_styled
def profiles(analysis: Any) -> Figure:
    """The profile of each coefficient: deviance against its value, with the 90% threshold."""
    from dlm.laws.intervals import threshold

    found = list(analysis.profiles.values())
    columns = min(len(found), 4)
    lines = math.ceil(len(found) / columns)
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(max(2.3 * columns + 0.4, 6.4), 2.3 * lines), dpi=150, layout="constrained"
    )
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    limit = threshold(analysis.fit)
    identified = {v.name for v in analysis.verdicts if v.identified}
    for ax, p in zip(axes, found, strict=False):
        near = p.deviance < 4 * limit
        ax.plot(p.values[near], p.deviance[near], color="#0072B2", marker="o", ms=2.5, lw=1.2)
        ax.axhline(limit, color=INK, lw=0.8, ls=(0, (3, 2)))
        ax.axvline(analysis.fit.coefficients[p.name], color=INK, lw=0.8, label="lowest")
        if analysis.basin is not None:
            known = analysis.basin.published.coefficients[p.name]
            ax.axvline(known, color="#D55E00", lw=1.2, ls=(0, (1, 1)), label="published")
        ax.set_xscale("log")
        ax.set_ylim(0, 3 * limit)
        ax.set_title(
            p.name if p.name in identified else f"{p.name}: not identified", loc="left", fontsize=9
        )
        ax.tick_params(labelsize=7)
    for ax in axes[len(found) :]:
        ax.remove()
    axes[0].set_ylabel("deviance")
    axes[0].annotate("90%", (0.02, limit), xycoords=axes[0].get_yaxis_transform(), va="bottom")
    if analysis.basin is not None:
        axes[0].legend(frameon=False, fontsize=8)
    return figure


@_styled
def residuals(fit: Fit) -> Figure:
    """log predicted - log observed against compute and epochs."""
    figure, axes = _new(2, 2.8)
    colour, marker, _ = look(fit.table.family)
    for ax, x, label in (
        (axes[0], fit.table.flops, "training compute, FLOPs"),
        (axes[1], fit.table.epochs, "epochs"),
    ):
        ax.plot(x, 100 * fit.residuals, ls="", marker=marker, ms=3, color=colour)
        ax.axhline(0, color=INK, lw=0.8)
        ax.set(xscale="log", xlabel=label)
    axes[0].set_ylabel("predicted minus observed, %")
    axes[0].set_title(f"{fit.law.name}, {named(fit.table.family)}", loc="left", fontsize=9)
    return figure
