"""One file per family, one dict of them. The seam is the loss itself, not a corruption step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from dlm import config
from dlm.objectives import ar, block, masked, noise, orders
from dlm.objectives.common import Sum

__all__ = ["OBJECTIVES", "Objective", "Sum", "make"]


@dataclass(frozen=True)
class Objective:
    """Pure functions over `apply` (or the whole model, to sample) and tokens Int[B L].

    loss(apply, params, tokens, key) -> Sum               scalar; what training minimises
    nll(apply, params, tokens, key, passes) -> Sum        Float[B]; the estimator evaluation trusts
    sample(model, params, key, prompt, length, *, steps, temperature, top_p, order) -> Int[B length]
    """

    name: str
    family: config.Family
    loss: Callable[..., Sum]
    nll: Callable[..., Sum]
    sample: Callable[..., object]


# name -> (config, vocabulary size) -> (loss, nll, sample)
OBJECTIVES: dict[str, Callable[[config.Objective, int], tuple[Callable, Callable, Callable]]] = {
    "ar": lambda c, vocab_size: ar.make(vocab_size),
    "orders": lambda c, vocab_size: orders.make(vocab_size, c.orders, c.order_kind),
    "noise": lambda c, vocab_size: noise.make(vocab_size, c.noise, c.noise_kind, c.attention_noise),
    "masked": lambda c, vocab_size: masked.make(vocab_size, c.estimator),
    "block": lambda c, vocab_size: block.make(vocab_size, c.estimator, c.block),
}


@functools.lru_cache(maxsize=64)
def make(c: config.Objective, vocab_size: int) -> Objective:
    """The objective of a config over a vocabulary; one object for equal arguments."""
    return Objective(c.name, config.FAMILIES[c.name], *OBJECTIVES[c.name](c, vocab_size))
