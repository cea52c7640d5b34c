"""Checks a config: each field by the range or words beside it, then fields that depend on others."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

from dlm.config.families import FAMILIES
from dlm.config.schema import FIELDS, Config
from dlm.errors import fail, nearest

UNITS = ("steps", "tokens", "epochs", "flops", "percent")


def check(c: Config) -> None:
    """Checks every field by what `dlm.config.schema` says of it, then fields against each other.

    Raises:
      DlmError: names the field, its value, and what would be right.
    """
    for name, field in FIELDS.items():
        value, known = operator.attrgetter(name)(c), field.metadata
        if "words" in known:
            _one_of(name, value, known["words"])
        if "range" in known and value not in known["range"]:
            fail(name, value, str(known["range"]))
        if "amount" in known:
            duration(name, value)
    for rules in (_data, _model, _objective, _optimizer):
        rules(c)


def _one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        fail(name, value, f"one of {', '.join(words)}{nearest(value, words)}")


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
    if not o.file:
        _one_of("objective.name", o.name, tuple(FAMILIES))
    if o.name == "any_order" and o.order_kind == "segments":
        right = "jitter, uniform or spans: an order that depends on the tokens is no bound"
        fail("objective.order_kind", "segments", right)
    if c.model.time_conditioning == "adaln" and not o.family.uses_time:
        of_use = ", ".join(name for name, family in FAMILIES.items() if family.uses_time)
        fail("model.time_conditioning", "adaln", f"none, for {o.name}: of use to {of_use}")
    if o.order_kind == "segments" and o.separator_id < 0:
        fail("objective.separator_id", o.separator_id, "a token id, for order_kind='segments'")
    if (o.parameterization == "score" or o.name == "flow") and o.schedule == "geometric":
        right = "one with m(0) = 0; else the loss of flow or parameterization='score' is no bound"
        fail("objective.schedule", o.schedule, right)
    if o.timesteps and o.parameterization == "score":
        fail("objective.timesteps", o.timesteps, "0, for parameterization='score'")
    if o.name == "block" and c.data.seq_len % o.block:
        fail("objective.block", o.block, f"a divisor of data.seq_len={c.data.seq_len}")


def _optimizer(c: Config) -> None:
    o = c.optimizer
    if o.lr * o.weight_decay >= 1:
        right = f"below {1 / o.weight_decay:g}, for optimizer.weight_decay={o.weight_decay:g}"
        fail("optimizer.lr", o.lr, f"{right}: else one step decays more than the whole weight")


def duration(name: str, text: str) -> tuple[str, float]:
    """Unit and amount of a duration such as "60 epochs".

    Raises:
      DlmError: names the field; the text is no duration, or more than all of a run.
    """
    words = r"\s*(\d[\d.,_]*(?:e[+-]?\d+)?)\s*([a-z]+)\s*"
    match = re.fullmatch(words, text.lower())
    amount, unit = match.groups() if match else ("", "")
    try:
        number = float(amount.replace(",", ""))
    except ValueError:
        number = math.nan
    if unit not in UNITS or not 0 < number < math.inf:
        fail(name, text, 'a number and a unit: "60 epochs", "2e6 tokens", "500 steps"')
    if unit == "percent" and number > 100:
        fail(name, text, "at most 100 percent of the run")
    return unit, number


def convert(key: str, value: Any, kind: type) -> Any:
    """A value of the field's type: an int may stand for a float, a number for a string never.

    Raises:
      DlmError: names the field, its value, and the type that it takes.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            fail(key, value, "a number that a float holds, at most 1.8e308")
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = {int: "an integer", float: "a number", str: "a word", bool: "true or false"}[kind]
        if "amount" in FIELDS[key].metadata:
            wanted = "a text such as '60 epochs' (steps, tokens, epochs or flops)"
        fail(key, value, wanted)
    return value
