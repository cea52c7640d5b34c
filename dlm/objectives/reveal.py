"""Samples by revealing masks, a few positions per call. Shared by all families that mask.

Along a path the positions of a call depend only on what is revealed already, so a sequence has one
path and an exact likelihood (`dlm.evaluation.likelihood`; DUEL, arXiv 2603.01367). The paths:

left-to-right   the leftmost positions first, the same number each call
confidence      the positions whose likeliest token is the most likely first, the same number each call
least-entropy   the positions of least entropy first, the same number each call
blocks          as confidence, within the leftmost BLOCK tokens that have masks (LLaDA, 2502.09992)
entropy         the positions of least entropy first, as many as stay within `budget` nats of summed
                entropy beyond the most certain one (Ben-Hamu et al. 2025, arXiv 2505.24857)

The others draw the positions, or look at the tokens that are drawn for them:

ancestral       each mask is revealed with probability 1/(calls left): the reverse process
maskgit         the positions whose drawn token is the most likely first (MaskGIT, arXiv 2202.04200)
remask          ancestral, and a revealed token is masked again with probability sigma (ReMDM, arXiv
                2503.00307), its largest value that leaves the marginals, but in the last call
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dlm.config.family import PATHS
from dlm.objectives.common import SampleRequest, at_token, draw

BLOCK = 8  # tokens of path "blocks"


def reveal(
    predict: Callable[[Int[Array, "B L"]], Array],
    key: PRNGKeyArray,
    known: Int[Array, "B L"],
    mask_id: int,
    request: SampleRequest,
) -> Int[Array, "B L"]:
    """Fills in the masks of `known` in at most `request.steps` calls (0: one per position).

    `predict(tokens) -> logits Float[B L V]`. Tokens of `known` that are not masks stay; prompt and
    conditioning of the request are not read.
    """
    fixed, order = known != mask_id, request.order
    calls = request.steps or known.shape[1]

    def call(i, tokens):
        draw_key, reveal_key, mask_key = jax.random.split(jax.random.fold_in(key, i), 3)
        hidden, left = tokens == mask_id, calls - i
        logits = predict(tokens)
        drawn = draw(draw_key, logits, request.temperature, request.top_p)
        chance = jax.random.uniform(reveal_key, tokens.shape)
        if order in PATHS:
            chosen = next_on_path(order, logits, hidden, left, request.budget)
        elif order == "maskgit":
            chosen = _first(at_token(jax.nn.log_softmax(logits), drawn), hidden, left)
        elif order == "remask":
            # Shares masked before and after this call: s is what stays masked of t.
            t, s = left / calls, (left - 1) / calls
            again = jnp.where(t < 1, jnp.minimum(1.0, s / jnp.maximum(1 - t, 1e-9)), 0.0)
            again = again * (left > 1)
            stays = (s - (1 - t) * again) / t
            chosen = chance >= stays
            back = ~hidden & ~fixed & (jax.random.uniform(mask_key, tokens.shape) < again)
            tokens = jnp.where(back, mask_id, tokens)
        else:
            chosen = chance * left < 1
        return jnp.where(hidden & chosen, drawn, tokens)

    return jax.lax.fori_loop(0, calls, call, known)


def next_on_path(
    path: str,
    logits: Float[Array, "B L V"],
    hidden: Bool[Array, "B L"],
    calls_left: int | Int[Array, ""],
    budget: float = 0.1,
) -> Bool[Array, "B L"]:
    """The hidden positions that a path reveals in this call, by logits and places alone.

    With one call left all are revealed. `budget`: nats, of path entropy.
    """
    position = jnp.arange(hidden.shape[1])
    if path == "left-to-right":
        return _first(-position * jnp.ones(hidden.shape), hidden, calls_left)
    logp = jax.nn.log_softmax(logits)
    if path in ("confidence", "blocks"):
        sure = jnp.max(logp, axis=-1)
        if path == "blocks":  # the leftmost first, the surest within
            sure = jnp.maximum(sure, -500.0) - 1e3 * (position // BLOCK)
        return _first(sure, hidden, calls_left)
    entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
    if path == "least-entropy":
        return _first(-entropy, hidden, calls_left)
    ordered = jnp.sort(jnp.where(hidden, entropy, jnp.inf), axis=-1)
    before = jnp.cumsum(jnp.where(jnp.isfinite(ordered), ordered, 0.0), axis=-1) - ordered[:, :1]
    count = jnp.sum((before <= budget) & jnp.isfinite(ordered), axis=-1, keepdims=True)
    return hidden & ((_rank(-entropy, hidden) < jnp.maximum(count, 1)) | (calls_left <= 1))


def _first(
    score: Float[Array, "B L"], hidden: Bool[Array, "B L"], calls_left: int | Int[Array, ""]
) -> Bool[Array, "B L"]:
    """The hidden positions of highest score, as many as each call left must reveal."""
    count = jnp.ceil(jnp.sum(hidden, axis=-1, keepdims=True) / calls_left)
    return hidden & (_rank(score, hidden) < count)


def _rank(score: Float[Array, "B L"], hidden: Bool[Array, "B L"]) -> Int[Array, "B L"]:
    """0 for the highest score of the hidden positions, then 1, ...; of equal ones the left first."""
    ordered = jnp.argsort(-jnp.where(hidden, score, -jnp.inf), axis=-1, stable=True)
    return jnp.argsort(ordered, axis=-1)
