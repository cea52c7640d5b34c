"""Checks the units of columns: raw counts, FLOPs, nats per token."""

from __future__ import annotations

import math

import numpy as np

from dlm.errors import DlmError

# Largest values of a column below which it cannot be raw counts of a study.
SMALLEST = {"params": 1e4, "tokens": 1e3, "unique_tokens": 1e3}
MIXED = 1e7  # the largest ratio within one column of counts that is taken as one unit
GAP = 1e3  # the largest ratio between neighbours in a column,
BELOW = {"params": 1e4, "tokens": 1e6, "unique_tokens": 1e6}  # if the lower of them is below these
TOKENS_PER_PARAM = (1e-4, 1e6)  # a median outside these means that the units differ
APART = 300.0  # the largest ratio between neighbours in tokens per parameter without a warning
EPOCHS = 0.99e6  # a median above it means the same: unique tokens in millions
LARGEST_LOSS = 1e3  # nats per token: e^1000 symbols
VOCABULARY = math.log(300_000)  # nats per token of guessing among the largest vocabularies
DAY = 86_400.0
FLOP_UNITS = {
    **{f"{prefix}FLOPs": 10.0**n for prefix, n in zip("KMGTPEZ", range(3, 24, 3), strict=True)},
    **{f"{prefix}FLOP/s-days": 10.0**n * DAY for prefix, n in (("T", 12), ("P", 15), ("E", 18))},
}
FLOPS_NOTED, FLOPS_REFUSED = 3.0, 10.0  # ratios to 6ND


def counts(name: str, column: str, values: np.ndarray) -> None:
    """Refuses a column of counts [R] that are not raw, or not all.

    Raises:
      DlmError: the largest is too small, or values are of several units.
    """
    if not len(values):
        return
    ordered = np.sort(values)
    gaps = (ordered[1:] > GAP * ordered[:-1]) & (ordered[:-1] < BELOW[column])
    if ordered[-1] / ordered[0] > MIXED or gaps.any():
        where = ""
        for i in np.flatnonzero(gaps)[:1]:
            where = f", with none between {ordered[i]:g} and {ordered[i + 1]:g}"
        raise DlmError(
            f"{name}: {column} runs from {ordered[0]:g} to {ordered[-1]:g}{where}: mixed units? "
            "give raw counts in every row"
        )
    parts = (values != np.round(values)).mean() > 0.1 and ordered[-1] < 1e6
    if ordered[-1] < SMALLEST[column] or parts:
        raise DlmError(
            f"{name}: {column} is at most {ordered[-1]:g}{', with fractions' if parts else ''}: "
            "give raw counts, not thousands, millions or billions"
        )


def ratios(name: str, N: np.ndarray, D: np.ndarray, U: np.ndarray) -> list[str]:
    """Refuses sizes, tokens and unique tokens [R] that are of different units. Returns a warning if
    some rows have so many more tokens per parameter than all others that they may be of another unit.

    Raises:
      DlmError: the tokens per parameter, or the epochs, are those of no study.
    """
    if not len(N):
        return []
    low, high = TOKENS_PER_PARAM
    each, epochs = float(np.median(D / N)), float(np.median(D / U))
    if each < low or each > high:
        column = "tokens" if each < low else "params"
        raise DlmError(
            f"{name}: {each:.3g} tokens per parameter in the median row: is {column} in thousands, "
            "millions or billions? give raw counts"
        )
    if epochs > EPOCHS:
        raise DlmError(
            f"{name}: {epochs:.3g} epochs in the median row: is unique_tokens in thousands, "
            "millions or billions? give raw counts"
        )
    ordered = np.sort(D / N)
    for i in np.flatnonzero(ordered[1:] > APART * ordered[:-1])[:1]:
        return [
            f"WARNING: tokens per parameter run from {ordered[0]:.3g} to {ordered[-1]:.3g}, with none "
            f"between {ordered[i]:.3g} and {ordered[i + 1]:.3g}: mixed units? give raw counts"
        ]
    return []


def flops(name: str, C: np.ndarray, N: np.ndarray, D: np.ndarray, where: list[str]) -> list[str]:
    """A note if FLOPs [R] lie off 6ND by more than rounding and attention explain.

    Raises:
      DlmError: they lie so far off that they are of another unit; the message names it.
    """
    each = np.log(C) - np.log(6 * N * D)
    if not len(each):
        return []
    middle = float(np.median(each))
    ignore = "give FLOPs, or take 6 x params x tokens in their place with --columns flops="
    if abs(middle) > math.log(FLOPS_REFUSED):
        raise DlmError(
            f"{name}: flops are {math.exp(middle):.3g} x 6 x params x tokens in the median row: "
            f"{_flop_unit(middle, C, N, D)}? {ignore}"
        )
    far = np.abs(each - middle)
    if far.max() > math.log(FLOPS_REFUSED**2):
        i = int(far.argmax())
        raise DlmError(
            f"{where[i]}: flops={C[i]:g} are {math.exp(each[i]):.3g} x 6 x params x tokens, but "
            f"{math.exp(middle):.3g} times in the median row: mixed units? {ignore}"
        )
    if abs(middle) > math.log(FLOPS_NOTED):
        return [f"flops are {math.exp(middle):.3g} x 6 x params x tokens in the median row"]
    return []


def _flop_unit(middle: float, C: np.ndarray, N: np.ndarray, D: np.ndarray) -> str:
    """The likely unit of FLOPs whose median log ratio to 6ND is `middle`."""
    if np.abs(np.log(C / (6 * N))).max() < math.log(FLOPS_NOTED):
        return "per token"
    if np.abs(C - np.log10(6 * N * D)).max() < 1:
        return "their logarithm"
    unit = min(FLOP_UNITS, key=lambda u: abs(middle + math.log(FLOP_UNITS[u])))
    near = abs(middle + math.log(FLOP_UNITS[unit])) < math.log(FLOPS_REFUSED)
    return unit if near else "another unit"


def losses(L: np.ndarray) -> list[str]:
    """A note if losses [R] are above what guessing gives."""
    above = L > VOCABULARY
    if not above.any():
        return []
    return [
        f"WARNING: loss is up to {L.max():.4g}, and in {above.sum()} of {len(L)} rows above "
        f"{VOCABULARY:.1f} nats per token, the logarithm of the largest vocabularies (300,000): "
        "these look like perplexities; give their natural logarithm"
    ]
