"""Every family and option against the laws of `dlm.objectives.checks` and what theory says."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from scipy.special import rel_entr

from dlm import config, objectives
from dlm.config import family
from dlm.errors import DlmError
from dlm.model import Transformer, keys, transformer
from dlm.objectives import (
    ar,
    checks,
    common,
    d3pm,
    dual,
    masked,
    orders,
    reveal,
    schedules,
)
from tolerances import FLOAT64, FORMULA, NATS, PROBABILITY, ULP

SCHEDULES = ("linear", "cosine", "polynomial", "loglinear", "geometric")
V, L = checks.VOCABULARY, checks.LENGTH
BOS, MASK = V, V + 1
STRINGS = jnp.array(list(itertools.product(range(V), repeat=L)), jnp.int32)
MODEL = checks.MODEL
LIMIT = checks.LIMIT
VARIANTS: list[tuple[str, dict]] = [  # the quick ones
    ("ar", {}),
    ("orders", {"orders": 0, "order_kind": "uniform", "targets": True}),
    ("any_order", {"orders": 0, "order_kind": "uniform"}),
    ("noise", {"noise": 0.3, "attention_noise": 0.5}),
    ("masked", {"schedule": "geometric"}),
    ("dual", {}),
    ("block", {"block": 2}),
    ("d3pm", {}),
    ("flow", {"path": "uniform"}),
    ("gaussian", {"learned_schedule": True}),
]
MORE: list[tuple[str, dict]] = [
    ("d3pm", {"parameterization": "score"}),
    ("d3pm", {"timesteps": 4}),
    ("masked", {"timesteps": 3, "schedule": "cosine"}),
    ("orders", {"orders": 3}),
    ("orders", {"orders": 3, "order_kind": "spans", "span": 2, "targets": True}),
    ("orders", {"orders": 0, "order_kind": "segments", "separator_id": 1}),
    *(("masked", {"schedule": name}) for name in SCHEDULES if name != "geometric"),
    ("masked", {"estimator": "count"}),
    ("masked", {"weighting": "unweighted"}),
    ("masked", {"suffix": 0.5}),
    ("d3pm", {"schedule": "geometric"}),
    ("d3pm", {"transition": "absorbing"}),
    ("d3pm", {"transition": "absorbing", "timesteps": 4}),
    ("d3pm", {"parameterization": "score", "transition": "absorbing"}),
    ("d3pm", {"transition": "mixed"}),
    ("d3pm", {"transition": "mixed", "mask_share": 0.2, "timesteps": 4}),
    ("d3pm", {"transition": "mixed", "mask_share": 0.9, "schedule": "geometric"}),
    ("dual", {"scored_as": "ar", "ar_share": 0.25, "estimator": "count"}),
    ("flow", {}),
    ("gaussian", {"prediction": "epsilon"}),
]
ALL = [*VARIANTS, *(pytest.param(v, marks=pytest.mark.slow) for v in MORE)]


def called(variant) -> str:
    name, options = variant
    return "-".join([name, *(str(v) for v in options.values())])


def make_objective(name: str, **options) -> objectives.Objective:
    return objectives.make(config.objective(name, **options), V)


@functools.cache
def toy(extra: int, time: str = "adaln"):
    model = config.Model(
        layers=1, width=8, heads=2, ff=16, init_std=0.5, tied=False, time_conditioning=time
    )
    network = transformer(model, V + extra)
    return network, jax.jit(network.init)(jax.random.key(0))


def test_every_family_is_here():
    assert {name for name, _ in VARIANTS} == set(objectives.OBJECTIVES) == set(config.FAMILIES)


@pytest.mark.parametrize("variant", ALL, ids=called)
def test_the_laws_hold(variant):
    name, options = variant
    for proof in checks.check(make_objective(name, **options)):
        tells = options.get("order_kind") == "segments" and proof.law.startswith("loss scores no")
        assert proof.holds != tells, proof  # where segments end, which is seen in training alone


# --- constants: a model without an opinion ------------------------------------------------------


@pytest.mark.parametrize("variant", ALL, ids=called)
def test_a_zeroed_head_gives_log_v_in_the_mean(variant):
    """Over all strings: each process is then that of uniform data, whose bound is tight."""
    name, options = variant
    if {"score", "epsilon"} & set(options.values()):
        pytest.skip("a head of ratios or of noise: zero is no distribution")
    b = checks.bench(make_objective(name, **options))
    params = b.params | {"head": jnp.zeros_like(b.params["head"])}
    found = np.array(
        [float(b.nll(params, STRINGS, jax.random.key(k), 32).nats.mean()) / L for k in range(16)]
    )
    expected = math.log(V)
    if name == "flow" and options.get("path") == "uniform":
        # Jumps to the data at once are no Markov chain: the bound of their projection is not tight.
        expected = (V - 1) / V * (1 + math.log(V))
    assert abs(found.mean() - expected) < LIMIT * found.std(ddof=1) / 4 + NATS * expected


# --- schedules and discrete time ----------------------------------------------------------------


def masked_nll(passes: int = 256, keys: int = 6, name: str = "masked", **options):
    """Mean and standard error of every string's bound, of one objective computed once."""
    return _nll(make_objective(name, **options), passes, keys)


