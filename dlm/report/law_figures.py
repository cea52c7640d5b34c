"""The paper's figures (arXiv 2507.15857) of runs and laws, one function each: tables and fits in, a
`Drawing` out.

Each reads in grey: families differ by marker and line style, maps carry labelled contour lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import count, file_stems, power, scientific, tick
from dlm.laws import frontiers, measured
from dlm.laws.critical import Fitted
from dlm.laws.crossings import CROSSES, Crossover
from dlm.laws.crossover import name_of
from dlm.laws.fits import LEVEL, Fit
from dlm.laws.forms import repetitions
from dlm.laws.intervals import interval, widened
from dlm.laws.table import Table, unique_budgets, with_unique
from dlm.report.canvas import INK, Drawing, keywords, set_axis, shown, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALSO = {"mdm": "masked", "diffusion": "masked", "autoregressive": "ar"}
COMPUTE, LOSS = "training compute, FLOPs", "validation loss, nats per token"


def look(family: str, families: Sequence[str] = ()) -> tuple[str, str, Any]:
    """Colour, marker and line style of a family among others, by their names in tables."""
    names = [parted(name)[1] for name in (family, *families)]
    return style(names, names[0])


def named(family: str) -> str:
    """AR or masked diffusion, after the corpus where the family's name has one."""
    corpus, key = parted(family)
    name = name_of(key)
    name = family.rpartition("/")[2] if name == key else name  # its own capitals
    return shown(f"{corpus}, {name}" if corpus else name)


def parted(family: str) -> tuple[str, str]:
    """The corpus, where the name has one, and the family's key."""
    corpus, _, last = family.rpartition("/")
    return corpus, ALSO.get(last.lower(), last.lower())


def by_family(tables: Sequence[Table], paint: Any) -> dict[str, Any]:
    """A painter for each table, under a name that is safe in a file name."""
    stems = file_stems([t.family for t in tables])
    return {stems[t.family]: lambda ax, t=t: paint(ax, t) for t in tables}


# --- 1 and 9: Pareto frontiers and the critical point -------------------------------------------


def pareto(tables: Sequence[Table], crossings: Sequence[Crossover] = ()) -> Drawing:
    """Figures 1 and 9: the lowest loss at or below each compute, a panel per U, with C_crit.

    Raises:
      DlmError: no unique-token budget has three runs.
    """
    budgets = unique_budgets(tables)
    budgets = [u for u in budgets if sum(len(with_unique(t, u)) for t in tables) > 2]
    if not budgets:
        raise DlmError("no number of unique tokens has three runs")
    best = [c for c in crossings if frontiers.AT_EQUAL not in c.reference]
    met = [c for c in best if c.status == CROSSES]
    caption = (
        "The lowest loss at or below each compute, by unique tokens and family; dotted on from where "
        "a family's runs end."
    )
    if met:
        caption += " Dashed: where the frontiers of these runs meet; grey: the 90% spread."
    return Drawing(
        {count(u, 6): lambda ax, u=u: _pareto_panel(ax, u, tables, met) for u in budgets},
        caption,
        "Loss against compute",
        x_label=COMPUTE,
        y_label=LOSS,
        legend=True,
        columns=4,
    )


def _pareto_panel(ax: Axes, u: float, tables: Sequence[Table], met: Sequence[Crossover]) -> None:
    for t in tables:
        part = with_unique(t, u)
        if not len(part):
            continue
        colour, marker, dash = look(t.family, [each.family for each in tables])
        ax.plot(part.flops, part.loss, ls="", marker=marker, ms=3, color=colour, alpha=0.3)
        end = max(s.flops.max() for s in tables)
        for losses in measured.losses(t, [u]):
            if abs(math.log(losses.unique_tokens / u)) > 0.03:
                continue
            edge = frontiers.frontier(losses)
            look_of = dict[str, Any](color=colour, ls=dash, marker=marker, ms=5)
            ax.plot(edge.compute, edge.loss, label=named(t.family), **look_of)
            if end > edge.compute[-1]:
                beyond = [edge.compute[-1], end], [edge.loss[-1]] * 2
                ax.plot(*beyond, color=colour, lw=1, ls=(0, (1, 1)))
    for crossing in met:
        if abs(math.log(crossing.unique_tokens / u)) < 0.03:
            _upright(ax, crossing)
    set_axis(ax, "x", power, "log")
    set_axis(ax, "y", scale="log")
    ax.set_title(f"{count(u)} unique tokens", loc="left")


