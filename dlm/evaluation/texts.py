"""Scores text of a user's own with a trained model, in nats per token.

A model knows windows of `data.seq_len` tokens. A longer text is cut into consecutive windows, each
scored without what stands before it, as the validation split is; the last window may be shorter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dlm import config
from dlm.config.method import Method
from dlm.data import round_trip, windows
from dlm.data.corpora.files import files
from dlm.data.round_trip import RoundTrip
from dlm.data.store import Store
from dlm.errors import ArgumentError, DlmError
from dlm.evaluation import likelihood, prompts, score
from dlm.evaluation.likelihood import Member
from dlm.runs.estimate import Estimate


class TextScore(NamedTuple):
    """The loss on a text; `documents` and `bytes` count the text, `left_out` its unscored tokens."""

    estimate: Estimate  # nats per token, over the tokens that were scored
    bits_per_byte: float | None  # None: the tokenizer alters the text, or it is no text
    documents: int
    bytes: int
    left_out: int  # tokens at the end that make no whole block (objective `block` alone)
    round_trip: RoundTrip | None  # what the tokenizer lost of the text; None: no tokenizer

    @property
    def perplexity(self) -> float:
        """e to the nats per token; of an upper bound, an upper bound."""
        return math.exp(self.estimate.value)


def read(path: Path) -> list[str]:
    """The documents of a file: one of .txt and .md, one a row of .jsonl, .csv, .parquet and so on.

    Raises:
      DlmError: no such file, of an unknown kind, broken, or with a row that holds no text.
    """
    documents = []
    for label, text in files(str(path)).documents:
        if not isinstance(text, str):
            raise DlmError(f"{path}: {label} has no text; leave the row out, or give it some")
        documents.append(text)
    return documents


def score_each(
    members: Sequence[Member], store: Store, texts: Sequence[str], method: Method
) -> list[Estimate]:
    """An estimate for each text by itself; no end of document is added to its tokens.

    The standard error is over the windows of the text, NaN if it has only one. `members`: the model,
    or several that are an ensemble.

    Raises:
      DlmError: a text without tokens, or that the model cannot take.
    """
    c = members[0].config
    pieces = [_cut(c, ids)[0] for ids in _encoded(store, texts)]
    for text, windows_of_text in zip(texts, pieces, strict=True):
        if not windows_of_text:
            raise DlmError(
                f"{text!r:.60}: has too few tokens to score; must have {_unit(c)} or more"
            )
    windows_of_all = [window for piece in pieces for window in piece]
    which = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    scored = _score(members, store, windows_of_all, which, method)
    return [scored.estimate(np.flatnonzero(which == i)) for i in range(len(pieces))]


def score_together(
    members: Sequence[Member], store: Store, texts: Sequence[str], method: Method
) -> TextScore:
    """One score of all texts together: documents, each with its end, one after another in windows.

    That is how a validation split is scored, but for the last window, which may be shorter and is
    scored too. The standard error is over documents if there are several, else over windows.

    Raises:
      DlmError: texts without tokens, or that the model cannot take.
    """
    c, encoded, tokenizer = members[0].config, _encoded(store, texts), store.tokenizer
    if tokenizer is not None:
        encoded = [np.append(ids, tokenizer.eod) for ids in encoded]
    tokens = np.concatenate([np.zeros(0, np.int32), *encoded]).astype(np.int32)
    pieces, left_out = _cut(c, tokens)
    if not pieces:
        raise DlmError(f"the text has {len(tokens)} tokens; must have {_unit(c)} or more")
    first: dict[str, int] = {}  # copies of a document count as one
    content = np.array([first.setdefault(text, i) for i, text in enumerate(texts)])
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])])
    documents = content[windows.window_documents(offsets, c.data.seq_len, len(pieces))]
    scored = _score(members, store, pieces, documents, method)
    estimate = scored.estimate(np.arange(len(pieces)))
    sizes = np.array([len(text.encode()) for text in texts])
    trip, bits = None, None
    if tokenizer is not None:
        trip = round_trip.measure(tokenizer, sizes, lambda i: texts[i])
        if not trip.altered:
            bits = score.bits_per_byte(estimate, int(sizes.sum()) / len(tokens))
    return TextScore(estimate, bits, len(texts), int(sizes.sum()), left_out, trip)


def _encoded(store: Store, texts: Sequence[str]) -> list[Int[np.ndarray, " n"]]:
    for text in texts:
        if torn := [character for character in text if "\ud800" <= character <= "\udfff"]:
            raise DlmError(f"{text!r:.60}: holds {torn[0]!r}, which is no character of UTF-8")
    if store.tokenizer is not None:
        return store.tokenizer.encode_batch(list(texts))
    encoded = [prompts.encode("text", text, store) for text in texts]
    for ids in encoded:
        if len(ids) and not 0 <= ids.min() <= ids.max() < store.vocab_size:
            raise ArgumentError("text", f": ids must be 0 to {store.vocab_size - 1}")
    return encoded


def _unit(c: config.Config) -> int:
    """Tokens of which a window must hold a whole number."""
    return c.objective.block_length


def _cut(c: config.Config, ids: Int[np.ndarray, " n"]) -> tuple[list[np.ndarray], int]:
    """Consecutive windows, the last one maybe shorter, and how many tokens are in none."""
    length, left_out = c.data.seq_len, len(ids) % _unit(c)
    kept = len(ids) - left_out
    return [ids[i : min(i + length, kept)] for i in range(0, kept, length)], left_out


class _Scored(NamedTuple):
    """The windows of some texts, scored: arrays with one entry a window."""

    nats: Float[np.ndarray, " n"]
    mc_variance: Float[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]
    documents: Int[np.ndarray, " n"]
    kind: str
    sampler: str

    def estimate(self, rows: Int[np.ndarray, " m"]) -> Estimate:
        """Nats per token of some of the windows."""
        arrays = (self.nats, self.lengths, self.documents, self.mc_variance)
        nats, lengths, documents, variance = (array[rows] for array in arrays)
        return score.estimate(nats, lengths, documents, self.kind, variance, self.sampler)


def _score(
    members: Sequence[Member],
    store: Store,
    pieces: Sequence[np.ndarray],
    documents: Int[np.ndarray, " n"],
    method: Method,
) -> _Scored:
    """Scores windows in order; those of one length are scored together."""
    lengths = np.array([len(piece) for piece in pieces])
    nats, variance, kind, sampler = np.zeros(len(pieces)), np.zeros(len(pieces)), "", ""
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        stacked = np.stack([pieces[i] for i in rows.tolist()]).astype(np.int32)
        numbers = likelihood.score_windows(
            members, store.vocab_size, stacked, documents[rows], method
        )
        first = next(iter(numbers.values()))
        nats[rows], variance[rows] = first.nats, first.mc_variance
        kind, sampler = first.estimate.kind, first.estimate.sampler
    return _Scored(nats, variance, lengths, documents, kind, sampler)
