"""Devices by the names that people type, and what a number of hours on them computes; no JAX.

A budget counts C = 6 N D FLOPs, N with embeddings, as scaling laws do. Training also computes
attention, which `dlm.config.flops` counts; its overhead over C is part of the hours. Utilisation is the
share of a device's peak that the FLOPs with attention reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from dlm.config import flops
from dlm.errors import ArgumentError, nearest

# Name -> the device as JAX names it (`dlm.config.flops.PEAKS`), and bytes of its memory. Sources:
# NVIDIA data sheets, Google Cloud TPU pages.
DEVICES: dict[str, tuple[str, float]] = {
    "h100": ("H100", 80e9),
    "h100-pcie": ("H100 PCIe", 80e9),
    "h100-nvl": ("H100 NVL", 94e9),
    "h200": ("H200", 141e9),
    "b200": ("B200", 180e9),
    "gb200": ("GB200", 186e9),
    "a100": ("A100", 80e9),
    "a100-40gb": ("A100", 40e9),
    "a10": ("A10", 24e9),
    "a10g": ("A10G", 24e9),
    "l40s": ("L40S", 48e9),
    "l4": ("L4", 24e9),
    "rtx3090": ("RTX 3090", 24e9),
    "rtx4090": ("RTX 4090", 24e9),
    "rtx5090": ("RTX 5090", 32e9),
    "tpu-v4": ("TPU v4", 32e9),
    "tpu-v5e": ("TPU v5e", 16e9),
    "tpu-v5p": ("TPU v5p", 95e9),
    "tpu-v6e": ("TPU v6e", 32e9),
}
HERE = "here"  # this machine, measured
# Parameters, and the share of its data sheet that training of so many reached on an H200 (BUILD_NOTES).
# Of sizes between and of other devices it is an assumption.
UTILISATION = ((1e9, 0.35), (4e8, 0.26), (0.0, 0.21))
MOST_HOURS = 1e6
SLOWEST, FASTEST = 1e8, 1e17  # FLOP/s that training reaches on one device


class Device(NamedTuple):
    """One device. `peak` in FLOP/s in bfloat16; of one that was measured, what training reaches."""

    name: str
    peak: float
    memory: float  # bytes; infinite: not known
    measured: bool  # training was timed: no utilisation is assumed


@dataclass(frozen=True)
class Budget:
    """Compute, and the hours of some devices that it takes."""

    flops: float  # C = 6 N D
    device: Device | None = None  # None: not known, and no hours
    devices: int = 1
    utilisation: float = math.nan
    assumed: bool = False  # the utilisation is ours, neither asked for nor measured
    overhead: float = 1.0  # FLOPs with attention over 6 N D, of the family where it is largest

    @property
    def rate(self) -> float:
        """FLOPs an hour of all devices, attention counted; NaN without a device."""
        if self.device is None:
            return math.nan
        return self.device.peak * self.utilisation * self.devices * 3600

    def hours(self, compute: float) -> float:
        """Hours that C = 6 N D takes, with its overhead; NaN without a device."""
        return compute * self.overhead / self.rate


def device(name: str | float) -> Device:
    """A device by its name, or by the FLOP/s that training reaches on it, such as 3e10.

    Raises:
      DlmError: neither a known name nor a number; lists the names.
    """
    try:
        rate = float(name)
    except ValueError:
        rate = math.nan
    if 0 < rate < math.inf and not SLOWEST <= rate <= FASTEST:
        right = f"FLOP/s of training, from {SLOWEST:g} to {FASTEST:g}; devices is how many"
        raise ArgumentError("device", f"={name}: must be {right}")
    if 0 < rate < math.inf:
        return Device(f"device at {rate:g} FLOP/s", rate, math.inf, True)
    key = str(name).lower().replace(" ", "-").replace("_", "-")
    if key not in DEVICES:
        right = f"{HERE}, FLOP/s of your training, or one of {', '.join(DEVICES)}"
        raise ArgumentError("device", f"={name!r}: must be {right}{nearest(key, DEVICES)}")
    kind, memory = DEVICES[key]
    peak = flops.peak(kind, "bfloat16")
    assert peak is not None  # a test asks every name
    return Device(kind, peak, memory, False)


def utilisation(device: Device, params: float, asked: float = 0.0) -> float:
    """The utilisation asked for, else what is assumed of models with so many parameters."""
    if device.measured:
        return 1.0
    return asked or next(share for least, share in UTILISATION if params >= least)
