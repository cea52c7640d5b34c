"""One experiment's choices: a ConfigDict for people, frozen dataclasses for the code.

An experiment file returns `base()` with edits; `--config.model.layers=6` edits it again; `resolve`
turns it once into a `Config`, checks it, and is the last place where a default or a name is looked
up. Everything after reads typed fields. The defaults are those of the dataclasses below.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ml_collections import ConfigDict

from dlm.errors import DlmError, nearest
from dlm.flops import ATTENTION


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where token sequences come from. `options` are the keyword arguments of the corpus function."""

    name: str = "stdlib"
    options: dict[str, Any] = field(default_factory=dict)
    validation: float = 0.1  # share of the documents held out, chosen by a hash of their ids


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


class Family(NamedTuple):
    """What the rest must know of an objective before JAX is loaded."""

    exact: bool  # is `nll` the likelihood, or an upper bound on it?
    extra_tokens: int  # rows of the embedding beyond the vocabulary: BOS, then MASK
    extra_positions: int  # inputs beyond the L tokens that are scored
    attention: str  # for counting FLOPs
    formula: str  # of what is scored, per sequence, in nats
    source: str
    hides: bool = True  # what is asked for is never shown; noise may leave a token as it is


FAMILIES: dict[str, Family] = {
    "ar": Family(
        *(True, 1, 0, "causal", "-sum_j log p(x_j | x_<j)"),
        "chain rule; arXiv 2507.15857, section 2.1",
    ),
    "orders": Family(
        *(True, 1, 0, "causal", "as ar; trained on N orders of each sequence"),
        "arXiv 2507.15857, section 3.5; target positions: sigma-GPT, arXiv 2404.09562",
    ),
    "any_order": Family(
        *(False, 1, 0, "causal", "E_s[-sum_j log p(x_s(j) | x_s(<j), positions)]"),
        "Uria et al. 2014; sigma-GPT, arXiv 2404.09562",
    ),
    "noise": Family(
        *(True, 2, 0, "causal", "as ar; trained with inputs or attention disturbed"),
        "arXiv 2507.15857, section 3.5",
    ),
    "masked": Family(
        *(False, 2, 1, "full", "int m'(t)/m(t) E sum_masked -log p(x_i | x_t) dt + prior + rec."),
        "MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329; arXiv 2507.15857",
    ),
    "block": Family(
        *(False, 2, 1, "block", "sum over blocks of the masked bound given the blocks before"),
        "BD3-LM, arXiv 2503.09573",
    ),
    "d3pm": Family(
        *(False, 2, 1, "full", "int rate sum_y [a_p(y) - a(y) + a(y) log(a(y)/a_p(y))] dt"),
        "D3PM, arXiv 2107.03006; SEDD, arXiv 2310.16834; UDLM, arXiv 2412.10193",
        hides=False,
    ),
    "flow": Family(
        *(False, 2, 1, "full", "int k'/(1-k) [1 - p(x_t) - [x_t != x](1 + log p(x))] dt"),
        "discrete flow matching, arXiv 2407.15595, 2412.03487",
        hides=False,
    ),
    "gaussian": Family(
        *(False, 1, 1, "full", "KL(q(z_1)||N) + 1/2 int SNR' ||x - x_p||^2 dt - E log p(x | z_0)"),
        "VDM, arXiv 2107.00630; Diffusion-LM, arXiv 2205.14217; Plaid, arXiv 2305.18619",
        hides=False,
    ),
}


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
        return own(self).FAMILY if self.file else FAMILIES[self.name]


