"""`dlm critical`: the compute at which one family's law passes another's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dlm.cli import law_options, options
from dlm.cli.law_options import LawOptions
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError, nearest
from dlm.laws.crossings import TOO_FEW
from dlm.report.terminal import prose

if TYPE_CHECKING:
    from dlm.laws.critical import Fitted
    from dlm.laws.table import Table

SUMMARY = "the compute at which one family's law passes another's, for given unique tokens"
EXAMPLES = """examples:
  dlm critical runs.csv --unique-tokens 25e6 100e6 --law data-constrained
  dlm critical runs/quickstart --reference digits/ar --challenger digits/masked
  dlm critical --laws laws.json --unique-tokens 1e8

Beside the laws: where the measured frontiers cross, of a folder as its report has it, from every
tracked loss; of another table from the losses in it. Without a law that can be fitted, that alone.

laws.json: {"ar": {"law": "data-constrained", "coefficients": {"E": 1.8, "A": 290, ...}},
"masked": {...}}, or the fit.json that `dlm fit --out` writes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    law_options.add_arguments(parser)
    law_options.add_comparison(parser)


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    return show(_lines(a))


def _lines(a: argparse.Namespace) -> Iterator[Any]:
    from dlm.laws import comparison, law_files
    from dlm.report import law_page

    if a.table is None and a.laws is None:
        raise DlmError("no table; give a CSV, a Parquet file, a folder of runs, or --laws")
    how = law_options.from_arguments(a)
    tables = law_options.read(a.table, how)
    options.check_writable(a.out)
    laws = None if a.laws is None else law_files.read(a.laws)
    families = choose_families(list(laws or [t.family for t in tables]), a.reference, a.challenger)
    unique = choose_unique_tokens(a.unique_tokens, tables)
    no_law = ""
    if laws is None:
        try:
            laws = _fit([t for name in families for t in tables if t.family == name], how)
        except DlmError as error:
            laws, no_law = {}, str(error)
    compared = comparison.compare(families, laws, {t.family: t for t in tables}, unique)
    if no_law and all(crossing.status == TOO_FEW for crossing in compared.observed):
        raise DlmError(f"{no_law}; {TOO_FEW} to read the crossing without a law")
    refused = [f"no law: {no_law}"] if no_law else []
    yield from map(prose, [*law_options.remarks(tables), *refused])
    yield from law_page.comparison_terminal(compared)
    if a.out is not None:
        yield f"written: {law_page.write_critical(a.out, compared)}"


def choose_unique_tokens(asked: Sequence[float], tables: Sequence[Table]) -> list[float]:
    """The numbers of unique tokens that are compared: those asked for, else the tables' own.

    Raises:
      DlmError: none are named, and the tables have none.
    """
    from dlm.laws.table import unique_budgets

    unique = sorted(set(asked)) or unique_budgets(tables)[:12]
    if not unique:
        raise DlmError("--unique-tokens: give at least one number of raw tokens")
    return unique


def _fit(tables: Sequence[Table], how: LawOptions) -> dict[str, Fitted]:
    from dlm.laws import analysis, intervals, stages

    laws: dict[str, Fitted] = {}
    with stages.show() as tell:
        for t in tables:
            tell(f"{how.law}, family {t.family}: fitting {len(t):,} rows")
            fitted = analysis.fit_table(t, how.law, **how.of_fit())[0]
            tell(f"{how.law}, family {t.family}: resampling")
            laws[t.family] = intervals.bootstrap(fitted, how.resamples, how.seed)
    return laws


def choose_families(names: Sequence[str], reference: str, challenger: str) -> tuple[str, str]:
    """(reference, challenger): those asked for, else AR and the one family beside it.

    Raises:
      DlmError: an unknown family, or more than two to choose from.
    """
    ordered = sorted(
        names, key=lambda n: n.lower().rsplit("/", 1)[-1] not in ("ar", "autoregressive")
    )
    for asked in (reference, challenger):
        if asked and asked not in names:
            raise DlmError(
                f"family {asked!r}: must be one of {', '.join(names)}{nearest(asked, names)}"
            )
    if reference and reference == challenger:
        raise DlmError(f"--challenger {challenger}: must be another family than --reference")
    if len(names) < 2:
        raise DlmError(f"the critical compute needs two families; there is {', '.join(names)}")
    known = reference or challenger
    near = [n for n in ordered if n.rpartition("/")[0] == known.rpartition("/")[0]]
    near = near if known and len(near) > 1 else ordered  # digits/ar beside digits/masked
    first = reference or next(n for n in near if n != challenger)
    others = [n for n in near if n != first]
    if not challenger and len(others) > 1:
        raise DlmError(f"--challenger: name one of {', '.join(others)}")
    return first, challenger or others[0]
