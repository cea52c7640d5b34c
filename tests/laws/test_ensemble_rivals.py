"""Ensembles as rivals: in the final comparison, on the frontiers, and in the report's words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dlm import runs
from dlm.laws import crossings, crossover
from dlm.report import canvas, page, run_figures, summary
from fake_runs import autoregressive, diffusion, write_run
from kept_ensembles import keep


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(crossings, "RESAMPLES", 100)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Masked diffusion passes AR's 1.6 at 6e11 FLOPs. Three AR seeds together reach 1.55 at 4.5e11,
    which diffusion passes at 6e11 * (1.6 / 1.55) ** (1 / 0.06); three of diffusion have
    a bound of 1.549, which decides nothing, and a tighter one of 1.4 on 20 windows."""
    workdir = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        shift = 0.01 * (seed - 1)
        write_run(workdir, autoregressive(1.6, 1.5e11), seed=seed, epochs=50, shift=shift)
        law = diffusion(6e11, 1.6)
        write_run(workdir, law, objective="masked", seed=seed, shift=shift)
    found = runs.load(workdir)
    keep([run for run in found if run.objective == "ar"], 1.55)
    keep([run for run in found if run.objective == "masked"], 1.549, orders_16=(1.4, "upper bound"))
    return workdir / "quickstart"


@pytest.fixture
def panel(planted) -> runs.Panel:
    (panel,), _ = runs.panels(runs.load(planted))
    return panel


def test_ensembles_are_compared_with_their_family_and_with_the_rivals(panel):
    found = {(f.challenger, f.reference): f for f in crossover.ensemble_finals(panel)}
    ar, masked = "ar, ensemble of 3", "masked, ensemble of 3"
    pairs = {(ar, "ar"), (masked, "masked"), ("masked", ar), (masked, "ar"), (masked, ar)}
    assert found.keys() == pairs
    gain = found[ar, "ar"]
    assert gain.comparison.difference == pytest.approx(-0.05)
    # One ensemble has an error over documents alone; the three single runs have one over seeds.
    assert gain.challenger_estimate.stderr == 0.03
    assert gain.stderr_seeds == pytest.approx(0.01 / np.sqrt(3))
    assert found[masked, ar].stderr_seeds is None
    # The tightest bound of diffusion's ensemble, against AR's on the same windows.
    assert found[masked, ar].challenger_by == "orders 16"
    assert found[masked, ar].comparison.difference == pytest.approx(-0.15, abs=0.05)
    assert found[masked, ar].comparison.proven == "first"


def test_an_ensemble_stands_on_the_frontier_at_the_sum_of_its_members_flops(panel):
    (alone,) = crossover.crossovers(panel)
    (together,) = crossover.ensemble_crossovers(panel)
    assert alone.compute == pytest.approx(6e11, rel=0.02)
    assert (together.reference, together.challenger) == (
        "ar with ensembles", "masked with ensembles",
    )  # fmt: skip
    assert crossover.name_of(together.challenger) == "masked diffusion with ensembles"
    best = sum(run.result["best_flops"] for run in panel.families["ar"].best.runs)
    line = crossings.frontier(crossover._with_ensembles(
        panel, crossover.losses_of(panel.families["ar"]), "flops"))  # fmt: skip
    assert line.at(best) == pytest.approx(1.55) and line.at(best / 3) == pytest.approx(
        1.6, abs=0.01
    )
    expected = 6e11 * (1.6 / 1.55) ** (1 / 0.06)
    assert together.compute == pytest.approx(expected, rel=0.02) and alone.compute < expected


def test_without_ensembles_nothing_is_added(tmp_path):
    write_run(tmp_path, autoregressive(1.6, 1.5e11), epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked")
    found = summary.summary(runs.load(tmp_path))
    (only,) = found.panels
    assert (only.ensembled, only.ensembles, only.ensemble_finals) == ("", (), ())
    assert "FLOPs" not in summary.table(found)[0]


def test_the_report_has_a_line_a_family_with_its_compute_and_what_it_shows(planted, monkeypatch):
    loaded = page.load(planted)
    (p,) = loaded.summary.panels
    assert "ensemble" not in p.verdict  # which compares single runs
    assert p.ensembled.startswith(
        "Ensembles over seeds: AR, ensemble of 3 reaches 1.550 ± 0.030, exact"
    )
    assert "with 1.5×10¹² FLOPs" in p.ensembled  # 3 runs of 50 epochs at 1e10
    assert (
        "masked diffusion, ensemble of 3 is better than AR, ensemble of 3 by at least"
        in p.ensembled
    )
    head, rows = summary.table(loaded.summary)
    flops = {row[0]: row[head.index("FLOPs")] for row in rows}
    assert (flops["AR"], flops["AR, ensemble of 3"]) == ("5.0×10¹¹", "1.5×10¹²")
    row = next(row for row in p.ensembles if row.objective == "ar, ensemble of 3")
    assert (row.seeds, row.stderr_over) == ((0, 1, 2), "validation documents, one ensemble")
    numbers = summary.as_json(loaded.summary)["panels"][0]
    assert json.loads(json.dumps(numbers))["ensembles"][0]["flops"] == pytest.approx(1.5e12)
    monkeypatch.setattr(page, "drawings", lambda panels: {})
    text = page.page(loaded)
    assert "<summary>Ensembles over seeds" in text and "FLOPs of training: the mean over" in text
    assert "passes the best of 2 settings and ensembles of AR" in text
    figure = canvas.draw(run_figures.frontier(loaded.panels))
    notes = [note.get_text() for ax in figure.axes for note in ax.texts]
    assert notes.count("×3") == 2
