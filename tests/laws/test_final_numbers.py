"""Settings are compared by the numbers that decide between them: planted bounds and planted noise."""

from __future__ import annotations

import numpy as np
import pytest

from dlm import runs
from dlm.laws import crossover, final_numbers
from dlm.runs import likelihoods
from dlm.runs.estimate import Estimate
from dlm.runs.likelihoods import Scored
from fake_runs import autoregressive, diffusion, write_run

WINDOWS = 40


def planted(workdir, *, nelbo: float, numbers: dict[str, tuple[float, str]], ar: float = 1.5):
    """A panel of AR, exact, and masked diffusion with a NELBO and further numbers on 10 windows."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, WINDOWS)  # of the documents, the same for all models
    for objective, law, loss in (
        ("ar", autoregressive(1.2e12, ar), ar),
        ("masked", diffusion(1.2e12, nelbo), nelbo),
    ):
        folder = write_run(workdir, law, objective=objective, loss=loss, nll=noise + loss)
        if objective == "masked":
            rows = likelihoods.spread(10, WINDOWS)
            length = runs.load(folder)[0].result["seq_len"]
            likelihoods.write(
                folder,
                [
                    Scored(
                        name,
                        Estimate(value, 0.03, kind, 10 * length, 0.002, "random order"),
                        10,
                        (noise[rows] + value) * length,
                    )
                    for name, (value, kind) in numbers.items()
                ],
            )
    return runs.panels(runs.load(workdir))[0][0]
