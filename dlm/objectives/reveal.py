"""Samples by revealing masks, a few positions per call. Shared by all families that mask.

ancestral   each mask is revealed with probability 1/(calls left): the reverse process
confidence  the most confident first, the same number in each call (MaskGIT, arXiv 2202.04200)
blocks      confidence within the leftmost `block` tokens that have masks (LLaDA, arXiv 2502.09992)
entropy     the lowest entropy first, as many as have at most `budget` nats of entropy together, not
            counting the first (Ben-Hamu et al. 2025, arXiv 2505.24857)
remask      ancestral, but each call except the last masks revealed tokens again with probability sigma,
            the largest that keeps the marginals (ReMDM, arXiv 2503.00307)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from dlm.objectives.common import draw


def reveal(
    predict: Callable[[Int[Array, "B L"]], Array],
    key: PRNGKeyArray,
    known: Int[Array, "B L"],
    mask_id: int,
    *,
    steps: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    order: str = "ancestral",
    budget: float = 0.1,
    block: int = 8,
) -> Int[Array, "B L"]:
    """Fills in the masks of `known` in at most `steps` calls (0: one per position).

    `predict(tokens) -> logits Float[B L V]`. Tokens of `known` that are not masks stay.
    """
    given = known != mask_id
    calls = steps or known.shape[1]

    def rank(score):
        return jnp.argsort(jnp.argsort(-score, axis=-1), axis=-1)

    def call(i, tokens):
        draw_key, reveal_key, mask_key = jax.random.split(jax.random.fold_in(key, i), 3)
        hidden, left = tokens == mask_id, calls - i
        logits = predict(tokens)
        drawn = draw(draw_key, logits, temperature, top_p)
        logp = jax.nn.log_softmax(logits)
        chance = jax.random.uniform(reveal_key, tokens.shape)
        if order in ("confidence", "blocks"):
            sure = jnp.take_along_axis(logp, drawn[..., None], -1)[..., 0]
            if order == "blocks":  # the leftmost first, the surest within
                sure = jnp.maximum(sure, -500.0) - 1e3 * (jnp.arange(tokens.shape[1]) // block)
            many = jnp.ceil(jnp.sum(hidden, axis=-1, keepdims=True) / left)
            chosen = rank(jnp.where(hidden, sure, -jnp.inf)) < many
        elif order == "entropy":
            spread = jnp.where(hidden, -jnp.sum(jnp.exp(logp) * logp, axis=-1), jnp.inf)
            ordered = jnp.sort(spread, axis=-1)
            before = (
                jnp.cumsum(jnp.where(jnp.isfinite(ordered), ordered, 0.0), axis=-1) - ordered[:, :1]
            )
            many = jnp.sum((before <= budget) & jnp.isfinite(ordered), axis=-1, keepdims=True)
            chosen = (rank(-spread) < jnp.maximum(many, 1)) | (left <= 1)
        else:
            chosen = chance * left < 1
        if order == "remask":
            # Shares masked before and after this call: s is what stays masked of t.
            t, s = left / calls, (left - 1) / calls
            again = jnp.where(t < 1, jnp.minimum(1.0, s / jnp.maximum(1 - t, 1e-9)), 0.0)
            again = again * (left > 1)
            stays = (s - (1 - t) * again) / t
            chosen = chance >= stays
            back = ~hidden & ~given & (jax.random.uniform(mask_key, tokens.shape) < again)
            tokens = jnp.where(back, mask_id, tokens)
        return jnp.where(hidden & chosen, drawn, tokens)

    return jax.lax.fori_loop(0, calls, call, known)
