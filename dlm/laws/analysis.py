"""A whole analysis of one table: the fit, its intervals, what it identifies, how it predicts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import number
from dlm.laws import fits, holdout, intervals, optimum, published, stages, verdicts
from dlm.laws.fits import Fit
from dlm.laws.forms import STEPS, Law
from dlm.laws.forms import law as named
from dlm.laws.holdout import Prediction
from dlm.laws.intervals import Profile
from dlm.laws.optimum import Exponent
from dlm.laws.published import Published
from dlm.laws.robust_loss import HUBER, RobustLoss
from dlm.laws.table import Table
from dlm.laws.verdicts import Outlier, Suggestion, Verdict

CHINCHILLA = ("E", "A", "B", "alpha", "beta")
NATS = 0.01  # the cost below which repeating counts as free


@dataclass(frozen=True)
class Basin:
    """The local minimum around a published point, beside the best minimum of the fit."""

    published: Published
    at_published: float
    r2_at_published: float
    coefficients: dict[str, float]
    objective: float


@dataclass(frozen=True, eq=False)
class Analysis:
    fit: Fit
    how: str  # how step one was done, in words
    verdicts: tuple[Verdict, ...]
    profiles: dict[str, Profile]
    rivals: tuple[int, ...]  # other minima within the noise
    outliers: tuple[Outlier, ...]
    suggestions: tuple[Suggestion, ...]
    exponents: tuple[Exponent, ...]
    basin: Basin | None = None
    joint: Fit | None = None  # everything fitted at once, if the main fit has constants
    first: Analysis | None = None  # of step one, if the fit has two steps
    predictions: tuple[Prediction, ...] = ()

    @property
    def identified(self) -> bool:
        return all(v.identified for v in self.verdicts)


def check_options(
    law_name: str,
    steps: str = "auto",
    fixed: dict[str, float] | None = None,
    cuts: tuple[tuple[str, float], ...] = (),
    rivals_of: tuple[str, ...] = (),
) -> None:
    """Refuses options that no table could make right, before anything is computed.

    Raises:
      DlmError: an unknown law, steps or axis; a coefficient fixed that the law lacks, or out of its
        limits; every coefficient fixed.
    """
    law = named(law_name)
    for rival in rivals_of:
        named(rival)
    if steps not in STEPS:
        raise DlmError(f"steps={steps!r}: must be one of {', '.join(STEPS)}")
    for name, value in (fixed or {}).items():
        if name not in law.names:
            raise DlmError(f"fixed={name}: {law.name} has {', '.join(law.names)}")
        low, high = law.coefficient(name).limits
        if not low <= value <= high:
            raise DlmError(f"fixed={name}={value:g}: must be from {low:g} to {high:g}")
    for axis, cut in cuts:
        if axis not in holdout.AXES:
            raise DlmError(f"holdout axis {axis!r}: must be one of {', '.join(holdout.AXES)}")
        if not (np.isfinite(cut) and cut > 0):
            raise DlmError(f"holdout {axis}={cut:g}: must be a positive number")


def fit_table(
    table: Table,
    law_name: str,
    *,
    loss: RobustLoss = HUBER,
    steps: str = "auto",
    fixed: dict[str, float] | None = None,
    starts: int = fits.STARTS,
    drop_outliers: float = 0.0,
) -> tuple[Fit, str]:
    """Fits a law to a table; returns the fit and, in words, how it was made.

    `steps`: two (step one on the runs of one epoch), joint, or auto: with the published constants
    of step one if the table belongs to a published fit, else jointly. `drop_outliers`: fit again
    without the rows further than this many robust standard deviations from that fit (0: keep all).

    Raises:
      DlmError: an unknown law, or a table that cannot determine it.
    """
    check_options(law_name, steps, fixed)
    law = named(law_name)
    if drop_outliers:
        same: dict[str, Any] = {"loss": loss, "steps": steps, "fixed": fixed, "starts": starts}
        first, how = fit_table(table, law_name, **same)
        kept = verdicts.without_outliers(first, drop_outliers)
        return (first, how) if kept is None else fit_table(kept, law_name, **same)
    options: dict[str, Any] = {"loss": loss, "starts": starts}
    in_print = published.of(table.source)
    decays = set(law.names) - {*CHINCHILLA, "phi"}
    if fixed:
        return fits.fit(law, table, fixed=fixed, **options), f"with {listed(fixed)} given"
    if steps == "two" and decays:
        tied = "chinchilla-tied" if "beta" in law.ties or "beta" in law.names else "chinchilla"
        tied = "chinchilla-looped" if law.looped else tied
        fitted = fits.two_step(law, named(tied), table, **options)
        rows = len(fitted.first.table) if fitted.first is not None else 0
        return fitted, f"in two steps; step one, {tied}, on {rows} runs of one epoch"
    if steps == "auto" and decays and in_print is not None and "alpha" in law.names:
        known = {k: v for k, v in in_print.constants.items() if k in law.names}
        why = f"with the constants of step one as published ({in_print.title}): {listed(known)}"
        return fits.fit(law, table, fixed=known, **options), why
    return fits.fit(law, table, **options), "jointly, all coefficients at once"


def listed(values: dict[str, float], law: Law | None = None) -> str:
    """Names and values; with the law, "unbounded" for a value at its upper limit."""

    def text(name: str, value: float) -> str:
        if law is not None and value > 0.99 * law.coefficient(name).limits[1]:
            return f"{name} unbounded"
        return f"{name} = {number(value, 5)}"

    return ", ".join(text(*item) for item in values.items())


def analyse(
    table: Table,
    law_name: str,
    *,
    loss: RobustLoss = HUBER,
    steps: str = "auto",
    fixed: dict[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    starts: int = fits.STARTS,
    drop_outliers: float = 0.0,
    cuts: tuple[tuple[str, float], ...] = (),
    rivals_of: tuple[str, ...] = (),
    tell: stages.Tell = stages.silent,
) -> Analysis:
    """Fit, profiles, bootstrap, verdicts, the three approaches, and held-out tests at `cuts`.

    `drop_outliers`: see `fit_table`. `rivals_of`: further laws to put to the same held-out tests.
    `tell` is called with the name of each stage.
    """
    check_options(law_name, steps, fixed, cuts, rivals_of)
    who = f"{law_name}, family {table.family}"
    tell(f"{who}: fitting {len(table):,} rows")
    options: dict[str, Any] = {"loss": loss, "steps": steps, "fixed": fixed, "starts": starts}
    fitted, how = fit_table(table, law_name, drop_outliers=drop_outliers, **options)
    table = fitted.table
    basin = _basin(fitted)
    joint = None
    if basin is not None:
        joint = fits.fit(fitted.law, table, loss=loss, starts=min(starts, 64))
    if cuts:
        tell(f"{who}: predicting held-out runs")
    predictions = [
        holdout.holdout(
            table, lambda t, n=name: fit_table(t, n, **_given(n, options))[0], axis, cut
        )
        for axis, cut in cuts
        for name in (law_name, *rivals_of)
    ]
    if resamples:
        tell(f"{who}: {intervals.affordable(table, resamples):,} resamples")
    fitted = intervals.bootstrap(fitted, resamples, seed)
    tell(f"{who}: profiles of {', '.join(fitted.free)}")
    coefficient_verdicts, profiles = verdicts.verdicts(fitted)
    tell(f"{who}: exponents of the three approaches")
    return dataclasses.replace(
        _analysis(fitted, how, coefficient_verdicts, profiles),
        exponents=tuple(optimum.approaches(fitted, resamples))
        if "alpha" in fitted.law.names
        else (),
        basin=basin,
        joint=joint,
        first=_step_one(fitted.first, resamples, seed),
        predictions=tuple(predictions),
    )


def _given(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options for a rival law, with the fixed coefficients that it has."""
    fixed = {k: v for k, v in (options["fixed"] or {}).items() if k in named(name).names}
    return options | {"fixed": fixed}


