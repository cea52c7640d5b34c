"""The groups of a config: frozen records whose annotations say what each field may hold.

The group `objective` is the options record of the chosen family, in `dlm.config.families`. Records
made by hand, as tests do, are not checked; those of `dlm.config.resolve` are.
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
    # share of the documents held out, chosen by a hash of their content
    validation_fraction: Annotated[float, Range(0, 1, "both")] = 0.1


@dataclass(frozen=True, kw_only=True)
class Tokenizer(Group):
    """How text becomes ids; corpora of integers (images, topics) do without."""

    kind: Literal["chars", "bytes", "bpe", "sentencepiece", "hf", "gpt2"] = "chars"
    vocab_size: Annotated[int, Range(0, 1_000_000)] = (
        0  # of bpe, which is trained on the training split
    )
    # of a .model (sentencepiece), a tokenizer.json (hf), a folder (gpt2; "": fetched from the Hub)
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    seq_len: Annotated[int, Range(1, MOST)] = 64  # L: tokens scored per sequence, after BOS
    # U, raw tokens, a multiple of L; 0: the whole training split
    unique_tokens: Annotated[int, Range(0, 10**15)] = 0
    # U as a random sample of the windows, or the windows of the first "documents", as the paper
    subset: Literal["windows", "documents"] = "windows"
    # epoch: each window once an epoch; multiset: E copies of each document shuffled, then packed
    mode: Literal["epoch", "multiset"] = "epoch"


@dataclass(frozen=True, kw_only=True)
class Dropout(Group):
    embedding: PartShare = 0.0
    residual: PartShare = 0.0
    attention: PartShare = 0.0
    mlp: PartShare = 0.0


@dataclass(frozen=True, kw_only=True)
class Model(Group):
    """The Llama shape. `size` names a row of the paper's Table 5 and fills the four numbers."""

    size: str = ""
    layers: Annotated[int, Range(1, 1000)] = 2
    width: Annotated[int, Range(2, 65_536)] = 128
    heads: Annotated[int, Range(1, 32_768)] = 4
    ff: Annotated[int, Range(0, 524_288)] = 0  # 0: the paper's rule, int(8D/3/64)·64
    tied: Flag = True
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    # standard deviation; output projections start at 1/sqrt(2·layers) of it
    init_std: Annotated[float, Range(1e-6, 10)] = 0.02
    dropout: Dropout = field(default_factory=Dropout)
    # of the computation; parameters are always float32
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "cudnn"] = "xla"  # cudnn: bfloat16 on a GPU
    scan: Flag = False  # layers in one compiled loop: deep models compile faster, shallow ones slow
    # what the backward pass computes again, to save memory: nothing, all, or all but products
    remat: Literal["none", "block", "dots"] = "none"
    time_conditioning: Literal["none", "adaln"] = (
        "none"  # adaln: norms scaled and shifted by the noise level
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer(Group):
    """AdamW."""

    lr: Annotated[float, Range(1e-10, 10)] = 2e-3
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"  # each after a linear warm-up
    warmup: Duration = "100 steps"
    # learning rate at the end, as a share of lr (cosine, wsd)
    min_lr_ratio: Share = 0.1
    decay: Duration = "20 percent"  # of the run, at its end (wsd)
    weight_decay: Annotated[float, Range(0, 1000)] = 0.1  # not on one-dimensional parameters
    b1: PartShare = 0.9
    b2: PartShare = 0.95
    eps: Annotated[float, Range(1e-20, 1)] = 1e-8
    grad_clip_norm: Annotated[float, Range(1e-6, 1e12)] = 1.0  # global gradient norm
    # decay of the averaged weights that are evaluated; 0: none
    ema_decay: PartShare = 0.0


@dataclass(frozen=True, kw_only=True)
class Train(Group):
    duration: Duration = "100 epochs"  # in steps, tokens, epochs or flops
    batch_size: Annotated[int, Range(1, MOST)] = 16  # sequences per step
    # of a step, one after another: their gradients are added; moves no number. 0: as is fast
    microbatches: Annotated[int, Range(0, MOST)] = 0
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # initialisation, order of the data, noise
    # optimizer steps in one compiled call; changes no number
    steps_per_call: Annotated[int, Range(1, 10_000)] = 16
    checkpoint_every: Duration = "20 percent"


@dataclass(frozen=True, kw_only=True)
class Evaluation(Group):
    """`dlm.config.planning` refuses mc_samples, sequences and samples whose FLOPs cannot be meant."""

    every: Duration = "1 epochs"  # first evaluation, and the least distance between two
    # each evaluation comes at least this factor later than the last
    interval_growth: Annotated[float, Range(1, 1000)] = 1.15
    # validation sequences scored while training; 0: all of them
    sequences: Annotated[int, Range(0, 10**15)] = 0
    mc_samples: Annotated[int, Range(1, 10**15)] = 1  # Monte Carlo passes over them, for a bound
    # passes over the whole validation split, for the result
    final_mc_samples: Annotated[int, Range(1, 10**15)] = 8
    batch_size: Annotated[int, Range(1, MOST)] = 64
    # stop after so many evaluations without a better one; 0: never
    patience: Annotated[int, Range(0, MOST_STEPS)] = 0
    samples: Annotated[int, Range(0, 10**15)] = 4  # sequences drawn at the end
    # stop when the loss on training windows exceeds log V by this factor
    divergence_factor: Annotated[float, Range(1, 1e6)] = 3.0


@dataclass(frozen=True, kw_only=True)
class Mesh(Group):
    """Devices along each axis; data 0 takes all that the other two leave."""

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
