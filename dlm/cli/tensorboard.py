"""`dlm tensorboard`: opens TensorBoard on a folder of runs."""

from __future__ import annotations

import argparse
import os
import sys

from dlm import inputs, runs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.errors import DlmError

SUMMARY = "open TensorBoard on a folder of runs"
EXAMPLES = "examples:\n  dlm tensorboard runs/quickstart --port 6006"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    parser.add_argument(
        "--port", type=inputs.whole(0, 2**16 - 1), default=6006, help="(default: 6006)"
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    if not a.folder.is_dir():
        raise DlmError(f"{a.folder}: is a file; name a folder of runs")
    # Runs are named by their folders, that is by their labels; one run has no folder above it.
    alone = ["--logdir_spec", f"{a.folder.resolve().name}:{a.folder / 'tensorboard'}"]
    shown = alone if runs.is_run(a.folder) else ["--logdir", str(a.folder)]
    words = ["-m", "tensorboard.main", *shown, "--port", str(a.port)]
    os.execv(sys.executable, [sys.executable, *words])
