"""The certified number: a loss in nats per token, its standard errors, and its kind.

An objective's number is its negative log-likelihood (exact), or encloses it (upper bound, lower
bound). The kinds decide what a comparison may conclude: one model is proven better if what its
likelihood cannot exceed lies below what the other's cannot fall below. NumPy only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

KINDS = ("exact", "upper bound", "lower bound")
ABOVE, BELOW = (
    ("exact", "upper bound"),
    ("exact", "lower bound"),
)  # never below, never above the NLL
DECIDED = 2.0  # standard errors by which a difference must clear zero before it is called one


class Estimate(NamedTuple):
    """Negative log-likelihood in nats per token; errors are NaN if they are not known."""

    value: float
    stderr: float  # over documents; Monte Carlo noise is in it
    kind: str  # one of KINDS
    tokens: int  # that the value is a mean over
    mc_stderr: float = 0.0  # of Monte Carlo noise alone, on these documents; 0: nothing is drawn
    sampler: str = ""  # whose likelihood it is, or bounds


OWN_SAMPLERS = ("", "left to right", "random order")  # those that define a model's likelihood


def of_model(estimate: Estimate) -> Estimate | None:
    """What a number says of the model, whatever samples from it: a sampler along a path, or one that
    reveals several tokens a call, may be worse than others, so its exact value is an upper bound and
    its lower bound says nothing (None)."""
    if estimate.sampler in OWN_SAMPLERS:
        return estimate
    return None if estimate.kind == "lower bound" else estimate._replace(kind="upper bound")


class Comparison(NamedTuple):
    """`difference` is a - b in nats per token: below zero, the first is lower."""

    difference: float
    stderr: float
    proven: str  # "first", "second" or "": the model shown to be better on this data, if any
    conclusion: str

    @property
    def clear(self) -> bool:
        """Whether the difference clears zero by DECIDED standard errors; if not known, by any."""
        margin = DECIDED * self.stderr if math.isfinite(self.stderr) else 0.0
        return abs(self.difference) > margin


def standard_error(values: np.ndarray, documents: np.ndarray | None = None) -> float:
    """Standard error of the mean of `values` [n], one a window, over documents, int [n].

    Windows of one document are not independent, so their residuals are added up before they are
    squared (the cluster-robust variance of a mean). Without documents, or with a single one, there is
    only the spread of the windows.
    """
    cluster = np.arange(len(values))
    if documents is not None and len(np.unique(documents)) > 1:
        cluster = np.unique(documents, return_inverse=True)[1]
    sums = np.bincount(cluster, weights=values - values.mean())
    return math.sqrt(sums @ sums * len(sums) / max(len(sums) - 1, 1)) / len(values)


def compare(
    a: Estimate,
    b: Estimate,
    stderr_of_difference: float | None = None,
    names: tuple[str, str] = ("the first", "the second"),
) -> Comparison:
    """What two estimates on the same data allow one to conclude.

    `stderr_of_difference` replaces the two standard errors added in quadrature: of paired estimates
    (same windows, common random numbers) it is much smaller. A difference counts from two standard
    errors; where the standard error is not known (NaN), the values are taken as they are.

    Raises:
      ValueError: a kind that is none of KINDS.
    """
    for estimate in (a, b):
        if estimate.kind not in KINDS:
            raise ValueError(f"kind={estimate.kind!r}: must be one of {', '.join(KINDS)}")
    stderr = (
        math.hypot(a.stderr, b.stderr) if stderr_of_difference is None else stderr_of_difference
    )
    difference = a.value - b.value
    margin = DECIDED * stderr if math.isfinite(stderr) else 0.0
    lower, higher = (a, b) if difference < 0 else (b, a)
    low, high = names if difference < 0 else names[::-1]
    by = f"{abs(difference):.4f} nats per token"
    if not abs(difference) > margin:
        words = f"not decided: the difference, {by}, is within {DECIDED:g} standard errors of zero"
        return Comparison(difference, stderr, "", words)
    kinds = {"exact": "exact value"}
    lower_is, higher_is = (kinds.get(x.kind, x.kind) for x in (lower, higher))
    if lower.kind in ABOVE and higher.kind in BELOW:
        least = "" if lower.kind == higher.kind else "at least "
        text = f"{low} is better on this data, by {least}{by}: its {lower_is} lies below the "
        text += f"{higher_is} of {high}"
        return Comparison(difference, stderr, "first" if difference < 0 else "second", text)
    text = (
        f"not decided: the {higher_is} of {high} lies above the {lower_is} of {low} by {by}, which "
    )
    text += f"proves nothing: the likelihood of {high} may still be the better one"
    return Comparison(difference, stderr, "", text)
