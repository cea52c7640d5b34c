"""Options of the verbs that fit laws: how a table is read, and how a law is fitted to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.cli import options
from dlm.errors import DlmError
from dlm.laws.forms import LOSSES, POINTS, STEPS

MOST_RESAMPLES = 1_000_000


@dataclass(frozen=True)
class LawOptions:
    """The options that `dlm fit`, `dlm critical` and `dlm figures` share, with their defaults."""

    law: str = "data-constrained"
    points: str = "best"
    columns: Sequence[str] = ()
    robust_loss: str = "huber"
    delta: float = 1e-3
    stages: str = "auto"
    resamples: int = 1000
    seed: int = 0
    drop_outliers: float = 0.0

    def of_fit(self) -> dict[str, Any]:
        """Keyword arguments of `dlm.laws.analysis.fit_table`."""
        from dlm.laws.robust_loss import RobustLoss

        loss = RobustLoss(self.robust_loss, self.delta)
        return {"loss": loss, "steps": self.stages, "drop_outliers": self.drop_outliers}


def from_arguments(a: argparse.Namespace) -> LawOptions:
    return LawOptions(**{field.name: getattr(a, field.name) for field in fields(LawOptions)})


def add_arguments(parser: argparse.ArgumentParser, table_needed: bool = False) -> None:
    parser.set_defaults(**vars(LawOptions()))
    words = "CSV, Parquet or a folder of runs"
    parser.add_argument("table", type=inputs.path, nargs=None if table_needed else "?", help=words)
    options.add_law(parser, "see dlm fit --help")
    words = "of dlm's own runs: best, last or curve"
    parser.add_argument("--points", type=inputs.one_of(POINTS), help=words)
    options.add_columns(parser)
    words = "huber, lad or gaussian"
    parser.add_argument("--robust-loss", type=inputs.one_of(LOSSES), help=words)
    parser.add_argument(
        "--delta",
        type=inputs.number("from 1e-9 to 1e9", lambda delta: 1e-9 <= delta <= 1e9),
        help="of huber, in log loss",
    )
    parser.add_argument("--stages", type=inputs.one_of(STEPS), help="auto, two or joint")
    parser.add_argument(
        "--resamples",
        type=inputs.whole(0, MOST_RESAMPLES),
        help="bootstrap; 0: none; fewer if rows are many",
    )
    parser.add_argument("--seed", type=inputs.whole(), help="of the bootstrap")
    parser.add_argument(
        "--drop-outliers",
        type=inputs.zero_or_more("0 (none) or more"),
        metavar="DEVIATIONS",
    )
    parser.add_argument("--out", type=inputs.path, help="a folder for what is written")


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Which two families are compared, at how many unique tokens, and by which laws."""
    parser.add_argument(
        "--laws", type=inputs.path, help="a JSON file with the laws, in place of fits"
    )
    parser.add_argument(
        "--unique-tokens", type=options.unique_tokens, nargs="+", default=[], metavar="U"
    )
    parser.add_argument("--reference", default="", help="a family (default: ar)")
    parser.add_argument("--challenger", default="", help="a family (default: the other one)")


def read(table: Path | None, how: LawOptions) -> list[Any]:
    """The table of each family, `dlm.laws.table.Table`; none if no table is named."""
    from dlm.laws import columns
    from dlm.laws import table as tables

    if table is None:
        return []
    return tables.read(table, points=how.points, columns=columns.parse(how.columns))


def read_family(table: Path, family: str, how: LawOptions) -> Any:
    """The table of one family."""
    from dlm.laws import columns
    from dlm.laws import table as tables

    return tables.one(table, family, points=how.points, columns=columns.parse(how.columns))


def remarks(tables: Sequence[Any]) -> list[str]:
    """What was assumed of the tables, and what was left out of them, each once."""
    notes = [f"note: {note}" for t in tables for note in t.notes]
    left_out = [f"left out: {label}: {reason}" for t in tables for label, reason in t.excluded]
    return [*dict.fromkeys(notes), *dict.fromkeys(left_out)]


def named_number(option: str, word: str) -> tuple[str, float]:
    """A word such as E=1.8.

    Raises:
      DlmError: it names the option.
    """
    name, _, value = word.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise DlmError(f"{option} {word}: must be NAME=NUMBER") from None
