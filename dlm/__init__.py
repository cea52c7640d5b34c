"""Scaling-law experiments for data-constrained language modelling: the public API.

    import dlm
    runs = dlm.load("runs/quickstart")       # .table() -> pyarrow; .panels; .summary()
    run = runs["bee6"]                       # run.config, run.curve, run.result
    model = run.model()                      # best weights, tokenizer, objective
    model.log_likelihood(["A sentence."], bound="orders", orders=16)  # an Estimate of each text
    model.perplexity("new.txt"); model.sample(3, prompt="The ")
    fit = dlm.fit("table.csv", law="data-constrained", family="masked")
    fit.coefficients, fit.intervals, fit.identified, fit.optimal(flops=1e20, unique_tokens=1e8)
    dlm.critical(fit_ar, fit, unique_tokens=1e9)
    dlm.plan(1e8, hours=168, device="h100").advice.best
    dlm.plot.frontier(runs); dlm.plot.profiles(fit, width=3.25)
    dlm.objective("masked", vocab_size=257).loss
    dlm.train("experiments/mine.py", {"model.layers": 4})

Each name is loaded when it is first used, so `import dlm` is fast; JAX comes with the first call that
computes with a model. `help(dlm.load)` and so on show each name at work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlm import plot
    from dlm.api import (
        FittedLaw,
        Model,
        Run,
        Runs,
        critical,
        ensemble,
        fit,
        load,
        objective,
        plan,
        train,
    )
    from dlm.errors import DlmError
    from dlm.runs.estimate import Estimate

__all__ = [
    "DlmError",
    "Estimate",
    "FittedLaw",
    "Model",
    "Run",
    "Runs",
    "critical",
    "ensemble",
    "fit",
    "load",
    "objective",
    "plan",
    "plot",
    "train",
]
_MODULES = {"plot": "dlm.plot", "DlmError": "dlm.errors", "Estimate": "dlm.runs.estimate"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dlm' has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "dlm.api"))
    return module if name == "plot" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
