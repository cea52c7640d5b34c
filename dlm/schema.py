"""The fields of a config, typed and frozen, with their defaults; comments say what each means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlm.families import FAMILIES, Family, own


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where token sequences come from. `options` are the keyword arguments of the corpus function."""

    name: str = "stdlib"
    options: dict[str, Any] = field(default_factory=dict)
    validation: float = 0.1  # share of the documents held out, chosen by a hash of their content


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """How text becomes ids; corpora of integers (images, topics) do without."""

    kind: str = "chars"  # chars, bytes, bpe, sentencepiece, hf, gpt2
    vocab_size: int = 0  # of bpe, which is trained on the training split
    # of a .model (sentencepiece), a tokenizer.json (hf), a folder (gpt2; "": fetched from the Hub)
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Data:
    seq_len: int = 64  # L: tokens scored per sequence, after BOS
    unique_tokens: int = 0  # U, raw tokens, a multiple of L; 0: the whole training split
    # U as a random sample of the windows, or the windows of the first "documents", as the paper
    subset: str = "windows"
    # epoch: each window once an epoch; multiset: E copies of each document shuffled, then packed
    mode: str = "epoch"


@dataclass(frozen=True, kw_only=True)
class Dropout:
    embedding: float = 0.0
    residual: float = 0.0
    attention: float = 0.0
    mlp: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """The Llama shape. `size` names a row of the paper's Table 5 and fills the four numbers."""

    size: str = ""
    layers: int = 2
    width: int = 128
    heads: int = 4
    ff: int = 0  # 0: the paper's rule, int(8D/3/64)·64
    tied: bool = True
    rope_theta: float = 10_000.0
    init: float = 0.02  # standard deviation; output projections start at 1/sqrt(2·layers) of it
    dropout: Dropout = field(default_factory=Dropout)
    dtype: str = "float32"  # of the computation; parameters are always float32
    attention: str = "xla"  # or cudnn: bfloat16 on a GPU
    scan: bool = False  # layers in one compiled loop: deep models compile faster, shallow ones slow
    remat: str = "none"  # or block, dots: what the backward pass computes again, to save memory
    time: str = "none"  # or adaln: norms scaled and shifted by the noise level


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Comments name the objectives that read a field; the others leave it alone."""

    name: str = "ar"
    file: str = ""  # a Python file with an objective of one's own, called `name`
    digest: str = ""  # of that file, filled in
    # the draw of the training loss of masked, block: time (Bernoulli, 1/t) or count (exact, L/k)
    estimator: str = "time"
    orders: int = 4  # orders, any_order: how many fixed orders; 0: a new one for every sequence
    order_kind: str = "jitter"  # jitter (of left to right), uniform, spans or segments
    span: int = 8  # spans: tokens that stay together
    separator: int = -1  # segments: the token id that ends one (a full stop, an end of document)
    targets: bool = False  # orders: give the position of the token that is asked for
    noise: float = 0.1  # noise: share of the input tokens that are changed in training
    noise_kind: str = "mask"  # noise: mask, or replace by a random token
    attention_noise: float = 0.0  # noise: share of the queries that lose part of their keys
    block: int = 4  # block: tokens that are denoised together, a divisor of data.seq_len
    # masked, d3pm: linear, cosine, polynomial, loglinear or geometric masking over time
    schedule: str = "linear"
    power: float = 2.0  # polynomial
    timesteps: int = 0  # masked, d3pm: steps of a chain in discrete time; 0: continuous time
    weighting: str = "bound"  # masked: bound, or unweighted cross-entropy, in training alone
    suffix: float = 0.0  # masked: share of the training sequences whose masks are a suffix
    low_noise: float = 1.0  # masked: the highest time trained on in the first steps
    low_noise_steps: int = 0
    chain: str = "uniform"  # d3pm: uniform or absorbing
    form: str = "denoising"  # d3pm: denoising (a distribution over tokens) or score (ratios)
    path: str = "mask"  # flow: from masks or from uniform tokens
    prediction: str = "x0"  # gaussian: x0 (a mean of embeddings) or epsilon
    log_snr: float = 6.0  # gaussian: from this at t = 0 to minus this at t = 1
    learned_schedule: bool = False  # gaussian: both ends of the log-SNR are parameters

    @property
    def family(self) -> Family:
        return own(self.file, self.digest).FAMILY if self.file else FAMILIES[self.name]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW."""

    lr: float = 2e-3
    schedule: str = "cosine"  # cosine, wsd, constant; each after a linear warm-up
    warmup: str = "100 steps"
    final: float = 0.1  # learning rate at the end, as a share of lr (cosine, wsd)
    decay: str = "20 percent"  # of the run, at its end (wsd)
    weight_decay: float = 0.1  # not on one-dimensional parameters
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0  # global gradient norm
    ema: float = 0.0  # decay of the averaged weights that are evaluated; 0: none


@dataclass(frozen=True, kw_only=True)
class Train:
    duration: str = "100 epochs"  # in steps, tokens, epochs or flops
    batch_size: int = 16  # sequences per step
    # of a step, one after another: their gradients are added; moves no number. 0: as is fast
    microbatches: int = 0
    seed: int = 0  # initialisation, order of the data, noise
    steps_per_call: int = 16  # optimizer steps in one compiled call; changes no number
    checkpoint_every: str = "20 percent"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    every: str = "1 epochs"  # first evaluation, and the least distance between two
    growth: float = 1.15  # each evaluation comes at least this factor later than the last
    sequences: int = 0  # validation sequences scored while training; 0: all of them
    passes: int = 1  # Monte Carlo passes over them, for a bound
    final_passes: int = 8  # passes over the whole validation split, for the result
    batch_size: int = 64
    patience: int = 0  # stop after so many evaluations without a better one; 0: never
    samples: int = 4  # sequences drawn at the end
    diverged: float = 3.0  # stop when the loss on training windows exceeds log V by this factor


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along each axis; data 0 takes all that the other two leave."""

    data: int = 0
    fsdp: int = 1
    tensor: int = 1


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
