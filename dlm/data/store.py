"""The token store on disk: a folder, opened and checked, its tokens memory-mapped.

  tokens.bin     uint16 or uint32, little-endian: training tokens, then validation tokens
  offsets.npy    int64[documents + 1]: where each document starts in tokens.bin
  manifest.json  what it is (`Manifest`), sealed
  tokenizer/     the tokenizer, for text

`corpus.build` writes it and gives the folder its name once all of this is on disk. Every process
that opens a store compares it with its fingerprint, once: damaged tokens train no model.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dlm import sealed
from dlm.data import tokenizers
from dlm.data.corpora import SHOW
from dlm.data.round_trip import RoundTrip
from dlm.errors import DlmError, one_line, reason

FORMAT = "dlm-corpus-4"
CHUNK = 1 << 22  # tokens whose largest id is looked for at once


@dataclass(frozen=True)
class Split:
    documents: int
    tokens: int  # with the end-of-document tokens of text
    bytes: int | None  # of UTF-8 text; None for corpora of integers
    unique_documents: int  # distinct contents
    round_trip: RoundTrip | None = None  # of text through the tokenizer


@dataclass(frozen=True)
class Manifest:
    format: str
    name: str
    options: dict[str, Any]  # with the defaults
    validation_share: float | None  # None: the source's own split
    fingerprint: str  # sha256 of tokens, offsets, split and tokenizer
    vocab_size: int
    eod: int | None  # None for corpora of integers, as the two below
    tokenizer: str | None
    tokenizer_fingerprint: str | None
    python: str
    document_length: int | None  # tokens of every document, where all have the same
    entropy: float | None  # of the source, nats/token of whole documents, where it is known
    unique_ngrams: float  # share of distinct 13-grams, in at most 10M training tokens
    train: Split
    validation: Split
    both_sides: int = 0  # distinct contents on both sides, which only a source's own split can have
    source_documents: int = 0  # before any was cut into passages
    distinct_documents: int = 0  # of these; counted if passages are held out
    passage_bytes: int = 0  # of the passages that were held out; 0: whole documents were
    cut_documents: int = 0  # of which there are passages on both sides
    without_text: int = 0  # rows that had none and were left out
    first_without_text: str = ""
    places: list[Any] | None = None  # where the streams of a source that has places ended


@dataclass(frozen=True, eq=False)
class Store:
    """A corpus on disk. `train` and `validation` are views of one memory-mapped file."""

    path: Path
    manifest: Manifest
    train: np.ndarray
    validation: np.ndarray
    train_offsets: np.ndarray  # int64[training documents + 1], starts in `train`
    validation_offsets: np.ndarray  # the same in `validation`

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def vocab_size(self) -> int:
        return self.manifest.vocab_size

    @property
    def sizes(self) -> dict[str, Any]:
        """What `dlm.config.planning.plan` asks of a corpus."""
        return dict(
            train_tokens=len(self.train),
            validation_tokens=len(self.validation),
            vocab_size=self.vocab_size,
            document_length=self.manifest.document_length,
        )

    @property
    def bytes_per_token(self) -> float | None:
        """Of the validation split, ends of documents counted as tokens of no bytes; None for corpora of
        integers, and for text that the tokenizer alters: nats of its ids are none of the text.
        """
        split = self.manifest.validation
        if split.bytes is None or (split.round_trip and split.round_trip.altered):
            return None
        return split.bytes / split.tokens

    @cached_property
    def validation_contents(self) -> np.ndarray:
        """int64[validation documents]: the first document of the same tokens."""
        split, firsts = self.manifest.validation, {}
        if split.documents == split.unique_documents:
            return np.arange(split.documents)
        bounds = itertools.pairwise(self.validation_offsets.tolist())
        digests = (hashlib.sha256(self.validation[a:b].tobytes()).digest() for a, b in bounds)
        return np.array([firsts.setdefault(digest, i) for i, digest in enumerate(digests)])

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer | None:
        """None for corpora of integers."""
        if self.manifest.tokenizer is None:
            return None
        return tokenizers.load(self.path / "tokenizer")

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Text, a drawing, or numbers; ids outside the vocabulary are shown, not refused."""
        if self.tokenizer is not None:
            return self.tokenizer.decode(ids)
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if self.manifest.name in SHOW:
            return SHOW[self.manifest.name](array)
        return " ".join(str(i) if 0 <= i < self.vocab_size else "?" for i in array.tolist())


def load(path: Path) -> Store:
    """Opens a store and checks that it is as it was built.

    The first time in a process all of it is read: 0.1 to 0.5 s for 100M tokens. Later only if one of
    its files was changed meanwhile.

    Raises:
      DlmError: names the file that is missing, damaged or of another format, and what to do.
    """
    if not path.is_dir():
        raise DlmError(f"{path}: no such token store; `dlm corpus` builds one")
    try:
        files = (path, *path.iterdir(), *(path / "tokenizer").glob("*"))
        return _opened(path, tuple(map(_stamp, sorted(files))))
    except OSError as error:
        raise DlmError(f"{path}: cannot be read: {reason(error)}") from error


