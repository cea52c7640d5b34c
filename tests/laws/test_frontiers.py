"""The frontiers of measured losses, their crossing and its interval, against planted ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_laws_critical import AR, MASKED, pair

import planted
from dlm.laws import critical as crit
from dlm.laws import crossings, frontiers, measured
from dlm.laws import table as tables
from dlm.laws.frontiers import FamilyLosses, RunLosses, SettingLosses
from fake_runs import autoregressive, diffusion

C = np.geomspace(1e10, 2e12, 40)


def run(compute, loss) -> RunLosses:
    compute = np.asarray(compute, float)
    return RunLosses(compute, np.asarray(loss, float), compute / 1e10)


def family(*settings, name: str = "ar", **options) -> FamilyLosses:
    """Settings of lists of runs."""
    made = tuple(SettingLosses(tuple(seeds)) for seeds in settings)
    return FamilyLosses(name, "exact", made, len(made), 1e6, **options)


def single(compute, loss, name: str = "ar") -> FamilyLosses:
    """Runs of one loss each, every one a setting of its own."""
    return family(*([run([c], [v])] for c, v in zip(compute, loss, strict=True)), name=name)


# --- the frontier -------------------------------------------------------------------------------


def test_the_frontier_has_the_computes_at_which_it_falls_and_the_last():
    edge = frontiers.frontier(single([1e16, 3e16, 1e17, 1e18], [4.0, 4.1, 3.0, 3.2]))
    assert edge.compute == pytest.approx([1e16, 1e17, 1e18])
    assert edge.loss.tolist() == [4.0, 3.0, 3.0]
    assert edge.setting.tolist() == [0, 2, 2] and np.isnan(edge.stderr).all()
    assert float(edge.at(math.sqrt(1e16 * 1e17))) == pytest.approx(3.5)  # a line in log compute
    assert np.isnan(edge.at(1e15)) and float(edge.at(1e19)) == 3.0


def test_a_setting_counts_by_the_mean_of_its_seeds():
    """The single lowest run is no frontier: its twin is worse."""
    lucky, other = run([1e10, 1e11], [3.0, 2.0]), run([1e10, 1e11], [3.0, 2.8])
    edge = frontiers.frontier(family([lucky, other], [run([1e10, 1e11], [3.1, 2.5])]))
    assert edge.loss == pytest.approx([3.0, 2.4])
    assert edge.stderr[-1] == pytest.approx(0.4)
    best_of_two_lengths = family([run([1e10], [2.0]), run([1e11], [1.0])])
    assert frontiers.frontier(best_of_two_lengths).loss.tolist() == [1.5]  # once both have spent it


# --- the crossing -------------------------------------------------------------------------------


def test_frontiers_of_runs_cross_for_good_on_a_line_between_runs():
    a = single([1e16, 4e16, 1e17, 1e18], [4.0, 3.5, 3.0, 3.2])  # the last one is no better
    b = single([2e16, 6e16, 4e17, 2e18], [3.9, 3.2, 2.9, 2.8], "masked")
    found = crossings.crossover(a, b)
    # b is below a at 6e16 too, but a comes back at 1e17.
    # Past it b falls from 3.2 to 2.9 between 6e16 and 4e17, a stays at 3.0: a line in log C.
    assert (found.status, found.over) == (crossings.CROSSES, "")
    assert found.compute == pytest.approx(6e16 * (4e17 / 6e16) ** (2 / 3), rel=1e-9)
    assert (found.start, found.end) == (pytest.approx(2e16), pytest.approx(2e18))
    assert len(found.windows) == 2 and found.windows[1][0] == pytest.approx(found.compute)
    assert found.plateau and found.reference_end == pytest.approx(1e18)
    assert found.compute is not None and found.epochs == pytest.approx(found.compute / 1e10)
    back = crossings.crossover(b, a)
    assert (back.status, back.compute) == (crossings.BETWEEN, None)


@pytest.mark.parametrize("a, b, status", [
    (([1e17, 1e18], [4.0, 3.9]), ([1e16, 1e17, 1e18], [3.5, 3.4, 3.3]), crossings.FROM_START),
    (([1e17, 1e18], [4.0, 3.9]), ([1e16, 1e17, 1e18], [4.5, 4.4, 4.3]), crossings.NEVER),
    (([1e16, 1e18], [4.0, 3.0]), ([1e16, 1e18], [3.8, 3.4]), crossings.BETWEEN),
    (([1e16, 1e17], [4.0, 3.9]), ([1e18], [3.0]), crossings.TOO_FEW),
])  # fmt: skip
def test_every_status_has_its_case(a, b, status):
    found = crossings.crossover(single(*a), single(*b, "masked"))
    assert found.status == status
    assert (found.compute is not None) == (status == crossings.FROM_START)
    if status == crossings.FROM_START:
        assert found.compute == pytest.approx(1e17)  # only compute that both reached is compared
    assert (found.trend is not None) == (status in (crossings.NEVER, crossings.BETWEEN))


def test_equal_settings_are_the_challengers_best():
    a = FamilyLosses(
        "ar", "exact",
        (SettingLosses((run([1e10, 1e12], [2.0, 1.5]),), "lr 1"),
         SettingLosses((run([1e10, 1e12], [2.0, 1.8]),), "lr 2")),
        2, 1e6,
    )  # fmt: skip
    b = FamilyLosses(
        "masked", "", (SettingLosses((run([1e10, 1e12], [2.2, 1.6]),), "lr 2"),), 1, 1e6
    )
    equal = frontiers.equally_set(a, b)
    assert equal is not None and equal.family == "ar" + frontiers.AT_EQUAL
    assert crossings.crossover(equal, b).status == crossings.CROSSES
    assert crossings.crossover(a, b).status == crossings.NEVER
    assert frontiers.equally_set(equal, b) is None  # there is no other
    assert frontiers.equally_set(single([1e10], [2.0]), single([1e10], [2.0])) is None  # unknown


# --- tables -------------------------------------------------------------------------------------


def test_a_table_is_compared_for_each_number_of_unique_tokens():
    a = planted.table("data-constrained", AR, unique=(1e7, 1e8), family="ar")
    b = planted.table("data-constrained", MASKED, unique=(1e8, 1e9), family="masked")
    (found,) = measured.observed(a, b)
    assert found.unique_tokens == pytest.approx(1e8)
    assert (found.basis, found.trials, found.over) == (frontiers.FINAL, 25, "settings")
    assert measured.alone(a, b) == {"ar": [pytest.approx(1e7)], "masked": [pytest.approx(1e9)]}


def test_runs_whose_labels_differ_in_the_seed_are_one_setting():
    labels = ["ar seed=0", "ar seed=1", "ar lr=2 seed=0", "other"]
    t = tables.make([1e7] * 4, [1e9] * 4, [1e8] * 4, [3.0, 3.2, 3.05, 3.3], labels=labels)
    (losses,) = measured.losses(t, [1e8])
    assert sorted(len(setting.seeds) for setting in losses.settings) == [1, 1, 2]
    assert frontiers.frontier(losses).loss == pytest.approx([3.05])  # not the lowest run, 3.0
    again = tables.make(
        [1e7] * 2, [1e9] * 2, [1e8] * 2, [3.0, 3.2], labels=labels[:1] * 2, run="ab"
    )
    assert len(measured.losses(again, [1e8])[0].settings) == 2  # one seed twice: not two seeds
    rows = tables.make([1e7] * 2, [1e9, 2e9], [1e8] * 2, [3.0, 2.9], run=["x", "x"])
    assert measured.losses(rows, [1e8])[0].basis == frontiers.LISTED


# --- intervals ----------------------------------------------------------------------------------


def curves(seeds: int, rng: np.random.Generator) -> tuple[FamilyLosses, FamilyLosses]:
    """AR and diffusion that cross at 1e12 FLOPs, seeds shifted by 0.003, evaluations by 0.001."""
    made = []
    for name, law in (("ar", autoregressive(1.6, 1.5e11)), ("masked", diffusion(1e12, 1.6))):
        noise = 0.003 * rng.standard_normal((seeds, 1)) + 0.001 * rng.standard_normal((seeds, 40))
        made.append(family([run(C, law(C) + shift) for shift in noise], name=name))
    return made[0], made[1]


def held(pairs, truth: float) -> float:
    """The share of intervals that hold the truth."""
    found = [crossings.crossover(a, b) for a, b in pairs]
    ends = [(f.low, f.high) for f in found]
    return float(np.mean([low <= truth <= high for low, high in ends if low and high]))


def grids(count: int, unique: float):
    """Grids of final losses of the planted laws, nine sizes by nine numbers of epochs."""
    axes = {"sizes": np.geomspace(1e7, 1e9, 9), "epochs": tuple(2**k for k in range(9))}
    for seed in range(count):
        both = [
            planted.table(
                "data-constrained", v, noise=0.003, seed=2 * seed + k, unique=(unique,), **axes
            )
            for k, v in enumerate((AR, MASKED))
        ]
        yield tuple(measured.losses(t, [unique])[0] for t in both)


def test_few_seeds_widen_the_interval(monkeypatch):
    """Plain resampled means of three seeds hold the truth in seven cases of ten."""
    monkeypatch.setattr(crossings, "RESAMPLES", 200)
    rng = np.random.default_rng(0)
    assert held([curves(3, rng) for _ in range(20)], 1e12) >= 0.75


def test_the_frontiers_of_a_planted_grid_cross_where_its_laws_do(monkeypatch):
    """A grid of runs is no law: its spread holds the crossing nearly always."""
    monkeypatch.setattr(crossings, "RESAMPLES", 100)
    assert held(grids(6, 5e7), crit.critical(*pair(), 5e7).compute) >= 0.6


@pytest.mark.slow
def test_nine_intervals_in_ten_hold_the_crossing(monkeypatch):
    monkeypatch.setattr(crossings, "RESAMPLES", 400)
    for seeds in (2, 3, 5):
        rng = np.random.default_rng(seeds)
        share = held([curves(seeds, rng) for _ in range(200)], 1e12)
        print(f"{seeds} seeds: {share:.3f}", flush=True)
        assert 0.8 < share < 0.96
    for unique in (2.5e7, 5e7, 1e8):
        share = held(grids(30, unique), crit.critical(*pair(), unique).compute)
        print(f"spread, U = {unique:g}: {share:.3f}", flush=True)
        assert share > 0.8
