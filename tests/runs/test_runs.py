"""Runs, groups, frontiers and crossovers, against curves planted in synthetic run folders."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats

from dlm import runs
from dlm.errors import DlmError
from dlm.laws import crossings, own_runs
from dlm.laws import crossover as cross
from fake_runs import autoregressive, diffusion, edit, quickstart, write_run

AR = autoregressive(1.6, 1.5e11)


def one_panel(workdir):
    panels, excluded = runs.panels(runs.load(workdir))
    assert len(panels) == 1
    return panels[0], excluded


def both(workdir, law, *, seeds=1, **options):
    """AR and masked diffusion of one setting each; returns the crossover."""
    for seed in range(seeds):
        write_run(workdir, AR, seed=seed, epochs=50)
        write_run(workdir, law, objective="masked", seed=seed, **options)
    return cross.crossovers(one_panel(workdir)[0])[0]


# --- reading ------------------------------------------------------------------------------------


def test_loads_a_workdir_an_experiment_or_one_run(tmp_path):
    a = write_run(tmp_path, AR, seed=0)
    write_run(tmp_path, AR, seed=1)
    write_run(tmp_path, AR, seed=2, experiment="other")
    (tmp_path / "corpora" / "abc").mkdir(parents=True)  # a store, no run
    assert [len(runs.load(p)) for p in (tmp_path, tmp_path / "quickstart", a)] == [3, 2, 1]
    run = runs.load(a)[0]
    assert (run.status, run.reason, run.objective, run.seed) == ("finished", "", "ar", 0)
    assert run.nll_path == a / "nll.npy"
    assert repr(run) == f"<run {run.run}: {run.label}, finished>"
    panels, _ = runs.panels([run])
    assert repr(panels) == "[<panel digits, 6,400 unique tokens: ar>]"
    assert len(run.curve.step) == len(run.curve.flops) and np.all(np.diff(run.curve.step) > 0)
    with pytest.raises(DlmError, match="no such directory"):
        runs.load(tmp_path / "nothing")


def test_every_unusable_run_is_listed_with_its_reason(tmp_path):
    good = write_run(tmp_path, AR, seed=0)
    torn = write_run(tmp_path, AR, seed=1, status=None)
    metrics = torn / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])  # kill -9 in the middle of a line
    write_run(tmp_path, AR, seed=2, status="diverged")
    early = write_run(tmp_path, AR, seed=3, status="failed")
    for name in ("config.json", "run.json", "metrics.jsonl"):  # it failed before it wrote them
        (early / name).unlink()
    (write_run(tmp_path, AR, seed=4) / "result.json").write_text('{"status": "fin')
    (write_run(tmp_path, AR, seed=5) / "config.json").unlink()
    broken = write_run(tmp_path, AR, seed=6) / "metrics.jsonl"
    broken.write_text("not json\n" + broken.read_text())
    null = write_run(tmp_path, AR, seed=7) / "result.json"
    edit(null, lambda result: result.update(validation_loss=None))
    (write_run(tmp_path, AR, seed=8) / "run.json").write_text("[1, 2]")
    empty = write_run(tmp_path, AR, seed=9)
    (empty / "metrics.jsonl").write_text("")
    edit(empty / "result.json", lambda result: None)

    panel, excluded = one_panel(tmp_path)
    assert [run.path for run in panel.families["ar"].best.runs] == [good]
    reasons = {run.label[-1]: reason for run, reason in excluded}
    for seed, words in {
        "1": "unfinished: no result.json: at step",
        "2": "diverged: loss above 3 log V",
        "3": "failed: loss above",
        "4": "unreadable: result.json is not readable JSON",
        "5": "unreadable: config.json is missing",
        "6": "unreadable: metrics.jsonl line 1 is not a JSON object",
        "7": "unreadable: result.json: validation_loss=None, must be a finite number",
        "9": "unreadable: metrics.jsonl has no evaluation row",
    }.items():
        assert reasons[seed].startswith(words)
    assert any(r.startswith("unreadable: run.json holds a list") for _, r in excluded)
    assert len(excluded) == 9
    assert panel.families["ar"].trials == 1


def test_a_step_logged_twice_counts_once(tmp_path):
    folder = write_run(tmp_path, AR)
    before = runs.load(folder)[0].curve
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:10] + lines[6:]) + "\n")
    edit(folder / "result.json", lambda result: None)
    np.testing.assert_array_equal(
        runs.load(folder)[0].curve.validation_loss, before.validation_loss
    )


# --- grouping -----------------------------------------------------------------------------------


def test_panels_hold_only_what_is_comparable(tmp_path):
    write_run(tmp_path, AR)
    write_run(tmp_path, AR, unique_tokens=12800)
    write_run(tmp_path, AR, fingerprint="e" * 64)
    panels, _ = runs.panels(runs.load(tmp_path))
    assert [(p.unique_tokens, p.fingerprint[0]) for p in panels] == [
        *((6400, "e"), (6400, "f")),
        (12800, "f"),
    ]


def test_one_objective_with_two_kinds_of_number_is_two_families(tmp_path):
    """A dual model's bound and its exact value are not compared as settings of one family."""
    write_run(tmp_path, AR, objective="dual")
    exact = write_run(tmp_path, AR, objective="dual", lr=1e-3, shift=-0.1)
    edit(exact / "result.json", lambda result: result.update(kind="exact"))
    families = one_panel(tmp_path)[0].families
    assert {name: (f.kind, len(f.settings), f.trials) for name, f in families.items()} == {
        "dual": ("upper bound", 1, 1),
        "dual-exact": ("exact", 1, 1),
    }
    records = runs.rows(runs.load(tmp_path))
    assert sorted(own_runs.families_of(records)) == ["dual", "dual-exact"]
    assert cross.name_of("dual-exact") == cross.name_of("dual") + " (exact)"
    panel = cross.against([one_panel(tmp_path)[0]], "dual-exact")[0]
    assert [f.name for f in cross.challengers(panel)] == ["dual"]


