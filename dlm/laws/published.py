"""Fits in print, to compare with. A table whose `source` column begins with a key is of that fit."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    title: str
    source: str
    law: str
    constants: dict[str, float]  # step one, on runs that the table does not hold
    coefficients: dict[str, float]  # step two, as printed


PUBLISHED = {
    "datablations_c4": Published(
        "Muennighoff et al. 2023, C4",
        "arXiv 2305.16264, equation 5; constants to full precision in utils/parametric_fit.ipynb of "
        "huggingface/datablations",
        "data-constrained",
        {
            "E": math.exp(0.6254804),
            "A": math.exp(6.255414),
            "B": math.exp(7.3049974),
            "alpha": 0.3526596,
            "beta": 0.3526596,
        },
        {"R_D": 15.387756, "R_N": 5.309743},
    )
}


def of(source: str) -> Published | None:
    """The published fit of a table's source, if any."""
    return next((p for key, p in PUBLISHED.items() if source.startswith(key)), None)
