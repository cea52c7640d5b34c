"""Counts the bytes that a run takes on each device, before anything is built; no JAX.

There are two counts. The least counts only tensors that any compiler must hold: a run whose least does
not fit is refused (`dlm.config.planning`). The estimate counts all that XLA keeps, by factors measured
on a CPU: it is shown, with a warning if it does not fit.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from dlm.config import Config, Model, flops

FLOAT = 4  # bytes of a parameter, a moment, a logit, an attention weight
# Tensors of one kind that live at once, measured (BUILD_NOTES.md):
LOGITS_KEPT = 3  # logits, their exponentials, their gradient
SCORES_KEPT = 3  # of a layer's attention: scores, weights, and one of the backward pass
MUON_KEPT = 2  # of a matrix: its momentum after Nesterov's step, and a product of Newton-Schulz


class Mesh(NamedTuple):
    """Devices along each axis."""

    data: int
    fsdp: int
    tensor: int


class Machine(NamedTuple):
    """Where a run trains."""

    devices: int  # 0: not known
    memory: float  # bytes of each device; infinite: not known
    cpu: bool
    whole: bool = True  # a run takes all devices, not as few as its mesh can do with


class Memory(NamedTuple):
    """Bytes on one device by purpose, each the sum over tensors that live at the same time."""

    parameters: float
    optimizer: float  # both moments; of what Muon updates, one
    average: float  # of the weights, if one is kept
    best: float  # a copy of the best weights
    batch: float  # tokens of one call
    gradients: float  # the update made of them, and what Muon computes on the way
    activations: float  # kept for the backward pass, and the sums of microbatches
    logits: float  # of one microbatch, with their gradients
    scoring: float  # of an evaluation, beside all of the above but gradients and activations
    samples: float  # of all samples together, likewise

    @property
    def state(self) -> float:
        return self.parameters + self.optimizer + self.average + self.best

    @property
    def step(self) -> float:
        """The compiled training step alone, which knows of no best weights."""
        work = max(self.gradients, self.activations + self.logits)
        return self.state - self.best + self.batch + work

    @property
    def total(self) -> float:
        return max(self.best + self.step, self.state + max(self.scoring, self.samples))


def microbatches(c: Config, mesh: Mesh, cpu: bool) -> int:
    """Picks the microbatches per step: those of the config, else as many as leave each device 512
    tokens on a CPU (its caches, see BUILD_NOTES) or 8,192 on an accelerator (not measured).
    """
    if c.train.microbatches:
        return c.train.microbatches
    least = 512 if cpu else 8192
    rows = c.train.batch_size // (mesh.data * mesh.fsdp)
    parts = [n for n in range(1, rows + 1) if rows % n == 0 and rows // n * c.data.seq_len >= least]
    return max(parts, default=1)


def memory(
    c: Config, count: flops.Parameters, vocab_size: int, mesh: Mesh, cpu: bool, least: bool = False
) -> Memory:
    """Counts the bytes that one device holds for a run whose model has `count` parameters.

    `least`: counts only one tensor each of gradients, logits and activations, the least possible.
    """
    m, family = c.model, c.objective.family
    split = mesh.data * mesh.fsdp
    rows = vocab_size + family.extra_tokens
    weights = FLOAT * (
        count.embedding / mesh.fsdp + count.non_embedding / (mesh.fsdp * mesh.tensor)
    )
    by_muon = 0.0  # of the weights
    if c.optimizer.name == "muon":
        by_muon = FLOAT * sum(math.prod(shape) for shape in matrices(m)) / (mesh.fsdp * mesh.tensor)
    parts = microbatches(c, mesh, cpu)
    train = _sequences(c, rows, c.train.batch_size / split / parts, mesh, least)
    score = _sequences(c, rows, c.evaluation.batch_size / split, mesh, least)
    # XLA on a CPU computes nothing anew unless layers are in a loop (BUILD_NOTES.md).
    remat = m.remat if m.scan or not cpu else "none"
    if least:
        activations = train.layer
    else:  # what is computed anew is kept for one layer at a time
        anew = train.layer if remat != "none" else 0
        activations = m.layers * m.loops * train.kept[remat] + anew + (weights if parts > 1 else 0)
    return Memory(
        parameters=weights,
        optimizer=2 * weights - by_muon,
        average=weights if c.optimizer.ema_decay else 0,
        best=weights,
        batch=FLOAT * c.train.steps_per_call * c.train.batch_size / split * c.data.seq_len,
        gradients=weights if least else 2 * weights + MUON_KEPT * by_muon,
        activations=activations,
        logits=train.logits,
        scoring=score.layer + score.logits,
        samples=_samples(c, rows, least),
    )


def matrices(m: Model) -> list[tuple[int, int, int]]:
    """(number, rows, columns) of the matrices in the blocks of a model: what Muon updates."""
    time = m.time_conditioning == "adaln"
    return flops.matrices(layers=m.layers, width=m.width, ff=m.ff, time=time)


class _Activations(NamedTuple):
    """Bytes of a forward pass over some sequences."""

    layer: float  # one layer at work: its largest tensor, or all that it keeps
    kept: dict[str, float]  # of each layer and loop until the backward pass, by `model.remat`
    logits: float


def _sequences(c: Config, rows: int, sequences: float, mesh: Mesh, least: bool) -> _Activations:
    m, family = c.model, c.objective.family
    length = c.data.seq_len + family.extra_positions
    positions = 2 * length if family.attention == "block" else length
    number = 2 if m.dtype == "bfloat16" else FLOAT
    wide = sequences * positions * m.width * number
    inner = sequences * positions * m.ff / mesh.tensor * number
    scores = FLOAT * sequences * m.heads / mesh.tensor * positions**2
    if m.attention == "cudnn":
        scores = 0.0  # never held whole
    elif set(c.objective.training_attention) == {"causal"}:  # by blocks of queries, see `dlm.model`
        blocks = min(max(length // 128, 1), 8)
        scores *= 1 / blocks if least else (1 + 1 / blocks) / 2
    logits = FLOAT * sequences * (length if least else positions) * rows
    if least:
        return _Activations(max(2 * inner, scores, wide), {}, logits)
    full = 6 * wide + 2 * inner + SCORES_KEPT * scores
    products = (5 * wide / mesh.tensor) + 2 * inner
    return _Activations(full, {"none": full, "dots": products, "block": wide}, LOGITS_KEPT * logits)


def _samples(c: Config, rows: int, least: bool) -> float:
    """Counts the bytes of all samples of a run, which are drawn at once, all on one device."""
    m, count = c.model, c.evaluation.samples
    if c.objective.file:  # how it samples is not known
        return float(FLOAT * count * c.data.seq_len)
    if c.objective.family.attention in ("causal", "block"):  # a cache of keys and values
        number = 2 if m.dtype == "bfloat16" else FLOAT
        cache = 2.0 * m.layers * m.loops * count * c.data.seq_len * m.width * number
        return cache + FLOAT * count * rows
    passes = _sequences(c, rows, count, Mesh(1, 1, 1), least)
    return passes.layer + passes.logits


def host_memory() -> float:
    """Returns the bytes that this process may still take: the machine's free memory, or what is left
    of its control group's limit; infinite if neither is known.
    """
    return min(_free(), *(limit - used for limit, used in _groups()), math.inf)


def _free() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(x.split()[1] for x in lines if x.startswith("MemAvailable")))
    except (OSError, StopIteration):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _groups(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[float, float]]:
    """Lists (limit, use) in bytes for each control group of this process that has a limit."""
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = [root, root / "memory"]  # a container sees its own group at the root
    for line in own:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            inside = (root / kinds / path.strip("/")).parents
            folders += [root / kinds / path.strip("/"), *(p for p in inside if root in p.parents)]
    names = [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")]
    limits = []
    for folder in folders:
        for limit, used in names:
            try:
                limits.append(tuple(float((folder / name).read_text()) for name in (limit, used)))
            except (OSError, ValueError):  # no such group, or "max"
                continue
    return limits
