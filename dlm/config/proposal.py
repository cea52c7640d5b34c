"""The runs that a plan proposes: the nearest size, the recipe, and what a run takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from dlm.config import LADDER, base, experiment, flops, from_json, paper, planning, to_json
from dlm.config.fields import flat
from dlm.config.memory import Machine
from dlm.errors import DlmError

GPT2, CHARACTERS = paper.VOCABULARY["hub"], paper.VOCABULARY["stdlib"]
PROSE = 1_100_000  # characters of the standard library's prose that can be unique tokens
AROUND = (0.5, 1.0, 2.0)  # sizes of a sweep, over the size that is advised
HEAD, WIDEST = 32, 16_384  # widths of models that no table lists are multiples of a head of 32
KEPT = 3  # states of a run on disk: two checkpoints, and a third while it is saved
# What a plan decides, beside the recipe of a run: it is not taken over from a run of one's own.
DECIDED = (
    *("objective.name", "objective.digest", "model.size", "model.layers", "model.width"),
    *("model.heads", "model.ff", "data.unique_tokens", "train.duration", "train.seed"),
)


@dataclass(frozen=True)
class Recipe:
    """Corpus, tokenizer and optimizer of a proposed run: overrides of the base config, by key."""

    name: str  # c4, prose or own
    settings: dict[str, Any]
    vocabulary: int
    words: str

    def config(self, unique_tokens: float) -> ConfigDict:
        """The base config with the recipe, on so many unique tokens in whole windows."""
        return paper.base_config(self.settings, unique_tokens, by_budget=self.name != "own")


C4 = Recipe("c4", paper.SCALES["paper"], GPT2, "the paper's on C4 (dlm/config/paper.py)")
PROSE_RECIPE = Recipe(
    "prose",
    paper.FRESH["laptop"],
    CHARACTERS,
    "a laptop's on the standard library's prose (dlm/config/paper.py)",
)


def default_recipe(unique_tokens: float) -> Recipe:
    """The paper's on C4; for few tokens a laptop's, on text that needs no network."""
    return C4 if unique_tokens > PROSE else PROSE_RECIPE


def recipe_of(config: Mapping[str, Any], vocabulary: int) -> Recipe:
    """What the config.json of a run sets, but for what a plan decides (DECIDED).

    Raises:
      DlmError: a key is missing or unknown, as in a config of another version, or the objective is of a
        file, which is not run for this.
    """
    group = config.get("objective") or {}
    if group.get("file"):
        raise DlmError(f"objective.file={group['file']!r}: a recipe is of a built-in objective")
    c = from_json(dict(config))
    own = experiment.edited(base(), [("objective.name", c.objective.name)])
    defaults = flat(to_json(own))
    settings = {
        key: value
        for key, value in flat(to_json(c)).items()
        if key not in DECIDED and (key not in defaults or defaults[key] != value)
    }
    return Recipe("own", settings, vocabulary, "those of the best run behind each law")


@dataclass(frozen=True)
class Proposal:
    """One run that is advised, as a config would train it."""

    objective: str
    size: dict[str, Any]  # overrides of the model's shape
    params: int  # with embeddings
    tokens: float  # trained on, repeats included
    epochs: float
    unique_tokens: int
    flops: float  # of training, counted by attention kind
    memory: float  # bytes on each device, estimated
    disk: float  # bytes of the token store and of a run's checkpoints


def sized(params: float, vocabulary_size: int) -> dict[str, Any]:
    """The shape whose parameter count, embeddings included, is nearest: a row of the paper's Table 5
    for models of its range with its vocabulary, else two layers or one for each 64 of the width."""

    def distance(count: int) -> float:
        return abs(math.log(count / params))

    if vocabulary_size == GPT2:
        counts = {
            name: flops.paper_parameters(layers=layers, width=width, ff=ff)
            for name, (layers, width, _, ff) in LADDER.items()
        }
        if min(counts.values()) / 1.3 < params < max(counts.values()) * 1.3:
            return {"model.size": min(counts, key=lambda name: distance(counts[name]))}
    width = min(range(HEAD, WIDEST + 1, HEAD), key=lambda w: distance(_count(w, vocabulary_size)))
    heads = max(1, width // (HEAD if width < 512 else 2 * HEAD))
    while width % heads:
        heads -= 1
    return {"model.width": width, "model.layers": _layers(width), "model.heads": heads}


def _layers(width: int) -> int:
    return max(2, width // 64)


def _count(width: int, vocabulary_size: int) -> int:
    ff = max(64, 8 * width // 192 * 64)
    return flops.paper_parameters(
        layers=_layers(width), width=width, ff=ff, vocabulary=vocabulary_size
    )


def propose(
    objective: str,
    params: float,
    tokens: float,
    unique_tokens: float,
    device_memory: float = math.inf,
    devices: int = 1,
    recipe: Recipe | None = None,
) -> Proposal:
    """A run of one family: the nearest size, on as many tokens as keep C = 6 N D.

    Raises:
      DlmError: no such objective, or fewer unique tokens than one batch.
    """
    recipe = recipe or default_recipe(unique_tokens)
    size = sized(params, recipe.vocabulary)
    run = run_of(objective, size, 6 * params * tokens, unique_tokens, recipe)
    c = experiment.edited(recipe.config(unique_tokens), run.items())
    p = planning.plan(
        c,
        train_tokens=c.data.unique_tokens,
        vocab_size=recipe.vocabulary,
        validation_tokens=64 * c.data.seq_len,
    )
    machine = Machine(devices, device_memory, cpu=False, whole=False)
    held = planning.bytes_on_device(c, p, machine)
    return Proposal(
        objective=objective,
        size=size,
        params=p.parameters.total,
        tokens=float(p.steps * p.tokens_per_step),
        epochs=p.epochs,
        unique_tokens=p.unique_tokens,
        flops=p.steps * p.flops_per_step,
        memory=held.total,
        disk=2.0 * c.data.unique_tokens + KEPT * held.state,
    )


def run_of(
    objective: str, size: Mapping[str, Any], compute: float, unique_tokens: float, recipe: Recipe
) -> dict[str, Any]:
    """Overrides of one run that spends C = 6 N D; below one epoch on as many tokens as it sees."""
    base_config = recipe.config(unique_tokens)
    c = experiment.edited(base_config, ({"objective.name": objective} | dict(size)).items())
    m = c.model
    count = flops.paper_parameters(
        layers=m.layers, width=m.width, ff=m.ff, vocabulary=recipe.vocabulary
    )
    tokens = compute / (6 * count)
    unique = min(c.data.unique_tokens, tokens // c.data.seq_len * c.data.seq_len)
    unique = max(int(unique), c.train.batch_size * c.data.seq_len)
    run = {"objective.name": objective} | dict(size)
    run["train.duration"] = f"{max(tokens / unique, 1.0):.4g} epochs"
    return run | ({"data.unique_tokens": unique} if unique < c.data.unique_tokens else {})


def runs_around(
    objective: str, params: float, compute: float, unique_tokens: float, recipe: Recipe
) -> list[dict[str, Any]]:
    """Overrides of the advised run, and of the sizes AROUND it at the same compute."""
    sizes = [sized(params * factor, recipe.vocabulary) for factor in AROUND]
    distinct = [size for i, size in enumerate(sizes) if size not in sizes[:i]]
    return [run_of(objective, size, compute, unique_tokens, recipe) for size in distinct]
