"""Synthetic sources whose entropy is known: what a model reaches can be told from what it could.

Each draws documents of `length` tokens from a law that is given by `seed` alone, and knows the
entropy per token of a whole document in nats: exactly where the law allows it, else as a mean of
exact -log p(document) over documents, by the forward algorithm or the inside algorithm. Validation
losses can then be read as nats above the truth, and a law fitted to runs knows its E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np

from dlm.config.fields import PartShare, Range
from dlm.data.corpora.source import Documents, Length, Seed, Source, refuse

# A square table of `vocabulary` or a cube of `symbols` is held in memory.
Vocabulary = Annotated[int, Range(2, 10_000)]
States = Annotated[int, Range(2, 1000)]
Symbols = Annotated[int, Range(2, 100)]


def _source(
    name: str, documents: int, vocabulary: int, entropy: float, one: Callable[[], np.ndarray]
) -> Source:
    def every() -> Iterator[tuple[str, np.ndarray]]:
        for number in range(documents):
            yield f"{name}-{number:06d}", one()

    return Source(documents=every(), vocab_size=vocabulary, entropy=entropy)


# --- Markov chains ------------------------------------------------------------------------------


def markov(
    documents: Documents = 4000,
    length: Length = 64,
    vocabulary: Vocabulary = 16,
    concentration: Annotated[int, Range(1, 10**6)] = 3,
    seed: Seed = 0,
) -> Source:
    """A Markov chain started from its stationary law; each symbol has about `concentration` followers.

    Entropy per token: (H(pi) + (length - 1) H(X' | X)) / length, exact.
    """
    rng, pi, rows = markov_law(vocabulary, concentration, seed)

    def one() -> np.ndarray:
        return chain(rng, pi, rows, length)

    rate = float(pi @ _entropies(rows))
    entropy = (_entropies(pi[None])[0] + (length - 1) * rate) / length
    return _source("markov", documents, vocabulary, entropy, one)


def markov_law(
    vocabulary: int, concentration: int, seed: int
) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """The law of a chain's first symbol, [V], and of the next one given each, [V, V]; first the
    generator, which goes on to draw the documents."""
    rng = np.random.default_rng([seed, 1])
    rows = rng.dirichlet(np.full(vocabulary, concentration / vocabulary), vocabulary)
    return rng, stationary(rows), rows


def stationary(rows: np.ndarray) -> np.ndarray:
    """The law that a chain keeps."""
    size = len(rows)
    equations = np.vstack([rows.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0].clip(0)


def chain(rng: np.random.Generator, first: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    states = np.empty(length, np.int64)
    tables, u = rows.cumsum(1), rng.random(length)
    at = min(int(np.searchsorted(first.cumsum(), u[0])), len(first) - 1)
    for i in range(length):
        if i:
            at = min(int(np.searchsorted(tables[at], u[i])), len(first) - 1)
        states[i] = at
    return states


def _entropies(rows: np.ndarray) -> np.ndarray:
    return -(rows * np.log(np.maximum(rows, 1e-300))).sum(-1)


# --- hidden Markov models -----------------------------------------------------------------------


def hmm(
    documents: Documents = 4000,
    length: Length = 64,
    states: States = 6,
    vocabulary: Vocabulary = 16,
    seed: Seed = 0,
) -> Source:
    """A hidden Markov model. Entropy: mean of -log p by the forward algorithm, over 2,000 documents."""
    rng = np.random.default_rng([seed, 2])
    rows = rng.dirichlet(np.full(states, 0.4), states)
    shown = rng.dirichlet(np.full(vocabulary, 0.15), states)
    pi = stationary(rows)

    def one(rng: np.random.Generator = rng) -> np.ndarray:
        hidden = chain(rng, pi, rows, length)
        u = rng.random(length)[:, None]
        return np.minimum((shown.cumsum(1)[hidden] < u).sum(1), vocabulary - 1)

    other = np.random.default_rng([seed, 3])
    nats = -np.mean([forward(one(other), pi, rows, shown) for _ in range(2000)]) / length
    return _source("hmm", documents, vocabulary, float(nats), one)


def forward(tokens: np.ndarray, first: np.ndarray, rows: np.ndarray, shown: np.ndarray) -> float:
    """log p(tokens), the hidden states summed out."""
    total, belief = 0.0, first
    for token in tokens:
        joint = belief * shown[:, token]
        mass = joint.sum()
        total += math.log(mass)
        belief = joint / mass @ rows
    return total


# --- a probabilistic context-free grammar -------------------------------------------------------


def pcfg(
    documents: Documents = 4000,
    length: Length = 64,
    symbols: Symbols = 5,
    vocabulary: Vocabulary = 16,
    seed: Seed = 0,
) -> Source:
    """A grammar in Chomsky's normal form, its trees cut to one shape: each node splits its span in
    half, so that a document has `length` leaves (a power of two).

    A node of symbol A becomes B C with probability P(B, C | A), a leaf a token. Entropy: mean of
    -log p by the inside algorithm over 2,000 documents.
    """
    if length & (length - 1):
        refuse("length", length, "a power of two for pcfg")
    rng = np.random.default_rng([seed, 4])
    pairs = rng.dirichlet(np.full(symbols**2, 0.15), symbols)
    shown = rng.dirichlet(np.full(vocabulary, 0.2), symbols)

    def pick(rng: np.random.Generator, tables: np.ndarray, at: np.ndarray) -> np.ndarray:
        u = rng.random(len(at))[:, None]
        return np.minimum((tables.cumsum(1)[at] < u).sum(1), tables.shape[1] - 1)

    def one(rng: np.random.Generator = rng) -> np.ndarray:
        row = np.zeros(1, np.int64)
        while len(row) < length:
            both = pick(rng, pairs, row)
            row = np.stack([both // symbols, both % symbols], axis=1).ravel()
        return pick(rng, shown, row)

    other = np.random.default_rng([seed, 5])
    nats = -np.mean([inside(one(other), pairs, shown) for _ in range(2000)]) / length
    return _source("pcfg", documents, vocabulary, float(nats), one)


def inside(tokens: np.ndarray, pairs: np.ndarray, shown: np.ndarray) -> float:
    """log p(tokens) from symbol 0, the tree's labels summed out."""
    symbols = len(pairs)
    rules = pairs.reshape(symbols, symbols, symbols)
    row, scale = shown[:, tokens].T, 0.0  # [leaf, symbol]
    while True:
        top = row.max(1, keepdims=True)
        row, scale = row / top, scale + np.log(top).sum()
        if len(row) == 1:
            return float(scale + math.log(row[0, 0]))
        row = np.einsum("abc,nb,nc->na", rules, row[::2], row[1::2])


# --- copies, parity, groups, sums ---------------------------------------------------------------


def copies(
    documents: Documents = 4000,
    length: Length = 64,
    vocabulary: Vocabulary = 16,
    wrong: PartShare = 0.05,
    seed: Seed = 0,
) -> Source:
    """A random half, then its copy in which each token is replaced by another with probability `wrong`.

    Entropy per token, exact: (log V + h(wrong) + wrong log(V - 1)) / 2.
    """
    if length % 2:
        refuse("length", length, "even for copies")
    rng = np.random.default_rng([seed, 6])

    def one() -> np.ndarray:
        half = rng.integers(0, vocabulary, length // 2)
        moved = (half + rng.integers(1, vocabulary, length // 2)) % vocabulary
        return np.concatenate([half, np.where(rng.random(length // 2) < wrong, moved, half)])

    flips = _entropies(np.array([[wrong, 1 - wrong]]))[0] + wrong * math.log(vocabulary - 1)
    return _source("copies", documents, vocabulary, (math.log(vocabulary) + flips) / 2, one)


def parity(
    documents: Documents = 4000,
    length: Length = 64,
    group: Annotated[int, Range(2, 10**6)] = 8,
    seed: Seed = 0,
) -> Source:
    """Runs of `group` - 1 random bits and their parity. Entropy: (group - 1)/group log 2, exact."""
    if length % group:
        refuse("group", group, f"a divisor of length={length}")
    rng = np.random.default_rng([seed, 7])

    def one() -> np.ndarray:
        bits = rng.integers(0, 2, (length // group, group - 1))
        return np.concatenate([bits, bits.sum(1, keepdims=True) % 2], axis=1).ravel()

    return _source("parity", documents, 2, (group - 1) / group * math.log(2), one)


def s5(documents: Documents = 4000, length: Length = 64, seed: Seed = 0) -> Source:
    """Word problems of the symmetric group on five: an element, then the product so far, in turn.

    120 symbols for elements, the next 120 for products. Entropy: log(120)/2, exact.
    """
    if length % 2:
        refuse("length", length, "even for s5")
    rng = np.random.default_rng([seed, 8])
    table = products()

    def one() -> np.ndarray:
        drawn, tokens, at = rng.integers(0, 120, length // 2), [], 0
        for element in drawn:
            at = table[at, element]
            tokens += [element, 120 + at]
        return np.array(tokens)

    return _source("s5", documents, 240, math.log(120) / 2, one)


def products() -> np.ndarray:
    """The multiplication table of S5, [120, 120]; element 0 is the identity."""
    import itertools

    elements = np.array(list(itertools.permutations(range(5))))
    place = {tuple(e): i for i, e in enumerate(elements.tolist())}
    return np.array([[place[tuple(a[b])] for b in elements.tolist()] for a in elements])


def addition(
    documents: Documents = 4000, digits: Annotated[int, Range(1, 1000)] = 4, seed: Seed = 0
) -> Source:
    """Sums in base ten, lowest digit first: digits of a, then +, of b, then =, of a + b.

    12 symbols, 3 digits + 3 tokens. Entropy: 2 digits log 10 over that length, exact.
    """
    rng = np.random.default_rng([seed, 9])

    def one() -> np.ndarray:
        a, b = (int("".join(map(str, rng.integers(0, 10, digits)))) for _ in range(2))
        parts = [f"{n:0{w}d}"[::-1] for n, w in ((a, digits), (b, digits), (a + b, digits + 1))]
        return np.array([int(c, 12) for c in parts[0] + "a" + parts[1] + "b" + parts[2]])

    length = 3 * digits + 3
    return _source("addition", documents, 12, 2 * digits * math.log(10) / length, one)
