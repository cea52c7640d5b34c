"""`dlm objectives`: lists the families."""

from __future__ import annotations

import argparse
from typing import Any

from dlm import config
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.config import flops

SUMMARY = "list the families: formula, kind of number, cost, source"
EXAMPLES = "examples:\n  dlm objectives                                        one row for each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but those of every verb."""


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm.report.terminal import grid

    sizes: dict[str, Any] = dict(layers=6, width=512, ff=1344, rows=8192)
    length = 512
    base = flops.forward_flops(**sizes, length=length, attention="causal")
    rows = []
    for name, family in config.FAMILIES.items():
        objective = config.objective(name)
        read = sizes | dict(length=length + family.extra_positions, block=objective.block_length)
        cost = sum(
            share * flops.forward_flops(**read, attention=kind)
            for kind, share in objective.training_attention.items()
        )
        rows.append([name, family.kind, f"{cost / base:.2f}", family.formula, family.source])
    return show([
        grid(("objective", "number", "FLOPs of AR's", "nats per sequence", "source"), rows),
        f"FLOPs per token over AR's, 6 layers of width 512 at {length} tokens; a bound is a mean over "
        "passes, each of that cost. Options of each: dlm/config/families.py.",
    ])  # fmt: skip