@functools.cache
def _nll(g: objectives.Objective, passes: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    network, params = toy(2, "none")
    run = jax.jit(lambda key: g.nll(network.apply, params, STRINGS, key, passes).nats)
    draws = np.stack([np.asarray(run(jax.random.key(k)), np.float64) for k in range(keys)])
    return draws.mean(0), draws.std(0, ddof=1) / math.sqrt(keys)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "geometric", "loglinear"])
def test_the_masked_bound_does_not_depend_on_the_schedule(schedule):
    """In the same bits between schedules from 0 to 1, whose weights of counts are the same numbers;
    the others lose what their ends do."""
    linear, _ = masked_nll()
    other, _ = masked_nll(schedule=schedule)
    if schedule in ("cosine", "polynomial"):
        np.testing.assert_array_equal(linear, other)
    else:
        np.testing.assert_allclose(linear, other, atol=0.02)
        assert np.abs(linear - other).max() > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_weights_of_counts_are_the_integral_over_time(schedule):
    c = config.objective("masked", schedule=schedule)
    s = schedules.schedule(c)
    t = (np.arange(200_000) + 0.5) / 200_000
    m, rate = (np.asarray(f(jnp.asarray(t)), np.float64) for f in (s.mask_prob, s.rate))
    made = schedules.count_weights(c, L)
    for k in range(1, L + 1):
        chance = math.comb(L, k) * m**k * (1 - m) ** (L - k)
        assert made["diffusion"][k] == pytest.approx((rate / m * chance).mean(), rel=2e-3)
    assert np.isclose(float(s.mask_prob(jnp.float32(0.0))), s.start, rtol=FORMULA, atol=ULP)
    assert np.isclose(float(s.mask_prob(jnp.float32(1.0))), s.end, rtol=FORMULA)
    assert (made["reconstruction"][1:] > 0).all() == (s.start > 0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_discrete_time_comes_down_to_continuous_time(schedule):
    def weights(steps: int) -> np.ndarray:
        c = config.objective("masked", schedule=schedule, timesteps=steps)
        return sum(schedules.count_weights(c, L).values())

    limit = weights(0)
    away = [np.abs(weights(T) - limit).max() for T in (2, 8, 32, 128, 512)]
    assert all(b < 0.7 * a for a, b in itertools.pairwise(away)) and away[-1] < 0.02
    assert weights(1)[L] == 1 and not weights(1)[:L].any()  # one step: all masked, all at once


@pytest.mark.parametrize(
    "options", [{"name": "flow"}, {"name": "d3pm", "parameterization": "score"}]
)
def test_what_would_be_no_bound_is_refused(options):
    """A schedule with noise at t = 0, for what has no reconstruction term."""
    c = config.base()
    c.objective.update(options | {"schedule": "geometric"})
    with pytest.raises(DlmError, match="objective.schedule='geometric'.*no bound"):
        config.resolve(c)


# --- one chain, several ways of writing it ------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_absorbing_chain_is_masked_diffusion(steps, schedule):
    masked, a = masked_nll(schedule=schedule, timesteps=steps)
    chain, b = masked_nll(name="d3pm", transition="absorbing", schedule=schedule, timesteps=steps)
    z = (chain - masked) / np.hypot(a, b)
    assert abs(z.mean()) < 0.8 and np.abs(z).max() < 12  # few keys: Student's tails


def test_score_entropy_of_the_masked_models_ratios_is_the_masked_bound():
    """A score that is alpha/m times a distribution over tokens: the same integrand."""
    network, params = toy(2, "none")

    def normalised(p, inputs, **options):
        return jax.nn.log_softmax(network.apply(p, inputs, **options)[..., :V])

    key = jax.random.key(3)
    one, two = (
        make_objective("d3pm", transition="absorbing", parameterization=parameterization)
        for parameterization in ("score", "denoising")
    )
    both = jax.jit(
        lambda p, key: (
            one.nll(normalised, p, STRINGS, key, 4).nats,
            two.nll(network.apply, p, STRINGS, key, 4).nats,
        )
    )
    np.testing.assert_allclose(*both(params, key), rtol=NATS)


def test_the_mask_path_of_flow_matching_is_masked_diffusion():
    flow, a = masked_nll(name="flow")
    masked, b = masked_nll()
    z = (flow - masked) / np.hypot(a, b)
    assert abs(z.mean()) < 0.8


def leave_one_out(states: np.ndarray) -> np.ndarray:
    """p(symbol at i | string noised), of the toy model, at noised strings: [strings, L, S]. Symbol V
    is MASK, which the model never predicts."""
    network, params = toy(2, "none")
    ids = jnp.asarray(np.where(states == V, MASK, states))
    inputs = jnp.pad(ids, ((0, 0), (1, 0)), constant_values=BOS)
    logits = np.asarray(network.apply(params, inputs, mask="full"), np.float64)[:, 1:, :V]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return np.pad(p, ((0, 0), (0, 0), (0, states.max() + 1 - V)))


@pytest.mark.parametrize(("steps", "mask_share"), [(2, 0.0), (3, 0.3)])
def test_a_chain_in_discrete_time_by_enumeration(steps, mask_share):
    """Transition by transition: the bound it draws is the exact one, and lies above -log p."""
    S = V + (mask_share > 0)
    limit = np.append(np.full(V, (1 - mask_share) / V), mask_share)[:S]
    states = np.array(list(itertools.product(range(S), repeat=L)))
    x = leave_one_out(states)  # states, positions, symbols
    strings = [n for n, s in enumerate(states) if s.max() < V]

    def kernel(p, m):
        return (1 - m) * p + m * limit

    def reverse(s: int) -> np.ndarray:
        """p(x_{s-1} | x_s) between all strings, [from, to]."""
        m, before = s / steps, (s - 1) / steps
        stays = (1 - m) / (1 - before)
        there = stays * np.eye(S)[states] + (1 - stays) * limit[states][..., None]
        parts = there * kernel(x, before)
        parts /= parts.sum(-1, keepdims=True)
        return np.stack([
            np.prod([parts[:, i, to[i]] for i in range(L)], axis=0) for to in states
        ], axis=1)  # fmt: skip

    p = np.prod(limit[states], axis=-1)
    for s in range(steps, 0, -1):
        p = p @ reverse(s)
    p = p[strings]  # no MASK is left
    assert p.sum() == pytest.approx(1, rel=FLOAT64)
    exact = np.zeros(len(strings))
    for n, string in enumerate(states[strings]):
        for s in range(1, steps + 1):
            m, before = s / steps, (s - 1) / steps
            here = np.prod(
                [kernel(np.eye(S)[string[i]], m)[states[:, i]] for i in range(L)], axis=0
            )
            stays = (1 - m) / (1 - before)
            there = stays * np.eye(S)[states] + (1 - stays) * limit[states][..., None]
            q = there * kernel(np.eye(S)[string], before)[None]
            q /= q.sum(-1, keepdims=True)
            model = there * kernel(x, before)
            model /= model.sum(-1, keepdims=True)
            ratio = rel_entr(q, model).sum((-1, -2))
            exact[n] += here @ ratio
    assert (exact >= -np.log(p) - 1e-9).all()
    mixed = {"transition": "mixed", "mask_share": mask_share} if mask_share else {}
    drawn, error = masked_nll(name="d3pm", timesteps=steps, passes=256, keys=12, **mixed)
    z = (drawn - exact) / error
    assert abs(z.mean()) < 0.6 and np.abs(z).max() < 8


def test_the_uniform_chain_comes_to_continuous_time():
    limit, a = masked_nll(name="d3pm", passes=256)
    away = []
    for steps, repeats in ((2, 12), (64, 6)):  # of 2 steps as above, so that it is there already
        found, b = masked_nll(name="d3pm", timesteps=steps, passes=256, keys=repeats)
        away.append(abs((found - limit).mean()))
    noise = float(np.hypot(a, b).mean() / math.sqrt(len(STRINGS)))
    assert away[1] < max(0.1 * away[0], LIMIT * noise) and away[1] < away[0]


TABLE = {"table": jax.random.normal(jax.random.key(8), (MASK + 1, V))}


def from_table(params, inputs, **how):
    """Logits that depend on each position's own state: no network to compile."""
    return params["table"][inputs]


@pytest.mark.parametrize(("mask_share", "transition"), [(0.0, "uniform"), (1.0, "absorbing")])
def test_a_mixture_at_its_ends_is_the_uniform_or_the_absorbing_chain(mask_share, transition):
    """In the same bits, as it makes the same draws: loss, gradient, score and samples."""
    key, model = jax.random.key(4), Transformer(lambda key: TABLE, from_table, lambda *_: ())

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(g):
        slope = jax.value_and_grad(lambda p: g.loss(from_table, p, STRINGS, key).nats)(TABLE)
        nll = g.nll(from_table, TABLE, STRINGS, key, 1).nats
        return slope, nll, g.sample(model, TABLE, key, jnp.zeros((8, 1), jnp.int32), L, steps=2)

    mixed = make_objective("d3pm", transition="mixed", mask_share=mask_share)
    end = make_objective("d3pm", transition=transition)
    jax.tree.map(np.testing.assert_array_equal, all_of(mixed), all_of(end))


@pytest.mark.parametrize("mask_share", [0.0, 0.3, 1.0])
def test_the_rate_of_a_chain_is_that_of_its_short_steps(mask_share):
    """Row by row under the same draws: the KL of a step of 1/T, times T, is the loss of (2)."""
    c = d3pm.chain(config.objective("d3pm", transition="mixed", mask_share=mask_share), V)
    t, draws = jnp.full(len(STRINGS), 0.5), keys.row_keys(jax.random.key(5), len(STRINGS))
    denoiser, steps = common.Denoiser(from_table, TABLE, None, V), 1000
    rate = d3pm.rate_loss(c, denoiser, STRINGS, t, draws)
    short = d3pm.discrete_step_kl(c._replace(steps=steps), denoiser, STRINGS, t * steps, draws)
    np.testing.assert_allclose(steps * short, rate, rtol=0.01)
    assert float(rate.min()) >= 0 and float(rate.max()) > 1


@pytest.mark.parametrize("mask_share", [0.0, 0.3, 1.0])
def test_the_prior_of_a_chain_is_the_last_state_of_uniform_data(mask_share):
    c = d3pm.chain(
        config.objective("d3pm", transition="mixed", mask_share=mask_share, schedule="loglinear"), V
    )
    m = c.schedule.end
    pi = np.append(np.full(V, (1 - mask_share) / V), mask_share)
    q = (1 - m) * np.eye(V + 1)[:V] + m * pi  # of each token
    expected = L * rel_entr(q, q.mean(0)).sum(-1)
    np.testing.assert_allclose(d3pm.prior_kl(c, L), expected, rtol=1e-4)
    ends = {
        0.0: lambda: (1 - m + m / V) * math.log((1 - m) * V + m) + (V - 1) * m / V * math.log(m)
    }
    ends[1.0] = lambda: (1 - m) * math.log(V)
    if mask_share in ends:
        np.testing.assert_allclose(d3pm.prior_kl(c, L), L * ends[mask_share](), rtol=1e-3)


def test_a_mixture_has_no_score_entropy():
    c = config.base()
    c.objective.update(name="d3pm", transition="mixed", parameterization="score")
    with pytest.raises(DlmError, match="objective.transition='mixed': must be uniform or absorb"):
        config.resolve(c)


# --- two families in one ------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "name"), [(1.0, "ar"), (0.0, "masked")])
def test_a_dual_model_of_one_direction_trains_in_the_bits_of_that_family(share, name):
    network, params = toy(2)
    key = jax.random.key(6)

    @functools.partial(jax.jit, static_argnums=0)
    def slope(g):
        return jax.value_and_grad(lambda p: g.loss(network.apply, p, STRINGS, key).nats)(params)

    one, two = (slope(g) for g in (make_objective("dual", ar_share=share), make_objective(name)))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(("scored_as", "exact"), [("ar", True), ("masked", False)])
def test_a_dual_model_is_scored_and_sampled_as_either_family(scored_as, exact):
    network, params = toy(2)
    dual_, alone, key = make_objective("dual", scored_as=scored_as), make_objective(scored_as), 7
    assert dual_.family.exact == config.objective("dual", scored_as=scored_as).family.exact == exact
    assert (dual_.conditionals is None) == exact

    @functools.partial(jax.jit, static_argnums=0)
    def both(g):
        prompt, draw = jnp.zeros((8, 1), jnp.int32), jax.random.key(key)
        nll = g.nll(network.apply, params, STRINGS, draw, 2).nats
        return nll, g.sample(network, params, draw, prompt, L)

    jax.tree.map(np.testing.assert_array_equal, both(dual_), both(alone))


def test_a_batch_of_both_directions_is_the_sum_of_its_rows_losses():
    """Each row by the family that it was drawn for, which costs what that family alone does."""
    network, params = toy(2)
    c = config.objective("dual", ar_share=0.3, suffix=0.5)
    draws = keys.row_keys(jax.random.key(9), len(STRINGS))

    @jax.jit
    def both():
        times, masks, _ = draws.split(3)
        left_to_right, u = dual.directions(c.ar_share, times)
        hidden, weight = masked.training_masks(c, u, masks, L)
        denoiser = common.Denoiser(network.apply, params, None, V)
        example = ar.left_to_right(STRINGS, V)
        return (
            left_to_right,
            objectives.make(c, V).loss(network.apply, params, STRINGS, draws).terms,
            ar.token_nll(network.apply, params, example, None, V).sum(-1),
            weight * masked.masked_nll(denoiser, STRINGS, hidden),
        )

    rows, terms, exact, bound = both()
    np.testing.assert_allclose(terms["nll"], exact[rows].sum(), rtol=NATS)
    np.testing.assert_allclose(terms["diffusion"], bound[~rows].sum(), rtol=NATS)
    assert terms["prior"] == 0


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_a_dual_batch_has_its_share_and_evenly_spread_times(share):
    size = 40
    for k in range(5):
        rows, u = dual.directions(share, keys.row_keys(jax.random.key(k), size))
        assert abs(int(rows.sum()) - share * size) < 1
        left = np.sort(np.asarray(u)[~np.asarray(rows)])
        np.testing.assert_allclose(np.diff(left), 1 / (size * (1 - share)), rtol=1e-3)
        assert left[0] >= 0 and left[-1] < 1


# --- any order ----------------------------------------------------------------------------------


def from_sets(table: np.ndarray):
    """An `apply` that knows the joint law of all strings, and looks at which symbols are known."""

    def conditionals(known: np.ndarray) -> np.ndarray:
        match = ((known[None] == np.asarray(STRINGS)) | (known[None] < 0)).all(-1)
        p = table * match
        return np.stack(
            [[p[np.asarray(STRINGS)[:, i] == v].sum() for v in range(V)] for i in range(L)]
        )

    def apply(params, inputs, *, mask, positions=None, queries=None, time=None, key=None):
        inputs = np.asarray(inputs)
        out = np.zeros((*inputs.shape, V))
        for n, row in enumerate(inputs):
            if mask == "full":
                known = np.where(row[1:] < V, row[1:], -1)
                out[n, 1:] = np.log(conditionals(known) + 1e-300)
                continue
            known = np.full(L, -1)
            for j in range(L):
                if j:
                    known[np.asarray(positions)[n, j] - 1] = row[j]
                out[n, j] = np.log(conditionals(known)[np.asarray(queries)[n, j]] + 1e-300)
        return jnp.asarray(out)

    return apply


def test_of_a_model_of_sets_any_order_and_masked_are_both_the_exact_likelihood():
    """The true conditionals: every order gives -log p, and so does the masked bound in the mean."""
    table = np.random.default_rng(0).dirichlet(np.ones(len(STRINGS)))
    apply, truth = from_sets(table), -np.log(table)
    some = STRINGS[::27]
    key = jax.random.key(0)
    with jax.disable_jit():
        any_order = make_objective("any_order", orders=0, order_kind="uniform")
        np.testing.assert_allclose(
            any_order.nll(apply, {}, some, key, 1).nats, truth[::27], rtol=NATS
        )
        masked = make_objective("masked")
        repeated = masked.nll(apply, {}, jnp.tile(some, (96, 1)), key, 1).nats
    draws = np.asarray(repeated, np.float64).reshape(96, len(some))
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - truth[::27]) < LIMIT * error + NATS * truth[::27]).all()


