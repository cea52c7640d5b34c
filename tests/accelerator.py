"""Measures dlm on a GPU or TPU: one command, under 8 minutes, a JSON and a table for BUILD_NOTES.md.

  pip install -e '.[cuda]' && python tests/accelerator.py --out runs/accelerator

In this order, and written to OUT/accelerator.json and OUT/accelerator.md after each step:

  checks    experiments/smoke.py in float32 and bfloat16, its losses against a CPU's, a run that is
            killed and resumed against one that is not
  peaks     the speed of large matrix products
  speeds    rows of `dlm benchmark`: 100M, 400M and 1B parameters, L = 2048, bfloat16, variants of
            attention, scan, remat, microbatches, logits (accelerator_heads.py) and shapes; most
            important first
  profiles  where the time of a step goes, by class of kernel

A step that fails is written down with its reason; so is a step that --minutes leaves no time for.
Exits with 1 if a check is broken. If the only device is a CPU, or with --rehearse, all shapes are tiny.

Two defaults of JAX matter here. Products of float32 are computed in TF32 on a GPU (since Ampere) and in
bfloat16 on a TPU, so losses are compared with a CPU's under JAX_DEFAULT_MATMUL_PRECISION=highest; the
difference with the default is reported beside it. And a GPU adds up gradients of the embedding in an
order that varies, so the same bits are expected under XLA_FLAGS=--xla_gpu_deterministic_ops=true only;
what the default gives is reported beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerator_table
from dlm.sweep.machine import GPU_MEMORY

STEPS = Path(__file__).with_name("accelerator_steps.py")
ROOT = STEPS.parent.parent
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
CLOSE = 1e-4  # relative difference of losses between devices, in full float32
PARTS = ("checks", "peaks", "speeds", "profiles")  # profiles are of rows of the speeds
FAMILIES = ("ar", "masked")
LAYERS = {"100M": 14, "400M": 32, "1B": 20}  # of dlm.training.benchmark.SIZES
TINY = {
    "data.seq_len": 32, "train.batch_size": 4, "evaluation.batch_size": 4, "model.layers": 2,
    "train.steps_per_call": 1,
}  # fmt: skip

Answer = dict[str, Any]  # {"result": ...} or {"failed": reason}


# --- processes that measure -------------------------------------------------------------------------


def start(log: Path, flags: str = "", **env: str) -> subprocess.Popen[bytes]:
    """A process of accelerator_steps.py, with more XLA_FLAGS and variables than this one."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    with log.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(STEPS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags} | env,
        )


