"""Ensembles over seeds that were scored as one model: `ensembles/NAME/ensemble.json` of an experiment.

The file has the loss of the ensemble and the sha256 of each member's result, so that an ensemble is
stale as soon as a member changes. It is read as a run whose training FLOPs are the sum of the
members'; further numbers stand beside it as beside a run (`dlm.runs.likelihoods`). NumPy only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dlm import disk, sealed
from dlm.errors import DlmError, printed
from dlm.runs import names, schema
from dlm.runs.estimate import KINDS
from dlm.runs.folder import NLL, NLL_DOCUMENTS, RESULT
from dlm.runs.load import Curve, Run
from dlm.runs.schema import FINISHED, UNREADABLE

FOLDER, NAME = "ensembles", "ensemble.json"
VERSION = 1  # of the fields of `Score`
STALE = "stale"  # status of an ensemble if a member is missing, damaged, or not what was scored
# Numbers of the members' results: those that add up, those that are averaged, those that all share.
SUMS = ("params", "tokens", "flops", "flops_6nd", "best_flops", "seconds")
MEANS = ("epochs", "best_epoch", "best_step")
SHARED = ("corpus", "fingerprint", "vocab_size", "bytes_per_token", "entropy", "seq_len")


@dataclass(frozen=True, kw_only=True)
class Score:
    """ensemble.json: the members and what they reach together, in nats per token."""

    members: dict[str, str]  # run id -> sha256 of its result.json
    kind: str  # of the loss: one of `estimate.KINDS`, the kind of the members' own
    validation_loss: float
    validation_stderr: float  # over documents
    validation_mc_stderr: float  # the part of it that is Monte Carlo noise; 0: it is exact
    validation_tokens: int
    mc_samples: int  # Monte Carlo samples of each window; 0: it is exact
    bits_per_byte: float | None


class Ensemble(NamedTuple):
    """An ensemble as a run, and the runs that are its members; a stale or damaged one has none."""

    run: Run
    members: tuple[Run, ...]


# --- writing ------------------------------------------------------------------------------------


def place(members: Sequence[Run]) -> Path:
    """The folder of an ensemble, in the experiment of its members.

    Raises:
      DlmError: the members lie in several folders.
    """
    above, *others = dict.fromkeys(run.path.parent for run in members)
    if others:
        raise DlmError(f"members of one ensemble lie in {above} and {others[0]}, must be in one")
    ids = hashlib.sha256(" ".join(sorted(run.run for run in members)).encode()).hexdigest()[:10]
    first = members[0]
    label = f"{first.corpus} {first.objective} of {len(members)}"
    return above / FOLDER / names.folder_name(label, ids)


def digests(members: Sequence[Run]) -> dict[str, str]:
    """The sha256 of each member's result, by run id."""
    return {run.run: sealed.file_digest(run.path / RESULT) for run in members}


