"""AR and masked diffusion by one model: some training sequences are left to right, the others masked.

  (1) loss = Σ_{AR rows} -log p(x) + Σ_{other rows} the bound of masked diffusion

An AR row has a causal mask, the others full attention; both read the tokens behind BOS in one call of
the model. One number u of a row decides between the two and is the time of its masks, so a batch has
as many AR rows as `ar_share` says, up to one, and its masks have evenly spread times. The score and
the sampler are those of either family, by `scored_as`.

Source: arXiv 2512.14549, which predicts masked tokens from the position before; here they are
predicted at their own, so that a share of 0 is `dlm.objectives.masked` and one of 1 `ar`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dlm import config
from dlm.config import families
from dlm.model import keys
from dlm.objectives import ar, common, masked
from dlm.objectives.common import Conditionals, Sum

FAMILY = config.FAMILIES["dual"]


def make(objective: families.Dual, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    share = objective.ar_share
    parts = {"ar": ar.make(objective, vocab_size), "masked": masked.make(objective, vocab_size)}
    _, nll, sample = parts[objective.scored_as]
    if share in (0, 1):
        return parts["ar" if share else "masked"][0], nll, sample
    prior_kl = masked.prior_kl(objective, vocab_size)

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.row_keys(key, batch).split(3)
        left_to_right, u = directions(share, times)
        hidden, weight = masked.training_masks(objective, u, masks, length, step)
        hidden &= ~left_to_right[:, None]
        xt = jnp.where(hidden, common.mask_id(vocab_size), tokens)
        logits = apply(
            params,
            common.with_bos(xt, vocab_size),
            mask=attention(left_to_right, length + 1),
            time=jnp.mean(hidden, axis=-1),
            key=dropout,
        )
        rows = left_to_right[:, None, None]
        logits = jnp.where(rows, logits[:, :-1], logits[:, 1:])  # AR predicts the next token
        nats = common.cross_entropy(logits, tokens, vocab_size)
        exact = jnp.sum(jnp.where(left_to_right[:, None], nats, 0))
        bound = jnp.sum(weight * jnp.sum(jnp.where(hidden, nats, 0), axis=-1))
        prior = jnp.sum(jnp.where(left_to_right, 0, prior_kl(length)))
        return common.total({"nll": exact, "diffusion": bound, "prior": prior}, tokens)

    return loss, nll, sample


def conditionals(objective: families.Dual, vocab_size: int) -> Conditionals | None:
    """Those of masked diffusion, unless it is scored left to right."""
    return masked.conditionals(objective, vocab_size) if objective.scored_as == "masked" else None


def directions(share: float, times: keys.RowKeys) -> tuple[Bool[Array, " B"], Float[Array, " B"]]:
    """Draws which rows are left to right, and u in [0, 1) of the others, evenly spread over them."""
    u = times.stratified()[:, 0]
    return u < share, jnp.clip((u - share) / (1 - share), 0, 1 - 1e-6)


def attention(left_to_right: Bool[Array, " B"], length: int) -> Bool[Array, "B T T"]:
    """What each position sees: those up to it in the rows left to right, all in the others."""
    return jnp.tri(length, dtype=bool) | ~left_to_right[:, None, None]
