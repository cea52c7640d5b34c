"""A plan: advice for a budget in the user's units, with the hours, memory and disk that it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.config import FAMILIES, devices, experiment_file, proposal
from dlm.config.devices import Budget, Device
from dlm.config.experiment_file import Advised
from dlm.config.proposal import Proposal
from dlm.errors import DlmError
from dlm.format import number, scientific
from dlm.laws import advice, chosen
from dlm.laws.advice import Advice
from dlm.laws.chosen import Laws


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    laws: Laws
    budget: Budget
    advice: Advice
    proposals: dict[str, Proposal]  # by family; none of one that this product does not train
    target_loss: float = math.nan  # what was asked for in place of a budget

    def __repr__(self) -> str:
        best = self.advice.best
        return (
            f"U = {number(self.advice.unique_tokens)}, {scientific(self.advice.flops)} FLOPs: "
            f"{best.family}, {number(best.params, 3)} parameters, {number(best.epochs, 3)} epochs, "
            f"expected loss {best.loss:.3f}"
        )


def plan(
    laws: Laws,
    unique_tokens: float,
    *,
    hours: float = 0.0,
    flops: float = 0.0,
    loss: float = 0.0,
    device: Device | None = None,
    device_count: int = 1,
    mfu: float = 0.0,
) -> TrainingPlan:
    """Advice for a budget in hours of devices, in FLOPs, or for a loss to reach.

    `mfu`: the share of a device's peak that 6 N D FLOPs reach (0: assumed, by the size advised).

    Raises:
      DlmError: not one of hours, FLOPs and loss; a number that is out of range or in other units.
    """
    if sum(bool(value) for value in (hours, flops, loss)) != 1:
        raise DlmError(
            "budget: give one of --hours (with --device), --flops, or --loss, the loss to reach"
        )
    _check_range("loss", loss, 20, "nats per token; of a perplexity give the natural logarithm")
    if device_count < 1:
        raise DlmError(f"device_count={device_count}: must be a whole number from 1")
    _check_range("hours", hours, devices.MOST_HOURS, "wall-clock hours")
    _check_range("mfu", mfu, 1, "the share of the peak that training reaches")
    if hours and device is None:
        raise DlmError(f"hours={hours:g}: needs --device, such as h100 or here")
    if loss:
        flops = advice.flops_for_loss(laws.by_family, unique_tokens, loss)
    advice.check_units(laws.by_family, unique_tokens, flops or advice.LEAST_FLOPS)
    budget = _budget(laws, unique_tokens, flops, hours, device, device_count, mfu)
    found = advice.advise(laws.by_family, unique_tokens, budget.flops, laws.spread)
    sizes = {f.family: (f.params, f.tokens) for f in found.families}
    proposals = _proposals(laws, sizes, unique_tokens, budget)
    return TrainingPlan(laws, budget, found, proposals, target_loss=loss or math.nan)


def _check_range(name: str, value: float, most: float, words: str) -> None:
    if not 0 <= value <= most:
        raise DlmError(f"{name}={value:g}: must be above 0, at most {most:g}: {words}")


def _budget(
    laws: Laws,
    U: float,
    flops: float,
    hours: float,
    device: Device | None,
    count: int,
    mfu: float,
) -> Budget:
    """The budget in FLOPs. Utilisation and overhead are those of the sizes that it affords, so it is
    found step by step: the least utilisation and the largest overhead of the families count."""
    if device is None:
        return Budget(flops)
    assumed = not mfu and not device.measured
    budget = Budget(flops, device, count, devices.utilisation(device, math.inf, mfu), assumed)
    for _ in range(3):
        compute = flops or hours * budget.rate / budget.overhead
        budget = dataclasses.replace(budget, flops=compute)
        uses = {f: advice.best_use(law, U, compute) for f, law in laws.by_family.items()}
        sizes = {family: (N, D) for family, (N, D, _, _) in uses.items()}
        proposals = _proposals(laws, sizes, U, budget).values()
        overheads = [1.0, *(p.flops / (6 * p.params * p.tokens) for p in proposals)]
        smallest = min(N for N, _ in sizes.values())
        share = min(budget.utilisation, devices.utilisation(device, smallest, mfu))
        budget = dataclasses.replace(budget, utilisation=share, overhead=max(overheads))
    return dataclasses.replace(budget, flops=flops or hours * budget.rate / budget.overhead)


def _proposals(
    laws: Laws, sizes: Mapping[str, tuple[float, float]], unique_tokens: float, budget: Budget
) -> dict[str, Proposal]:
    """A run of each family that this product trains, from its parameters and tokens."""
    memory = budget.device.memory if budget.device else math.inf
    proposals = {}
    for family, (params, tokens) in sizes.items():
        if (objective := chosen.short(family)) in FAMILIES:
            proposals[family] = proposal.propose(
                *(objective, params, tokens, unique_tokens, memory, budget.devices),
                recipe=laws.recipes.get(family),
            )
    return proposals


def experiment_text(p: TrainingPlan, path: Path | str, command: str, summary: Sequence[str]) -> str:
    """The experiment file that trains what a plan advises; `summary`: its cost, and what to expect.

    Raises:
      DlmError: no family of the plan is one that this product trains.
    """
    U = p.advice.unique_tokens
    default = proposal.default_recipe(U)
    advised = [
        Advised(
            p.proposals[f.family].objective,
            f.params,
            f.flops,
            p.laws.recipes.get(f.family, default),
        )
        for f in p.advice.families
        if f.family in p.proposals
    ]
    if not advised:
        names = ", ".join(f.family for f in p.advice.families)
        raise DlmError(f"--write {path}: none of {names} is a family that dlm trains")
    cost, expected = summary
    return experiment_file.experiment_text(
        advised,
        U,
        path=str(path),
        command=command,
        source=f"{p.laws.title} ({p.laws.source})",
        cost=cost,
        expected=expected,
    )
