"""What this machine trains on, as far as that is known without JAX: cores, GPUs, TPU chips, memory."""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from dlm.config.memory import Machine, host_memory
from dlm.errors import DlmError
from dlm.training import environment

# glibc: back large allocations by huge pages and keep them; measured in BUILD_NOTES.md.
HUGE_PAGES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=8000000000",
        "glibc.malloc.trim_threshold=16000000000",
    )
)
# What JAX reads the share of a GPU's memory from; it refuses both names at once.
GPU_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def machine() -> Machine:
    """Where the workers of this machine train. The memory of a GPU or a TPU is not known without JAX,
    nor the number of TPU chips.
    """
    if gpus := _gpus():
        return Machine(len(gpus), math.inf, cpu=False, whole=False)
    if _tpu():
        return Machine(0, math.inf, cpu=False)
    flags = os.environ.get("XLA_FLAGS", "")
    counts = re.findall(r"--xla_force_host_platform_device_count=([1-9]\d*)", flags)
    counts += re.findall(r"^[1-9]\d*$", os.environ.get("JAX_NUM_CPU_DEVICES", ""))
    devices = int([1, *counts][-1])
    return Machine(devices, host_memory() / devices, cpu=True)


def default_workers(devices: int) -> int:
    """One for each `devices` GPUs, what a run's mesh takes; on CPU one per core; one for a TPU host."""
    if gpus := _gpus():
        return max(len(gpus) // devices, 1)
    return 1 if _tpu() else len(environment.cores())


def _gpus() -> list[str]:
    """The GPUs by their names in CUDA_VISIBLE_DEVICES; where that is not set, all of this machine."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        # As CUDA reads it: an index or an id; what is neither, such as -1, ends the list.
        return list(itertools.takewhile(re.compile(r"\d|GPU-|MIG-").match, map(str.strip, names)))
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def placements(workers: int, devices: int) -> list[dict[str, Any]]:
    """For each worker its cores and, if there are GPUs, its share of them: the environment it starts
    in. Workers on one GPU share the three quarters of its memory that JAX takes for one process.

    Raises:
      DlmError: there are fewer GPUs than a run's mesh takes.
    """
    gpus, cores = _gpus(), environment.cores()
    if gpus and devices > len(gpus):
        raise DlmError(
            f"config.mesh: takes {devices} GPUs; this machine shows {len(gpus)}; several machines "
            "are joined by --distributed"
        )
    shares = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    places = []
    for number in range(workers):
        env = {}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = shares[number % len(shares)]
            together = len(range(number % len(shares), workers, len(shares)))
            if together > 1 and not any(name in os.environ for name in GPU_MEMORY):
                env[GPU_MEMORY[0]] = f"{0.75 / together:.3f}"
        elif sys.platform == "linux":
            env["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES") or HUGE_PAGES
        mine = cores if gpus or workers > len(cores) else cores[number::workers]
        places.append({"env": env, "cores": mine})
    return places


def _tpu() -> bool:
    """Whether this is a TPU host: it shows chips as /dev/accel0, since v5e also as /dev/vfio/0."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(any(Path("/dev").glob(chips)) for chips in ("accel[0-9]*", "vfio/[0-9]*"))
