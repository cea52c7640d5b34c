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

State = dict[str, Any]  # step, params, opt, average (empty if no average is kept)


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled functions of one shape. Learning rates, duration and seed are arguments.

    init(key) -> state, placed as `sharding.RULES` say
    train_steps(state, batches Int[S B L], count, hyper, key)
        -> (state, losses Float[S], norms Float[S])
        Takes one step with each of the first `count` batches. Losses are nats per token; gradient
        norms are measured before clipping. `state` is donated.

    Microbatch i of M takes sequences i, i + M, ... of a batch, so that every device has a share of
    each microbatch, and each sequence draws the noise that it would draw in the whole batch.
    Gradients of summed losses are added, and divided once by the tokens of the batch.
    """

    init: Callable[[PRNGKeyArray], State]
    train_steps: Callable[..., tuple[State, Float[Array, " S"], Float[Array, " S"]]]


def build(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> Steps:
    """Cached: configs that differ only in learning rate, seed or duration share one compiled step."""
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

    def train_step(state: State, tokens: Int[Array, "B L"], hyper: optim.Hyper, key: PRNGKeyArray):
        step = state["step"]

        def loss(params: Params, part: Int[Array, "B L"], draws: keys.RowKeys) -> Float[Array, ""]:
            params = sharding.with_whole_tables(mesh, params)
            return functions.loss(network.apply, params, part, draws, step).nats / tokens.size

        loss_and_gradient = accumulate_microbatches(jax.value_and_grad(loss), microbatches)
        draws = keys.row_keys(jax.random.fold_in(key, step), len(tokens))
        value, gradient = loss_and_gradient(state["params"], tokens, draws)
        rate = optim.learning_rate(optimizer.schedule, step, hyper)
        update = optim.optimizer(optimizer, rate, hyper.weight_decay).update
        change, opt = update(gradient, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], change)
        average = state["average"]
        if averaged:
            average = optim.average(average, params, step, hyper.ema_decay)
        state = dict(step=step + 1, params=params, opt=opt, average=average)
        return state, value, optax.tree.norm(gradient)

    def train_steps(
        state: State,
        batches: Int[Array, "S B L"],
        count: Int[Array, ""],
        hyper: optim.Hyper,
        key: PRNGKeyArray,
    ) -> tuple[State, Float[Array, " S"], Float[Array, " S"]]:
        def body(i, carry):
            state, losses, norms = carry
            state, value, norm = train_step(state, batches[i], hyper, key)
            return state, losses.at[i].set(value), norms.at[i].set(norm)

        # The count is known at run time only: any number of steps, compiled once.
        empty = jnp.zeros(batches.shape[0])
        return jax.lax.fori_loop(0, count, body, (state, empty, empty))

    placed = sharding.state_shardings(mesh, jax.eval_shape(init, keys.key_for(0, "init")))
    numbers = sharding.replicated(mesh)
    return Steps(
        jax.jit(init, out_shardings=placed),
        jax.jit(train_steps, donate_argnums=0, out_shardings=(placed, numbers, numbers)),
    )


def accumulate_microbatches(compute: Callable, parts: int) -> Callable:
    """Sums the trees that `compute(params, tokens, draws)` returns over microbatches, in sequence."""
    if parts == 1:
        return compute

    def total(params: Params, tokens: Int[Array, "B L"], draws: keys.RowKeys) -> Any:
        split = tokens.reshape(-1, parts, tokens.shape[-1]).swapaxes(0, 1)
        rows = draws.rows.reshape(-1, parts).T

        def add(sums, part):
            tokens, rows = part
            part = compute(params, tokens, draws._replace(rows=rows))
            return jax.tree.map(jnp.add, sums, part), None

        shapes = jax.eval_shape(compute, params, split[0], draws._replace(rows=rows[0]))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, (split, rows))[0]

    return total


def weights(state: State) -> Params:
    """The weights that are evaluated: the moving average if one is kept."""
    return state["average"] or state["params"]


def abstract(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> State:
    """Shapes, types and shardings of a config's state; a checkpoint is restored into them."""
    shapes = jax.eval_shape(build(c, vocab_size, mesh).init, keys.key_for(0, "init"))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        sharding.state_shardings(mesh, shapes),
    )


def saved_parts(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The parts of a config's checkpoints, as `checkpoint.restore` takes them."""
    state = abstract(c, vocab_size, mesh)
    return dict(state=state, best=weights(state), ledger=None)
