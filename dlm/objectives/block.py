"""Block diffusion: autoregressive over blocks of b tokens, masked diffusion within each.

  (1) -log p(x) <= Σ_blocks E (b/k) Σ_{masked} -log p(x_i | masked block, clean blocks before it)

sums the masked bounds of all blocks; k of the b tokens of a block are masked. If each token is masked
with probability m, the weight is 1/m in place of b/k (BD3-LM, Arriola et al. 2025, arXiv 2503.09573,
section 3). One call reads a noisy and a clean copy of the sequence, each behind its own BOS: a noisy
block sees itself and the clean tokens before it, a clean block sees itself and the clean tokens before
it. The first noisy block sees only the noisy copy, so b = L is masked diffusion. With b = 1 the bound
is exact: AR that has MASK at the position it predicts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dlm import config
from dlm.config import families
from dlm.model import Params, Transformer, keys
from dlm.objectives import common, reveal
from dlm.objectives.common import SampleRequest, Sum, exact_count_mask, mask_id, total, with_bos

FAMILY = config.FAMILIES["block"]


def visible(length: int, block: int) -> Bool[np.ndarray, "T T"]:
    """Says which row sees which column of [BOS, noisy 1..L, BOS, clean 1..L], T = 2L + 2."""
    number = np.concatenate([[0], np.arange(length) // block + 1])  # of the block; BOS is 0
    noisy_noisy = number[:, None] == number[None]
    first = number <= 1  # the first block and its BOS see each other, as masked diffusion's do
    noisy_noisy |= first[:, None] & first[None]
    noisy_clean = number[None] < number[:, None]
    noisy_clean[first] = False
    clean_clean = number[None] <= number[:, None]
    nothing = np.zeros_like(clean_clean)
    return np.block([[noisy_noisy, noisy_clean], [nothing, clean_clean]])


def make(objective: families.Block, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""
    block = objective.block

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.row_keys(key, batch).split(3)
        u, chance = times.stratified(length // block), masks.uniform(length)
        if objective.estimator == "count":
            masked, weight = mask_by_count(chance, u)
        else:
            masked, weight = chance < jnp.repeat(1 - u, block, axis=1), 1 / (1 - u)
        nats = weighted_nll(apply, params, tokens, masked, weight, dropout, vocab_size)
        return total({"diffusion": jnp.sum(nats)}, tokens)

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        batch, length = tokens.shape

        def terms_at(u, draws: keys.RowKeys) -> Float[Array, " B"]:
            masked, weight = mask_by_count(draws.uniform(length), u)
            return weighted_nll(apply, params, tokens, masked, weight, None, vocab_size)

        nats = common.mean_over_times(terms_at, batch, key, passes, parts=length // block)
        return total({"diffusion": nats}, tokens)

    return loss, nll, common.sampler(functools.partial(fill_blocks, block, vocab_size))


def mask_by_count(
    chance: Float[Array, "B L"], u: Float[Array, "B N"]
) -> tuple[Bool[Array, "B L"], Float[Array, "B N"]]:
    """Masks k tokens of each of N blocks, k uniform in 1..b; returns the masks and the weights b/k."""
    block = chance.shape[1] // u.shape[1]
    count = jnp.clip(jnp.floor(u * block).astype(jnp.int32) + 1, 1, block)
    masked = exact_count_mask(chance.reshape(*u.shape, block), count)
    return masked.reshape(chance.shape), block / count


def weighted_nll(
    apply: Callable,
    params: Params,
    tokens: Int[Array, "B L"],
    masked: Bool[Array, "B L"],
    weight: Float[Array, "B N"],
    key: keys.RowKeys | None,
    vocab_size: int,
) -> Float[Array, " B"]:
    """Returns the weighted sum of (1) over N blocks, in nats."""
    block = tokens.shape[1] // weight.shape[1]
    logits = masked_logits(apply, params, tokens, masked, block, key, vocab_size)
    nats = jnp.where(masked, common.cross_entropy(logits, tokens, vocab_size), 0)
    return jnp.sum(weight * nats.reshape(*weight.shape, block).sum(-1), axis=-1)


def masked_logits(
    apply: Callable,
    params: Params,
    tokens: Int[Array, "B L"],
    masked: Bool[Array, "B L"],
    block: int,
    key: keys.RowKeys | None,
    vocab_size: int,
) -> Float[Array, "B L R"]:
    """Logits of all noisy blocks in one call, each given itself and the clean blocks before it."""
    length = tokens.shape[1]
    noisy = jnp.where(masked, mask_id(vocab_size), tokens)
    return apply(
        params,
        jnp.concatenate([with_bos(noisy, vocab_size), with_bos(tokens, vocab_size)], axis=1),
        mask=jnp.asarray(visible(length, block)),
        positions=jnp.tile(jnp.arange(length + 1), 2),
        key=key,
    )[:, 1 : length + 1]


def conditionals(objective: families.Block, vocab_size: int) -> common.Conditionals:
    """p(x_i | the unmasked tokens of its block, the blocks before), all blocks in one call."""

    def at_hidden(apply, params, tokens, hidden: Bool[Array, "B L"]) -> Float[Array, "B L V"]:
        logits = masked_logits(apply, params, tokens, hidden, objective.block, None, vocab_size)
        return logits[..., :vocab_size]

    return common.Conditionals(at_hidden, objective.block)


def fill_blocks(
    block: int, vocab_size: int, model: Transformer, params: Params, key, request: SampleRequest
) -> Int[Array, "B L"]:
    """Samples block by block with a KV cache, in `steps` calls over all blocks (0: one per token).

    The cache holds the clean blocks, so a call reads b tokens (and BOS, in the first block).
    """
    tokens = request.masked(mask_id(vocab_size))
    batch, length = tokens.shape
    calls = max(request.steps // (length // block), 1) if request.steps else block
    sees = jnp.asarray(visible(length, block))
    noisy_rows = sees[: length + 1, : length + 1]
    clean_rows = sees[length + 1 :, length + 1 :]

    def denoise(part: Int[Array, "B b"], query: Callable, number) -> Int[Array, "B b"]:
        """Takes one block from masks to tokens; query(its tokens) -> logits Float[B b R]."""
        return reveal.reveal(
            lambda part: query(part)[..., :vocab_size],
            *(jax.random.fold_in(key, number), part, mask_id(vocab_size)),
            request._replace(steps=calls),
        )

    def call(inputs, start, mask, cache):
        positions = start + jnp.arange(inputs.shape[1])
        return model.apply(params, inputs, mask=mask, positions=positions, cache=cache)

    # The first block has its BOS beside it, which it and only it sees as a noisy one.
    cache = model.cache(batch, length + 1)

    def query_first(part):
        return call(with_bos(part, vocab_size), 0, noisy_rows[: block + 1], cache)[0][:, 1:]

    first = denoise(tokens[:, :block], query_first, 0)
    tokens = tokens.at[:, :block].set(first)
    _, cache = call(with_bos(first, vocab_size), 0, clean_rows[: block + 1], cache)

    def fill_one(number, carry):
        tokens, cache = carry
        start = number * block
        rows = jax.lax.dynamic_slice_in_dim(clean_rows, start + 1, block)
        part = jax.lax.dynamic_slice_in_dim(tokens, start, block, axis=1)
        part = denoise(part, lambda part: call(part, start + 1, rows, cache)[0], number)
        _, cache = call(part, start + 1, rows, cache)
        return jax.lax.dynamic_update_slice_in_dim(tokens, part, start, axis=1), cache

    tokens, _ = jax.lax.fori_loop(1, length // block, fill_one, (tokens, cache))
    return tokens
