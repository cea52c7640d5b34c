"""What a sweep shows while it runs: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dlm.format import duration, fit_words, percent

if TYPE_CHECKING:
    from dlm.sweep.jobs import Job

Show = Callable[[str, "Job", dict[str, Any]], None]
# Columns of a terminal: those of a line beside its label, of a bar and of a rate; the widths from which
# on there is room for the two, and the least room of a label.
REST, BAR, RATE, WITH_BAR, WITH_RATE, LEAST = 47, 24, 20, 100, 120, 12
EVERY = 15.0  # seconds between two lines of one run, where there is no terminal
LEFT_EVERY = 60.0  # seconds between two lines of the time that is left, likewise


@contextlib.contextmanager
def show(jobs: list[Job]) -> Iterator[Show]:
    """A function to tell of events: (event, job, row), event as in `dlm.sweep.local.execute`."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        yield _lines(jobs)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    width = console.width
    bar = [BarColumn(bar_width=BAR)] if width >= WITH_BAR else []
    room = max(width - REST - (BAR if bar else 0) - (RATE if width >= WITH_RATE else 0), LEAST)
    columns = (
        TextColumn("{task.description}", markup=False),  # brackets in a label are no markup
        *bar,
        TextColumn("{task.percentage:3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
    )
    total = sum(job.flops for job in jobs)
    bars: dict[str, Any] = {}
    done: dict[str, float] = {}
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        whole = progress.add_task(f"runs 0/{len(jobs)}", total=total, note="")

        def tell(event: str, job: Job, row: dict[str, Any]) -> None:
            run = job.info.run_id
            if event == "start":
                label = fit_words(job.info.label.split(), room, gap="…")
                bars[run] = progress.add_task(label, total=job.flops, note="compiling")
            elif event == "progress" and run in bars:
                done[run] = row["flops"] if "flops" in row else done.setdefault(run, 0.0)
                note = _note(row, rate=width >= WITH_RATE)
                progress.update(bars[run], completed=done[run], note=note)
            elif event not in ("start", "progress"):
                done[run] = job.flops
                if run in bars:
                    progress.remove_task(bars.pop(run))
                text = _ending(event, job, row)
                progress.console.print(text, markup=False, overflow="ignore", crop=False)
            ended = sum(1 for run in done if run not in bars)
            progress.update(
                whole, completed=sum(done.values()), description=f"runs {ended}/{len(jobs)}"
            )

        yield tell


def _lines(jobs: list[Job]) -> Show:
    last: dict[str, float] = {}
    ended: set[str] = set()
    left = _Left(sum(job.flops for job in jobs), time.monotonic())

    def tell(event: str, job: Job, row: dict[str, Any]) -> None:
        run, label = job.info.run_id, job.info.label
        left.tell(event, job, row)
        if event == "start":
            last[run] = time.monotonic()
            print(f"[{len(ended) + 1}/{len(jobs)}] {label}: started", flush=True)
        elif event == "progress":
            if time.monotonic() - last[run] > EVERY and "step" in row:
                last[run] = time.monotonic()
                print(f"        {label}: {_note(row)}", flush=True)
        else:
            ended.add(run)
            print(f"[{len(ended)}/{len(jobs)}] {_ending(event, job, row)}", flush=True)
            sys.stdout.flush()
        if line := left.line(time.monotonic(), len(ended), len(jobs)):
            print(line, flush=True)

    return tell


class _Left:
    """The time that is left of a sweep, by the FLOPs of training done since it began."""

    def __init__(self, total: float, now: float):
        self.total, self.began, self.last = total, now, now
        self.before: dict[str, float] = {}  # FLOPs of each run that an earlier call did
        self.done: dict[str, float] = {}

    def tell(self, event: str, job: Job, row: dict[str, Any]) -> None:
        run = job.info.run_id
        if event == "progress" and "flops" in row:
            self.before.setdefault(run, row["flops"])
            self.done[run] = row["flops"]
        elif event not in ("start", "progress"):
            self.before.setdefault(run, job.flops)  # it came to an end without a word: no speed
            self.done[run] = job.flops

    def line(self, now: float, ended: int, runs: int) -> str:
        """A line once in LEFT_EVERY seconds, as soon as there is a speed; else ""."""
        trained = sum(self.done.values()) - sum(self.before.values())
        if now - self.last < LEFT_EVERY or trained <= 0 or ended == runs:
            return ""
        self.last = now
        done = sum(self.done.values())
        seconds = (self.total - done) / trained * (now - self.began)
        share = percent(done / self.total)
        return f"[{ended}/{runs}] {share} of the training, about {duration(seconds)} left"


def _note(row: dict[str, Any], rate: bool = True) -> str:
    if "step" not in row:
        return row["phase"]
    parts = [f"epoch {row['epoch']:.1f}"]
    if "validation_loss" in row:
        parts.append(f"validation {row['validation_loss']:.3f}")
    elif "loss" in row:
        parts.append(f"loss {row['loss']:.3f}")
    if rate and "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


def _ending(event: str, job: Job, row: dict[str, Any]) -> str:
    text = event
    if event == "finished" and "validation_loss" in row:
        text = f"{row['validation_loss']:.4f} ± {row['validation_stderr']:.4f} nats/token"
    elif row.get("reason"):
        text = f"{event}: {row['reason']}"
    warnings = [f"\n        warning: {warning}" for warning in row.get("warnings", [])]
    return "".join([f"{job.info.label}: {text}", *warnings])
