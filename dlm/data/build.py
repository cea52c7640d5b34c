"""From a corpus to its token store: split by content, tokenised once, reused ever after."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from dlm import config, disk, sealed
from dlm.config.fields import validated
from dlm.data import resumable_log, round_trip, split, tokenizer_files, tokenizers
from dlm.data import store as stores
from dlm.data.corpora import CORPORA, Source
from dlm.data.store import FORMAT, Manifest, Split, Store, load, token_dtype
from dlm.errors import DlmError, fail, nearest, reason

NGRAM = 13
NGRAM_TOKENS = 10_000_000  # of the training split, in which n-grams are counted


def options(corpus: config.Corpus) -> dict[str, Any]:
    """The options of a corpus, complete and checked against their annotations. Reads nothing.

    Raises:
      DlmError: no such corpus or option (names the nearest), an option without default unset, or a
        value that its annotation does not take.
    """
    if corpus.name not in CORPORA:
        right = f"one of {', '.join(CORPORA)}{nearest(corpus.name, CORPORA)}"
        fail("corpus.name", corpus.name, right)
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
    record = _record(CORPORA[corpus.name])
    return vars(validated(record, corpus.options, "corpus.options"))


@functools.cache
def _record(corpus: Callable[..., Source]) -> type:
    """The options of a corpus as a dataclass: the parameters of its function."""
    hints = get_type_hints(corpus, include_extras=True)
    fields = []
    for name, parameter in inspect.signature(corpus).parameters.items():
        default = () if parameter.default is parameter.empty else (parameter.default,)
        fields.append((name, hints.get(name, Any), *default))
    return make_dataclass("Options", fields, kw_only=True)


def to_fetch(corpus: config.Corpus, tokenizer: config.Tokenizer, folder: Path) -> bool:
    """Whether a corpus comes from the Hub and has no store below `folder`. Asks no network."""
    if corpus.name != "hub":
        return False
    wanted = json.loads(json.dumps(options(corpus), default=str)), tokenizer.kind
    for path in folder.glob(f"{corpus.name}-*"):
        with contextlib.suppress(DlmError):  # damaged, or of another version: it is built again
            manifest = stores.manifest(path)
            if wanted == (manifest.options, manifest.tokenizer):
                return False
    return True


def build(corpus: config.Corpus, tokenizer: config.Tokenizer, folder: Path) -> Store:
    """The store of a corpus, below `folder`: opened if it is there, else built first.

    Any number of processes may call this at once: one builds, the others wait and open. A build that
    was interrupted starts again, or goes on to the same bits where the source has places (`Source`).

    Raises:
      DlmError: an unknown corpus or option, bad input, a store that is there but broken, or a
        folder that cannot be written.
    """
    import filelock

    filled = options(corpus)
    source = CORPORA[corpus.name](**filled)
    text = source.vocab_size is None
    identity = {
        "format": FORMAT,
        "name": corpus.name,
        "options": filled,
        "validation": corpus.validation_fraction if source.validation is None else None,
        "state": source.state,
        "kind": tokenizer.kind if text else None,
        "vocab_size": tokenizer.vocab_size if text and tokenizer.kind == "bpe" else None,
        "files": tokenizer_files.digests(tokenizer) if text else {},
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
            f"{folder}: the token store cannot be written: {reason(error)}; free space "
            "there or choose another folder with --workdir"
        ) from error


# --- building -----------------------------------------------------------------------------------


def _build(
    corpus: config.Corpus,
    filled: dict[str, Any],
    tokenizer: config.Tokenizer,
    source: Source,
    path: Path,
) -> None:
    """Works in a hidden folder beside `path`. The caller holds the lock."""
    partial = path.with_name(f".{path.name}.partial")
    kept = hasattr(source.documents, "place")
    if not kept:
        shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    try:
        partial.mkdir(exist_ok=True)
        store = partial / "store"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        manifest = _fill(corpus, filled, tokenizer, source, partial, store)
        files = [file for file in sorted(store.rglob("*")) if file.is_file()]
        names = [file.relative_to(store).as_posix() for file in files]
        sealed.write(store / "manifest.json", asdict(manifest), names)
        for file in [*store.rglob("*"), store]:
            disk.sync(file)
        store.rename(path)
        disk.sync(path.parent)
        kept = False
    finally:
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)


def _fill(
    corpus: config.Corpus,
    filled: dict[str, Any],
    tokenizer: config.Tokenizer,
    source: Source,
    partial: Path,
    store: Path,
) -> Manifest:
    """Everything of the store but the manifest, which it returns; its logs are in `partial`."""
    documents, streams = resumable_log.documents(source, partial / "documents")
    with open(partial / "documents" / "data", "rb") as file:

        def read(start: int, size: int) -> bytes:
            return os.pread(file.fileno(), size, start)

        sides = _split(documents, source, corpus, read)
        train, validation, pieces = sides.train, sides.validation, sides.pieces
        sizes = pieces["size"]

        def content(i: int) -> bytes:
            return read(pieces["start"][i], sizes[i])

        made, losses = None, [None, None]
        if source.vocab_size is None:
            made = tokenizers.make(tokenizer, lambda: (content(i).decode() for i in train))
            (store / "tokenizer").mkdir()
            made.save(store / "tokenizer")
            losses = [
                round_trip.measure(
                    made, sizes[part], lambda k, part=part: content(part[k]).decode()
                )
                for part in (train, validation)
            ]
        vocab_size = made.vocab_size if made else source.vocab_size
        assert vocab_size is not None
        fingerprint = made.fingerprint if made else None
        dtype, log = token_dtype(vocab_size), partial / f"tokens-{(fingerprint or 'ids')[:12]}"
        lengths = _tokenise(content, sizes, np.concatenate([train, validation]), made, dtype, log)
    tokens = log / "data"
    table = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(store / "offsets.npy", table)
    total = int(table[len(train)])
    with open(tokens, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(table.tobytes())
    digest.update(json.dumps([len(train), vocab_size, fingerprint]).encode())
    contents = [split.present(sides.contents[part], len(pieces)) for part in (train, validation)]
    counts = [
        Split(
            documents=len(part),
            tokens=part_tokens,
            bytes=int(sizes[part].sum()) if made else None,
            unique_documents=int(distinct.sum()),
            round_trip=loss,
        )
        for part, part_tokens, distinct, loss in zip(
            (train, validation), (total, int(table[-1]) - total), contents, losses, strict=True
        )
    ]
    ngrams = unique_ngrams(np.memmap(tokens, dtype, "r", shape=(min(total, NGRAM_TOKENS),)))
    tokens.replace(store / "tokens.bin")
    one_length = not (made or sides.cut or (lengths != lengths[0]).any())
    return Manifest(
        format=FORMAT,
        name=corpus.name,
        options=filled,
        validation_share=corpus.validation_fraction if source.validation is None else None,
        fingerprint=digest.hexdigest(),
        vocab_size=vocab_size,
        eod=made.eod if made else None,
        tokenizer=made.kind if made else None,
        tokenizer_fingerprint=fingerprint,
        python=platform.python_version(),
        document_length=int(lengths[0]) if one_length else None,
        entropy=source.entropy,
        unique_ngrams=ngrams,
        train=counts[0],
        validation=counts[1],
        both_sides=int((contents[0] & contents[1]).sum()),
        source_documents=len(documents),
        distinct_documents=sides.distinct,
        passage_bytes=sides.passage_bytes,
        cut_documents=sides.cut,
        without_text=sum(stream["without_text"] for stream in streams),
        first_without_text=next((s["first"] for s in streams if s["first"]), ""),
        places=[s["place"] for s in streams] if hasattr(source.documents, "place") else None,
    )


def _split(
    documents: np.ndarray,
    source: Source,
    corpus: config.Corpus,
    read: Callable[[int, int], bytes],
) -> split.Sides:
    if source.validation is None:
        share, text = corpus.validation_fraction, source.vocab_size is None
        sides = split.by_content(documents, share)
        return sides or split.by_passages(documents, share, read, text)
    sides = split.by_source(documents)
    for part, side in ((sides.train, "training"), (sides.validation, "validation")):
        if not sides.pieces["size"][part].any():
            raise DlmError(f"config.corpus.name={corpus.name!r}: its {side} split holds no text")
    return sides


def _tokenise(
    content: Callable[[int], bytes],
    sizes: np.ndarray,
    order: np.ndarray,
    tokenizer: tokenizers.Tokenizer | None,
    dtype: np.dtype,
    log: Path,
) -> np.ndarray:
    """How many tokens each document in `order` has, int64; the tokens are in log/data.

    Blocks that an interrupted call finished are kept. They depend on nothing but the documents.
    """
    resumable_log.recover(log)
    todo = order[(log / "rows").stat().st_size // 8 :]
    block = np.cumsum(sizes[todo]) // resumable_log.BLOCK
    for part in np.split(todo, np.flatnonzero(np.diff(block)) + 1):
        raws = [content(i) for i in part]
        if tokenizer is None:
            documents = [np.frombuffer(raw, np.int32) for raw in raws]
        else:
            texts = tokenizer.encode_batch([raw.decode() for raw in raws])
            documents = [np.append(ids, tokenizer.eod) for ids in texts]
        data = b"".join(ids.astype(dtype).tobytes() for ids in documents)
        resumable_log.append(
            log, data, np.array([len(ids) for ids in documents], np.int64).tobytes()
        )
    return np.fromfile(log / "rows", np.int64)


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
