"""A synthetic source in which order carries no information: every order of training is as good.

Each document draws a mixture of topics, then each token independently from that mixture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlm.data.corpora.source import Source, check_whole

LIMITS = {
    "documents": (2, 10**8),
    "length": (1, 10**6),
    "topics": (2, 1000),
    "vocabulary": (2, 10**5),
    "seed": (0, 2**63 - 1),
}


def topics(
    documents: int = 4000,
    length: int = 64,
    topics: int = 16,
    vocabulary: int = 128,
    seed: int = 0,
) -> Source:
    """`documents` of `length` tokens. Topics ~ Dirichlet(0.05) over the vocabulary, a document's
    mixture ~ Dirichlet(0.1) over the topics. More documents extend the list, they change none.

    Raises:
      DlmError: an option is not a whole number, or out of its limits.
    """
    values = dict(
        documents=documents, length=length, topics=topics, vocabulary=vocabulary, seed=seed
    )
    check_whole(LIMITS, **values)
    return Source(documents=_documents(**values), vocab_size=vocabulary)


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
