"""The state, one compiled step, one loop."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dlm import checkpoint, config, data, evaluate, keys, metrics, objectives, optim, sharding
from dlm.likelihood import Estimate
from dlm.model import transformer
from dlm.store import Store

State = dict[str, Any]  # step, params, opt, average (empty where no average is kept)


class Interrupted(Exception):
    """Asked to stop; a checkpoint is saved and the same command goes on from it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished or diverged run leaves: weights on the host, and its numbers."""

    reason: str  # why it diverged, or ""
    best: Any  # the parameters with the best validation loss
    progress: dict[str, Any]
    ledger: Int[np.ndarray, "n"]  # raw tokens of training seen from each unique window


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled functions of one shape. Every rate and the seed are runtime values."""

    init: Callable[[PRNGKeyArray], State]
    many: Callable[..., tuple[State, Float[Array, "S"], Float[Array, "S"]]]


def build(c: config.Config, vocab_size: int) -> Steps:
    """The compiled step of a config, shared by all that differ only in rates, seed or duration."""
    static = dataclasses.replace(
        c.optimizer, lr=1.0, weight_decay=0.0, warmup="", decay="", final=0.0,
        ema=float(c.optimizer.ema > 0),
    )  # fmt: skip
    return _build(c.model, c.objective, static, vocab_size)