def test_the_best_setting_is_among_those_with_most_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, AR, seed=seed, lr=1e-3, shift=0.01)
        write_run(tmp_path, AR, seed=seed, lr=2e-3, shift=0.02)
    write_run(tmp_path, AR, lr=4e-3, shift=-0.05)  # lower, but a single seed
    write_run(tmp_path, AR, lr=8e-3, status="diverged")
    family = one_panel(tmp_path)[0].families["ar"]
    assert family.best.name == "optimizer.lr=0.001"
    assert [s.seeds for s in family.settings] == [3, 3, 1]
    assert family.trials == 4  # one that diverged was tried too


def test_one_run_in_two_experiments_is_not_two_seeds(tmp_path):
    write_run(tmp_path, AR)
    write_run(tmp_path, AR, experiment="other")
    panel, excluded = one_panel(tmp_path)
    assert panel.families["ar"].best.seeds == 1
    assert "the same setting and seed as other/" in excluded[0][1]


def test_a_setting_is_a_config_without_what_moves_no_number():
    config = {"train": {"seed": 3, "steps_per_call": 8, "batch_size": 4}, "mesh": {"data": 2}}
    assert runs.setting_of(config) == {"train": {"batch_size": 4}}
    assert config["train"]["seed"] == 3  # untouched


def test_the_table_has_every_run_and_reads_back(tmp_path):
    import pyarrow.parquet as pq

    write_run(tmp_path, AR)
    write_run(tmp_path, AR, seed=1, status=None)
    write_run(tmp_path, AR, seed=2, status="failed")
    loaded = runs.load(tmp_path)
    as_csv, as_parquet = runs.write_table(loaded, tmp_path)
    with open(as_csv, newline="") as file:
        text = list(csv.DictReader(file))
    table = pq.read_table(as_parquet).to_pylist()
    assert list(text[0]) == list(table[0]) == list(runs.COLUMNS)
    assert [row["status"] for row in text] == [run.status for run in loaded]
    finished = next(row for row in table if row["status"] == "finished")
    assert finished["validation_loss"] == pytest.approx(1.6, abs=1e-3)
    assert json.loads(finished["overrides"])["optimizer.lr"] == 2e-3
    assert {row["seed"] for row in table} == {0, 1, 2}


