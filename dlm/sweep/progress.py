"""What a sweep shows while it runs: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlm.format import duration, fit_words, percent
from dlm.sweep.forecast import Speed, side_by_side, speed_of

if TYPE_CHECKING:
    from dlm.sweep.jobs import Job

Show = Callable[[str, "Job", dict[str, Any]], None]
# Columns of a terminal: those of a line beside its label, of a bar and of a rate; the widths from which
# on there is room for the two, and the least room of a label.
REST, BAR, RATE, WITH_BAR, WITH_RATE, LEAST = 47, 24, 20, 100, 120, 12
EVERY = 15.0  # seconds between two lines of one run, where there is no terminal
LEFT_EVERY = 60.0  # seconds between two lines of the time that is left, likewise
LEAST_TIMED = 5.0  # seconds of training from which on a speed is known


@contextlib.contextmanager
def show(jobs: list[Job]) -> Iterator[Show]:
    """A function to tell of events: (event, job, row), event as in `dlm.sweep.local.execute`."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        yield _lines(jobs)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    width = console.width
    bar = [BarColumn(bar_width=BAR)] if width >= WITH_BAR else []
    room = max(width - REST - (BAR if bar else 0) - (RATE if width >= WITH_RATE else 0), LEAST)
    columns = (
        TextColumn("{task.description}", markup=False),  # brackets in a label are no markup
        *bar,
        TextColumn("{task.percentage:3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[left]}"),
    )
    left = TimeLeft(jobs)
    bars: dict[str, Any] = {}
    ended: set[str] = set()
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task(f"runs 0/{len(jobs)}", total=left.total, note="", left="")

        def tell(event: str, job: Job, row: dict[str, Any]) -> None:
            run, now = job.info.run_id, time.monotonic()
            left.tell(event, job, row, now)
            if event == "start":
                label = fit_words(job.info.label.split(), room, gap="…")
                bars[run] = progress.add_task(
                    label, total=left.runs[run].work, note="compiling", left=""
                )
            elif event == "progress" and run in bars:
                progress.update(
                    bars[run],
                    completed=left.runs[run].done,
                    note=_note(row, rate=width >= WITH_RATE),
                    left=_about(left.of_run(run, now)),
                )
            elif event not in ("start", "progress"):
                ended.add(run)
                if run in bars:
                    progress.remove_task(bars.pop(run))
                text = _ending(event, job, row)
                progress.console.print(text, markup=False, overflow="ignore", crop=False)
            progress.update(
                whole,
                completed=left.done,
                description=f"runs {len(ended)}/{len(jobs)}",
                left=_about(left.seconds(now)),
            )

        yield tell


