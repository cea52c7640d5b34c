"""Handwritten digits, 8 by 8 pixels of 17 grey levels: scikit-learn's copy of the UCI test set.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlm.data.corpora.source import Source

LEVELS = 17
SIDE = 8
SHADES = " .:-=+*#%@"


def digits() -> Source:
    """1,797 images of 64 tokens, row by row from the top left; whole images are held out."""
    return Source(documents=_documents(), vocab_size=LEVELS)


def _documents() -> Iterator[tuple[str, np.ndarray]]:
    from sklearn.datasets import load_digits

    data = load_digits().data  # pyright: ignore (a Bunch, or a tuple by option)
    for number, image in enumerate(data.astype(np.int64)):
        yield f"digit-{number:04d}", image


def draw(ids: np.ndarray) -> str:
    """Pixels as rows of characters, dark ink as dense ones; a level beyond white..black as "?"."""
    shades = [SHADES[level * len(SHADES) // LEVELS] for level in range(LEVELS)]
    text = "".join(shades[i] if 0 <= i < LEVELS else "?" for i in np.asarray(ids).tolist())
    return "\n".join(text[start : start + SIDE] for start in range(0, len(text), SIDE))
