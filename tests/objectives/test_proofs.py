"""Mistakes in an objective, each caught by the law that it breaks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm import config, objectives
from dlm.cli import main
from dlm.model import keys
from dlm.objectives import checks, common, d3pm

V, L = checks.VOCABULARY, checks.LENGTH
BOS, MASK = V, V + 1


def make_objective(name: str, **options) -> objectives.Objective:
    return objectives.make(config.objective(name, **options), V)


def holds(law, wrong: objectives.Objective) -> list[bool]:
    return [proof.holds for proof in law(checks.bench(wrong))]


# --- weights and normalisation --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ar", "masked", "gaussian"])
def test_an_nll_that_is_three_percent_too_low_is_caught(name):
    right = make_objective(name)

    def nll(apply, params, tokens, key, passes):
        total = right.nll(apply, params, tokens, key, passes)
        terms = {name: 0.97 * value for name, value in total.terms.items()}
        return total._replace(nats=0.97 * total.nats, terms=terms)

    assert holds(checks.normalised, dataclasses.replace(right, nll=nll)) == [False]


@pytest.mark.parametrize("power, right", [(1, True), (2, False)])
def test_masked_counts_weighted_by_another_power_are_caught(power, right):
    """L / k is the weight of k masks. L (L / k)^2 / sum(1 / k), like it, gives log V a token to a
    model that knows nothing, but too little to all masks at once."""

    def nll(apply, params, tokens, key, passes):
        times, masks = keys.row_keys(key, len(tokens)).split(2)
        u = times.stratified()[:, 0]

        def one(i):
            count = jnp.floor((u + i / passes) % 1 * L).astype(jnp.int32) + 1
            masked = common.exact_count_mask(masks.fold_in(i).uniform(L), count)
            inputs = jnp.pad(jnp.where(masked, MASK, tokens), ((0, 0), (1, 0)), constant_values=BOS)
            logits = apply(params, inputs, mask="full")[:, 1:]
            entropy = jnp.where(masked, common.cross_entropy(logits, tokens, V), 0)
            mean = jnp.mean(jnp.arange(1, L + 1) ** (1.0 - power))
            return L / mean / count**power * entropy.sum(-1)

        nats = common.mean(one, passes)
        return common.Sum(nats, tokens.size, {"diffusion": nats})

    assert holds(checks.normalised, dataclasses.replace(make_objective("masked"), nll=nll)) == [
        right
    ]


def test_a_chain_whose_bound_forgets_the_jumps_to_masks_is_caught():
    """Noise of a mixture, scored by posteriors as if jumps led to tokens alone."""
    mixed = make_objective("d3pm", transition="mixed", timesteps=3)
    c = d3pm.chain(config.objective("d3pm", transition="mixed", timesteps=3), V)
    forgetful = c._replace(limit=np.array([1, 1, 1, 1e-6], np.float32) / V)
    terms = functools.partial(d3pm.terms_at, forgetful)
    nll = common.nll_by_time(("reconstruction", "diffusion"), terms, V, None)
    assert holds(checks.normalised, dataclasses.replace(mixed, nll=nll)) == [False]


# --- sums, samples, training ----------------------------------------------------------------------


def test_a_token_too_few_is_caught():
    right = make_objective("ar")

    def loss(apply, params, tokens, key, step=None):
        total = right.loss(apply, params, tokens, key)
        return total._replace(tokens=total.tokens - 1)

    assert holds(checks.sums, dataclasses.replace(right, loss=loss)) == [False, True]


@pytest.mark.parametrize(
    "change, told",
    [
        ({}, "shape (), 324 tokens, terms a, b"),
        ({"terms": {}}, "terms is empty; must name the parts that add up to nats, such as {'nll'"),
        ({"terms": {"a": 1.0}}, "terms a add up to 1.0000, must be nats, 3.0000"),
        ({"tokens": 323}, "tokens is 323, must be 324, all there are"),
        ({"nats": jnp.zeros(1)}, "nats has shape (1,), must be ()"),
        ({"nats": jnp.float32(jnp.nan)}, "nats is not finite"),
    ],
)
def test_what_is_wrong_with_a_sum_is_named(change, told):
    total = common.Sum(jnp.float32(3), 324, {"a": jnp.float32(1), "b": jnp.float32(2)})
    nll = common.Sum(jnp.ones(81), 324, {"nll": jnp.ones(81)})
    b = checks.Bench(
        make_objective("ar"), cast(Any, None), {}, jnp.zeros((81, 4), jnp.int32),
        lambda *_: nll, lambda *_: total._replace(**change),
    )  # fmt: skip
    found, right = checks.sums(b)
    assert right.holds and found.holds == (not change) and told in found.words


def test_noise_that_depends_on_the_batch_is_caught():
    right = make_objective("masked")

    def loss(apply, params, tokens, key, step=None):
        draws = keys.row_keys(key, len(tokens))
        place = jnp.arange(len(tokens))  # in this part, not in the batch
        return right.loss(apply, params, tokens, draws._replace(rows=place))

    assert holds(checks.parts, dataclasses.replace(right, loss=loss)) == [False]


def test_a_sample_that_drops_its_prompt_is_caught():
    def sample(model, params, key, prompt, length, **_):
        return jnp.zeros((len(prompt), length), jnp.int32)

    assert holds(checks.samples, dataclasses.replace(make_objective("ar"), sample=sample)) == [
        False
    ]


def test_training_uphill_is_caught():
    right = make_objective("ar")

    def loss(apply, params, tokens, key, step=None):
        total = right.loss(apply, params, tokens, key)
        fooled = 2 * jax.lax.stop_gradient(total.nats) - total.nats  # the value, the other slope
        return total._replace(nats=fooled, terms={"nll": fooled})

    assert holds(checks.training, dataclasses.replace(right, loss=loss)) == [True, False]


def test_a_probability_of_the_mask_is_caught():
    def nll(apply, params, tokens, key, passes):
        inputs = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
        logits = apply(params, inputs, mask="causal")
        nats = common.cross_entropy(logits, tokens, V + 1).sum(-1)
        return common.Sum(nats, tokens.size, {"nll": nats})

    assert holds(checks.rows, dataclasses.replace(make_objective("ar"), nll=nll)) == [False]


# --- leaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, options", [("d3pm", {"transition": "absorbing"}), ("flow", {})])
def test_masks_hide_what_is_asked_for_in_families_that_need_not_mask(name, options):
    assert holds(checks.blind, make_objective(name, **options)) == [True, True]


@pytest.mark.parametrize("bug", ["sees ahead", "sees itself"])
def test_a_leak_is_caught_by_the_logits_that_it_reaches(bug):
    """AR that reads to its right, and AR whose inputs are shifted by one too many."""
    right = make_objective("ar")

    def peek(apply, params, inputs, *, mask, **how):
        if bug == "sees ahead":
            return apply(params, inputs, mask="full", **how)
        return apply(params, jnp.roll(inputs, -1, 1), mask=mask, **how)

    def loss(apply, params, tokens, key, step=None):
        return right.loss(functools.partial(peek, apply), params, tokens, key)

    def nll(apply, params, tokens, key, passes):
        return right.nll(functools.partial(peek, apply), params, tokens, key, passes)

    wrong = dataclasses.replace(right, loss=loss)
    assert holds(checks.blind, wrong) == [False, True]
    wrong = dataclasses.replace(right, nll=nll)
    assert holds(checks.blind, wrong) == [True, False]


def test_a_leak_is_caught_in_an_nll_with_a_loop_of_its_own():
    right = make_objective("ar")

    def nll(apply, params, tokens, key, passes):
        def ahead(params, inputs, *, mask, **how):
            return apply(params, inputs, mask="full", **how)

        def body(i, nats):
            return nats + right.nll(ahead, params, tokens, key, 1).nats

        nats = jax.lax.fori_loop(0, passes, body, jnp.zeros(len(tokens))) / passes
        return common.Sum(nats, tokens.size, {"nll": nats})

    assert holds(checks.blind, dataclasses.replace(right, nll=nll)) == [True, False]


def test_rows_of_a_dual_batch_that_read_to_their_right_are_caught():
    """AR rows under the attention of masked rows see what they predict."""
    right = make_objective("dual", scored_as="ar")

    def ahead(apply, params, inputs, *, mask, **how):
        return apply(params, inputs, mask="full", **how)

    def loss(apply, params, tokens, key, step=None):
        return right.loss(functools.partial(ahead, apply), params, tokens, key)

    assert holds(checks.blind, dataclasses.replace(right, loss=loss)) == [False, True]


# --- one's own ------------------------------------------------------------------------------------

DRAWS_FROM_ITS_KEY = """
import jax
from dlm import config
from dlm.objectives import ar

