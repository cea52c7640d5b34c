"""Every figure at every range and width: labels that never touch, names that break nothing, and no
figure that costs another."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import planted
from dlm import format
from dlm.cli import fit
from dlm.errors import DlmError
from dlm.laws import table as tables
from dlm.laws.comparison import Comparison
from dlm.laws.critical import Constants, Critical, PowerLaw
from dlm.laws.crossings import CROSSES, Crossover
from dlm.laws.forms import law as named
from dlm.laws.frontiers import TRACKED
from dlm.report import (
    canvas,
    critical_figure,
    curve_figures,
    fit_figures,
    law_figures,
    run_figures,
    ticks,
)
from dlm.runs import load, panels
from fake_runs import autoregressive, diffusion, quickstart, write_run

SPANS = {"narrow": 1.04, "decade": 9.7, "wide": 3e5}  # highest over lowest of what an axis shows


def visible_labels(figure):
    """The boxes of the tick labels that are drawn, by axis, and of all text."""
    figure.draw_without_rendering()
    axes = [axis for ax in figure.axes if ax.axison for axis in (ax.xaxis, ax.yaxis)]
    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
        labels = [label for t in ticks for label in (t.label1, t.label2)]
        labels += axis.get_minorticklabels()
        yield [t for t in labels if t.get_text() and t.get_visible()]


def assert_apart(figure):
    for labels in visible_labels(figure):
        boxes = [label.get_window_extent() for label in labels]
        for a, b in itertools.combinations(range(len(boxes)), 2):
            texts = labels[a].get_text(), labels[b].get_text()
            assert not boxes[a].overlaps(boxes[b]), texts
            assert texts[0] != texts[1]


# --- what the figures are drawn from --------------------------------------------------------------


def runs_table(span: float, family: str = "ar", above: float = 0.0) -> tables.Table:
    """Three sizes by epochs on one U and on its share of one compute; both axes over `span`."""
    truth = planted.TRUTHS["data-constrained"]
    N, e = planted.grid(1.234e7 * np.geomspace(1, span, 3), np.geomspace(1, span, 4))
    U = np.full(len(N), 5.678e7)
    loss = named("data-constrained").predict(truth, N, U * e, U) + above
    return tables.make(N, U * e, U, loss, family=family, raw=True)


def curves_table(span: float, family: str) -> tables.Table:
    rows = [
        (run, 1e6, 1e5 * e, 1e5, 3.0 + 0.1 * run + 1 / (1 + k))
        for run in range(3)
        for k, e in enumerate(np.geomspace(1, span, 5))
    ]
    run, N, D, U, loss = zip(*rows, strict=True)
    labels = [f"a dropout={r}" for r in run]
    return tables.make(N, D, U, loss, family=family, run=run, labels=labels, raw=True)


def crossings(span: float) -> Comparison:
    U = 3e7 * np.geomspace(1, span, 3)
    at = [
        Critical(u, "kept", CROSSES, 1e19 * u / U[0], 8e18 * u / U[0], 3e19 * u / U[0], 1.0,
                 (1e15, 1e25), (5.0, 50.0), (1e8, 1e8))
        for u in U
    ]  # fmt: skip
    law = PowerLaw("kept", 1.5, *[np.nan] * 2, 7.0, *[np.nan] * 2, 1.0, tuple(at))
    empty: tuple = ()
    pair = ("ar", "masked")
    observed = Crossover(
        "ar", "masked", U[0], TRACKED, ("exact", "upper bound"), 1, "flops", CROSSES, 1e19, 8e18,
        3e19, "seeds", 1.0, 50.0, 1e17, 1e21, -0.1, 0.01, (), 1e20, True, None,
    )  # fmt: skip
    return Comparison(pair, tuple(at), (law,), (observed,), empty, U[0], np.nan, ())  # type: ignore


def fits() -> dict[str, Constants]:
    truth = planted.TRUTHS["data-constrained"]
    samples = {"R_D": np.linspace(15, 25, 20)}
    return {
        "ar": Constants(named("data-constrained"), truth, samples),
        "masked": Constants(named("data-constrained"), truth | {"R_D": 400.0, "E": 1.9}),
    }


def analysis(span: float):
    values = 0.3 * np.geomspace(1, span, 9)
    deviance = np.linspace(-2, 2, 9) ** 2
    profile = SimpleNamespace(name="alpha", values=values, deviance=deviance)
    fit = SimpleNamespace(
        table=runs_table(span), law=named("data-constrained"), coefficients={"alpha": values[4]},
        residuals=0.01 * np.sin(np.arange(12)), free=("alpha",), first=None,
    )  # fmt: skip
    verdict = SimpleNamespace(name="alpha", identified=False)
    return SimpleNamespace(fit=fit, profiles={"alpha": profile}, verdicts=[verdict], basin=None)


def experiment(folder, span: float):
    epochs = max(2, round(span if span > 2 else 2))
    write_run(folder, autoregressive(1.6, 1.5e11), epochs=epochs)
    write_run(folder, diffusion(1e12, 1.6), objective="masked", epochs=epochs)
    return panels(load(folder))[0]


LAWS = {
    "figure_1": lambda s: law_figures.pareto([runs_table(s), runs_table(s, "masked", 0.1)]),
    "figure_2": lambda s: law_figures.contours([runs_table(s)]),
    "figure_3": lambda s: law_figures.data_fraction([runs_table(s)], fits()),
    "figure_4": lambda s: curve_figures.repetition([curves_table(s, "ar")]),
    "figure_5": lambda s: law_figures.worth(fits(), 1e8, 1e7 * s),
    "figure_6": lambda s: critical_figure.gap(*fits().values(), crossings(s)),
    "figure_7_8": lambda s: curve_figures.variants(tables.settings(curves_table(s, "ar")), 2.5),
    "profiles": lambda s: fit_figures.profiles(analysis(s)),
    "residuals": lambda s: fit_figures.residuals(analysis(s).fit),
}


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("name", LAWS)
def test_no_two_tick_labels_touch(name, span, monkeypatch):
    monkeypatch.setattr("dlm.laws.intervals.threshold", lambda fit: 2.7)
    drawing = LAWS[name](span)
    assert drawing.caption and drawing.heading
    assert_apart(canvas.draw(drawing, width=3.25))


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_no_two_tick_labels_touch_in_a_report(tmp_path, span):
    several = experiment(tmp_path, span)
    for draw in (run_figures.frontier, run_figures.epochs, run_figures.every_setting):
        assert_apart(canvas.draw(draw(several), width=3.25))


SCALES = [
    ("linear", 0.0, 1.0), ("linear", 1.5401, 1.5437), ("linear", -3e-7, 4e-7), ("linear", 0, 3e9),
    ("log", 1.0, 1.9), ("log", 3.1e8, 3.2e8), ("log", 1.0000e7, 1.0004e7), ("log", 1, 200),
    ("log", 2e-9, 5e-2), ("log", 1e3, 1e40), ("log", 0.8, 11.0), ("log10", 0.0, 0.02),
    ("log10", -1.0, 9.0),
]  # fmt: skip


@pytest.mark.parametrize("scale, low, high", SCALES)
def test_ticks_fit_any_range_and_any_width(scale, low, high):
    from matplotlib.figure import Figure

    for width, across, up in ((1.0, format.tick, format.power), (7.0, format.count, format.tick)):
        figure = Figure(figsize=(width, 1.6))
        ax = figure.subplots()
        canvas.set_axis(ax, "x", across, scale)
        canvas.set_axis(ax, "y", up, scale)
        ax.set(xlim=(high, low), ylim=(low, high))
        assert_apart(figure)
        found = [[t.get_text() for t in labels] for labels in visible_labels(figure)]
        assert len(found[0]) >= (1 if width < 2 else 2) and len(found[1]) >= 2, (width, found)


def test_ticks_are_round_and_as_fine_as_the_range_asks():
    def first(low, high, log=True):
        return ticks.candidates(low, high, log)[0]

    assert first(1, 50) == [1, 2, 5, 10, 20, 50]
    assert first(1, 1.9) == [1]  # and then 1, 1.2, 1.4, ...
    assert first(0, 1, log=False) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks.labels([1e7, 1.0001e7], format.count) == ["10M", "10.001M"]
    assert ticks.labels([2.0, 2.25], format.tick, even=True) == ["2.00", "2.25"]
    assert ticks.labels([1.0, 0.1], format.tick) == ["1", "0.1"]


# --- widths, panels, files ------------------------------------------------------------------------


def test_a_figure_is_as_wide_as_asked_and_can_be_read(tmp_path):
    drawing = LAWS["figure_1"](SPANS["decade"])
    for width in (0.0, 3.25, 6.75):
        figure = canvas.draw(drawing, width=width)
        assert not width or figure.get_figwidth() == width
        (legend,) = figure.legends
        outside = figure.bbox.padded(2)
        for text in [*legend.texts, *(t for labels in visible_labels(figure) for t in labels)]:
            assert text.get_fontsize() >= 7
            box = text.get_window_extent()
            assert outside.contains(box.x0, box.y0) and outside.contains(box.x1, box.y1)


def test_each_panel_can_be_drawn_alone():
    drawing = LAWS["figure_6"](SPANS["decade"])
    assert list(drawing.panels) == ["gap", "critical"]
    assert len(canvas.draw(drawing, "critical").axes) == 1
    assert len(canvas.draw(drawing, "gap").axes) == 2  # the map and its bar
    made = {"figure_6": lambda: drawing, "figure_60": lambda: drawing}
    assert [(n, p) for n, _, p in canvas.chosen(made, ["figure_6-gap", "figure_60"])] == [
        *(("figure_6", "gap"), ("figure_60", None)),
    ]
    assert [n for n, *_ in canvas.chosen(made, [])] == ["figure_6", "figure_60"]
    for wrong, names in (
        ("figure_6-map", "figure_6, figure_6-gap, figure_6-critical"),
        ("figure_7", "figure_6, figure_60"),
    ):
        with pytest.raises(DlmError, match=f"--figure {wrong}: must be one of {names}$"):
            canvas.chosen(made, [wrong])


def test_the_three_files_of_a_figure_have_the_same_bytes_each_time(tmp_path):
    drawing = LAWS["figure_1"](SPANS["wide"])
    stem = tmp_path / "profiles-wd0.1"
    first = [p.read_bytes() for p in canvas.save(canvas.draw(drawing), stem)]
    assert {p.name for p in tmp_path.iterdir()} == {
        *("profiles-wd0.1.png", "profiles-wd0.1.svg", "profiles-wd0.1.pdf"),
    }
    assert [p.read_bytes() for p in canvas.save(canvas.draw(drawing), stem)] == first
    png, svg, pdf = first
    assert png.startswith(b"\x89PNG") and b"<svg" in svg and pdf.startswith(b"%PDF")


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("error, reason", [
    (DlmError("too few sizes"), "too few sizes"), (RuntimeError("x\ny"), "RuntimeError: x y"),
    (ZeroDivisionError(), "ZeroDivisionError"), (MemoryError("no room"), "MemoryError: no room"),
])  # fmt: skip
def test_whatever_goes_wrong_costs_one_figure(tmp_path, error, reason):
    def fail(*_):
        raise error

    for make in (fail, lambda: canvas.Drawing({"a": fail}, "caption")):
        drawn = canvas.attempt("figure_9", make, tmp_path / "figure_9")
        assert drawn.problem == f"figure_9: not drawn: {reason}"
        assert not drawn.files and not drawn.svg and not list(tmp_path.iterdir())


NASTY = ["$x_{1$", "a$b$c", "_hidden", "x" * 300, "wd\n0.1", "{}%s\\frac", "日本"]


@pytest.mark.filterwarnings("ignore:Glyph")  # no font here has them all; boxes are drawn
def test_no_name_of_a_family_breaks_a_figure(tmp_path):
    several = [runs_table(9.0, name, 0.1 * k) for k, name in enumerate(NASTY)]
    drawing = law_figures.pareto(several)
    figure = canvas.draw(drawing, width=3.25)
    canvas.save(figure, tmp_path / "figure_1")
    (legend,) = figure.legends
    assert len(legend.texts) == len(NASTY)
    assert "$x_{1$" in [text.get_text() for text in legend.texts]
    lines = legend.get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(NASTY)
    assert list(law_figures.contours(several).panels) == list(format.file_stems(NASTY).values())


def test_a_map_that_cannot_be_drawn_says_why_and_leaves_the_others():
    flat = tables.make([1e7] * 4, [1e8, 2e8, 3e8, 4e8], [1e8] * 4, [3, 2.9, 2.8, 2.7], family="a")
    two = tables.make([1e7, 2e7], [1e8, 2e8], [1e8] * 2, [3, 2.9], family="b")
    diagonal = tables.make([1e7, 2e7, 4e7], [1e8, 2e8, 4e8], [1e8] * 3, [3, 2.9, 2.8], family="c")
    for t, reason in (
        (flat, "lie on one line"),
        (two, "must be 3 or more"),
        (diagonal, "one line"),
    ):
        with pytest.raises(DlmError, match=f"{t.family}: .*{reason}"):
            law_figures.contours([t])
        drawing = law_figures.contours([t, runs_table(9.0)])
        assert list(drawing.panels) == ["ar"] and f"Left out: {t.family}: " in drawing.caption


def test_a_map_of_equal_losses_has_no_lines_to_label():
    same = fits()["ar"]
    assert_apart(canvas.draw(critical_figure.gap(same, same, crossings(9.0)), "gap"))


def test_each_family_has_files_of_its_own():
    """wd0.1, wd0.5 and wd0.9 once shared one file, cut at the dot."""
    families = [SimpleNamespace(family=f"wd0.{k}") for k in (1, 5, 9)]
    analyses: list = [SimpleNamespace(fit=SimpleNamespace(table=t)) for t in families]
    assert list(fit.diagnostics(analyses)) == [
        f"{kind}-wd0.{k}" for k in (1, 5, 9) for kind in ("profiles", "residuals")
    ]


# --- captions -------------------------------------------------------------------------------------


def test_the_caption_names_the_marks_that_the_figure_has(tmp_path):
    digits, stdlib = panels(load(quickstart(tmp_path, seeds=2)))[0]
    for several, crossed in (([digits], True), ([stdlib], False), ([digits, stdlib], True)):
        drawing = run_figures.frontier(several)
        figure = canvas.draw(drawing)
        lines = [line for ax in figure.axes for line in ax.lines]
        rings = [x for x in lines if x.get_markerfacecolor() == "none" and x.get_marker() == "o"]
        uprights = [x for x in lines if list(x.get_ydata()) == [0, 1]]
        assert (len(rings), len(uprights)) == ((1, 1) if crossed else (0, 0))
        assert ("Ring: " in drawing.caption) == ("Dashed upright: " in drawing.caption) == crossed
        assert ("In words: " in drawing.caption) == (stdlib in several)


def test_a_value_that_most_settings_have_is_not_named() -> None:
    assert run_figures.unusual(["a=1, b=2", "a=1, b=3", "a=4, b=2"]) == ["", "b=3", "a=4"]
    assert run_figures.unusual(["a=1", "a=2"]) == ["a=1", "a=2"]
    assert run_figures.unusual([""]) == [""]
