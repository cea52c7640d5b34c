"""Every number for a likelihood: the NELBO, bounds from both sides, and exact values along a path.

For an order s of the positions, log p_s(x) = Σ_i log p(x_s(i) | x_s(<i)). A sampler that reveals in
a random order has the likelihood p(x) = E_s p_s(x), which is enclosed:

  (1) nelbo    -log p(x) <= -E log p_s(x)                              (Ou et al. 2024, 2406.03736)
  (2) orders   -log p(x) <= -E log (1/K) Σ_k p_k(x), K independent orders: never above (1), and lower
               with K                                             (Burda et al. 2015, 1509.00519)
  (3) tangent  -log p(x) >= -[log a + E p_s(x)/a - 1] for any a > 0, here from other orders than s
                                                                           (TUBE, 2605.24292)

A sampler that chooses positions by what is revealed alone has one order for each sequence:

  (4) path     its likelihood is the product along that order, at any number of tokens a call: exact
                                                                           (DUEL, 2603.01367)

An ensemble is the mean of the members' probabilities, token by token, and has the same numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config, objectives
from dlm.config.method import BOUNDS, Method
from dlm.errors import DlmError
from dlm.evaluation import score
from dlm.model import Params, keys, sharding, transformer
from dlm.objectives import Conditionals, InOrder
from dlm.objectives.common import cross_entropy
from dlm.objectives.reveal import next_on_path
from dlm.runs.estimate import Estimate
from dlm.runs.likelihoods import Scored

PASSES = 4  # of a round of the NELBO, whose times are spread evenly; at least 2 rounds
MOST_ROUNDS = 64
MC_SHARE = 0.25  # of the error over documents: the Monte Carlo error that is aimed for by itself
MC_ALONE = 0.01  # nats per token: aimed for if a single window has no error over documents


class Member(NamedTuple):
    """One model; several are an ensemble, whose probabilities are averaged token by token."""

    config: config.Config
    params: Params


class Likelihood(NamedTuple):
    """An estimate, and what is behind it: each window's nats and their Monte Carlo variance."""

    estimate: Estimate
    nats: Float[np.ndarray, " n"]
    mc_variance: Float[np.ndarray, " n"]  # 0: nothing is drawn; NaN: not known
    documents: Int[np.ndarray, " n"]  # in which each window starts
    mc_samples: int = 0  # Monte Carlo passes over each window


def score_windows(
    members: Sequence[Member],
    vocab_size: int,
    windows: Int[np.ndarray, "n L"],
    documents: Int[np.ndarray, " n"],
    method: Method,
    tell: score.Tell = score.silent,
) -> dict[str, Likelihood]:
    """The numbers of a method by name, `method.bound`'s first; batches and mesh of the first member.

    Of an objective whose `nll` is exact it is that, named "exact", whatever is asked for. Bounds
    orders and tangent come together, with the NELBO of the same orders. Noise depends on the batch
    alone: of two models on the same windows the difference is far less noisy than either.

    `tell` is told the share that is done, of the NELBO by the samples that its error still takes.

    Raises:
      DlmError: the members have other objectives, or the objective has no such number.
    """
    objective = _shared_objective(members)
    functions = objectives.make(objective, vocab_size)
    known, length = functions.conditionals, windows.shape[1]
    c, mesh = members[0].config, sharding.make_mesh(members[0].config)
    models = tuple(member.config.model for member in members)
    params = joint([member.params for member in members])

    def nats(name: str, *options, fold: int = 0, rounds: float = 1) -> Float[np.ndarray, " n"]:
        run = _program(models, objective, vocab_size, mesh, name, options)

        def of_batch(tokens, key):
            return run(params, tokens, jax.random.fold_in(key, fold) if fold else key)

        def tell_share(share: float) -> None:
            tell((fold + share) / max(rounds, fold + 1))

        size = c.evaluation.batch_size
        return score.over_batches(of_batch, windows, size, mesh, tell_share)

    def likelihood(
        nats: np.ndarray, mc_variance: np.ndarray, kind: str, sampler: str
    ) -> Likelihood:
        lengths = np.full(nats.size, length)
        value = score.estimate(nats, lengths, documents, kind, mc_variance, sampler)
        return Likelihood(value, nats, mc_variance, documents)

    sampler = _sampler(method, known)
    if functions.family.exact:
        exact = nats("nll", 1)
        return {"exact": likelihood(exact, np.zeros(exact.size), "exact", "left to right")}
    if method.bound == "nelbo":
        needed: float = 4  # rounds; a guess until two have told the error
        rounds = [nats("nll", PASSES, rounds=needed)]
        while True:
            rounds.append(nats("nll", PASSES, fold=len(rounds), rounds=needed))
            variance = np.var(rounds, axis=0, ddof=1) / len(rounds)
            nelbo = likelihood(np.mean(rounds, axis=0), variance, "upper bound", sampler)
            noise, aim = nelbo.estimate.mc_stderr, _aim(nelbo.estimate, method)
            if noise <= aim or len(rounds) == MOST_ROUNDS:
                return {"nelbo": nelbo._replace(mc_samples=PASSES * len(rounds))}
            needed = min(len(rounds) * (noise / aim) ** 2 if aim else math.inf, MOST_ROUNDS)
    if not _can(known, method.bound):
        able = [
            name
            for name in objectives.OBJECTIVES
            if _can(objectives.make(config.objective(name), 2).conditionals, method.bound)
        ]
        has = [bound for bound in BOUNDS if bound == "nelbo" or _can(known, bound)]
        right = f"{' or '.join(has)}, for objective {objective.name}; of use to {', '.join(able)}"
        raise DlmError(f"bound={method.bound}: must be {right}")
    if isinstance(known, InOrder) and method.tokens_per_call > 1:
        right = f"1, for objective {objective.name}: it scores an order in one call"
        raise DlmError(f"tokens_per_call={method.tokens_per_call}: must be {right}")
    if method.bound == "path":
        exact = nats("path", method.path, method.tokens_per_call, method.entropy_budget)
        return {"path": likelihood(exact, np.zeros(exact.size), "exact", sampler)}
    options = ("order", method.tokens_per_call)
    orders = range(method.orders)
    log_p = -np.stack([nats(*options, fold=k, rounds=method.orders) for k in orders])
    bounds = {
        name: likelihood(nats, variance, kind, sampler)
        for name, (nats, variance, kind) in enclose(log_p).items()
    }
    return {method.bound: bounds[method.bound], **bounds}