def _upright(ax: Axes, crossing: Crossover) -> None:
    assert crossing.compute is not None
    ax.axvline(crossing.compute, color=INK, lw=1.0, ls=(0, (3, 2)))
    if crossing.low is not None and crossing.high is not None and math.isfinite(crossing.high):
        ax.axvspan(crossing.low, crossing.high, color="#999999", alpha=0.2, lw=0)
    ax.annotate(
        f"critical\n{scientific(crossing.compute)}",
        (crossing.compute, 0.62),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize="small",
        bbox=dict(facecolor="white", alpha=0.8, lw=0, pad=1),
    )


# --- 2: contours over epochs and parameters -----------------------------------------------------


def contours(tables: Sequence[Table], fits: Mapping[str, Fit] | None = None) -> Drawing:
    """Figure 2: final loss over epochs and parameters at one U, measured; the best run is starred.

    With `fits`, the law's own contours are drawn over it as dotted lines.

    Raises:
      DlmError: no family has runs that span a map.
    """
    reasons = {t.family: reason for t in tables if (reason := _no_map(t))}
    mapped = [t for t in tables if t.family not in reasons]
    left_out = "; ".join(f"{family}: {reason}" for family, reason in reasons.items())
    if not mapped:
        raise DlmError(left_out)
    return Drawing(
        by_family(mapped, lambda ax, t: _contours_panel(ax, t, (fits or {}).get(t.family))),
        "Loss over epochs and parameters at one number of unique tokens; the star is the best run."
        + (f" Left out: {left_out}." if left_out else ""),
        "Loss over epochs and parameters",
        x_label="epochs",
        y_label="parameters",
        size=(3.8, 3.4),
        least=2.8,
    )


def _no_map(t: Table) -> str:
    """Why the runs of a table cannot be drawn as a map, or ""."""
    points = np.unique(np.stack([np.log(t.epochs), np.log(t.N)], axis=1), axis=0)
    if len(points) < 3:
        return f"{len(t)} runs share its most frequent number of unique tokens, must be 3 or more"
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if np.ptp(points[:, 0]) == 0 or np.ptp(points[:, 1]) == 0 or spread[1] < 1e-6 * spread[0]:
        return "its sizes and epoch counts lie on one line, must span a map"
    return "" if len(_levels(t.loss)[0]) > 2 else "its losses are all alike"


def _levels(loss: np.ndarray) -> tuple[np.ndarray, int]:
    """About ten losses to draw contours at, and the decimals that tell them apart."""
    quantiles = np.quantile(loss, np.linspace(0, 0.95, 11))
    levels, decimals = np.unique(np.round(quantiles, 2)), 2
    while len(levels) < 6 and decimals < 6:
        decimals += 1
        levels = np.unique(np.round(quantiles, decimals))
    return levels, decimals


def _contours_panel(ax: Axes, t: Table, fit: Fit | None) -> None:
    x, y = np.log10(t.epochs), np.log10(t.N)
    levels, decimals = _levels(t.loss)
    filled = ax.tricontourf(x, y, t.loss, levels=levels, cmap="cividis", extend="max")
    lines = ax.tricontour(x, y, t.loss, levels=levels, colors="white", linewidths=0.5)
    label_contours(ax, lines, f"%.{decimals}f")
    ax.plot(x, y, ls="", marker="o", ms=2.5, mfc="white", mec=INK, mew=0.5)
    if fit is not None:
        _law_contours(ax, fit, t, levels)
    best = int(t.loss.argmin())
    ax.plot(x[best], y[best], marker="*", ms=14, mfc="white", mec=INK)
    where = f"{count(t.N[best])}, {tick(t.epochs[best])} epochs: {t.loss[best]:.2f}"
    ax.set_title(f"{named(t.family)}; best {where}", loc="left")
    set_axis(ax, "x", scale="log10")
    set_axis(ax, "y", count, "log10")
    ax.grid(visible=False)
    colour_bar(ax, filled)


def label_contours(ax: Axes, lines: Any, form: str) -> None:
    """Writes the level on every other contour line; nothing if there is no line to write on."""
    drawn = [level for level, parts in zip(lines.levels, lines.allsegs, strict=False) if len(parts)]
    if drawn:
        ax.clabel(lines, drawn[::2] if len(drawn) > 5 else drawn, fontsize="small", fmt=form)


def colour_bar(ax: Axes, mapped: Any) -> None:
    figure: Any = ax.get_figure()
    figure.colorbar(mapped, ax=ax, pad=0.02).ax.tick_params(labelsize="small")


def _law_contours(ax: Axes, fit: Fit, t: Table, levels: np.ndarray) -> None:
    N = np.geomspace(t.N.min(), t.N.max(), 60)[:, None]
    e = np.geomspace(t.epochs.min(), t.epochs.max(), 60)[None]
    U = float(np.median(t.U))
    ax.contour(
        *(np.log10(e[0]), np.log10(N[:, 0]), fit.predict(N, e * U, U)),
        **keywords(levels=levels, colors=INK, linewidths=0.8, linestyles="dotted"),
    )