def test_in_the_order_of_reading_target_positions_change_nothing():
    one = make_objective("orders", orders=1, targets=True)
    network, params = toy(1)
    found, ar = (
        jax.jit(functools.partial(g.loss, network.apply))(params, STRINGS, jax.random.key(2)).nats
        for g in (one, make_objective("ar"))
    )
    assert found == ar  # the same program
    order = jnp.broadcast_to(jnp.arange(L), STRINGS.shape)
    view = orders.in_order(STRINGS, order, BOS, targets=True)
    np.testing.assert_array_equal(view.queries, view.positions)


def test_the_target_position_is_told_apart():
    """Two orders that agree up to the third token ask for different fourth ones."""
    network, params = toy(1)
    tokens = STRINGS[50:51]
    views = [
        orders.in_order(tokens, jnp.array([order]), BOS, targets=True)
        for order in ((1, 0, 2, 3), (1, 0, 3, 2))
    ]
    apply = jax.jit(functools.partial(network.apply, mask="causal"))
    logits = [apply(params, v.inputs, positions=v.positions, queries=v.queries) for v in views]
    np.testing.assert_array_equal(logits[0][:, :2], logits[1][:, :2])
    assert np.abs(logits[0][:, 2] - logits[1][:, 2]).max() > 1e-4


