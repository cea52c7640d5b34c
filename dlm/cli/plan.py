"""`dlm plan`: what to train with so much data and so much compute."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlm import inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError

SUMMARY = "what to train with so many unique tokens and so much compute: family, size, epochs"
EXAMPLES = """examples:
  dlm plan --unique-tokens 1e8 --device h100 --hours 168
  dlm plan --unique-tokens 1e8 --flops 2e20 --laws muennighoff
  dlm plan --unique-tokens 1e8 --loss 3.4               what it would take
  dlm plan experiments/quickstart.py                    hours, memory, disk of its runs here
  dlm plan experiments/paper_pareto.py --scale paper --device h100 --devices 8
  dlm plan --unique-tokens 6400 --device here --hours 2 --laws runs/paper_pareto-laptop
  dlm plan --unique-tokens 1e8 --device h100 --devices 8 --hours 24 --laws runs.csv \\
      --write experiments/mine.py --out plan/

Laws: paper (read off the figures of arXiv 2507.15857), muennighoff (AR alone), a JSON file of
dlm fit --out, or your own table or folder of runs, which is fitted. Compute is 6ND, N with
embeddings. A device is h100, a100, tpu-v5e and others, here (measured in five seconds), or the FLOP/s
that your training reaches."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser, needed=False)
    words = "raw tokens that differ"
    parser.add_argument("--unique-tokens", type=options.unique_tokens, metavar="U", help=words)
    budget = parser.add_argument_group("budget: one of")
    budget.add_argument("--hours", type=inputs.above_zero(), help="of the devices")
    budget.add_argument("--flops", type=inputs.above_zero(), help="6ND, N with embeddings")
    budget.add_argument("--loss", type=inputs.above_zero(), help="to reach, nats per token")
    parser.add_argument("--device", default="", help="h100, a100, here, or FLOP/s of training")
    parser.add_argument(
        "--devices", type=inputs.whole(1, 1_000_000), default=1, help="how many (default: 1)"
    )
    parser.add_argument(
        "--mfu",
        type=options.some_share,
        default=0.0,
        help="share of the peak that training reaches (default: assumed, 0.21 to 0.35 by size)",
    )
    words = "paper, muennighoff, a JSON file, a table or a folder of runs (default: paper)"
    parser.add_argument("--laws", type=inputs.path, default="paper", help=words)
    options.add_fitting(parser)
    parser.add_argument("--write", type=inputs.path, help="an experiment file to write")
    parser.add_argument("--out", type=inputs.path, help="a folder for plan.html and figures")
    parser.add_argument("--json", action="store_true", help="print JSON, not words")


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    return show(_lines(a, overrides) if a.experiment is None else _of_experiment(a, overrides))


def _of_experiment(a: argparse.Namespace, overrides: Overrides) -> Iterator[str]:
    """What the runs of an experiment file take; trains nothing, downloads nothing."""
    from dlm.cli import forecast, jobs
    from dlm.sweep import machine

    for name in ("unique_tokens", "hours", "flops", "loss", "write", "out"):
        if getattr(a, name):
            option = f"--{name.replace('_', '-')}"
            raise DlmError(f"{option}: goes without EXPERIMENT, which says what is trained")
    with contextlib.redirect_stdout(sys.stderr if a.json else sys.stdout):  # it names corpora
        planned = jobs.plan_jobs(a, overrides, None, fetch=False)
    elsewhere = a.device not in ("", "here")
    most = max(job.devices for job in planned)
    workers = a.devices if elsewhere else machine.default_workers(most)
    takes, how = forecast.of_experiment(planned, workers, a.device, a.mfu)
    if a.json:
        known = {name: None if math.isnan(v) else v for name, v in takes._asdict().items()}
        yield json.dumps(known | {"workers": workers, "speed": how}, indent=1)
        return
    yield f"{len(planned)} runs: {forecast.words(takes, workers, how)}"
    for warning in forecast.warnings(planned, takes.seconds):
        yield f"warning: {warning}"


def _lines(a: argparse.Namespace, overrides: Overrides) -> Iterator[Any]:
    from dlm.api import planner
    from dlm.laws import columns, stages
    from dlm.report import plan_page

    if overrides:
        raise DlmError("--config: only with EXPERIMENT; a plan of data and compute has no config")
    if a.unique_tokens is None:
        raise DlmError(
            "dlm plan: needs --unique-tokens, such as 1e8; dlm plan --help shows examples"
        )
    options.check_writable(a.out)
    if a.write is not None and (a.write.suffix != ".py" or a.write.is_dir()):
        raise DlmError(f"--write {a.write}: must be a Python file, such as experiments/mine.py")
    if a.write is not None and a.write.exists() and not _is_written_by_a_plan(a.write):
        raise DlmError(f"--write {a.write}: is there, and no plan wrote it; name another file")
    if a.write is not None:
        options.check_writable(a.write.parent, "--write")
    with stages.show() as tell:
        p = planner.plan(
            a.unique_tokens, hours=a.hours or 0.0, flops=a.flops or 0.0, loss=a.loss or 0.0,
            device=a.device, device_count=a.devices, mfu=a.mfu, laws=a.laws, families=a.families,
            law=a.law, columns=columns.parse(a.columns), points=a.points, resamples=a.resamples,
            tell=tell,
        )  # fmt: skip
    written = [_write(a, p)] if a.write is not None else []
    if a.out is not None:
        from dlm.report import plan_figure

        written += plan_figure.write_page(a.out, p)
    if a.json:
        yield json.dumps(plan_page.as_json(p), indent=1)
        return
    yield from plan_page.terminal(p)
    yield from (f"written: {path}" for path in written)
    yield _next(a)


def _is_written_by_a_plan(path: Path) -> bool:
    from dlm.config.experiment_file import ORIGIN

    largest = 1 << 20  # bytes, far above any that a plan writes
    return not inputs.unreadable(path, largest) and ORIGIN in path.read_text("utf-8", "replace")


def _write(a: argparse.Namespace, p: Any) -> Path:
    from dlm import disk
    from dlm.laws import plan as planning
    from dlm.report import plan_page

    text = planning.experiment_text(p, a.write, command(a), plan_page.summary(p))
    try:
        return disk.write(a.write, text)
    except OSError as error:
        raise DlmError(f"--write {a.write}: cannot be written ({error.strerror})") from None


def command(a: argparse.Namespace) -> str:
    """The command that asked for this plan, without what it writes."""
    words = ["dlm", "plan", "--unique-tokens", _plain(a.unique_tokens)]
    for name in ("hours", "flops", "loss", "mfu"):
        words += [f"--{name}", _plain(value)] if (value := getattr(a, name)) else []
    words += ["--device", a.device] if a.device else []
    words += ["--devices", str(a.devices)] if a.devices > 1 else []
    words += ["--laws", str(a.laws)] if str(a.laws) != "paper" else []
    words += ["--families", *a.families] if a.families else []
    words += ["--law", a.law] if a.law != "auto" else []
    words += ["--points", a.points] if a.points != "best" else []
    words += ["--columns", *a.columns] if a.columns else []
    return shlex.join(words)


def _plain(value: float) -> str:
    """1e8, as one types it."""
    return f"{value:g}".replace("e+0", "e").replace("e+", "e")


def _next(a: argparse.Namespace) -> str:
    if a.write is None:
        return f"\nNext: {command(a)} --write experiments/mine.py"
    return f"\nNext: dlm run {a.write} --dry-run; dlm run {a.write}"
