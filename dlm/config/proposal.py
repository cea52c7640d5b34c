"""An experiment file that trains what a plan advises, with sizes around it, and what that takes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.config import LADDER, experiment, flops, paper, planning
from dlm.config.memory import Machine

GPT2, CHARACTERS = paper.VOCABULARY["hub"], paper.VOCABULARY["stdlib"]
PROSE = 1_100_000  # characters of the standard library's prose that can be unique tokens
SCALES = {"c4": paper.SCALES["paper"], "prose": paper.FRESH["laptop"]}
AROUND = (0.5, 1.0, 2.0)  # sizes of a sweep, over the size that is advised
HEAD, WIDEST = 32, 16_384  # widths of models that no table lists are multiples of a head of 32
KEPT = 3  # states of a run on disk: two checkpoints, and a third while it is saved


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


def setting(unique_tokens: float) -> str:
    """c4: the paper's recipe on C4; prose: a laptop's, on text that needs no network."""
    return "c4" if unique_tokens > PROSE else "prose"


def vocabulary(name: str) -> int:
    return GPT2 if name == "c4" else CHARACTERS


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
) -> Proposal:
    """A run of one family: the nearest size, on as many tokens as keep C = 6 N D.

    Raises:
      DlmError: no such objective, or fewer unique tokens than one batch.
    """
    name = setting(unique_tokens)
    size = sized(params, vocabulary(name))
    run = _run(objective, size, 6 * params * tokens, unique_tokens)
    c = experiment.edited(paper.get_config(SCALES[name], unique_tokens), run.items())
    held_out = 64 * c.data.seq_len
    p = planning.plan(
        c,
        train_tokens=c.data.unique_tokens,
        vocab_size=vocabulary(name),
        validation_tokens=held_out,
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


def _run(
    objective: str, size: Mapping[str, Any], compute: float, unique_tokens: float
) -> dict[str, Any]:
    """Overrides of one run that spends C = 6 N D; below one epoch on as many tokens as it sees."""
    name = setting(unique_tokens)
    base = paper.get_config(SCALES[name], unique_tokens)
    c = experiment.edited(base, ({"objective.name": objective} | dict(size)).items())
    m = c.model
    count = flops.paper_parameters(
        layers=m.layers, width=m.width, ff=m.ff, vocabulary=vocabulary(name)
    )
    tokens = compute / (6 * count)
    unique = min(c.data.unique_tokens, tokens // c.data.seq_len * c.data.seq_len)
    unique = max(int(unique), c.train.batch_size * c.data.seq_len)
    run = {"objective.name": objective} | dict(size)
    run["train.duration"] = f"{max(tokens / unique, 1.0):.4g} epochs"
    return run | ({"data.unique_tokens": unique} if unique < c.data.unique_tokens else {})


# --- the file -----------------------------------------------------------------------------------

FILE = '''"""{question}

{origin}

  dlm run {path} --dry-run          its runs, FLOPs and memory
  dlm run {path} --scale smoke      two steps of tiny models, to try the machine
  dlm run {path}

{outlook}
"""

from dlm.config import paper

UNIQUE_TOKENS = {unique}  # U
RUNS = (
{runs}
)


def get_config(scale="laptop"):
    if scale == "smoke":
        return paper.get_config(paper.SCALES["smoke"], 1024)
    return paper.get_config({settings}, UNIQUE_TOKENS)


def sweep(scale="laptop"):
    if scale != "smoke":
        yield from RUNS
        return
    for objective in dict.fromkeys(run["objective.name"] for run in RUNS):
        yield paper.run(objective, 32, 1) | {{"train.duration": "2 steps"}}
'''
RECIPES = {
    "c4": ('paper.SCALES["paper"]', "the paper's on C4 (dlm/config/paper.py)"),
    "prose": (
        'paper.FRESH["laptop"]',
        "a laptop's on the standard library's prose (dlm/config/paper.py)",
    ),
}


def runs_around(
    advised: Sequence[tuple[str, float, float]], unique_tokens: float
) -> list[dict[str, Any]]:
    """Overrides of each run: (objective, params, FLOPs) and sizes AROUND it at the same compute."""
    found = []
    for objective, params, compute in advised:
        sizes = [sized(params * factor, vocabulary(setting(unique_tokens))) for factor in AROUND]
        for size in [s for i, s in enumerate(sizes) if s not in sizes[:i]]:
            found.append(_run(objective, size, compute, unique_tokens))
    return found


def experiment_text(
    advised: Sequence[tuple[str, float, float]],
    unique_tokens: float,
    *,
    path: str,
    command: str,
    source: str,
    cost: str,
    expected: str,
) -> str:
    """The file that `dlm plan --write` writes; `advised`: (objective, params, FLOPs) of each family."""
    settings, recipe = RECIPES[setting(unique_tokens)]
    names = " or ".join(dict.fromkeys(objective for objective, _, _ in advised))
    question = (
        f"What loss does {names} reach on {unique_tokens:,.0f} unique tokens at this compute?"
    )
    origin = (
        f"Written by `{command}`, with the law of each family: {source}. The middle size of each "
        "family is the one that is advised; the others spend the same compute. Corpus, tokenizer and "
        f"recipe are {recipe}: change them to yours, and keep U."
    )
    outlook = f"Cost of training: {cost}. Expected, in nats per token: {expected}."
    runs = "\n".join(
        f"    {run!r},".replace("'", '"') for run in runs_around(advised, unique_tokens)
    )
    return FILE.format(
        question="\n".join(textwrap.wrap(question, 100)),
        origin="\n".join(textwrap.wrap(origin, 100, break_long_words=False)),
        outlook="\n".join(textwrap.wrap(outlook, 100)),
        path=path,
        unique=f"{int(unique_tokens):_}",
        runs=runs,
        settings=settings,
    )