@pytest.mark.parametrize("targets", [False, True])
def test_every_order_is_a_model_of_its_own(targets):
    """Probabilities of all strings in one order sum to one: no query sees its target."""
    network, params = toy(1)

    @jax.jit
    def nats_in(order):
        view = orders.in_order(STRINGS, jnp.broadcast_to(order, STRINGS.shape), BOS, targets)
        return objectives.ar.token_nll(network.apply, params, view, None, V).sum(-1)

    for order in ((3, 0, 2, 1), (2, 1, 3, 0)):
        nats = nats_in(jnp.array(order))
        assert np.exp(-np.asarray(nats, np.float64)).sum() == pytest.approx(1, abs=PROBABILITY)


def test_spans_and_segments_move_whole():
    tokens = jnp.array([[5, 6, 0, 7, 8, 9, 0, 4]])
    c = config.objective("orders", orders=0, order_kind="segments", separator_id=0)
    seen = {
        tuple(orders.sample_order(c, keys.row_keys(jax.random.key(k), 1), tokens)[0].tolist())
        for k in range(40)
    }
    parts = ([0, 1, 2], [3, 4, 5, 6], [7])
    assert seen == {tuple(sum(p, [])) for p in itertools.permutations(parts)}
    c = config.objective("orders", orders=0, order_kind="spans", span=3)
    seen = {
        tuple(orders.sample_order(c, keys.row_keys(jax.random.key(k), 1), tokens)[0].tolist())
        for k in range(40)
    }
    parts = ([0, 1, 2], [3, 4, 5], [6, 7])
    assert seen == {tuple(sum(p, [])) for p in itertools.permutations(parts)}
    c = config.objective("orders", orders=3, order_kind="spans", span=2)
    fixed = {
        tuple(orders.sample_order(c, keys.row_keys(jax.random.key(k), 1), tokens)[0].tolist())
        for k in range(30)
    }
    assert len(fixed) <= 3 and tuple(range(8)) in fixed


