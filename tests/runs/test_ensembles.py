"""Ensembles that are kept beside planted runs: whose they are, their FLOPs, and when they are stale."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from dlm import runs
from dlm.errors import DlmError
from dlm.runs import ensembles, likelihoods
from fake_runs import autoregressive, edit, write_run
from kept_ensembles import keep

AR = autoregressive(1.6, 1.5e11)


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        write_run(tmp_path, AR, seed=seed, epochs=50, shift=0.01 * seed)
    return tmp_path / "quickstart"


def by_seed(folder) -> list[runs.Run]:
    return sorted(runs.load(folder), key=lambda run: run.seed or 0)


def left_out(folder) -> str:
    """Why the only ensemble of a folder is not compared, in one line."""
    panels, excluded = runs.panels(runs.load(folder))
    assert not any(panel.ensembles for panel in panels)
    (reason,) = [reason for run, reason in excluded if run.path.parent.name == "ensembles"]
    assert "\n" not in reason
    return reason


def test_an_ensemble_is_a_rival_whose_compute_is_its_members_added_up(folder):
    members = by_seed(folder)
    keep(members, 1.5)
    keep(members[:2], 1.52)
    keep(members[1:], 1.51)
    (panel,), excluded = runs.panels(runs.load(folder))
    assert (list(panel.families), excluded) == (["ar"], [])
    assert list(panel.ensembles) == ["ar, ensemble of 2", "ar, ensemble of 3"]
    pairs, three = panel.ensembles.values()
    assert [s.name for s in pairs.settings] == [
        "seeds 0, 1"
    ]  # the first seeds, not the lowest loss
    assert (pairs.trials, three.kind, three.best.seeds) == (2, "exact", 1)
    result = three.best.runs[0].result
    for name in ("flops", "best_flops", "params"):
        assert result[name] == sum(run.result[name] for run in members)
    assert result["epochs"] == members[0].result["epochs"]
    assert three.best.runs[0].curve.flops.tolist() == [result["best_flops"]]


def test_an_ensemble_of_runs_that_are_not_asked_for_is_left_out(folder):
    keep(by_seed(folder), 1.5)
    (panel,), excluded = runs.panels(by_seed(folder)[:2])
    assert (panel.ensembles, excluded) == ({}, [])


def test_a_member_that_is_missing_damaged_or_changed_is_named(folder):
    members = by_seed(folder)
    kept = keep(members, 1.5)
    first, second, third = members
    edit(first.path / "result.json", lambda result: result.update(seconds=1.0))
    (second.path / "nll.npy").write_bytes(b"")
    shutil.rmtree(third.path)
    reason = left_out(folder)
    assert reason.startswith("stale: ")
    assert f"member {first.run} has another result than the one that was scored" in reason
    assert f"member {second.run} is unreadable: nll.npy is not as it was written" in reason
    assert f"member {third.run} is missing" in reason
    assert "score the ensemble again, or delete its folder" in reason
    shutil.rmtree(kept)
    assert all(run.path.parent.name != "ensembles" for run, _ in runs.panels(runs.load(folder))[1])


def test_a_damaged_ensemble_is_told(folder):
    kept = keep(by_seed(folder), 1.5)
    (kept / "nll.npy").write_bytes(b"")
    assert left_out(folder) == "unreadable: nll.npy is not as it was written: its sha256 differs"


def test_numbers_of_members_that_changed_are_removed_and_those_of_others_stay(folder):
    members = by_seed(folder)
    kept = keep(members, 1.5, orders_16=(1.4, "upper bound"))
    assert keep(members, 1.5) == kept and len(likelihoods.read(kept)) == 1
    edit(members[0].path / "result.json", lambda result: result.update(seconds=1.0))
    assert keep(members, 1.5) == kept and likelihoods.read(kept) == []


def test_runs_of_several_folders_are_kept_nowhere(folder, tmp_path):
    write_run(tmp_path, AR, experiment="other", seed=7, epochs=50)
    with pytest.raises(DlmError, match="must be in one"):
        ensembles.place(runs.load(tmp_path))


@pytest.mark.parametrize("other, words", [
    (dict(lr=1e-3), "optimizer.lr 0.002 and 0.001"),
    (dict(lr=1e-3, epochs=60), "optimizer.lr 0.002 and 0.001, and 1 other settings that differ"),
    (dict(objective="masked"), "objective"),
    (dict(corpus="stdlib"), "have corpus digits and stdlib"),
    (dict(fingerprint="e" * 64), "have fingerprint ffff"),
    (dict(unique_tokens=12800), "have unique_tokens 6400 and 12800"),
    (dict(seed=0), "both have seed 0"),
    (dict(status=None), "is unfinished: no result.json"),
    (dict(status="diverged"), "is diverged: loss above 3 log V; members must be finished"),
])  # fmt: skip
def test_runs_that_differ_in_more_than_their_seed_are_no_ensemble(tmp_path, other, words):
    first = write_run(tmp_path, AR, seed=0, epochs=50)
    second = write_run(tmp_path / "b", AR, **{"seed": 1, "epochs": 50} | other)
    (a,), (b,) = runs.load(first), runs.load(second)
    with pytest.raises(DlmError) as error:
        runs.check_seeds([a, b])
    assert words in str(error.value) and b.run in str(error.value)
    assert "\n" not in str(error.value)


def test_an_ensemble_of_one_is_the_run_itself(folder):
    (first, *_) = by_seed(folder)
    keep([first], first.result["validation_loss"])
    (panel,), _ = runs.panels(runs.load(folder))
    (one,) = panel.ensembles.values()
    own = one.best.runs[0]
    for name in ("validation_loss", "flops", "best_flops", "epochs", "params"):
        assert own.result[name] == first.result[name]
    np.testing.assert_allclose(np.load(own.path / "nll.npy"), np.load(first.path / "nll.npy"))
