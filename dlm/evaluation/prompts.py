"""Turns the text that a person gives, to be continued or filled in, into ids that the model knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import numpy as np

from dlm.data.store import Store
from dlm.errors import ArgumentError

MASK = re.compile(r"(\[MASK(?:\*[1-9]\d{0,9})?\])")
ALMOST = re.compile(r"\[mask(\*[^\]]*)?\]", re.IGNORECASE)


def encode(name: str, text: str, store: Store) -> np.ndarray:
    """int32[tokens] of the text of an argument; of a corpus of integers, the ids that it lists.

    Raises:
      DlmError: the tokenizer lacks some of the characters, or the text lists no ids.
    """
    if store.tokenizer is not None:
        if lost := unspelt(store.tokenizer.encode, store.tokenizer.decode, text):
            named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in lost)
            raise ArgumentError(
                name,
                f"={text!r}: the {store.tokenizer.kind} tokenizer of {store.manifest.name} "
                f"has no {named}; leave it out or put another character there",
            )
        return store.tokenizer.encode(text)
    try:
        return np.array([int(word) for word in text.split()], np.int32)
    except OverflowError:
        raise ArgumentError(name, f": ids must be 0 to {store.vocab_size - 1}") from None
    except ValueError:
        raise ArgumentError(
            name,
            f"={text!r}: {store.manifest.name} is no text; give ids, such as '0 3 12'",
        ) from None


def infill(name: str, text: str, store: Store, length: int) -> np.ndarray:
    """int32[tokens], -1 for each [MASK]; "[MASK*3]" is three, and beyond `length` all are one too many.

    Raises:
      DlmError: as `encode`, or a word that is nearly [MASK].
    """
    ids: list[int] = []
    for part in MASK.split(text):
        if MASK.fullmatch(part):
            ids += [-1] * min(int(part[6:-1] or 1), length + 1)
        elif wrong := ALMOST.search(part):
            must = "must be [MASK], or [MASK*N] for N tokens, 1 or more"
            raise ArgumentError(name, f": {wrong[0]} {must}")
        elif part:
            ids += list(encode(name, part, store))
    return np.array(ids, np.int32)


def unspelt(
    to_ids: Callable[[str], np.ndarray], to_text: Callable[[np.ndarray], str], text: str
) -> list[str]:
    """The characters of a text that a tokenizer cannot spell: alone, they come back as another.

    A tokenizer may put a letter in lower case, take its accent off, or drop a space: that is not lost.
    """
    torn = [c for c in text if "\ud800" <= c <= "\udfff"]  # bytes that were not UTF-8
    if torn or to_text(to_ids(text)) == text:
        return list(dict.fromkeys(torn))
    return [c for c in dict.fromkeys(text) if _folded(to_text(to_ids(c))) != _folded(c)]


def _folded(text: str) -> str:
    """Without case, accents and spaces around."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c)).strip()
