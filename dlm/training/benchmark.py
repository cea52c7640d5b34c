"""Measures how fast this device trains, scores and samples a config: `dlm benchmark`.

Tokens are random, as speed does not depend on them. Variants are built first and then timed in turn,
one call each, so that other load slows all of them alike; ratios are medians over the rounds.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlm import config
from dlm.config import flops, planning
from dlm.data import windows as data
from dlm.errors import DlmError, nearest
from dlm.evaluation import sampling
from dlm.evaluation import score as evaluate
from dlm.model import keys, sharding
from dlm.training import optimizer, step

# Name -> width, layers, heads, L, sequences a step, vocabulary; named by non-embedding parameters.
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "0.2M": (64, 4, 2, 128, 32, 256),
    "1M": (128, 5, 4, 128, 32, 256),
    "5M": (256, 6, 4, 128, 16, 256),
    "20M": (512, 6, 8, 128, 16, 256),
    "100M": (768, 14, 12, 2048, 16, 50_257),
    "400M": (1024, 32, 16, 2048, 8, 50_257),
    "1B": (2048, 20, 16, 2048, 8, 50_257),
}

CALLS = 64  # of the model by a diffusion sampler


@dataclasses.dataclass(frozen=True)
class Speed:
    """The speed of one variant, in scored tokens; `low` and `high` are quartiles over calls."""

    name: str
    objective: str
    parameters: int  # non-embedding
    compile_seconds: float
    tokens_per_second: float  # of training, median over calls
    low: float
    high: float
    flops_per_second: float  # counted, attention included
    peak: float  # FLOP/s of large matrix products, measured here, on all devices
    mfu: float | None  # counted FLOPs over that peak
    input_share: float  # of a call's time: waiting for batches and placing them
    step_bytes: int  # arguments, results and scratch of the compiled step, on one device
    evaluation_tokens_per_second: float | None  # None: not timed
    sampling_tokens_per_second: float | None
    ratio: float  # of tokens/s over the first variant's, median over rounds


def sized(name: str) -> tuple[Any, int]:
    """ConfigDict and vocabulary of one of SIZES, for this device: bfloat16 on an accelerator, with
    attention by cuDNN on a GPU.

    Raises:
      DlmError: no such size.
    """
    if name not in SIZES:
        raise DlmError(f"--size {name}: must be one of {', '.join(SIZES)}{nearest(name, SIZES)}")
    width, layers, heads, length, batch, vocab_size = SIZES[name]
    c: Any = config.base()
    c.model.update(dict(width=width, layers=layers, heads=heads))
    c.data.seq_len, c.train.batch_size = length, batch
    small = jax.default_backend() == "cpu" and width <= 128  # a call takes seconds, not minutes
    c.train.steps_per_call = 8 if small else 1
    c.evaluation.batch_size = batch
    if jax.default_backend() != "cpu":
        c.model.dtype = "bfloat16"
    if jax.default_backend() == "gpu":
        c.model.attention = "cudnn"
    return c, vocab_size


def default_sizes() -> list[str]:
    return list(SIZES)[:4] if jax.default_backend() == "cpu" else list(SIZES)[4:]


class Bench:
    """One variant, compiled, with its state; `call` trains the steps of one call and times them."""

    def __init__(self, name: str, c: config.Config, vocab_size: int):
        self.name, self.c, self.vocab_size = name, c, vocab_size
        c = dataclasses.replace(c, data=dataclasses.replace(c.data, unique_tokens=0, mode="epoch"))
        self.mesh = sharding.make_mesh(c)
        count = max(64, 2 * c.train.batch_size)
        windows = np.random.default_rng(0).integers(
            0, vocab_size, (count, c.data.seq_len), np.int32
        )
        self.windows = windows
        self.plan = planning.plan(c, train_tokens=windows.size, vocab_size=vocab_size)
        mine = sharding.rows(self.mesh, c.train.batch_size)
        self._batches = data.batches(windows, np.zeros(1, np.int64), c.data, c.train, 1 << 30, mine)
        steps = step.build(c, vocab_size, self.mesh)
        self.state = steps.init(keys.key_for(0, "init"))
        self._rest = optimizer.hyper(c.optimizer, self.plan), keys.key_for(0, "noise")
        began = time.perf_counter()
        lowered = steps.train_steps.lower(self.state, self._next(), self._count(), *self._rest)  # pyright: ignore (it is jitted)
        compiled = lowered.compile()
        self.compile_seconds, self._train_steps = time.perf_counter() - began, compiled
        memory = compiled.memory_analysis()
        self.bytes = 0
        if memory is not None:
            sizes = memory.argument_size_in_bytes + memory.output_size_in_bytes
            self.bytes = sizes + memory.temp_size_in_bytes - memory.alias_size_in_bytes

    def _count(self) -> Any:
        return jnp.int32(self.c.train.steps_per_call)

    def _next(self) -> jax.Array:
        tokens = [next(self._batches)["tokens"] for _ in range(self.c.train.steps_per_call)]
        return sharding.put_batch(self.mesh, np.stack(tokens), 1, self.c.train.batch_size)

    def call(self) -> tuple[float, float]:
        """Seconds of a call, and how many of them passed before it was dispatched."""
        began = time.perf_counter()
        batches = self._next()
        waited = time.perf_counter() - began
        self.state, loss, _ = self._train_steps(self.state, batches, self._count(), *self._rest)
        loss.block_until_ready()
        return time.perf_counter() - began, waited

    def tokens(self) -> int:
        return self.c.train.steps_per_call * self.plan.tokens_per_step


def run(
    variants: dict[str, config.Config], vocab_size: int, seconds: float, training_only: bool = False
) -> list[Speed]:
    """Compiles each variant and times them (`speeds`)."""
    benches = [Bench(name, c, vocab_size) for name, c in variants.items()]
    return speeds(benches, seconds, training_only)


def speeds(benches: list[Bench], seconds: float, training_only: bool = False) -> list[Speed]:
    """Times each variant for about `seconds`, in turn; the first is what the others are compared to.

    `training_only`: neither scoring nor sampling is compiled and timed.
    """
    for bench in benches:
        bench.call()  # the first call after compilation warms caches
    rounds: list[list[tuple[float, float]]] = []
    began = time.perf_counter()
    while len(rounds) < 5 or time.perf_counter() - began < seconds * len(benches):
        rounds.append([bench.call() for bench in benches])
    times = np.array(rounds)  # rounds x variants x (seconds, waited)
    rates = np.array([bench.tokens() for bench in benches]) / times[..., 0]
    measured = []
    for i, bench in enumerate(benches):
        low, median, high = np.quantile(rates[:, i], [0.25, 0.5, 0.75]).tolist()
        rate = median / bench.plan.tokens_per_step * bench.plan.flops_per_step
        peak = evaluate.measured_peak(bench.c.model.dtype) * jax.device_count()
        scored = None if training_only else _scoring(bench)
        sampled = None if training_only else _sampling(bench)
        measured.append(
            Speed(
                name=bench.name,
                objective=bench.c.objective.name,
                parameters=bench.plan.parameters.non_embedding,
                compile_seconds=bench.compile_seconds,
                tokens_per_second=median,
                low=low,
                high=high,
                flops_per_second=rate,
                peak=peak,
                mfu=flops.utilisation(rate, peak),
                input_share=float(times[:, i, 1].sum() / times[:, i, 0].sum()),
                step_bytes=bench.bytes,
                evaluation_tokens_per_second=scored,
                sampling_tokens_per_second=sampled,
                ratio=float(np.median(rates[:, i] / rates[:, 0])),
            )
        )
    return measured


def _scoring(bench: Bench) -> float:
    c, windows = bench.c, bench.windows[: 2 * bench.c.evaluation.batch_size]
    weights = step.weights(bench.state)

    def score() -> None:
        evaluate.score(c, bench.vocab_size, weights, windows, 1, bench.mesh)

    return windows.size / _best(score)


def _sampling(bench: Bench) -> float:
    """Sampled tokens per second: one call a token, or at most CALLS for diffusion."""
    c, count = bench.c, bench.c.train.batch_size
    weights = step.weights(bench.state)
    calls = c.objective.sampler_calls(c.data.seq_len, min(CALLS, c.data.seq_len))

    def sample() -> None:
        key = keys.key_for(0, "sample")
        sampling.sample(c, bench.vocab_size, weights, key, count=count, steps=calls)

    return count * c.data.seq_len / _best(sample)


def _best(work: Callable[[], None], repeats: int = 3) -> float:
    """Seconds of the fastest of a few repeats, after one that compiles."""
    work()
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
