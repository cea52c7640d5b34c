"""Random keys by name and by row: adding a draw, or splitting a batch, moves no draw elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def key_for(seed: int, purpose: str) -> PRNGKeyArray:
    """The key of a purpose under a seed; the hash of the name is the same on every machine."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


class RowKeys(NamedTuple):
    """The keys of some rows of a batch: each row draws from its own.

    A row meets the same noise in whatever part of its batch it is computed, so microbatches and
    devices change nothing but rounding.
    """

    key: PRNGKeyArray  # of the batch
    rows: Int[Array, " B"]  # numbers of these rows in the batch
    of: int  # rows of the whole batch

    def split(self, parts: int) -> list[RowKeys]:
        return [self._replace(key=key) for key in jax.random.split(self.key, parts)]

    def fold_in(self, number: int | Int[Array, ""]) -> RowKeys:
        return self._replace(key=jax.random.fold_in(self.key, number))

    def each(self, draw: Callable[[PRNGKeyArray], Array]) -> Array:
        """Stacks `draw(key)` of each row."""
        return jax.vmap(lambda row: draw(jax.random.fold_in(self.key, row)))(self.rows)

    def uniform(self, *shape: int) -> Float[Array, "B ..."]:
        return self.each(lambda key: jax.random.uniform(key, shape))

    def normal(self, *shape: int) -> Float[Array, "B ..."]:
        return self.each(lambda key: jax.random.normal(key, shape))

    def below(self, high: int, *shape: int) -> Int[Array, "B ..."]:
        """Whole numbers from 0 up to `high`, without it."""
        return self.each(lambda key: jax.random.randint(key, shape, 0, high))

    def stratified(self, parts: int = 1) -> Float[Array, "B parts"]:
        """Numbers in [0, 1), each uniform, spread evenly over the whole batch: (u + i/n) mod 1 with
        one u.

        The variance of a mean over them is lower than for independent draws (Kingma et al. 2021,
        appendix I.1), the expectation the same.
        """
        number = self.rows[:, None] * parts + jnp.arange(parts)
        return (jax.random.uniform(self.key) + number / (self.of * parts)) % 1.0


def row_keys(key: PRNGKeyArray | RowKeys, batch: int) -> RowKeys:
    """The keys of all rows of a batch, or `key` itself if it is the keys of some."""
    return key if isinstance(key, RowKeys) else RowKeys(key, jnp.arange(batch), batch)
