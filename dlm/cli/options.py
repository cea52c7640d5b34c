"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.errors import DlmError, nearest
from dlm.laws.forms import LAWS, POINTS

Overrides = list[tuple[str, Any]]  # (dotted key of the config, value)

RUN = "a run's folder or its address in a bucket; below the workdir its id, a beginning, its label"

unique_tokens = inputs.number("from 1 to 1e30, a number of raw tokens", lambda u: 1 <= u <= 1e30)
some_share = inputs.number("above 0, at most 1", lambda share: 0 < share <= 1)


def add_experiment(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """EXPERIMENT and --scale; the verb takes --config overrides."""
    words = "a Python file with get_config(scale)"
    parser.add_argument("experiment", nargs=None if needed else "?", help=words)
    parser.add_argument("--scale", default="laptop", help="laptop, smoke, gpu or paper")
    parser.set_defaults(takes_config=True)
    verb = parser.prog.split()[-1]
    if needed:
        parser.usage = f"dlm {verb} EXPERIMENT [options] [--config.GROUP.FIELD=VALUE ...]"


def add_run_number(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    words = "which run of the sweep, from 0"
    parser.add_argument("--run", type=inputs.whole(), default=default, help=words)


def add_distributed(parser: argparse.ArgumentParser) -> None:
    words = "train across hosts; start the same command on each"
    parser.add_argument("--distributed", action="store_true", help=words)


def add_trust(parser: argparse.ArgumentParser, words: str = "") -> None:
    words = words or "run the objective file that a run names"
    parser.add_argument("--trust", action="store_true", help=words)


def add_folder(parser: argparse.ArgumentParser) -> None:
    words = "path, address, or name below the workdir (default: all of it)"
    parser.add_argument("folder", nargs="?", help=words)


# --- sampling -----------------------------------------------------------------------------------

MOST_SAMPLES = 1_000_000


def add_count(parser: argparse.ArgumentParser, default: int, words: str) -> None:
    parser.add_argument("--count", type=inputs.whole(1, MOST_SAMPLES), default=default, help=words)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How a run's model draws; `sampling` reads it."""
    parser.add_argument(
        "--seed",
        type=inputs.whole(0, 2**32 - 1),
        default=0,
        help="of what is drawn (default: 0)",
    )
    parser.add_argument(
        "--temperature", type=inputs.zero_or_more(), default=1.0, help="0: the likeliest token"
    )
    parser.add_argument(
        "--top-p",
        type=some_share,
        default=1.0,
        help="nucleus: 0 to 1 (default: 1)",
    )
    parser.add_argument("--sampler", default="ancestral", help="see the end of dlm sample --help")
    parser.add_argument(
        "--entropy-budget",
        type=inputs.zero_or_more("0 or more, in nats"),
        default=0.1,
        help="of --sampler entropy, in nats",
    )


def sampling(a: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "top_p", "sampler", "entropy_budget")
    return {name: getattr(a, name) for name in names}


# --- tables and figures -------------------------------------------------------------------------


def add_law(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument("--law", type=inputs.one_of(LAWS), default="data-constrained", help=words)


def add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="MEANING=COLUMN",
        help="titles of the table's columns, such as params=n_params loss=val",
    )


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Which figures are drawn, and how wide."""
    parser.add_argument(
        "--figure", nargs="+", action="extend", default=[], metavar="NAME",
        help="only these, figures or panels (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--width",
        type=inputs.zero_or_more("0 or more inches"),
        default=0.0,
        metavar="INCHES",
        help="of each figure, such as 3.25",
    )


def check_figures(asked: Sequence[str], width: float, names: Sequence[str]) -> None:
    """Refuses a figure that no name begins, or a width that no figure can have.

    Raises:
      DlmError: it names the figures, or the widths.
    """
    from dlm.report.canvas import NARROWEST, WIDEST

    for name in asked:
        if not any(name == known or name.startswith(f"{known}-") for known in names):
            raise DlmError(
                f"--figure {name}: must be one of {', '.join(names)}{nearest(name, names)}"
            )
    if width and not NARROWEST <= width <= WIDEST:
        raise DlmError(f"--width {width:g}: must be from {NARROWEST:g} to {WIDEST:g} inches")


def check_writable(folder: Path | None, option: str = "--out") -> None:
    """Refuses a folder that cannot be written, before anything is computed.

    Raises:
      DlmError: the folder cannot be made, or written to.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "no permission")
    except OSError as error:
        raise DlmError(f"{option} {folder}: cannot be written ({error.strerror})") from None


def add_fitting(parser: argparse.ArgumentParser) -> None:
    """How `dlm plan` and `dlm optimum` fit the laws of a table or a folder of runs."""
    parser.add_argument(
        "--families", nargs="+", action="extend", default=[], help="such as ar masked any_order"
    )
    parser.add_argument(
        "--law",
        type=inputs.one_of(("auto", *LAWS)),
        default="auto",
        help="of a table: see dlm fit --help",
    )
    add_columns(parser)
    parser.add_argument(
        "--points",
        type=inputs.one_of(POINTS),
        default="best",
        help="of dlm's own runs: best, or last, which shows over-fitting (default: best)",
    )
    parser.add_argument(
        "--resamples",
        type=inputs.whole(0, 100_000),
        default=400,
        help="of a table, behind the intervals (default: 400; 0: none)",
    )
