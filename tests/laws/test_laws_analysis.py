"""A whole analysis: what it finds, how it says it, what it writes, and the verbs that make it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planted
from dlm.cli import fit as fit_verb
from dlm.cli import main
from dlm.errors import DlmError
from dlm.laws import analysis, critical, fits, intervals, law_files, verdicts
from dlm.laws import table as tables
from dlm.laws import words as in_words
from dlm.laws.analysis import Analysis
from dlm.laws.forms import law as named
from dlm.laws.robust_loss import RobustLoss
from dlm.laws.verdicts import Verdict
from dlm.report import canvas, law_figures

GAUSSIAN = RobustLoss("gaussian")
ONE_SIZE = {"sizes": [1e8], "unique": (1e7, 2.5e7, 1e8, 4e8)}
MANY, FEW = (1, 2, 4, 8, 16, 32, 64, 256), (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def identified() -> Analysis:
    """One size, to 256 epochs where R_D is 20, tested on what lies beyond 64."""
    runs = planted.table("one-size", noise=0.005, epochs=MANY, family="ar", **ONE_SIZE)
    return analysis.analyse(
        runs, "one-size", loss=GAUSSIAN, resamples=50, starts=4, cuts=(("epochs", 64.0),)
    )


@pytest.fixture(scope="module")
def open_ended() -> Analysis:
    """To 5 epochs where R_D is 400."""
    truth = planted.TRUTHS["one-size"] | {"R_D": 400.0}
    runs = planted.table("one-size", truth, noise=0.005, epochs=FEW, **ONE_SIZE)
    return analysis.analyse(runs, "one-size", loss=GAUSSIAN, resamples=50, starts=4)


# --- verdicts -----------------------------------------------------------------------------------


def test_what_the_runs_determine_is_identified(identified):
    assert identified.identified and identified.how == "jointly, all coefficients at once"
    truth = planted.TRUTHS["one-size"]
    for v in identified.verdicts:
        assert v.identified and v.reason == v.flag == ""
        assert v.low < truth[v.name] < v.high and v.low < v.value < v.high
        assert v.boot[0] < v.value < v.boot[1]
    assert [v.name for v in identified.verdicts] == list(truth) == list(identified.profiles)
    assert identified.suggestions == identified.outliers == identified.rivals == ()


def test_what_they_do_not_is_told_with_its_bound(open_ended):
    *rest, R_D = open_ended.verdicts
    assert all(v.identified for v in rest) and not open_ended.identified
    assert not R_D.identified and R_D.high == math.inf and 5 < R_D.low < 400
    assert R_D.reason == f"any value above {R_D.low:.3g} fits as well, within the noise"
    assert R_D.flag == "extrapolated: beyond the largest epoch count trained (5)"
    assert R_D.boot[0] < 400


@pytest.mark.parametrize("low, high, boot, reason", [
    (5.0, 20.0, (6.0, 18.0), ""),
    (0.0, math.inf, (1.0, 9.0), "the objective is flat within the noise at every value tried"),
    (0.0, 20.0, (1.0, 9.0), "any value below 20 fits as well, within the noise"),
    (1.0, 20.0, (1.0, 9.0), "anything from 1 to 20 fits as well, within the noise"),
    (5.0, 20.0, (4.0, 41.0), "anything from 4 to 41 fits as well, within the noise"),
    (5.0, 20.0, (6.0, 1e6), "any value above 6 fits as well, within the noise"),
    (0.0, 20.0, (6.0, 1e6), "any value below 20 fits as well, within the noise"),
])  # fmt: skip
def test_a_verdict_follows_from_the_wider_of_its_intervals(identified, low, high, boot, reason):
    samples = dict(identified.fit.samples) | {"R_D": np.linspace(*boot, 3)}
    fit = dataclasses.replace(identified.fit, samples=samples)
    p = dataclasses.replace(identified.profiles["R_D"], low=low, high=high)
    found = verdicts._verdict(fit, p)
    assert (found.identified, found.reason) == (not reason, reason)


def test_a_profile_far_narrower_than_the_bootstrap_identifies_nothing():
    """20 public-size runs: B within a factor of 3 by its profile, of hundreds by resampling."""
    runs = tables.read(planted.public("faults/tables/own_unique_tokens_each.csv"))[0]
    fit = fits.fit(named("data-constrained"), runs, starts=16)
    fit = intervals.bootstrap(fit, 200)
    (found,) = (v for v in verdicts.verdicts(fit)[0] if v.name == "B")
    assert found.profile[1] / found.profile[0] < 10 < 100 < found.boot[1] / found.boot[0]
    assert (found.low, found.high) == found.boot and not found.identified


def test_after_two_steps_the_bootstrap_decides(identified):
    """A profile takes step one as known, so that it is too narrow."""
    two = dataclasses.replace(identified.fit, first=identified.fit)
    wide = dataclasses.replace(two, samples=two.samples | {"R_D": np.linspace(2.0, 90.0, 50)})
    for fit, reason in (
        (wide, "anything from 3.8 to 88.2 fits as well, within the noise"),
        (dataclasses.replace(two, samples={}), "no interval without resamples, as step one has its "
         "own noise"),
    ):  # fmt: skip
        found = verdicts._verdict(fit, identified.profiles["R_D"])
        assert (found.identified, found.reason) == (False, reason)
        assert found.profile == (identified.profiles["R_D"].low, identified.profiles["R_D"].high)


def test_each_kind_of_coefficient_has_its_width(identified):
    for name, high, enough in (("R_D", 9.9, True), ("beta", 1.9, True), ("beta", 2.1, False),
                               ("E", 1.4, True), ("E", 1.6, False), ("B", 90.0, True)):  # fmt: skip
        p = dataclasses.replace(identified.profiles[name], low=1.0, high=high)
        fit = dataclasses.replace(identified.fit, samples={})
        assert verdicts._verdict(fit, p).identified == enough
    assert verdicts.rule(identified.fit) == (
        "A coefficient is identified if the wider of its 90% intervals, by profile and by bootstrap, "
        "has two ends within a factor of 1.5 (E); 100 (B); 2 (beta); 10 (R_D)."
    )
    for changes, words in (
        ({"samples": {}}, "if its 90% interval by profile has two"),
        ({"first": identified.fit}, "if its 90% interval by bootstrap has two"),
    ):
        assert words in verdicts.rule(dataclasses.replace(identified.fit, **changes))


def test_the_jacobian_is_that_of_finite_differences(identified):
    fit = identified.fit
    p, t = fits.problem(fit), fit.table
    x = p.coordinates(fit.coefficients)
    J = planted.jacobian(fit, t.N, t.D, t.U)
    for k in range(len(x)):
        step = 1e-6 * np.eye(len(x))[k]
        sides = (p.coefficients(y[None]) for y in (x + step, x - step))
        up, down = (np.log(fit.law.predict(c, t.N, t.D, t.U)) for c in sides)
        np.testing.assert_allclose(J[:, k], (up - down) / 2e-6, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["R_D", "B"])
def test_a_suggested_run_shrinks_the_variance_by_what_it_says(identified, name):
    """The variance of log R_D, and of log B, which is not the coordinate that B is fitted in."""
    fit = identified.fit
    J = planted.jacobian(fit, fit.table.N, fit.table.D, fit.table.U)
    noise = float(np.median(np.abs(fit.residuals))) * 1.4826
    p, step = fits.problem(fit), 1e-6
    x = p.coordinates(fit.coefficients)
    sides = [p.coefficients(x + s * np.eye(len(x))) for s in (step, -step)]
    towards = (np.log(sides[0][name]) - np.log(sides[1][name])) / (2 * step)

    def variance(rows: np.ndarray) -> float:
        return float(towards @ np.linalg.inv(rows.T @ rows / noise**2 + np.eye(len(x))) @ towards)

    verdict = next(v for v in identified.verdicts if v.name == name)
    found = verdicts.suggest(fit, verdict)
    for s in found:
        assert s.params == fit.table.N[0]  # the law knows no other size
        one = [np.array([v]) for v in (s.params, s.unique_tokens * s.epochs, s.unique_tokens)]
        after = variance(np.concatenate([J, planted.jacobian(fit, *one)]))
        assert s.shrinks == pytest.approx(after / variance(J), rel=1e-5)
    assert found[0].shrinks == min(s.shrinks for s in found) < 1
    assert name == "B" or found[0].epochs > 8  # where repetition has told


def test_what_ran_to_its_limit_is_suggested_for_at_its_known_end(open_ended):
    """At the limit no run could tell; above the lower end of the interval, a long one does."""
    flat = dataclasses.replace(
        open_ended.fit, coefficients=open_ended.fit.coefficients | {"R_D": 9e5}
    )
    (best, *_) = verdicts.suggest(flat, open_ended.verdicts[-1])
    assert best.shrinks < 0.5 and best.epochs > 10


def test_rivals_are_minima_that_the_noise_does_not_tell_apart():
    runs = tables.one(planted.public("fits/datablations_182.csv"))
    fit, _ = analysis.fit_table(runs, "data-constrained", starts=32)
    found = verdicts.rivals(fit)
    assert found and 0 not in found
    worst = max(fit.minima[i].objective for i in found)
    assert intervals.deviance(fit, np.array([worst]))[0] <= intervals.threshold(fit)


# --- how it was fitted --------------------------------------------------------------------------


def test_steps_and_fixed_say_how_the_fit_was_made():
    truth = planted.TRUTHS["data-constrained"] | {"beta": 0.32}
    runs = planted.table("data-constrained", truth, noise=1e-3)
    known = {name: truth[name] for name in ("E", "A", "B", "alpha", "beta")}
    fit, how = analysis.fit_table(runs, "data-constrained", fixed=known, starts=2)
    assert fit.free == ("R_D", "R_N") and how.startswith("with E = 1.8, A = 300, B = 900, ")
    fit, how = analysis.fit_table(runs, "data-constrained", steps="two", starts=2, loss=GAUSSIAN)
    assert how == "in two steps; step one, chinchilla-tied, on 15 runs of one epoch"
    assert fit.first.law.name == "chinchilla-tied"
    _, how = analysis.fit_table(runs, "chinchilla-tied", starts=2)
    assert how == "jointly, all coefficients at once"


@pytest.mark.parametrize("options, words", [
    ({"law_name": "chinchila"}, "law='chinchila': must be one of .*did you mean chinchilla"),
    ({"steps": "one"}, "steps='one': must be one of auto, two, joint"),
    ({"fixed": {"gamma": 1.0}}, "fixed=gamma: chinchilla has E, A, B, alpha, beta"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused(options, words):
    with pytest.raises(DlmError, match=words):
        analysis.analyse(planted.table("chinchilla"), **{"law_name": "chinchilla"} | options)


def test_dropped_outliers_are_listed_and_change_the_fit():
    runs = planted.table("one-size", noise=0.003, epochs=MANY, **ONE_SIZE)
    wrong = dataclasses.replace(runs, loss=runs.loss * np.where(np.arange(32) == 9, 1.2, 1))
    options = {"starts": 2, "resamples": 0, "fixed": {"E": 2.3, "beta": 0.33}}
    kept = analysis.analyse(wrong, "one-size", **options)
    assert [o.label for o in kept.outliers] == ["9"] and len(kept.fit.table) == 32
    assert any("1 rows lie beyond 6 robust" in s for s in in_words.sentences(kept))
    dropped = analysis.analyse(wrong, "one-size", drop_outliers=6.0, **options)
    assert len(dropped.fit.table) == 31 and dropped.outliers == ()
    assert [label for label, _ in dropped.fit.table.excluded] == ["9"]
    assert any("1 runs were left out" in s for s in in_words.sentences(dropped))


# --- published fits -----------------------------------------------------------------------------


def test_the_published_point_its_basin_and_the_global_minimum():
    runs = tables.one(planted.public("fits/datablations_182.csv"))
    fit, how = analysis.fit_table(runs, "data-constrained", starts=32)
    assert "with the constants of step one as published (Muennighoff et al. 2023, C4)" in how
    assert fit.objective <= 0.01580467
    basin = analysis._basin(fit)
    assert basin.at_published == pytest.approx(0.015825935258016, rel=1e-9)
    assert basin.r2_at_published == pytest.approx(0.7722046084968, rel=1e-9)
    assert basin.coefficients["R_D"] == pytest.approx(15.3718, abs=1e-3)
    assert basin.coefficients["R_N"] == pytest.approx(5.3151, abs=1e-3)
    assert basin.objective == pytest.approx(0.0158259320691101, rel=1e-9)
    joint, how = analysis.fit_table(runs, "data-constrained", steps="joint", starts=2)
    assert len(joint.free) == 7 and analysis._basin(joint) is None


# --- in words -----------------------------------------------------------------------------------


def test_sentences_of_what_is_identified(identified):
    first, *found = in_words.sentences(identified)
    assert first.startswith("One-size on 32 runs (32 independent) of table, family ar, jointly, ")
    assert (
        "Objective (half squared log residuals, summed over runs) 2.4" in first
        and "×10⁻⁴, R2 0.99" in first
    )
    assert first.endswith("unique tokens 1.00×10⁷ to 4.00×10⁸, epochs 1 to 256.")
    assert found[:2] == ["Bootstrap: 50 resamples.", "Every coefficient is identified."]
    half = next(s for s in found if s.startswith("Half-life of repeated data: "))
    R_D = identified.fit.coefficients["R_D"]
    assert f"{R_D * math.log(2):.3g} repetitions (90% " in half
    held_out = next(s for s in found if s.startswith("Held out, one-size: "))
    assert "fitted on the 28 runs up to 64 epochs, it predicts the 4 above" in held_out
    assert not any("NOT IDENTIFIED" in s for s in found)


def test_sentences_of_what_is_not(open_ended):
    found = in_words.sentences(open_ended)
    bad = next(s for s in found if s.startswith("NOT IDENTIFIED: R_D: any value above "))
    assert bad.endswith("No point value of these should be quoted.")
    assert "R_D is extrapolated: beyond the largest epoch count trained (5)." in found
    assert not any("Half-life" in s for s in found)
    *_, (name, value, interval, _, verdict) = in_words.coefficient_rows(open_ended)
    assert name == "R_D" and value.startswith("not identified (minimum at ")
    assert interval.startswith("above ") and verdict.startswith("any value above ")


def test_notes_and_given_coefficients_are_told():
    runs = dataclasses.replace(
        planted.table("one-size", noise=0.003, epochs=MANY, **ONE_SIZE), notes=("assumed",)
    )
    fixed = {"E": 2.3, "beta": 0.33, "B": 900.0}
    found = analysis.analyse(runs, "one-size", fixed=fixed, resamples=0, starts=2)
    assert "Note: assumed." in in_words.sentences(found)
    rows = {row[0]: row[1:] for row in in_words.coefficient_rows(found)}
    assert rows["beta"] == ["0.33", "-", "-", "given"]
    assert rows["R_D"][2:] == ["-", "identified"]  # no bootstrap was asked for


# --- as files -----------------------------------------------------------------------------------


def test_the_power_of_R_D_and_loops_that_are_passed_over_are_told():
    found = analysis.analyse(planted.table("data-growth", noise=1e-3), "data-growth", resamples=0)
    power = r"R_D goes as U\^0\.\d\d \(90% 0\.(\d\d) to 0\.(\d\d)\); 0 is data-constrained"
    ends = re.search(power, " ".join(in_words.sentences(found)))
    assert ends and int(ends[1]) <= 30 <= int(ends[2]) < 35  # a factor of 2 for each tenfold
    rows = in_words.coefficient_rows(found)
    assert rows[-1] == ["U_0", "1.000×10⁸", "-", "-", "the unit of U, not fitted"]
    looped = planted.table("chinchilla-looped", noise=1e-3)
    texts = in_words.sentences(analysis.analyse(looped, "chinchilla", resamples=0, starts=4))
    passed = (
        "Note: runs of 1 to 8 loops are fitted as if loops changed nothing; chinchilla-looped and"
    )
    assert any(text.startswith(passed) for text in texts)


def test_two_steps_of_a_looped_law_begin_with_the_looped_law():
    truth = planted.TRUTHS["data-constrained-looped"] | {"R_N": 1e5}
    runs = planted.table("data-constrained-looped", truth, noise=1e-3)
    found, how = analysis.fit_table(runs, "data-constrained-looped", steps="two", starts=8)
    assert "step one, chinchilla-looped, on 15 runs" in how
    assert found.free == ("R_D", "R_N") and found.coefficients["phi"] == pytest.approx(
        0.46, rel=0.1
    )


def test_json_is_strict_and_reads_back(identified, open_ended, tmp_path):
    for each in (identified, open_ended):
        said = strict(json.dumps(in_words.as_json(each)))
        assert said["coefficients"] == each.fit.coefficients
        assert said["objective"] == each.fit.objective
        assert said["samples"]["R_D"] == each.fit.samples["R_D"].tolist()
        assert len(said["residuals"]) == said["runs"] == len(each.fit.table)
        assert said["sentences"] == in_words.sentences(each)
    R_D = said["verdicts"][-1]
    assert (R_D["high"], R_D["open"], R_D["identified"]) == (None, "above", False)
    assert R_D["low"] == R_D["profile"]["low"] == open_ended.verdicts[-1].low


@pytest.mark.parametrize("low, high, written", [
    (1.0, 2.0, [1.0, 2.0, ""]), (1.0, math.inf, [1.0, None, "above"]),
    (-math.inf, np.float64(2), [None, 2.0, "below"]), (-math.inf, math.inf, [None, None, "both"]),
    (math.nan, math.nan, [None, None, ""]), (math.inf, math.inf, [None, None, "above"]),
])  # fmt: skip
def test_an_end_that_an_interval_lacks_is_null_and_named(low, high, written):
    assert list(in_words.plain({"low": low, "high": high}).values()) == written
    inside = in_words.plain({1: [{"low": low, "high": high, "x": (math.nan, math.inf)}]})["1"][0]
    assert [inside[key] for key in ("low", "high", "open")] == written and inside["x"] == [None] * 2


def test_a_verdict_that_begins_at_zero_is_open_below():
    v = Verdict("R_D", 3.0, 0.0, 9.0, (0.0, 9.0), (1.0, math.inf), False, "flat", "")
    said = in_words.plain(in_words._verdict(v))
    assert (said["low"], said["open"]) == (None, "below")
    assert said["profile"] == {"low": None, "high": 9.0, "open": "below"}
    assert said["boot"] == {"low": 1.0, "high": None, "open": "above"}


def test_latex_gives_no_value_that_is_not_identified(identified):
    made = [
        Verdict("alpha", 0.3214, 0.31, 0.33, 0.3, 0.34, True, "", ""),
        Verdict("R_D", 1e6, 7.25e7, math.inf, 5, 6, False, "flat", ""),
        Verdict("k_D", 0.05, 0.0, 0.2, 5, 6, False, "flat", ""),
    ]
    whole = dataclasses.replace(identified.fit.table, family="ar_small & 1%")
    fit = dataclasses.replace(identified.fit, table=whole)
    told = dataclasses.replace(identified, fit=fit, verdicts=tuple(made))
    assert (
        in_words.as_latex([told])
        == r"""% one-size on table
