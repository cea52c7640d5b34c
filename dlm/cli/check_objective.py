"""`dlm check-objective`: checks a built-in or custom objective against the required invariants."""

from __future__ import annotations

import argparse

from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError

SUMMARY = "check a built-in or custom objective against the invariants that all must keep"
EXAMPLES = """examples:
  dlm check-objective experiments/own_objective.py
  dlm check-objective d3pm --config.objective.transition=absorbing"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("objective", help="a Python file, or a name")
    parser.set_defaults(takes_config=True)


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm import api, objectives
    from dlm.objectives import checks
    from dlm.report.terminal import grid
    from dlm.sweep import worker

    worker.prepare_jax()
    c = api.objective_config(a.objective, overrides)
    objective = objectives.make(c.objective, checks.VOCABULARY)
    laws = checks.check(objective)
    rows = [["holds" if p.holds else "BROKEN", p.law, p.words] for p in laws]
    kind = objective.family.kind
    head = f"{objective.name} ({kind}), all {checks.VOCABULARY}^{checks.LENGTH} strings"
    if broken := [p for p in laws if not p.holds]:
        raise DlmError("; ".join(f"{objective.name}: {p.law}: {p.words}" for p in broken))
    return show([head, grid(("", "law", "found"), rows)])
