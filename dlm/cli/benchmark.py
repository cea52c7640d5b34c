"""`dlm benchmark`: times training, scoring and sampling on this device."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shlex
import sys
from typing import TYPE_CHECKING, Any

from dlm import config, disk, inputs
from dlm.cli import jobs as cli_jobs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError

if TYPE_CHECKING:
    from dlm.training.benchmark import Speed

SUMMARY = "time training, scoring and sampling on this device"
EXAMPLES = """examples:
  dlm benchmark                                         the sizes for this device
  dlm benchmark --size 1M --config.objective.name=masked
  dlm benchmark experiments/quickstart.py               the first run of its sweep
  dlm benchmark --size 5M --compare model.scan=True model.heads=8,train.steps_per_call=1

Each of --compare is one variant: fields and values, with commas. Variants are timed in turn, and
the ratio is of training tokens per second over the config as it is. Tokens are random."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser, needed=False)
    options.add_run_number(parser, default=0)
    parser.add_argument(
        "--size", nargs="+", action="extend", default=[], help="non-embedding parameters"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE[,...]",
        help="variants, timed in turn",
    )
    parser.add_argument(
        "--seconds", type=inputs.above_zero(), default=10.0, help="of timing, each variant"
    )
    parser.add_argument(
        "--training-only", action="store_true", help="time neither scoring nor sampling"
    )
    parser.add_argument("--out", type=inputs.path, help="a JSON file for what was measured")


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    _check(a)
    from dlm.config import experiment
    from dlm.training import benchmark

    speeds, configs = [], {}
    for name, c, vocab_size in _cases(a, overrides):
        variants = {name: c}
        for text in a.compare:
            pairs = (experiment.parse_override(f"--config.{pair}") for pair in text.split(","))
            variants[f"{name} {text}"] = experiment.edited(c, pairs)
        speeds += benchmark.run(variants, vocab_size, a.seconds, a.training_only)
        configs |= {name: config.to_json(each) for name, each in variants.items()}
    lines = _tables(speeds)
    if a.compare:
        lines.append(
            "Ratio: to the first of a size, the median over rounds in which each has a turn."
        )
    if a.out is not None:
        disk.write_json(a.out, _record(speeds, configs))
        lines.append(f"written: {a.out}")
    return show(lines)


def _check(a: argparse.Namespace) -> None:
    if a.experiment and a.size:
        named = a.size[0]
        raise DlmError(f"--size {named}: goes without an experiment, whose model has a size")
    options.check_writable(a.out and a.out.parent)
    if a.out is not None and a.out.exists() and (problem := inputs.unreadable(a.out)):
        raise DlmError(f"--out {a.out}: {problem}; must be a JSON file")


def _cases(a: argparse.Namespace, overrides: Overrides) -> list[tuple[str, config.Config, int]]:
    """(name, config, vocabulary) of the experiment's run, or of each size."""
    from dlm import api
    from dlm.config import experiment
    from dlm.data import build
    from dlm.training import benchmark

    if a.experiment:
        job = api.chosen(cli_jobs.plan_jobs(a, overrides, machine=None), a.run)
        return [(job.info.label, job.config, build.load(job.store).vocab_size)]
    cases = []
    for name in a.size or benchmark.default_sizes():
        c, vocab_size = benchmark.sized(name)
        cases.append((name, experiment.edited(c, overrides), vocab_size))
    return cases


def _tables(speeds: list[Speed]) -> list[Any]:
    from dlm.report.terminal import grid
    from dlm.training import environment

    training = [
        [
            *(s.name, s.objective, f"{s.parameters:,}", f"{s.tokens_per_second:,.0f}"),
            f"{s.low:,.0f} to {s.high:,.0f}",
            *("unknown" if s.mfu is None else f"{s.mfu:.0%}", f"{s.ratio:.2f}"),
        ]
        for s in speeds
    ]
    rest = [
        [
            *(s.name, f"{s.compile_seconds:.1f} s", f"{s.step_bytes / 2**20:,.0f} MiB"),
            f"{s.input_share:.1%}",
            *(
                "" if rate is None else f"{rate:,.0f}"
                for rate in (s.evaluation_tokens_per_second, s.sampling_tokens_per_second)
            ),
        ]
        for s in speeds
    ]
    head = ("", "objective", "parameters", "training tokens/s", "quartiles", "MFU", "ratio")
    second = ("", "compiling", "memory of a step", "input", "scored tokens/s", "sampled tokens/s")
    device = f"{environment.device()}, jax {environment.versions()['jax']}"
    return [device, grid(head, training), "", grid(second, rest)]


def _record(speeds: list[Speed], configs: dict[str, Any]) -> dict[str, Any]:
    from dlm.training import environment

    return {
        "device": environment.device(),
        "versions": environment.versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["dlm", *sys.argv[1:]]),
        "speeds": [dataclasses.asdict(s) | {"config": configs[s.name]} for s in speeds],
    }
