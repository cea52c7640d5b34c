"""Finds what a person means by RUN or FOLDER: a path, an address, an id or its beginning, a label."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dlm import disk, inputs, runs
from dlm.errors import DlmError, nearest
from dlm.runs import bucket, names

SHOWN = 6  # candidates that an error lists


class Candidate(NamedTuple):
    """A run that a word may mean."""

    run: str  # id
    folder: Path
    label: Callable[[], str]  # read from run.json only if no id and no folder has the word

    def __str__(self) -> str:
        return f"{self.folder.parent.name}/{self.run} ({self.label() or 'no label'})"


def candidate(folder: Path) -> Candidate:
    return Candidate(names.run_id(folder), folder, lambda: names.label(folder))


def choose(word: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The runs that a word means; several if it does not tell them apart.

    An id, or a folder's name with or without its experiment; else the beginning of one; else a label,
    or words that labels hold.
    """

    def titles(run: Candidate) -> tuple[str, ...]:
        above = run.folder.parent.name
        return (run.run, run.folder.name, f"{above}/{run.run}", f"{above}/{run.folder.name}")

    if exact := [run for run in candidates if word in titles(run)]:
        return exact
    if near := [run for run in candidates if any(t.startswith(word) for t in titles(run))]:
        return near
    asked = set(word.split())
    labelled = [run for run in candidates if asked <= set(run.label().split())]
    return [run for run in labelled if run.label() == word] or labelled


def run(word: str, workdir: Path) -> Path:
    """The folder of a run, by its path, its address, or what `choose` takes, below `workdir`.

    The last part of a path may be a beginning of the folder's name or of the id too.

    Raises:
      DlmError: no run, or several, match the word; names those that are near.
    """
    if not word:
        raise DlmError("'': no run; give its folder, its id or a beginning of that, or its label")
    path = bucket.run(word)
    if runs.is_run(path):
        return path
    matches, known = _matches(word, path, workdir)
    if len(matches) == 1:
        return matches[0].folder
    if matches:
        raise DlmError(
            f"{word}: may be any of {len(matches)} runs: {listed(matches)}; give more of it"
        )
    beginnings = {run.run[: len(path.name)]: run for run in known}
    close = difflib.get_close_matches(path.name, beginnings, n=1, cutoff=0.5)
    near = f"; did you mean {beginnings[close[0]]}?" if close else ""
    raise DlmError(f"{word}: no such run{near}; {_looked(word, workdir, len(known))}")


def _matches(word: str, path: Path, workdir: Path) -> tuple[list[Candidate], list[Candidate]]:
    """The runs below `workdir`, and at or beside a path, that a word means; all that there are."""
    below = [candidate(f) for f in runs.folders(workdir)] if "://" not in word else []
    if path.is_dir():
        matches = beside = [candidate(folder) for folder in runs.folders(path)]
    else:
        folders = path.parent.iterdir() if path.name and path.parent.is_dir() else ()
        beside = [candidate(folder) for folder in sorted(folders) if runs.is_run(folder)]
        matches = choose(path.name, beside)

    def different(candidates: list[Candidate]) -> list[Candidate]:
        return list({run.folder.absolute(): run for run in candidates}.values())

    return different([*choose(word, below), *matches]), different([*below, *beside])


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
    if place is None and word and _matches(word, bucket.run(word), workdir)[0]:
        return run(word, workdir)
    experiments = sorted({folder.parent.name for folder in below})
    there = f"; below {workdir} there are {', '.join(experiments)}" if experiments else ""
    if place is not None and not place.is_dir():
        raise DlmError(f"{place}: {inputs.unreadable(place)}; must be a table or a folder of runs")
    if place is not None:
        raise DlmError(f"{place}: no run lies there; dlm run makes some{there}")
    near = nearest(word or "", experiments)
    raise DlmError(f"{word or workdir}: no such folder of runs{near}{there}")


def _looked(word: str, workdir: Path, count: int) -> str:
    if "://" in word:
        return "an address reads WORKDIR/EXPERIMENT/RUN"
    there = f"where {count} runs lie" if workdir.is_dir() else "which does not exist"
    return (
        f"looked for its folder, and for an id or a label that begins so below {workdir}, {there} "
        "(--workdir names another place)"
    )


def listed(candidates: Sequence[Candidate]) -> str:
    rest = len(candidates) - SHOWN
    shown = ", ".join(map(str, candidates[:SHOWN]))
    return shown + (f" and {rest} more" if rest > 0 else "")
