"""The best use of compute, where two laws cross, and what repetition is worth."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

import planted
from dlm.errors import DlmError
from dlm.laws import critical as crit
from dlm.laws import fits, forms, holdout, intervals, optimum
from dlm.laws import table as tables
from dlm.laws import worth as worths
from dlm.laws.compute_optimal import spend_all
from dlm.laws.critical import Constants
from dlm.laws.forms import LAWS
from dlm.laws.forms import law as named
from dlm.laws.robust_loss import RobustLoss

# Like AR and masked diffusion: the second starts higher and makes more of repetition.
AR = {"E": 1.84, "A": 290.0, "B": 787.0, "alpha": 0.31, "beta": 0.31, "R_D": 32.0, "R_N": 37.0}
MASKED = {"E": 1.98, "A": 251.0, "B": 1130.0, "alpha": 0.302, "beta": 0.302, "R_D": 511.0}
MASKED["R_N"] = 1304.0


def constants(values: dict[str, float], law: str = "data-constrained", **options) -> Constants:
    return Constants(named(law), values, **options)


def pair() -> tuple[Constants, Constants]:
    return constants(AR), constants(MASKED)


def samples_of(values: dict[str, float], count: int = 15, seed: int = 0) -> dict[str, np.ndarray]:
    """Coefficients that scatter by one percent."""
    rng = np.random.default_rng(seed)
    return {name: v * np.exp(0.01 * rng.standard_normal(count)) for name, v in values.items()}


# --- the best use of compute --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "chinchilla",
        "data-constrained",
        "power-decay",
        "over-fitting",
        "over-fitting-one",
        "data-growth",
    ],
)
def test_the_optimum_is_that_of_a_dense_search(name):
    law, values = named(name), planted.TRUTHS[name]
    N = np.geomspace(1e3, 1e13, 200_001)
    for C, U in ((1e17, 1e7), (1e19, 1e8), (1e21, 1e8), (1e20, 1e10)):
        D = C / (6 * N)
        loss = law.predict(values, N, D, np.minimum(U, D))
        found = spend_all(law, values, C, U, False)
        assert float(found.loss) == pytest.approx(np.nanmin(loss), rel=1e-9)
        assert float(found.params) == pytest.approx(N[np.nanargmin(loss)], rel=1e-3)
        assert float(found.epochs) == pytest.approx(max(C / 6 / found.params / U, 1), rel=1e-9)
        if not name.startswith("over-fitting"):
            np.testing.assert_array_equal(crit.optimal(law, values, C, U).loss, found.loss)


def test_where_training_on_does_harm_less_than_all_compute_is_spent():
    """Over-fitting: the optimum at C is the best at any compute up to C, and never rises."""
    law, values = named("over-fitting"), planted.TRUTHS["over-fitting"]
    C = np.geomspace(1e17, 1e23, 25)
    found, spent = (
        crit.optimal(law, values, C, 1e8),
        spend_all(law, values, C, 1e8, False),
    )
    assert (np.diff(spent.loss) > 0.01).any() and (np.diff(found.loss) <= 1e-7).all()
    N, D = np.meshgrid(np.geomspace(1e6, 1e11, 801), np.geomspace(1e7, 1e12, 801))
    loss = law.predict(values, N, D, np.minimum(1e8, D))
    for k in (4, 12, 24):
        best = np.nanmin(np.where(C[k] >= 6 * N * D, loss, np.inf))
        assert float(found.loss[k]) == pytest.approx(best, abs=2e-3)
        assert found.loss[k] <= best + 1e-4


def test_a_law_that_over_fits_does_not_cross_by_spending_too_much():
    """It stops at its best, and what ends above that never passes it."""
    over = constants(planted.TRUTHS["over-fitting"], "over-fitting")

    def best(f: Constants, C: float = 1e26) -> float:
        return float(crit.optimal(f.law, f.coefficients, C, 1e8).loss)

    def ending(above: float) -> Constants:
        return constants(MASKED | {"E": MASKED["E"] + best(over) - best(pair()[1]) + above})

    assert float(spend_all(over.law, over.coefficients, 1e26, 1e8, False).loss) > best(over) + 0.5
    found = crit.critical(over, ending(0.02), 1e8)
    assert found.status == "does not cross" and found.windows == ()
    low = ending(-0.1)
    crossing = crit.critical(over, low, 1e8)
    assert crossing.status == "crosses"
    assert best(low, crossing.compute) == pytest.approx(best(over, crossing.compute), abs=1e-4)


def test_every_window_is_told():
    """One that is below only in between does not have a critical compute."""
    a, b = pair()
    found = crit.critical(b, a, 1e8)
    C = crit.critical(a, b, 1e8, searched=found.searched).compute
    assert found.status == "below in between" and math.isnan(found.compute)
    ((low, high),) = found.windows
    assert (low, high) == (pytest.approx(found.searched[0]), pytest.approx(C, rel=1e-6))
    assert "the challenger is below from" in found.notes[0]


def test_with_data_to_spare_the_optimum_is_that_of_equation_4():
    law, C = named("data-constrained"), np.geomspace(1e16, 1e22, 5)
    found = crit.optimal(law, AR, C, 1e15)
    N, D = optimum.chinchilla_optimum(law.complete(AR), C)
    np.testing.assert_allclose(found.params, N, rtol=1e-5)
    np.testing.assert_array_equal(found.epochs, 1)
    dropped = crit.optimal(law, AR, C, 1e15, drop=True)
    np.testing.assert_allclose(dropped.loss + AR["E"], found.loss, rtol=1e-12)


def test_shapes_broadcast_and_each_is_as_alone():
    law, C, U = named("data-constrained"), np.array([[1e18], [1e20]]), np.array([1e7, 1e8, 1e9])
    grid = crit.optimal(law, AR, C, U)
    alone = [[float(crit.optimal(law, AR, c, u).loss) for u in U] for c in C[:, 0]]
    np.testing.assert_allclose(grid.loss, alone, rtol=1e-13)
    many = crit.optimal(law, {k: np.array([v, 1.1 * v]) for k, v in AR.items()}, 1e19, 1e8)
    assert many.loss.shape == (2,)
    assert many.loss[0] == pytest.approx(float(crit.optimal(law, AR, 1e19, 1e8).loss), rel=1e-13)


def test_a_law_without_a_size_term_has_no_best_size():
    with pytest.raises(DlmError, match="one-size has no size term"):
        crit.critical(*[constants(planted.TRUTHS["one-size"], "one-size")] * 2, 1e8)


# --- the crossing -------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [False, True])
def test_the_crossing_is_where_the_optima_are_equal(drop):
    a, b = pair()
    found = crit.critical(a, b, 1e8, drop=drop)
    assert (found.status, found.irreducible) == ("crosses", ("kept", "dropped")[drop])

    def gap(C: float) -> float:
        first, second = (crit.optimal(f.law, f.coefficients, C, 1e8, drop=drop) for f in (a, b))
        return float(second.loss - first.loss)

    assert gap(found.compute * 0.99) > 0 > gap(found.compute * 1.01)
    assert gap(found.compute) == pytest.approx(0, abs=1e-7)
    ends = [crit.optimal(f.law, f.coefficients, found.compute, 1e8, drop=drop) for f in (a, b)]
    assert found.epochs == tuple(float(e.epochs) for e in ends)
    assert found.params == tuple(float(e.params) for e in ends)
    assert math.isnan(found.low) and math.isnan(found.high) and found.notes == ()


def test_without_e_and_with_data_to_spare_the_crossing_has_a_closed_form():
    steep = {"E": 1.7, "A": 1500.0, "B": 6000.0, "alpha": 0.38, "beta": 0.4}
    for flat in ({"E": 2.0, "A": 200.0, "B": 500.0, "alpha": 0.3, "beta": 0.29}, planted.SEEN):
        a, b = constants(flat, "chinchilla"), constants(steep, "chinchilla")
        by_formula = crit.closed_form(a, b)
        assert by_formula == pytest.approx(crit.closed_form(b, a), rel=1e-9)
        found = crit.critical(a, b, 1e15, drop=True, searched=(1e12, 1e26))
        assert found.status == "crosses"
        assert found.compute == pytest.approx(by_formula, rel=1e-5)
        assert found.epochs == (1, 1)
    assert math.isnan(crit.closed_form(a, a))


def test_laws_that_do_not_cross_and_one_that_is_below_from_the_start():
    a, b = pair()
    for first, second, status in (
        (a, a, "does not cross"),
        (a, constants(AR | {"E": 1.85}), "does not cross"),
        (a, constants(AR | {"E": 1.83}), "below from the start"),
        (b, a, "below in between"),  # AR is below, until it is not
    ):
        found = crit.critical(first, second, 1e8)
        assert found.status == status
        assert math.isnan(found.compute) == (status != "below from the start")
    assert found.searched[0] < 1e12 and found.searched[1] > 1e22


def test_the_interval_resamples_both_laws_together():
    first = constants(AR, samples=samples_of(AR))
    second = constants(MASKED, samples=samples_of(MASKED, seed=1))
    found = crit.critical(first, second, 1e8)
    by_hand = [
        crit.critical(*(constants({k: v[s] for k, v in f.samples.items()}) for f in (first, second)),
                      1e8, searched=found.searched).compute
        for s in range(15)
    ]  # fmt: skip
    by_hand = np.nan_to_num(by_hand, nan=math.inf)
    assert found.share == np.isfinite(by_hand).mean()
    low, high = intervals.interval(by_hand)
    assert found.low == pytest.approx(low, rel=1e-6)
    assert found.high == pytest.approx(high, rel=1e-6)  # where some do not cross, perhaps infinite
    # The same draws for both: an AR beside itself, resampled alike, never crosses.
    assert crit.critical(first, first, 1e8).share == 0


def test_resamples_that_do_not_cross_open_the_interval():
    scatter = np.where(np.arange(20) < 4, 3.0, 1.98)  # one in five never comes below
    second = constants(MASKED, samples={k: np.full(20, v) for k, v in MASKED.items()})
    second.samples["E"] = scatter
    first = constants(AR, samples={k: np.full(20, v) for k, v in AR.items()})
    found = crit.critical(first, second, 1e8)
    assert (found.share, found.high) == (0.8, math.inf)
    assert found.low == pytest.approx(found.compute, rel=1e-6)


def test_a_planted_crossing_lies_within_its_interval():
    made = []
    for seed, truth in enumerate((AR, MASKED)):
        runs = planted.table(
            "data-constrained", truth, noise=0.003, seed=seed,
            sizes=np.geomspace(2e6, 1.3e9, 6), epochs=(1, 4, 16, 64, 256, 1000),
        )  # fmt: skip
        fit = fits.fit(named("data-constrained"), runs, loss=RobustLoss("gaussian"), starts=4)
        made.append(intervals.bootstrap(fit, 60))
    found, truth = crit.critical(*made, 1e8), crit.critical(*pair(), 1e8).compute
    assert found.low < truth < found.high < 1.2 * found.low
    assert (found.status, found.share) == ("crosses", 1)
    power = crit.critical_law(*made, (3e7, 1e8, 3e8))
    exact = crit.critical_law(*pair(), (3e7, 1e8, 3e8))
    assert power.exponent_low < exact.exponent < power.exponent_high
    assert power.intercept_low < exact.intercept < power.intercept_high


def test_the_power_law_is_the_line_through_the_crossings():
    U = (1e7, 1e8, 1e9)
    law = crit.critical_law(*pair(), U)
    logs = [math.log10(crit.critical(*pair(), u).compute) for u in U]
    assert law.exponent == pytest.approx((logs[2] - logs[0]) / 2, rel=1e-9)
    assert law.intercept == pytest.approx(np.mean(logs) - 8 * law.exponent, rel=1e-9)
    slope, start = law.inverse
    C = 10**law.intercept * 1e8**law.exponent
    assert slope * math.log10(C) + start == pytest.approx(8, rel=1e-12)
    assert math.isnan(law.exponent_low) and len(law.points) == 3
    with pytest.raises(DlmError, match="the laws cross at 0 of 2 values of U: no power law"):
        crit.critical_law(constants(AR), constants(AR), (1e7, 1e8))
    with pytest.raises(DlmError, match="cross at 1 of 1"):
        crit.critical_law(*pair(), (1e7,))


@pytest.mark.parametrize("U", [0, -1e8, math.nan, math.inf])
def test_unique_tokens_must_be_a_number_of_tokens(U):
    with pytest.raises(DlmError, match="must be a positive number of raw tokens"):
        crit.critical(*pair(), U)


def test_millions_are_suspected_and_named():
    with pytest.warns(UserWarning, match=r"write 1e\+08 for 100 million"):
        found = crit.critical(*pair(), 100)
    (note,) = found.notes
    assert "U is in raw tokens here" in note and "wrong by 10^13" in note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crit.critical(*pair(), 1e8)
        small = planted.table("chinchilla", sizes=(1e4, 1e5, 1e6), unique=(1e4,))
        fit = fits.Fit(named("chinchilla"), small, RobustLoss(), {}, planted.SEEN, 0.0, ())
        assert crit.millions(1e4, fit, fit) == ""  # runs of this scale have such data


# --- the paper's laws ---------------------------------------------------------------------------


def paper() -> tuple[Constants, Constants]:
    """As read off its figure 5; a and b are logarithms."""
    said = json.loads(planted.public("paper_recovered_laws.json").read_text())
    return tuple(
        constants({
            "E": c["E"], "A": math.exp(c["a"]), "B": math.exp(c["b"]),
            "alpha": c["alpha"], "beta": c["beta"],
            "R_D": c["R_D_star_digitised"], "R_N": c["R_N_star_digitised"],
        })
        for c in (said["AR"], said["MDM"])
    )  # fmt: skip


def figure_6b() -> dict:
    return json.loads(planted.public("paper_fig134_digitized.json").read_text())["fig6b"]


def test_the_papers_laws_match_100_million_tokens_with_its_sizes():
    for law, size in zip(paper(), (3.98e6, 0.686e6), strict=True):
        c = law.law.complete(law.coefficients)
        assert forms.matched_parameters(c, 1e8) == pytest.approx(size, rel=0.01)


def test_the_papers_critical_compute_is_that_of_its_figure_6b():
    dots = figure_6b()
    U = np.array(dots["dots_U_M"]) * 1e6
    law = crit.critical_law(*paper(), U)
    assert (law.irreducible, law.exponent) == ("kept", pytest.approx(2.335, abs=5e-4))
    away = np.abs(
        np.log10([p.compute / C for p, C in zip(law.points, dots["dots_C"], strict=True)])
    )
    assert away.max() < 0.08 and np.median(away) < 0.03  # decades
    assert law.exponent == pytest.approx(dots["ols_slope_logC_vs_logU"], abs=0.06)


def test_without_e_the_papers_exponent_is_lower():
    law = crit.critical_law(*paper(), np.array(figure_6b()["dots_U_M"]) * 1e6, drop=True)
    assert (law.irreducible, law.exponent) == ("dropped", pytest.approx(2.079, abs=5e-4))


# --- what repetition is worth -------------------------------------------------------------------


def test_a_law_that_needs_three_times_the_parameters_needs_three_times_the_compute():
    thrice = AR | {"A": AR["A"] * 3 ** AR["alpha"]}  # of 3N parameters what AR makes of N
    C = np.geomspace(1e15, 1e21, 6)
    found = worths.equivalence(constants(AR), constants(thrice), 1e8, C)
    np.testing.assert_allclose(found.ratio, 3, rtol=1e-4)
    assert found.epochs[0] == 1 < found.epochs[-1]
    assert np.isnan(found.low).all() and np.isnan(found.high).all()
    itself = worths.equivalence(constants(AR), constants(AR), 1e8, C)
    np.testing.assert_allclose(itself.ratio, 1, rtol=1e-4)
    never = worths.equivalence(constants(AR), constants(AR | {"E": 9.0}), 1e8, C)
    assert np.isinf(never.ratio).all()


def test_the_ratio_has_an_interval_and_is_one_at_the_crossing():
    a, b = constants(AR, samples=samples_of(AR)), constants(MASKED, samples=samples_of(MASKED))
    C = np.array([crit.critical(a, b, 1e8).compute])
    found = worths.equivalence(a, b, 1e8, C)
    assert found.ratio[0] == pytest.approx(1, rel=1e-4)
    assert found.low[0] < 1 < found.high[0]


@pytest.mark.parametrize("law, name, worth, growth", [
    ("data-constrained", "R_D", lambda r, v: math.exp(-r / v), 1),
    ("data-growth", "R_D", lambda r, v: math.exp(-r / v), 1 / 2),  # a tenth of the unique tokens
    ("geometric", "k_D", lambda r, v: math.exp(-r * v), 1),
    ("power-decay", "p_D", lambda r, v: (1 + r) ** -v, 1),
])  # fmt: skip
def test_at_the_half_life_one_more_repetition_is_worth_half(law, name, worth, growth):
    values = planted.TRUTHS[law]
    known = constants(values, law, samples=samples_of(values))
    half, low, high = worths.half_life(known, 2e8, 1e7)
    repetition = values[name] * growth
    assert worth(half, repetition) == pytest.approx(0.5, rel=1e-12)
    assert low < half < high
    assert math.isnan(worths.half_life(constants(values, law), 2e8, 1e7)[1])
    with pytest.raises(DlmError, match="chinchilla has no decay of repeated data"):
        worths.half_life(constants(planted.SEEN, "chinchilla"), 2e8, 1e7)


@pytest.mark.parametrize("law", [n for n in LAWS if not n.startswith("chinchilla")])
def test_epochs_within_is_where_repeating_costs_that_much(law):
    f, N, U = constants(planted.TRUTHS[law], law), 1e8, 1e8

    def cost(epochs: float) -> float:
        fresh, repeated = (f.law.predict(f.coefficients, N, U * epochs, u) for u in (U * epochs, U))
        return float(repeated - fresh)

    found = worths.epochs_within(f, N, U, 0.05)
    if law == "size-decay":  # there only U_N is lost, and more data is worth all of itself
        assert cost(found) == pytest.approx(0.05, abs=1e-5)
        return
    assert 1 < found < 1000 and cost(found) == pytest.approx(0.05, abs=1e-4)
    assert cost(found * 0.98) < 0.05 < cost(found * 1.02)
    assert worths.epochs_within(f, N, U, 100.0) == math.inf
    assert worths.epochs_within(f, N, U, -1.0) == 1.0


# --- three approaches to the optimum, and held-out runs -----------------------------------------


def isoflops(noise: float) -> tables.Table:
    """Seven sizes around the optimum at each of six budgets, one epoch."""
    law = named("chinchilla")
    C, shift = planted.grid(np.geomspace(1e17, 1e20, 6), np.linspace(-1.2, 1.2, 7))
    N = optimum.chinchilla_optimum(law.complete(planted.SEEN), C)[0] * np.exp(shift)
    D = C / 6 / N
    loss = law.predict(planted.SEEN, N, D, D)
    return tables.make(N, D, D, loss * np.exp(noise * np.random.default_rng(2).standard_normal(42)))


def test_three_approaches_agree_on_a_planted_law():
    runs = isoflops(1e-4)
    a = planted.SEEN["beta"] / (planted.SEEN["alpha"] + planted.SEEN["beta"])
    fit = fits.fit(named("chinchilla"), runs, loss=RobustLoss("gaussian"), starts=8)
    found = optimum.approaches(intervals.bootstrap(fit, 50), 50)
    assert [e.value for e in found] == pytest.approx([a] * 3, abs=0.03)
    isoflop, law = found[1], found[2]
    assert (isoflop.points, law.points) == (6, 42)
    assert law.low < a < law.high and isoflop.low < isoflop.value < isoflop.high
    N = optimum.chinchilla_optimum(named("chinchilla").complete(planted.SEEN), 1e19)[0]
    assert isoflop.constant * 1e19**isoflop.value == pytest.approx(N, rel=0.1)
    assert law.constant * 1e19**law.value == pytest.approx(N, rel=0.1)


def test_a_vertex_outside_the_sizes_trained_does_not_count():
    runs = isoflops(0.0)
    middle = optimum.chinchilla_optimum(named("chinchilla").complete(planted.SEEN), runs.flops)[0]
    small = runs.only(runs.N / middle < 0.9)
    assert optimum.isoflop(runs, 0).points == 6
    none = optimum.isoflop(small, 10)
    assert math.isnan(none.value)
    assert none.note == "6 budgets, 0 with an inside minimum, too few points"


@pytest.mark.parametrize("step, shake", [
    (1.07, 0.0), (1.07, 0.005), (1.15, 0.03), (1.3, 0.03), (1.67, 0.12), (2.0, 0.12), (10.0, 0.12),
])  # fmt: skip
def test_budgets_are_parted_at_gaps(step, shake):
    """Compute within a budget may drift: what counts is how far the next budget is."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        C = np.repeat(1e18 * step ** np.arange(6), 7) * np.exp(rng.uniform(-shake, shake, 42))
        order = rng.permutation(42)
        parts = optimum.by_gaps(C[order])
        assert [sorted(order[p] // 7) for p in parts] == [[k] * 7 for k in range(6)]


def test_compute_without_gaps_is_no_budget_and_a_single_budget_is_one():
    rng = np.random.default_rng(0)
    assert [len(p) for p in optimum.by_gaps(np.exp(rng.uniform(40, 50, 2000)))] == [2000]
    assert [len(p) for p in optimum.by_gaps([1e18, 1.14e18, 1.3e18])] == [3]
    assert [p.tolist() for p in optimum.by_gaps([5.0])] == [[0]]
    N, D = np.geomspace(1e7, 1e9, 300), np.geomspace(1e9, 1e10, 300)
    spread = optimum.isoflop(tables.make(N, D, D, np.linspace(3, 2, 300)), 10)
    assert spread.note.startswith("no budget of three sizes or more in the runs of 6e+16 to 6e+19")


def test_a_budget_column_parts_what_gaps_do_not():
    runs = isoflops(0.0)
    close = dataclasses.replace(runs, flops=np.geomspace(1e18, 1.2e18, 42))  # all within a few %
    assert len(optimum.budgets(close)) == 1
    budget = np.repeat(np.arange(6.0), 7)
    assert len(optimum.budgets(dataclasses.replace(close, budget=budget))) == 6
    budget[:7] = np.nan  # of no budget
    named_ones = optimum.budgets(dataclasses.replace(close, budget=budget))
    assert [rows[0] for rows in named_ones] == [7, 14, 21, 28, 35]
    kept = dataclasses.replace(close, budget=budget).only(np.arange(42) > 20)
    assert len(optimum.budgets(kept)) == 3


def test_a_budget_column_is_read_and_may_be_empty_in_a_row(tmp_path):
    lines = ["params,tokens,loss,budget", "1e7,1e9,3.1,1e18", "2e7,5e8,3.0,1e18", "3e7,4e8,3.2,"]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    (runs,) = tables.read(tmp_path / "runs.csv")
    np.testing.assert_array_equal(runs.budget, [1e18, 1e18, np.nan])
    assert not any("budget" in note for note in runs.notes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss, minimum", [
    (lambda z: 3 + 0 * z, False), (lambda z: 3 - 1e-3 * z + 1e-9 * z**2, False),
    (lambda z: 3 - 0.1 * z + 1e-3 * z**2, False), (lambda z: 3 - 0.1 * z**2, False),
    (lambda z: 3 - 0.1 * z + 0.04 * z**2, False), (lambda z: 3 - 0.1 * z + 0.1 * z**2, True),
])  # fmt: skip
def test_a_parabola_that_hardly_bends_or_turns_outside_has_no_minimum(loss, minimum):
    z = np.linspace(-1, 1, 7)
    N = 1e8 * np.exp(z)
    runs = tables.make(N, 1e18 / 6 / N, 1e18 / 6 / N, loss(z))
    log_size, inside = optimum.parabola_vertices(runs, np.arange(7), np.ones((1, 7)))
    assert inside[0] == minimum and np.isfinite(log_size).all()
    if minimum:
        assert np.exp(log_size[0]) == pytest.approx(1e8 * np.exp(0.5))


def test_resampled_exponents_are_those_of_each_weighted_table():
    """All resamples at once, against one at a time by NumPy's own fits."""
    runs = isoflops(0.01)
    found = optimum.isoflop(runs, 40)
    slopes = []
    for w in intervals.weights_of(runs, 40, 0):
        tops = []
        for rows in np.split(np.arange(42), 6):
            x, some = np.log(runs.N[rows]), w[rows] > 0
            if len(np.unique(x[some])) < 3:
                continue
            a, b, _ = np.polyfit(x - x.mean(), runs.loss[rows], 2, w=np.sqrt(w[rows]))
            at = x.mean() - b / (2 * a)
            if a > 0 and x.min() <= at <= x.max():
                tops.append((np.log(runs.flops[rows[0]]), at))
        slopes.append(np.polyfit(*np.array(tops).T, 1)[0] if len(tops) > 1 else math.nan)
    assert (found.low, found.high) == pytest.approx(intervals.interval(np.array(slopes)), rel=1e-9)


def test_public_isoflop_tables_give_their_known_minima():
    for name, exponent, constant in (
        ("iso_centred", 0.451613, 0.62071), ("iso_drift", 0.451124, 0.629658)
    ):  # fmt: skip
        runs = tables.one(planted.public(f"faults/tables/{name}.csv"))
        found = optimum.isoflop(runs, 0)
        assert (found.value, found.constant) == pytest.approx((exponent, constant), rel=1e-5)
        assert found.note == "5 budgets, 5 with an inside minimum"
    runs = tables.one(planted.public("faults/tables/marin8003.csv"))
    weights = np.ones((1, len(runs)))
    D = []
    for rows in optimum.budgets(runs):
        log_size, inside = optimum.parabola_vertices(runs, rows, weights)
        assert inside.all()
        D.append(np.exp(np.log(runs.flops[rows]).mean() - log_size[0]) / 6)
    assert pytest.approx([2.84e9, 5.08e9], rel=2e-3) == D
    assert optimum.isoflop(runs, 0).note == "2 budgets, 2 with an inside minimum"


def test_a_true_law_predicts_what_was_held_out_and_a_wrong_one_does_not():
    runs = planted.table("data-decay", noise=0.003)

    def by(name):
        def make(t: tables.Table) -> fits.Fit:
            return fits.fit(named(name), t, loss=RobustLoss("gaussian"), starts=4)

        return holdout.holdout(runs, make, "epochs", 16)

    true, wrong = by("data-decay"), by("chinchilla")
    assert (true.fitted, true.held_out, true.cut) == (45, 30, 16)
    assert true.rms < 0.01 and abs(true.bias) < 0.01
    assert wrong.rms > 5 * true.rms and wrong.bias < 0  # repeated data taken for fresh
    assert wrong.bias_stderr > 0
    with pytest.raises(DlmError, match="holdout epochs=256: .* must leave runs on both sides"):
        holdout.holdout(runs, by, "epochs", 256)
    with pytest.raises(DlmError, match="holdout axis 'tokens': must be one of flops, epochs"):
        holdout.holdout(runs, by, "tokens", 256)