def write(
    folder: Path,
    score: Score,
    nats: Float[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
) -> Path:
    """Keeps an ensemble's loss with the nats and the document of each window; returns the path.

    Numbers that were kept for other members, or for these before they changed, are removed.

    Raises:
      DlmError: the folder is a link.
    """
    for path in (folder.parent, folder):
        disk.refuse_link(path)
    try:
        same = _score(folder).members == score.members
    except DlmError:
        same = False
    if folder.exists() and not same:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    disk.write_array(folder / NLL, nats)
    disk.write_array(folder / NLL_DOCUMENTS, documents)
    values = {"version": VERSION} | dataclasses.asdict(score)
    return sealed.write(folder / NAME, values, (NLL, NLL_DOCUMENTS))


# --- reading ------------------------------------------------------------------------------------


def read(runs: Iterable[Run]) -> list[Ensemble]:
    """The ensembles that are kept in the experiments of some runs, ordered by path.

    One with a member that lies there but is none of these runs is left out. A stale or damaged one
    has its status and the reason.
    """
    by_folder: dict[Path, dict[str, Run]] = {}
    for run in runs:
        by_folder.setdefault(run.path.parent, {})[run.run] = run
    ensembles = []
    for above, known in sorted(by_folder.items()):
        if not (above / FOLDER).is_dir():
            continue
        there = {names.run_id(path) for path in above.iterdir() if path.is_dir()}
        for folder in sorted((above / FOLDER).iterdir()):
            if folder.is_dir():
                ensembles += _read(folder, known, there - known.keys())
    return ensembles


def _read(folder: Path, known: dict[str, Run], not_asked: set[str]) -> list[Ensemble]:
    """The ensemble of a folder; none if one of its members is not asked for."""
    try:
        score = _score(folder)
    except DlmError as error:
        return [Ensemble(_broken(folder, known, UNREADABLE, str(error)), ())]
    if not_asked & score.members.keys():
        return []
    problems = [words for each in score.members.items() if (words := _changed(known, *each))]
    if problems:
        remedy = "score the ensemble again, or delete its folder"
        return [Ensemble(_broken(folder, known, STALE, f"{'; '.join(problems)}; {remedy}"), ())]
    members = tuple(sorted((known[run] for run in score.members), key=lambda run: run.seed or 0))
    return [Ensemble(_as_run(folder, score, members), members)]


def _score(folder: Path) -> Score:
    """ensemble.json of a folder. Raises DlmError if it, or an array beside it, is damaged."""
    values = sealed.read(folder / NAME)
    sealed.check_files(folder, values)
    if values.get("version") != VERSION:
        raise DlmError(f"{NAME}: version={values.get('version')!r}, must be {VERSION}")
    score: Score = schema.typed(values, Score, NAME, "")
    if score.kind not in KINDS or not score.members:
        raise DlmError(f"{NAME}: kind={score.kind!r} of {len(score.members)} members")
    return score


def _changed(known: dict[str, Run], member: str, digest: str) -> str:
    """Why a member is not what was scored; "" if it is."""
    run = known.get(member)
    if run is None:
        return f"member {member} is missing"
    if run.status != FINISHED:
        return f"member {member} is {run.status}: {run.reason}"
    if sealed.file_digest(run.path / RESULT) != digest:
        return f"member {member} has another result than the one that was scored"
    return ""


def _as_run(folder: Path, score: Score, members: Sequence[Run]) -> Run:
    """An ensemble as a run of one evaluation, at the sum of the members' FLOPs up to their best."""
    first, results = members[0], [run.result for run in members]
    result: dict[str, Any] = {name: results[0][name] for name in (*SHARED, "unique_tokens")}
    result |= {name: sum(each[name] for each in results) for name in SUMS}
    result |= {name: sum(each[name] for each in results) / len(results) for name in MEANS}
    result |= dataclasses.asdict(score) | {"seeds": [run.seed for run in members]}
    curve = {
        "step": result["best_step"],
        "tokens": result["tokens"] * result["best_flops"] / result["flops"],
        "epoch": result["best_epoch"],
        "flops": result["best_flops"],
        "seconds": result["seconds"],
        "validation_loss": score.validation_loss,
        "train_eval_loss": math.nan,
    }
    return Run(
        path=folder,
        experiment=first.experiment,
        run=names.run_id(folder),
        label=folder.name,
        status=FINISHED,
        reason="",
        objective=first.objective,
        corpus=first.corpus,
        seed=None,
        config=first.config,
        start=first.start,
        result=result,
        curve=Curve(**{name: np.array([value], float) for name, value in curve.items()}),
    )


def _broken(folder: Path, known: dict[str, Run], status: str, why: str) -> Run:
    """An ensemble that is not compared, as a run with the reason."""
    experiment = next(iter(known.values())).experiment
    empty = Curve(*(np.zeros(0) for _ in dataclasses.fields(Curve)))
    return Run(
        path=folder, experiment=experiment, run=names.run_id(folder),
        label=f"{FOLDER}/{printed(folder.name)}", status=status, reason=printed(why),
        objective="", corpus="", seed=None, config={}, start={}, result={}, curve=empty,
    )  # fmt: skip