def manifest(path: Path) -> Manifest:
    """What a store says of itself; its tokens are not read.

    Raises:
      DlmError: there is none, or it is damaged or of another format.
    """
    return _manifest(path)[0]


def _manifest(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """Also the sealed JSON that it was read from."""
    with _with_remedy(path, "manifest.json"):
        values = sealed.read(path / "manifest.json")
        fields = {name: value for name, value in values.items() if name != sealed.FILES}
        if (written := fields.get("format")) != FORMAT:
            raise DlmError(f"manifest.json has format {written!r}, this dlm reads {FORMAT!r}")
        sides = {side: _side(fields[side]) for side in ("train", "validation")}
        return Manifest(**{**fields, **sides}), values


def _side(values: dict[str, Any]) -> Split:
    trip = values.get("round_trip")
    return Split(**{**values, "round_trip": trip and RoundTrip(**trip)})


@functools.lru_cache(maxsize=64)
def _opened(path: Path, stamps: tuple[tuple[Any, ...], ...]) -> Store:
    """The store whose files have these stamps: checked once, then shared."""
    m, values = _manifest(path)
    with _with_remedy(path, "tokens.bin"):
        sealed.check_files(path, values)
        tokens = np.memmap(path / "tokens.bin", token_dtype(m.vocab_size), "r")
        if (largest := _largest(tokens)) >= m.vocab_size:
            raise DlmError(f"tokens.bin holds id {largest}; the vocabulary has {m.vocab_size:,}")
        offsets = np.load(path / "offsets.npy", allow_pickle=False)
    train, documents = m.train.tokens, m.train.documents
    return Store(
        path=path,
        manifest=m,
        train=tokens[:train],
        validation=tokens[train:],
        train_offsets=offsets[: documents + 1],
        validation_offsets=offsets[documents:] - train,
    )


def _stamp(file: Path) -> tuple[Any, ...]:
    """What changes with a file's content, unless somebody hides it."""
    about = file.stat()
    return file, about.st_ino, about.st_size, about.st_mtime_ns


def _largest(tokens: np.ndarray) -> int:
    """The largest id, without a copy of all of them."""
    return max(int(tokens[i : i + CHUNK].max()) for i in range(0, len(tokens), CHUNK))


@contextlib.contextmanager
def _with_remedy(path: Path, name: str) -> Iterator[None]:
    """Errors inside name the store, the file `name` unless they name one, and what to do."""
    try:
        yield
    except DlmError as error:
        problem = reason(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        problem = f"{name} is corrupt, or not of dlm: {one_line(error)}"
    else:
        return
    raise DlmError(f"{path}: {problem}; delete {path} and it is built again")


def notes(manifest: Manifest) -> list[str]:
    """What one should know of a corpus before one believes a number: a sentence each, often none."""
    m, sentences = manifest, []
    if m.passage_bytes:
        sentences.append(_passages(m))
    if m.without_text:
        rows = m.source_documents + m.without_text
        sentences.append(
            f"{m.without_text:,} of {rows:,} rows without text left out; the first: "
            f"{m.first_without_text}."
        )
    for name, part in (("training", m.train), ("validation", m.validation)):
        if copies := part.documents - part.unique_documents:
            counted = "; unique tokens (U) count them" * (part is m.train)
            share = f"{copies:,} of {part.documents:,} {name} documents"
            sentences.append(f"{share} are copies of others there{counted}.")
    if m.both_sides:
        sentences.append(
            f"{m.both_sides:,} contents are on both sides of the source's own split: part of the "
            "validation text is trained on."
        )
    for name, part in (("training", m.train), ("validation", m.validation)):
        if (trip := part.round_trip) and trip.altered:
            withheld = "; bits per byte is withheld" * (part is m.validation)
            sentences.append(
                f"{trip.altered:,} of {trip.texts:,} {name} texts come back altered from the "
                f"tokenizer: {trip.words}{withheld}."
            )
    return sentences


def _passages(m: Manifest) -> str:
    documents = f"{m.distinct_documents:,} distinct document{'s' * (m.distinct_documents != 1)}"
    few = f"{documents}, too few to hold out a share of {m.validation_share:g} of them"
    if not m.cut_documents:
        return f"{few} by a hash alone: the first by their hash are held out."
    unit, size = ("tokens", m.passage_bytes // 4) if m.eod is None else ("bytes", m.passage_bytes)
    return (
        f"{few}: passages of about {size:,} {unit} are held out, the first by a hash of their content, "
        f"which puts {m.cut_documents:,} of {m.source_documents:,} on both sides. Standard "
        "errors are over passages: they speak for more text of these documents, not for others."
    )


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of the two types of tokens.bin that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
