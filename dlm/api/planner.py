"""`dlm.plan`: what to train with so much data and so much compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlm import inputs

if TYPE_CHECKING:
    from dlm.config.devices import Device
    from dlm.laws.plan import TrainingPlan

SECONDS = 5.0  # that a measurement of this machine takes, beside compiling


@inputs.checked
def plan(
    unique_tokens: float,
    *,
    hours: float = 0.0,
    flops: float = 0.0,
    loss: float = 0.0,
    device: str | float = "",
    device_count: int = 1,
    mfu: float = 0.0,
    laws: str | Path = "paper",
    families: Sequence[str] = (),
    law: str = "auto",
    columns: Mapping[str, str] | None = None,
    points: str = "best",
    resamples: int = 400,
    seed: int = 0,
    tell: Callable[[str], None] = lambda stage: None,
) -> TrainingPlan:
    """What to train on `unique_tokens` within a budget: family, size, epochs, and the loss to expect.

    The budget is one of `hours` (of `device_count` devices, such as "h100", "here", or FLOP/s of
    training), `flops` (6ND, N with embeddings) and `loss` (nats per token, to reach). `laws`: "paper",
    "muennighoff", the fit.json of `dlm fit`, or a table or folder of runs, which is fitted; `points`
    "last" takes the end of dlm's own runs in place of their best weights. As `dlm plan`; losses in
    nats per token, intervals 90% (NaN: none), the best family first.

    >>> plan = dlm.plan(1e8, hours=168, device="h100")
    >>> best = plan.advice.best
    >>> best.family, round(best.loss, 2), round(best.epochs)
    ('masked', 3.34, 537)
    >>> plan.advice.decided is None  # laws in print have no intervals
    True

    Raises:
      DlmError: not one budget, numbers in other units, or runs that cannot determine a law.
    """
    from dlm.laws import chosen
    from dlm.laws import plan as planning

    where = read_device(device)
    read = chosen.read(
        laws, families, law=law, columns=columns, points=points, resamples=resamples, seed=seed,
        tell=tell,
    )  # fmt: skip
    budget = dict(hours=hours, flops=flops, loss=loss, mfu=mfu)
    return planning.plan(read, unique_tokens, device=where, device_count=device_count, **budget)


def read_device(name: str | float) -> Device | None:
    """A device by its name; None without one. "here" is measured, which loads JAX."""
    from dlm.config import devices

    if not name:
        return None
    return measure_this_machine() if name == devices.HERE else devices.device(name)


def measure_this_machine(seconds: float = SECONDS) -> Device:
    """This machine as one device, by training a small model for some seconds."""
    import jax

    from dlm.config import experiment, memory
    from dlm.config.devices import Device
    from dlm.training import benchmark

    on_cpu = jax.default_backend() == "cpu"
    c, vocabulary = benchmark.sized("1M" if on_cpu else "100M")
    bench = benchmark.Bench("this machine", experiment.edited(c, ()), vocabulary)
    speed = benchmark.speeds([bench], seconds, training_only=True)[0]
    free = memory.host_memory() if on_cpu else math.inf
    return Device("this machine", speed.flops_per_second, free, measured=True)