# --- masked diffusion's options for training ----------------------------------------------------


def shown(options: dict, step=None, key: int = 0, batch: int = 512) -> np.ndarray:
    """Which tokens a training step masks, [batch, 8]."""
    seen = []

    def apply(_, inputs, *, mask, time=None, key=None):
        seen.append(inputs)
        return jnp.zeros((*inputs.shape, V + 2))

    tokens = jnp.zeros((batch, 8), jnp.int32)
    make_objective("masked", **options).loss(apply, {}, tokens, jax.random.key(key), step)
    return np.asarray(seen[0])[:, 1:] == MASK


def test_suffix_masking_has_the_counts_of_the_random_masks_and_none_stays_none():
    random, suffix = shown({}), shown({"suffix": 1.0})
    np.testing.assert_array_equal(random.sum(1), suffix.sum(1))
    assert (np.sort(suffix, axis=1) == suffix).all()  # all at the end
    assert (suffix.sum(1) == 0).any()  # with nothing masked, nothing is masked
    half = shown({"suffix": 0.5})
    assert 0.4 < (half == suffix).all(1).mean() < 0.75


@pytest.mark.parametrize("estimator", ["time", "count"])
def test_a_low_noise_start_masks_less_until_its_step(estimator):
    options = {"low_noise": 0.5, "low_noise_steps": 10, "estimator": estimator}
    early, late = shown(options, step=9), shown(options, step=10)
    least = 0.5 / 8 if estimator == "count" else 0.0  # one mask at the least: the mean is 9/16
    assert early.mean() == pytest.approx(0.25 + least, abs=0.03)
    assert late.mean() == pytest.approx(0.5 + least, abs=0.03)


