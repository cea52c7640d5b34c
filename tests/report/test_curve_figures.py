"""What the paper's figures show of curves: which runs, and beside which others."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlm.laws import table
from dlm.report import canvas, curve_figures


def curves(family: str, *runs: tuple[str, float, float, float, float]) -> table.Table:
    """Runs (label, params, unique tokens, epochs, lowest loss), four losses each, the third lowest."""
    rows = []
    for number, (label, params, unique, epochs, lowest) in enumerate(runs):
        for share, above in ((0.25, 0.3), (0.5, 0.1), (0.75, 0.0), (1.0, 0.2)):
            rows.append((params, unique * epochs * share, unique, lowest + above, number, label))
    N, D, U, loss, run, labels = zip(*rows, strict=True)
    return table.make(N, D, U, loss, family=family, run=run, labels=labels, raw=True)


def test_repetition_shows_one_size_at_one_compute_where_there_is_one() -> None:
    t = curves(
        "ar",
        *((f"a unique={u}", 1e6, u, 1e7 / u, 3.0) for u in (1e5, 5e5, 1e6)),
        *((f"a unique={u} width=9", 4e6, u, 2e7 / u, 2.8) for u in (1e6, 2e6)),
    )
    (axes, *_) = canvas.draw(curve_figures.repetition([t])).axes
    assert [line.get_xdata()[-1] for line in axes.lines] == pytest.approx([1e7] * 3)
    assert axes.get_title(loc="left") == "AR, 1M parameters"
    durations = curves("ar", *((f"a {e} epochs", 1e6, 1e5, e, 3.0) for e in (4, 16, 64)))
    (axes, *_) = canvas.draw(curve_figures.repetition([durations])).axes
    assert [line.get_xdata()[-1] for line in axes.lines] == pytest.approx([4e5, 16e5, 64e5])


def test_variants_of_ar_stand_beside_its_best_and_diffusions() -> None:
    ar = curves(
        "ar", *((f"a drop={d} seed={s}", 1e6, 1e5, 40, 2.0 + d) for d in (0, 1) for s in (0, 1))
    )
    orders = curves("orders", *((f"a orders={n}", 1e6, 1e5, 40, 1.9) for n in (16, 2)))
    masked = curves("MDM", ("a seed=0", 1e6, 1e5, 40, 1.5), ("a seed=1", 1e6, 1e5, 40, 1.7))
    tables = [ar, orders, masked]
    found, best = curve_figures.beside(orders, tables)
    assert list(found) == ["AR, drop=0", "orders=2", "orders=16"] and best == pytest.approx(1.6)
    figure = canvas.draw(curve_figures.variants(found, best))
    for ax in figure.axes:
        assert ax.lines[-1].get_ydata() == pytest.approx([1.6, 1.6])
    assert np.isclose(figure.axes[0].lines[0].get_ydata().min(), 2.0)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == [*found, curve_figures.BEST]
    # Neither beside themselves, nor runs on other tokens, nor where the budgets are several.
    found, best = curve_figures.beside(ar, tables)
    assert list(found) == ["drop=0", "drop=1"] and best == pytest.approx(1.6)
    assert math.isnan(curve_figures.beside(masked, tables)[1])
    elsewhere = curves(
        "orders", ("a orders=2", 1e6, 3e5, 40, 1.9), ("a orders=4", 1e6, 3e5, 40, 1.9)
    )
    assert list(curve_figures.beside(elsewhere, tables)[0]) == ["orders=2", "orders=4"]
    assert math.isnan(curve_figures.beside(elsewhere, tables)[1])
    several = curves("orders", ("a unique=1", 1e6, 1e5, 40, 1.9), ("a unique=3", 1e6, 3e5, 40, 1.9))
    assert math.isnan(curve_figures.beside(several, tables)[1])
