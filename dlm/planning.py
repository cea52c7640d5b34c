"""What a run comes to, once its corpus is known: steps, tokens, parameters, FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlm import flops
from dlm.config import Config
from dlm.errors import fail
from dlm.rules import duration


@dataclass(frozen=True)
class Plan:
    """What a run comes to, once the corpus is known. Tokens are raw tokens."""

    unique_tokens: int  # U
    windows: int  # U / L
    steps: int
    tokens_per_step: int
    warmup: int  # steps
    decay: int  # steps at the end, for wsd
    checkpoint_every: int  # steps
    evaluate_every: int  # steps, at first
    evaluate_at: tuple[int, ...]  # steps, increasing; the last is `steps`
    parameters: flops.Parameters
    flops_per_step: float  # analytic, by attention kind
    flops_6nd_per_step: float  # 6 · N · tokens, N with embeddings: the paper's count

    @property
    def epochs(self) -> float:
        return self.steps * self.tokens_per_step / self.unique_tokens


def plan(config: Config, *, train_tokens: int, vocab_size: int) -> Plan:
    """Turns durations into steps, and sizes into parameters and FLOPs, once the corpus is known.

    Raises:
      DlmError: more unique tokens than the corpus has, or a batch larger than the subset.
    """
    length, batch = config.data.seq_len, config.train.batch_size
    available = train_tokens // length * length
    if available == 0:
        fail("data.seq_len", length, f"at most {train_tokens}, the training tokens there are")
    if config.data.unique_tokens > available:
        fail(
            "data.unique_tokens",
            config.data.unique_tokens,
            f"at most {available:,}: the training split of {config.corpus.name} has "
            f"{train_tokens:,} tokens",
        )
    objective = config.objective
    if objective.order_kind == "segments" and objective.separator >= vocab_size:
        fail("objective.separator", objective.separator, f"below {vocab_size}, the vocabulary")
    unique = config.data.unique_tokens or available
    if batch * length > unique:
        fail("train.batch_size", batch, f"at most {unique // length}, the windows of the subset")
    model = config.model
    family = config.objective.family
    rows, positions = vocab_size + family.extra_tokens, length + family.extra_positions
    sizes = dict(layers=model.layers, width=model.width, ff=model.ff, rows=rows)
    count = flops.parameters(**sizes, tied=model.tied, time=model.time == "adaln")
    per_step = batch * flops.training_flops(
        **sizes, length=positions, attention=family.attention, block=config.objective.block
    )
    unit: dict[str, Any] = dict(tokens=batch * length, unique=unique, flops=per_step)
    steps = to_steps("train.duration", config.train.duration, **unit)
    unit["steps"] = steps
    every = to_steps("evaluation.every", config.evaluation.every, **unit)
    return Plan(
        unique_tokens=unique,
        windows=unique // length,
        steps=steps,
        tokens_per_step=batch * length,
        warmup=to_steps("optimizer.warmup", config.optimizer.warmup, **unit),
        decay=to_steps("optimizer.decay", config.optimizer.decay, **unit),
        checkpoint_every=to_steps("train.checkpoint_every", config.train.checkpoint_every, **unit),
        evaluate_every=every,
        evaluate_at=_evaluation_steps(steps, every, config.evaluation.growth),
        parameters=count,
        flops_per_step=per_step,
        flops_6nd_per_step=6.0 * count.total * batch * length,
    )


def check_length(config: Config, document_length: int | None, validation_tokens: int) -> None:
    """Raises DlmError where L fits neither the documents (of one length) nor the validation split."""
    length = config.data.seq_len
    if document_length and document_length % length:
        right = (
            f"a divisor of {document_length}, the length of each document of {config.corpus.name}"
        )
        fail("data.seq_len", length, right)
    if validation_tokens < length:
        fail(
            "data.seq_len", length, f"at most {validation_tokens}, the validation tokens there are"
        )


def to_steps(
    name: str, text: str, *, tokens: int, unique: int, flops: float, steps: int = 0
) -> int:
    """Steps in a duration such as "60 epochs", rounded to the nearest step, at least 1.

    Units: steps, tokens, epochs (of `unique` tokens), flops, and percent (of `steps`, where known).
    """
    unit, amount = duration(name, text)
    if unit == "percent" and not steps:
        fail(name, text, "in steps, tokens, epochs or flops")
    scale = {
        "steps": 1.0,
        "tokens": 1 / tokens,
        "epochs": unique / tokens,
        "flops": 1 / flops,
        "percent": steps / 100,
    }[unit]
    return max(1, round(amount * scale))


def _evaluation_steps(steps: int, every: int, growth: float) -> tuple[int, ...]:
    """Dense early, sparse late: AR's best comes within a few epochs of hundreds."""
    at, step = [], every
    while step < steps:
        at.append(step)
        step = max(step + every, round(step * growth))
    return (*at, steps)
