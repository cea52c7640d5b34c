"""The settings of a run: frozen records, whose annotations say what values each field takes.

The group `objective` is the options record of the chosen family, in `dlm.config.families`.
`dlm.config.resolve` checks all values; a record that is made directly, as in tests, is not checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from dlm.config.families import objective
from dlm.config.family import Objective
from dlm.config.fields import MOST, MOST_STEPS, Duration, Flag, Group, PartShare, Range, Share


@dataclass(frozen=True, kw_only=True)
class Corpus(Group):
    """Where token sequences come from. `options` are the keyword arguments of the corpus function."""

    name: str = "stdlib"
    options: dict[str, Any] = field(default_factory=dict)
    # share of the documents that are held out, chosen by a hash of their content
    validation_fraction: Annotated[float, Range(0, 1, "both")] = 0.1


@dataclass(frozen=True, kw_only=True)
class Tokenizer(Group):
    """How text becomes token ids. Corpora of integers (images, topics) need no tokenizer."""

    kind: Literal["chars", "bytes", "bpe", "sentencepiece", "hf", "gpt2"] = "chars"
    # for bpe, which is trained on the training split
    vocab_size: Annotated[int, Range(0, 1_000_000)] = 0
    # a .model (sentencepiece), a tokenizer.json (hf), a folder (gpt2; "": fetched from the Hub)
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    seq_len: Annotated[int, Range(1, MOST)] = 64  # L: tokens scored in each sequence, after BOS
    # U: training tokens, a multiple of L; 0: the whole training split
    unique_tokens: Annotated[int, Range(0, 10**15)] = 0
    # which U tokens: a random sample of the windows, or the windows of the first documents (paper)
    subset: Literal["windows", "documents"] = "windows"
    # epoch: each window once an epoch; multiset: E copies of each document, shuffled, then packed
    mode: Literal["epoch", "multiset"] = "epoch"


@dataclass(frozen=True, kw_only=True)
class Dropout(Group):
    embedding: PartShare = 0.0
    residual: PartShare = 0.0
    attention: PartShare = 0.0
    mlp: PartShare = 0.0


@dataclass(frozen=True, kw_only=True)
class Model(Group):
    """The Llama shape. `size` names a row of the paper's Table 5: layers, width, heads and ff."""

    size: str = ""
    layers: Annotated[int, Range(1, 1000)] = 2
    width: Annotated[int, Range(2, 65_536)] = 128
    heads: Annotated[int, Range(1, 32_768)] = 4
    ff: Annotated[int, Range(0, 524_288)] = 0  # 0: the paper's rule, int(8D/3/64)·64
    tied: Flag = True
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    # times that the blocks run one after another, with the same parameters: looped depth
    loops: Annotated[int, Range(1, 100)] = 1
    # standard deviation of the initial weights; 1/(loops·sqrt(2·layers)) of it for output projections
    init_std: Annotated[float, Range(1e-6, 10)] = 0.02
    dropout: Dropout = field(default_factory=Dropout)
    # type of activations and products; parameters are always float32
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "cudnn"] = "xla"  # cudnn needs a GPU and bfloat16
    # layers in one compiled loop: deep models compile faster, small ones run slower
    scan: Flag = False
    # rematerialisation: nothing, every layer (block), or all except matrix products (dots)
    remat: Literal["none", "block", "dots"] = "none"
    # adaln: the noise level scales and shifts the norms
    time_conditioning: Literal["none", "adaln"] = "none"


@dataclass(frozen=True, kw_only=True)
class Optimizer(Group):
    """AdamW, or Muon for the matrices of the blocks and AdamW for all other parameters.

    Both decay weights alike. Muon's updates have the size that AdamW's have in long training; a run of
    few steps takes a higher `lr` than AdamW (BUILD_NOTES). AdamW alone reads b1, b2 and eps; see
    `dlm.training.optimizer`.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: Annotated[float, Range(1e-10, 10)] = 2e-3
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"  # after a linear warm-up
    warmup: Duration = "100 steps"
    # learning rate at the end over lr (cosine, wsd)
    min_lr_ratio: Share = 0.1
    decay: Duration = "20 percent"  # length of the decay at the end of the run (wsd)
    # of all parameters except one-dimensional ones
    weight_decay: Annotated[float, Range(0, 1000)] = 0.1
    b1: PartShare = 0.9
    b2: PartShare = 0.95
    eps: Annotated[float, Range(1e-20, 1)] = 1e-8
    # gradients above this global norm are scaled down to it
    grad_clip_norm: Annotated[float, Range(1e-6, 1e12)] = 1.0
    # decay of the averaged weights, which are the ones evaluated; 0: no average
    ema_decay: PartShare = 0.0


@dataclass(frozen=True, kw_only=True)
class Train(Group):
    duration: Duration = "100 epochs"  # in steps, tokens, epochs or flops
    batch_size: Annotated[int, Range(1, MOST)] = 16  # sequences per step
    # gradient-accumulation microbatches per step; results agree up to rounding. 0 picks a fast value
    microbatches: Annotated[int, Range(0, MOST)] = 0
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # of initialisation, data order and noise
    # optimizer steps in one compiled call; changes no result
    steps_per_call: Annotated[int, Range(1, 10_000)] = 16
    checkpoint_every: Duration = "20 percent"


@dataclass(frozen=True, kw_only=True)
class Evaluation(Group):
    """`dlm.config.planning` refuses scoring and sampling that would cost far more than training."""

    every: Duration = "1 epochs"  # step of the first evaluation, and the least distance between two
    # the step of each evaluation is at least this factor times the last
    interval_growth: Annotated[float, Range(1, 1000)] = 1.15
    # validation sequences that are scored during training; 0: all
    sequences: Annotated[int, Range(0, 10**15)] = 0
    mc_samples: Annotated[int, Range(1, 10**15)] = 1  # Monte Carlo samples a sequence, of a bound
    # nats per token: Monte Carlo samples of the final score, on the whole validation split, are added
    # until their error is below; 0: until it is below a quarter of the error over documents
    mc_stderr: Annotated[float, Range(0, 10)] = 0.0
    # another number for the likelihood of the best weights, such as "orders:16 on 128 windows" or
    # "path:confidence", see dlm/config/method.py; "": none
    final: str = ""
    batch_size: Annotated[int, Range(1, MOST)] = 64
    # stop after so many evaluations without a new best loss; 0: never
    patience: Annotated[int, Range(0, MOST_STEPS)] = 0
    samples: Annotated[int, Range(0, 10**15)] = 4  # sequences sampled at the end
    # stop if the loss on training windows exceeds this factor times log V
    divergence_factor: Annotated[float, Range(1, 1e6)] = 3.0


@dataclass(frozen=True, kw_only=True)
class Mesh(Group):
    """Devices along each axis; data=0 takes all that the other two axes leave."""

    data: Annotated[int, Range(0, MOST)] = 0
    fsdp: Annotated[int, Range(1, MOST)] = 1
    tensor: Annotated[int, Range(1, MOST)] = 1


@dataclass(frozen=True, kw_only=True)
class Config(Group):
    corpus: Corpus = field(default_factory=Corpus)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=objective)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
    mesh: Mesh = field(default_factory=Mesh)
