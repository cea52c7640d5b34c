"""`dlm evaluate ... --ensemble`: scores seeds as one model, and keeps what they reach."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlm import runs
from dlm.cli import likelihood_lines
from dlm.cli.output import SOME_FAILED, show
from dlm.errors import DlmError
from dlm.format import scientific
from dlm.laws.crossover import name_of
from dlm.runs import addresses, bucket


def score(
    words: Sequence[str], workdir: Path, members: int, trust: bool, method: dict[str, Any]
) -> int:
    """Scores the runs of several words as one model, or the seeds of each setting of a folder.

    Raises:
      DlmError: runs that are no ensemble; of a folder, no setting with so many seeds.
    """
    from dlm.api import ensembles

    if len(words) > 1:
        members_named = [run for word in words for run in runs.load(addresses.run(word, workdir))]
        return show(_lines(members_named, trust, method))
    folder = addresses.folder(words[0], workdir)
    if not folder.is_dir() or runs.is_run(folder):
        raise DlmError("--ensemble: takes two runs or more, or a folder of runs")
    scored, failed = False, False
    for each in ensembles.over_seeds(runs.load(folder), members):
        try:
            show(_lines(each, trust, method))
            scored = True
        except DlmError as error:
            print(f"not scored: {', '.join(run.run for run in each)}: {error}", file=sys.stderr)
            failed = True
    if scored:
        print(f"dlm report {folder} compares them")
    return SOME_FAILED if failed else 0


def _lines(members: Sequence[runs.Run], trust: bool, method: dict[str, Any]) -> Iterator[str]:
    from dlm.api import ensembles

    scored = ensembles.score(members, trust, **method)
    first, results = members[0], [run.result for run in members]
    seeds = ", ".join(map(str, sorted(run.seed or 0 for run in members)))
    name = name_of(runs.family_of(first.objective, results[0]["kind"]))
    yield f"{name} on {first.corpus}, ensemble of {len(members)} (seeds {seeds}), best weights"
    yield from likelihood_lines.of_model(scored.model, {"loss": scored.loss})
    for name, number in scored.further.items():
        yield likelihood_lines.line(f"validation, {likelihood_lines.NAMED.get(name, name)}", number)
    losses = [each["validation_loss"] for each in results]
    yield f"  its members alone: {min(losses):.4f} to {max(losses):.4f}"
    whole, best = (sum(each[key] for each in results) for key in ("flops", "best_flops"))
    yield f"  training, all members: {scientific(whole)} FLOPs, {scientific(best)} to the best weights"
    yield f"  written: {scored.path}"
    if problem := bucket.try_send(scored.path.parent):
        yield f"  note: not sent: {problem}"
