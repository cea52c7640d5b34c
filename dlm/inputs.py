"""What a user may name and type: files that can be read to their end, numbers within their limits.

The functions that return a function are types of argparse options: a value that they refuse ends
the command with one line before anything is read. `checked` does the same for the Python API.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import math
import numbers
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dlm.errors import DlmError, nearest, reason, shown

MIB = 2**20
SPECIAL = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def unreadable(path: Path | str, largest: int | None = None) -> str:
    """Why a path cannot be read as a file, in words such as "is a pipe"; "" if it can be.

    Links are followed, and nothing is opened: opening a pipe would wait for its writer. `largest` is
    the most bytes that such a file may have.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot be read: {reason(error)}"
    for is_kind, words in SPECIAL:
        if is_kind(status.st_mode):
            return words
    if not os.access(path, os.R_OK):
        return "cannot be read: no permission"
    if largest is not None and status.st_size > largest:
        return f"has {status.st_size:,} bytes, and may have {largest:,}"
    return ""


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a regular file; anything else is refused before it is opened.

    Raises:
      OSError: says why it cannot be read; FileNotFoundError if nothing is there.
    """
    check_regular(path, largest)
    return path.read_bytes()


def check_regular(path: Path, largest: int | None = None) -> None:
    """Raises OSError, which says why, unless a path is a regular file that can be read."""
    if problem := unreadable(path, largest):
        raise FileNotFoundError(problem) if problem == "no such file" else OSError(problem)


def no_folder(path: Path) -> str:
    """Why a path is no folder and cannot become one; "" if it is one, or nothing is there."""
    problem = unreadable(path) or "is a file"
    return "" if problem in ("is a folder", "no such file") else problem


def contents(path: Path, what: str, largest: int = 256 * MIB) -> bytes:
    """The bytes of a file that is read whole. `what` says in errors what the file must be.

    Raises:
      DlmError: it is no regular file, too large, or cannot be read.
    """
    try:
        return read_bytes(path, largest)
    except OSError as error:
        raise DlmError(f"{path}: {reason(error)}; must be {what}") from None


def json_problem(error: Exception) -> str:
    """Why `json.loads` refuses a text."""
    if isinstance(error, RecursionError):
        return "brackets are nested too deep"
    if "integer string conversion" in str(error):
        return "an integer has more than 4,300 digits"
    return error.msg if isinstance(error, json.JSONDecodeError) else reason(error)


# --- types of options ---------------------------------------------------------------------------


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""
    right = f"{least} or more" if most is None else f"{least:,} to {most:,}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also of more digits than Python reads
            raise refusal(text, "a whole number") from None
        if value < least or value > (2**63 - 1 if most is None else most):
            raise refusal(text, right)
        return value

    return parse


def number(words: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """A finite number for which `holds`, as `words` say: "above 0"."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise refusal(text, "a number") from None
        if not (math.isfinite(value) and holds(value)):
            raise refusal(text, words)
        return value

    return parse


def above_zero() -> Callable[[str], float]:
    return number("above 0", lambda value: value > 0)


def zero_or_more(words: str = "0 or more") -> Callable[[str], float]:
    return number(words, lambda value: value >= 0)


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """One of a few words; another is told which of them is near."""
    known = tuple(words)

    def parse(text: str) -> str:
        if text not in known:
            raise refusal(text, f"one of {', '.join(known)}{nearest(text, known)}")
        return text

    return parse


def path(text: str) -> Path:
    """A path that is not empty: pathlib takes "" for the current folder."""
    if not text or "\0" in text:
        raise refusal(text, "a path")
    return Path(text)


def refusal(text: str, right: str) -> argparse.ArgumentTypeError:
    """The error of an option's type; the parser puts the option's name before it."""
    return argparse.ArgumentTypeError(f"={text}: must be {right}")


# --- arguments of the Python API ----------------------------------------------------------------

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the kind of each argument of a public function by its annotation (see KINDS).

    >>> @checked
    ... def draw(count: int) -> None: ...
    >>> draw("3")
    Traceback (most recent call last):
    dlm.errors.DlmError: count='3': must be a whole number

    Raises:
      KeyError: an annotation is none of KINDS, and no name of a class.
    """
    signature = inspect.signature(function)
    kinds = {
        name: _kind(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if name != "self"
    }

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in kinds:
                holds, right = kinds[name]
                if not holds(value):
                    raise DlmError(f"{name}={shown(value)}: must be {right}")
        return function(*args, **kwargs)

    return call


def _is_number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    with contextlib.suppress(OverflowError):  # an integer of more than 308 digits
        return math.isfinite(float(value))
    return False


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _are_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _names_words(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


Kind = tuple[Callable[[Any], bool], str]  # whether a value is of the kind, and the kind in words
KINDS: dict[str, Kind] = {
    "Any": (lambda value: True, "anything"),
    "float": (_is_number, "a finite number"),
    "int": (_is_whole, "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "str | Path": (_is_path, "a path"),
    "str | os.PathLike[str]": (_is_path, "a text or a path"),
    "str | Sequence[str]": (
        lambda value: isinstance(value, str) or _are_words(value),
        "a text, or a list of texts",
    ),
    "Sequence[str]": (_are_words, "a list of words"),
    "Callable[[str], None]": (callable, "a function of one text"),
    "Mapping[str, Any]": (_names_words, "a dict with words as its keys"),
    "Mapping[str, str]": (
        lambda value: _names_words(value) and _are_words(list(value.values())),
        "a dict from words to words",
    ),
}


def _kind(annotation: str) -> Kind:
    """The kind that an annotation names: one of KINDS, a class, a list of one, or None beside it."""
    if annotation in KINDS:
        return KINDS[annotation]
    if annotation.endswith(" | None"):
        holds, right = _kind(annotation.removesuffix(" | None"))
        return lambda value: value is None or holds(value), f"{right}, or None"
    if several := re.fullmatch(r"(Sequence|Iterable)\[([\w.]+)\]", annotation):
        one, name = _is_a(several[2]), several[2]

        def all_are(values: Any) -> bool:
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
                return False  # a generator is not read to look at what it yields
            return not isinstance(values, Sequence) or all(one(value) for value in values)

        return all_are, f"a list of dlm.{name.rpartition('.')[2]}"
    if " | " in annotation:
        kinds = [_kind(part) for part in annotation.rsplit(" | ", 1)]
        right = " or ".join(right for _, right in kinds)
        return lambda value: any(holds(value) for holds, _ in kinds), right
    return _is_a(annotation), f"a dlm.{annotation.rpartition('.')[2]}"


def _is_a(annotation: str) -> Callable[[Any], bool]:
    """Whether a value is of a class by its name, which need not be imported for that."""
    name = annotation.rpartition(".")[2]
    if not name.isidentifier() or not name[0].isupper():
        raise KeyError(f"no kind of argument: {annotation}")
    return lambda value: any(kind.__name__ == name for kind in type(value).__mro__)
