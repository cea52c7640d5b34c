"""The training state and its one compiled step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import config, objectives
from dlm.config import memory
from dlm.model import Params, keys, sharding, transformer
from dlm.training import optimizer as optim

State = dict[str, Any]  # step, params, opt, average (empty where no average is kept)


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled functions of one shape. Every rate, the duration and the seed are arguments.

    init(key) -> state, placed as `sharding.RULES` say
    many(state, batches Int[S B L], count, hyper, key) -> (state, losses Float[S], norms Float[S])
        takes the first `count` batches, a step each; nats/token and gradient norms before clipping.
        `state` is donated.

    Microbatch i of M takes sequences i, i + M, ... of a batch, so that every device has its share of
    each, and each sequence the noise that it has in the batch. Sums are added, and divided once by
    the tokens of the batch.
    """

    init: Callable[[PRNGKeyArray], State]
    many: Callable[..., tuple[State, Float[Array, " S"], Float[Array, " S"]]]


def build(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> Steps:
    """The steps of a config, the same object for all that differ only in rates, seed or duration."""
    shape = dataclasses.replace(
        c.optimizer, lr=1.0, weight_decay=0.0, warmup="", decay="", min_lr_ratio=0.0, ema_decay=0.0
    )
    averaged = c.optimizer.ema_decay > 0
    shape_of_mesh = memory.Mesh(*(mesh.shape[axis] for axis in memory.Mesh._fields))
    parts = memory.microbatches(c, shape_of_mesh, cpu=jax.default_backend() == "cpu")
    return _build(c.model, c.objective, shape, averaged, parts, vocab_size, mesh)


@functools.lru_cache(maxsize=16)
def _build(
    model: config.Model,
    objective: config.Objective,
    optimizer: config.Optimizer,
    averaged: bool,
    microbatches: int,
    vocab_size: int,
    mesh: jax.sharding.Mesh,
) -> Steps:
    functions = objectives.make(objective, vocab_size)
    network = transformer(model, vocab_size + functions.family.extra_tokens)

    def init(key: PRNGKeyArray) -> State:
        params = functions.init(network.init(key))
        opt = optim.optimizer(optimizer, jnp.float32(0), jnp.float32(0)).init(params)
        return dict(step=jnp.int32(0), params=params, opt=opt, average=params if averaged else {})

    def one(state: State, tokens: Int[Array, "B L"], hyper: optim.Hyper, key: PRNGKeyArray):
        step = state["step"]

        def loss(params: Params, part: Int[Array, "B L"], draws: keys.RowKeys) -> Float[Array, ""]:
            params = sharding.with_whole_tables(mesh, params)
            return functions.loss(network.apply, params, part, draws, step).nats / tokens.size

        found = _added(jax.value_and_grad(loss), microbatches)
        draws = keys.row_keys(jax.random.fold_in(key, step), len(tokens))
        value, gradient = found(state["params"], tokens, draws)
        rate = optim.learning_rate(optimizer.schedule, step, hyper)
        update = optim.optimizer(optimizer, rate, hyper.weight_decay).update
        change, opt = update(gradient, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], change)
        average = state["average"]
        if averaged:
            average = optim.average(average, params, step, hyper.ema_decay)
        state = dict(step=step + 1, params=params, opt=opt, average=average)
        return state, value, optax.tree.norm(gradient)

    def many(
        state: State,
        batches: Int[Array, "S B L"],
        count: Int[Array, ""],
        hyper: optim.Hyper,
        key: PRNGKeyArray,
    ) -> tuple[State, Float[Array, " S"], Float[Array, " S"]]:
        def body(i, carry):
            state, losses, norms = carry
            state, value, norm = one(state, batches[i], hyper, key)
            return state, losses.at[i].set(value), norms.at[i].set(norm)

        # A loop whose count is known at run time only: any number of steps, compiled once.
        empty = jnp.zeros(batches.shape[0])
        return jax.lax.fori_loop(0, count, body, (state, empty, empty))

    placed = sharding.state_shardings(mesh, jax.eval_shape(init, keys.key_for(0, "init")))
    numbers = sharding.replicated(mesh)
    return Steps(
        jax.jit(init, out_shardings=placed),
        jax.jit(many, donate_argnums=0, out_shardings=(placed, numbers, numbers)),
    )


def _added(found: Callable, parts: int) -> Callable:
    """`found(params, tokens, draws)`, a tree, added up over microbatches, one at a time."""
    if parts == 1:
        return found

    def total(params: Params, tokens: Int[Array, "B L"], draws: keys.RowKeys) -> Any:
        split = tokens.reshape(-1, parts, tokens.shape[-1]).swapaxes(0, 1)
        rows = draws.rows.reshape(-1, parts).T

        def add(sums, part):
            tokens, rows = part
            part = found(params, tokens, draws._replace(rows=rows))
            return jax.tree.map(jnp.add, sums, part), None

        shapes = jax.eval_shape(found, params, split[0], draws._replace(rows=rows[0]))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, (split, rows))[0]

    return total


def weights(state: State) -> Params:
    """The weights that are evaluated: the average where one is kept."""
    return state["average"] or state["params"]


def abstract(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> State:
    """Shapes, types and shardings of a config's state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(build(c, vocab_size, mesh).init, keys.key_for(0, "init"))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        sharding.state_shardings(mesh, shapes),
    )
