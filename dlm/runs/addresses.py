"""Finds what a person means by RUN or FOLDER: a path, a bucket's address, an id or its beginning."""

from __future__ import annotations

import difflib
import glob
from pathlib import Path

from dlm import disk, inputs, runs, sealed
from dlm.errors import DlmError, nearest
from dlm.runs import bucket

SHOWN = 6  # candidates that an error lists


def run(word: str, workdir: Path) -> Path:
    """The folder of a run, by its path, its address, its id below `workdir`, or a unique beginning.

    Raises:
      DlmError: no run, or several, match the word; names those that are near.
    """
    if not word:
        raise DlmError("'': no run; give its folder, its id or a beginning of that")
    path = bucket.run(word)
    if runs.is_run(path):
        return path
    beside = path.parent.glob(f"{glob.escape(path.name)}*") if path.name else []
    folders = [
        *(runs.folders(workdir) if "://" not in word else []),
        *(runs.folders(path) if path.is_dir() else filter(runs.is_run, beside)),
    ]
    known = {folder.absolute(): folder for folder in folders}
    beginning = str(path.absolute()) + ("/" if path.is_dir() else "")
    matches = [
        folder
        for folder in known.values()
        if str(folder.absolute()).startswith(beginning)
        or folder.name.startswith(word)
        or f"{folder.parent.name}/{folder.name}".startswith(word)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise DlmError(
            f"{word}: may be any of {len(matches)} runs: {_list(matches)}; give more of it"
        )
    names = {f.name[: len(path.name)]: f for f in known.values()}
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    near = f"; did you mean {_named(names[close[0]])}?" if close else ""
    raise DlmError(f"{word}: no such run{near}; {_looked(word, workdir, len(known))}")


def folder(word: str | None, workdir: Path) -> Path:
    """A folder of runs, by its path, its address, its name below `workdir`, or that of one run.

    A path of a file is returned as it is; None is the workdir itself.

    Raises:
      DlmError: nothing is there, or a folder without runs; names the folders that are.
    """
    if word == "":
        raise DlmError("'': no such folder of runs; leave it out for the workdir")
    below = runs.folders(workdir)
    places = [workdir] if word is None else [bucket.local(word), workdir / word]
    place = next((place for place in places if place.exists()), None)
    if place is not None and place != workdir and word and place == workdir / word:
        disk.refuse_link(place)
    if place is not None and (place.is_file() or runs.folders(place)):
        return place
    if place is None and word and any(f.name.startswith(word) for f in below):
        return run(word, workdir)
    names = sorted({folder.parent.name for folder in below})
    there = f"; below {workdir} there are {', '.join(names)}" if names else ""
    if place is not None and not place.is_dir():
        raise DlmError(f"{place}: {inputs.unreadable(place)}; must be a table or a folder of runs")
    if place is not None:
        raise DlmError(f"{place}: no run lies there; dlm run makes some{there}")
    near = nearest(word or "", names)
    raise DlmError(f"{word or workdir}: no such folder of runs{near}{there}")


def _looked(word: str, workdir: Path, count: int) -> str:
    if "://" in word:
        return "an address reads WORKDIR/EXPERIMENT/RUN"
    there = f"where {count} runs lie" if workdir.is_dir() else "which does not exist"
    return (
        f"looked for its folder, and for an id that begins so below {workdir}, {there} "
        "(--workdir names another place)"
    )


def _list(folders: list[Path]) -> str:
    rest = len(folders) - SHOWN
    return ", ".join(map(_named, folders[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def _named(folder: Path) -> str:
    """`quickstart/0123456789 (digits ar seed=0)`."""
    try:
        label = sealed.read(folder / "run.json")["label"]
    except (DlmError, KeyError):
        label = "no label"
    return f"{folder.parent.name}/{folder.name} ({label})"
