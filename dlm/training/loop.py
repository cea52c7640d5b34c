"""The training loop: a generator of steps, and hooks that act between them (`dlm.training.hooks`)."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dlm.config import planning
from dlm.data import windows as data
from dlm.errors import DlmError
from dlm.model import Params, keys, sharding
from dlm.runs.folder import CHECKPOINTS
from dlm.training import checkpoint, distributed, hooks, metrics, optimizer, shared_prefix, step
from dlm.training.checkpoint import Checkpoints
from dlm.training.prepare import Prepared
from dlm.training.progress import Call, Progress, Training


class Interrupted(Exception):
    """Asked to stop; a checkpoint is saved. Rerun the command to resume."""


@dataclass(frozen=True)
class Outcome:
    """What the loop leaves: the best weights by validation loss, and the numbers of the run."""

    best: Params
    progress: Progress
    ledger: Int[np.ndarray, " n"]  # training tokens seen from each unique window


def train(
    prepared: Prepared,
    folder: Path,
    *,
    trunk: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: hooks.Report = lambda row: None,
) -> Outcome:
    """Trains one run in its folder, or resumes it (`resume` has the order).

    Asks `stop` between calls of the compiled steps, and tells `report` the progress. Everything
    random depends on the seed and the step alone, so a resumed run ends in the same bits. Several
    processes may train one run together (`dlm.training.distributed`): `stop` has to answer alike in
    all of them.

    `trunk` is a folder of states that runs of one `trunk_id` share (`dlm.training.shared_prefix`).

    Raises:
      Interrupted: `stop` said so; a checkpoint is saved.
      DlmError: bad input, found before the first step.
    """
    planning.check(prepared.config, prepared.plan, sharding.machine())
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        opened = checkpoint.open_checkpoints(folder / CHECKPOINTS, prepared.run_id)
        checkpoints = stack.enter_context(opened)
        training = resume(prepared, checkpoints, folder, trunk)
        rows = stack.enter_context(contextlib.closing(_open_log(training, folder)))
        log = hooks.Log(training, rows, report)
        after_call: list[hooks.Hook] = [
            log,
            hooks.Evaluate(prepared, log),
            hooks.Interrupt(stop),
            hooks.Checkpoint(training, checkpoints, log, folder),
        ]
        if trunk is not None:
            after_call.append(hooks.SharedPrefix(prepared, trunk, folder))
        if not training.ended and stop():
            raise Interrupted
        stops = sorted(frozenset().union(*(hook.at for hook in after_call)))
        for call in steps(training, stops) if not training.ended else ():
            for hook in after_call:
                if hook.due(training):
                    hook(training, call)
            if training.ended:
                break
            if training.stopping:
                raise Interrupted
    return Outcome(training.best, training.progress, training.ledger)


def steps(training: Training, stops: Iterable[int]) -> Iterator[Call]:
    """Trains up to each of `stops`, in order, and yields after each call of the compiled steps.

    A call takes `train.steps_per_call` steps, or fewer up to the next stop. `training` then has the
    new state, ledger and step.
    """
    prepared, progress = training.prepared, training.progress
    c, mesh = prepared.config, prepared.mesh
    train_steps = step.build(c, prepared.store.vocab_size, mesh).train_steps
    hyper, noise = optimizer.hyper(c.optimizer, prepared.plan), keys.key_for(c.train.seed, "noise")
    rows = len(sharding.rows(mesh, c.train.batch_size))
    per_call = c.train.steps_per_call
    for stop in stops:
        while progress.step < stop:
            began = time.perf_counter()
            count = min(per_call, stop - progress.step)
            tokens = np.zeros((per_call, rows, c.data.seq_len), np.int32)
            for i in range(count):
                batch = next(training.batches)
                tokens[i] = batch["tokens"]
                data.record_exposures(training.ledger, batch["origin"])
            placed = sharding.put_batch(mesh, tokens, axis=1, size=c.train.batch_size)
            training.state, losses, norms = train_steps(training.state, placed, count, hyper, noise)
            progress.step += count
            yield Call(began, losses, norms, count, at_stop=progress.step == stop)


def resume(
    prepared: Prepared, checkpoints: Checkpoints, folder: Path, trunk: Path | None
) -> Training:
    """The training, from the first of these that exists:

    1. the run's own last whole checkpoint, with its place in the data;
    2. in `trunk`, the last state before this run's learning rate decays;
    3. step 0, with weights drawn from the seed.

    Raises:
      DlmError: the run has checkpoints, and none of them can be read.
    """
    c, store, plan = prepared.config, prepared.store, prepared.plan
    windows = data.training_windows(store, c.data.seq_len, plan.unique_tokens, c.data.subset)
    rows = sharding.rows(prepared.mesh, c.train.batch_size)
    batches = data.batches(windows, store.train_offsets, c.data, c.train, plan.steps, rows)
    restore = functools.partial(_restore, prepared, batches)
    restored = restore(checkpoints)
    if restored is None and trunk is not None:
        restored = shared_prefix.take(restore, trunk, prepared, folder)
    if restored is not None:
        return restored
    state = step.build(c, store.vocab_size, prepared.mesh).init(keys.key_for(c.train.seed, "init"))
    best = checkpoint.copied(step.weights(state))  # `state` is donated
    ledger = np.zeros(len(windows), np.int64)
    return Training(prepared, state, best, ledger, Progress(), batches)


def _restore(
    prepared: Prepared, batches, checkpoints: Checkpoints, at_most: float = math.inf
) -> Training | None:
    """The training at the last whole checkpoint up to step `at_most`; None if there is none."""
    parts = step.saved_parts(prepared.config, prepared.store.vocab_size, prepared.mesh)
    saved = checkpoint.restore(checkpoints, at_most, **parts)
    if saved is None:
        return None
    place = saved["progress"].pop("data", None)
    try:
        progress = Progress(**saved["progress"])
        batches.set_state(place)
    except (TypeError, ValueError, KeyError):
        raise DlmError(
            f"{checkpoints.folder}: holds a checkpoint of another version of dlm; delete it to start "
            "the run again"
        ) from None
    ledger = np.array(saved["ledger"]["exposures"])
    return Training(prepared, saved["state"], saved["best"], ledger, progress, batches)


def _open_log(training: Training, folder: Path) -> metrics.Metrics:
    """The run's log without rows after its step; rows that are missing before it are noted."""
    progress = training.progress
    hparams = metrics.hparams(training.prepared.config)
    log = metrics.Metrics(folder, hparams, progress.step, progress.log, distributed.primary())
    if log.gap:
        progress.gaps = [*progress.gaps, log.gap]
        print(f"warning: {log.gap}", file=sys.stderr)
    return log