FAMILY = config.Family(
    exact=True, extra_tokens=1, extra_positions=0, attention="causal", formula="", source=""
)


def make(objective, vocab_size):
    ar_loss, nll, sample = ar.make(objective, vocab_size)

    def loss(apply, params, tokens, key, step=None):
        mine, rest = jax.random.split(key)
        return ar_loss(apply, params, tokens, rest, step)

    return loss, nll, sample
"""


def test_a_loss_of_ones_own_that_draws_from_its_key_is_told_how(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(DRAWS_FROM_ITS_KEY)
    assert main.main(["check-objective", str(path)]) == 2
    said = capsys.readouterr().err
    assert "dlm.model.keys.row_keys(key, len(tokens))" in said and said.count("\n") == 1


OWN = """
import jax.numpy as jnp

from dlm import config
from dlm.objectives import Sum, ar

FAMILY = config.Family(
    exact=True, extra_tokens=1, extra_positions=0, attention="causal", formula="", source=""
)


def make(objective, vocab_size):
    right_loss, right_nll, right_sample = ar.make(objective, vocab_size)

    def loss(apply, params, tokens, key, step=None):
        total = right_loss(apply, params, tokens, key, step)
        return total

    def nll(apply, params, tokens, key, passes):
        total = right_nll(apply, params, tokens, key, passes)
        return total

    def sample(model, params, key, prompt, length, *, infill=None, **options):
        drawn = right_sample(model, params, key, prompt, length, infill=infill, **options)
        return drawn

    return loss, nll, sample
