"""From a corpus to its token store: split by document, tokenised once, reused ever after."""

from __future__ import annotations

import hashlib
import inspect
import json
import mmap
import os
import platform
import shutil
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dlm import config, tokenizers
from dlm.corpora import CORPORA, Source
from dlm.errors import DlmError, nearest
from dlm.store import FORMAT, Manifest, Split, Store, load, token_dtype

__all__ = ["Manifest", "Split", "Store", "build", "load", "options", "unique_ngrams"]

NGRAM = 13
NGRAM_TOKENS = 10_000_000  # of the training split, in which n-grams are counted


def options(corpus: config.Corpus) -> dict[str, Any]:
    """The options of a corpus, complete. Reads nothing.

    Raises:
      DlmError: no such corpus or option (names the nearest), or an option without default unset.
    """
    if corpus.name not in CORPORA:
        raise DlmError(
            f"config.corpus.name={corpus.name!r}: must be one of {', '.join(CORPORA)}"
            f"{nearest(corpus.name, CORPORA)}"
        )
    known = inspect.signature(CORPORA[corpus.name]).parameters
    for name in corpus.options:
        if name not in known:
            raise DlmError(
                f"config.corpus.options.{name}: {corpus.name} has no such option; it has "
                f"{', '.join(known) or 'none'}{nearest(name, known)}"
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in corpus.options:
            raise DlmError(f"config.corpus.options.{name}: missing; {corpus.name} needs it")
    defaults = {name: p.default for name, p in known.items() if p.default is not p.empty}
    return {**defaults, **corpus.options}


def build(corpus: config.Corpus, tokenizer: config.Tokenizer, folder: Path) -> Store:
    """The store of a corpus, below `folder`: opened if it is there, else built first.

    Any number of processes may call this at once: one builds, the others wait and open.

    Raises:
      DlmError: an unknown corpus or option, bad input, a store that is there but broken, or a
        folder that cannot be written (nothing half-written is left).
    """
    import filelock

    filled = options(corpus)
    source = CORPORA[corpus.name](**filled)
    text = source.vocab_size is None
    files = tokenizers.given(tokenizer) if text else {}
    identity = {
        "format": FORMAT,
        "name": corpus.name,
        "options": filled,
        "validation": corpus.validation,
        "state": source.state,
        "kind": tokenizer.kind if text else None,
        "vocab_size": tokenizer.vocab_size if text and tokenizer.kind == "bpe" else None,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    path = folder / f"{corpus.name}-{key[:12]}"
    try:
        if path.exists():
            return load(path)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f".{path.name}.lock"):
            if not path.exists():
                _build(corpus, filled, tokenizer, source, path)
        return load(path)
    except OSError as error:
        raise DlmError(
            f"{folder}: the token store cannot be written: {error.strerror or error}; free space "
            "there or choose another folder with --workdir"
        ) from error


# --- building -----------------------------------------------------------------------------------


class _Documents(NamedTuple):
    """All documents, spooled to one file, in the order of the source."""

    keys: np.ndarray  # uint64[n, 2]: the first half of the sha256 of the id
    ends: np.ndarray  # int64[n]: where each ends in the file
    contents: np.ndarray  # uint64[n]: a hash of each


def _build(
    corpus: config.Corpus,
    filled: dict[str, Any],
    tokenizer: config.Tokenizer,
    source: Source,
    path: Path,
) -> None:
    """Writes a hidden folder beside `path`, then renames it. The caller holds the lock."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
    try:
        temporary.mkdir()
        manifest = _fill(corpus, filled, tokenizer, source, temporary)
        (temporary / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1) + "\n")
        for file in [*temporary.rglob("*"), temporary]:
            _sync(file)
        temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(
    corpus: config.Corpus,
    filled: dict[str, Any],
    tokenizer: config.Tokenizer,
    source: Source,
    folder: Path,
) -> Manifest:
    """Everything but the manifest, which it returns."""
    spool = folder / "spool"
    with open(spool, "wb") as file:
        documents = _spool(source, file)
    train, validation = _split(documents, corpus)
    with open(spool, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        starts = np.concatenate([[0], documents.ends])

        def content(i: int) -> bytes:
            return raw[starts[i] : starts[i + 1]]

        made = None
        if source.vocab_size is None:
            made = tokenizers.make(tokenizer, lambda: (content(i).decode() for i in train))
            (folder / "tokenizer").mkdir()
            made.save(folder / "tokenizer")
        vocab_size = made.vocab_size if made else source.vocab_size
        assert vocab_size is not None
        dtype, digest, offsets = token_dtype(vocab_size), hashlib.sha256(), array("q", [0])
        with open(folder / "tokens.bin", "wb") as tokens:
            for i in np.concatenate([train, validation]):
                ids = _encode(content(i), made).astype(dtype)
                tokens.write(ids.tobytes())
                digest.update(ids.tobytes())
                offsets.append(offsets[-1] + len(ids))
    spool.unlink()
    table = np.array(offsets, np.int64)
    np.save(folder / "offsets.npy", table)
    lengths = np.diff(table)
    total = int(table[len(train)])
    fingerprint = made.fingerprint if made else None
    digest.update(table.tobytes())
    digest.update(json.dumps([len(train), vocab_size, fingerprint]).encode())
    sizes = np.diff(starts)
    counts = [
        Split(
            documents=len(part),
            tokens=part_tokens,
            bytes=int(sizes[part].sum()) if made else None,
            unique_documents=len(np.unique(documents.contents[part])),
        )
        for part, part_tokens in ((train, total), (validation, int(table[-1]) - total))
    ]
    stream = np.memmap(folder / "tokens.bin", dtype, "r", shape=(min(total, NGRAM_TOKENS),))
    return Manifest(
        format=FORMAT,
        name=corpus.name,
        options=filled,
        validation_share=corpus.validation,
        fingerprint=digest.hexdigest(),
        vocab_size=vocab_size,
        eod=made.eod if made else None,
        tokenizer=made.kind if made else None,
        tokenizer_fingerprint=fingerprint,
        python=platform.python_version(),
        document_length=None if made or (lengths != lengths[0]).any() else int(lengths[0]),
        entropy=source.entropy,
        unique_ngrams=unique_ngrams(stream),
        train=counts[0],
        validation=counts[1],
    )


def _spool(source: Source, file: BinaryIO) -> _Documents:
    """Writes every document to `file`: UTF-8 of text, int32 of integers."""
    keys, ends, contents = array("Q"), array("q"), array("Q")
    end = 0
    for name, content in source.documents:
        raw = _raw(name, content, source.vocab_size)
        file.write(raw)
        end += len(raw)
        ends.append(end)
        keys.frombytes(hashlib.sha256(name.encode()).digest()[:16])
        contents.frombytes(hashlib.sha256(raw).digest()[:8])
    return _Documents(
        keys=np.array(keys, np.uint64).view(">u8").reshape(-1, 2),
        ends=np.array(ends, np.int64),
        contents=np.array(contents, np.uint64),
    )


def _raw(name: str, content: str | np.ndarray, vocab_size: int | None) -> bytes:
    if vocab_size is None:
        if not isinstance(content, str):
            raise DlmError(f"document {name}: must be text, or the Source must name a vocab_size")
        try:
            return content.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
            whole = content.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return whole.encode()
    ids = np.asarray(content)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DlmError(f"document {name}: must be a 1-D array of integers")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise DlmError(
            f"document {name}: ids {ids.min()} to {ids.max()}, must be 0 to {vocab_size - 1}"
        )
    return ids.astype(np.int32).tobytes()


def _split(documents: _Documents, corpus: config.Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation documents, each in order of the ids' hash.

    A document's side and place depend on its id alone, so other documents do not move it across.
    """
    high, low = documents.keys[:, 0].astype(np.uint64), documents.keys[:, 1].astype(np.uint64)
    order = np.lexsort((low, high))
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    if same.any():
        at = int(np.flatnonzero(same)[0])
        first, second = sorted(order[at : at + 2].tolist())
        raise DlmError(
            f"config.corpus.name={corpus.name!r}: documents {first + 1} and {second + 1} have the "
            "same id; ids must be unique"
        )
    held_out = high[order] * 2.0**-64 < corpus.validation
    train, validation = order[~held_out], order[held_out]
    sizes = np.diff(documents.ends, prepend=0)
    for part, side in ((train, "training"), (validation, "validation")):
        if not sizes[part].sum():
            raise DlmError(
                f"config.corpus.validation={corpus.validation}: leaves no {side} text, with "
                f"{len(order):,} document{'s' * (len(order) != 1)} split by a hash of the id; "
                "give more documents (a .jsonl has one a line) or another share"
            )
    return train, validation


def _encode(raw: bytes, tokenizer: tokenizers.Tokenizer | None) -> np.ndarray:
    if tokenizer is None:
        return np.frombuffer(raw, np.int32)
    return np.append(tokenizer.encode(raw.decode()), tokenizer.eod)


def unique_ngrams(tokens: np.ndarray, n: int = NGRAM) -> float:
    """Share of distinct windows of n tokens among all, by a 64-bit hash; 1 if there are none."""
    if len(tokens) < n:
        return 1.0
    mixed = tokens.astype(np.uint64) + np.uint64(1)  # splitmix64's finaliser, then a polynomial
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    windows = len(tokens) - n + 1
    total = np.zeros(windows, np.uint64)
    for offset in range(n):
        total = total * np.uint64(0x9E3779B97F4A7C15) + mixed[offset : offset + windows]
    return len(np.unique(total)) / windows


def _sync(path: Path) -> None:
    """Has a file's contents, or a folder's names, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
