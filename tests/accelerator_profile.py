"""Reads a trace of jax.profiler and adds up its time by class of kernel; for tests/accelerator.py."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONTROL = re.compile(r"(while|call|conditional)([._]\d+)?$")  # a CPU runs what they call elsewhere
Span = tuple[str, float, float]  # name of a kernel or operation, start and duration in ns

# In this order: the first pattern that is found in a name decides. XLA's own products with attention's
# scores and values count as matrix products; only fused attention is told apart.
CLASSES: dict[str, str] = {
    "collectives": r"nccl|all-?_?reduce|all-?_?gather|reduce-?_?scatter|collective|all-?_?to-?_?all",
    "attention": r"fmha|flash|sdpa|mha_|cudnn::fusion|cudnn_generated|splash",
    "matrix products": r"gemm|gemv|nvjet|xmma|cutlass|cublas|(^|[._ ])dot|matmul|convolution|splitk"
    r"|ynn",
    "copies": r"memcpy|memset|copy|transpose|data formatting",
    "fused loops": r"fusion|fused|wrapped|reduce|loop|broadcast|scatter|gather|elementwise|convert"
    r"|triton|select|slice|iota|concatenate|pad",
}


def kernel_class(name: str) -> str:
    """One of CLASSES, or "other" (sorting, random bits, calls of libraries, ...)."""
    matches = (kind for kind, form in CLASSES.items() if re.search(form, name, re.IGNORECASE))
    return next(matches, "other")


def self_times(spans: Iterable[Span]) -> list[tuple[str, float]]:
    """Names with their own time in ns: spans within a span (the body of a loop) are taken off it."""
    own: list[list[Any]] = []
    open_spans: list[tuple[int, float]] = []  # index into `own` and end, innermost last
    for name, start, duration in sorted(spans, key=lambda span: (span[1], -span[2])):
        while open_spans and open_spans[-1][1] <= start:
            open_spans.pop()
        if open_spans:
            own[open_spans[-1][0]][1] -= duration
        own.append([name, duration])
        open_spans.append((len(own) - 1, start + duration))
    return [(name, max(duration, 0.0)) for name, duration in own]


def busy(spans: Iterable[Span]) -> float:
    """ns in which at least one span runs."""
    total, reached = 0.0, -1.0
    for _, start, duration in sorted(spans, key=lambda span: span[1]):
        end = start + duration
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def read(folder: Path, platform: str) -> dict[str, list[list[Span]]]:
    """Kernels in the newest trace of a folder: device -> its lines (streams of a GPU) -> spans.

    Raises:
      ValueError: there is no trace, or no kernel of a device of this platform in it.
    """
    with warnings.catch_warnings():  # Python 3.12 deprecates how jaxlib makes a type at first use
        warnings.simplefilter("ignore", DeprecationWarning)
        return _read(folder, platform)


def _read(folder: Path, platform: str) -> dict[str, list[list[Span]]]:
    from jax.profiler import ProfileData

    traces = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not traces:
        raise ValueError(f"{folder}: the profiler left no trace")
    devices: dict[str, list[list[Span]]] = {}
    for plane in ProfileData.from_file(str(traces[-1])).planes:
        lines = list(plane.lines)
        if platform == "cpu" and plane.name == "/host:CPU":  # operations are called by some thread
            kept = [
                [
                    _span(event)
                    for event in line.events
                    if "hlo_op" in dict(event.stats) and not CONTROL.match(event.name)
                ]
                for line in lines
                if line.name.startswith("tf_XLA")
            ]
        elif platform != "cpu" and plane.name.startswith("/device:"):
            named = [line for line in lines if line.name.startswith("Stream")]  # of a GPU
            named = named or [line for line in lines if line.name == "XLA Ops"]  # of a TPU
            kept = [[_span(event) for event in line.events] for line in named]
        else:
            continue
        if kept := [line for line in kept if line]:
            devices[plane.name] = kept
    if not devices:
        raise ValueError(f"{traces[-1]}: names no kernel of a {platform}")
    return devices


def _span(event: Any) -> Span:
    """A TPU names an operation `%fusion.7 = ...`; its category says what was fused."""
    name, category = (
        event.name.split(" = ")[0].strip("% "),
        dict(event.stats).get("hlo_category", ""),
    )
    return (f"{name} {category}".strip(), float(event.start_ns), float(event.duration_ns))


def summary(lines: list[list[Span]], calls: int, seconds: float) -> dict[str, Any]:
    """Where the time of `calls` calls of a step, which took `seconds` in all, went on one device.

    `classes` are ms a call and share of all kernels' time; `idle` is the share of the seconds in which
    no kernel ran; `kernels` are the twelve longest by name, ms a call.
    """
    own = [each for line in lines for each in self_times(line)]
    by_class: defaultdict[str, float] = defaultdict(float)
    by_name: defaultdict[str, float] = defaultdict(float)
    for name, duration in own:
        by_class[kernel_class(name)] += duration
        by_name[re.sub(r"[._]\d+(?= |$)", "", name)] += duration
    total = sum(by_class.values())
    running = busy([span for line in lines for span in line])
    return {
        "calls": calls,
        "ms": 1e3 * seconds / calls,
        "idle": max(0.0, 1 - running / 1e9 / seconds),
        "classes": {
            kind: {"ms": by_class[kind] / 1e6 / calls, "share": by_class[kind] / total}
            for kind in (*CLASSES, "other")
        },
        "kernels": [
            {"name": name[:120], "class": kernel_class(name), "ms": duration / 1e6 / calls}
            for name, duration in sorted(by_name.items(), key=lambda item: -item[1])[:12]
        ],
    }
