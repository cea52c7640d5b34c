"""One loop: batches in, weights out, everything on disk that a kill would take."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from dlm import config
from dlm.config import flops, planning
from dlm.data import windows as data
from dlm.data.store import Store
from dlm.evaluation import score as evaluate
from dlm.model import Params, keys, sharding
from dlm.runs import bucket
from dlm.runs.estimate import Estimate
from dlm.training import checkpoint, distributed, metrics, optimizer, shared_prefix, step


class Interrupted(Exception):
    """Asked to stop; a checkpoint is saved and the same command goes on from it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the loop leaves: the best weights by validation, and the numbers of the run."""

    best: Params
    progress: dict[str, Any]  # see `_progress`
    ledger: Int[np.ndarray, " n"]  # training tokens seen from each unique window


def train(
    c: config.Config,
    store: Store,
    folder: Path,
    *,
    trunk: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Outcome:
    """Trains one run in its folder, from its last checkpoint if there is one.

    `stop` is asked between calls of the compiled step; `report` is told the progress. All that is
    random depends on the seed and the step alone, so a resumed run ends in the same bits. Several
    processes go through it together (`dlm.training.distributed`): `stop` has to answer all alike.

    `trunk` is a folder of states that runs of one `config.trunk_id` share: this run begins at the last
    that lies before its decay, if it has no checkpoint of its own, and leaves its own when it decays.
    A run that takes over steps ends in the bits of one that takes them itself.

    Raises:
      Interrupted: `stop` said so; a checkpoint was saved.
      DlmError: bad input, found before the first step.
    """
    tokens = dict(train_tokens=len(store.train), validation_tokens=len(store.validation))
    plan = planning.plan(c, **tokens, vocab_size=store.vocab_size)
    planning.check(c, plan, sharding.machine())
    mesh = sharding.make_mesh(c)
    windows = data.training_windows(store, c.data.seq_len, plan.unique_tokens, c.data.subset)
    mine = sharding.rows(mesh, c.train.batch_size)
    batches = data.batches(windows, store.train_offsets, c.data, c.train, plan.steps, mine)
    many = step.build(c, store.vocab_size, mesh).many
    hyper, noise = optimizer.hyper(c.optimizer, plan), keys.key_for(c.train.seed, "noise")
    size, shape = c.train.steps_per_call, (len(mine), c.data.seq_len)

    folder.mkdir(parents=True, exist_ok=True)
    run, shared = config.run_id(c, store.fingerprint), ""
    if trunk is not None:
        shared = config.trunk_id(c, store.fingerprint, plan.warmup, plan.evaluate_every)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(checkpoint.open_checkpoints(folder / "checkpoints", run))
        decays = plan.steps - plan.decay
        start = functools.partial(_restored, c, store, mesh, batches)
        begun = start(checkpoints)
        if begun is None and trunk is not None:
            begun = shared_prefix.take(start, trunk, shared, folder, decays)
        state, best, ledger, progress = begun or _fresh(c, store, mesh, len(windows))
        hparams = metrics.hparams(c)
        log = metrics.Metrics(
            folder, hparams, progress["step"], progress["log"], distributed.primary()
        )
        stack.enter_context(contextlib.closing(log))
        if log.gap:
            progress["gaps"] = [*progress["gaps"], log.gap]
            print(f"warning: {log.gap}", file=sys.stderr)
        clock, saved = _Clock(c, plan, progress), progress["step"]
        for edge in _edges(plan, size, trunk is not None, after=progress["step"]):
            if _ended(c, plan, progress):  # killed between its last checkpoint and its result
                break
            losses = []
            clock.start()
            while progress["step"] < edge.step and not stop():
                count = min(size, edge.step - progress["step"])
                tokens = np.zeros((size, *shape), np.int32)
                for i in range(count):
                    batch = next(batches)
                    tokens[i] = batch["tokens"]
                    data.record_exposures(ledger, batch["origin"])
                placed = sharding.put_batch(mesh, tokens, axis=1, size=c.train.batch_size)
                state, loss, norm = many(state, placed, count, hyper, noise)
                losses.append((loss, count))
                progress["step"] += count
                if len(losses) > 1:  # read a call late, while the next one is under way
                    late, taken = losses[-2]
                    report(_where(plan, progress) | {"loss": float(np.asarray(late)[taken - 1])})
            if losses:
                read = np.concatenate([np.asarray(loss)[:count] for loss, count in losses])
                mean = float(np.mean(read))
                clock.stop(len(read))
                rate = optimizer.learning_rate(c.optimizer.schedule, progress["step"] - 1, hyper)
                last = float(np.asarray(norm)[count - 1])
                row = {"loss": mean, "grad_norm": last, "lr": float(rate)}
                row = _where(plan, progress) | row | clock.speed()
                log.write(row)
                report(row)
                if not math.isfinite(mean):
                    progress["reason"] = f"training loss {mean} at step {row['step']}"
            at_edge = progress["step"] == edge.step and not progress["reason"]
            if at_edge and edge.evaluate:
                found, seen = score(c, store, step.weights(state), mesh, final=False)
                row = _where(plan, progress) | _scores(found[0], seen[0], store)
                log.write(row)
                report(row)
                if not seen[0].value < c.evaluation.divergence_factor * math.log(store.vocab_size):
                    progress["reason"] = (
                        f"{seen[0].value:.3g} nats/token on training windows at step {row['step']}"
                    )
                if _improves(progress, found[0].value):
                    best = checkpoint.copied(step.weights(state))  # `state` is donated
            progress["log"] = log.written
            ended, stopping = _ended(c, plan, progress), stop()
            if (edge.save or ended or stopping) and progress["step"] > saved:
                saved = progress["step"]
                place = {"data": batches.get_state()}
                log.sync()
                checkpoint.save(checkpoints, progress | place, ledger, state=state, best=best)
                if distributed.primary() and (problem := bucket.try_send(folder)):
                    print(f"warning: {problem}; sent again at the next checkpoint", file=sys.stderr)
            if ended:
                break
            if edge.step == decays and at_edge and trunk is not None:
                place = {"data": batches.get_state()}
                shared_prefix.leave(trunk, shared, progress | place, ledger, state, best, folder)
            if stopping:
                raise Interrupted
    return Outcome(best, progress, ledger)


Scored = tuple[Estimate, np.ndarray]  # an estimate and the nats of each window behind it


def score(
    c: config.Config,
    store: Store,
    params: Params,
    mesh: jax.sharding.Mesh,
    *,
    final: bool,
) -> tuple[Scored, Scored]:
    """The loss on held-out windows, and by the same estimator on training windows, as many or all.

    Final scores take the whole validation split and `final_passes`; others what is enough to track.
    """
    length = c.data.seq_len
    plan = planning.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
    held_out = data.validation_windows(store, length)
    documents = data.validation_documents(store, length)
    wanted = 0 if final else c.evaluation.sequences
    count = min(wanted or len(held_out), len(held_out))
    subset = (store, length, min(plan.unique_tokens, count * length), c.data.subset)
    spread = np.arange(count) * len(held_out) // count  # over all documents, not the first ones
    parts = (
        (held_out[spread], documents[spread]),
        (data.training_windows(*subset), data.training_documents(*subset)),
    )
    exact = c.objective.family.exact
    passes = c.evaluation.final_mc_samples if final else c.evaluation.mc_samples
    passes = 1 if exact else passes  # nothing is drawn
    found = []
    for windows, ids in parts:
        nats = evaluate.score(c, store.vocab_size, params, windows[:count], passes, mesh)
        found.append((evaluate.estimate(nats, ids[:count], length, exact), nats))
    return found[0], found[1]


Begun = tuple[step.State, Params, Any, dict]  # and best weights, ledger, progress


def _restored(c, store, mesh, batches, checkpoints, at_most: float = math.inf) -> Begun | None:
    """The last whole checkpoint up to a step, the batches put in its place; None without one."""
    shapes = step.abstract(c, store.vocab_size, mesh)
    parts = dict(state=shapes, best=step.weights(shapes), ledger=None)
    saved = checkpoint.restore(checkpoints, at_most, **parts)
    if saved is None:
        return None
    ledger = np.array(saved["ledger"]["exposures"])
    batches.set_state(saved["progress"].pop("data"))
    return saved["state"], saved["best"], ledger, saved["progress"]


def _fresh(c, store, mesh, windows: int) -> Begun:
    state = step.build(c, store.vocab_size, mesh).init(keys.key_for(c.train.seed, "init"))
    best = checkpoint.copied(step.weights(state))  # `state` is donated
    return state, best, np.zeros(windows, np.int64), _progress()


def _progress() -> dict[str, Any]:
    """What a checkpoint keeps beside arrays, as plain JSON."""
    return dict(
        step=0,
        shared_steps=0,  # taken over from a trunk
        seconds=0.0,  # of training, over all sittings
        tokens_per_second=0.0,
        mfu=None,  # unknown before training, and if the measured peak is too low to be true
        best_loss=None,  # validation, nats/token
        best_step=0,
        last_loss=None,
        worse=0,  # evaluations since the best
        reason="",  # why it diverged
        warnings=[],  # on checkpoints that were damaged
        gaps=[],  # sentences on rows of metrics.jsonl that were lost
        log=metrics.NOTHING,  # what is written of metrics.jsonl
    )


def _improves(progress: dict[str, Any], loss: float) -> bool:
    """Takes note of a validation loss; says whether it is the best so far."""
    progress["last_loss"] = loss
    better = progress["best_loss"] is None or loss < progress["best_loss"]
    if better:
        progress |= dict(best_loss=loss, best_step=progress["step"], worse=0)
    else:
        progress["worse"] += 1
    return better


def _ended(c: config.Config, plan: planning.Plan, progress: dict[str, Any]) -> bool:
    impatient = 0 < c.evaluation.patience <= progress["worse"]
    return progress["step"] == plan.steps or bool(progress["reason"]) or impatient


@dataclasses.dataclass(frozen=True)
class _Edge:
    step: int
    evaluate: bool
    save: bool


def _edges(plan: planning.Plan, per_call: int, branches: bool, after: int) -> list[_Edge]:
    """Where calls end: evaluations, checkpoints, a branch, a row of the log every half percent."""
    every = -(-max(plan.steps // 200, 1) // per_call) * per_call
    saves = set(range(plan.checkpoint_every, plan.steps, plan.checkpoint_every))
    scored = set(plan.evaluate_at)
    branch = {plan.steps - plan.decay} - {0} if branches else set()
    steps = sorted({*range(every, plan.steps, every), *saves, *scored, *branch})
    return [_Edge(s, s in scored, s in saves) for s in steps if s > after]


def _where(plan: planning.Plan, progress: dict[str, Any]) -> metrics.Row:
    """The columns that every row has."""
    tokens = progress["step"] * plan.tokens_per_step
    return dict(
        step=progress["step"],
        tokens=tokens,
        epoch=tokens / plan.unique_tokens,
        flops=progress["step"] * plan.flops_per_step,
        seconds=progress["seconds"],
    )


def _scores(found: Estimate, seen: Estimate, store: Store) -> metrics.Row:
    return dict(
        validation_loss=found.value,
        validation_stderr=found.stderr,
        train_eval_loss=seen.value,
        train_eval_stderr=seen.stderr,
        bits_per_byte=evaluate.bits_per_byte(found, store.bytes_per_token),
        kind=found.kind,
    )


class _Clock:
    """Seconds and steps of training, without evaluation and checkpoints.

    Speed leaves out the first span, which compiles.
    """

    def __init__(self, c: config.Config, plan: planning.Plan, progress: dict[str, Any]):
        self._peak = evaluate.device_peak(c.model.dtype) * jax.device_count()
        self._plan, self._progress = plan, progress
        self._spans: list[tuple[float, int]] = []
        self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self, steps: int) -> None:
        self._spans.append((time.perf_counter() - self._since, steps))
        spans = self._spans[1:] or self._spans
        rate = sum(steps for _, steps in spans) / sum(seconds for seconds, _ in spans)
        self._progress |= dict(
            seconds=round(self._progress["seconds"] + self._spans[-1][0], 3),
            tokens_per_second=rate * self._plan.tokens_per_step,
            mfu=flops.utilisation(rate * self._plan.flops_per_step, self._peak),
        )

    def speed(self) -> dict[str, float | None]:
        """Of this sitting; of the last one, where this has not trained."""
        return {name: self._progress[name] for name in ("tokens_per_second", "mfu")}