@functools.lru_cache(maxsize=16)
def _build(
    model: config.Model, objective: config.Objective, static: config.Optimizer, vocab_size: int
) -> Steps:
    goal = objectives.make(objective, vocab_size)
    network = transformer(model, vocab_size + goal.family.extra_tokens)

    def init(key: PRNGKeyArray) -> State:
        params = network.init(key)
        opt = optim.optimizer(static, jnp.float32(0), jnp.float32(0)).init(params)
        average = params if static.ema else {}
        return dict(step=jnp.int32(0), params=params, opt=opt, average=average)

    def one(state: State, tokens: Int[Array, "B L"], hyper: optim.Hyper, key: PRNGKeyArray):
        def loss(params) -> Float[Array, ""]:
            total = goal.loss(network.apply, params, tokens, jax.random.fold_in(key, state["step"]))
            return total.nats / total.tokens

        value, gradient = jax.value_and_grad(loss)(state["params"])
        rate = optim.learning_rate(static.schedule, state["step"], hyper)
        optimizer = optim.optimizer(static, rate, hyper.weight_decay)
        updates, opt = optimizer.update(gradient, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        average = state["average"]
        if static.ema:
            average = optim.average(average, params, state["step"], hyper.ema)
        norm = optim.global_norm(gradient)
        return dict(step=state["step"] + 1, params=params, opt=opt, average=average), value, norm

    def many(state, batches: Int[Array, "S B L"], count: Int[Array, ""], hyper, key):
        """The first `count` of S batches, a step each. A loop with a runtime count compiles once."""

        def body(i, carry):
            state, losses, norms = carry
            state, value, norm = one(state, batches[i], hyper, key)
            return state, losses.at[i].set(value), norms.at[i].set(norm)

        empty = jnp.zeros(batches.shape[0])
        return jax.lax.fori_loop(0, count, body, (state, empty, empty))

    return Steps(init, jax.jit(many, donate_argnums=0))


def weights(state: State) -> Any:
    """The weights that are evaluated: the average where one is kept."""
    return state["average"] or state["params"]


def abstract_state(c: config.Config, vocab_size: int, mesh: jax.sharding.Mesh) -> State:
    """Shapes, types and shardings of a config's state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(build(c, vocab_size).init, keys.named(0, "init"))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        sharding.state_shardings(mesh, shapes),
    )


def train(
    c: config.Config,
    store: Store,
    folder: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Outcome:
    """Trains one run in its folder, from its last checkpoint if there is one.

    `stop` is asked between calls; `report` is told the progress. Everything random depends on the
    seed and the step alone, so a resumed run ends in the same bits.

    Raises:
      Interrupted: `stop` said so; a checkpoint was saved.
      DlmError: bad input, found before the first step.
    """
    plan = config.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
    windows = data.training_windows(store, c.data.seq_len, plan.unique_tokens)
    held_out = data.validation_windows(store, c.data.seq_len)
    documents = data.window_documents(store.validation_offsets, c.data.seq_len, len(held_out))
    mesh = sharding.make_mesh(c.mesh, c.train.batch_size)
    steps = build(c, store.vocab_size)
    hyper = optim.hyper(c.optimizer, plan)
    noise = keys.named(c.train.seed, "noise")

    abstract = abstract_state(c, store.vocab_size, mesh)
    batches = data.batches(windows, store, c.data, c.train, plan.steps)
    ledger = np.zeros(len(windows), np.int64)
    progress: dict[str, Any] = dict(
        step=0, seconds=0.0, best_loss=math.inf, best_step=0, worse=0, last_loss=None, reason=""
    )

    def track(params, passes: int) -> tuple[Estimate, Estimate]:
        """The tracking estimates: on held-out windows, and on as many training windows."""
        count = c.evaluation.sequences or len(held_out)
        exact = config.FAMILIES[c.objective.name].exact
        found = []
        for part, ids in ((held_out, documents), (windows, np.arange(len(windows)))):
            nats = evaluate.score(c, store.vocab_size, params, part[:count], passes, mesh)
            found.append(evaluate.estimate(nats, ids[:count], c.data.seq_len, exact))
        return found[0], found[1]

    with checkpoint.open_checkpoints(folder / "checkpoints") as checkpoints:
        saved = checkpoint.restore(checkpoints, state=abstract, best=weights(abstract), data=batches, ledger=None)  # fmt: skip
        if saved:
            state, best, progress = saved["state"], saved["best"], saved["progress"]
            ledger = np.array(saved["ledger"]["exposures"])
        else:
            shardings = jax.tree.map(lambda x: x.sharding, abstract)
            state = jax.jit(steps.init, out_shardings=shardings)(keys.named(c.train.seed, "init"))
            best = jax.tree.map(jnp.copy, weights(state))  # `state` is donated
        log = metrics.Metrics(folder, metrics.hparams(c), progress["step"])
        clock, pace = _Clock(progress["seconds"]), _Pace(plan)
        step = progress["step"]

        def save() -> None:
            checkpoint.save(checkpoints, step, progress | {"step": step, "seconds": clock.total}, state=state, best=best, data=batches, ledger={"exposures": ledger})  # fmt: skip

        for edge in _edges(plan, c.train.steps_per_call, after=step):
            losses, norms = [], []
            clock.start()
            while step < edge.step:
                count = min(c.train.steps_per_call, edge.step - step)
                tokens = np.zeros((c.train.steps_per_call, c.train.batch_size, c.data.seq_len), np.int32)  # fmt: skip
                for i in range(count):
                    batch = next(batches)
                    tokens[i] = batch["tokens"]
                    data.record_exposures(ledger, batch["origin"], c.data.seq_len)
                placed = sharding.put_batch(mesh, tokens, axis=1)
                state, loss, norm = steps.many(state, placed, count, hyper, noise)
                losses.append(loss[:count])
                norms.append(norm[:count])
                step += count
                if len(losses) > 1:  # a call late, so that the next one is already under way
                    report(pace.row(step - count, float(losses[-2][-1]), clock.total))
                if stop():
                    break
            mean = float(np.mean(np.concatenate(losses))) if losses else math.nan
            clock.stop(plan.tokens_per_step * sum(map(len, losses)))
            where = pace.row(step, mean, clock.total)
            if losses:
                rate = float(optim.learning_rate(c.optimizer.schedule, jnp.int32(step - 1), hyper))
                extra = {"grad_norm": float(norms[-1][-1]), "lr": rate, **clock.speed(plan, c)}
                log.write(where | extra)
                report(where | extra)
            if not progress["reason"] and not mean < c.evaluation.diverged * math.log(store.vocab_size):
                progress["reason"] = f"training loss {mean:.3g} nats/token at step {step}"
            if step == edge.step and edge.evaluate and not progress["reason"]:
                found, seen = track(weights(state), c.evaluation.passes)
                log.write(_evaluation_row(where, found, seen, store.bytes_per_token))
                report(where | {"validation_loss": found.value})
                progress["last_loss"] = found.value
                if found.value < progress["best_loss"]:
                    progress |= dict(best_loss=found.value, best_step=step, worse=0)
                    best = jax.tree.map(jnp.copy, weights(state))
                else:
                    progress["worse"] += 1
            patient = not c.evaluation.patience or progress["worse"] < c.evaluation.patience
            ended = step == plan.steps or progress["reason"] or not patient
            if edge.save or ended or stop():
                save()
            if ended:
                break
            if stop():
                log.close()
                raise Interrupted
        log.close()
    progress |= dict(step=step, seconds=clock.total, **clock.speed(plan, c))
    return Outcome(progress["reason"], best, progress, ledger)


@dataclasses.dataclass(frozen=True)
class _Edge:
    step: int
    evaluate: bool
    save: bool


def _edges(plan: config.Plan, per_call: int, after: int) -> list[_Edge]:
    """Where calls end: evaluations, checkpoints, and a row of the log every half percent."""
    every = -(-max(plan.steps // 200, 1) // per_call) * per_call
    saves = set(range(plan.checkpoint_every, plan.steps, plan.checkpoint_every))
    scored = set(plan.evaluate_at)
    steps = sorted({*range(every, plan.steps, every), *saves, *scored})
    return [_Edge(s, s in scored, s in saves) for s in steps if s > after]


class _Pace:
    """The columns that every row has."""

    def __init__(self, plan: config.Plan):
        self._plan = plan

    def row(self, step: int, loss: float, seconds: float) -> metrics.Row:
        plan = self._plan
        tokens = step * plan.tokens_per_step
        return dict(
            step=step, tokens=tokens, epoch=tokens / plan.unique_tokens,
            flops=step * plan.flops_per_step, seconds=round(seconds, 3), loss=loss,
        )  # fmt: skip


class _Clock:
    """Seconds and tokens of training, without evaluation, checkpoints and the first, compiling call."""

    def __init__(self, before: float):
        self._before, self._spans, self._since = before, [], time.perf_counter()

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self, tokens: int) -> None:
        self._spans.append((time.perf_counter() - self._since, tokens))
        self._since = time.perf_counter()

    @property
    def total(self) -> float:
        return self._before + sum(seconds for seconds, _ in self._spans)

    def speed(self, plan: config.Plan, c: config.Config) -> dict[str, float]:
        spans = self._spans[1:] or self._spans
        seconds, tokens = sum(s for s, _ in spans), sum(t for _, t in spans)
        rate = tokens / max(seconds, 1e-9)
        peak = evaluate.device_peak(c.model.dtype) * jax.device_count()
        return {"tokens_per_second": rate, "mfu": rate / plan.tokens_per_step * plan.flops_per_step / peak}


def _evaluation_row(
    where: metrics.Row, found: Estimate, seen: Estimate, bytes_per_token: float | None
) -> metrics.Row:
    bits = None if bytes_per_token is None else found.value / bytes_per_token / math.log(2)
    row = {name: value for name, value in where.items() if name != "loss"}
    return row | dict(
        validation_loss=found.value, validation_stderr=found.stderr, train_eval_loss=seen.value,
        train_eval_stderr=seen.stderr, bits_per_byte=bits, kind=found.kind,
    )  # fmt: skip
