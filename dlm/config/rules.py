"""Checks settings that depend on each other. The range of a single field stands beside the field."""

from __future__ import annotations

from dlm.config import method
from dlm.config.family import FAMILIES
from dlm.config.schema import Config
from dlm.errors import DlmError, fail


def check(c: Config) -> None:
    """Checks settings against each other.

    Raises:
      DlmError: names the field, its value, and what would be right.
    """
    for rules in (_data, _model, _objective, _optimizer, _evaluation):
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
    if c.model.time_conditioning == "adaln" and not o.family.uses_time:
        of_use = ", ".join(name for name, family in FAMILIES.items() if family.uses_time)
        fail("model.time_conditioning", "adaln", f"none, for {o.name}: of use to {of_use}")
    o.check()
    if c.data.seq_len % o.block_length:
        right = f"a divisor of data.seq_len={c.data.seq_len}"
        fail("objective.block", o.block_length, right)


def _optimizer(c: Config) -> None:
    o = c.optimizer
    if o.lr * o.weight_decay >= 1:
        right = f"below {1 / o.weight_decay:g}, for optimizer.weight_decay={o.weight_decay:g}"
        fail("optimizer.lr", o.lr, f"{right}: else one step decays more than the whole weight")


def _evaluation(c: Config) -> None:
    text, o = c.evaluation.final, c.objective
    if not text:
        return
    try:
        how = method.parse(text)
    except DlmError as error:
        raise DlmError(f"config.evaluation.final={text!r}: {error}") from None
    if not o.family.exact and how.bound not in o.bounds:
        right = " or ".join(o.bounds) or "empty"
        fail("evaluation.final", text, f"{right}, for objective {o.name}")
