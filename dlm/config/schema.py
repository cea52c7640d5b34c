"""The fields of a config, typed and frozen, with their defaults and what each may be.

A field that takes some numbers or words only says so beside its default: `number`, `word` and
`amount` keep it in the field's metadata, which `dlm.config.rules.check` reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlm.config.families import FAMILIES, Family, own

SCHEDULES = ("linear", "cosine", "polynomial", "loglinear", "geometric")
# Beyond what any training takes, and within JAX's 32-bit integers:
MOST_STEPS = 1_000_000_000
MOST = 1_048_576  # tokens of a sequence, sequences of a batch, devices along an axis


class Range(NamedTuple):
    """The numbers that a field takes: `low` to `high`, or without an end that is left out."""

    low: float
    high: float
    without: str = ""  # "low", "high" or "both": ends that are left out

    def __contains__(self, x: object) -> bool:
        assert isinstance(x, int | float)
        above = x > self.low if self.without in ("low", "both") else x >= self.low
        below = x < self.high if self.without in ("high", "both") else x <= self.high
        return above and below  # NaN is in no range

    def __str__(self) -> str:
        low, high = (f"{x:,}" if isinstance(x, int) else f"{x:g}" for x in self[:2])
        return {
            "": f"from {low} to {high}",
            "low": f"above {low} and at most {high}",
            "high": f"at least {low} and below {high}",
            "both": f"above {low} and below {high}",
        }[self.without]


def number(default: float, low: float, high: float, without: str = "") -> Any:
    """A field that takes the numbers of a `Range`."""
    return field(default=default, metadata={"range": Range(low, high, without)})


def word(*words: str) -> Any:
    """A field that takes one of these words; the first is its default."""
    return field(default=words[0], metadata={"words": words})


def amount(default: str) -> Any:
    """A field that holds a number and a unit, such as "60 epochs"; see `dlm.config.rules.duration`."""
    return field(default=default, metadata={"amount": True})


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where token sequences come from. `options` are the keyword arguments of the corpus function."""

    name: str = "stdlib"
    options: dict[str, Any] = field(default_factory=dict)
    # share of the documents held out, chosen by a hash of their content
    validation_fraction: float = number(0.1, 0, 1, without="both")


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """How text becomes ids; corpora of integers (images, topics) do without."""

    kind: str = word("chars", "bytes", "bpe", "sentencepiece", "hf", "gpt2")
    vocab_size: int = number(0, 0, 1_000_000)  # of bpe, which is trained on the training split
    # of a .model (sentencepiece), a tokenizer.json (hf), a folder (gpt2; "": fetched from the Hub)
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Data:
    seq_len: int = number(64, 1, MOST)  # L: tokens scored per sequence, after BOS
    # U, raw tokens, a multiple of L; 0: the whole training split
    unique_tokens: int = number(0, 0, 10**15)
    # U as a random sample of the windows, or the windows of the first "documents", as the paper
    subset: str = word("windows", "documents")
    # epoch: each window once an epoch; multiset: E copies of each document shuffled, then packed
    mode: str = word("epoch", "multiset")


