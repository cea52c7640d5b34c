"""`dlm report`: writes the report of a folder of runs, or of a table of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlm.cli import figures, options
from dlm.cli.law_options import LawOptions
from dlm.cli.options import Overrides
from dlm.cli.output import DONE, show
from dlm.errors import DlmError

SUMMARY = "write report.html, figures and tables from the runs below a folder (no JAX needed)"
EXAMPLES = """examples:
  dlm report runs/quickstart
  dlm report runs/continuum --reference block         differences to block diffusion
  dlm report runs/quickstart --width 3.25 --figure frontier     for a column of a paper
  dlm report runs.csv --columns loss=val_nll                    laws of a table"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    options.add_law(parser, "of a table of runs")
    options.add_columns(parser)
    options.add_figures(parser)
    parser.add_argument(
        "--reference",
        default="",
        metavar="FAMILY",
        help="compare all others with this family, or with one of its settings: "
        "'ar optimizer.lr=0.002' (default: ar)",
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm.report import page

    if a.folder.is_file():
        if a.reference:
            raise DlmError(
                "--reference: only with a folder of runs; a table's report compares none"
            )
        out = Path(f"{a.folder.with_suffix('')}-report")
        how = LawOptions(law=a.law, columns=a.columns)
        request = figures.Request(a.folder, out, figure=a.figure, width=a.width, how=how)
        return show(figures.draw(request))
    if a.columns:
        raise DlmError("--columns: only with a table; the runs of a folder have known columns")
    options.refuse(a, ["law"], "only with a table; dlm fit fits laws to a folder of runs")
    options.check_figures(a.figure, a.width, page.FIGURES)
    loaded = page.load(a.folder, a.reference)
    path = page.write(a.folder, a.figure, a.width, loaded)
    show(page.summary(a.folder, loaded))
    print(f"report: {path}")
    return DONE
