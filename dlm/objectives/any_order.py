"""AR in any order: trained with target positions, scored by the mean over the trained orders.

-log of the mean over orders s of p_s(x) <= E_s[-log p_s(x)], a bound on the likelihood of the
mixture (Uria et al. 2014). For a model that only looks at which tokens are known, it is the bound
of masked diffusion. The orders are those of `dlm.objectives.orders`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlm import config
from dlm.config import families
from dlm.model import keys
from dlm.objectives import ar, orders
from dlm.objectives.common import InOrder, Sum, mean, total

FAMILY = config.FAMILIES["any_order"]


def make(objective: families.AnyOrder, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""

    def example(draws: keys.RowKeys, tokens: Int[Array, "B L"]) -> ar.ARExample:
        order = orders.sample_order(objective, draws, tokens)
        return orders.in_order(tokens, order, vocab_size, targets=True)

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        draws = keys.row_keys(key, len(tokens))

        def one(i) -> Float[Array, " B"]:
            shown = example(draws.fold_in(i), tokens)
            return jnp.sum(ar.token_nll(apply, params, shown, None, vocab_size), axis=-1)

        return total({"nll": mean(one, passes)}, tokens)

    loss, _, sample = ar.trained_on(example, vocab_size)
    return loss, nll, sample


def conditionals(objective: families.AnyOrder, vocab_size: int) -> InOrder:
    """A sequence in any order, each target asked for by its position."""

    def token_nll(apply, params, tokens, order: Int[Array, "B L"]) -> Float[Array, "B L"]:
        example = orders.in_order(tokens, order, vocab_size, targets=True)
        return ar.token_nll(apply, params, example, None, vocab_size)

    return InOrder(token_nll, functools.partial(orders.sample_order, objective))
