"""Laws from a JSON file: coefficients written by hand, or the fit.json of `dlm fit --out`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dlm import inputs
from dlm.errors import DlmError
from dlm.laws.critical import Constants
from dlm.laws.fits import LEVEL
from dlm.laws.forms import Law
from dlm.laws.forms import law as named
from dlm.laws.table import Ranges

AMPLITUDES = (1e-30, 1e60)  # limits of size and data terms, which a fit leaves free
HELP = "see dlm critical --help"


def read(path: Path) -> dict[str, Constants]:
    """The laws of a JSON file, by family.

    Raises:
      DlmError: no such file, or a field that is not as `dlm critical --help` shows or as
        `dlm fit --out` writes it; names the file, the family and the field.
    """
    content = inputs.contents(path, "a JSON file with laws")
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # also not UTF-8, and endless brackets
        raise DlmError(f"{path}: not readable JSON ({inputs.json_problem(error)})") from None
    if isinstance(document, list):  # fit.json
        document = {str(each.get("family")): each for each in document if isinstance(each, dict)}
    if not isinstance(document, dict) or not document:
        raise DlmError(f"{path}: no laws in it; {HELP}")
    if not all(name.strip() for name in document):
        raise DlmError(f"{path}: a family has no name; {HELP}")
    return {family: _law(f"{path}: {family}", each) for family, each in document.items()}


def _law(where: str, record: Any) -> Constants:
    """One law of the file; `where` begins each error."""
    if not isinstance(record, dict) or not isinstance(record.get("coefficients"), dict):
        raise DlmError(f"{where} has no coefficients; {HELP}")
    law, values = named(str(record.get("law"))), record["coefficients"]
    share = record.get("share", LEVEL)
    if not (_is_number(share) and 0 < share <= 1):
        raise DlmError(f"{where}: share={share!r}: must be above 0, at most 1")
    fixed = record.get("fixed") or ()
    if not isinstance(fixed, dict | list | tuple) or any(n not in law.names for n in fixed):
        raise DlmError(f"{where}: fixed={fixed!r}: must name coefficients of {law.name}")
    return Constants(
        law,
        {name: _coefficient(where, law, name, values.get(name)) for name in law.names},
        _samples(where, law, record.get("samples") or {}),
        float(share),
        tuple(fixed),
        _ranges(where, record.get("ranges")),
    )


def _coefficient(where: str, law: Law, name: str, value: Any) -> float:
    if not (_is_number(value) and value > 0):
        raise DlmError(f"{where}: {name}={value!r}: must be a finite number above 0")
    c = law.coefficient(name)
    low, high = AMPLITUDES if c.amplitude else c.limits
    if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):  # a fit may end at a limit, rounded
        raise DlmError(f"{where}: {name}={value:g}: must be from {low:g} to {high:g}")
    return float(value)


def _samples(where: str, law: Law, samples: Any) -> dict[str, np.ndarray]:
    """Resampled coefficients by name, [S] each; null stands for a number that is not known."""
    if not isinstance(samples, dict) or (samples and set(samples) != set(law.names)):
        names = ", ".join(law.names)
        raise DlmError(f"{where}: samples: must be lists of numbers, of {names} of {law.name}")
    for name, values in samples.items():
        if not isinstance(values, list) or not all(
            v is None or (_is_number(v) and v > 0) for v in values
        ):
            raise DlmError(f"{where}: samples of {name}: must be a list of numbers above 0")
    if len({len(values) for values in samples.values()}) > 1:
        raise DlmError(f"{where}: samples: must be as many of each coefficient")
    return {name: np.array(values, float) for name, values in samples.items()}


def _ranges(where: str, record: Any) -> Ranges | None:
    if not record:
        return None
    spans: dict[str, Any] = {}
    for field in dataclasses.fields(Ranges):
        value = record.get(field.name) if isinstance(record, dict) else None
        pair = field.name not in ("runs", "typical_params")
        numbers: list[Any] = value if isinstance(value, list) else [value]
        if isinstance(value, list) != pair or len(numbers) != 1 + pair or not _increase(numbers):
            right = "two numbers above 0, the least and the most" if pair else "a number above 0"
            raise DlmError(f"{where}: ranges: {field.name}={value!r}: must be {right}")
        spans[field.name] = tuple(map(float, numbers)) if pair else value
    return Ranges(**spans)


def _increase(numbers: list[Any]) -> bool:
    return all(_is_number(v) and v > 0 for v in numbers) and numbers == sorted(numbers)


def _is_number(value: Any) -> bool:
    """Whether JSON has a number here that a float can hold; NaN, Infinity and true are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