@pytest.mark.parametrize("schedule, share", [
    ("linear", 0.5), ("cosine", 2 / math.pi), ("polynomial", 1 / 3),
])  # fmt: skip
def test_a_schedule_masks_its_share(schedule, share):
    assert shown({"schedule": schedule}).mean() == pytest.approx(share, abs=0.03)


def test_unweighted_training_leaves_the_likelihood_alone():
    network, params = toy(2)
    key = jax.random.key(1)
    plain, unweighted = make_objective("masked"), make_objective("masked", weighting="unweighted")
    a, b = (
        jax.jit(lambda p, g=g: g.nll(network.apply, p, STRINGS, key, 2).nats)(params)
        for g in (plain, unweighted)
    )
    np.testing.assert_array_equal(a, b)
    a, b = (
        float(jax.jit(lambda p, g=g: g.loss(network.apply, p, STRINGS, key).nats)(params))
        for g in (plain, unweighted)
    )
    assert a != b


def test_time_starts_as_no_time_and_then_matters():
    with_time, without = toy(2, "adaln"), toy(2, "none")
    inputs = jnp.pad(STRINGS, ((0, 0), (1, 0)), constant_values=BOS)
    params = with_time[1]
    apply = jax.jit(functools.partial(with_time[0].apply, mask="full"))
    early, late = (apply(params, inputs, time=jnp.full(len(STRINGS), t)) for t in (0.1, 0.9))
    np.testing.assert_array_equal(early, late)
    moved = params | {"time_out": params["time_out"] + 0.1}
    early, late = (apply(moved, inputs, time=jnp.full(len(STRINGS), t)) for t in (0.1, 0.9))
    assert np.abs(early - late).max() > 1e-3
    assert set(params) - set(without[1]) == {"time_in", "time_out"}