\begin{tabular}{llll}
\toprule
family & coefficient & value & 90\% interval \\
\midrule
ar\_small \& 1\% & $\alpha$ & 0.3214 & 0.31 to 0.33 \\
ar\_small \& 1\% & $R_D^*$ & not identified & above $7.25\times10^{7}$ \\
ar\_small \& 1\% & $k_{D}$ & not identified & below 0.2 \\
\bottomrule
\end{tabular}
"""
    )


# --- the verbs ----------------------------------------------------------------------------------

AR = {"E": 1.84, "A": 290.0, "B": 787.0, "alpha": 0.31, "beta": 0.31, "R_D": 32.0}
MASKED = {"E": 1.98, "A": 251.0, "B": 1130.0, "alpha": 0.302, "beta": 0.302, "R_D": 511.0}
LAWS = {"ar": AR, "masked": MASKED}


def strict(text: str) -> Any:
    """JSON as any reader takes it: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def dlm(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A folder with runs.csv, of two planted laws, and laws.json with the laws."""
    folder = tmp_path_factory.mktemp("study")
    with open(folder / "runs.csv", "w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["family", "params", "tokens", "unique_tokens", "loss"])
        for seed, (family, truth) in enumerate(LAWS.items()):
            t = planted.table("data-decay", truth, noise=0.002, seed=seed)
            write.writerows(zip([family] * len(t), t.N, t.D, t.U, t.loss, strict=True))
    said = {name: {"law": "data-decay", "coefficients": truth} for name, truth in LAWS.items()}
    (folder / "laws.json").write_text(json.dumps(said))
    return folder


def fixed(truth: dict[str, float]) -> list[str]:
    return [f"{name}={value}" for name, value in truth.items() if name != "R_D"]


def test_fit_prints_verdicts_and_writes_a_page_numbers_and_a_table(
    study, tmp_path, capsys, monkeypatch
):
    """The numbers are on disk before the first figure is drawn."""
    attempt, found = canvas.attempt, []

    def watched(*words, **options):
        found.append((tmp_path / "fit.json").exists() and (tmp_path / "fit.tex").exists())
        return attempt(*words, **options)

    monkeypatch.setattr(canvas, "attempt", watched)
    words = ("--law", "data-decay", "--resamples", 20, "--fixed", *fixed(AR), "--out", tmp_path)
    assert dlm("fit", study / "runs.csv", "--family", "ar", *words) == 0
    out = capsys.readouterr().out
    assert "R_D" in out and "identified" in out and "given" in out
    (said,) = json.loads((tmp_path / "fit.json").read_text())
    assert said["family"] == "ar" and said["runs"] == 75
    assert said["coefficients"]["R_D"] == pytest.approx(32, rel=0.05)
    assert said["fixed"] == {name: value for name, value in AR.items() if name != "R_D"}
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page and not re.search(r"(src|href)=.[a-z]+://", page)
    assert (tmp_path / "fit.tex").read_text().count(r"\\") == 2  # the head and R_D
    assert found == [True, True]
    for kind in ("png", "svg", "pdf"):
        assert {path.name for path in tmp_path.glob(f"*.{kind}")} == {
            *(f"profiles-ar.{kind}", f"residuals-ar.{kind}"),
        }
    laws = law_files.read(tmp_path / "fit.json")
    assert laws["ar"].coefficients == said["coefficients"]
    assert len(laws["ar"].samples["R_D"]) == 20


def test_critical_tells_the_planted_crossing(study, tmp_path, capsys):
    words = ("--laws", study / "laws.json", "--unique-tokens", 2.5e7, 1e8, "--out", tmp_path)
    assert dlm("critical", study / "runs.csv", *words) == 0
    pair = [critical.Constants(named("data-decay"), truth) for truth in LAWS.values()]
    exact = critical.critical_law(*pair, (2.5e7, 1e8))
    out = " ".join(capsys.readouterr().out.split())
    assert f"U^{exact.exponent:.3f}" in out
    said = json.loads((tmp_path / "critical.json").read_text())
    assert "masked diffusion (challenger) against AR (reference)" in out
    kept = [p for p in said["points"] if p["irreducible"] == "kept"]
    assert [p["status"] for p in kept] == ["crosses", "crosses"]
    assert kept[1]["compute"] == pytest.approx(exact.points[1].compute)
    assert len(said["observed"]) == 3  # one for each U of the runs
    equal = said["equivalence"]
    at = np.argmin([abs(math.log(e["compute"] / kept[1]["compute"])) for e in equal])
    assert equal[at]["ratio"] == pytest.approx(1, rel=1e-3)
    assert [round(e["epochs"], 1) for e in equal].count(16) == 1
    swapped = ("--reference", "masked", "--challenger", "ar", "--unique-tokens", 1e8)
    assert dlm("critical", "--laws", study / "laws.json", *swapped) == 0
    assert "below in between" in " ".join(capsys.readouterr().out.split())


def test_figures_are_drawn_from_a_table_and_laws(study, tmp_path, capsys, monkeypatch):
    drawn, svg = {}, tmp_path / "any.svg"
    svg.write_text("<svg></svg>")

    def save(figure, stem):
        drawn[stem.name] = figure
        return svg, svg

    def fail(*_):
        raise ValueError("x and y arrays must have\na length of at least 3")

    monkeypatch.setattr(canvas, "save", save)
    monkeypatch.setattr(law_figures, "data_fraction", fail)
    words = ("--laws", study / "laws.json", "--out", tmp_path)
    assert dlm("figures", study / "runs.csv", *words) == 0
    assert {"figure_1", "figure_2", "figure_5", "figure_6"} <= drawn.keys()
    assert len(drawn["figure_1"].axes) == 3  # one for each U
    assert all(ax.has_data() for figure in drawn.values() for ax in figure.axes)
    out = " ".join(capsys.readouterr().out.split())
    assert all(name in out for name in drawn) and "figure_3" not in drawn
    why = "figure_3: not drawn: ValueError: x and y arrays must have a length of at least 3"
    assert why in out and why in (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "critical.json").exists()


@pytest.mark.slow
def test_figures_are_saved(study, tmp_path):
    words = ("--laws", study / "laws.json", "--out", tmp_path)
    assert dlm("figures", study / "runs.csv", *words) == 0
    for name in ("figure_1", "figure_2", "figure_3", "figure_5", "figure_6"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("words, told", [
    (("fit", "{}/none.csv"), "no such table"),
    (("fit", "{}/runs.csv", "--law", "chinchila"), "did you mean chinchilla?"),
    (("fit", "{}/runs.csv", "--family", "maskd"), "did you mean masked?"),
    (("fit", "{}/runs.csv", "--robust-loss", "l2"), "must be one of huber, lad, gaussian"),
    (("fit", "{}/runs.csv", "--resamples", "-1"), "--resamples=-1: must be 0 to 1,000,000"),
    (("fit", "{}/runs.csv", "--fixed", "E=two"), "--fixed E=two: must be NAME=NUMBER"),
    (("critical", "--laws", "{}/laws.json"), "--unique-tokens"),
    (("critical", "--unique-tokens", "1e8"), "no table"),
    (("critical", "--laws", "{}/runs.csv", "--unique-tokens", "1e8"), "not readable JSON"),
    (("critical", "--laws", "{}/laws.json", "--unique-tokens", "1e8", "--reference", "mask"),
     "did you mean masked?"),
    (("critical", "--laws", "{}/laws.json", "--unique-tokens", "-1"), "must be from 1 to 1e30"),
    (("figures",), "nothing to draw"),
    (("figures", "{}/runs.csv", "--figure", "figur_5"), "did you mean figure_5?"),
    (("figures", "{}/runs.csv", "--width", "0.2"), "--width 0.2: must be from 1 to 60 inches"),
    (("report", "{}/runs.csv", "--figure", "frontier"), "must be one of figure_1, figure_2"),
])  # fmt: skip
def test_a_mistake_is_told_in_one_line(study, words, told, capsys):
    assert dlm(*(word.format(study) for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_every_json_of_the_verbs_is_strict_where_nothing_is_identified(
    tmp_path, capsys, monkeypatch
):
    """R_D open above, a challenger that never reaches the reference, and no crossing."""
    monkeypatch.setattr(fit_verb, "diagnostics", lambda made: {})
    runs = planted.table("one-size", {**planted.TRUTHS["one-size"], "R_D": 400.0}, noise=0.005,
                         epochs=FEW, **ONE_SIZE)  # fmt: skip
    with open(tmp_path / "runs.csv", "w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["params", "tokens", "unique_tokens", "loss"])
        write.writerows(zip(runs.N, runs.D, runs.U, runs.loss, strict=True))
    words = ("--law", "one-size", "--resamples", 20, "--fixed", "E=2.3", "beta=0.33", "B=900")
    assert dlm("fit", tmp_path / "runs.csv", *words, "--out", tmp_path) == 0
    (said,) = strict((tmp_path / "fit.json").read_text())
    assert [v["open"] for v in said["verdicts"]] == ["above"]

    worse = {"ar": AR, "masked": MASKED | {"E": 4.0}}
    laws = {n: {"law": "data-decay", "coefficients": v} for n, v in worse.items()}
    (tmp_path / "laws.json").write_text(json.dumps(laws))
    words = ("--laws", tmp_path / "laws.json", "--unique-tokens", 1e8, "--out", tmp_path)
    assert dlm("critical", *words) == 0
    said = strict((tmp_path / "critical.json").read_text())
    assert said["equivalence"][-1]["ratio"] is None
    assert [p["compute"] for p in said["points"] if p["irreducible"] == "kept"] == [None]
    for name in ("fit", "critical"):
        with pytest.raises(SystemExit):
            dlm(name, "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert '"open" then says "above", "below" or "both"' in told


def test_stages_are_shown_as_they_end_and_not_before_an_error(study, capsys):
    words = ("--law", "data-decay", "--resamples", 5, "--fixed", *fixed(AR))
    assert dlm("fit", study / "runs.csv", "--family", "ar", *words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+ s$", "T", line) for line in lines] == [
        f"data-decay, family ar: {stage}: T"
        for stage in ("fitting 75 rows", "5 resamples", "profiles of R_D",
                      "exponents of the three approaches")
    ]  # fmt: skip


@pytest.mark.parametrize("words, told", [
    (("--holdout", "tokens=3"), "holdout axis 'tokens': must be one of flops, epochs"),
    (("--holdout", "flops=nan"), "holdout flops=nan: must be a positive number"),
    (("--fixed", "E=1e300"), "fixed=E=1e+300: must be from 0.001 to 100"),
    (("--fixed", "gamma=1"), "fixed=gamma: data-decay has E, A, B, alpha, beta, R_D"),
    (("--compare-laws", "geometri"), "did you mean geometric?"),
    (("--stages", "three"), "--stages=three: must be one of auto, two, joint"),
])  # fmt: skip
def test_a_wrong_option_is_told_once_and_before_any_fit(study, words, told, capsys, monkeypatch):
    monkeypatch.setattr(fits, "fit", lambda *a, **k: pytest.fail("computed first"))
    assert dlm("fit", study / "runs.csv", "--law", "data-decay", *words) == 2
    error = capsys.readouterr().err
    assert error.count(told) == 1 and error.count("\n") == 1


@pytest.mark.parametrize("text, words", [
    ("[]", "no laws in it"), ('{"ar": {}}', "ar has no coefficients"),
    ('{"ar": {"law": "one-size", "coefficients": {"E": 1, "B": 1, "beta": "x", "R_D": 1}}}',
     "ar: beta='x': must be a finite number above 0"),
    ('{"ar": {"law": "one-sise", "coefficients": {}}}', "did you mean one-size?"),
])  # fmt: skip
def test_wrong_laws_are_refused(tmp_path, text, words):
    (tmp_path / "laws.json").write_text(text)
    with pytest.raises(DlmError, match=re.escape(words)):
        law_files.read(tmp_path / "laws.json")
