"""A workdir in a bucket: `--workdir gs://BUCKET/FOLDER`, or s3://.

Runs are trained in a folder of this machine and sent to the bucket after each checkpoint and at the
end. At the start the small files of all runs are fetched, so that runs finished elsewhere are skipped.
Checkpoints are written to the bucket itself; each process writes its shards. Locks hold on one
machine only: let one sweep at a time work on a bucket. Token stores are built on each machine.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from dlm import disk, private
from dlm.errors import DlmError, one_line

MARK = ".bucket"  # in the local folder of a workdir: its address
ELSEWHERE = ("checkpoints", "corpora")  # not sent: in the bucket already, or of this machine


def local(workdir: str) -> Path:
    """The folder of this machine for a workdir, or for a folder of one: itself, if it is no address.

    Raises:
      DlmError: the bucket cannot be read.
    """
    if "://" not in workdir:
        return Path(workdir)
    if not re.match(r"[a-z][a-z0-9+.-]*://[^/]", workdir):
        raise DlmError(f"{workdir}: names no bucket; an address reads gs://BUCKET/FOLDER")
    workdir = workdir.rstrip("/")
    home = private.folder("buckets")
    if home is None:
        raise DlmError(f"{workdir}: needs a folder of yours for its local copy; see XDG_CACHE_HOME")
    folder = home / _name(workdir)
    folder.mkdir(exist_ok=True)
    disk.write(folder / MARK, workdir)
    try:
        _fetch(_address(workdir), folder)
    except Exception as error:  # each kind of bucket has errors of its own
        raise DlmError(
            f"{workdir}: cannot be read ({one_line(error)}); gs:// needs gcsfs, s3:// needs s3fs"
        ) from error
    return folder


def run(address: str) -> Path:
    """The folder of this machine for a run, by its own or by gs://BUCKET/FOLDER/EXPERIMENT/RUN.

    Raises:
      DlmError: the address is too short, or the bucket cannot be read.
    """
    if "://" not in address:
        return Path(address)
    workdir, *inside = address.rstrip("/").rsplit("/", 2)
    if "://" not in workdir or len(inside) < 2:
        raise DlmError(
            f"{address}: must be a workdir, an experiment and a run: gs://B/runs/EXP/RUN"
        )
    return local(workdir).joinpath(*inside)


def place(folder: Path) -> Any:
    """Where a folder lies: in its workdir's bucket, or here.

    A mark counts only in the folder that `local` makes for its address, so that a mark inside a
    workdir from elsewhere sends nobody's files.
    """
    folder = folder.absolute()
    for parent in (folder, *folder.parents):
        if parent.parent.name == "buckets" and (parent / MARK).is_file():
            address = (parent / MARK).read_text()
            if parent.name == _name(address) and parent.parent == private.folder("buckets"):
                return _address(address) / folder.relative_to(parent).as_posix()
    return folder


def send(folder: Path) -> None:
    """Copies the files of a folder to its bucket, if it has one, without checkpoints and stores."""
    to = place(folder)
    if to == folder.absolute():
        return
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not set(parts) & set(ELSEWHERE) and not path.name.startswith("."):
            there = to.joinpath(*parts)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())


def try_send(folder: Path) -> str:
    """Sends a folder (see `send`); returns the reason if that fails, else an empty string.

    Files that could not be sent stay on this machine; the next call sends them.
    """
    try:
        send(folder)
    except Exception as error:  # each kind of bucket has errors of its own
        return f"{place(folder)}: cannot be written: {one_line(error)}"
    return ""


def _fetch(there: Any, here: Path) -> None:
    """Fetches the files that are missing here or differ, folder by folder."""
    if not there.exists():
        return
    for path in there.iterdir():
        if path.is_dir():
            if path.name not in ELSEWHERE:
                _fetch(path, here / path.name)
            continue
        content = path.read_bytes()
        target = here / path.name
        if not target.is_file() or target.read_bytes() != content:
            here.mkdir(parents=True, exist_ok=True)
            disk.write(target, content)


def _name(workdir: str) -> str:
    return hashlib.sha256(workdir.encode()).hexdigest()[:12]


def _address(text: str) -> Any:
    from etils import epath

    return epath.Path(text.rstrip("/"))