def _shared_objective(members: Sequence[Member]) -> config.Objective:
    first, *others = (member.config.objective for member in members)
    for other in others:
        if other != first:
            names = f"{first.name} and {other.name} with other options"
            raise DlmError(
                f"an ensemble must be of one objective with the same options, not {names}"
            )
    return first


def to_keep(numbers: dict[str, Likelihood], method: Method) -> list[Scored]:
    """The numbers as a run's folder keeps them, each under the name of its own method."""
    kept = []
    for name, number in numbers.items():
        if name == "exact":
            continue  # which the run's result has
        own = dataclasses.replace(method, bound="orders" if name == "nelbo" else name).name
        own = f"nelbo of {own}" if name == "nelbo" else own
        kept.append(Scored(own, number.estimate, number.nats.size, number.nats))
    return kept


def _sampler(method: Method, known: Conditionals | InOrder | None) -> str:
    """Whose likelihood the number is, or bounds, in words."""
    order = method.path if method.bound == "path" else "random order"
    one = method.tokens_per_call == 1 or method.bound == "nelbo" or isinstance(known, InOrder)
    return order if one else f"{order}, {method.tokens_per_call} tokens a call"


def _aim(estimate: Estimate, method: Method) -> float:
    """The Monte Carlo error that was asked for, in nats per token."""
    by_documents = math.isfinite(estimate.stderr)  # not with a single window
    return method.mc_stderr or (MC_SHARE * estimate.stderr if by_documents else MC_ALONE)


def _can(known: Conditionals | InOrder | None, bound: str) -> bool:
    """Whether a family that knows this can be scored by a bound."""
    return isinstance(known, Conditionals) or (known is not None and bound != "path")


# --- bounds from the likelihoods of single orders -------------------------------------------------


def enclose(
    log_p: Float[np.ndarray, "K n"],
) -> dict[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], str]]:
    """(1), (2) and (3) from log p of each window in K independent orders: nats, their Monte Carlo
    variance and their kind."""
    mean, variance = -log_p.mean(0), log_p.var(0, ddof=1) / len(log_p)
    bounds = {"nelbo": (mean, variance, "upper bound")}
    bounds["orders"] = (order_bound(log_p), jackknife(order_bound, log_p), "upper bound")
    if len(log_p) > 3:
        noise = jackknife(tangent_bound, log_p)
        bounds["tangent"] = (tangent_bound(log_p), noise, "lower bound")
    return bounds


def order_bound(log_p: Float[np.ndarray, "K n"]) -> Float[np.ndarray, " n"]:
    """(2), in nats."""
    return -_log_mean(log_p)


def tangent(
    log_p: Float[np.ndarray, "K n"], log_a: Float[np.ndarray, "*K n"]
) -> Float[np.ndarray, "K n"]:
    """(3) in nats, of each order by itself; log_a must not depend on that order."""
    return -(log_a + np.exp(log_p - log_a) - 1)


def tangent_bound(log_p: Float[np.ndarray, "K n"]) -> Float[np.ndarray, " n"]:
    """(3), in nats: the mean over orders, with a from the other orders of the window.

    a is their mean likelihood, times the factor that is best for the other windows: the mean of a few
    likelihoods that lie nats apart is mostly far below p, and E p_s/a then far above 1.
    """
    others = np.stack([_log_mean(np.delete(log_p, k, axis=0)) for k in range(len(log_p))])
    ratio = np.exp(log_p - others).mean(0)
    factor = np.ones(1)
    if len(ratio) > 1:
        factor = np.maximum((ratio.sum() - ratio) / (len(ratio) - 1), 1e-3)
    return tangent(log_p, others + np.log(factor)).mean(0)


def _log_mean(log_p: Float[np.ndarray, "K n"]) -> Float[np.ndarray, " n"]:
    return np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))


