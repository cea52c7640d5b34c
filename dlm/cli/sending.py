"""What an experiment reads here: `python -m dlm.cli.sending EXPERIMENT [options of dlm run]`.

Prints a line for each file, or pattern of files: the setting that names it, a tab, its path. The
scripts of launch/ ask before they send an experiment elsewhere; a mistake in it exits with 2 then.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlm import config
from dlm.cli import parser
from dlm.config import experiment
from dlm.errors import DlmError


def main(argv: Sequence[str]) -> int:
    arguments, overrides = parser.parse(["run", *argv])
    try:
        base, sweep = experiment.load(arguments.experiment, arguments.scale)
        configs = experiment.expand(*experiment.with_overrides(base, sweep, dict(overrides)))
    except DlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for field, path in dict.fromkeys(pair for c in configs for pair in read_here(c)):
        if not (Path(path).exists() and Path(path).samefile(arguments.experiment)):
            print(f"{field}\t{path}")
    return 0


def read_here(c: config.Config) -> Iterator[tuple[str, str]]:
    """(field, path) of what a config names and this machine has; paths relative to here, if below."""
    named: list[tuple[str, Any]] = [
        ("objective.file", c.objective.file),
        ("tokenizer.path", c.tokenizer.path),
        *((f"corpus.options.{name}", value) for name, value in c.corpus.options.items()),
    ]
    for field, value in named:
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and text and (Path(text).exists() or glob.glob(text)):
                path = os.path.relpath(text)
                yield field, text if path.startswith("..") else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
