"""A synthetic source in which order carries no information: every order of training is as good.

Each document draws a mixture of topics, then each token independently from that mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from dlm.config.fields import Range
from dlm.data.corpora.source import Length, Seed, Source


def topics(
    documents: Annotated[int, Range(2, 10**8)] = 4000,
    length: Length = 64,
    topics: Annotated[int, Range(2, 1000)] = 16,
    vocabulary: Annotated[int, Range(2, 10**5)] = 128,
    seed: Seed = 0,
) -> Source:
    """`documents` of `length` tokens. Topics ~ Dirichlet(0.05) over the vocabulary, a document's
    mixture ~ Dirichlet(0.1) over the topics. More documents extend the list, they change none.
    """
    drawn = _documents(documents, length, topics, vocabulary, seed)
    return Source(documents=drawn, vocab_size=vocabulary)


def distributions(topics: int, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """Float[topics, vocabulary]: the distribution over symbols of each topic."""
    return rng.dirichlet(np.full(vocabulary, 0.05), topics)


def _documents(
    documents: int, length: int, topics: int, vocabulary: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    symbols = distributions(topics, vocabulary, rng)
    for number in range(documents):
        cumulative = np.cumsum(rng.dirichlet(np.full(topics, 0.1)) @ symbols)
        draws = rng.random(length) * cumulative[-1]
        yield f"topics-{number:06d}", np.searchsorted(cumulative, draws, side="right")