@dataclass(frozen=True, kw_only=True)
class Dropout:
    embedding: float = number(0.0, 0, 1, without="high")
    residual: float = number(0.0, 0, 1, without="high")
    attention: float = number(0.0, 0, 1, without="high")
    mlp: float = number(0.0, 0, 1, without="high")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The Llama shape. `size` names a row of the paper's Table 5 and fills the four numbers."""

    size: str = ""
    layers: int = number(2, 1, 1000)
    width: int = number(128, 2, 65_536)
    heads: int = number(4, 1, 32_768)
    ff: int = number(0, 0, 524_288)  # 0: the paper's rule, int(8D/3/64)·64
    tied: bool = True
    rope_theta: float = number(10_000.0, 1, 1e12)
    # standard deviation; output projections start at 1/sqrt(2·layers) of it
    init_std: float = number(0.02, 1e-6, 10)
    dropout: Dropout = field(default_factory=Dropout)
    # of the computation; parameters are always float32
    dtype: str = word("float32", "bfloat16")
    attention: str = word("xla", "cudnn")  # cudnn: bfloat16 on a GPU
    scan: bool = False  # layers in one compiled loop: deep models compile faster, shallow ones slow
    # what the backward pass computes again, to save memory: nothing, all, or all but products
    remat: str = word("none", "block", "dots")
    time_conditioning: str = word(
        "none", "adaln"
    )  # adaln: norms scaled and shifted by the noise level


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Comments name the objectives that read a field; the others leave it alone."""

    name: str = "ar"
    file: str = ""  # a Python file with an objective of one's own, called `name`
    digest: str = ""  # of that file, filled in
    # the draw of the training loss of masked, block: time (Bernoulli, 1/t) or count (exact, L/k)
    estimator: str = word("time", "count")
    # orders, any_order: how many fixed orders; 0: a new one for every sequence
    orders: int = number(4, 0, 10_000)
    # jitter (of left to right), uniform, spans or segments
    order_kind: str = word("jitter", "uniform", "spans", "segments")
    span: int = number(8, 1, MOST)  # spans: tokens that stay together
    # segments: the token id that ends one (a full stop, an end of document)
    separator_id: int = number(-1, -1, 10_000_000)
    targets: bool = False  # orders: give the position of the token that is asked for
    # noise: share of the input tokens that are changed in training
    noise: float = number(0.1, 0, 1, without="high")
    noise_kind: str = word("mask", "replace")  # noise: mask, or replace by a random token
    # noise: share of the queries that lose part of their keys
    attention_noise: float = number(0.0, 0, 1)
    # block: tokens that are denoised together, a divisor of data.seq_len
    block: int = number(4, 1, MOST)
    # masked, d3pm, flow: masking over time
    schedule: str = word(*SCHEDULES)
    # polynomial, m(t) = t^schedule_exponent: beyond 4, m of an early time is 0 in float32, and its
    # weight NaN
    schedule_exponent: float = number(2.0, 0.1, 4)
    # masked, d3pm: steps of a chain in discrete time; 0: continuous time
    timesteps: int = number(0, 0, 10_000)
    # masked: bound, or unweighted cross-entropy, in training alone
    weighting: str = word("bound", "unweighted")
    # masked: share of the training sequences whose masks are a suffix
    suffix: float = number(0.0, 0, 1)
    low_noise: float = number(
        1.0, 0.01, 1
    )  # masked: the highest time trained on in the first steps
    low_noise_steps: int = number(0, 0, MOST_STEPS)
    transition: str = word("uniform", "absorbing")  # d3pm
    parameterization: str = word(
        "denoising", "score"
    )  # d3pm: a distribution over tokens, or ratios
    path: str = word("mask", "uniform")  # flow: from masks or from uniform tokens
    prediction: str = word("x0", "epsilon")  # gaussian: x0 (a mean of embeddings) or epsilon
    # gaussian: from this at t = 0 to minus this at t = 1
    log_snr: float = number(6.0, 0, 20, without="low")
    learned_schedule: bool = False  # gaussian: both ends of the log-SNR are parameters

    @property
    def family(self) -> Family:
        return own(self.file, self.digest).FAMILY if self.file else FAMILIES[self.name]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW."""

    lr: float = number(2e-3, 1e-10, 10)
    schedule: str = word("cosine", "wsd", "constant")  # each after a linear warm-up
    warmup: str = amount("100 steps")
    # learning rate at the end, as a share of lr (cosine, wsd)
    min_lr_ratio: float = number(0.1, 0, 1)
    decay: str = amount("20 percent")  # of the run, at its end (wsd)
    weight_decay: float = number(0.1, 0, 1000)  # not on one-dimensional parameters
    b1: float = number(0.9, 0, 1, without="high")
    b2: float = number(0.95, 0, 1, without="high")
    eps: float = number(1e-8, 1e-20, 1)
    grad_clip_norm: float = number(1.0, 1e-6, 1e12)  # global gradient norm
    # decay of the averaged weights that are evaluated; 0: none
    ema_decay: float = number(0.0, 0, 1, without="high")


@dataclass(frozen=True, kw_only=True)
class Train:
    duration: str = amount("100 epochs")  # in steps, tokens, epochs or flops
    batch_size: int = number(16, 1, MOST)  # sequences per step
    # of a step, one after another: their gradients are added; moves no number. 0: as is fast
    microbatches: int = number(0, 0, MOST)
    seed: int = number(0, 0, 2**32 - 1)  # initialisation, order of the data, noise
    # optimizer steps in one compiled call; changes no number
    steps_per_call: int = number(16, 1, 10_000)
    checkpoint_every: str = amount("20 percent")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`dlm.config.planning` refuses mc_samples, sequences and samples whose FLOPs cannot be meant."""

    every: str = amount("1 epochs")  # first evaluation, and the least distance between two
    # each evaluation comes at least this factor later than the last
    interval_growth: float = number(1.15, 1, 1000)
    # validation sequences scored while training; 0: all of them
    sequences: int = number(0, 0, 10**15)
    mc_samples: int = number(1, 1, 10**15)  # Monte Carlo passes over them, for a bound
    # passes over the whole validation split, for the result
    final_mc_samples: int = number(8, 1, 10**15)
    batch_size: int = number(64, 1, MOST)
    # stop after so many evaluations without a better one; 0: never
    patience: int = number(0, 0, MOST_STEPS)
    samples: int = number(4, 0, 10**15)  # sequences drawn at the end
    # stop when the loss on training windows exceeds log V by this factor
    divergence_factor: float = number(3.0, 1, 1e6)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along each axis; data 0 takes all that the other two leave."""

    data: int = number(0, 0, MOST)
    fsdp: int = number(1, 1, MOST)
    tensor: int = number(1, 1, MOST)


@dataclass(frozen=True, kw_only=True)
class Config:
    corpus: Corpus = field(default_factory=Corpus)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
    mesh: Mesh = field(default_factory=Mesh)


def _fields(group: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    for f in dataclasses.fields(group):
        value = getattr(group, f.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", f


FIELDS = dict(_fields(Config()))  # by dotted name: model.layers, model.dropout.mlp
