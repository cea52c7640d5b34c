"""What a config has to keep, rule by rule."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

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

WORDS = {
    "tokenizer.kind": ("chars", "bytes", "bpe", "sentencepiece", "hf", "gpt2"),
    "data.subset": ("windows", "documents"),
    "data.mode": ("epoch", "multiset"),
    "model.dtype": ("float32", "bfloat16"),
    "model.attention": ("xla", "cudnn"),
    "model.time": ("none", "adaln"),
    "model.remat": ("none", "block", "dots"),
    "objective.estimator": ("time", "count"),
    "objective.order_kind": ("jitter", "uniform", "spans", "segments"),
    "objective.schedule": SCHEDULES,
    "objective.weighting": ("bound", "unweighted"),
    "objective.chain": ("uniform", "absorbing"),
    "objective.form": ("denoising", "score"),
    "objective.path": ("mask", "uniform"),
    "objective.prediction": ("x0", "epsilon"),
    "objective.noise_kind": ("mask", "replace"),
    "optimizer.schedule": ("cosine", "wsd", "constant"),
}


class Range(NamedTuple):
    """What keeps a number, in words and as a test, and the fields it is asked of."""

    words: str
    holds: Callable[[float], bool]
    fields: str


RANGES = (
    Range(
        "above 0",
        lambda x: 0 < x < math.inf,
        """data.seq_len model.layers model.width model.heads model.ff model.init model.rope_theta
        train.batch_size train.steps_per_call evaluation.batch_size evaluation.passes
        evaluation.final_passes evaluation.diverged optimizer.lr optimizer.clip optimizer.eps
        objective.block objective.power objective.span objective.low_noise objective.log_snr
        mesh.fsdp mesh.tensor""",
    ),
    Range(
        "0 or above",
        lambda x: 0 <= x < math.inf,
        """data.unique_tokens optimizer.weight_decay evaluation.sequences evaluation.patience
        evaluation.samples objective.orders objective.timesteps objective.low_noise_steps
        mesh.data train.seed train.microbatches""",
    ),
    Range(
        "at least 0 and below 1",
        lambda x: 0 <= x < 1,
        """optimizer.b1 optimizer.b2 optimizer.ema objective.noise model.dropout.embedding
        model.dropout.residual model.dropout.attention model.dropout.mlp""",
    ),
    Range(
        "from 0 to 1, a share",
        lambda x: 0 <= x <= 1,
        "objective.attention_noise objective.suffix optimizer.final",
    ),
    Range("at most 1, a time", lambda x: x <= 1, "objective.low_noise"),
    Range("between 0 and 1, a share of the documents", lambda x: 0 < x < 1, "corpus.validation"),
    Range("1 or above, and below a million", lambda x: 1 <= x < 1e6, "evaluation.growth"),
)


def check(c: Config) -> None:
    """Every rule that one field or two can break without a corpus."""
    families = (c.objective.name,) if c.objective.file else tuple(FAMILIES)
    for name, allowed in {"objective.name": families, **WORDS}.items():
        value = operator.attrgetter(name)(c)
        if value not in allowed:
            fail(name, value, f"one of {', '.join(allowed)}{nearest(value, allowed)}")
    for words, holds, fields in RANGES:
        for name in fields.split():
            value = operator.attrgetter(name)(c)
            if not holds(value):
                fail(name, value, words)
    for name in DURATIONS:
        duration(name, operator.attrgetter(name)(c))
    for rules in (_data, _model, _objective):
        rules(c)


def _data(c: Config) -> None:
    kind, unique, window = c.tokenizer.kind, c.data.unique_tokens, c.data.seq_len
    if unique % window:
        near = max(round(unique / window), 1) * window
        right = f"a multiple of data.seq_len={window}, such as {near}"
        fail("data.unique_tokens", unique, right)
    if c.data.mode == "multiset" and c.data.subset != "documents":
        fail("data.subset", c.data.subset, "documents, for data.mode='multiset'")
    if kind == "bpe" and not 259 <= c.tokenizer.vocab_size <= 1_000_000:
        right = "259 (256 bytes, 2 signs, a character) to 1,000,000, for tokenizer.kind=bpe"
        fail("tokenizer.vocab_size", c.tokenizer.vocab_size, right)
    if kind in ("sentencepiece", "hf") and not c.tokenizer.path:
        fail("tokenizer.path", c.tokenizer.path, f"a path, for tokenizer.kind={kind}")
    if c.train.batch_size % (c.train.microbatches or 1):
        right = f"a divisor of train.batch_size={c.train.batch_size}"
        fail("train.microbatches", c.train.microbatches, right)


def _model(c: Config) -> None:
    m = c.model
    if m.width % m.heads:
        near = [h for h in range(1, m.width + 1) if m.width % h == 0]
        best = sorted(sorted(near, key=lambda h: abs(h - m.heads))[:2])
        right = f"a divisor of model.width={m.width}, such as {' or '.join(map(str, best))}"
        fail("model.heads", m.heads, right)
    if m.width // m.heads % 2:
        fail("model.heads", m.heads, "such that width / heads is even, for rotary embedding")
    for axis, count, field, size in (
        ("tensor", c.mesh.tensor, "model.heads", m.heads),
        ("tensor", c.mesh.tensor, "model.ff", m.ff),
        ("fsdp", c.mesh.fsdp, "model.width", m.width),
    ):
        if size % count:
            fail(f"mesh.{axis}", count, f"a divisor of {field}={size}")
    if m.attention == "cudnn":
        if m.dtype != "bfloat16":
            fail("model.dtype", m.dtype, "bfloat16, for model.attention='cudnn'")
        head = m.width // m.heads
        if head % 8 or head > 256:
            sizes = "a multiple of 8, at most 256, for model.attention='cudnn'"
            fail("model.heads", m.heads, f"such that width / heads is {sizes}")


def _objective(c: Config) -> None:
    o = c.objective
    if o.name == "any_order" and o.order_kind == "segments":
        right = "jitter, uniform or spans: an order that depends on the tokens is no bound"
        fail("objective.order_kind", "segments", right)
    if c.model.time == "adaln" and not o.family.timed:
        of_use = ", ".join(name for name, family in FAMILIES.items() if family.timed)
        fail("model.time", "adaln", f"none, for {o.name}: of use to {of_use}")
    if o.order_kind == "segments" and o.separator < 0:
        fail("objective.separator", o.separator, "a token id, for order_kind='segments'")
    if (o.form == "score" or o.name == "flow") and o.schedule == "geometric":
        right = "one that starts without noise, for form='score' and for flow: else no bound"
        fail("objective.schedule", o.schedule, right)
    if o.timesteps and o.form == "score":
        fail("objective.timesteps", o.timesteps, "0, for form='score'")
    if o.name == "block" and c.data.seq_len % o.block:
        fail("objective.block", o.block, f"a divisor of data.seq_len={c.data.seq_len}")


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
