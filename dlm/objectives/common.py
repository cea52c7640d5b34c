"""Shared by objectives: sums in nats, BOS and MASK, averages over times, the arguments of samplers.

BOS is row `vocab_size` of the embedding, MASK is the row after it. The model never predicts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dlm.model import Params, Transformer, keys


class Sum(NamedTuple):
    """Sums in nats, never means, so that batches, microbatches and hosts add up exactly.

    `nats` is a scalar for a loss, and one number per sequence, Float[B], for an `nll`. `tokens` is the
    number of tokens of the whole batch. `terms` are the named terms of the bound; they add up to nats.
    """

    nats: Float[Array, "*B"]
    tokens: int
    terms: dict[str, Float[Array, "*B"]]


def total(terms: dict[str, Float[Array, "*B"]], tokens: Int[Array, "B L"]) -> Sum:
    """Adds up named terms in nats, in the order given."""
    return Sum(sum(terms.values(), jnp.zeros(())), tokens.size, terms)


def mean(one: Callable[[Any], Any], passes: int | Int[Array, ""]) -> Any:
    """Averages the trees of float arrays `one(0)`, ..., `one(passes - 1)`."""
    if isinstance(passes, int) and passes == 1:
        return one(0)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, 0))
    added = jax.lax.fori_loop(
        0, passes, lambda i, added: jax.tree.map(jnp.add, added, one(i)), empty
    )
    return jax.tree.map(lambda x: x / passes, added)


def mean_over_times(
    terms: Callable[[Float[Array, "B parts"], keys.RowKeys], Any],
    batch: int,
    key: PRNGKeyArray | keys.RowKeys,
    passes: int | Int[Array, ""],
    parts: int = 1,
) -> Any:
    """Averages `terms(u, draws)` over times u in [0, 1), spread evenly over rows and passes."""
    times, noises = keys.row_keys(key, batch).split(2)
    u = times.stratified(parts)
    return mean(lambda i: terms((u + i / passes) % 1.0, noises.fold_in(i)), passes)


def mask_id(vocab_size: int) -> int:
    """The id of MASK, which follows BOS."""
    return vocab_size + 1


def with_bos(tokens: Int[Array, "B L"], vocab_size: int) -> Int[Array, "B L+1"]:
    """Puts BOS in front of each sequence."""
    return jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=vocab_size)


class Conditionals(NamedTuple):
    """What a family knows of p(x_i | any set of other tokens), so that any order can be scored.

    logits(apply, params, tokens, hidden: Bool[B L]) -> Float[B L V]
        at the hidden positions, given the tokens that are not hidden; the tokens that are hidden are
        never read

    Tokens come in parts of `part` (0: all are one part). A part is given all parts before it and no
    later one, whatever is hidden of them.
    """

    logits: Callable[..., Float[Array, "B L V"]]
    part: int = 0


class InOrder(NamedTuple):
    """What a family knows of a sequence in any order, in one call of the model.

    token_nll(apply, params, tokens, order: Int[B L]) -> Float[B L], in nats
    draw(draws: keys.RowKeys, tokens) -> Int[B L], an order of the family's own law for each row
    """

    token_nll: Callable[..., Float[Array, "B L"]]
    draw: Callable[..., Int[Array, "B L"]]


class Denoiser(NamedTuple):
    """A model that reads BOS and all positions at once. `dropout` is None in evaluation."""

    apply: Callable
    params: Params
    dropout: keys.RowKeys | None
    vocab_size: int

    def logits(self, xt: Int[Array, "B L"], t: Float[Array, " B"]) -> Float[Array, "B L V"]:
        """Returns logits of the real tokens at all L positions of a noisy sequence xt at times t."""
        inputs, how = with_bos(xt, self.vocab_size), dict(mask="full", time=t, key=self.dropout)
        return self.apply(self.params, inputs, **how)[:, 1:, : self.vocab_size]


def loss_by_time(names: tuple[str, ...], terms: Callable, vocab_size: int, prior_kl) -> Callable:
    """Makes the loss of a bound whose terms are drawn at one time for each row.

    `terms(denoiser, tokens, u, draws)` returns one Float[B] for each name, in nats, for u Float[B] in
    [0, 1). `prior_kl(length)` is a constant term in nats (None: there is none).
    """

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, draws, dropout = keys.row_keys(key, batch).split(3)
        denoiser = Denoiser(apply, params, dropout, vocab_size)
        values = terms(denoiser, tokens, times.stratified()[:, 0], draws)
        prior = {"prior": jnp.float32(batch * prior_kl(length))} if prior_kl else {}
        return total(dict(zip(names, map(jnp.sum, values), strict=True)) | prior, tokens)

    return loss


def nll_by_time(names: tuple[str, ...], terms: Callable, vocab_size: int, prior_kl) -> Callable:
    """Makes the nll of the same bound: one value for each sequence, a mean over times."""

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape
        denoiser = Denoiser(apply, params, None, vocab_size)

        def terms_at(u, draws):
            return terms(denoiser, tokens, u[:, 0], draws)

        values = mean_over_times(terms_at, batch, key, passes)
        prior = {"prior": jnp.full(batch, prior_kl(length))} if prior_kl else {}
        return total(prior | dict(zip(names, values, strict=True)), tokens)

    return nll


def cross_entropy(
    logits: Float[Array, "B L R"], tokens: Int[Array, "B L"], vocab_size: int
) -> Float[Array, "B L"]:
    """Returns -log p(token) in nats. Logits of BOS and MASK are left out of the softmax."""
    logits = logits[..., :vocab_size]
    return jax.nn.logsumexp(logits, axis=-1) - at_token(logits, tokens)


def at_token(values: Float[Array, "*B V"], tokens: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Picks the entry of each token."""
    return jnp.take_along_axis(values, tokens[..., None], axis=-1)[..., 0]


