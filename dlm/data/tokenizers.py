"""Text to ids and back. A tokenizer is a few files and two functions; it is saved with its tokens.

The vocabulary of each holds one id for the end of a document, `eod`; text never encodes to it,
except in a given tokenizer.json that reads its own special tokens in text.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlm import config
from dlm.data import tokenizer_files
from dlm.errors import DlmError, reason

END = "<|endoftext|>"  # how the end of a document is shown
SIZES = {"bytes": 257, "gpt2": 50_257}  # vocabularies that no corpus changes, with eod
UNKNOWN = "\ufffd"  # how an unknown character, or an id beyond the vocabulary, is shown
BPE_BYTES = 100_000_000  # of training text that BPE learns its merges from
BPE_LINE = 4000  # bytes; SentencePiece leaves out longer lines
ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")  # of given tokenizers
BLANK = "\u2581"  # SentencePiece's own sign for a space
RESERVED = "[\n\u2581\u2585]"  # the last is its own sign for an unknown character


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """`files` are all of its state: by them it is saved, loaded and fingerprinted."""

    kind: str
    vocab_size: int  # with eod
    eod: int
    files: dict[str, bytes]
    encode: Callable[[str], np.ndarray] = field(repr=False)  # int32[tokens], without eod
    words: Callable[[list[int]], str] = field(repr=False)  # text of ids that are not special
    # `encode` of many texts, on all cores, where the library has it
    many: Callable[[list[str]], list[np.ndarray]] | None = field(repr=False, default=None)

    @property
    def fingerprint(self) -> str:
        """sha256 of the kind and the files."""
        digest = hashlib.sha256(self.kind.encode())
        for name, content in sorted(self.files.items()):
            digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """The same ids as of `encode` on each."""
        return self.many(texts) if self.many else [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Text of ids; eod as END, ids outside the vocabulary (MASK, BOS) as UNKNOWN."""
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        special = (array == self.eod) | (array < 0) | (array >= self.vocab_size)
        pieces, start = [], 0
        for stop in [*np.flatnonzero(special).tolist(), len(array)]:
            pieces.append(self.words(array[start:stop].tolist()) if stop > start else "")
            if stop < len(array):
                pieces.append(END if array[stop] == self.eod else UNKNOWN)
            start = stop + 1
        return "".join(pieces)

    def save(self, folder: Path) -> None:
        """Writes the files and kind.json into an existing folder."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        meta = {"kind": self.kind, "files": sorted(self.files)}
        (folder / "kind.json").write_text(json.dumps(meta) + "\n")


def load(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote.

    Raises:
      DlmError: a file is missing or broken, or a package that the kind needs is not installed.
    """
    try:
        meta = json.loads((folder / "kind.json").read_text())
        return _build(meta["kind"], {name: (folder / name).read_bytes() for name in meta["files"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DlmError):
            raise
        raise DlmError(
            f"{folder}: not a saved tokenizer ({type(error).__name__}: {reason(error)}); delete the "
            "folder that holds it and it is built again"
        ) from error


def make(tokenizer: config.Tokenizer, texts: Callable[[], Iterable[str]]) -> Tokenizer:
    """The tokenizer of a config; `texts()` are the training documents, for those that learn.

    Raises:
      DlmError: a vocabulary size that the texts cannot give, a missing or broken file, a missing
        package; names the field.
    """
    if tokenizer.kind == "chars":
        alphabet: set[str] = set()
        for text in texts():
            alphabet.update(text)
        return _build("chars", {"chars.json": json.dumps(sorted(alphabet)).encode()})
    if tokenizer.kind == "bytes":
        return _build("bytes", {})
    if tokenizer.kind == "bpe":
        return _build("bpe", {"bpe.model": _train(tokenizer.vocab_size, texts())})
    try:
        return _build(tokenizer.kind, tokenizer_files.given(tokenizer))
    except DlmError:
        raise
    except Exception as error:  # the libraries raise bare exceptions for a broken file
        raise DlmError(
            f"config.tokenizer.path={tokenizer.path!r}: not a tokenizer of kind "
            f"{tokenizer.kind}: {reason(error)}"
        ) from error


def _build(kind: str, files: dict[str, bytes]) -> Tokenizer:
    builders = {
        "chars": _chars,
        "bytes": _bytes,
        "bpe": _sentencepiece,
        "sentencepiece": _sentencepiece,
        "hf": _hugging_face,
        "gpt2": _gpt2,
    }
    if kind not in builders:
        raise DlmError(f"tokenizer kind {kind!r}: must be one of {', '.join(builders)}")
    return builders[kind](kind, files)


def _chars(kind: str, files: dict[str, bytes]) -> Tokenizer:
    """Characters by code point, then unknown, then eod."""
    alphabet: list[str] = json.loads(files["chars.json"])
    unknown = len(alphabet)
    points = np.array([ord(c) for c in alphabet], np.int64)
    table = np.full(int(points.max(initial=0)) + 2, unknown, np.int32)  # the last: all beyond
    table[points] = np.arange(unknown, dtype=np.int32)

    def encode(text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return table[np.minimum(codes, len(table) - 1)]

    symbols = [*alphabet, UNKNOWN]
    return Tokenizer(
        kind,
        vocab_size=unknown + 2,
        eod=unknown + 1,
        files=files,
        encode=encode,
        words=lambda ids: "".join(symbols[i] for i in ids),
    )


def _bytes(kind: str, files: dict[str, bytes]) -> Tokenizer:
    return Tokenizer(
        kind,
        vocab_size=SIZES["bytes"],
        eod=256,
        files=files,
        encode=lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.int32),
        words=lambda ids: bytes(ids).decode("utf-8", "replace"),
    )


def _train(vocab_size: int, texts: Iterable[str]) -> bytes:
    """A SentencePiece BPE model without normalisation, with a piece for every byte.

    One thread and no sampling, so the same texts give the same model.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(  # pyright: ignore (no stubs)
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.9995,  # rarer characters are spelled in bytes
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise DlmError(f"config.tokenizer.vocab_size={vocab_size}: {_why(error)}") from error
    return model.getvalue()


def _why(error: Exception) -> str:
    """The sizes that would do, from SentencePiece's own count, which it words as below."""
    words = str(error)
    if least := re.search(r"smaller than required_chars. \d+ vs (\d+)", words):
        return f"must be {least[1]} or above, for 256 bytes, 2 signs and the characters of the text"
    if most := re.search(r"value <= (\d+)", words):
        return f"must be at most {most[1]}: the text has no more pairs to merge"
    if "sentences_.empty()" in words:
        return "the training text has no characters to learn from; kind=bytes needs none"
    return words.rsplit("] ", 1)[-1].strip() or f"SentencePiece fails: {words.strip()}"


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines of at most BPE_LINE bytes; a line break is a byte piece and joins no other.

    Lines end at RESERVED characters too: SentencePiece leaves out whole lines that hold one, or takes
    it for a space. They are spelled in bytes.
    """
    left = BPE_BYTES
    for text in texts:
        for line in re.split(RESERVED, text):
            step = BPE_LINE if line.isascii() else BPE_LINE // 4
            for start in range(0, len(line), step):
                yield line[start : start + step]
        left -= len(text)
        if left < 0:
            return


def _sentencepiece(kind: str, files: dict[str, bytes]) -> Tokenizer:
    import sentencepiece

    (model,) = files.values()
    if not model:  # the library would take it, and fail in its first use
        raise ValueError("the file is empty")
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)  # pyright: ignore (no stubs)
    size, eod = processor.vocab_size(), processor.eos_id()
    spelled = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in BLANK.encode()]
    bytewise = all(i != processor.unk_id() for i in spelled)

    def encode(text: str) -> np.ndarray:
        if BLANK not in text or not bytewise:
            return np.array(processor.encode(text), np.int32)
        ids: list[int] = []  # the sign for a space, in text, would come back as a space
        for number, part in enumerate(text.split(BLANK)):
            ids += [*(spelled if number else []), *processor.encode(part)]
        return np.array(ids, np.int32)

    return Tokenizer(
        kind,
        vocab_size=size if eod >= 0 else size + 1,
        eod=eod if eod >= 0 else size,
        files=files,
        encode=encode,
        words=processor.decode,
    )


def _hugging_face(kind: str, files: dict[str, bytes]) -> Tokenizer:
    tokenizer = _library(kind).Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_truncation()  # a document is encoded whole, and as the same ids each time
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise DlmError("config.tokenizer.path: the tokenizer.json has an empty vocabulary")
    size = max(vocabulary.values()) + 1
    end = next((vocabulary[name] for name in ENDS if name in vocabulary), size)
    return _from_library(kind, files, tokenizer, max(size, end + 1), end)


def _gpt2(kind: str, files: dict[str, bytes]) -> Tokenizer:
    library = _library(kind)
    vocabulary = json.loads(files["vocab.json"])
    lines = [m for m in files["merges.txt"].decode().split("\n") if m and m[:8] != "#version"]
    merges = [tuple(line.split()) for line in lines]
    tokenizer = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    if END not in vocabulary:
        raise DlmError(f"tokenizer.kind={kind}: the vocabulary has no {END}")
    size = max(vocabulary.values()) + 1
    return _from_library(kind, files, tokenizer, size, vocabulary[END])


def _from_library(
    kind: str, files: dict[str, bytes], tokenizer: Any, size: int, eod: int
) -> Tokenizer:
    def many(texts: list[str]) -> list[np.ndarray]:
        try:
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises bare exceptions
            raise DlmError(
                f"config.tokenizer.kind={kind!r}: the tokenizer cannot encode a text "
                f"({reason(error)}); if its model knows no token for unknown characters, give it one "
                "(unk_id, unk_token) or byte_fallback"
            ) from error
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    return Tokenizer(
        kind,
        vocab_size=size,
        eod=eod,
        files=files,
        encode=lambda text: many([text])[0],
        words=lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        many=many,
    )


def _library(kind: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DlmError(
            f"config.tokenizer.kind={kind!r}: needs the package tokenizers: pip install 'dlm[hf]'"
        ) from error
    return tokenizers
