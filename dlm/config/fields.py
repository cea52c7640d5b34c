"""Checks the fields of a config: the annotation of each field says what values it takes.

    layers: Annotated[int, Range(1, 1000)] = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    duration: Duration = "100 epochs"

`validated` reads these through pydantic, which is imported when the first config is resolved.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dlm.errors import DlmError, fail, nearest

T = TypeVar("T")
UNITS = ("steps", "tokens", "epochs", "flops", "percent")
# Beyond what any training takes, and within JAX's 32-bit integers:
MOST_STEPS = 1_000_000_000
MOST = 1_048_576  # tokens of a sequence, sequences of a batch, devices along an axis


class Group:
    """A record of the config. Unknown fields are refused."""

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes, `low` to `high`. `without` names the ends that are excluded."""

    low: float
    high: float
    without: Literal["", "low", "high", "both"] = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        low = "gt" if self.without in ("low", "both") else "ge"
        high = "lt" if self.without in ("high", "both") else "le"
        number = handler(source) | {"strict": True, low: self.low, high: self.high}
        if source is int:
            number = core_schema.no_info_before_validator_function(_whole, number)
        return number

    def __str__(self) -> str:
        low, high = (f"{x:,}" if isinstance(x, int) else f"{x:g}" for x in (self.low, self.high))
        return {
            "": f"from {low} to {high}",
            "low": f"above {low} and at most {high}",
            "high": f"at least {low} and below {high}",
            "both": f"above {low} and below {high}",
        }[self.without]


class Strict:
    """Marks a field that takes true or false alone: no 1, no "yes"."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {"strict": True}


class Named:
    """Marks a text that is not empty."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {"min_length": 1}

    def __str__(self) -> str:
        return "a name"


class Amount:
    """Marks a text that holds a number and a unit, see `parse_duration`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_duration, handler(source))


Share = Annotated[float, Range(0, 1)]  # 0 to 1
PartShare = Annotated[float, Range(0, 1, "high")]  # 0 to 1, but not all
Flag = Annotated[bool, Strict()]
Name = Annotated[str, Named()]
Duration = Annotated[str, Amount()]  # "60 epochs"


def _whole(value: Any) -> Any:
    """Turns a whole float into an integer: 2e6 may be written for 2000000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def parse_duration(text: str) -> tuple[str, float]:
    """Splits a duration into unit and amount: "60 epochs" is ("epochs", 60.0).

    Raises:
      ValueError: the text is no duration, or more than 100 percent; the message says what is right.
    """
    words = r"\s*(\d[\d.,_]*(?:e[+-]?\d+)?)\s*([a-z]+)\s*"
    match = re.fullmatch(words, text.lower())
    amount, unit = match.groups() if match else ("", "")
    try:
        number = float(amount.replace(",", ""))
    except ValueError:
        number = math.nan
    if unit not in UNITS or not 0 < number < math.inf:
        raise ValueError('a number and a unit: "60 epochs", "2e6 tokens", "500 steps"')
    if unit == "percent" and number > 100:
        raise ValueError("at most 100 percent of the run")
    return unit, number


# --- from plain values to records ---------------------------------------------------------------


def validated(record: type[T], values: Any, group: str = "") -> T:
    """Builds a record from plain values and checks each against the annotation of its field.

    Args:
      record: a dataclass of the config, such as `dlm.config.schema.Config`.
      values: a dict of plain values; nested records are dicts too.
      group: the record's name within the config; "" for the whole config.

    Raises:
      DlmError: names the first unknown field, or the first wrong one with its value and what is right.
    """
    from pydantic import ValidationError

    try:
        return _reader(record).validate_python(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    unknown = [p for p in problems if p["type"] == "unexpected_keyword_argument"]
    problem = (unknown or problems)[0]
    *parents, last = [str(part) for part in problem["loc"]] or [""]
    name = ".".join(filter(None, [group, *parents, last]))
    for part in parents:
        record = hints(record)[part]
    if unknown:
        raise DlmError(f"config.{name}: no such key{nearest(last, hints(record))}")
    hint = hints(record)[last] if last else record
    fail(name, problem["input"], _right(problem, hint))


@functools.cache
def _reader(record: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(record)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested dicts by their dotted names. An empty dict is a value."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        group = isinstance(value, Mapping) and value
        values |= flat(value, f"{prefix}{name}.") if group else {prefix + name: value}
    return values


@functools.cache
def hints(record: type) -> dict[str, Any]:
    """Returns the annotation of each field of a record."""
    names = record.__dataclass_fields__
    return {k: v for k, v in get_type_hints(record, include_extras=True).items() if k in names}


def _right(problem: Any, hint: Any) -> str:
    """Says what values a field takes, for an error."""
    if get_origin(hint) is Literal:
        words = get_args(hint)
        return f"one of {', '.join(words)}{nearest(str(problem['input']), words)}"
    if hasattr(hint, "__dataclass_fields__"):
        return f"a group of {', '.join(hints(hint))}"
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if not problem["type"].endswith("_type"):
        return str(marks[0])
    if hint is Duration:
        return "a text such as '60 epochs' (steps, tokens, epochs or flops)"
    names = {int: "an integer", float: "a number", str: "a word", bool: "true or false"}
    return names.get(kind, "a group of options")
