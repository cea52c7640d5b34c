"""Runs of a folder, as `dlm.load` returns them: a sequence with names, panels, a table, a summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dlm import inputs, runs
from dlm.api import ensembles
from dlm.api.ensembles import Scored
from dlm.api.models import Model, restore
from dlm.errors import DlmError, nearest
from dlm.runs import addresses, bucket

if TYPE_CHECKING:
    import pyarrow as pa


class Run(runs.Run):
    """One run as its folder has it; see `dlm.runs.Run` for all fields.

    >>> run = dlm.load("runs/tiny")["masked"]
    >>> run.status, run.config["objective"]["name"], run.result["kind"]
    ('finished', 'masked', 'upper bound')
    >>> run.curve.epoch.shape == run.curve.validation_loss.shape  # [evaluations], nats per token
    True
    """

    @inputs.checked
    def model(self, trust: bool = False) -> Model:
        """The best weights with their config, tokens and tokenizer. Loads JAX.

        `trust`: run the objective file that the run names even if you have not trained with it here.

        >>> dlm.load("runs/tiny")["ar"].model().config.objective.name
        'ar'

        Raises:
          DlmError: no checkpoint yet, a damaged one, or an objective file that is not trusted.
        """
        return restore(self.path, trust)


class Runs(Sequence[Run]):
    """Runs in the order of their folders; a string finds one by its id, a unique beginning of it, its
    label, or words that only its label has, as in runs["masked seed=0"].

    >>> runs = dlm.load("runs/tiny")
    >>> len(runs), [run.objective for run in sorted(runs, key=lambda run: run.label)]
    (2, ['ar', 'masked'])
    >>> runs[runs[0].run[:6]] is runs[0]
    True
    """

    def __init__(self, members: Iterable[Run], name: str = "") -> None:
        self._runs = tuple(members)
        self.name = name

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @overload
    def __getitem__(self, index: int | str) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | str | slice) -> Run | Runs:
        if isinstance(index, str):
            return self._find(index)
        if isinstance(index, slice):
            return Runs(self._runs[index], self.name)
        return self._runs[index]

    def __repr__(self) -> str:
        lines = [f"{run.run}  {run.status}  {run.label}" for run in self]
        return "\n".join([f"{len(self)} runs in {self.name}", *lines])

    def _find(self, word: str) -> Run:
        """The run of an id, a unique beginning of it, a label, or words that no other label has.

        Raises:
          DlmError: no run, or several; lists those that may be meant.
        """
        by_folder = {run.path: run for run in self}
        candidates = [
            addresses.Candidate(run.run, run.path, lambda run=run: run.label) for run in self
        ]
        matches = addresses.choose(word, candidates) if word else []
        if len(matches) == 1:
            return by_folder[matches[0].folder]
        if matches:
            several = addresses.listed(matches)
            raise DlmError(f"{word}: may be any of {len(matches)} runs: {several}; give more of it")
        known = [name for run in self for name in (run.run, run.label)]
        raise DlmError(f"{word!r}: no such run among {len(self)}{nearest(word, known)}")

    @cached_property
    def _grouped(self) -> tuple[list[runs.Panel], list[tuple[runs.Run, str]]]:
        return runs.panels(self)

    @property
    def panels(self) -> list[runs.Panel]:
        """The groups whose losses may be compared: the same tokens, unique tokens and length.

        >>> [(panel.unique_tokens, list(panel.families)) for panel in dlm.load("runs/tiny").panels]
        [(512, ['ar', 'masked'])]
        """
        return self._grouped[0]

    @property
    def excluded(self) -> list[tuple[runs.Run, str]]:
        """The runs that are in no panel, each with the reason."""
        return self._grouped[1]

    def table(self) -> pa.Table:
        """One row per run, of every status; the columns and values of runs.parquet.

        >>> dlm.load("runs/tiny").table().select(["objective", "status"]).num_rows
        2
        """
        return runs.table(self)

    @inputs.checked
    def score_ensembles(self, members: int = 0, trust: bool = False, **method: Any) -> list[Scored]:
        """Scores the seeds of each setting as one model, and keeps what it reaches beside the runs, as
        `dlm evaluate FOLDER --ensemble` does; the report of the folder then compares it.

        `members`: the first so many seeds (0: all). `method`: as of `Model.likelihoods`. Each result
        has `.loss`, `.further` (other numbers, by name), `.model` and `.path`.

        >>> dlm.load("runs/tiny").score_ensembles()
        Traceback (most recent call last):
        dlm.errors.DlmError: members=2: no setting has so many finished seeds; the most is 1

        Raises:
          DlmError: no setting has so many seeds, or the objective has no such number.
        """
        settings = ensembles.over_seeds(self, members)
        return [ensembles.score(each, trust, **method) for each in settings]

    def summary(self) -> dict[str, Any]:
        """Every number and sentence of the report, as report.json has them.

        >>> len(dlm.load("runs/tiny").summary()["answers"])  # one sentence a panel
        1
        """
        from dlm.report import summary

        return summary.numbers(self, self.panels, self.excluded)


@inputs.checked
def load(path: str | Path = "runs", workdir: str | Path = "runs") -> Runs:
    """The runs of a workdir, an experiment's folder, or one run: `path`, or a name below `workdir`.

    Loads no JAX. A damaged run is one of status unreadable, with the reason; none is left out.

    >>> runs = dlm.load("runs/tiny")
    >>> runs["masked"].result["validation_loss"] > 0  # nats per token
    True

    Raises:
      DlmError: there is no such folder, or no run in it.
    """
    folder = addresses.folder(str(path), Path(bucket.local(str(workdir))))
    return Runs((Run(**vars(run)) for run in runs.load(folder)), str(folder))