def ask(process: subprocess.Popen[bytes], patience: float, **request: Any) -> Answer:
    """Sends a request and waits so many seconds for its answer, then ends the process."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], max(patience, 1))[0]:
            process.kill()
            process.wait()
            return {"failed": f"ended after {patience:.0f} s without an answer"}
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    return json.loads(line) if line else {"failed": f"its process ended with {process.wait()}"}


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin and process.stdout
    process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


# --- checks -----------------------------------------------------------------------------------------


def chains(platform: str) -> dict[str, list[tuple[dict[str, str], dict[str, Any]]]]:
    """Runs of the smoke experiment by name: (environment, arguments of `smoke`) of one process after
    another.
    """
    small = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # many processes share the device
    both, one = {"objectives": list(FAMILIES)}, {"objectives": ["masked"]}
    narrow = {"model.dtype": "bfloat16"}
    resumed = [(small, one | {"die_after": 8}), (small, one)]
    found: dict[str, Any] = {
        "cpu": [({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}, both)],
        "highest": [(small, both | {"precision": "highest"})],
        "bfloat16": [(small, both | {"overrides": narrow})],
        "killed": resumed,
    }
    if platform == "cpu":  # the rehearsal
        found["highest"][0][1]["objectives"] = found["bfloat16"][0][1]["objectives"] = ["masked"]
        return found
    found["float32"] = [(small, both)]
    if platform == "gpu":
        flagged = small | {"flags": DETERMINISTIC}
        fused = narrow | {"model.attention": "cudnn"}
        found["cudnn"] = [(small, both | {"overrides": fused})]
        found["deterministic"] = [(flagged, one)]
        found["deterministic-killed"] = [(flagged, arguments) for _, arguments in resumed]
    return found


def checks(out: Path, platform: str, seconds: float) -> list[dict[str, Any]]:
    """Trains all chains, side by side on a GPU, and compares what they leave."""
    workdir, log = out / "smoke", out / "log.txt"
    shutil.rmtree(workdir, ignore_errors=True)  # or nothing would be left to train

    def train(name: str, links: list[tuple[dict[str, str], dict[str, Any]]]) -> Answer:
        answer: Answer = {}
        for env, arguments in links:
            process = start(log, **env)
            request = {"workdir": str(workdir), "name": name, "overrides": {}} | arguments
            answer = ask(process, seconds, step="smoke", **request)
            close(process)
        return answer

    plan = chains(platform)
    done = {"cpu": train("cpu", plan.pop("cpu"))}  # also builds the corpus
    with ThreadPoolExecutor(8 if platform == "gpu" else 1) as pool:
        done |= dict(zip(plan, pool.map(train, plan, plan.values()), strict=True))
    process = start(log, JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
    found = list(_compared(done, platform, lambda **request: ask(process, 60, **request)))
    close(process)
    return found


def _compared(done: dict[str, Answer], platform: str, answer: Any) -> Iterator[dict[str, Any]]:
    """Checks by name: `holds` is None if nothing is promised, and False if a promised one failed."""
    promised = {"highest"}
    for name in ("highest", "float32", "bfloat16", "cudnn"):
        if "failed" in done.get(name, {}):
            holds = False if name in promised else None
            yield {"name": f"smoke, {name}", "holds": holds, "found": done[name]["failed"]}
            continue
        for goal in done.get(name, {}).get("result", ()):
            got = _both(done, ("cpu", name), goal, answer, "losses")
            close_enough = "result" in got and got["result"]["difference"] <= CLOSE
            text = got.get(
                "failed"
            ) or "at most {difference:.1e} over {losses} losses{where}".format(**got["result"])
            yield {
                "name": f"losses, {goal}, {name}, relative to the CPU's float32",
                "holds": close_enough if name in promised else None,
                "found": text,
            }
    pairs = [("cpu" if platform == "cpu" else "float32", "killed", platform != "gpu")]
    pairs += [("deterministic", "deterministic-killed", True)] * (platform == "gpu")
    for whole, killed, sure in pairs:
        got = _both(done, (whole, killed), "masked", answer, "bits")
        alike = "result" in got and not got["result"]["differ"] and got["result"]["scores_alike"]
        text = got.get("failed") or "{differ} of {leaves} leaves differ, by {largest:.1e}".format(
            **got["result"]
        )
        yield {
            "name": f"killed and resumed, bits against {whole}",
            "holds": alike if sure else None,
            "found": text,
        }


def _both(done: dict[str, Answer], names: Any, goal: str, answer: Any, step: str) -> Answer:
    for name in names:
        if "failed" in done[name]:
            return {"failed": f"{name}: {done[name]['failed']}"}
    a, b = (done[name]["result"][goal]["folder"] for name in names)
    return answer(step=step, a=a, b=b)


# --- speeds -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One row of the table of speeds: a size, a family, and what differs from the plain row."""

    size: str
    family: str
    changes: dict[str, Any] = field(default_factory=dict)
    flags: str = ""
    more: dict[str, Any] = field(default_factory=dict)  # arguments of `speed`
    note: str = ""

    @property
    def name(self) -> str:
        words = [
            str(value) if key == "objective.name" else f"{key.split('.')[-1]}={value}"
            for key, value in self.changes.items()
        ]
        return ", ".join([*words, self.note] if self.note else words) or "plain"

    @property
    def guess(self) -> float:
        """Seconds that it takes, most of them to compile; layers out of a loop compile one by one."""
        unrolled = 0.0 if self.changes.get("model.scan", True) else 2.0 * LAYERS.get(self.size, 2)
        served = 0.0 if self.more.get("training_only", True) else 60.0
        return 20.0 + 10.0 * (self.size == "1B") + unrolled + served


