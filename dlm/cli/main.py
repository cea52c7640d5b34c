"""`dlm VERB`: reads the words, calls the verb's file, and tells mistakes in one line."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.cli import parser
from dlm.cli.output import DONE
from dlm.errors import ArgumentError, DlmError, printed, reason, system_error
from dlm.runs import addresses, bucket

USAGE, INTERRUPTED = 2, 75
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENFILE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="backslashreplace")
    with _terminable():
        try:
            return _main(sys.argv[1:] if argv is None else list(argv))
        except KeyboardInterrupt:
            words = "Interrupted. Finished work is saved; rerun the command to resume."
            print(words, file=sys.stderr)
            return INTERRUPTED


def _main(argv: list[str]) -> int:
    workdir: str | Path = "runs"
    try:
        arguments, overrides = parser.parse(argv)
        workdir = arguments.workdir
        arguments.workdir = bucket.local(arguments.workdir)
        if problem := inputs.no_folder(arguments.workdir):
            raise DlmError(f"--workdir={arguments.workdir}: {problem}; must be a folder")
        if hasattr(arguments, "folder") and not getattr(arguments, "diff", None):
            arguments.folder = addresses.folder(arguments.folder, arguments.workdir)
        return parser.VERBS[arguments.verb].execute(arguments, overrides)
    except DlmError as error:
        line = error.as_option if isinstance(error, ArgumentError) else str(error)
        print(printed(f"error: {line}"), file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader of a pipe left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except MemoryError as error:
        print(printed(f"error: not enough memory for this input: {reason(error)}"), file=sys.stderr)
        return USAGE
    except (OSError, ValueError) as error:
        refused = system_error(error)
        line = _refused(refused, workdir) if refused else ""
        if not line:
            raise
        print(printed(f"error: {line}"), file=sys.stderr)
        return USAGE


def _refused(error: OSError, workdir: Any) -> str:
    """What the system refuses, if that comes of the user's files and names; "" of anything else."""
    if error.errno in UNWRITABLE:
        kept = "what was saved before is kept; rerun the command to resume"
        return f"{error.filename or workdir}: {error.strerror}; {kept}"
    if error.filename and error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        return f"{error.filename}: {error.strerror}; give another path"
    return ""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Takes SIGTERM, as schedulers send it, like ctrl-C: save, then leave."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