@functools.lru_cache(maxsize=16)
def own(objective: Objective) -> Any:
    """The module of an objective of one's own: FAMILY, and make(objective, vocab_size).

    Raises:
      DlmError: no such file, or it lacks one of the two, or is not what it was for this run.
    """
    path = Path(objective.file)
    spec = importlib.util.spec_from_file_location(f"own_{objective.digest}", path)
    if spec is None or spec.loader is None or not path.is_file():
        fail("objective.file", objective.file, "a Python file with FAMILY and make")
    if objective.digest != _digest(path):
        fail(
            "objective.file", objective.file, "the file that this run was trained with; it changed"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DlmError(f"{path}: {type(error).__name__}: {error}") from error
    for name in ("FAMILY", "make"):
        if not hasattr(module, name):
            fail("objective.file", objective.file, f"a file that defines {name}")
    if not isinstance(module.FAMILY, Family):
        fail("objective.file", objective.file, "a file whose FAMILY is a dlm.config.Family")
    if module.FAMILY.attention not in ATTENTION:
        right = f"a file whose FAMILY.attention is one of {', '.join(ATTENTION)}"
        fail("objective.file", objective.file, right)
    return module


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
    microbatches: int = 1  # of a step, one after another: their gradients are added
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


# Table 5 of the paper: name -> (layers, width, heads, ff). Rows that the specification names only by
# their parameter count were solved from it; tests/test_model.py checks every count.
LADDER: dict[str, tuple[int, int, int, int]] = {
    name: (layers, width, heads, int(8 * width / 3 / 64) * 64)
    for width, heads, rows in (
        (128, 4, {"7m": 3}),
        (224, 7, {"14m": 4}),
        (288, 9, {"20m": 5}),
        (448, 7, {"35m": 6}),
        (512, 8, {"44m": 8}),
        (576, 9, {"57m": 9}),
        (640, 10, {"74m": 10, "90m": 13, "106m": 16}),
        (768, 12, {"117m": 12, "140m": 15, "163m": 18}),
        (896, 14, {"175m": 14, "196m": 16, "217m": 18}),
        (1024, 16, {"251m": 16, "278m": 18, "306m": 20}),
        (1280, 10, {"425m": 18, "489m": 21, "552m": 24}),
        (1408, 11, {"509m": 18, "587m": 21, "664m": 24}),
        (1536, 12, {"632m": 19, "724m": 22, "816m": 25}),
        (1792, 14, {"893m": 20, "1018m": 23, "1143m": 26}),
        (2048, 16, {"1266m": 22, "1429m": 25, "1593m": 28}),
        (2176, 17, {"1424m": 22, "1609m": 25, "1794m": 28}),
        (2304, 18, {"1731m": 24, "2007m": 28, "2283m": 32}),
        (2560, 20, {"2298m": 26, "2639m": 30, "2980m": 34}),
    )
    for name, layers in rows.items()
}


TIMED = ("masked", "d3pm", "flow", "gaussian")  # families that tell the model a noise level
SCHEDULES = ("linear", "cosine", "polynomial", "loglinear", "geometric")

DURATIONS = (  # fields that hold a number and a unit, such as "60 epochs"
    "train.duration",
    "train.checkpoint_every",
    "evaluation.every",
    "optimizer.warmup",
    "optimizer.decay",
)


def base() -> ConfigDict:
    """The defaults, as a locked ConfigDict; `corpus.options` alone takes new keys."""
    config: Any = ConfigDict(dataclasses.asdict(Config())).lock()
    config["corpus"]["options"].unlock()
    return config


def resolve(config: ConfigDict) -> Config:
    """The typed, checked, complete config. Everything that needs no corpus is checked here.

    Raises:
      DlmError: names the field, its value, and what would be right.
    """
    resolved = _typed(Config, config.to_dict(), "config")
    model = resolved.model
    if model.size:
        if model.size not in LADDER:
            fail("model.size", model.size, f"one of Table 5{nearest(model.size, LADDER)}")
        layers, width, heads, ff = LADDER[model.size]
        model = dataclasses.replace(model, layers=layers, width=width, heads=heads, ff=ff)
    elif model.ff == 0:
        model = dataclasses.replace(model, ff=max(64, int(8 * model.width / 3 / 64) * 64))
    objective = resolved.objective
    if objective.file:
        path = Path(objective.file).resolve()
        if not path.is_file():
            fail("objective.file", objective.file, "a Python file with FAMILY and make")
        objective = dataclasses.replace(objective, file=str(path), digest=_digest(path))
    resolved = dataclasses.replace(resolved, model=model, objective=objective)
    _check(resolved)
    return resolved


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def from_json(values: dict[str, Any]) -> Config:
    """The Config of a run's config.json."""
    return _typed(Config, values, "config")


def to_json(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def run_id(config: Config, fingerprint: str) -> str:
    """Ten hex digits of a hash of everything that determines the result.

    That is the fingerprint of the tokens, which covers corpus and tokenizer, and the rest of the
    config without `mesh`, `model.remat`, `train.steps_per_call` and `train.checkpoint_every`, which
    move no number (mesh and remat: but for rounding).
    """
    values = to_json(config)
    del values["corpus"], values["tokenizer"], values["mesh"]
    del values["objective"]["file"]  # its digest stays
    del values["model"]["remat"]
    del values["train"]["steps_per_call"], values["train"]["checkpoint_every"]
    text = json.dumps([values, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def trunk_id(config: Config, fingerprint: str, warmup: int, every: int) -> str:
    """Names the part of a run that it shares with others: all before the decay of schedule wsd.

    Runs that differ in duration and decay alone take the same steps until the first of them decays.
    `warmup` and `every` (of evaluations) are in steps. Empty where nothing can be shared: other
    schedules turn from the start, and mode "multiset" shuffles all epochs together.
    """
    if config.optimizer.schedule != "wsd" or config.data.mode != "epoch":
        return ""
    same = {"optimizer": {"warmup": f"{warmup} steps", "decay": "1 steps", "final": 0.0}}
    same |= {"train": {"duration": "1 steps"}, "evaluation": {"every": f"{every} steps"}}
    changed = {
        group: dataclasses.replace(getattr(config, group), **values)
        for group, values in same.items()
    }
    return run_id(dataclasses.replace(config, **changed), fingerprint)


# --- checks -------------------------------------------------------------------------------------


def _check(c: Config) -> None:
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
        "train.microbatches": c.train.microbatches,
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
    if c.model.time == "adaln" and not c.objective.file and c.objective.name not in TIMED:
        fail("model.time", "adaln", f"none, for {c.objective.name}: of use to {', '.join(TIMED)}")
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
    if c.train.batch_size % c.train.microbatches:
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


def fail(name: str, value: Any, right: str) -> NoReturn:
    """The error of a field: its name, its value, and what would be right."""
    raise DlmError(f"config.{name}={value!r}: must be {right}")


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


def _typed(cls: Callable[..., Any], values: dict[str, Any], where: str) -> Any:
    """Builds a dataclass from nested dicts, refusing unknown and missing fields."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore (a class is a Callable here)
    for name in values:
        if name not in fields:
            raise DlmError(f"{where}.{name}: no such key{nearest(name, fields)}")
    built = {}
    for name, f in fields.items():
        if name not in values:
            raise DlmError(f"{where}.{name}: missing")
        group = getattr(sys.modules[__name__], str(f.type), None)
        value = values[name]
        if dataclasses.is_dataclass(group):
            built[name] = _typed(group, value, f"{where}.{name}")  # pyright: ignore (found by name)
        elif str(f.type).startswith("dict"):
            built[name] = dict(value)
        else:
            kind = {"int": int, "float": float, "str": str, "bool": bool}[str(f.type)]
            built[name] = convert(f"{where}.{name}".removeprefix("config."), value, kind)
    return cls(**built)