# --- gaussian -----------------------------------------------------------------------------------


@functools.cache
def gaussian(**options):
    g = make_objective("gaussian", **options)
    network, params = toy(1)
    return g, network, g.init(params)


def test_the_three_terms_of_gaussian_diffusion():
    """Little noise at the start, little signal at the end; learned ends move the bound."""
    g, network, params = gaussian(log_snr=4.0, learned_schedule=True)
    run = jax.jit(lambda p: g.nll(network.apply, p, STRINGS, jax.random.key(0), 16))
    total = run(params)
    prior = 0.5 * L * (8 * (math.exp(-4.0) / 8)) ** 2 / 8  # 1/2 sum SNR^2 / 2 per coordinate, or so
    assert 0 < float(total.terms["prior"].mean()) < 0.5 * L * math.exp(-4.0)
    assert float(total.terms["prior"].mean()) > prior / 10
    assert float(total.terms["reconstruction"].mean()) < 0.05
    slope = jax.jit(
        jax.grad(lambda p: g.nll(network.apply, p, STRINGS, jax.random.key(0), 4).nats.sum())
    )(params)
    assert slope["log_snr"].shape == (2,) and np.isfinite(slope["log_snr"]).all()
    short = gaussian(log_snr=0.5)
    nll = jax.jit(lambda p: short[0].nll(network.apply, p, STRINGS, jax.random.key(0), 16))
    ends = nll(short[2]).terms
    assert float(ends["reconstruction"].mean()) > 0.5


