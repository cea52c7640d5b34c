"""Numbers for a likelihood in lines, as `dlm evaluate` prints them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlm.runs.estimate import OWN_SAMPLERS, Estimate

if TYPE_CHECKING:
    from dlm.api import Model
    from dlm.evaluation.likelihood import Likelihood

NAMED = {"orders": "K-order bound", "tangent": "tangent bound", "nelbo": "NELBO"}


def of_model(model: Model, numbers: dict[str, Likelihood]) -> list[str]:
    """The numbers of a model, a line each, then bits per byte of the first, and what the data lack."""
    from dlm.data import store
    from dlm.evaluation import score

    first = next(iter(numbers.values())).estimate
    lines = []
    for name, number in numbers.items():
        label = "validation" if len(numbers) == 1 else f"validation, {NAMED[name]}"
        lines.append(line(label, number))
    bits = score.bits_per_byte(first, model.store.bytes_per_token)
    if bits is not None:
        lines.append(f"  validation: {bits:.4f} bits per byte")
    if number_of_samples := next(iter(numbers.values())).mc_samples:
        lines.append(f"  Monte Carlo samples: {number_of_samples} a window")
    return lines + [f"  note: {sentence}" for sentence in store.notes(model.store.manifest)]


def line(name: str, number: Likelihood) -> str:
    e = number.estimate
    error = f" ± {e.stderr:.4f}" if math.isfinite(e.stderr) else ""
    about = f"{kind(e)}, {e.tokens:,} tokens{noise(e)}"
    return f"  {name}: {e.value:.4f}{error} nats/token ({about})"


def kind(e: Estimate) -> str:
    """The kind of a number, and the sampler that it is of, unless that one defines the model."""
    of = "" if e.sampler in OWN_SAMPLERS else f" of the sampler {e.sampler}"
    return f"{e.kind}{of}"


def noise(e: Estimate) -> str:
    return f"; Monte Carlo error {e.mc_stderr:.4f}" if e.mc_stderr else ""