SERVED: dict[str, Any] = {"more": {"training_only": False}, "note": "scored and sampled too"}


def cells(platform: str) -> list[Cell]:
    """Most important first. Plain: layers in one loop, no remat, cuDNN's attention on a GPU."""

    def each(sizes: str, families: Any = FAMILIES, **rest: Any) -> list[Cell]:
        return [Cell(size, family, **rest) for size in sizes.split() for family in families]

    by_xla = {"model.attention": "xla"}
    heads = ("masked-narrow", "masked-aligned", "masked-positions", "masked-chunks", "masked-both")
    gpu = platform == "gpu"
    rows = {"more": {"vocab_size": 50_302}, "note": "50,304 rows of the embedding"}
    found = each("100M 1B 400M")
    found += each("100M", ["masked"], **rows)
    found += each("100M", changes=by_xla) if gpu else []
    for name in heads:
        found += each("100M", ["masked"], changes={"objective.name": name})
    found += each("100M", changes={"train.microbatches": 1})
    found += each("1B", changes={"model.remat": "block"})
    found += each("100M", changes={"model.scan": False})
    found += each("100M", ["masked"], changes={"data.seq_len": 2047}, note="2,048 positions")
    found += each("1B 400M", changes=by_xla) if gpu else []
    found += each("100M", changes={"model.remat": "dots"})
    found += each("400M 100M", changes={"model.remat": "block"})
    found += each("100M", **SERVED)
    found += each("100M", flags=DETERMINISTIC, note="deterministic") if gpu else []
    found += each("1B 400M", changes={"model.scan": False})
    if gpu:
        found += each("400M 1B", changes=by_xla | {"model.remat": "block"})
    return found


def rehearsed() -> list[Cell]:
    """Few and tiny cells that take the same ways; one of them fails on a CPU."""
    found = [Cell("tiny", family) for family in FAMILIES]
    for key, value in (("objective.name", "masked-both"), ("model.attention", "cudnn")):
        found.append(Cell("tiny", "masked", {key: value}))
    return [*found, Cell("tiny", "ar", {"model.scan": False}, **SERVED)]


def request(cell: Cell, tiny: bool) -> dict[str, Any]:
    """The arguments of `speed` for a cell."""
    plain = {"model.scan": True, "objective.name": cell.family}
    changes = plain | (TINY if tiny else {}) | cell.changes
    if cell.changes.get("model.attention") == "cudnn":
        changes["model.dtype"] = "bfloat16"
    asked = {"size": "0.2M" if tiny else cell.size, "changes": changes} | cell.more
    asked["seconds"] = 0.1 if tiny else 2.0
    return asked


def timing(out: Path, flags: str = "") -> subprocess.Popen[bytes]:
    """A process that has the device, and most of its memory, to itself."""
    named = any(name in os.environ for name in GPU_MEMORY)
    return start(out / "log.txt", flags, **({} if named else {GPU_MEMORY[0]: "0.92"}))


