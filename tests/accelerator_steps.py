"""What tests/accelerator.py measures, a request each: a process that it starts, on one device.

Reads one JSON object a line, {"step": NAME, ...}, and answers each with one line: {"result": ...} or
{"failed": REASON}. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

SMOKE = Path(__file__).resolve().parent.parent / "experiments" / "smoke.py"
LOSSES = ("loss", "validation_loss", "train_eval_loss")  # nats per token, in metrics.jsonl
HEADS = Path(__file__).with_name("accelerator_heads.py")
SMI = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.memory"


def device() -> dict[str, Any]:
    """Versions and the devices that JAX shows."""
    import jax

    from dlm.training import environment

    shown = jax.devices()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader"]
        smi = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        smi = smi.strip().splitlines()
    memory = shown[0].memory_stats() or {}
    libraries = {
        each.metadata["Name"]: each.version
        for each in metadata.distributions()
        if re.match(r"nvidia-cu(dnn|blas)|jax-cuda|libtpu", each.metadata["Name"] or "")
    }
    return {
        "platform": shown[0].platform,
        "kind": shown[0].device_kind,
        "count": len(shown),
        "cores": len(environment.cores()),
        "memory": memory.get("bytes_limit"),  # bytes that JAX may use of one device
        "client": shown[0].client.platform_version.splitlines()[0][:200],
        "nvidia-smi": locals().get("smi"),
        "versions": environment.versions() | libraries,
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


# --- the smoke experiment -------------------------------------------------------------------------


def smoke(
    workdir: str,
    name: str,
    objectives: list[str],
    overrides: dict[str, Any],
    precision: str | None = None,
    die_after: int = 0,
) -> dict[str, Any]:
    """Trains the runs of experiments/smoke.py with these objectives in WORKDIR/NAME, or resumes them.

    `precision` is JAX's default matmul precision. `die_after`: this process kills itself after so many
    steps, once a checkpoint is written. Returns each objective's run folder and final losses.
    """
    import jax

    from dlm.data import build
    from dlm.runs import folder as run_folder
    from dlm.sweep.jobs import plan_jobs
    from dlm.training import run

    trained = {}
    for job in plan_jobs(str(SMOKE), "laptop", list(overrides.items()), Path(workdir)):
        goal = job.config.objective.name
        if goal not in objectives:
            continue
        folder = Path(workdir) / name / goal

        def report(row: dict[str, Any], folder: Path = folder) -> None:
            if die_after and row.get("step", 0) >= die_after:
                _wait_for_checkpoint(folder)
                os.kill(os.getpid(), signal.SIGKILL)

        with jax.default_matmul_precision(precision or "default"), run_folder.claim(folder):
            result = run.train_and_score(
                job.config, build.load(job.store), folder, job.info, report=report
            )
        kept = ("status", "validation_loss", "train_loss", "seconds", "tokens_per_second")
        trained[goal] = {"folder": str(folder)} | {key: getattr(result, key) for key in kept}
    return trained


def _wait_for_checkpoint(folder: Path) -> None:
    """Waits until a checkpoint is saved with its checksums, for at most 30 s."""
    for _ in range(600):
        if any((folder / "checkpoints").glob("*/SHA256SUMS")):
            return
        time.sleep(0.05)


def losses(a: str, b: str) -> dict[str, Any]:
    """The largest relative difference between two runs' losses in metrics.jsonl, and where it is."""
    largest, where, count = 0.0, "", 0
    rows = [_rows(Path(folder)) for folder in (a, b)]
    for name in LOSSES:
        for step in sorted(rows[0]):
            if name not in rows[0][step]:
                continue
            x, y = rows[0][step][name], rows[1][step][name]
            difference, count = abs(x - y) / abs(x), count + 1
            if difference > largest:
                largest, where = difference, f", in {name} at step {step}"
    if not count:
        raise ValueError(f"{a}: no losses to compare")
    return {"difference": largest, "where": where, "losses": count}


def _rows(folder: Path) -> dict[int, dict[str, Any]]:
    """The columns of metrics.jsonl by step."""
    rows: dict[int, dict[str, Any]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["step"]] = rows.get(row["step"], {}) | row
    return rows


