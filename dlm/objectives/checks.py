"""Checks the laws that every objective keeps, by brute force over all strings of a small alphabet.

The tests check every family, and `dlm check-objective FILE` checks a user's file. Three models are
used: a random one far from uniform, one with uniform predictions, and one trained on three strings.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlm import config
from dlm.model import Params, Transformer, keys, transformer
from dlm.objectives import Objective, Sum

VOCABULARY, LENGTH = 3, 4
MODEL = config.Model(
    layers=1, width=8, heads=2, ff=16, init_std=0.5, tied=False, time_conditioning="adaln"
)
# Monte Carlo samples of a bound; repeats for its standard error; standard errors that are allowed.
PASSES, KEYS, LIMIT = 32, 12, 4.0
ALIKE = np.tile([0, 40, 80], 9)  # 0000, 1111, 2222 among all strings
STEPS = 300


class Proof(NamedTuple):
    law: str
    holds: bool
    words: str  # what was measured


class Bench(NamedTuple):
    """An objective over a random model, and its compiled functions."""

    objective: Objective
    network: Transformer
    params: Params
    strings: jax.Array  # all of them
    nll: Callable
    loss: Callable


@functools.lru_cache(maxsize=32)
def bench(objective: Objective) -> Bench:
    network = transformer(MODEL, VOCABULARY + objective.family.extra_tokens)
    params = objective.init(jax.jit(network.init)(jax.random.key(0)))
    every = itertools.product(range(VOCABULARY), repeat=LENGTH)
    apply = network.apply
    nll, loss = (jax.jit(functools.partial(f, apply)) for f in (objective.nll, objective.loss))
    return Bench(objective, network, params, jnp.array(list(every), jnp.int32), nll, loss)


def check(objective: Objective) -> list[Proof]:
    """Checks every law, the most important first."""
    laws = [sums, parts, normalised, repeatable, rows, training, samples]
    if objective.family.hides_targets:
        laws.append(blind)
    return [proof for law in laws for proof in law(bench(objective))]


def _scores(b: Bench, params: Params, passes: int, repeats: int) -> np.ndarray:
    """Nats of every string under several keys, [repeats, strings]."""
    return np.stack([
        np.asarray(b.nll(params, b.strings, jax.random.key(k), passes).nats, np.float64)
        for k in range(repeats)
    ])  # fmt: skip


@functools.lru_cache(maxsize=32)
def _learnt(objective: Objective) -> tuple[Params, Params]:
    """Trains a model on three strings. Returns its parameters and the last gradient."""
    b = bench(objective)

    @jax.jit
    def descend(params: Params) -> tuple[Params, Params]:
        def slope(p: Params, key: jax.Array) -> Params:
            return jax.grad(
                lambda q: objective.loss(b.network.apply, q, b.strings[ALIKE], key).nats
            )(p)

        def one(i, carry):
            p, _ = carry
            g = slope(p, jax.random.fold_in(jax.random.key(7), i))
            norm = jnp.sqrt(sum((jnp.sum(x**2) for x in jax.tree.leaves(g)), 1e-12))
            pace = 0.2 * (1 - i / STEPS)
            return jax.tree.map(lambda x, d: x - pace * d / norm, p, g), g

        return jax.lax.fori_loop(0, STEPS, one, (params, params))

    return descend(b.params)


def parts(b: Bench) -> list[Proof]:
    """Compares the loss of a batch with the sum over three parts of it, whose rows draw the same."""
    draws = keys.row_keys(jax.random.key(9), len(b.strings))
    whole = float(b.loss(b.params, b.strings, draws.key).nats)
    thirds = [draws.rows[i::3] for i in range(3)]
    total = sum(float(b.loss(b.params, b.strings[r], draws._replace(rows=r)).nats) for r in thirds)
    law = "the loss of a batch is the sum of its parts'"
    return [Proof(law, math.isclose(whole, total, rel_tol=1e-4), f"{whole:.4f} and {total:.4f}")]


def sums(b: Bench) -> list[Proof]:
    key, proofs = jax.random.key(1), []
    for name, run, shape in (
        ("loss", lambda: b.loss(b.params, b.strings, key), ()),
        ("nll", lambda: b.nll(b.params, b.strings, key, 2), (len(b.strings),)),
    ):
        total = run()
        wrong = _wrong_sum(total, shape, b.strings.size)
        terms = ", ".join(map(str, total.terms))
        words = wrong or f"shape {total.nats.shape}, {total.tokens} tokens, terms {terms}"
        law = f"{name} is a finite sum of its terms, over all tokens"
        proofs.append(Proof(law, not wrong, words))
    return proofs


def _wrong_sum(total: Sum, shape: tuple[int, ...], tokens: int) -> str:
    """Says what is wrong with a Sum; "" if nothing is."""
    if total.nats.shape != shape:
        return f"nats has shape {total.nats.shape}, must be {shape}"
    if total.tokens != tokens:
        return f"tokens is {total.tokens}, must be {tokens}, all there are"
    if not np.isfinite(total.nats).all():
        return "nats is not finite"
    if not total.terms:
        return "terms is empty; must name the parts that add up to nats, such as {'nll': nats}"
    added = sum(np.asarray(v, np.float64) for v in total.terms.values())
    if not np.allclose(added, total.nats, rtol=1e-4, atol=1e-3):
        words = f"terms {', '.join(map(str, total.terms))} add up to"
        return f"{words} {np.sum(added):.4f}, must be nats, {np.sum(total.nats):.4f}"
    return ""


def normalised(b: Bench) -> list[Proof]:
    """Sums the probabilities of all strings: 1 for a likelihood, at most 1 for a bound.

    A bound may be loose for a random model and so hide a wrong weight. It is nearly tight for a model
    with uniform predictions and for a trained one.
    """
    flat = jax.tree.map(jnp.zeros_like, b.params)
    models = {"random": b.params, "knows nothing": flat, "has learnt": _learnt(b.objective)[0]}
    words, holds = [], True
    for name, params in models.items():
        if b.objective.family.exact:
            total = np.exp(-_scores(b, params, 1, 1)[0]).sum()
            words.append(f"{name} {total:.6f}")
            holds &= abs(total - 1) < 1e-4
            continue
        draws = _scores(b, params, PASSES, KEYS)
        # exp is convex: noise in the bound can only raise the sum, by about half its variance.
        each, noise = np.exp(-draws.mean(0)), draws.std(0, ddof=1) / math.sqrt(KEYS)
        error = math.sqrt(((each * noise) ** 2).sum()) + (each * noise**2).sum()
        words.append(f"{name} {each.sum():.4f} ± {error:.4f}")
        holds &= each.sum() <= 1 + LIMIT * error + 1e-5
    law = "bound: the probabilities it allows sum to at most one"
    if b.objective.family.exact:
        law = "exact: the probabilities of all strings sum to one"
    return [Proof(law, bool(holds), ", ".join(words))]


def blind(b: Bench) -> list[Proof]:
    """Checks that no logits are scored on a token that the model saw: under one key, changing token i
    changes no row of logits whose loss, at fixed logits, depends on token i.

    Only for objectives that hide their targets. Noise that may leave a token unchanged shows it by
    design; for those, the sum over all strings is the proof.
    """
    objective = b.objective

    def look(score: Callable, tokens: jax.Array, key: jax.Array) -> tuple[list, list]:
        """Returns the logits of every call, and the gradient of the score at other, fixed logits."""
        logits = []

        def real(*inputs, **how):
            logits.append(b.network.apply(*inputs, **how))
            return logits[-1]

        def slope(given: list) -> jax.Array:
            rest = iter(given)
            return jnp.sum(score(lambda *_, **__: next(rest), b.params, tokens, key).nats)

        score(real, b.params, tokens, key)
        fixed = [jax.random.normal(jax.random.key(6), x.shape) for x in logits]
        return logits, jax.grad(slope)(fixed)

    def count(look: Callable, repeats: int) -> np.ndarray:
        """Counts rows of logits that saw what they are scored on, and all rows that are scored."""
        leaks = scored = 0
        for k in range(repeats):
            logits, slopes = look(b.strings, jax.random.key(k))
            for i in range(LENGTH):
                other = b.strings.at[:, i].set((b.strings[:, i] + 1) % VOCABULARY)
                moved, turned = look(other, jax.random.key(k))
                for x, y, s, t in zip(logits, moved, slopes, turned, strict=True):
                    asked = (s != t).any(-1)
                    scored += int(asked.sum())
                    leaks += int((asked & (x != y).any(-1)).sum())
        return np.array([leaks, scored])

    counts = {}
    for name, score in (("loss", objective.loss), ("nll", lambda *given: objective.nll(*given, 1))):
        one = functools.partial(look, score)
        try:
            counts[name] = count(jax.jit(one), KEYS)
        except jax.errors.UnexpectedTracerError:  # it loops; then a step at a time
            with jax.disable_jit():
                counts[name] = count(one, 2)
    return [
        Proof(
            f"{name} scores no logits on a token that reached them",
            bool(scored > 0 and leaks == 0),
            f"{leaks:,} of {scored:,} rows",
        )
        for name, (leaks, scored) in counts.items()
    ]


def repeatable(b: Bench) -> list[Proof]:
    pairs = []
    for key in (jax.random.key(3), jax.random.key(3), jax.random.key(4)):
        pairs.append(np.asarray(b.nll(b.params, b.strings, key, 2).nats))
    same, other = (pairs[0] == pairs[1]).all(), (pairs[0] != pairs[2]).any()
    words = "another key changes it" if other else "no key changes it"
    right = same and (not other if b.objective.family.exact else True)
    return [Proof("the same key gives the same bits, and an exact value needs none", right, words)]


def rows(b: Bench) -> list[Proof]:
    """Checks that BOS and MASK are inputs only: their logits change nothing."""
    loud = b.params | {"head": b.params["head"].at[VOCABULARY:].set(40.0)}
    key = jax.random.key(5)
    same = all(
        np.array_equal(run(b.params), run(loud))
        for run in (
            lambda p: np.asarray(b.loss(p, b.strings, key).nats),
            lambda p: np.asarray(b.nll(p, b.strings, key, 2).nats),
        )
    )
    return [Proof("no probability goes to BOS or MASK", same, "" if same else "it does")]


def training(b: Bench) -> list[Proof]:
    """Checks gradients, and that steps along them lower the loss."""

    def mean(params):
        several = range(100, 100 + KEYS)
        draws = [b.loss(params, b.strings[ALIKE], jax.random.key(k)).nats for k in several]
        return float(np.mean(np.array(draws, np.float64)))

    moved, gradient = _learnt(b.objective)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(g) for p, g in leaves}
    bad = [n for n, g in named.items() if not np.isfinite(g).all()]
    # A model that reads no time has no gradient there, and one of vectors none in the head.
    idle = [n for n, g in named.items() if not g.any() and "time" not in n and n != "head"]
    words = f"{len(named)} arrays" + "".join(f"; {n} is not finite" for n in bad)
    words += "".join(f"; {n} gets none" for n in idle)
    before, after = mean(b.params), mean(moved)
    return [
        Proof("every parameter gets a finite gradient", not bad and not idle, words),
        Proof("training lowers its loss", after < before, f"{before:.1f} to {after:.1f} nats"),
    ]


def samples(b: Bench) -> list[Proof]:
    prompt = jnp.array([[2, 1]] * 16, jnp.int32)
    run = jax.jit(lambda key: b.objective.sample(b.network, b.params, key, prompt, LENGTH))
    a, again, other = (np.asarray(run(jax.random.key(k))) for k in (8, 8, 9))
    right = a.shape == (16, LENGTH) and a.min() >= 0 and a.max() < VOCABULARY
    kept, same = bool((a[:, :2] == prompt).all()), bool((a == again).all())
    words = f"{len(np.unique(np.concatenate([a, other]), axis=0))} different of 32"
    law = "samples are tokens, keep the prompt and follow the key"
    return [Proof(law, right and kept and same, words)]
