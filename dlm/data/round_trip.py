"""What a tokenizer loses: a sample of text is encoded and decoded again.

A model gives its likelihood to ids. If other texts have the same ids, that is no likelihood of the
text, and bits per byte would be too low.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlm.data.tokenizers import Tokenizer

SAMPLE = 1 << 22  # bytes of text, about
LONGEST = 1 << 20  # characters of one text
SHOWN = 8  # characters that are lost, named in the manifest


@dataclass(frozen=True)
class RoundTrip:
    """`lost` is the share of characters that do not come back, whatever their place."""

    texts: int  # in the sample
    altered: int  # of these: come back as another text
    lost: float
    characters: str = ""  # the most frequent that are lost

    @property
    def words(self) -> str:
        """ "2% of their characters are lost, such as é ß"."""
        signs = [sign if sign.isprintable() else repr(sign) for sign in self.characters]
        examples = f", such as {' '.join(signs)}" if signs else ""
        return f"{100 * self.lost:.3g}% of their characters are lost{examples}"


def measure(tokenizer: Tokenizer, sizes: np.ndarray, text: Callable[[int], str]) -> RoundTrip:
    """The round trip of n texts of these sizes in bytes, or of a sample of them if they are many."""
    step = max(1, int(sizes.sum()) // SAMPLE)
    altered = total = 0
    lost: Counter[str] = Counter()
    chosen = range(0, len(sizes), step)
    for i in chosen:
        original = text(i)[:LONGEST]
        back = tokenizer.decode(tokenizer.encode(original))
        total += len(original)
        if back != original:
            altered += 1
            lost += Counter(original) - Counter(back)
    shown = "".join(character for character, _ in lost.most_common(SHOWN))
    return RoundTrip(len(chosen), altered, sum(lost.values()) / max(total, 1), shown)
