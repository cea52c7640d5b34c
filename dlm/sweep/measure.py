"""Times training of a few configs in a process that is placed as a worker of a sweep is.

`python -m dlm.sweep.measure SECONDS CORE...` reads configs with their vocabularies from standard input
and answers with one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from dlm import config
from dlm.errors import DlmError
from dlm.sweep import machine
from dlm.sweep.forecast import Speed
from dlm.sweep.jobs import Job

SECONDS = 5.0  # of timing, beside compiling
SHAPES = 4  # configs that are timed, at most


def speeds(
    jobs: Sequence[Job], workers: int, seconds: float = SECONDS
) -> tuple[list[Speed], float]:
    """The speed of the most costly runs, each objective and size once, and the seconds that a worker
    takes to start and to compile.

    Raises:
      DlmError: the process that measures ends without an answer.
    """
    shapes: dict[tuple[str, int], Job] = {}
    for job in sorted(jobs, key=lambda job: -job.flops):
        shapes.setdefault((job.config.objective.name, job.plan.parameters.total), job)
    picked = list(shapes.values())[:SHAPES]
    place = machine.placements(workers, max(job.devices for job in picked))[0]
    text = json.dumps([[config.to_json(job.config), job.plan.vocab_size] for job in picked])
    command = [sys.executable, "-m", __name__, str(seconds), *map(str, place["cores"])]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env=os.environ | place["env"]
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DlmError(f"this machine could not be timed: {last}; give --device instead") from None
    return [Speed(*row) for row in answer["speeds"]], answer["start"]


def main(seconds: float, cores: list[int]) -> None:
    """Answers on standard output."""
    began = time.monotonic()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before JAX counts them
    asked = json.load(sys.stdin)
    from dlm.sweep import worker
    from dlm.training import benchmark

    worker.prepare_jax()
    benches = [
        benchmark.Bench(str(k), config.from_json(values), vocabulary)
        for k, (values, vocabulary) in enumerate(asked)
    ]
    start = time.monotonic() - began
    sizes = [float(bench.plan.parameters.total) for bench in benches]
    timed = benchmark.speeds(benches, seconds / len(benches), training_only=True)
    rates = [Speed(s.objective, n, s.flops_per_second) for s, n in zip(timed, sizes, strict=True)]
    print(json.dumps({"speeds": rates, "start": start}))


if __name__ == "__main__":
    main(float(sys.argv[1]), list(map(int, sys.argv[2:])))