def test_ddim_comes_to_the_probability_flow_and_ddpm_to_its_law():
    """Twice the steps, half the distance: deterministic sampling has a limit."""
    g, network, params = gaussian()
    prompt = jnp.zeros((256, 0), jnp.int32)

    @functools.partial(jax.jit, static_argnames=("steps", "order"))
    def sample(key, steps, order):
        return g.sample(network, params, key, prompt, L, steps=steps, order=order)

    key = jax.random.key(4)
    fine = np.asarray(sample(key, 256, "ddim"))
    coarse = [np.asarray(sample(key, n, "ddim")) for n in (4, 32, 128)]
    same = [np.mean(tokens == fine) for tokens in coarse]
    assert same[0] < same[1] <= same[2] and same[2] > 0.97
    np.testing.assert_array_equal(sample(key, 32, "ddim"), coarse[1])
    counts = [
        np.bincount(np.asarray(sample(jax.random.key(5), n, "ancestral")).ravel(), minlength=V)
        for n in (128, 256)
    ]
    a, b = (c / c.sum() for c in counts)
    assert np.abs(a - b).max() < 0.08


# --- revealing ----------------------------------------------------------------------------------


request = functools.partial(common.SampleRequest, None, None)


def fixed_logits(length: int):
    table = jnp.asarray(np.random.default_rng(1).normal(size=(length, V)) * 2, jnp.float32)
    return lambda tokens: jnp.broadcast_to(table, (*tokens.shape, V)), jax.nn.softmax(table)


@pytest.mark.parametrize("order", family.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_all_is_revealed_and_what_is_given_stays(order, steps):
    predict, law = fixed_logits(8)
    known = jnp.full((4096, 8), MASK).at[:, 2].set(1).at[:, 7].set(2)
    asked = request(steps=steps, order=order)
    run = jax.jit(lambda key: reveal.reveal(predict, key, known, MASK, asked))
    found = np.asarray(run(jax.random.key(0)))
    assert found.max() < V and (found[:, 2] == 1).all() and (found[:, 7] == 2).all()
    if order != "maskgit":  # which looks at what it draws; the others have the law of the positions
        for i in (0, 4):
            shares = np.bincount(found[:, i], minlength=V) / len(found)
            np.testing.assert_allclose(shares, law[i], atol=0.04)


def test_blocks_are_revealed_from_left_to_right():
    """Six calls for three blocks of eight tokens: two a block, whose tokens are all known after it."""
    seen = []

    def predict(tokens):
        io_callback(seen.append, None, tokens, ordered=True)
        return jnp.broadcast_to(jnp.arange(V, dtype=jnp.float32), (*tokens.shape, V))

    size = reveal.BLOCK
    known = jnp.full((2, 3 * size), MASK)
    request = common.SampleRequest(known[:, :0], known, steps=6, order="blocks")
    jax.jit(lambda key: reveal.reveal(predict, key, known, MASK, request))(
        jax.random.key(0)
    ).block_until_ready()
    jax.effects_barrier()
    assert len(seen) == 6
    for i, tokens in enumerate(seen):
        hidden = np.asarray(tokens == MASK)
        assert (hidden.sum(1) == (6 - i) * size // 2).all()
        assert hidden[:, size * (i // 2 + 1) :].all() and not hidden[:, : size * (i // 2)].any()


def test_mlp_dropout_drops_in_training_alone():
    model = config.Model(layers=1, width=8, heads=2, ff=16, dropout=config.Dropout(mlp=0.5))
    network, params = transformer(model, V + 1), toy(1, "none")[1]
    params = {k: v for k, v in params.items() if k != "head"}
    run = jax.jit(functools.partial(network.apply, params, STRINGS, mask="causal"))
    np.testing.assert_array_equal(run(), run())
    a, b = (run(key=jax.random.key(k)) for k in (0, 1))
    assert np.abs(a - b).max() > 1e-4 and np.abs(a - run()).max() > 1e-4


def test_a_larger_budget_of_entropy_needs_fewer_calls():
    predict, _ = fixed_logits(8)
    known = jnp.full((1, 8), MASK)

    def calls(budget: float) -> int:
        count, tokens = 0, known
        while (tokens == MASK).any():
            # One call of as many as are left: the first of a long schedule.
            tokens, count = _one_call(predict, tokens, budget, count), count + 1
        return count

    assert calls(0.0) == 8 > calls(1.0) >= calls(100.0) == 1


def _one_call(predict, tokens, budget, count):
    """What the entropy order reveals in its first call."""
    seen = []

    def once(i, body, state):
        seen.append(body(0, state))
        return state

    original = jax.lax.fori_loop
    try:
        jax.lax.fori_loop = lambda low, high, body, state: once(low, body, state)
        asked = request(steps=1000, order="entropy", budget=budget)
        reveal.reveal(predict, jax.random.key(count), tokens, MASK, asked)
    finally:
        jax.lax.fori_loop = original
    return seen[0]