# --- frontier -----------------------------------------------------------------------------------


def test_the_frontier_is_the_lowest_mean_of_running_minima(tmp_path):
    rng = np.random.default_rng(3)
    for lr in (1e-3, 2e-3):
        for seed in range(3):
            noise = rng.normal(0, 0.05, 1000)
            law = AR if lr == 1e-3 else diffusion(3e11, 1.7)
            noisy = lambda c, law=law, noise=noise: law(c) + noise[: len(c)]  # noqa: E731
            write_run(tmp_path, noisy, seed=seed, lr=lr)
    family = one_panel(tmp_path)[0].families["ar"]
    edge = cross.frontier(family)
    for c, loss in zip(edge.compute, edge.loss, strict=True):
        means = [
            np.mean([r.curve.validation_loss[r.curve.flops <= c * 1.0001].min() for r in s.runs])
            for s in family.settings
        ]
        assert loss == pytest.approx(min(means), rel=1e-9)
    assert np.all(np.diff(edge.loss) <= 1e-12)
    early = edge.at(np.array([1e9, 1e10, 1e15]))  # nothing trained so little
    assert np.isnan(early[0]) and early[2] == pytest.approx(edge.loss[-1])


# --- crossover ----------------------------------------------------------------------------------


def test_the_planted_crossing_is_found(tmp_path):
    found = both(tmp_path, diffusion(1.2e12, 1.6), seeds=2)
    assert found.status == "crosses"
    assert found.compute == pytest.approx(1.2e12, rel=0.01)
    assert found.low == pytest.approx(found.compute) and found.high == pytest.approx(found.compute)
    assert (found.share, found.plateau) == (1.0, True)
    assert found.epochs == pytest.approx(120, rel=0.01)
    assert found.gap < 0 and found.trend is None
    panel, _ = one_panel(tmp_path)
    assert cross.crossovers(panel, "flops_6nd")[0].compute == pytest.approx(0.9 * found.compute)
    assert cross.crossovers(panel)[0] == found  # no draw is left to chance


def test_at_equal_settings_the_reference_is_the_run_that_shares_them(tmp_path):
    """A challenger at lr 4e-3 passes AR at 4e-3 before it passes the better AR at 1e-3."""
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked", lr=4e-3, epochs=400)
    write_run(tmp_path, autoregressive(1.6, 1e11), lr=1e-3, epochs=40)
    assert cross.equal_crossovers(one_panel(tmp_path)[0]) == []  # AR has no such run
    write_run(tmp_path, autoregressive(1.7, 1e11), lr=4e-3, epochs=40)
    panel, _ = one_panel(tmp_path)
    (best,), (equal,) = cross.crossovers(panel), cross.equal_crossovers(panel)
    assert (equal.reference, best.reference) == (cross.EQUAL, "ar")
    assert equal.compute == pytest.approx(1e12 * (1.7 / 1.6) ** (-1 / 0.06), rel=0.03)
    assert best.compute == pytest.approx(1e12, rel=0.03)


def test_seeds_that_differ_open_an_interval_around_the_crossing(tmp_path):
    for seed, shift in enumerate((-0.01, 0.0, 0.01)):
        write_run(tmp_path, AR, seed=seed, epochs=50)
        law = diffusion(1.0e12, 1.6)
        write_run(tmp_path, law, objective="masked", seed=seed, shift=shift)
    found = cross.crossovers(one_panel(tmp_path)[0])[0]
    assert found.low < 0.98e12 < found.compute < 1.02e12 < found.high < 1.3e12
    # The mean of three shifts is at its extreme in 1/27 < 5% of resamples; the next is 0.0067. Means
    # of three scatter too little by sqrt(2/3); t has the freedom of both families' seeds.
    shift = 0.01 * 2 / 3 * math.sqrt(3 / 2) * stats.t.ppf(0.95, 4) / stats.norm.ppf(0.95)
    assert found.high == pytest.approx(1e12 * (1 - shift / 1.6) ** (-1 / 0.06), rel=0.01)


