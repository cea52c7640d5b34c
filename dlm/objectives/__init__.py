"""One file per family, one dict of them. The seam is the loss itself, not a corruption step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from dlm import config
from dlm.model import Params
from dlm.objectives import ar, block, custom, d3pm, flow, gaussian, masked, noise, orders
from dlm.objectives.common import Sum

__all__ = ["OBJECTIVES", "Objective", "Sum", "make"]


@dataclass(frozen=True)
class Objective:
    """Pure functions over `apply` (or the whole model, to sample) and tokens Int[B L].

    loss(apply, params, tokens, key, step=None) -> Sum    scalar; what training minimises
    nll(apply, params, tokens, key, passes) -> Sum        Float[B]; the estimator evaluation trusts
    sample(model, params, key, prompt, length, *, infill, steps, temperature, top_p, order, budget)
        -> Int[B length]; of the options each reads what it knows
    init(params) -> params                                with what is the objective's own, if any

    `key` is that of the whole batch, or `keys.Draws` where tokens are some rows of it.
    """

    name: str
    family: config.Family
    loss: Callable[..., Sum]
    nll: Callable[..., Sum]
    sample: Callable[..., object]
    init: Callable[[Params], Params] = lambda params: params


# name -> (config, vocabulary size) -> (loss, nll, sample)
OBJECTIVES: dict[str, Callable[[config.Objective, int], tuple[Callable, Callable, Callable]]] = {
    "ar": lambda c, vocab_size: ar.make(vocab_size),
    "orders": orders.make,
    "any_order": orders.any_order,
    "noise": noise.make,
    "masked": masked.make,
    "block": block.make,
    "d3pm": d3pm.make,
    "flow": flow.make,
    "gaussian": gaussian.make,
}


@functools.lru_cache(maxsize=64)
def make(c: config.Objective, vocab_size: int) -> Objective:
    """The objective of a config over a vocabulary; one object for equal arguments.

    Raises:
      DlmError: a file of one's own does not keep to what `Objective` says; names the file and line.
    """
    if c.file:
        return Objective(c.name, c.family, *custom.parts(c, vocab_size))
    made = Objective(c.name, c.family, *OBJECTIVES[c.name](c, vocab_size))
    if c.name == "gaussian":
        return dataclasses.replace(made, init=functools.partial(gaussian.init, c))
    return made