def _about(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{duration(seconds)} left"


def _lines(jobs: list[Job]) -> Show:
    last: dict[str, float] = {}
    ended: set[str] = set()
    left, told = TimeLeft(jobs), -math.inf  # when the time left was told last

    def tell(event: str, job: Job, row: dict[str, Any]) -> None:
        nonlocal told
        run, label, now = job.info.run_id, job.info.label, time.monotonic()
        left.tell(event, job, row, now)
        if event == "start":
            last[run] = now
            print(f"[{len(ended) + 1}/{len(jobs)}] {label}: started", flush=True)
        elif event == "progress":
            if now - last[run] > EVERY:
                last[run] = now
                print(f"        {label}: {_note(row)}", flush=True)
        else:
            ended.add(run)
            print(f"[{len(ended)}/{len(jobs)}] {_ending(event, job, row)}", flush=True)
        seconds = left.seconds(now)
        if now - told >= LEFT_EVERY and len(ended) < len(jobs) and not math.isnan(seconds):
            told = now
            share = percent(left.done / left.total)
            print(f"[{len(ended)}/{len(jobs)}] {share} done, about {_about(seconds)}", flush=True)

    return tell


# --- the time that is left ----------------------------------------------------------------------


@dataclass
class _Run:
    """What one run of a sweep told of itself. Work is FLOPs of training, scores and samples."""

    job: Job
    work: float  # of the whole run
    began: float = math.nan  # when it started
    first: float = math.nan  # when it told of its work first, after it had compiled
    last: float = math.nan  # when it told of more work last
    before: float = 0.0  # the work that was done at its first news, by an earlier call
    told: float = 0.0  # the work that was done at its last news
    over: bool = False

    @property
    def done(self) -> float:
        return self.work if self.over else self.told


class TimeLeft:
    """The time that is left of a sweep, by the speed of its runs since their first news."""

    def __init__(self, jobs: list[Job]):
        works = {job.info.run_id: (job, job.work) for job in jobs}
        self.runs = {name: _Run(job, w.training + w.after) for name, (job, w) in works.items()}
        self.total = sum(run.work for run in self.runs.values())
        self.workers = 1  # the most runs that were under way at once

    @property
    def done(self) -> float:
        return sum(run.done for run in self.runs.values())

    def tell(self, event: str, job: Job, row: dict[str, Any], now: float) -> None:
        """Takes an event of a run, as `dlm.sweep.local.execute` tells it."""
        run = self.runs[job.info.run_id]
        if event == "start":
            run.began = now
            under_way = [r for r in self.runs.values() if not (math.isnan(r.began) or r.over)]
            self.workers = max(self.workers, len(under_way))
        elif event != "progress":
            run.over = True  # early, perhaps: its last news says what it did
        elif math.isnan(run.first):
            run.first = run.last = now
            run.before = run.told = _work(job, row)
        elif (told := _work(job, row)) > run.told:
            run.last, run.told = now, told

    def seconds(self, now: float) -> float:
        """Until all runs are done; NaN: no speed is known yet."""
        rest = [self.of_run(name, now) for name, run in self.runs.items() if not run.over]
        return side_by_side(rest, self.workers)

    def of_run(self, name: str, now: float) -> float:
        """Until one run is done, on a worker of its own; NaN: no speed is known yet."""
        run = self.runs[name]
        rest = (run.work - run.done) / self._speed(run.job)
        if math.isnan(run.first):
            waited = 0.0 if math.isnan(run.began) else now - run.began
            return rest + max(self._start() - waited, 0.0)
        silent = now - run.last
        return (
            rest - silent if silent < rest else rest
        )  # slower than it was: nothing better is known

    def _start(self) -> float:
        """Seconds that a run takes to start and compile: the mean of those that did."""
        taken = [run.first - run.began for run in self.runs.values() if run.first > run.began]
        return sum(taken) / max(len(taken), 1)

    def _speed(self, job: Job) -> float:
        """FLOP/s of the runs that are most like a job, else of all; NaN: not known yet."""
        kinds: dict[tuple[str, float], list[float]] = {}
        for run in self.runs.values():
            if run.last > run.first:
                kind = run.job.config.objective.name, float(run.job.plan.parameters.total)
                totals = kinds.setdefault(kind, [0.0, 0.0])
                totals[0] += run.told - run.before
                totals[1] += run.last - run.first
        work, seconds = (sum(column) for column in zip((0.0, 0.0), *kinds.values(), strict=True))
        if seconds < LEAST_TIMED:
            return math.nan
        speeds = [Speed(*kind, w / s) for kind, (w, s) in kinds.items() if s >= LEAST_TIMED]
        like = speed_of(job, speeds)
        return work / seconds if math.isnan(like) else like


def _work(job: Job, row: dict[str, Any]) -> float:
    """The work of a run that is done, by a row that it reports: training, with a like share of the
    scores beside it, or of a phase after the training."""
    work = job.work
    return row["work"] if "work" in row else row["flops"] * (1 + work.tracked / work.training)


def _note(row: dict[str, Any], rate: bool = True) -> str:
    if "phase" in row:
        return f"{row['phase']} {percent(row['share'])}"
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
