"""The exact posterior of a Markov chain in place of a network: what a sampler alone gets wrong.

With p(x_i | revealed tokens) exact, a sampler that reveals one token a call draws from the chain
itself, along any path; the more tokens a call reveals at once, as if independent, the further its
likelihood lies above the entropy (2602.19619: the error vanishes only as calls approach the length).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dlm import config
from dlm.data import build
from dlm.data.corpora import known
from dlm.objectives import Conditionals


def of_corpus(corpus: config.Corpus, length: int) -> Conditionals | None:
    """The oracle of windows of `length` tokens of a Markov corpus; None for any other source, or if
    windows begin within documents of another length."""
    if corpus.name != "markov":
        return None
    options = build.options(corpus)
    if options.pop("length") % length:
        return None
    del options["documents"]
    _, first, rows = known.markov_law(**options)
    return markov(first, rows)


def markov(first: Float[np.ndarray, " V"], rows: Float[np.ndarray, "V V"]) -> Conditionals:
    """The conditionals of a chain that starts from `first` and goes from symbol v by `rows[v]`."""
    start, step = (jnp.asarray(x, jnp.float32) for x in (first, rows))

    def logits(
        apply, params, tokens: Int[Array, "B L"], hidden: Bool[Array, "B L"]
    ) -> Float[Array, "B L V"]:
        """log p(x_i | the tokens that are not hidden), by the forward and backward messages."""
        del apply, params  # no network
        shown = jnp.where(hidden[..., None], 1.0, jax.nn.one_hot(tokens, len(start)))
        shown = jnp.moveaxis(shown, 1, 0)  # [L, B, V]

        def forward(before, evidence):
            return _normalised(before * evidence) @ step, before

        def backward(after, evidence):
            return _normalised(after * evidence) @ step.T, after

        ahead = jnp.broadcast_to(start, shown.shape[1:])
        _, from_left = jax.lax.scan(forward, ahead, shown)
        _, from_right = jax.lax.scan(backward, jnp.ones_like(ahead), shown, reverse=True)
        return jnp.log(_normalised(jnp.moveaxis(from_left * from_right, 0, 1)))

    return Conditionals(logits)


def _normalised(p: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
    return p / jnp.maximum(p.sum(-1, keepdims=True), 1e-30)
