"""What the loop does between calls of the compiled steps, one small object each.

A hook has `at`, the steps at which a call has to end for it; `due`, whether it acts after a call; and
it is called with the training and that call. `dlm.training.loop.train` lists them in their order.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from dlm.config import flops
from dlm.evaluation import score as evaluation
from dlm.runs import bucket
from dlm.training import checkpoint, distributed, metrics, optimizer, prepare, shared_prefix, step
from dlm.training.checkpoint import Checkpoints
from dlm.training.prepare import Prepared
from dlm.training.progress import Call, Progress, Training

Report = Callable[[metrics.Row], None]


class Hook(Protocol):
    at: frozenset[int]

    def due(self, training: Training) -> bool: ...
    def __call__(self, training: Training, call: Call) -> None: ...


class Log:
    """Reports each call's loss, and writes a row to the log when calls end at a hook's step.

    Losses are read a call late, while the next call runs. A loss that is no number ends the run.
    """

    def __init__(self, training: Training, rows: metrics.Metrics, report: Report):
        c, plan = training.prepared.config, training.prepared.plan
        every = _multiple(max(plan.steps // 200, 1), c.train.steps_per_call)  # half a percent
        self.at = frozenset(range(every, plan.steps, every))
        self._rows, self._report = rows, report
        self._clock = _Clock(training.prepared, training.progress)
        self._hyper = optimizer.hyper(c.optimizer, plan)
        self._calls: list[Call] = []  # since the last row

    def due(self, training: Training) -> bool:
        return True

    def __call__(self, training: Training, call: Call) -> None:
        self._calls.append(call)
        if len(self._calls) > 1:
            loss = _last(self._calls[-2].losses, self._calls[-2].count)
            self._report(training.position() | {"loss": loss})
        if call.at_stop:
            self.flush(training)

    def flush(self, training: Training) -> None:
        """Writes a row on the calls since the last row, if there are any."""
        if not self._calls:
            return
        calls, self._calls = self._calls, []
        losses = np.concatenate([np.asarray(call.losses)[: call.count] for call in calls])
        self._clock.stop(calls[0].began, len(losses))
        progress, mean = training.progress, float(np.mean(losses))
        schedule = training.prepared.config.optimizer.schedule
        rate = optimizer.learning_rate(schedule, progress.step - 1, self._hyper)
        norm = _last(calls[-1].grad_norms, calls[-1].count)
        speed = {"tokens_per_second": progress.tokens_per_second, "mfu": progress.mfu}
        row = {"loss": mean, "grad_norm": norm, "lr": float(rate)} | speed
        self.write(training, training.position() | row)
        if not math.isfinite(mean):
            progress.reason = f"training loss {mean} at step {progress.step}"

    def write(self, training: Training, row: metrics.Row) -> None:
        """Writes and reports one row."""
        self._rows.write(row)
        training.progress.log = self._rows.written
        self._report(row)

    def sync(self) -> None:
        """Waits until all rows are on disk, so that no checkpoint is ahead of them."""
        self._rows.sync()


class Evaluate:
    """Scores validation and training windows, keeps the best weights, and finds divergence."""

    def __init__(self, prepared: Prepared, log: Log):
        self.at = frozenset(prepared.plan.evaluate_at)
        self._log = log

    def due(self, training: Training) -> bool:
        return training.progress.step in self.at and not training.progress.reason

    def __call__(self, training: Training, call: Call) -> None:
        prepared, progress = training.prepared, training.progress
        weights = step.weights(training.state)
        validation, train = prepare.score(prepared, weights, final=False)
        val_estimate, train_estimate = validation.estimate, train.estimate
        row = dict(
            validation_loss=val_estimate.value,
            validation_stderr=val_estimate.stderr,
            train_eval_loss=train_estimate.value,
            train_eval_stderr=train_estimate.stderr,
            bits_per_byte=evaluation.bits_per_byte(val_estimate, prepared.store.bytes_per_token),
            kind=val_estimate.kind,
        )
        self._log.write(training, training.position() | row)
        limit = prepared.config.evaluation.divergence_factor * math.log(prepared.store.vocab_size)
        if not train_estimate.value < limit:
            progress.reason = (
                f"{train_estimate.value:.3g} nats/token on training windows at step {progress.step}"
            )
        if progress.improves(val_estimate.value):
            training.best = checkpoint.copied(weights)  # `state` is donated


class Interrupt:
    """Asks after each call whether to stop. Several processes have to ask equally often."""

    at: frozenset[int] = frozenset()

    def __init__(self, stop: Callable[[], bool]):
        self._stop = stop

    def due(self, training: Training) -> bool:
        return True

    def __call__(self, training: Training, call: Call) -> None:
        training.stopping = self._stop()


class Checkpoint:
    """Saves a checkpoint when one is due, when the run ends, and before it stops."""

    def __init__(self, training: Training, checkpoints: Checkpoints, log: Log, folder: Path):
        plan = training.prepared.plan
        self.at = frozenset(range(plan.checkpoint_every, plan.steps, plan.checkpoint_every))
        self._saved = training.progress.step
        self._checkpoints, self._log, self._folder = checkpoints, log, folder

    def due(self, training: Training) -> bool:
        now = training.progress.step
        wanted = now in self.at or training.ended or training.stopping
        return wanted and now > self._saved

    def __call__(self, training: Training, call: Call) -> None:
        self._saved = training.progress.step
        self._log.flush(training)
        self._log.sync()
        checkpoint.save(
            self._checkpoints,
            training.saved(),
            training.ledger,
            state=training.state,
            best=training.best,
        )
        if distributed.primary() and (problem := bucket.try_send(self._folder)):
            print(f"warning: {problem}; sent again at the next checkpoint", file=sys.stderr)


class SharedPrefix:
    """Leaves the state in the trunk when the learning rate begins to decay, for longer runs."""

    def __init__(self, prepared: Prepared, trunk: Path, folder: Path):
        self.at = frozenset({shared_prefix.decay_start(prepared.plan)} - {0})
        self._trunk, self._folder = trunk, folder

    def due(self, training: Training) -> bool:
        return training.progress.step in self.at and not training.ended

    def __call__(self, training: Training, call: Call) -> None:
        shared_prefix.leave(self._trunk, training, self._folder)


class _Clock:
    """Adds up seconds of training, and measures its speed. Evaluations and checkpoints do not count.

    The speed leaves out the first span of calls, which compiles.
    """

    def __init__(self, prepared: Prepared, progress: Progress):
        self._peak = evaluation.device_peak(prepared.config.model.dtype) * jax.device_count()
        self._plan, self._progress = prepared.plan, progress
        self._spans: list[tuple[float, int]] = []  # seconds and steps

    def stop(self, began: float, steps: int) -> None:
        """Ends a span of calls whose losses have been read."""
        self._spans.append((time.perf_counter() - began, steps))
        spans = self._spans[1:] or self._spans
        rate = sum(steps for _, steps in spans) / sum(seconds for seconds, _ in spans)
        progress, plan = self._progress, self._plan
        progress.seconds = round(progress.seconds + self._spans[-1][0], 3)
        progress.tokens_per_second = rate * plan.tokens_per_step
        progress.mfu = flops.utilisation(rate * plan.flops_per_step, self._peak)


def _last(values: jax.Array, count: int) -> float:
    """The last of the first `count` values; waits until they are computed."""
    return float(np.asarray(values)[count - 1])


def _multiple(least: int, of: int) -> int:
    """The smallest multiple of a number that is not below `least`."""
    return -(-least // of) * of
