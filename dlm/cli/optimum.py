"""`dlm optimum`: the best size, tokens and epochs for a compute, by each family's law."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from dlm import inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show

SUMMARY = "the best size, tokens and epochs for a compute, by each family's law"
EXAMPLES = """examples:
  dlm optimum runs.csv --flops 1e20                     and by decades around it
  dlm optimum runs.csv --flops 1e18 1e19 1e20 --unique-tokens 1e8
  dlm optimum fits/fit.json --flops 1e20 --json
  dlm optimum paper --flops 1e20 --unique-tokens 1e8 --out optimum/

A table is fitted as dlm plan fits it; the envelope of its runs (approach 1), isoFLOP parabolas
(approach 2) and its law (approach 3) stand beside each other. Compute is 6ND, N with embeddings.
Without --unique-tokens no token is repeated."""

DECADES = (1e-2, 1e-1, 1.0, 1e1, 1e2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "a table, a folder of runs, a JSON file of laws, paper or muennighoff"
    parser.add_argument("laws", type=inputs.path, help=words)
    parser.add_argument(
        "--flops", type=inputs.above_zero(), nargs="+", required=True, help="6ND, N with embeddings"
    )
    parser.add_argument(
        "--unique-tokens",
        type=options.unique_tokens,
        default=0.0,
        metavar="U",
        help="raw tokens that differ (default: no token is repeated)",
    )
    options.add_fitting(parser)
    parser.add_argument("--out", type=inputs.path, help="a folder for optimum.json and a figure")
    parser.add_argument("--json", action="store_true", help="print JSON, not words")


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    return show(_lines(a))


def _lines(a: argparse.Namespace) -> Iterator[Any]:
    from dlm.laws import chosen, columns, stages
    from dlm.report import optimum_page

    options.check_writable(a.out)
    with stages.show() as tell:
        laws = chosen.read(
            a.laws, a.families, law=a.law, columns=columns.parse(a.columns),
            points=a.points, resamples=a.resamples, tell=tell,
        )  # fmt: skip
    flops = sorted(a.flops) if len(a.flops) > 1 else [a.flops[0] * factor for factor in DECADES]
    optima = optimum_page.optima(laws, flops, a.unique_tokens, a.resamples)
    if a.json:
        yield json.dumps(optimum_page.as_json(laws, optima), indent=1)
    else:
        yield from optimum_page.terminal(laws, optima)
    if a.out is not None:
        paths = optimum_page.write(a.out, laws, optima)
        yield from (f"written: {path}" for path in paths if not a.json)
