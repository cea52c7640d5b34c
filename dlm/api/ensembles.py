"""Scores ensembles over seeds and keeps what they reach beside the runs, where the report finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import runs
from dlm.api import models
from dlm.api.models import Model
from dlm.errors import DlmError
from dlm.runs import ensembles, likelihoods

if TYPE_CHECKING:
    from dlm.evaluation.likelihood import Likelihood

FEWEST = 2  # members


@dataclass(frozen=True, eq=False)
class Scored:
    """What an ensemble reaches, and where it is kept."""

    model: Model
    path: Path  # its ensemble.json
    loss: Likelihood  # on the whole validation split, as a run's loss is scored
    further: dict[str, Likelihood]  # by name: what was asked for besides


def over_seeds(every: Sequence[runs.Run], members: int = 0) -> list[tuple[runs.Run, ...]]:
    """The finished runs of each setting with several seeds, by seed, in each experiment's folder.

    `members`: the first so many seeds of each setting that has them; 0: all.

    Raises:
      DlmError: no setting has so many seeds.
    """
    by_folder: dict[Path, list[runs.Run]] = {}
    for run in every:
        by_folder.setdefault(run.path.parent, []).append(run)
    settings = [
        setting.runs
        for listed in by_folder.values()
        for panel in runs.panels(listed)[0]
        for family in panel.families.values()
        for setting in family.settings
    ]
    most = max(map(len, settings), default=0)
    if most < max(members, FEWEST):
        raise DlmError(
            f"members={members or FEWEST}: no setting has so many finished seeds; the most is {most}"
        )
    return [each[: members or None] for each in settings if len(each) >= max(members, FEWEST)]


def score(members: Sequence[runs.Run], trust: bool = False, **method: Any) -> Scored:
    """Scores runs that differ in their seed alone as one model, and keeps its loss beside them.

    `method`: another number for the likelihood, as of `Model.likelihoods`, which is kept too; without
    any, that of the runs' `evaluation.final`, if they have one. `trust`: as of `Run.model`.

    Raises:
      DlmError: members of several settings, corpora or folders, of the same seed, or that are not
        finished; a number that the objective has not.
    """
    from dlm.config.method import Method, parse

    asked = Method(**method)
    if asked.bound == "nelbo" and asked.windows:
        raise DlmError(
            f"windows={asked.windows}: an ensemble's loss is of all windows, as a run's is"
        )
    runs.check_seeds(members)
    folder, digests = ensembles.place(members), ensembles.digests(members)
    from dlm.evaluation import likelihood
    from dlm.evaluation.score import bits_per_byte  # JAX is loaded after the mistakes

    model = models.ensemble([models.restore(run.path, trust) for run in members])
    noise = {name: method[name] for name in ("mc_stderr",) if name in method}
    loss = next(iter(model.likelihoods(**noise).values()))
    value = loss.estimate
    path = ensembles.write(
        folder,
        ensembles.Score(
            members=digests,
            kind=value.kind,
            validation_loss=value.value,
            validation_stderr=value.stderr,
            validation_mc_stderr=value.mc_stderr,
            validation_tokens=value.tokens,
            mc_samples=loss.mc_samples,
            bits_per_byte=bits_per_byte(value, model.store.bytes_per_token),
        ),
        loss.nats,
        loss.documents,
    )
    final = model.config.evaluation.final
    how = parse(final) if asked.bound == "nelbo" and final else asked
    if how.bound == "nelbo" or model.config.objective.family.exact:
        return Scored(model, path, loss, {})
    further = model.likelihoods(**dataclasses.asdict(how))
    likelihoods.write(folder, likelihood.to_keep(further, how))
    return Scored(model, path, loss, further)
