"""Every number for a likelihood, by enumeration: 3 symbols, 4 tokens, all strings, all orders."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config, objectives
from dlm.config.family import PATHS
from dlm.config.method import BOUNDS, Method
from dlm.errors import DlmError
from dlm.evaluation import likelihood, score
from dlm.model import keys
from dlm.objectives import checks, common, reveal
from dlm.runs.likelihoods import spread
from tolerances import FLOAT64, NATS, PROBABILITY

V, L = checks.VOCABULARY, checks.LENGTH
REVEALING = {
    "masked": dict(name="masked"),
    "flow": dict(name="flow", path="mask"),
    "block": dict(name="block", block=2),
}


@functools.cache
def bench(name: str, seed: int = 0) -> checks.Bench:
    """A random model of a family; other seeds are other models of one family."""
    b = checks.bench(objectives.make(config.objective(**REVEALING.get(name, dict(name=name))), V))
    return b._replace(params=b.network.init(jax.random.key(seed))) if seed else b


@functools.cache
def log_p_of_orders(name: str) -> np.ndarray:
    """log p of every string in every order, [orders, 81]: a chain of conditionals, token by token."""
    b, known = bench(name), bench(name).objective.conditionals
    within = list(itertools.permutations(range(known.part or L)))
    orders = [
        [i + part * len(one) for part, one in enumerate(ones) for i in one]
        for ones in itertools.product(within, repeat=L // len(within[0]))
    ]

    @jax.jit
    def log_p(hidden):
        logits = known.logits(b.network.apply, b.params, b.strings, hidden)
        return common.at_token(jax.nn.log_softmax(logits), b.strings)

    total = np.zeros((len(orders), len(b.strings)))
    for row, order in enumerate(orders):
        hidden = np.ones((len(b.strings), L), bool)
        for position in order:
            total[row] += np.asarray(log_p(hidden))[:, position]
            hidden[:, position] = False
    return total


def exact(log_p: np.ndarray) -> np.ndarray:
    """-log of the mean probability over all orders."""
    return -(np.logaddexp.reduce(log_p, axis=0) - math.log(len(log_p)))


@pytest.mark.parametrize("name", REVEALING)
def test_an_order_is_scored_as_the_chain_of_its_conditionals(name):
    """Under each key one of the orders' chains, and over keys all of them."""
    b, table = bench(name), log_p_of_orders(name)
    known = b.objective.conditionals

    @jax.jit
    def score_one(key):
        rows = keys.RowKeys(key, jnp.zeros(81, jnp.int32), 1)  # one order for all strings
        return likelihood.random_order_nll(known, b.network.apply, b.params, b.strings, rows)

    seen = set()
    for k in range(8 * len(table)):
        nats = np.asarray(score_one(jax.random.key(k)), np.float64)
        row = int(np.argmin(np.abs(nats + table).sum(1)))
        np.testing.assert_allclose(nats, -table[row], rtol=NATS)
        seen.add(row)
    assert len(seen) == len(table)


@pytest.mark.parametrize("name", REVEALING)
def test_random_order_probabilities_sum_to_one_and_the_nelbo_is_their_mean(name):
    b, table = bench(name), log_p_of_orders(name)
    assert abs(np.exp(-exact(table)).sum() - 1) < PROBABILITY
    draws = np.stack([np.asarray(b.nll(b.params, b.strings, jax.random.key(k), 32).nats, np.float64)
                      for k in range(12)])  # fmt: skip
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert np.mean(np.abs(draws.mean(0) + table.mean(0)) < 3.5 * error + 1e-4) > 0.95


