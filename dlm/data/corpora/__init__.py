"""Where token sequences come from: one function each, listed in CORPORA.

A corpus is a function whose keyword arguments are its options (`config.corpus.options`) and that
returns a `Source`. The annotation of each says what values it takes (`dlm.config.fields`), which
`dlm.data.build.options` checks. To add one, write the function and list it here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlm.data.corpora import digits, files, hub, ids, known, stdlib, topics
from dlm.data.corpora.source import NoText, Source

CORPORA: dict[str, Callable[..., Source]] = {
    "stdlib": stdlib.stdlib,
    "digits": digits.digits,
    "topics": topics.topics,
    "files": files.files,
    "hub": hub.hub,
    "ids": ids.ids,
    "markov": known.markov,
    "hmm": known.hmm,
    "pcfg": known.pcfg,
    "copies": known.copies,
    "parity": known.parity,
    "s5": known.s5,
    "addition": known.addition,
}

# How sequences of a corpus of integers are shown; the others as numbers.
SHOW: dict[str, Callable[[np.ndarray], str]] = {"digits": digits.draw}
