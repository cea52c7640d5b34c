"""Writes an experiment file that trains what a plan advises, with sizes around it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.config.proposal import Recipe, runs_around

WIDTH = 100
ORIGIN = "Written by `dlm plan"  # what tells a file that a plan may write anew


@dataclass(frozen=True)
class Advised:
    """One run that is advised: its sizes around it spend the same compute C = 6 N D."""

    family: str
    params: float
    flops: float
    recipe: Recipe


HEAD = '''"""{question}

{origin}

  dlm run {path} --dry-run          its runs, FLOPs and memory
  dlm run {path} --scale smoke      two steps of tiny models, to try the machine
  dlm run {path}

{outlook}
"""
'''
PAPER = """
from dlm.config import paper

UNIQUE_TOKENS = {unique}  # U
RUNS = (
{runs}
)


def get_config(scale="laptop"):
    if scale == "smoke":
        return paper.base_config(paper.SCALES["smoke"], 1024)
    return paper.base_config({settings}, UNIQUE_TOKENS)


def sweep(scale="laptop"):
    if scale != "smoke":
        yield from RUNS
        return
    tiny = []
    for run in RUNS:
        options = {{key: value for key, value in run.items() if key.startswith("objective.")}}
        small = paper.run(run["objective.name"], 32, 1) | options | {{"train.duration": "2 steps"}}
        tiny += [small] if small not in tiny else []
    yield from tiny
"""
OWN = """
from dlm import config

SETTINGS = {{
{settings}
}}
RUNS = (
{runs}
)
TINY = {{"model.layers": 1, "model.width": 32, "model.heads": 2, "train.duration": "2 steps"}}


def get_config(scale="laptop"):
    return config.base()


def sweep(scale="laptop"):
    for family, run in RUNS:
        yield SETTINGS[family] | run | (TINY if scale == "smoke" else {{}})
"""
PAPERS = {"c4": 'paper.SCALES["paper"]', "prose": 'paper.FRESH["laptop"]'}


def experiment_text(
    advised: Sequence[Advised],
    unique_tokens: float,
    *,
    path: str,
    command: str,
    source: str,
    cost: str,
    expected: str,
) -> str:
    """The text of the file. `cost` and `expected`: a line each, of compute and of losses."""
    recipes = [each.recipe for each in advised]
    own = any(recipe.name == "own" for recipe in recipes)
    names = " or ".join(dict.fromkeys(each.family for each in advised))
    question = (
        f"What loss does {names} reach on {unique_tokens:,.0f} unique tokens at this compute?"
    )
    words = " and ".join(dict.fromkeys(recipe.words for recipe in recipes))
    origin = (
        f"Written by `{command}`, with the law of each family: {source}. The middle size of each "
        "family is the one that is advised; the others spend the same compute. Corpus, tokenizer and "
        f"recipe are {words}: change them to yours, and keep U."
    )
    outlook = f"Cost of training: {cost}. Expected, in nats per token: {expected}."
    head = HEAD.format(
        question=_wrapped(question), origin=_wrapped(origin), outlook=_wrapped(outlook), path=path
    )
    runs = [
        (each.family, run)
        for each in advised
        for run in runs_around(each.family, each.params, each.flops, unique_tokens, each.recipe)
    ]
    if not own:  # all have the default one
        lines = "\n".join(f"    {_python(run)}," for _, run in runs)
        unique, settings = f"{int(unique_tokens):_}", PAPERS[recipes[0].name]
        return head + PAPER.format(unique=unique, runs=lines, settings=settings)
    lines = "\n".join(f"    ({_python(family)}, {_python(run)})," for family, run in runs)
    settings = "\n".join(_family(each, unique_tokens) for each in advised)
    return head + OWN.format(runs=lines, settings=settings)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False))


def _family(each: Advised, unique_tokens: float) -> str:
    settings = each.recipe.overrides(unique_tokens)
    lines = [f"        {json.dumps(k)}: {_python(v)}," for k, v in settings.items()]
    return "\n".join([f"    {json.dumps(each.family)}: {{", *lines, "    },"])


def _python(value: Any) -> str:
    """A value as Python source, with double quotes where that changes nothing."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_python(k)}: {_python(v)}' for k, v in value.items())}}}"
    return json.dumps(value) if isinstance(value, str) else repr(value)