def speeds(
    process: subprocess.Popen[bytes] | None,
    todo: list[Cell],
    tiny: bool,
    out: Path,
    deadline: float,
    results: dict[str, Any],
    profiled: bool = True,
) -> Iterator[None]:
    """Adds each cell's row to `results`, or why there is none, and profiles of plain cells. Yields
    after each cell; closes `process`.
    """
    flags, took, guessed = "", 0.0, 0.0
    for cell in todo:
        row = {"size": cell.size, "family": cell.family, "variant": cell.name}
        left = deadline - time.monotonic()
        needed = cell.guess * (took / guessed if guessed else 1.0)
        if needed > left:
            why = f"left out: takes about {needed:.0f} s, and {max(left, 0):.0f} s were left"
            results["speeds"].append(row | {"failed": why})
            yield
            continue
        if process and (process.poll() is not None or cell.flags != flags):
            close(process)
            process = None
        if process is None:
            process, flags = timing(out, cell.flags), cell.flags
        began = time.monotonic()
        patience = min(left, max(120.0, 4 * needed))
        answer = ask(process, patience, step="speed", **request(cell, tiny))
        took, guessed = took + time.monotonic() - began, guessed + cell.guess
        results["speeds"].append(row | answer.get("result", answer))
        if profiled and "result" in answer and cell.name == "plain":
            # the speed stays if this ends the process
            folder = out / "profiles" / f"{cell.size}-{cell.family}"
            answer = ask(process, 60, step="profile", folder=str(folder))
            results["profiles"].append(row | answer.get("result", answer))
        if "failed" in answer:  # what it allocated goes with its process
            close(process)
            process = None
        yield
    if process:
        close(process)


# --- the command ------------------------------------------------------------------------------------


def save(out: Path, results: dict[str, Any]) -> None:
    """Writes both files whole, or leaves them as they are."""
    text = {"json": json.dumps(results, indent=1) + "\n", "md": accelerator_table.markdown(results)}
    for suffix, content in text.items():
        partial = out / f"accelerator.{suffix}.partial"
        partial.write_text(content)
        partial.replace(out / f"accelerator.{suffix}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"))
    parser.add_argument("--minutes", type=float, default=8.0, help="then no step is begun")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on the CPU")
    a = parser.parse_args()
    began = time.monotonic()
    deadline = began + 60 * a.minutes
    if a.rehearse:
        os.environ["JAX_PLATFORMS"] = "cpu"
    out = a.out.absolute()
    out.mkdir(parents=True, exist_ok=True)

    def tell(words: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {words}", flush=True)

    process = start(out / "log.txt", XLA_PYTHON_CLIENT_PREALLOCATE="false")
    answer = ask(process, 120, step="device")
    close(process)
    if "failed" in answer:
        print(f"no device: {answer['failed']}; see {out / 'log.txt'}", file=sys.stderr)
        return 2
    about = answer["result"]
    tiny = about["platform"] == "cpu"
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "rehearsal": tiny,
        "device": about,
        "checks": [],
        "peaks": [],
        "speeds": [],
        "profiles": [],
    }
    tell(f"{about['count']} x {about['kind']}" + ("; a rehearsal with tiny shapes" if tiny else ""))
    save(out, results)

    if "checks" in a.only:
        results["checks"] = checks(out, about["platform"], max(60.0, 60 * a.minutes / 3))
    save(out, results)
    for check in results["checks"]:
        tell(f"{accelerator_table.VERDICTS[check['holds']]}: {check['name']}: {check['found']}")

    process = timing(out)
    if "peaks" in a.only:
        dtypes = [["bfloat16", "default"], ["float32", "default"], ["float32", "highest"]]
        sizes = [256] if tiny else [2048, 4096, 8192]
        answer = ask(process, 90, step="peaks", sizes=sizes, dtypes=dtypes)
        results["peaks"] = answer.get("result", [answer])
        save(out, results)

    todo = [] if "speeds" not in a.only else rehearsed() if tiny else cells(about["platform"])
    profiled = "profiles" in a.only
    for _ in speeds(process, todo, tiny, out, deadline, results, profiled):
        save(out, results)
        tell(accelerator_table.line(results["speeds"][-1]))
    results["seconds"] = round(time.monotonic() - began, 1)
    save(out, results)
    tell(f"written: {out / 'accelerator.json'}, {out / 'accelerator.md'}")
    return 1 if any(check["holds"] is False for check in results["checks"]) else 0


if __name__ == "__main__":
    sys.exit(main())