"""
# What is written in place of what, and what is told after the file's name.
MISTAKES = [
    ("FAMILY = config", "FAMILY = (", ":7: SyntaxError: invalid syntax"),
    ("import jax.numpy as jnp", "import jax.nunpy", ":2: ModuleNotFoundError: No module named"),
    ("import jax.numpy as jnp", "raise SystemExit", ":2: SystemExit: no message, at `raise Sys"),
    ("    exact=True, ", "", ":7: TypeError: "),
    ("FAMILY =", "FAMILI =", "must be a file that defines FAMILY"),
    ("def make(", "def meke(", "must be a file that defines make"),
    ("FAMILY = config.Family", "FAMILY = dict", "FAMILY is a dlm.config.Family, not a dict"),
    ("exact=True", "exact='yes'", "FAMILY.exact is of type bool, not 'yes'"),
    ("extra_tokens=1", "extra_tokens=True", "FAMILY.extra_tokens is of type int, not True"),
    ("extra_tokens=1", "extra_tokens=-1", "FAMILY.extra_tokens is 0 or above, not -1"),
    ('"causal"', '"casual"', "FAMILY.attention is one of "),
    ("make(objective, vocab_size)", "make(c)", "its make must take (objective, vocab_size); (c)"),
    ("def make(", "make = 3\ndef other(", "make is a function (objective, vocab_size), not a int"),
    ("    return loss, nll, sample", "    return loss, nll", "(loss, nll, sample), not 2 values"),
    ("    return loss, nll, sample", "    return 'it'", "(loss, nll, sample), not a str"),
    ("    return loss, nll, sample", "    return loss, None, sample", "nll is a function (apply"),
    ("    return loss, nll, sample", "    assert not vocab_size",
     ":27: AssertionError: no message, at `assert not vocab_size`"),
    ("\n\ndef make(", "\n\ndef init(params): ...\n\n\ndef make(", "its init must take (objective, "),
    ("tokens, key, step=None)", "tokens, key)", "its loss must take (apply, params, tokens, key,"),
    ("key, passes)", "key)", "its nll must take (apply, params, tokens, key, passes)"),
    ("infill=None, **options)", "infill=None)", "its sample must take (model, params, key, prompt"),
    ("return total\n", "raise ValueError\n", ":17: ValueError: no message, at `raise ValueError`"),
    ("return total\n", "return total.nats\n", ":15: loss must return dlm.objectives.Sum(nats, tok"),
    ("return total\n", "return total._replace(terms=[1])\n", ":15: loss: terms must be a dict of"),
    ("return total\n", "return total._replace(terms={'a': 0.0})\n", "a must be a float array"),
    ("return total\n", "return total._replace(nats=tokens.sum())\n", "must be a float array, not i"),
    ("return total\n", "return total._replace(nats=total.nats[None])\n", "nats must be a scalar, t"),
    ("return total\n", "return total._replace(tokens=total.nats)\n", "tokens must be an integer"),
]  # fmt: skip


@pytest.mark.parametrize("was, wrong, told", MISTAKES)
def test_a_mistake_in_a_file_of_ones_own_is_one_line(was, wrong, told, tmp_path, capsys):
    path = tmp_path / "mine.py"
    assert was in OWN
    path.write_text(OWN.replace(was, wrong, 1))
    assert main.main(["check-objective", str(path)]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and len(said) > len(f"error: {path}: ")
