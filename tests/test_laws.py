"""Forms, derivatives, minimiser and fits, against brute force, invariances and planted laws."""

from __future__ import annotations

import math

import numpy as np
import planted
import pytest

from dlm.laws import fits, verdicts
from dlm.laws.fits import Loss
from dlm.laws.forms import law as named

GAUSSIAN = Loss("gaussian")

# --- intervals ----------------------------------------------------------------------------------


def drawn(rng: np.random.Generator) -> tuple[dict[str, float], float]:
    """Coefficients of data-constrained, and the noise in log loss, of one imagined study."""
    log = lambda low, high: float(np.exp(rng.uniform(math.log(low), math.log(high))))  # noqa: E731
    truth = {"E": rng.uniform(1.7, 2.0), "A": log(200, 600), "B": log(500, 1500)}
    truth |= {"alpha": rng.uniform(0.29, 0.36), "beta": rng.uniform(0.29, 0.36)}
    return truth | {"R_D": log(8, 100), "R_N": log(3, 60)}, log(0.003, 0.01)


def coverage(studies: int, known: tuple[str, ...] = (), **options: int) -> dict[str, np.ndarray]:
    """Per coefficient, in how many of the studies its 90% profile and bootstrap intervals hold."""
    law = named("data-constrained")
    hits: dict[str, list[tuple[bool, bool]]] = {}
    for study in range(studies):
        truth, noise = drawn(np.random.default_rng([study, 1]))
        runs = planted.table(law.name, truth, noise=noise, seed=study)
        fixed = {name: truth[name] for name in known}
        fit = fits.fit(law, runs, loss=GAUSSIAN, fixed=fixed, starts=options["starts"])
        fit = fits.bootstrap(fit, options["resamples"], seed=study)
        for v in verdicts.verdicts(fit)[0]:
            at = truth[v.name]
            hit = (v.low <= at <= v.high, v.boot_low <= at <= v.boot_high)
            hits.setdefault(v.name, []).append(hit)
    return {name: np.mean(hit, axis=0) for name, hit in hits.items()}


def test_intervals_hold_the_truth_more_often_than_not():
    """Twenty studies of R_D and R_N with the other constants known; the slow test counts well."""
    known = ("E", "A", "B", "alpha", "beta")
    for share in coverage(20, known, starts=8, resamples=200).values():
        assert (share >= 0.6).all()


@pytest.mark.slow
def test_nine_intervals_in_ten_hold_the_truth():
    found = coverage(200, starts=32, resamples=500)
    for name, (profile, bootstrap) in found.items():
        print(f"{name}: profile {profile:.3f}, bootstrap {bootstrap:.3f}", flush=True)
    average = np.mean(list(found.values()), axis=0)
    print(f"average: profile {average[0]:.3f}, bootstrap {average[1]:.3f}")
    assert ((average > 0.85) & (average < 0.95)).all(), average
