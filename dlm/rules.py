"""What a config has to keep, rule by rule."""

from __future__ import annotations

import math
import re
from typing import Any

from dlm.errors import fail, nearest
from dlm.families import FAMILIES
from dlm.schema import Config

SCHEDULES = ("linear", "cosine", "polynomial", "loglinear", "geometric")

DURATIONS = (  # fields that hold a number and a unit, such as "60 epochs"
    "train.duration",
    "train.checkpoint_every",
    "evaluation.every",
    "optimizer.warmup",
    "optimizer.decay",
)


def check(c: Config) -> None:
    """Every rule that one field or two can break without a corpus."""
    one_of = {
        "tokenizer.kind": (
            c.tokenizer.kind,
            ("chars", "bytes", "bpe", "sentencepiece", "hf", "gpt2"),
        ),
        "data.subset": (c.data.subset, ("windows", "documents")),
        "data.mode": (c.data.mode, ("epoch", "multiset")),
        "model.dtype": (c.model.dtype, ("float32", "bfloat16")),
        "model.attention": (c.model.attention, ("xla", "cudnn")),
        "model.time": (c.model.time, ("none", "adaln")),
        "model.remat": (c.model.remat, ("none", "block", "dots")),
        "objective.name": (
            c.objective.name,
            (c.objective.name,) if c.objective.file else tuple(FAMILIES),
        ),
        "objective.estimator": (c.objective.estimator, ("time", "count")),
        "objective.order_kind": (
            c.objective.order_kind,
            ("jitter", "uniform", "spans", "segments"),
        ),
        "objective.schedule": (c.objective.schedule, SCHEDULES),
        "objective.weighting": (c.objective.weighting, ("bound", "unweighted")),
        "objective.chain": (c.objective.chain, ("uniform", "absorbing")),
        "objective.form": (c.objective.form, ("denoising", "score")),
        "objective.path": (c.objective.path, ("mask", "uniform")),
        "objective.prediction": (c.objective.prediction, ("x0", "epsilon")),
        "objective.noise_kind": (c.objective.noise_kind, ("mask", "replace")),
        "optimizer.schedule": (c.optimizer.schedule, ("cosine", "wsd", "constant")),
    }
    for name, (value, allowed) in one_of.items():
        if value not in allowed:
            fail(name, value, f"one of {', '.join(allowed)}{nearest(value, allowed)}")
    positive: dict[str, float] = {
        "data.seq_len": c.data.seq_len,
        "model.layers": c.model.layers,
        "model.width": c.model.width,
        "model.heads": c.model.heads,
        "model.ff": c.model.ff,
        "train.batch_size": c.train.batch_size,
        "train.steps_per_call": c.train.steps_per_call,
        "evaluation.batch_size": c.evaluation.batch_size,
        "evaluation.passes": c.evaluation.passes,
        "evaluation.final_passes": c.evaluation.final_passes,
        "model.init": c.model.init,
        "model.rope_theta": c.model.rope_theta,
        "evaluation.diverged": c.evaluation.diverged,
        "optimizer.lr": c.optimizer.lr,
        "optimizer.clip": c.optimizer.clip,
        "optimizer.eps": c.optimizer.eps,
        "objective.power": c.objective.power,
        "objective.span": c.objective.span,
        "objective.low_noise": c.objective.low_noise,
        "objective.log_snr": c.objective.log_snr,
        "mesh.fsdp": c.mesh.fsdp,
        "mesh.tensor": c.mesh.tensor,
    }
    for name, value in positive.items():
        if not value > 0 or not math.isfinite(value):
            fail(name, value, "above 0")
    not_negative: dict[str, float] = {
        "data.unique_tokens": c.data.unique_tokens,
        "optimizer.weight_decay": c.optimizer.weight_decay,
        "evaluation.sequences": c.evaluation.sequences,
        "evaluation.patience": c.evaluation.patience,
        "evaluation.samples": c.evaluation.samples,
        "objective.orders": c.objective.orders,
        "objective.timesteps": c.objective.timesteps,
        "objective.low_noise_steps": c.objective.low_noise_steps,
        "mesh.data": c.mesh.data,
        "train.seed": c.train.seed,
        "train.microbatches": c.train.microbatches,
    }
    for name, value in not_negative.items():
        if not value >= 0 or not math.isfinite(value):
            fail(name, value, "0 or above")
    shares: dict[str, float] = {
        "optimizer.b1": c.optimizer.b1,
        "optimizer.b2": c.optimizer.b2,
        "optimizer.ema": c.optimizer.ema,
        "objective.noise": c.objective.noise,
        "model.dropout.embedding": c.model.dropout.embedding,
        "model.dropout.residual": c.model.dropout.residual,
        "model.dropout.attention": c.model.dropout.attention,
        "model.dropout.mlp": c.model.dropout.mlp,
    }
    for name, value in shares.items():
        if not 0 <= value < 1:
            fail(name, value, "at least 0 and below 1")
    if not 0 <= c.objective.attention_noise <= 1:
        fail("objective.attention_noise", c.objective.attention_noise, "from 0 to 1, a share")
    if not 0 <= c.objective.suffix <= 1:
        fail("objective.suffix", c.objective.suffix, "from 0 to 1, a share")
    if c.objective.low_noise > 1:
        fail("objective.low_noise", c.objective.low_noise, "at most 1, a time")
    if c.objective.name == "any_order" and c.objective.order_kind == "segments":
        right = "jitter, uniform or spans: an order that depends on the tokens is no bound"
        fail("objective.order_kind", "segments", right)
    if c.model.time == "adaln" and not c.objective.family.timed:
        of_use = ", ".join(name for name, family in FAMILIES.items() if family.timed)
        fail("model.time", "adaln", f"none, for {c.objective.name}: of use to {of_use}")
    if c.objective.order_kind == "segments" and c.objective.separator < 0:
        fail("objective.separator", c.objective.separator, "a token id, for order_kind='segments'")
    no_reconstruction = c.objective.form == "score" or c.objective.name == "flow"
    if no_reconstruction and c.objective.schedule == "geometric":
        right = "one that starts without noise, for form='score' and for flow: else no bound"
        fail("objective.schedule", c.objective.schedule, right)
    if c.objective.timesteps and c.objective.form == "score":
        fail("objective.timesteps", c.objective.timesteps, "0, for form='score'")
    if c.objective.block < 1 or (
        c.objective.name == "block" and c.data.seq_len % c.objective.block
    ):
        right = f"a divisor of data.seq_len={c.data.seq_len}"
        fail("objective.block", c.objective.block, right)
    if not 0 <= c.optimizer.final <= 1:
        fail("optimizer.final", c.optimizer.final, "from 0 to 1, a share of lr")
    if not 0 < c.corpus.validation < 1:
        fail("corpus.validation", c.corpus.validation, "between 0 and 1, a share of the documents")
    if c.train.batch_size % (c.train.microbatches or 1):
        right = f"a divisor of train.batch_size={c.train.batch_size}"
        fail("train.microbatches", c.train.microbatches, right)
    if c.model.width % c.model.heads:
        near = [h for h in range(1, c.model.width + 1) if c.model.width % h == 0]
        best = sorted(near, key=lambda h: abs(h - c.model.heads))[:2]
        fail(
            "model.heads",
            c.model.heads,
            f"a divisor of model.width={c.model.width}, such as {' or '.join(map(str, sorted(best)))}",
        )
    if c.model.width // c.model.heads % 2:
        fail("model.heads", c.model.heads, "such that width / heads is even, for rotary embedding")
    if c.model.attention == "cudnn":
        if c.model.dtype != "bfloat16":
            fail("model.dtype", c.model.dtype, "bfloat16, for model.attention='cudnn'")
        if c.model.width // c.model.heads % 8:
            right = "such that width / heads is a multiple of 8, for model.attention='cudnn'"
            fail("model.heads", c.model.heads, right)
    if c.data.unique_tokens % c.data.seq_len:
        near = round(c.data.unique_tokens / c.data.seq_len) * c.data.seq_len
        fail(
            "data.unique_tokens",
            c.data.unique_tokens,
            f"a multiple of data.seq_len={c.data.seq_len}, such as {max(near, c.data.seq_len)}",
        )
    if c.data.mode == "multiset" and c.data.subset != "documents":
        fail("data.subset", c.data.subset, "documents, for data.mode='multiset'")
    if not 1 <= c.evaluation.growth < 1e6:
        fail("evaluation.growth", c.evaluation.growth, "1 or above, and below a million")
    if c.tokenizer.kind == "bpe" and c.tokenizer.vocab_size <= 0:
        fail("tokenizer.vocab_size", c.tokenizer.vocab_size, "above 0 for tokenizer.kind=bpe")
    if c.tokenizer.kind in ("sentencepiece", "hf") and not c.tokenizer.path:
        fail("tokenizer.path", c.tokenizer.path, f"a path, for tokenizer.kind={c.tokenizer.kind}")
    for name in DURATIONS:
        group, key = name.split(".")
        duration(name, getattr(getattr(c, group), key))


def duration(name: str, text: str) -> tuple[str, float]:
    """Unit and amount of a duration such as "60 epochs"; DlmError names the field."""
    units = ("steps", "tokens", "epochs", "flops", "percent")
    words = r"\s*(\d[\d.,_]*(?:e[+-]?\d+)?)\s*([a-z]+)\s*"
    match = re.fullmatch(words, text.lower())
    amount, unit = match.groups() if match else ("", "")
    try:
        number = float(amount.replace(",", ""))
    except ValueError:
        number = math.nan
    if unit not in units or not 0 < number < 1e30:
        fail(name, text, 'a number and a unit: "60 epochs", "2e6 tokens", "500 steps"')
    return unit, number


def convert(key: str, value: Any, kind: type) -> Any:
    """A value of the field's type: an int may stand for a float, a number for a string never."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = {int: "an integer", float: "a number", str: "a word", bool: "true or false"}[kind]
        if key in DURATIONS:
            wanted = "a text such as '60 epochs' (steps, tokens, epochs or flops)"
        fail(key, value, wanted)
    return value
