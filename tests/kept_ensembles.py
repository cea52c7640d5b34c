"""Keeps planted ensembles beside planted runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlm import runs
from dlm.runs import ensembles, likelihoods
from dlm.runs.estimate import Estimate
from dlm.runs.likelihoods import Scored


def keep(members: Sequence[runs.Run], loss: float, **numbers: tuple[float, str]) -> Path:
    """Keeps an ensemble of runs with a loss, and maybe numbers such as orders_16=(1.4, "upper bound")
    on 20 of the windows; returns its folder. Its nats follow the first member's."""
    folder, first = ensembles.place(members), members[0]
    nll = np.load(first.path / "nll.npy")
    score = ensembles.Score(
        members=ensembles.digests(members), kind=first.result["kind"], validation_loss=loss,
        validation_stderr=0.03, validation_mc_stderr=0.0,
        validation_tokens=first.result["validation_tokens"], mc_samples=0, bits_per_byte=None,
    )  # fmt: skip
    windows = np.arange(len(nll))
    ensembles.write(folder, score, nll + 64 * (loss - nll.mean() / 64), windows)
    some = nll[likelihoods.spread(20, len(nll))]
    kept = [
        Scored(
            name.replace("_", " "),
            Estimate(value, 0.03, kind, 20 * 64, 0.002, "random order"),
            20,
            some + 64 * (value - some.mean() / 64),
        )
        for name, (value, kind) in numbers.items()
    ]
    if kept:
        likelihoods.write(folder, kept)
    return folder
