"""A run under way: what the loop advances, and what its hooks and its checkpoints read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Array, Float, Int

from dlm.model import Params
from dlm.training import metrics, step
from dlm.training.prepare import Prepared


@dataclass
class Progress:
    """How far a run is. A checkpoint keeps it as JSON beside its arrays."""

    step: int = 0  # steps taken
    shared_steps: int = 0  # of these, steps that another run took
    seconds: float = 0.0  # of training, over all sittings
    tokens_per_second: float = 0.0
    mfu: float | None = None  # unknown before training, and if the measured peak is too low
    best_loss: float | None = None  # validation loss, nats per token
    best_step: int = 0
    last_loss: float | None = None  # validation loss of the last evaluation
    worse: int = 0  # evaluations since the best one
    reason: str = ""  # why the run diverged
    warnings: list[str] = field(default_factory=list)  # on checkpoints that were damaged
    gaps: list[str] = field(default_factory=list)  # sentences on lost rows of metrics.jsonl
    log: dict[str, Any] = field(default_factory=lambda: dict(metrics.NOTHING))  # rows written

    def improves(self, loss: float) -> bool:
        """Notes a validation loss; True if it is the best one so far."""
        self.last_loss = loss
        if self.best_loss is not None and not loss < self.best_loss:
            self.worse += 1
            return False
        self.best_loss, self.best_step, self.worse = loss, self.step, 0
        return True


class Call(NamedTuple):
    """What one call of the compiled steps returns; the arrays are read when they are needed."""

    began: float  # time.perf_counter() before its batches were drawn
    losses: Float[Array, " S"]  # nats per token; the first `count` are steps
    grad_norms: Float[Array, " S"]  # before clipping
    count: int  # steps taken
    at_stop: bool  # the call ends at a step where a hook is due


@dataclass
class Training:
    """One run under way.

    `state` is donated to the next call of the compiled steps: what must outlive it is copied
    (`checkpoint.copied`).
    """

    prepared: Prepared
    state: step.State
    best: Params  # the weights of the best evaluation so far
    ledger: Int[np.ndarray, " n"]  # training tokens seen from each unique window
    progress: Progress
    batches: grain.DatasetIterator
    stopping: bool = False  # asked to stop; the loop ends when a checkpoint is saved

    @property
    def ended(self) -> bool:
        """True if all steps are taken, the run diverged, or patience ran out."""
        progress, patience = self.progress, self.prepared.config.evaluation.patience
        impatient = 0 < patience <= progress.worse
        return progress.step == self.prepared.plan.steps or bool(progress.reason) or impatient

    def position(self) -> metrics.Row:
        """The columns that every row of the log has: steps, tokens, epochs, FLOPs, seconds."""
        plan, taken = self.prepared.plan, self.progress.step
        tokens = taken * plan.tokens_per_step
        return dict(
            step=taken,
            tokens=tokens,
            epoch=tokens / plan.unique_tokens,
            flops=taken * plan.flops_per_step,
            seconds=self.progress.seconds,
        )

    def saved(self) -> dict[str, Any]:
        """The progress and the place in the data, as JSON, for a checkpoint."""
        return dataclasses.asdict(self.progress) | {"data": self.batches.get_state()}