def jackknife(
    bound: Callable[[np.ndarray], np.ndarray], log_p: Float[np.ndarray, "K n"]
) -> Float[np.ndarray, " n"]:
    """The variance of a bound, by leaving out one order at a time (Efron and Stein 1981)."""
    orders = len(log_p)
    left_out = np.stack([bound(np.delete(log_p, k, axis=0)) for k in range(orders)])
    return (orders - 1) * left_out.var(0)


# --- one compiled program for each number ---------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _program(
    models: tuple[config.Model, ...],
    objective: config.Objective,
    vocab_size: int,
    mesh: jax.sharding.Mesh,
    name: str,
    options: tuple,
) -> Callable[[Params, Int[Array, "B L"], PRNGKeyArray], Float[Array, " B"]]:
    functions = objectives.make(objective, vocab_size)
    rows = vocab_size + functions.family.extra_tokens
    apply = mean_probability([transformer(model, rows).apply for model in models], vocab_size)

    def nats(params, tokens, key) -> Float[Array, " B"]:
        parts = [params] if len(models) == 1 else list(params.values())
        params = joint([sharding.with_whole_tables(mesh, part) for part in parts])
        if name == "nll":
            return functions.nll(apply, params, tokens, key, *options).nats
        known = functions.conditionals
        if isinstance(known, Conditionals) and name == "path":
            return path_nll(known, apply, params, tokens, *options)
        assert known is not None and name == "order"
        return random_order_nll(known, apply, params, tokens, key, *options)

    return jax.jit(nats, out_shardings=sharding.replicated(mesh))


def joint(members: Sequence[Params]) -> Params:
    """The parameters of an ensemble as one tree, by number; those of one member as they are."""
    return members[0] if len(members) == 1 else {str(i): part for i, part in enumerate(members)}


def mean_probability(applies: Sequence[Callable], vocab_size: int) -> Callable:
    """`apply` of an ensemble, over `joint` parameters: the log of the members' mean probability of
    each token; of one member, its own `apply`."""
    if len(applies) == 1:
        return applies[0]

    def apply(params: Params, inputs, **how) -> Float[Array, "B T V"]:
        logits = [f(p, inputs, **how) for f, p in zip(applies, params.values(), strict=True)]
        log_p = jnp.stack([jax.nn.log_softmax(x[..., :vocab_size]) for x in logits])
        return jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(applies))

    return apply


def random_order_nll(
    known: Conditionals | InOrder,
    apply: Callable,
    params: Any,
    tokens: Int[Array, "B L"],
    key: PRNGKeyArray | keys.RowKeys,
    tokens_per_call: int = 1,
) -> Float[Array, " B"]:
    """-log p_s(x) in nats, s an order of each row's own, uniform in each part or as the family draws.

    Tokens that are revealed in one call are independent given those revealed before.
    """
    draws = keys.row_keys(key, len(tokens))
    if isinstance(known, InOrder):
        order = known.draw(draws, tokens)
        return jnp.sum(known.token_nll(apply, params, tokens, order), axis=-1)
    chance = draws.uniform(tokens.shape[1])
    parts = chance.reshape(len(tokens), -1, known.part or chance.shape[1])
    place = jnp.argsort(jnp.argsort(parts, axis=-1), axis=-1).reshape(tokens.shape)
    turn = place // tokens_per_call  # the call that reveals each token

    def call(i, nats):
        logits = known.logits(apply, params, tokens, turn >= i)
        at = cross_entropy(logits, tokens, logits.shape[-1])
        return nats + jnp.sum(jnp.where(turn == i, at, 0.0), axis=-1)

    calls = _calls(known, tokens.shape[1], tokens_per_call)
    return jax.lax.fori_loop(0, calls, call, jnp.zeros(len(tokens)))


def path_nll(
    known: Conditionals,
    apply: Callable | None,
    params: Any,
    tokens: Int[Array, "B L"],
    path: str,
    tokens_per_call: int | Int[Array, ""] = 1,
    entropy_budget: float = 0.1,
) -> Float[Array, " B"]:
    """(4) in nats, of the sampler that reveals along a path, so many tokens of each part a call."""
    batch, length = tokens.shape
    part, calls = known.part or length, _calls(known, length, tokens_per_call)

    def call(i, carry):
        hidden, nats = carry
        logits = known.logits(apply, params, tokens, hidden)
        chosen = next_on_path(
            path,
            logits.reshape(-1, part, logits.shape[-1]),
            hidden.reshape(-1, part),
            calls - i,
            entropy_budget,
        ).reshape(batch, length)
        at = cross_entropy(logits, tokens, logits.shape[-1])
        return hidden & ~chosen, nats + jnp.sum(jnp.where(chosen, at, 0.0), axis=-1)

    start = (jnp.ones((batch, length), bool), jnp.zeros(batch))
    return jax.lax.fori_loop(0, calls, call, start)[1]


def _calls(known: Conditionals, length: int, tokens_per_call: Any) -> Any:
    """Calls of the model for one order of all tokens; parts are revealed side by side."""
    return -(-(known.part or length) // tokens_per_call)