# --- 3: loss against the share of unique data ---------------------------------------------------


def data_fraction(tables: Sequence[Table], fits: Mapping[str, Fitted] | None = None) -> Drawing:
    """Figure 3: at fixed compute and size, loss against U/D, with the law's line."""
    return Drawing(
        by_family(tables, lambda ax, t: _fraction_panel(ax, t, (fits or {}).get(t.family))),
        "Loss at fixed size and compute against the share of training tokens that are unique"
        + ("; lines are the law." if fits else "."),
        "Loss against the share of unique data",
        x_label="unique share of the training tokens",
        y_label=LOSS,
    )


def _fraction_panel(ax: Axes, t: Table, law: Fitted | None) -> None:
    colour = look(t.family)[0]
    pairs = np.stack([np.round(np.log(v) / 0.03) for v in (t.N, t.flops)], axis=1)
    for shade, pair in enumerate(np.unique(pairs, axis=0)):
        part = t.only((pairs == pair).all(1))
        order = np.argsort(part.epochs)
        x, y = 100 / part.epochs[order], part.loss[order]
        grey = (colour, "#444444", "#8A8A8A")[shade % 3]
        label = f"{count(part.N[0])}, {scientific(part.flops[0], 1)} FLOPs"
        ax.plot(x, y, ls="", marker=("o", "s", "^", "D")[shade % 4], color=grey, label=label)
        if law is not None:
            share = np.geomspace(x.min(), 100, 50)
            D = float(np.median(part.D))
            predicted = law.law.predict(law.coefficients, part.N[0], D, D * share / 100)
            ax.plot(share, predicted, color=grey, lw=1.3)
    set_axis(ax, "x", lambda value, digits: f"{tick(value, digits)}%", "log")
    set_axis(ax, "y")
    ax.invert_xaxis()
    ax.set_title(named(t.family), loc="left")
    ax.legend(frameon=False, fontsize="small")
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.3 * (top - bottom))


# --- 5: what repetition is worth ----------------------------------------------------------------


def worth(fits: Mapping[str, Fitted], params: float, unique_tokens: float) -> Drawing:
    """Figure 5: predicted loss with repetition and with fresh data, and a repeated token's worth."""
    epochs = np.geomspace(1, 1e4, 300)

    def loss(ax: Axes) -> None:
        D = epochs * unique_tokens
        for family, f in fits.items():
            colour, _, dash = look(family, list(fits))
            fresh = f.law.predict(f.coefficients, params, D, D)
            repeated = f.law.predict(f.coefficients, params, D, unique_tokens)
            ax.plot(D, repeated, color=colour, ls=dash, lw=1.8, label=f"{named(family)}, repeated")
            ax.plot(D, fresh, color=colour, ls=(0, (1, 1)), lw=1.2, label=f"{named(family)}, fresh")
        set_axis(ax, "x", count, "log")
        set_axis(ax, "y")
        ax.set(xlabel="training tokens", ylabel="predicted loss, nats per token")
        ax.set_title(f"N = {count(params)}, U = {count(unique_tokens)}", loc="left")

    def decay(ax: Axes) -> None:
        for family, f in fits.items():
            colour, _, dash = look(family, list(fits))
            rate = _decay(f, params, unique_tokens)
            if rate is None:
                continue
            label = f"{named(family)}, repeated"
            ax.plot(epochs, rate(epochs), color=colour, ls=dash, lw=1.8, label=label)
            if f.samples and "R_D" in f.samples:
                drawn = repetitions(f.law.complete(f.samples), params, unique_tokens)
                low, high = interval(drawn, widened(LEVEL, f))
                least, most = (np.exp(-(epochs - 1) / r) for r in (low, high))
                ax.fill_between(epochs, least, most, color=colour, alpha=0.2, lw=0)
        set_axis(ax, "x", scale="log")
        set_axis(ax, "y")
        ax.set(xlabel="epochs", ylabel="worth of one more pass over a token")
        ax.axhline(0.5, color=INK, lw=0.8, ls=(0, (3, 2)))
        ax.set_title("half-life where a line meets one half", loc="left")

    return Drawing(
        {"loss": loss, "worth": decay},
        "Predicted loss with repetition and with as many fresh tokens, and what one more pass over a "
        "token is worth.",
        "What repetition is worth",
        legend=True,
    )


def _decay(f: Fitted, params: float, unique_tokens: float) -> Any:
    c = f.coefficients
    if "R_D" in c:
        R_D = repetitions(f.law.complete(c), params, unique_tokens)
        return lambda e: np.exp(-(e - 1) / R_D)
    if "k_D" in c:
        return lambda e: np.exp(-c["k_D"] * (e - 1))
    return (lambda e: e ** -c["p_D"]) if "p_D" in c else None
