"""`dlm runs`: lists the runs below a folder and writes their table, or compares two of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import DONE, show
from dlm.errors import DlmError
from dlm.format import fixed, sentence
from dlm.runs import Family, Run, Setting, addresses, panel_key

SUMMARY = "list the runs below a folder and write runs.csv and runs.parquet there, or compare two"
EXAMPLES = """examples:
  dlm runs runs/
  dlm runs runs/quickstart
  dlm runs --diff 0123 9876              the settings in which two runs differ, and their results"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    parser.add_argument(
        "--diff", nargs=2, metavar="RUN", help="show in what two runs differ, and their results"
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm import api, runs
    from dlm.report.terminal import grid

    if a.diff:
        if a.folder:
            raise DlmError(f"{a.folder}: --diff takes two runs and no folder")
        return show(_difference(a.diff, a.workdir))
    loaded = api.load(a.folder)
    rows = [
        [
            row["run"] or "",
            row["status"] or "",
            fixed(row["validation_loss"], 4),
            row["experiment"] or "",
            row["label"] or "",
        ]
        for row in runs.rows(loaded)
    ]
    if sys.stdout.isatty():
        show([grid(("run", "status", "loss", "experiment", "label"), rows)])
    else:  # a line a run, for other programs
        for run, status, loss, name, label in rows:
            print(f"{run}  {status:10} {loss:8} {name}: {label}")
    tables = runs.write_table(loaded, a.folder)
    print(f"{len(loaded)} runs; {tables[0]}, {tables[1]}")
    return DONE


def _difference(words: Sequence[str], workdir: Path) -> list[Any]:
    """Two runs beside each other: the fields of their configs that differ, then their results."""
    from dlm import api
    from dlm.laws import crossover
    from dlm.report.terminal import grid, prose
    from dlm.runs import difference

    a, b = (api.load(addresses.run(word, workdir))[0] for word in words)
    head = ("", f"{a.run} {a.label}", f"{b.run} {b.label}")
    settings = difference.settings(a, b)
    lines = [grid(head, settings)] if settings else ["The configs do not differ."]
    lines += ["", grid(head, difference.results(a, b)), ""]
    unfinished = [run for run in (a, b) if run.status != "finished"]
    if unfinished:
        return [*lines, prose(f"{unfinished[0].run} is not finished: the losses are not compared.")]
    if panel_key(a) != panel_key(b):
        what = "corpus, tokens, unique tokens or length differ: the losses are not comparable."
        return [*lines, prose(f"Not the same data: {what}")]
    conclusion = crossover.final(*(_alone(run) for run in (a, b))).comparison.conclusion
    words_of_error = "The standard error is over validation documents."
    return [*lines, prose(f"{sentence(conclusion)}. {words_of_error}")]


def _alone(run: Run) -> Family:
    """A run as a family of its own, named by its id."""
    return Family(run.run, run.result["kind"], (Setting(run.label, (run,)),), 1)
