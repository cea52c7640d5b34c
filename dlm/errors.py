"""The one exception that a user's mistake raises; the command line prints it as one line."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

LONGEST = 2000  # characters of an error that is printed


class DlmError(ValueError):
    """Names the field or file, the value found, and what would be right."""


class ArgumentError(DlmError):
    """A wrong argument of a function that the command line takes as an option of the same name.

    >>> str(ArgumentError("top_p", "=2: must be above 0, at most 1"))
    'top_p=2: must be above 0, at most 1'
    >>> ArgumentError("top_p", "=2: must be above 0, at most 1").as_option
    '--top-p=2: must be above 0, at most 1'
    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"{name}{words}")
        self.name, self.words = name, words

    @property
    def as_option(self) -> str:
        return f"--{self.name.replace('_', '-')}{self.words}"


def fail(name: str, value: Any, right: str) -> NoReturn:
    """The error of a config's field: its name, its value, and what would be right."""
    raise DlmError(f"config.{name}={shown(value)}: must be {right}")


def shown(value: Any) -> str:
    """The value as Python writes it, without the middle of what is longer than a path."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= 300 else f"{text[:20]}...{text[-20:]}, of {len(text)} characters"


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean layers?", or nothing where no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def in_file(file: str | Path, error: BaseException) -> DlmError:
    """One line on what went wrong in a Python file of the user's: `mine.py:5: TypeError: ...`."""
    same = Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == same:
        where = f":{error.lineno}" if error.lineno else ""
        return DlmError(f"{file}{where}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).resolve() == same]
    try:
        text = next(iter(str(error).strip().splitlines()), "")
    except Exception:  # the class is the file's own
        text = ""
    if not text:
        text = f"no message, at `{inside[-1].line}`" if inside else "no message"
    where = f":{inside[-1].lineno}" if inside else ""
    return DlmError(f"{file}{where}: {type(error).__name__}: {text}")


@contextlib.contextmanager
def running(file: str | Path, passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Runs code of a user's Python file: whatever ends it early becomes one line of that file.

    That includes sys.exit(0), which would else end the command in silence as if all were done, and
    a KeyboardInterrupt that the file itself raises. Ctrl-C still interrupts. Exceptions of the
    kinds `passing` pass through.

    Raises:
      DlmError: as the code itself raised it, or the line.
    """
    try:
        yield
    except (DlmError, *passing):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not _raised_in(file, error):
            raise
        raise in_file(file, error) from error


def _raised_in(file: str | Path, error: BaseException) -> bool:
    """Whether an exception comes from a raise statement of this file, not from a signal."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    here = Path(last.filename).resolve() == Path(file).resolve()
    return here and (last.line or "").startswith("raise")


def printed(message: str) -> str:
    """A message as the one line that is printed: control characters are escaped, and the middle of
    what is longer than LONGEST is left out."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2
    return f"{line[:half]} [{len(line) - 2 * half:,} characters left out] {line[-half:]}"


def reason(error: BaseException) -> str:
    """Why, in one line that is never empty: the system's words, the message, else the class."""
    error = system_error(error) or error
    words = str(getattr(error, "strerror", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


def system_error(error: BaseException) -> OSError | None:
    """The system's refusal that TensorStore tells as a ValueError; None if there is none.

    It writes checkpoints, and says `RESOURCE_EXHAUSTED: Failed writing: "FILE": ... No space left on
    device [os_error_code='28']` where others raise OSError.
    """
    if isinstance(error, OSError):
        return error
    if not (code := re.search(r"\[os_error_code='(\d+)'", str(error))):
        return None
    file = re.search(r'"([^"]+)"', str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), file and file[1])


def one_line(error: BaseException) -> str:
    """The reason with the exception's class before it, which a DlmError goes without."""
    error = system_error(error) or error
    words, kind = reason(error), type(error).__name__
    return words if isinstance(error, DlmError) or words == kind else f"{kind}: {words}"
