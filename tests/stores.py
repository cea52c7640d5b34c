"""Token stores for tests: of documents in memory, and what the contract of the split expects."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from dlm import config
from dlm.data import build as corpus
from dlm.data import corpora
from dlm.data.corpora import Source

DOCUMENTS = [(f"note-{i}", f"Note {i}: {'abcdefghij'[i % 10] * (i % 7)} end.") for i in range(200)]


def build(folder: Path, name: str = "notes", kind: str = "chars", **fields) -> corpus.Store:
    """A store; fields of Tokenizer by name, `validation`, the rest options."""
    share = fields.pop("validation", 0.1)
    known = {f.name for f in dataclasses.fields(config.Tokenizer)}
    tokenizer = config.Tokenizer(kind=kind, **{k: fields.pop(k) for k in known & fields.keys()})
    return corpus.build(
        config.Corpus(name=name, options=fields, validation_fraction=share), tokenizer, folder
    )


def register(monkeypatch, documents, vocab_size=None, state=None, name="notes") -> None:
    """Lists a corpus of these documents; state tells two lists apart."""

    def source() -> Source:
        return Source(documents=iter(documents), vocab_size=vocab_size, state=state)

    monkeypatch.setitem(corpora.CORPORA, name, source)


def texts_of(store: corpus.Store, side: str) -> list[str]:
    tokens, offsets = getattr(store, side), getattr(store, f"{side}_offsets")
    pairs = zip(offsets[:-1], offsets[1:], strict=True)
    return [store.decode(tokens[a:b]).removesuffix("<|endoftext|>") for a, b in pairs]


def place_of(content: str | np.ndarray) -> float:
    """Where the hash of a content lies between 0 and 1."""
    raw = content.encode() if isinstance(content, str) else content.astype(np.int32).tobytes()
    return int(hashlib.sha256(raw).hexdigest(), 16) / 2**256


def expected_split(texts: list[str], share: float) -> tuple[list[str], list[str]]:
    """Training and validation texts in their order, straight from the contract."""
    order = sorted(texts, key=place_of)
    return [t for t in order if place_of(t) >= share], [t for t in order if place_of(t) < share]
