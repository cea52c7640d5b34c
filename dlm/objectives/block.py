"""Block diffusion: autoregressive over blocks of b tokens, masked diffusion within each.

-log p(x) <= sum over blocks of the masked bound of the block given the clean blocks before it
(BD3-LM, Arriola et al. 2025, arXiv 2503.09573, section 3). One call sees a noisy and a clean copy of
the sequence, each behind its own BOS: a noisy block sees itself and the clean tokens before it, a
clean block itself and those before. The first noisy block sees only its own copy, so b = L is masked
diffusion; with b = 1 the bound is exact, AR that asks by a MASK at the position.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dlm import config
from dlm.model import Params, Transformer, keys
from dlm.objectives import reveal
from dlm.objectives.common import Sum, cross_entropy, exact_count_mask, given, mean


def visible(length: int, block: int) -> Bool[np.ndarray, "T T"]:
    """Who sees whom among [BOS, noisy 1..L, BOS, clean 1..L], T = 2L + 2."""
    number = np.concatenate([[0], np.arange(length) // block + 1])  # of the block; BOS is 0
    noisy_noisy = number[:, None] == number[None]
    first = number <= 1  # the first block and its BOS see each other, as masked diffusion's do
    noisy_noisy |= first[:, None] & first[None]
    noisy_clean = number[None] < number[:, None]
    noisy_clean[first] = False
    clean_clean = number[None] <= number[:, None]
    nothing = np.zeros_like(clean_clean)
    return np.block([[noisy_noisy, noisy_clean], [nothing, clean_clean]])


def make(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """loss, nll and sample of `dlm.objectives.Objective`; BOS and MASK follow the vocabulary."""
    bos, mask_id, block = vocab_size, vocab_size + 1, c.block

    def predict(apply: Callable, params: Params, noisy, clean: Int[Array, "B L"], key) -> Array:
        """Logits at the L noisy positions."""
        length = clean.shape[1]
        both = [jnp.pad(x, ((0, 0), (1, 0)), constant_values=bos) for x in (noisy, clean)]
        logits = apply(
            params,
            jnp.concatenate(both, axis=1),
            mask=jnp.asarray(visible(length, block)),
            positions=jnp.tile(jnp.arange(length + 1), 2),
            key=key,
        )
        return logits[:, 1 : length + 1]

    def weighted(apply, params, tokens, masked, weight, key) -> Float[Array, " B"]:
        """`masked` is Bool[B L], `weight` Float[B L/b]."""
        logits = predict(apply, params, jnp.where(masked, mask_id, tokens), tokens, key)
        entropy = jnp.where(masked, cross_entropy(logits, tokens, vocab_size), 0)
        return jnp.sum(weight * entropy.reshape(*weight.shape, block).sum(-1), axis=-1)

    def count_form(chance: Float[Array, "B L"], t: Float[Array, "B N"]):
        counts = jnp.clip(jnp.floor(t * block).astype(jnp.int32) + 1, 1, block)
        masked = exact_count_mask(chance.reshape(*t.shape, block), counts)
        return masked.reshape(chance.shape), block / counts

    def loss(apply, params, tokens, key, step=None) -> Sum:
        batch, length = tokens.shape
        times, masks, dropout = keys.draws(key, batch).split(3)
        t, chance = times.stratified(length // block), masks.uniform(length)
        if c.estimator == "count":
            masked, weight = count_form(chance, t)
        else:
            masked, weight = chance < jnp.repeat(1 - t, block, axis=1), 1 / (1 - t)
        nats = jnp.sum(weighted(apply, params, tokens, masked, weight, dropout))
        return Sum(nats, tokens.size, {"diffusion": nats})

    def nll(apply, params, tokens, key, passes: int | Int[Array, ""]) -> Sum:
        def one(i) -> Float[Array, " B"]:
            chance = masks.fold_in(i).uniform(length)
            masked, weight = count_form(chance, (t + i / passes) % 1.0)
            return weighted(apply, params, tokens, masked, weight, None)

        batch, length = tokens.shape
        times, masks = keys.draws(key, batch).split(2)
        t = times.stratified(length // block)
        nats = mean(one, passes)
        return Sum(nats, tokens.size, {"diffusion": nats})

    def sample(
        model: Transformer,
        params: Params,
        key: PRNGKeyArray,
        prompt: Int[Array, "B P"],
        length: int,
        *,
        infill: Int[Array, "B L"] | None = None,
        steps: int = 0,
        **options,
    ) -> Int[Array, "B L"]:
        """Block by block, `steps` calls over all blocks (0: one a token), with a KV cache.

        The cache holds the clean blocks, so a call reads b tokens (and BOS, in the first block).
        """
        batch = len(prompt)
        calls = max(steps // (length // block), 1) if steps else block
        tokens = given(prompt, length, infill)
        tokens = jnp.where(tokens < 0, mask_id, tokens)
        seen = jnp.asarray(visible(length, block))
        noisy_rows = seen[: length + 1, : length + 1]
        clean_rows = seen[length + 1 :, length + 1 :]

        def denoise(part, query, number):
            """One block from masks to tokens; query(tokens of it) -> logits Float[B b R]."""
            return reveal.reveal(
                lambda part: query(part)[..., :vocab_size],
                *(jax.random.fold_in(key, number), part, mask_id),
                steps=calls,
                **options,
            )

        def call(inputs, start, mask, cache):
            positions = start + jnp.arange(inputs.shape[1])
            return model.apply(params, inputs, mask=mask, positions=positions, cache=cache)

        def with_bos(part):
            return jnp.pad(part, ((0, 0), (1, 0)), constant_values=bos)

        # The first block has its BOS beside it, which it and only it sees as a noisy one.
        cache = model.cache(batch, length + 1)
        first = denoise(
            tokens[:, :block],
            lambda part: call(with_bos(part), 0, noisy_rows[: block + 1], cache)[0][:, 1:],
            0,
        )
        tokens = tokens.at[:, :block].set(first)
        _, cache = call(with_bos(first), 0, clean_rows[: block + 1], cache)

        def one(number, carry):
            tokens, cache = carry
            start = number * block
            rows = jax.lax.dynamic_slice_in_dim(clean_rows, start + 1, block)
            part = jax.lax.dynamic_slice_in_dim(tokens, start, block, axis=1)
            part = denoise(part, lambda p: call(p, start + 1, rows, cache)[0], number)
            _, cache = call(part, start + 1, rows, cache)
            return jax.lax.dynamic_update_slice_in_dim(tokens, part, start, axis=1), cache

        tokens, _ = jax.lax.fori_loop(1, length // block, one, (tokens, cache))
        return tokens

    return loss, nll, sample
