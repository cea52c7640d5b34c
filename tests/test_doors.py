"""One number, the same from every door: report, JSON, `dlm critical`, `dlm figures`, fit.json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import planted
from dlm import runs
from dlm.cli import main
from dlm.errors import DlmError
from dlm.format import scientific, sentence
from dlm.laws import analysis, crossings, frontiers, intervals, law_files, measured, words
from dlm.laws import crossover as cross
from dlm.laws import table as tables
from dlm.report import canvas, law_figures, law_page, page, run_figures, sentences, summary
from fake_runs import autoregressive, diffusion, write_run


def dlm(*words) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """Diffusion passes AR's best of two settings at 1.2e12 FLOPs by the mean of its seeds.

    One seed of diffusion is far below the others: by single lowest runs it passes at 7e11.
    """
    workdir = tmp_path_factory.mktemp("runs")
    law = diffusion(1.2e12, 1.6)
    for seed, shift in enumerate((-0.05, 0.02, 0.03)):
        write_run(workdir, autoregressive(1.6, 1.5e11), seed=seed, epochs=50)
        write_run(workdir, law, objective="masked", seed=seed, shift=shift)
    write_run(workdir, autoregressive(1.62, 1.5e11), lr=1e-3, epochs=50)
    for epochs in (60, 100, 150):
        about = {"epochs": epochs, "note": f" duration={epochs}"}
        write_run(workdir, law, objective="masked", shift=0.02, **about)
    return workdir / "quickstart"


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(crossings, "RESAMPLES", 200)


def texts_of(figure) -> str:
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts)


def test_a_folder_has_one_crossing_at_every_door(experiment, tmp_path, capsys, monkeypatch):
    found = runs.load(experiment)
    (panel,), excluded = runs.panels(found)
    numbers = summary.numbers(found, [panel], excluded)  # report.json
    equal, best = json.loads(json.dumps(numbers["panels"][0]["crossovers"]["flops"]))
    assert (best["status"], best["basis"]) == (crossings.CROSSES, frontiers.TRACKED)
    assert best["compute"] == pytest.approx(1.2e12, rel=0.02)
    assert best["low"] < 0.9e12 < 1.4e12 < best["high"]
    assert (equal["reference"], best["reference"]) == ("ar" + frontiers.AT_EQUAL, "ar")
    svg = tmp_path / "any.svg"
    svg.write_text("<svg></svg>")
    monkeypatch.setattr(canvas, "save", lambda figure, stem: (svg, svg, svg))
    for number, asked in enumerate((
        ("critical", experiment), ("critical", experiment, "--points", "last"),
        ("figures", experiment, "--points", "curve"),
    )):  # fmt: skip
        out = tmp_path / str(number)
        assert dlm(*asked, "--out", out) == 0
        assert json.loads((out / "critical.json").read_text())["observed"] == [equal, best]
    printed = " ".join(capsys.readouterr().out.split())
    (crossover,) = cross.crossovers(panel)
    told = sentences.crossing(crossover)
    assert "masked diffusion passes the best AR of 2 settings for good at C = 1.2×10¹²" in told
    assert told in printed and sentence(told) in " ".join(sentences.comparisons(panel))
    number = scientific(best["compute"])
    a, b = sorted(tables.read(experiment), key=lambda t: t.family)
    for drawing in (
        law_figures.pareto([a, b], measured.observed(a, b)),
        run_figures.frontier([panel]),
    ):
        assert number in texts_of(canvas.draw(drawing))
    assert scientific(best["compute"], 3) in page._critical(page.load(experiment).summary)


def test_a_table_without_curves_says_that_it_has_final_losses_only(experiment, tmp_path, capsys):
    observed = []
    for path in runs.write_table(runs.load(experiment), tmp_path):
        assert dlm("critical", path, "--out", tmp_path) == 0
        observed.append(json.loads((tmp_path / "critical.json").read_text())["observed"])
        said = " ".join(capsys.readouterr().out.split())
        assert "From final losses only: masked diffusion" in said
    assert observed[0] == observed[1]
    (found,) = observed[0]
    assert (found["basis"], found["status"]) == (frontiers.FINAL, crossings.CROSSES)
    worse = 1.2e12 * (1 - 0.02 / 1.6) ** (-1 / 0.06)  # by the ends of the shorter runs
    assert found["compute"] == pytest.approx(worse, rel=0.02)


def test_without_a_law_and_without_runs_in_common_there_is_nothing_to_tell(tmp_path):
    write_run(tmp_path, autoregressive(1.6, 1.5e11), epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked", unique_tokens=12800)
    assert dlm("critical", tmp_path / "quickstart") == 2


@pytest.mark.parametrize("kinds, words", [
    (("exact", "upper bound"), "Since masked diffusion is scored by an upper bound, its likelihood"),
    (("upper bound", "exact"), "this shows nothing"),
    (("upper bound", "upper bound"), "does not order their likelihoods"),
    (("", ""), "FLOPs, after"),
])  # fmt: skip
def test_a_crossing_shows_what_the_kinds_of_its_losses_allow(experiment, kinds, words):
    (panel,), _ = runs.panels(runs.load(experiment))
    (found,) = cross.crossovers(panel)
    told = sentences.crossing(dataclasses.replace(found, kinds=kinds))
    assert words in told and told.count("upper bound") == (kinds != ("", ""))


# --- laws -----------------------------------------------------------------------------------------

FLAT = {"E": 1.7, "A": 200.0, "B": 500.0, "alpha": 0.3}
STEEP = {"E": 1.7, "A": 1500.0, "B": 6000.0, "alpha": 0.4}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """runs.csv of two planted laws, and the fit.json of their fits."""
    folder = tmp_path_factory.mktemp("study")
    lines, fitted = ["family,params,tokens,unique_tokens,loss"], []
    for seed, (family, truth) in enumerate((("ar", FLAT), ("masked", STEEP))):
        axes = {"sizes": np.geomspace(1e7, 1e9, 3), "unique": (1e8, 1e9, 1e10), "epochs": (1,)}
        t = planted.table("chinchilla-tied", truth, noise=0.002, seed=seed, **axes)
        lines += [
            ",".join(map(repr, [family, *map(float, row)])).replace("'", "")
            for row in zip(t.N, t.D, t.U, t.loss, strict=True)
        ]
    (folder / "runs.csv").write_text("\n".join(lines) + "\n")
    for t in tables.read(folder / "runs.csv"):
        fit, how = analysis.fit_table(t, "chinchilla-tied")
        made = analysis._analysis(intervals.bootstrap(fit, 20), how, [], {})
        fitted.append(words.as_json(made))
    (folder / "fit.json").write_text(json.dumps(fitted))
    return folder


def lines_of(capsys, *asked) -> list[str]:
    resamples = () if "--laws" in asked else ("--resamples", 20)
    assert dlm("critical", *asked, "--unique-tokens", 1e9, 1e12, *resamples) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_fit_json_says_what_the_table_says(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")  # no line is broken
    law = ("--law", "chinchilla-tied")
    by_table = lines_of(capsys, study / "runs.csv", *law)
    assert lines_of(capsys, study / "runs.csv", "--laws", study / "fit.json") == by_table
    alone = lines_of(capsys, "--laws", study / "fit.json")
    of_runs = [line for line in by_table if line not in alone]
    assert [line for line in by_table if line in alone] == alone
    assert of_runs and all("runs" in line for line in of_runs)
    text = " ".join(alone)
    assert "U outside the trained 1.00×10⁸ to 1.00×10¹⁰" in text and "extrapolated" in text
    assert "range of the runs behind a law is unknown" not in text


def test_the_report_and_dlm_fit_make_the_same_analysis(tmp_path, monkeypatch):
    for k in range(2, 10):
        write_run(tmp_path, diffusion(1e12, 1.6), epochs=10 * k, params=100_000 * k)
    asked = []

    def analyse(*arguments, **options):
        bound = inspect.signature(true).bind(*arguments, **options)
        bound.apply_defaults()
        told = ("table", "tell")
        asked.append({k: v or None for k, v in bound.arguments.items() if k not in told})
        raise DlmError("enough")

    true = analysis.analyse
    monkeypatch.setattr(analysis, "analyse", analyse)
    found = runs.load(tmp_path / "quickstart")
    law_page.of_runs(found, runs.panels(found)[0])
    assert dlm("fit", tmp_path / "quickstart") == 2
    assert len(asked) == 2 and asked[0] == asked[1]


def test_laws_written_by_hand_say_that_their_range_is_unknown(study, tmp_path, capsys):
    said = {
        name: {"law": "chinchilla-tied", "coefficients": truth}
        for name, truth in (("ar", FLAT), ("masked", STEEP))
    }
    (tmp_path / "laws.json").write_text(json.dumps(said))
    text = " ".join(lines_of(capsys, "--laws", tmp_path / "laws.json"))
    assert "The laws of ar, masked come without the range of their runs" in text


@pytest.mark.parametrize("field, value, words", [
    ("ranges", {"params": [1, 2]}, "ar: ranges: runs=None: must be a number above 0"),
    ("ranges", [[1]], "ar: ranges: runs=None"), ("ranges", 3, "ar: ranges: runs=None"),
    ("share", "abc", "ar: share='abc': must be above 0, at most 1"),
    ("share", 2, "share=2: must be"), ("share", None, "share=None: must be"),
    ("samples", {"E": ["x"]}, "ar: samples: must be lists of numbers, of E, A"),
    ("samples", {"Z": [1]}, "ar: samples: must be lists of numbers, of E, A"),
    ("samples", [1], "ar: samples: must be lists of numbers, of E, A"),
    ("fixed", "E", "fixed='E': must name coefficients of"), ("fixed", ["Z"], "fixed=['Z']"),
    ("fixed", 3, "fixed=3"),
])  # fmt: skip
def test_a_damaged_fit_json_is_told_in_one_line(study, tmp_path, field, value, words):
    (first, *_) = json.loads((study / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps([first | {field: value}]))
    with pytest.raises(DlmError, match=re.escape(words)):
        law_files.read(tmp_path / "fit.json")


def test_a_law_of_a_fit_json_is_the_fit(study):
    laws = law_files.read(study / "fit.json")
    for t in tables.read(study / "runs.csv"):
        assert laws[t.family].ranges == t.ranges
        assert math.isclose(t.ranges.flops[1], float(t.flops.max()))
        assert t.ranges.runs == len(t) == 9