def _analysis(
    fitted: Fit, how: str, coefficient_verdicts: list[Verdict], profiles: dict[str, Profile]
) -> Analysis:
    missing = [v for v in coefficient_verdicts if not v.identified]
    return Analysis(
        fit=fitted,
        how=how,
        verdicts=tuple(coefficient_verdicts),
        profiles=profiles,
        rivals=tuple(verdicts.rivals(fitted)),
        outliers=tuple(verdicts.outliers(fitted)),
        suggestions=tuple(s for v in missing for s in verdicts.suggest(fitted, v, 1)),
        exponents=(),
    )


def _step_one(first: Fit | None, resamples: int, seed: int) -> Analysis | None:
    if first is None:
        return None
    first = intervals.bootstrap(first, resamples, seed)
    return _analysis(first, "on the runs of one epoch", *verdicts.verdicts(first))


def _basin(fit: Fit) -> Basin | None:
    known = published.of(fit.table.source)
    if known is None or fit.law.name != known.law or set(fit.free) != set(known.coefficients):
        return None
    values = fit.fixed | known.coefficients
    predicted = fit.law.predict(values, *fit.table.columns)
    loss = fit.table.loss
    r2 = 1 - ((loss - predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum()
    p = fits.problem(fit)
    start = p.coordinates(values)[None]
    x, f = p.solve(start)
    at = {name: float(v[0]) for name, v in p.coefficients(x).items()}
    residuals = np.log(predicted) - np.log(loss)
    return Basin(known, float(fit.loss.sum(residuals)), float(r2), at, float(f[0]))
