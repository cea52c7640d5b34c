"""Names of run folders: `<label>-<id>`, such as `digits-masked-260ep-s0-bee6a16197`.

The id alone tells runs apart: a run is found by it under whatever label, and under none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dlm import sealed
from dlm.errors import DlmError
from dlm.format import file_stem, fit_words

ID = re.compile(r"(?:.*-)?([0-9a-f]{10})", re.DOTALL)
LONGEST = 60  # characters of a folder's name
UNITS = {"epochs": "ep", "steps": "st", "tokens": "tok", "flops": "flop"}  # of a duration


def folder_name(label: str, run_id: str) -> str:
    """The name of a run's folder: its label, short and safe as a file name, and its id.

    >>> folder_name("digits masked duration=260 epochs lr=0.002 seed=0", "bee6a16197")
    'digits-masked-260ep-lr0.002-s0-bee6a16197'
    """
    text = re.sub(r"\bduration=(\S+) (\w+)", lambda m: m[1] + UNITS.get(m[2], m[2]), label)
    text = re.sub(r"\bseed=(\d+)", r"s\1", text)
    text = re.sub(r"=(?=[\d.])", "", text).replace("=", "-")
    words = [stem for word in text.split() if (stem := file_stem(word))]
    short = fit_words(words, LONGEST - len(run_id) - 1, between="-").strip("-.")
    return f"{short}-{run_id}" if short else run_id


def run_id(folder: Path) -> str:
    """The id of the run in a folder: the end of the folder's name, else as run.json has it.

    A folder that was renamed and whose run.json cannot be read has its name for an id.
    """
    if match := ID.fullmatch(folder.name):
        return match[1]
    try:
        return str(sealed.read(folder / "run.json")["run_id"])
    except (DlmError, KeyError):
        return folder.name


def label(folder: Path) -> str:
    """The label of the run in a folder, as run.json has it; "" if that cannot be read."""
    try:
        return str(sealed.read(folder / "run.json")["label"])
    except (DlmError, KeyError):
        return ""


def places(experiment: Path, runs: Iterable[tuple[str, str]]) -> list[Path]:
    """The folder of each run, of which id and label are given, below its experiment's folder.

    A run that lies there under another label keeps its folder; of two folders with one id the one
    with a result counts.
    """
    there: dict[str, Path] = {}
    for name in sorted(os.listdir(experiment)) if experiment.is_dir() else ():
        if match := ID.fullmatch(name):
            before = there.get(match[1])
            if before is None or not (before / "result.json").exists():
                there[match[1]] = experiment / name
    return [there.get(run, experiment / folder_name(label, run)) for run, label in runs]
