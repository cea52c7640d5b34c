"""What a sweep takes before it starts: FLOPs, hours by the speed of runs like these, memory, disk."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dlm.config import planning
from dlm.config.memory import Machine
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.sweep.jobs import Job
from dlm.training import environment

LIKE = 4.0  # the factor in parameters within which a finished run tells the speed of another
MOST_READ = 500  # results
CHECKPOINTS = 2  # that a finished run leaves


class Speed(NamedTuple):
    """What training reached in one run, or is assumed to reach."""

    objective: str  # "": of any
    params: float  # 0: of any size
    flops_per_second: float  # attention counted


class Forecast(NamedTuple):
    """What the runs of a sweep take, from now on."""

    runs: int
    training: float  # FLOPs
    after: float  # FLOPs of scores and samples
    seconds: float  # of all, side by side on the workers; NaN: the speed of some is not known
    longest: float  # seconds of the longest run
    memory: float  # bytes on a device, of the largest run
    disk: float  # bytes of checkpoints and token stores


def forecast(
    jobs: Sequence[Job], speeds: Sequence[Speed], workers: int, machine: Machine
) -> Forecast:
    """What `jobs` take on `machine`, a worker each until all are done."""
    anywhere = machine._replace(devices=0)
    held = [planning.bytes_on_device(job.config, job.plan, anywhere) for job in jobs]
    after = [job.work.after for job in jobs]
    seconds = [
        (job.flops + more) / speed_of(job, speeds) for job, more in zip(jobs, after, strict=True)
    ]
    stores = {job.store: job for job in jobs}.values()
    tokens = sum(job.plan.unique_tokens + job.plan.held_out * _length(job) for job in stores)
    return Forecast(
        runs=len(jobs),
        training=sum(job.flops for job in jobs),
        after=sum(after),
        seconds=side_by_side(seconds, workers),
        longest=max(seconds, default=0.0),
        memory=max((each.total for each in held), default=0.0),
        disk=sum(CHECKPOINTS * each.state for each in held) + 2.0 * tokens,
    )


def _length(job: Job) -> int:
    return job.config.data.seq_len


def side_by_side(seconds: Iterable[float], workers: int) -> float:
    """When the last of some runs ends, longest first, on so many workers; NaN if one is not known."""
    order = sorted(seconds, reverse=True)
    if any(math.isnan(s) for s in order):
        return math.nan
    busy = [0.0] * workers
    for each in order:
        heapq.heapreplace(busy, busy[0] + each)
    return max(busy)


def speed_of(job: Job, speeds: Sequence[Speed]) -> float:
    """FLOP/s of the run that is most like a job: its objective, and a size within LIKE; NaN: none."""
    params = job.plan.parameters.total
    near = [
        (abs(math.log(speed.params / params)) if speed.params else 0.0, speed.flops_per_second)
        for speed in speeds
        if speed.objective in ("", job.config.objective.name)
    ]
    distance, rate = min(near, default=(math.inf, math.nan))
    return rate if distance <= math.log(LIKE) else math.nan


def measured(workdir: Path, machine: Machine) -> list[Speed]:
    """The speed of the runs below a workdir that this machine's processor, or an accelerator if it has
    one, has finished."""
    speeds = []
    try:
        paths = list(itertools.islice(workdir.glob("*/*/result.json"), MOST_READ))
    except OSError:
        return []
    for path in paths:
        try:
            result = run_folder.read_json(path)
            rate = result["flops"] / result["tokens"] * result["tokens_per_second"]
            if (environment.processor() in result["device"]) != machine.cpu:
                continue
            speed = Speed(str(result["objective"]), float(result["params"]), float(rate))
        except (DlmError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
            continue  # unreadable, failed, or of another version: `dlm runs` says which
        if speed.params > 0 and 0 < speed.flops_per_second < math.inf:
            speeds.append(speed)
    return speeds
