"""Text that a person gives: what a tokenizer lacks is named, never turned into another sign."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from dlm import config
from dlm.cli import main
from dlm.data import tokenizers
from dlm.errors import DlmError
from dlm.evaluation import prompts, sampling
from dlm.sweep import worker
from dlm.training import run

CHARS = tokenizers.make(config.Tokenizer(kind="chars"), lambda: ["The naive\n cafe"])
BYTES = tokenizers.make(config.Tokenizer(kind="bytes"), lambda: [])


def store(tokenizer: Any = CHARS) -> Any:
    manifest = types.SimpleNamespace(name="prose")
    sizes = dict(train_tokens=6400, validation_tokens=6400, vocab_size=9, document_length=0)
    return types.SimpleNamespace(tokenizer=tokenizer, manifest=manifest, vocab_size=9, sizes=sizes)


def word_pieces() -> tokenizers.Tokenizer:
    """Lower case without accents, as BERT's, with an unknown token: it knows a to z alone."""
    library = pytest.importorskip("tokenizers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["[UNK]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    pieces = {name: i for i, name in enumerate(names)}
    made = library.Tokenizer(library.models.WordPiece(pieces, unk_token="[UNK]"))
    made.normalizer = library.normalizers.BertNormalizer()
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.WordPiece()
    return tokenizers._hugging_face("hf", {"tokenizer.json": made.to_str().encode()})


@pytest.mark.parametrize(
    "tokenizer, text, lost",
    [
        (CHARS, "The naive\n", []),
        (CHARS, "naïve\tnaïve", ["ï", "\t"]),
        (CHARS, "nai\u0308ve", ["\u0308"]),  # the same word, with an accent of its own
        (BYTES, "naïve 漢\0", []),
        (BYTES, "a\udcff", ["\udcff"]),  # a byte of the shell that is no UTF-8
        ("word pieces", "Naïve THE  nai\u0308ve", []),  # which it writes otherwise, and knows
        ("word pieces", "the ?漢", ["?", "漢"]),
    ],
)
def test_what_a_tokenizer_cannot_spell(tokenizer, text, lost) -> None:
    made = word_pieces() if tokenizer == "word pieces" else tokenizer
    assert prompts.unspelt(made.encode, made.decode, text) == lost


def test_ids_are_those_of_the_tokenizer_and_masks_are_free() -> None:
    ids = prompts.encode("prompt", "The", store())
    assert CHARS.decode(ids) == "The" and prompts.encode("prompt", "", store()).size == 0
    filled = prompts.infill("infill", "T[MASK*2]e[MASK]", store(), 16)
    assert filled.tolist() == [ids[0], -1, -1, ids[2], -1]
    assert (prompts.infill("infill", "[MASK*9999999999]", store(), 16) == -1).sum() == 17
    given = prompts.infill("infill", "5 [MASK*2] 7", store(None), 16)
    assert given.tolist() == [5, -1, -1, 7] and given.dtype == np.int32


@pytest.mark.parametrize("text", ["T[mask]", "T[MASK*x]", "T[MASK*]", "T[Mask*2]"])
def test_what_is_nearly_a_mask_is_no_text(text) -> None:
    with pytest.raises(DlmError, match=r"infill: \S+ must be \[MASK\], or \[MASK\*N\] for N tok"):
        prompts.infill("infill", text, store(BYTES), 16)


@pytest.mark.parametrize(
    "words, told",
    [
        (
            ("--prompt", "naïve"),
            "--prompt='naïve': the chars tokenizer of prose has no 'ï' (U+00EF)",
        ),
        (("--infill", "n[MASK]ïv€"), "has no 'ï' (U+00EF), '€' (U+20AC); leave it out"),
    ],
)
def test_sample_refuses_what_the_tokenizer_lacks(
    words, told, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setattr(worker, "prepare_jax", lambda: None)
    monkeypatch.setattr(run, "restore_best", lambda *_: (config.Config(), store(), None))
    monkeypatch.setattr(sampling, "sample", lambda *_, **__: pytest.fail("samples"))
    (tmp_path / "exp/0123").mkdir(parents=True)
    (tmp_path / "exp/0123/run.json").write_text("{}")
    assert main.main(["sample", "0123", "--workdir", str(tmp_path), *words]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
