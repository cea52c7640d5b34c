"""The setting of arXiv 2507.15857 at four scales: what experiments/paper_*.py import. It runs nothing.

`paper` is the setting of its section 8 and of its code (wmn-231314/diffusion-data-constraint). Where
they leave a choice open, it is made so:

* The text truncates or pads documents, the code packs them: they are packed.
* A subset is its first documents. Budgets are the code's token counts, below the round numbers.
* The text names no dropout, the scripts set none, so Megatron's defaults of 0.1 were on: they are.
* The text scores the whole validation split, the scripts 52M tokens of it: 52M.
* Times are spread over each batch and have no floor of 1e-3: the same bound, with less noise.
* Both families score the 2048 tokens after BOS; the code starts AR a token later than diffusion.
* One run of each setting, the code's seed.

`gpu` keeps the recipe on the same corpus with a tenth of the unique tokens and a quarter of the
context. `laptop` has real data that needs no network, budgets that are random windows of it (the
first documents of a library are no sample of it), and the rates of experiments/quickstart.py.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from dlm import config
from dlm.config import experiment, flops

# Tokens, ends of documents included, in the first documents of C4 that stand for a round number.
TOKENS = {25e6: 24_743_247, 50e6: 49_874_872, 100e6: 99_952_399, 500e6: 499_791_318}
PER_DOCUMENT = 478.625835  # tokens, by which the code chooses how many documents

RECIPE = {"optimizer.warmup": "1 percent", "optimizer.min_lr_ratio": 0.1}
C4 = RECIPE | {
    "corpus.name": "hub",
    "corpus.options.dataset": "allenai/c4",
    "corpus.options.subset": "en",
    "corpus.options.split": "train",
    "corpus.options.validation_split": "validation",
    "tokenizer.kind": "gpt2",
    "data.subset": "documents",
    "data.mode": "multiset",
    "model.dtype": "bfloat16",
    "model.dropout.embedding": 0.1,
    "model.dropout.residual": 0.1,
    "model.dropout.attention": 0.1,
    "optimizer.lr": 2e-4,
}
DIGITS = RECIPE | {"corpus.name": "digits", "corpus.validation_fraction": 0.3, "data.seq_len": 64}
SCALES: dict[str, dict[str, Any]] = {
    "paper": C4
    | {
        "corpus.options.validation_documents": 109_541,  # 52M tokens
        "data.seq_len": 2048,
        "train.batch_size": 256,
        "train.seed": 1234,
        "evaluation.every": "1000 steps",
        "evaluation.interval_growth": 1.0,
        "evaluation.sequences": 2560,
        "evaluation.batch_size": 16,
        "model.scan": True,
        "model.remat": "block",  # with dropout on its weights attention is written out
    },
    "gpu": C4
    | {
        "corpus.options.validation_documents": 4_000,
        "data.seq_len": 512,
        "train.batch_size": 64,
        "evaluation.every": "250 steps",
        "evaluation.sequences": 512,
    },
    "laptop": DIGITS
    | {
        "model.init_std": 128**-0.5,
        "optimizer.lr": 4e-3,
        "optimizer.weight_decay": 2.5,
        "optimizer.ema_decay": 0.999,
        "evaluation.every": "16 steps",
        "evaluation.interval_growth": 1.3,
        "evaluation.mc_samples": 2,
    },
    "smoke": DIGITS
    | {
        "model.layers": 1,
        "optimizer.ema_decay": 0.9,
        "train.batch_size": 8,
        "evaluation.sequences": 16,
        "evaluation.samples": 0,
    },
}
# The same, with tokens enough to see each once: on a laptop prose, of which there are 1.2M characters.
FRESH = SCALES | {
    "laptop": SCALES["laptop"]
    | {
        "corpus.name": "stdlib",
        "corpus.validation_fraction": 0.05,
        "evaluation.sequences": 256,
    }
}
VOCABULARY = {"hub": 50_257, "stdlib": 98, "digits": 17}


def base_config(
    settings: dict[str, Any], unique_tokens: float = 0, by_budget: bool = True
) -> ConfigDict:
    """The setting of a scale; `by_budget`: with as many documents of C4 as the budget needs."""
    c: Any = config.base()
    for key, value in settings.items():
        experiment.override(c, key, value)
    if by_budget and c.corpus.name == "hub":
        c.corpus.options["documents"] = documents(unique_tokens)
    c.data.unique_tokens = windows(unique_tokens, c.data.seq_len)
    return c


def windows(unique_tokens: float, length: int) -> int:
    """A budget in whole windows; a round number of the paper's as its code counts it."""
    counted = TOKENS[unique_tokens] if unique_tokens in TOKENS else int(unique_tokens)
    return counted // length * length


def documents(unique_tokens: float) -> int:
    """Documents of C4 for a budget: the paper's number for its own, 2% to spare for others."""
    spare = 1.0 if unique_tokens in TOKENS else 1.02
    return int(unique_tokens * spare / PER_DOCUMENT)


def sized(size: str | int) -> dict[str, Any]:
    """A row of Table 5 by its name, or a width with heads of 32, two at the least."""
    if isinstance(size, str):
        return {"model.size": size}
    return {"model.width": size, "model.heads": max(2, size // 32)}


def run(objective: str, size: str | int, epochs: int) -> dict[str, Any]:
    """One run of a grid. Small masked models, named by a width, count masks: less variance."""
    family = {"objective.name": objective}
    if objective == "masked" and isinstance(size, int):
        family["objective.estimator"] = "count"
    return family | sized(size) | {"train.duration": f"{epochs} epochs"}


def spend(
    base: ConfigDict, objective: str, size: str | int, compute: float, epochs: int
) -> dict[str, Any]:
    """A run that spends `compute` = 6ND, its D tokens being `epochs` times as many as are unique.

    N is the paper's count, with embeddings (section 9); D is a whole number of steps.
    """
    c = experiment.expand(base, [sized(size)])[0]
    params = flops.paper_parameters(
        layers=c.model.layers,
        width=c.model.width,
        ff=c.model.ff,
        vocabulary=VOCABULARY[c.corpus.name],
    )
    step = c.train.batch_size * c.data.seq_len
    tokens = round(compute / (6 * params) / step) * step
    return run(objective, size, epochs) | {
        "data.unique_tokens": round(tokens / epochs / c.data.seq_len) * c.data.seq_len
    }