def exact_count_mask(chance: Float[Array, "*B L"], counts: Int[Array, "*B"]) -> Bool[Array, "*B L"]:
    """Marks the `counts[b]` positions of row b with the smallest `chance`: a random set if uniform."""
    rank = jnp.argsort(jnp.argsort(chance, axis=-1), axis=-1)
    return rank < counts[..., None]


class SampleRequest(NamedTuple):
    """What to sample, and how. A family ignores options that it does not know."""

    prompt: Int[Array, "B P"]
    conditioning: Int[Array, "B L"]  # tokens to keep; -1 at positions to sample
    steps: int = 0  # calls of the model; 0: the default of the family
    temperature: float = 1.0
    top_p: float = 1.0
    order: str = "ancestral"
    budget: float = 0.1  # nats, for the order "entropy"

    def masked(self, mask: int) -> Int[Array, "B L"]:
        """Returns the conditioning with MASK at the positions to sample."""
        return jnp.where(self.conditioning < 0, mask, self.conditioning)


def sampler(
    fill: Callable[[Transformer, Params, PRNGKeyArray, SampleRequest], Int[Array, "B L"]],
) -> Callable[..., Int[Array, "B L"]]:
    """Makes `sample` of `dlm.objectives.Objective` from a function that fills in one request."""

    def sample(
        model, params, key, prompt: Int[Array, "B P"], length: int, *, infill=None, **options
    ):
        if infill is None:
            free = length - prompt.shape[1]
            infill = jnp.pad(prompt, ((0, 0), (0, free)), constant_values=-1)
        return fill(model, params, key, SampleRequest(prompt, infill, **options))

    return sample


def draw(
    key: PRNGKeyArray, logits: Float[Array, "*B V"], temperature: float, top_p: float
) -> Int[Array, "*B"]:
    """Samples ids at a temperature (0: the most likely) within the nucleus of `top_p`."""
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / temperature
    if top_p < 1:
        ordered = jnp.sort(logits, axis=-1)[..., ::-1]
        below = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered) < top_p
        least = jnp.min(jnp.where(below, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits)
