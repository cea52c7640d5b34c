"""Settings are compared by the numbers that decide between them: planted bounds, one noise for all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dlm import runs
from dlm.laws import crossover
from dlm.report import verdict
from dlm.runs import likelihoods
from dlm.runs.estimate import Estimate
from dlm.runs.likelihoods import Scored
from fake_runs import autoregressive, diffusion, write_run

SOME = 20  # of the 50 windows


def final(workdir, sampler: str = "random order", **numbers: tuple[float, str]) -> crossover.Final:
    """AR, exact, 1.5 nats per token, against masked diffusion, NELBO 1.55, with further numbers."""
    write_run(workdir, autoregressive(1.5, 1e12), objective="ar", final=1.5)
    masked = write_run(workdir, diffusion(1.2e12, 1.6), objective="masked", final=1.55)
    nll = np.load(masked / "nll.npy")[likelihoods.spread(SOME, 50)]
    scored = []
    for name, (value, kind) in numbers.items():
        estimate = Estimate(value, 0.03, kind, SOME * 64, 0.002, sampler)
        scored.append(Scored(name.replace("_", " "), estimate, SOME, nll + 64 * (value - 1.55)))
    if scored:
        likelihoods.write(masked, scored)
    (panel,), _ = runs.panels(runs.load(workdir))
    (only,) = crossover.finals(panel)
    return only


def test_a_loss_above_an_exact_one_shows_nothing_by_itself(tmp_path):
    found = final(tmp_path)
    assert (found.comparison.proven, found.tightened) == ("", False)
    assert found.comparison.difference == pytest.approx(0.05)


def test_a_tighter_bound_below_the_exact_loss_proves_the_model_better(tmp_path):
    found = final(tmp_path, orders_16=(1.42, "upper bound"), tangent_16=(1.40, "lower bound"))
    assert (found.comparison.proven, found.challenger_by) == ("first", "orders 16")
    assert found.challenger_estimate.tokens == found.reference_estimate.tokens == SOME * 64


def test_a_bound_from_below_above_the_exact_loss_proves_the_model_worse(tmp_path):
    found = final(tmp_path, orders_16=(1.62, "upper bound"), tangent_16=(1.58, "lower bound"))
    assert (found.comparison.proven, found.challenger_by) == ("second", "tangent 16")


def test_a_path_that_is_worse_proves_nothing_of_other_samplers_and_one_that_is_better_does(
    tmp_path,
):
    worse = final(tmp_path / "a", "confidence", path_confidence=(1.70, "exact"))
    assert worse.comparison.proven == ""
    better = final(tmp_path / "b", "confidence", path_confidence=(1.40, "exact"))
    assert (better.comparison.proven, better.challenger_by) == ("first", "path confidence")


def test_if_none_decides_the_tightest_bound_is_compared(tmp_path):
    found = final(tmp_path, orders_2=(1.54, "upper bound"), orders_16=(1.53, "upper bound"))
    assert (found.comparison.proven, found.challenger_by) == ("", "orders 16")


def test_a_damaged_number_is_left_out(tmp_path):
    final(tmp_path, orders_16=(1.42, "upper bound"))
    (path,) = tmp_path.rglob("nll-orders-16-on-20-*.npy")
    path.write_bytes(path.read_bytes()[:-8])
    (panel,), _ = runs.panels(runs.load(tmp_path))
    (found,) = crossover.finals(panel)
    assert not found.tightened
    (remark,) = [line for line in verdict.remarks([panel], []) if "damaged" in line]
    assert "nll-orders-16-on-20" in remark
    numbers = likelihoods.write(path.parent, [])  # a later write sets the damaged file aside
    assert likelihoods.read(numbers.parent) == []
    assert (path.parent / "likelihoods.damaged.json").exists()


def test_few_windows_and_samplers_of_several_tokens_a_call_decide_nothing(tmp_path, monkeypatch):
    parallel = {"sampler": "random order, 4 tokens a call"}
    found = final(tmp_path / "a", tangent_4=(1.9, "lower bound"), **parallel)
    assert not found.tightened
    monkeypatch.setattr("dlm.laws.final_numbers.LEAST_WINDOWS", SOME + 1)
    assert not final(tmp_path / "b", orders_16=(1.42, "upper bound")).tightened


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path, monkeypatch):
    final(tmp_path, orders_16=(1.42, "upper bound"))
    (folder,) = {path.parent for path in tmp_path.rglob("likelihoods.json")}
    (old,) = likelihoods.read(folder)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dlm.sealed.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        likelihoods.write(folder, [dataclasses.replace(old, nats=old.nats + 1)])
    (again,) = likelihoods.read(folder)
    np.testing.assert_array_equal(again.nats, old.nats)


def test_noise_that_seeds_share_is_not_averaged_and_a_part_of_the_split_has_its_own_error(tmp_path):
    write_run(tmp_path, autoregressive(1.5, 1e12), objective="ar", final=1.5)
    for seed, value in enumerate((1.40, 1.44)):
        folder = write_run(
            tmp_path, diffusion(1.2e12, 1.6), objective="masked", seed=seed, final=1.55
        )
        estimate = Estimate(value, 0.03, "upper bound", SOME * 64, 0.02, "random order")
        nats = np.load(folder / "nll.npy")[likelihoods.spread(SOME, 50)]
        scored = Scored("orders 16", estimate, SOME, nats + 64 * (value - 1.55))
        likelihoods.write(folder, [scored])
    (panel,), _ = runs.panels(runs.load(tmp_path))
    (found,) = crossover.finals(panel)
    assert found.challenger_estimate.mc_stderr == pytest.approx(0.02)  # not 0.02 / sqrt(2)
    assert found.challenger_estimate.stderr == pytest.approx(0.02)  # of 1.40 and 1.44
    ar = panel.families["ar"].best.runs[0]
    part = np.load(ar.path / "nll.npy")[likelihoods.spread(SOME, 50)] / 64
    assert found.reference_estimate.stderr == pytest.approx(part.std(ddof=1) / np.sqrt(SOME))
