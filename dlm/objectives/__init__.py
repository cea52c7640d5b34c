"""Training objectives, one file for each family. `make` builds one from a config."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

from dlm import config
from dlm.model import Params
from dlm.objectives import custom
from dlm.objectives.common import Conditionals, InOrder, Sum


@dataclass(frozen=True)
class Objective:
    """Pure functions over a model and tokens Int[B L]; losses are sums in nats.

    loss(apply, params, tokens, key, step=None) -> Sum    scalar; what training minimises
    nll(apply, params, tokens, key, passes) -> Sum        Float[B]; what evaluation reports, a mean
                                                          over `passes` Monte Carlo samples
    sample(model, params, key, prompt, length, *, infill, steps, temperature, top_p, order, budget)
        -> Int[B length]; a family ignores options that it does not know, see `common.SampleRequest`
    init(params) -> params                                adds the objective's parameters, if any

    `key` is the key of the whole batch, or `keys.RowKeys` if tokens are only some of its rows.
    """

    name: str
    family: config.Family
    loss: Callable[..., Sum]
    nll: Callable[..., Sum]
    sample: Callable[..., object]
    init: Callable[[Params], Params] = lambda params: params
    conditionals: Conditionals | InOrder | None = None  # what any order can be scored with


# The file of a family has its name, and defines what a user's file defines: FAMILY, make(objective,
# vocab_size) -> (loss, nll, sample); if the objective has parameters, init(objective, params) ->
# params; if it can score any order, conditionals(objective, vocab_size) -> Conditionals, InOrder or
# None.
OBJECTIVES = {name: importlib.import_module(f"dlm.objectives.{name}") for name in config.FAMILIES}


@functools.lru_cache(maxsize=64)
def make(objective: config.Objective, vocab_size: int) -> Objective:
    """Builds the objective of a config over a vocabulary. Equal arguments give the same object.

    Raises:
      DlmError: a user's file does not follow `Objective`; names the file and line.
    """
    door = custom.load(objective) if objective.file else OBJECTIVES[objective.name]
    init = getattr(door, "init", lambda objective, params: params)
    loss, nll, sample = door.make(objective, vocab_size)
    init = functools.partial(init, objective)
    conditionals = getattr(door, "conditionals", lambda objective, vocab_size: None)
    in_any_order = conditionals(objective, vocab_size)
    return Objective(objective.name, objective.family, loss, nll, sample, init, in_any_order)
