"""Where a run is trained: versions of libraries, the device, the cores."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def versions() -> dict[str, str]:
    """The versions of Python, dlm and the libraries that move numbers."""
    names = ("dlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def version(name: str) -> str:
    """The version of an installed distribution; of a checkout that is not, "not installed"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def device() -> str:
    """The devices in words, such as "8 x NVIDIA H100". Loads JAX."""
    import jax

    kind, count = jax.devices()[0].device_kind, jax.device_count()
    name = f"{processor()} ({len(cores())} core)" if kind == "cpu" else kind
    return name if count == 1 else f"{count} x {name}"


def cores() -> list[int]:
    """The cores that this process may use; all cores if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or "cpu"