@pytest.mark.parametrize("name", ["masked", "block"])
def test_bounds_close_in_on_the_likelihood_from_both_sides_as_orders_are_added(name):
    """Their expectations, over all draws of K orders with replacement."""
    table = log_p_of_orders(name)
    few = table[:: len(table) // 4]  # a family that has these orders alone
    truth, above, below = exact(few), [], []
    for count in (1, 2, 3, 4):
        draws = [few[list(rows)] for rows in itertools.product(range(len(few)), repeat=count)]
        above.append(np.mean([likelihood.order_bound(d) for d in draws], axis=0))
        if count > 1:
            one = [_tangent_alone(d) for d in draws]
            below.append(np.mean(one, axis=0))
    np.testing.assert_allclose(above[0], -few.mean(0), rtol=FLOAT64)
    for first, second in itertools.pairwise(above):
        assert (second < first).all()
    for first, second in itertools.pairwise(below):
        assert (second > first).all()
    assert (above[-1] > truth).all() and (below[-1] < truth).all()


def _tangent_alone(log_p: np.ndarray) -> np.ndarray:
    """The tangent bound of each string by itself, without other windows to choose a factor."""
    others = np.stack([
        -likelihood.order_bound(np.delete(log_p, k, axis=0)) for k in range(len(log_p))
    ])  # fmt: skip
    return likelihood.tangent(log_p, others).mean(0)


@pytest.mark.parametrize("name", REVEALING)
def test_all_orders_at_once_meet_the_likelihood_from_both_sides(name):
    table = log_p_of_orders(name)
    np.testing.assert_allclose(likelihood.order_bound(table), exact(table), rtol=FLOAT64)
    met = likelihood.tangent(table, -exact(table)).mean(0)
    np.testing.assert_allclose(met, exact(table), rtol=FLOAT64)


def test_a_factor_from_other_windows_tightens_the_tangent_bound_and_keeps_it_a_bound():
    """Planted: likelihoods that scatter by 2 nats, as over orders of 64 tokens."""
    rng = np.random.default_rng(0)
    log_p = 2.0 * rng.standard_normal((8, 4000)) - 100.0
    truth = 100.0 - 2.0  # the mean of exp of a normal of deviation 2 is e^2 times that of its mean
    with_factor, alone = likelihood.tangent_bound(log_p), _tangent_alone(log_p)
    assert alone.mean() < with_factor.mean() < truth
    assert truth < likelihood.order_bound(log_p).mean() < 100.0


@pytest.mark.parametrize("bound", [likelihood.order_bound, likelihood.tangent_bound])
def test_the_monte_carlo_error_of_a_bound_is_that_of_drawing_it_again(bound):
    rng = np.random.default_rng(1)
    draws = [0.5 * rng.standard_normal((8, 64)) for _ in range(300)]
    spread = np.var([bound(d).mean() for d in draws])
    told = np.mean([likelihood.jackknife(bound, d).sum() / 64**2 for d in draws])
    assert 0.6 < told / spread < 1.7


# --- paths ----------------------------------------------------------------------------------------


@functools.cache
def _path_program(name: str, path: str):
    b = bench(name)

    @jax.jit
    def nats(tokens_per_call):
        budget = 1.0  # of two of the four tokens, mostly
        known, apply = b.objective.conditionals, b.network.apply
        return likelihood.path_nll(known, apply, b.params, b.strings, path, tokens_per_call, budget)

    return nats


@functools.cache
def path_nats(name: str, path: str, tokens_per_call: int) -> np.ndarray:
    """Nats of every string along a path, [81]."""
    return np.asarray(_path_program(name, path)(tokens_per_call), np.float64)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", REVEALING)
def test_along_every_path_the_probabilities_of_all_strings_sum_to_one(name, path):
    for tokens_per_call in (1, 2, 3, 4):
        nats = path_nats(name, path, tokens_per_call)
        assert abs(np.exp(-nats).sum() - 1) < PROBABILITY


def test_a_path_that_looks_at_hidden_tokens_is_caught_by_the_sum(monkeypatch):
    """Planted: positions chosen by the probability of the true token."""
    b = bench("masked")

    def cheat(path, logits, hidden, calls_left, budget=0.1, block=8):
        true = common.at_token(jax.nn.log_softmax(logits), b.strings)
        return reveal._first(true, hidden, calls_left)

    monkeypatch.setattr(likelihood, "next_on_path", cheat)
    how = (b.objective.conditionals, b.network.apply, b.params, b.strings, "confidence")
    nats = jax.jit(lambda: likelihood.path_nll(*how))()
    assert np.exp(-np.asarray(nats, np.float64)).sum() > 1.01


@pytest.mark.parametrize(
    "name, path, tokens_per_call",
    [
        ("masked", "confidence", 1),
        ("masked", "least-entropy", 2),
        ("masked", "entropy", 1),
        ("block", "confidence", 2),
    ],
)
def test_the_sampler_of_a_path_draws_each_string_as_often_as_its_likelihood_says(
    name, path, tokens_per_call
):
    """The statistic of Pearson over 81 strings, within 5 of its standard deviations."""
    b, count = bench(name), 8192
    part = b.objective.conditionals.part or L
    steps = -(-part // tokens_per_call) * (L // part)
    prompt = jnp.zeros((count, 0), jnp.int32)

    @jax.jit
    def sample(key):
        how = dict(order=path, steps=steps, budget=1.0)
        return b.objective.sample(b.network, b.params, key, prompt, L, **how)

    drawn = np.asarray(sample(jax.random.key(1)))
    numbers = np.bincount(drawn @ V ** np.arange(L)[::-1], minlength=81)
    expected = count * np.exp(-path_nats(name, path, tokens_per_call))
    rare = expected < 5
    numbers = np.append(numbers[~rare], numbers[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    statistic = np.sum((numbers - expected)[expected > 0] ** 2 / expected[expected > 0])
    freedom = len(expected) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_left_to_right_is_autoregression_where_a_model_is_one():
    """Blocks of one token, and any order asked from left to right, have the likelihood of AR."""
    one = objectives.make(config.objective("block", block=1), V)
    b = checks.bench(one)
    known = one.conditionals
    how = (known, b.network.apply, b.params, b.strings, "left-to-right")
    path = jax.jit(lambda: likelihood.path_nll(*how))()
    nll = b.nll(b.params, b.strings, jax.random.key(0), 1).nats
    np.testing.assert_allclose(path, nll, rtol=NATS)
    ar, asked = bench("ar"), bench("any_order").objective.conditionals
    order = jnp.broadcast_to(jnp.arange(L), ar.strings.shape)
    score_in_order = jax.jit(functools.partial(asked.token_nll, ar.network.apply))
    nats = score_in_order(ar.params, ar.strings, order).sum(-1)
    np.testing.assert_allclose(
        nats, ar.nll(ar.params, ar.strings, jax.random.key(0), 1).nats, rtol=NATS
    )


# --- ensembles ------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_probability_of_each_token_and_sums_to_one():
    several = [bench("masked", seed) for seed in (1, 2, 3)]
    known = several[0].objective.conditionals
    apply = likelihood.mean_probability([b.network.apply for b in several], V)
    params = likelihood.joint([b.params for b in several])
    strings = several[0].strings
    hidden = jnp.ones(strings.shape, bool).at[:, 1].set(False)
    each = [
        jax.nn.softmax(known.logits(b.network.apply, b.params, strings, hidden)) for b in several
    ]
    mixed = jax.nn.softmax(known.logits(apply, params, strings, hidden))
    np.testing.assert_allclose(mixed, sum(each) / 3, rtol=NATS)
    nats = jax.jit(lambda: likelihood.path_nll(known, apply, params, strings, "confidence"))()
    assert abs(np.exp(-np.asarray(nats, np.float64)).sum() - 1) < PROBABILITY


def test_an_ensemble_of_ar_models_is_exact_and_below_the_mean_of_its_members():
    seeds = (1, 2, 3)
    strings = np.asarray(bench("ar").strings)
    nats = scored("ar", Method(), seeds, strings)["exact"].nats
    assert abs(np.exp(-nats).sum() - 1) < PROBABILITY
    each = [scored("ar", Method(), (seed,), strings)["exact"].nats for seed in seeds]
    assert (nats < np.mean(each, axis=0)).all()  # -log is convex
    first = np.stack([np.exp(-nats.reshape(V, -1)) for nats in (nats, *each)]).sum(-1)
    np.testing.assert_allclose(first[0], first[1:].mean(0), rtol=NATS)  # the first token alone


def test_bounds_of_an_ensemble_lie_below_the_mean_of_its_members_in_the_same_orders():
    method, seeds = Method("orders", orders=4), (1, 2)
    both = scored("masked", method, seeds)
    each = [scored("masked", method, (seed,))["nelbo"].nats for seed in seeds]
    assert [both[name].estimate.kind for name in ("orders", "nelbo")] == ["upper bound"] * 2
    assert (both["nelbo"].nats <= np.mean(each, axis=0) * (1 + NATS)).all()
    assert (both["orders"].nats <= both["nelbo"].nats).all()


# --- windows of a split ---------------------------------------------------------------------------

WINDOWS = np.random.default_rng(5).integers(0, V, (24, L), dtype=np.int32)
DOCUMENTS = np.arange(24) // 2


def member(objective: config.Objective, params) -> likelihood.Member:
    evaluation = config.Evaluation(batch_size=16)
    c = config.Config(model=checks.MODEL, objective=objective, evaluation=evaluation)
    return likelihood.Member(c, params)


def scored(name: str, method: Method, seeds=(0,), windows=WINDOWS, tell=score.silent, **options):
    members = []
    for seed in seeds:
        b = bench(name, seed)
        c = config.objective(**(REVEALING.get(name, dict(name=name)) | options))
        members.append(member(c, b.params))
    documents = np.arange(len(windows)) // 2
    return likelihood.score_windows(members, V, windows, documents, method, tell)


@pytest.mark.parametrize("name, bound", [("ar", "nelbo"), ("masked", "orders"), ("masked", "path")])
def test_the_share_of_a_score_that_is_done_is_told_up_to_the_whole(name, bound):
    shares: list[float] = []
    scored(name, Method(bound, orders=2), tell=shares.append)
    whole = 2 if bound == "orders" else 1
    batches = -(-len(WINDOWS) // 16)
    steps = [k / (batches * whole) for k in range(1, batches * whole + 1)]
    assert set(shares) <= set(steps) and shares == sorted(shares) and shares[-1] == 1


def test_the_share_of_a_nelbo_follows_the_error_that_is_left():
    shares: list[float] = []
    scored("masked", Method("nelbo", mc_stderr=0.02), tell=shares.append)
    assert all(0 < share <= 1 for share in shares) and 0.8 < shares[-1] <= 1


def test_windows_get_what_their_strings_have_with_kinds_and_errors():
    numbers = windows_numbers()
    table = -exact(log_p_of_orders("masked"))[numbers]
    found = scored("masked", Method("orders", orders=16))
    assert list(found) == ["orders", "nelbo", "tangent"]
    kinds = [found[name].estimate.kind for name in ("nelbo", "orders", "tangent")]
    assert kinds == ["upper bound", "upper bound", "lower bound"]
    truth = -table.mean() / L
    for name, side in (("nelbo", 1), ("orders", 1), ("tangent", -1)):
        estimate = found[name].estimate
        assert estimate.tokens == WINDOWS.size and estimate.sampler == "random order"
        assert 0 < estimate.mc_stderr < 0.05 and estimate.stderr > estimate.mc_stderr
        assert side * (estimate.value - truth) > -3 * estimate.mc_stderr
    assert found["orders"].estimate.value < found["nelbo"].estimate.value
    path = scored("masked", Method("path", path="left-to-right"))["path"]
    assert path.estimate.kind == "exact" and path.estimate.mc_stderr == 0
    np.testing.assert_allclose(
        path.nats, path_nats("masked", "left-to-right", 1)[numbers], rtol=NATS
    )
    np.testing.assert_allclose(path.estimate.value, path.nats.mean() / L, rtol=FLOAT64)


def windows_numbers() -> np.ndarray:
    """Which of all strings each window is."""
    return WINDOWS @ V ** np.arange(L)[::-1]


def test_exact_objectives_give_their_likelihood_whatever_is_asked():
    for bound in BOUNDS:
        found = scored("ar", Method(bound))
        assert list(found) == ["exact"] and found["exact"].estimate.kind == "exact"
    b = bench("ar")
    nll = np.asarray(b.nll(b.params, b.strings, jax.random.key(0), 1).nats)
    np.testing.assert_allclose(found["exact"].nats, nll[windows_numbers()], rtol=NATS)


def test_passes_are_added_until_the_monte_carlo_error_is_small_enough():
    wide = scored("masked", Method("nelbo", mc_stderr=1.0))["nelbo"].estimate
    fine = scored("masked", Method("nelbo", mc_stderr=0.02))["nelbo"].estimate
    default = scored("masked", Method("nelbo"))["nelbo"].estimate
    assert fine.mc_stderr <= 0.02 < wide.mc_stderr
    assert default.mc_stderr <= 0.25 * default.stderr
    truth = -log_p_of_orders("masked").mean(0)[windows_numbers()].mean() / L
    assert abs(fine.value - truth) < 4 * fine.mc_stderr


def test_two_models_meet_the_same_orders_and_an_ensemble_of_one_is_that_one():
    method = Method("orders", orders=2)
    one, again = (scored("any_order", method)["orders"].nats for _ in range(2))
    assert (one == again).all()
    pair = scored("masked", Method("path"), seeds=(1, 1))["path"].nats
    single = scored("masked", Method("path"), seeds=(1,))["path"].nats
    np.testing.assert_allclose(pair, single, rtol=NATS)


@pytest.mark.parametrize(
    "name, method, words",
    [
        ("d3pm", Method("orders"), "bound=orders: must be nelbo, for objective d3pm; of use to"),
        (
            "any_order",
            Method("path"),
            "bound=path: must be nelbo or orders or tangent, for objective any_order",
        ),
    ],
)
def test_a_number_that_a_family_has_not_is_refused_with_those_that_have_it(name, method, words):
    with pytest.raises(DlmError, match=words):
        scored(name, method)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(bound="elbo"), "bound='elbo': must be one of nelbo, orders, tangent, path"),
        (dict(bound="orders", orders=1), "orders=1: must be a whole number from 2 to 1,024"),
        (dict(bound="tangent", orders=3), "orders=3: must be a whole number from 4"),
        (dict(bound="path", path="confidnce"), "did you mean confidence"),
        (dict(tokens_per_call=0), "tokens_per_call=0: must be a whole number from 1"),
        (dict(entropy_budget=-1.0), "entropy_budget=-1.0: must be 0 or above, in nats"),
    ],
)
def test_a_method_says_what_is_right(options, words):
    with pytest.raises(DlmError, match=words):
        Method(**options)


def test_members_of_other_objectives_are_no_ensemble():
    b = bench("masked")
    members = [
        member(config.objective("masked", schedule=schedule), b.params)
        for schedule in ("linear", "cosine")
    ]
    with pytest.raises(DlmError, match="must be of one objective with the same options"):
        likelihood.score_windows(members, V, WINDOWS, DOCUMENTS, Method())


def test_windows_that_are_scored_are_spread_over_the_split():
    assert spread(3, 9).tolist() == [0, 3, 6]
    assert spread(9, 9).tolist() == list(range(9))
