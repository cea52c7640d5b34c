"""What this user keeps for all projects, in folders where nobody else can write: compiled programs,
local copies of buckets, and which objective files the user trained with.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from dlm import sealed
from dlm.errors import DlmError

TRUSTED = "objectives"  # the file of sha256 digests, one a line


def folder(name: str) -> Path | None:
    """`$XDG_CACHE_HOME/dlm/NAME` (~/.cache if unset), made if missing, mode 0700.

    None if it cannot be made, or if others own it or may write there: that is told on stderr. The
    last part may be a link of the user's own.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlm"
    wanted = home / name
    try:
        wanted.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None  # a read-only home
    for path, about in ((home, home.lstat()), (wanted, wanted.stat())):
        alone = about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not (alone and stat.S_ISDIR(about.st_mode)):
            print(
                f"warning: {path} is not used: it must be your own folder, in which only you can "
                "write (chmod 700)",
                file=sys.stderr,
            )
            return None
    return wanted


def trust(file: Path | str) -> None:
    """Notes that the user named this Python file as an objective: its runs may load it."""
    place, line = folder("trusted"), sealed.file_digest(Path(file))
    if place is not None and line not in _trusted():
        with open(place / TRUSTED, "a", opener=_no_link) as lines:
            lines.write(line + "\n")


def check_trusted(file: str, run: Path) -> None:
    """Raises DlmError unless the user has named a file of these very contents before (`trust`)."""
    if not Path(file).is_file():
        raise DlmError(f"{run}: its objective is the file {file}, which is not here")
    if sealed.file_digest(Path(file)) not in _trusted():
        raise DlmError(
            f"{run}: names code to run, {file}, that you have not trained with on this machine; "
            "read it, then repeat with --trust"
        )


def _trusted() -> set[str]:
    place = folder("trusted")
    try:
        return set((place / TRUSTED).read_text().split()) if place else set()
    except (OSError, UnicodeDecodeError):
        return set()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