def test_resamples_that_do_not_cross_open_the_interval_upwards(tmp_path):
    for seed, shift in enumerate((-0.05, 0.05)):
        write_run(tmp_path, AR, seed=seed, epochs=50)
        write_run(tmp_path, diffusion(1.2e12, 1.6), objective="masked", seed=seed, shift=shift)
    found = cross.crossovers(one_panel(tmp_path)[0])[0]
    assert found.status == "crosses" and found.high == math.inf
    assert found.share == pytest.approx(0.75, abs=0.05)  # both seeds the worse one: a quarter


def test_not_crossed_gives_the_gap_and_the_planted_trend(tmp_path):
    found = both(tmp_path, diffusion(4e12, 1.6), seeds=2)
    assert found.status == crossings.NEVER and found.compute is None and found.epochs is None
    assert found.gap == pytest.approx(1.6 * (0.5**-0.06 - 1), abs=2e-3)
    assert found.trend.compute == pytest.approx(4e12, rel=0.02)
    assert found.trend.exponent == pytest.approx(0.06, rel=0.01)
    assert found.trend.epochs == pytest.approx(400, rel=0.02)


def test_a_flat_trend_does_not_cross(tmp_path):
    found = both(tmp_path, lambda c: 1.7 + 0 * c)
    assert found.trend.compute == math.inf and found.trend.epochs is None
    assert found.low is None and found.share is None  # one seed: no interval


def test_below_from_the_start_and_no_plateau_are_said(tmp_path):
    found = both(tmp_path, lambda c: 1.0 + 0 * c)
    assert found.status == "below from the start" and found.compute == pytest.approx(1e10)
    write_run(tmp_path / "b", diffusion(1e12, 2.0), epochs=50)
    write_run(tmp_path / "b", diffusion(1e12, 1.9), objective="masked")
    assert not cross.crossovers(one_panel(tmp_path / "b")[0])[0].plateau


# --- final numbers ------------------------------------------------------------------------------


def test_the_final_difference_is_paired_over_windows(tmp_path):
    for seed, shift in enumerate((-0.004, 0.004)):
        write_run(tmp_path, AR, seed=seed, epochs=50, shift=shift)
        write_run(tmp_path, diffusion(1e12, 1.5), objective="masked", seed=seed, shift=shift)
    panel, _ = one_panel(tmp_path)
    found = cross.finals(panel)[0]
    a, b = ([np.load(r.nll_path) / 64 for r in f.best.runs] for f in panel.families.values())
    difference = np.mean(b, axis=0) - np.mean(a, axis=0)
    assert found.paired
    assert found.stderr_windows == pytest.approx(difference.std(ddof=1) / math.sqrt(50))
    assert found.stderr_seeds == pytest.approx(math.hypot(0.004, 0.004))
    assert found.comparison.difference == pytest.approx(difference.mean())
    assert found.comparison.proven == "first"
    assert not found.clustered
    first = panel.families["ar"].best.runs[0]
    np.save(first.path / "nll_documents.npy", np.arange(50) // 5)  # ten documents of five windows
    found = cross.finals(panel)[0]
    means = difference.reshape(10, 5).mean(1)
    assert found.clustered
    assert found.stderr_windows == pytest.approx(means.std(ddof=1) / math.sqrt(10))
    first.nll_path.unlink()
    found = cross.finals(panel)[0]
    assert not found.paired and found.stderr_windows == pytest.approx(math.hypot(0.02, 0.02))


def test_one_family_gives_no_comparison(tmp_path):
    write_run(tmp_path, AR)
    panel, _ = one_panel(tmp_path)
    assert cross.crossovers(panel) == [] and cross.finals(panel) == []


def test_the_quickstart_of_the_tests_has_two_panels(tmp_path):
    panels, excluded = runs.panels(runs.load(quickstart(tmp_path)))
    assert [p.corpus for p in panels] == ["digits", "stdlib"] and not excluded
    assert [p.families["ar"].trials for p in panels] == [3, 3]
