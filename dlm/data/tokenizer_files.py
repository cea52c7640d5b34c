"""The files of a tokenizer that is given: from a path, or GPT-2's own from the Hugging Face Hub."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from dlm import config, inputs
from dlm.errors import DlmError, fail, reason

LARGEST = 1024 * inputs.MIB  # bytes of a tokenizer's file
# Names that the files of a GPT-2 folder go by; each also with .gz.
VOCAB = ("vocab.json", "encoder.json", "gpt2-vocab.json")
MERGES = ("merges.txt", "vocab.bpe", "gpt2-merges.txt")
GPT2 = "openai-community/gpt2"
GPT2_FILES = {  # their sha256, the same as of encoder.json and vocab.bpe of OpenAI's release
    "vocab.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "merges.txt": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def digests(tokenizer: config.Tokenizer) -> dict[str, str]:
    """The sha256 of each file of `given`. Fetches nothing.

    Raises:
      DlmError: as `given`.
    """
    if tokenizer.kind == "gpt2" and not tokenizer.path:
        return dict(GPT2_FILES)
    return {name: _digest(content) for name, content in given(tokenizer).items()}


def given(tokenizer: config.Tokenizer) -> dict[str, bytes]:
    """The contents of the files that `tokenizer.path` names, or of GPT-2's without a path (fetched
    once, and cached where huggingface_hub caches); none for kinds that need none.

    Raises:
      DlmError: a file is missing, unreadable or cannot be fetched.
    """
    path = Path(os.path.expanduser(tokenizer.path))  # pathlib's raises for a user that is not there
    if tokenizer.kind in ("chars", "bytes", "bpe"):
        return {}
    if tokenizer.kind == "sentencepiece":
        return {"given.model": _read(path, "a SentencePiece .model file")}
    if tokenizer.kind == "hf":
        return {"tokenizer.json": _read(path, "a Hugging Face tokenizer.json")}
    if not tokenizer.path:
        return {name: _fetch(name, digest) for name, digest in GPT2_FILES.items()}
    contents = {}
    for saved, names in (("vocab.json", VOCAB), ("merges.txt", MERGES)):
        files = [path / (name + end) for name in names for end in ("", ".gz")]
        file = next((f for f in files if not inputs.unreadable(f)), None)
        if file is None:
            raise DlmError(
                f"config.tokenizer.path={tokenizer.path!r}: must be a folder with "
                f"{' or '.join(VOCAB)} and {' or '.join(MERGES)} (or .gz); found no "
                f"{' or '.join(names)}"
            )
        contents[saved] = _read(file, "a GPT-2 file")
    return contents


def _read(path: Path, what: str) -> bytes:
    try:
        content = inputs.read_bytes(path, LARGEST)
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        fail("tokenizer.path", str(path), f"{what}: {reason(error)}")


def _fetch(name: str, digest: str) -> bytes:
    try:
        import huggingface_hub

        content = Path(huggingface_hub.hf_hub_download(GPT2, name)).read_bytes()
    except ImportError as error:
        raise DlmError(
            "config.tokenizer.kind='gpt2': without a path, needs the package huggingface_hub: "
            "pip install 'dlm[hf]'"
        ) from error
    except Exception as error:  # of the network, in the library's many classes
        raise DlmError(
            f"config.tokenizer.path='': {name} of {GPT2} cannot be fetched "
            f"({reason(error)}); without a network give a folder with vocab.json and "
            "merges.txt"
        ) from error
    if _digest(content) != digest:
        raise DlmError(
            f"config.tokenizer.path='': {name} of {GPT2} is not the GPT-2 file of sha256 "
            f"{digest[:12]}...; give a folder with vocab.json and merges.txt"
        )
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
