"""What the runs of an experiment take, in one line, for `dlm run` and `dlm plan EXPERIMENT`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.format import count, duration, percent, scientific, size

if TYPE_CHECKING:
    from dlm.sweep.forecast import Forecast
    from dlm.sweep.jobs import Job

DAY = 86_400.0  # seconds
FAR = 1e18  # FLOPs, some hours of an accelerator: a run that is shorter is never warned of


def words(f: Forecast, workers: int, how: str) -> str:
    """FLOPs, time, memory and disk; `how`: what the time rests on."""
    parts = [f"{scientific(f.training)} FLOPs"]
    if f.after:
        parts.append(f"{scientific(f.after)} to score and sample")
    if not math.isnan(f.seconds):
        side = f" on {workers} workers" if workers > 1 else ""
        parts.append(f"about {duration(f.seconds)}{side} ({how})")
    else:
        parts.append("time told once they train")
    parts += [f"{size(f.memory)} a device", f"{size(f.disk)} of disk"]
    return ", ".join(parts)


def of_finished(jobs: Sequence[Job], workdir: Path, workers: int) -> tuple[Forecast, str]:
    """What the runs take by the speed of those that are finished below a workdir, and what to say of
    that speed."""
    from dlm.sweep import forecast, machine

    here = machine.machine()
    speeds = forecast.measured(workdir, here)
    return forecast.forecast(
        jobs, speeds, workers, here
    ), f"by the speed of {len(speeds)} finished runs"


def of_experiment(
    jobs: Sequence[Job], workers: int, device: str, mfu: float
) -> tuple[Forecast, str]:
    """What the runs take on a device by its name, else here by timing a few of their configs, and what
    to say of that speed.

    Raises:
      DlmError: no such device, or this machine could not be timed.
    """
    from dlm.config import devices
    from dlm.sweep import forecast, machine, measure

    here = machine.machine()
    if device and device != devices.HERE:
        known = devices.device(device)
        sizes = sorted({float(job.plan.parameters.total) for job in jobs})
        shares = [devices.utilisation(known, size, mfu) for size in sizes]
        speeds = [
            forecast.Speed("", params, known.peak * share)
            for params, share in zip(sizes, shares, strict=True)
        ]
        assumed = "" if mfu or known.measured else ", assumed"
        ends = " to ".join(percent(share) for share in sorted({shares[0], shares[-1]}))
        peak = "" if known.measured else f" at {ends} of its peak{assumed}"
        takes = forecast.forecast(jobs, speeds, workers, here._replace(cpu=False))
        return takes, f"{known.name}{peak}"
    speeds, start = measure.speeds(jobs, workers)
    takes = forecast.forecast(jobs, speeds, workers, here)
    takes = takes._replace(seconds=takes.seconds + start)
    return takes, f"timed here, {duration(start)} of it to start and compile"


def warnings(jobs: Sequence[Job], seconds: float = math.nan) -> list[str]:
    """Unique tokens on which no planned run of diffusion can pass AR, by the paper's laws, if the runs
    are like the paper's and take a day, or a time that is not known."""
    most: dict[float, float] = {}
    for job in jobs:
        compute = job.plan.steps * job.plan.flops_6nd_per_step
        like = job.config.objective.name == "masked" and job.config.tokenizer.kind == "gpt2"
        if like and compute > FAR:
            most[job.plan.unique_tokens] = max(compute, most.get(job.plan.unique_tokens, 0.0))
    if not most or seconds < DAY:
        return []
    from dlm.laws import advice, chosen

    laws = chosen.read("paper").by_family
    ranges = laws["masked"].ranges
    assert ranges is not None
    sentences = []
    for U, compute in most.items():
        if not ranges.unique_tokens[0] / 2 < U < ranges.unique_tokens[1] * 10:
            continue
        (turn,) = advice.advise(laws, U, compute).turns
        if compute < turn.critical.compute:
            sentences.append(
                f"on {count(U)} unique tokens the largest masked run takes {scientific(compute)} FLOPs "
                f"(6ND); by the paper's laws it passes AR at {scientific(turn.critical.compute)}: see "
                f"dlm plan --unique-tokens {U:.3g} --flops {compute:.3g}"
            )
    return sentences
