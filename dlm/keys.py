"""Random keys by name: adding a draw somewhere moves no draw elsewhere."""

from __future__ import annotations

import zlib

import jax
from jaxtyping import PRNGKeyArray


def named(seed: int, purpose: str) -> PRNGKeyArray:
    """The key of a purpose under a seed; the hash of the name is the same on every machine."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
