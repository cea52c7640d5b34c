"""One file per family, one dict of them. The seam is the loss itself, not a corruption step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from dlm import config, errors
from dlm.model import Params
from dlm.objectives import ar, block, d3pm, flow, gaussian, masked, noise, orders
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
    """The objective of a config over a vocabulary; one object for equal arguments."""
    built = config.own(c.file, c.digest).make if c.file else OBJECTIVES[c.name]
    parts = built(c, vocab_size)
    if not isinstance(parts, tuple) or len(parts) != 3:
        errors.fail("objective.file", c.file, "a file whose make returns (loss, nll, sample)")
    made = Objective(c.name, c.family, *parts)
    if c.file:
        return dataclasses.replace(made, loss=_told(c.file, made.loss))
    if c.name == "gaussian":
        return dataclasses.replace(made, init=functools.partial(gaussian.init, c))
    return made


def _told(file: str, loss: Callable[..., Sum]) -> Callable[..., Sum]:
    """A loss of one's own, whose author is told that rows draw their own noise."""

    @functools.wraps(loss)
    def checked(apply, params, tokens, key, step=None) -> Sum:
        try:
            return loss(apply, params, tokens, key, step)
        except TypeError as error:
            if "Draws" not in str(error):
                raise
            right = "must draw from dlm.keys.draws(key, len(tokens)), each row its own"
            raise errors.DlmError(f"{file}: the loss {right}, not from key itself") from error

    return checked
