"""Says which steps a run shares with a longer one that differs in its duration alone. Loads no JAX."""

from __future__ import annotations

from pathlib import Path

from dlm import config
from dlm.config.planning import Plan
from dlm.errors import DlmError
from dlm.runs import folder as run_folder
from dlm.runs import names
from dlm.runs.schema import RunResult


def check(folder: Path, c: config.Config, longer: config.Config, before: Plan, after: Plan) -> None:
    """Refuses a longer run whose first steps are not those of the finished run in `folder`.

    Raises:
      DlmError: the run is not finished, the two share no steps, or the duration is not longer.
    """
    if (status := run_folder.status(folder)) != "finished":
        raise DlmError(f"{folder}: is {status}; must be finished to be extended")
    if after.steps <= before.steps:
        raise DlmError(
            f"config.train.duration={longer.train.duration!r}: is {after.steps:,} steps; must be more "
            f"than the {before.steps:,} of {names.run_id(folder)}"
        )
    if c.optimizer.schedule not in ("constant", "wsd"):
        raise DlmError(
            f"{folder}: config.optimizer.schedule={c.optimizer.schedule!r} lowers the rate from the "
            "first steps by the length of the run, so a longer run shares none of them; train it "
            "from scratch, or use constant or wsd"
        )
    if c.data.mode != "epoch":
        raise DlmError(
            f"{folder}: config.data.mode={c.data.mode!r} shuffles all epochs together, so a longer "
            "run shares no step; train it from scratch"
        )
    for name, amount, steps in (
        ("optimizer.warmup", c.optimizer.warmup, (before.warmup, after.warmup)),
        ("evaluation.every", c.evaluation.every, (before.evaluate_every, after.evaluate_every)),
    ):
        if steps[0] != steps[1]:
            raise DlmError(
                f"{folder}: config.{name}={amount!r} is {steps[0]} steps there and {steps[1]} in the "
                "longer run, which shares no step then; train it from scratch"
            )
    result = run_folder.read_result(folder)
    if isinstance(result, RunResult) and result.steps < before.steps:
        raise DlmError(
            f"{folder}: config.evaluation.patience ended it at step {result.steps:,} of "
            f"{before.steps:,}; a longer run ends there too"
        )


def last_shared(c: config.Config, before: Plan, after: Plan) -> int:
    """The last step up to which both runs do the same."""
    last = before.steps if before.steps in after.evaluate_at else before.steps - 1
    if c.optimizer.schedule == "wsd":
        last = min(last, *(plan.steps - plan.decay for plan in (before, after)))
    return last
