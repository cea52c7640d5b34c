"""A synthetic source in which order carries no information: every order of training is as good.

Each document draws a mixture of topics, then each token independently from that mixture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlm.corpora.source import Source
from dlm.errors import DlmError


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
      DlmError: an option is not a whole number, or below its least value.
    """
    least = {"documents": 2, "length": 1, "topics": 2, "vocabulary": 2, "seed": 0}
    values = dict(
        documents=documents, length=length, topics=topics, vocabulary=vocabulary, seed=seed
    )
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            raise DlmError(
                f"config.corpus.options.{name}={value!r}: must be a whole number, {least[name]} "
                "or above"
            )
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