def bits(a: str, b: str) -> dict[str, Any]:
    """The leaves in which the last checkpoints of two runs differ, and whether their scores do."""
    import numpy as np

    import tiny
    from dlm import config
    from dlm.data import build
    from dlm.runs import folder as run_folder

    folders = [Path(a), Path(b)]
    c = config.from_json(run_folder.read_json(folders[0] / "config.json"))
    start = run_folder.read_start(folders[0])
    store = build.load((folders[0] / start.corpus.path).resolve())
    states = [tiny.final_state(c, store, folder) for folder in folders]
    found = tiny.differences(*states)
    scores = [np.load(folder / "nll.npy") for folder in folders]
    return {
        "leaves": len(states[0]),
        "differ": len(found),
        "largest": max(found.values(), default=0.0),
        "scores_alike": bool(np.array_equal(*scores)),
    }


# --- speed ------------------------------------------------------------------------------------------


def peaks(sizes: list[int], dtypes: list[list[str]]) -> list[dict[str, Any]]:
    """FLOP/s of matrix products of random numbers, beside `evaluate.measured_peak` and the table's.

    `dtypes` are pairs of a type and a matmul precision. Eight products are queued at a time, so that
    what it takes to start one is hidden; the best of three tries counts.
    """
    import jax
    import jax.numpy as jnp

    from dlm.config import flops
    from dlm.evaluation import score

    found = []
    for dtype, precision in dtypes:
        rates = {}
        for size in sizes:
            keys = jax.random.split(jax.random.key(0))
            a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
            product = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=p))
            product(a, b).block_until_ready()
            best = float("inf")
            for _ in range(3):
                began = time.perf_counter()
                for _ in range(8):
                    out = product(a, b)
                out.block_until_ready()
                best = min(best, (time.perf_counter() - began) / 8)
            rates[str(size)] = 2 * size**3 / best
        plain = precision == "default"
        found.append(
            {
                "dtype": dtype,
                "precision": precision,
                "rates": rates,
                "measured_peak": score.measured_peak(dtype) if plain else None,
                "table": flops.peak(jax.devices()[0].device_kind, dtype) if plain else None,
            }
        )
    return found


def speed(
    kept: dict[str, Any],
    size: str,
    changes: dict[str, Any],
    seconds: float,
    vocab_size: int = 0,
    training_only: bool = True,
) -> dict[str, Any]:
    """One row of `dlm benchmark`; what was timed stays in `kept` for `profile`.

    `changes` are overrides of the config of a size; objectives named `masked-...` are those of
    accelerator_heads.py.
    """
    from dlm.config import experiment
    from dlm.training import benchmark

    kept.clear()
    gc.collect()  # arrays of the row before
    base, usual = benchmark.sized(size)
    c = experiment.edited(base, complete(changes).items())
    bench = kept["bench"] = benchmark.Bench(size, c, vocab_size or usual)
    row = benchmark.speeds([bench], seconds, training_only)[0]
    shape = {"length": c.data.seq_len, "batch": c.train.batch_size, "dtype": c.model.dtype}
    return dataclasses.asdict(row) | shape | {"tokens": bench.tokens()}


def complete(changes: dict[str, Any]) -> dict[str, Any]:
    """With the objective file, if the objective is one of it."""
    own = str(changes.get("objective.name", "")).startswith("masked-")
    return changes | {"objective.file": str(HEADS)} if own else changes


def profile(kept: dict[str, Any], folder: str, calls: int = 3) -> dict[str, Any]:
    """Where the time of a few calls of what `speed` timed last goes; the trace stays in the folder."""
    import jax

    import accelerator_profile

    bench = kept["bench"]
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        seconds = sum(bench.call()[0] for _ in range(calls))
    devices = accelerator_profile.read(Path(folder), jax.default_backend())
    lines = next(iter(devices.values()))  # of the first device
    return accelerator_profile.summary(lines, calls, seconds)


# --- requests ---------------------------------------------------------------------------------------

STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step for step in (device, smoke, losses, bits, peaks, speed, profile)
}


def reason(error: BaseException) -> str:
    """The first line of an error that says something, with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from dlm.sweep import worker

    worker.prepare_jax()
    kept: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        step = request.pop("step")
        if step in ("speed", "profile"):
            request["kept"] = kept
        try:
            answer = {"result": STEPS[step](**request)}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"failed": reason(error)}
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # no thread of a library may hold up the exit
