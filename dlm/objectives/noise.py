"""AR whose inputs are disturbed in training: the control for diffusion's masking.

Finding 8 of arXiv 2507.15857 (section 3.5). A share of the input tokens, never BOS, is masked or
replaced by a random token; the targets stay. Or attention is: a share of the queries draws t and
loses each key, but its own, with probability t, in all layers and heads alike. Nothing is disturbed
in evaluation, so the likelihood is exact, and without noise this is AR.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlm import config
from dlm.model import keys
from dlm.objectives import ar


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, mask_id = vocab_size, vocab_size + 1
    rate, kind, attention = c.noise, c.noise_kind, c.attention_noise

    def augment(draws: keys.Draws, tokens: Int[Array, "B L"]) -> ar.View:
        where, what, chances, losses = draws.split(4)
        length = tokens.shape[1]
        view = ar.left_to_right(tokens, bos)
        if rate:
            other = mask_id
            if kind == "replace":
                other = what.below(vocab_size, length)
            changed = where.uniform(length) < rate
            changed &= jnp.arange(length) > 0
            view = view._replace(inputs=jnp.where(changed, other, view.inputs))
        if attention:
            chosen, t = jnp.split(chances.uniform(length, 2), 2, axis=-1)
            lost = losses.uniform(length, length) < t
            lost &= (chosen < attention) & ~jnp.eye(length, dtype=bool)
            view = view._replace(mask=jnp.tri(length, dtype=bool) & ~lost)
        return view

    return ar.make(vocab_size, augment if rate or attention else None)
