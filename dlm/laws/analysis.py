"""A whole analysis of one table: the fit, its interval, what it identifies, and how to say it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.laws import critical, fits, holdout, optimum, published, verdicts
from dlm.laws.fits import Fit, Loss, Profile
from dlm.laws.forms import Law
from dlm.laws.forms import law as named
from dlm.laws.holdout import Prediction
from dlm.laws.optimum import Exponent
from dlm.laws.published import Published
from dlm.laws.table import Table
from dlm.laws.verdicts import Outlier, Suggestion, Verdict

STEPS = ("auto", "two", "joint")
CHINCHILLA = ("E", "A", "B", "alpha", "beta")
NATS = 0.01  # the cost below which repeating counts as free


@dataclass(frozen=True)
class Basin:
    """The local minimum that a published point lies in, beside the best one found."""

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
    joint: Fit | None = None  # everything fitted at once, where the main fit had constants
    predictions: tuple[Prediction, ...] = ()

    @property
    def identified(self) -> bool:
        return all(v.identified for v in self.verdicts)


def fit_table(
    table: Table,
    law_name: str,
    *,
    loss: Loss = fits.HUBER,
    steps: str = "auto",
    fixed: dict[str, float] | None = None,
    starts: int = fits.STARTS,
    drop_outliers: float = 0.0,
) -> tuple[Fit, str]:
    """One fit, and how it was made.

    `steps`: two (step one on the runs of one epoch), joint, or auto: with the published constants
    of step one where the table belongs to a published fit, else jointly. `drop_outliers`: fit again
    without the rows further than this many robust standard deviations from that fit (0: none are).

    Raises:
      DlmError: an unknown law, or a table that cannot determine it.
    """
    law = named(law_name)
    if steps not in STEPS:
        raise DlmError(f"steps={steps!r}: must be one of {', '.join(STEPS)}")
    for name in fixed or {}:
        if name not in law.names:
            raise DlmError(f"fixed={name}: {law.name} has {', '.join(law.names)}")
        if not (fixed or {})[name] > 0:
            raise DlmError(f"fixed={name}={(fixed or {})[name]:g}: must be above 0")
    if drop_outliers:
        same: dict[str, Any] = {"loss": loss, "steps": steps, "fixed": fixed, "starts": starts}
        first, how = fit_table(table, law_name, **same)
        kept = verdicts.without_outliers(first, drop_outliers)
        return (first, how) if kept is None else fit_table(kept, law_name, **same)
    options: dict[str, Any] = {"loss": loss, "starts": starts}
    in_print = published.of(table.source)
    decays = set(law.names) - set(CHINCHILLA)
    if fixed:
        return fits.fit(law, table, fixed=fixed, **options), f"with {_fixed(fixed)} given"
    if steps == "two" and decays:
        tied = "chinchilla-tied" if "beta" in law.ties or "beta" in law.names else "chinchilla"
        made = fits.two_step(law, named(tied), table, **options)
        rows = len(made.first.table) if made.first is not None else 0
        return made, f"in two steps; step one, {tied}, on {rows} runs of one epoch"
    if steps == "auto" and decays and in_print is not None and "alpha" in law.names:
        known = {k: v for k, v in in_print.constants.items() if k in law.names}
        why = f"with the constants of step one as published ({in_print.title}): {_fixed(known)}"
        return fits.fit(law, table, fixed=known, **options), why
    return fits.fit(law, table, **options), "jointly, all coefficients at once"


def _fixed(values: dict[str, float], law: Law | None = None) -> str:
    """Names and values; with the law, "unbounded" where a value ran to its limit."""

    def told(name: str, value: float) -> str:
        if law is not None and value > 0.99 * law.coefficient(name).limits[1]:
            return f"{name} unbounded"
        return f"{name} = {value:.5g}"

    return ", ".join(told(*item) for item in values.items())


def analyse(
    table: Table,
    law_name: str,
    *,
    loss: Loss = fits.HUBER,
    steps: str = "auto",
    fixed: dict[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    starts: int = fits.STARTS,
    drop_outliers: float = 0.0,
    cuts: tuple[tuple[str, float], ...] = (),
    rivals_of: tuple[str, ...] = (),
) -> Analysis:
    """Fit, profiles, bootstrap, verdicts, the three approaches, and held-out tests at `cuts`.

    `drop_outliers`: see `fit_table`. `rivals_of`: further laws to put to the same held-out tests.
    """
    options: dict[str, Any] = {"loss": loss, "steps": steps, "fixed": fixed, "starts": starts}
    made, how = fit_table(table, law_name, drop_outliers=drop_outliers, **options)
    table = made.table
    basin = _basin(made)
    joint = None
    if basin is not None:
        joint = fits.fit(made.law, table, loss=loss, starts=min(starts, 64))
    made = fits.bootstrap(made, resamples, seed)
    found, profiles = verdicts.verdicts(made)
    missing = [v.name for v in found if not v.identified]
    predictions = [
        holdout.holdout(table, lambda t, n=name: fit_table(t, n, **options)[0], axis, cut)
        for axis, cut in cuts
        for name in (law_name, *rivals_of)
    ]
    return Analysis(
        fit=made,
        how=how,
        verdicts=tuple(found),
        profiles=profiles,
        rivals=tuple(verdicts.rivals(made)),
        outliers=tuple(verdicts.outliers(made)),
        suggestions=tuple(s for name in missing for s in verdicts.suggest(made, name, 1)),
        exponents=tuple(optimum.approaches(made, resamples)) if "alpha" in made.law.names else (),
        basin=basin,
        joint=joint,
        predictions=tuple(predictions),
    )


def _basin(fit: Fit) -> Basin | None:
    known = published.of(fit.table.source)
    if known is None or fit.law.name != known.law or set(fit.free) != set(known.coefficients):
        return None
    values = fit.fixed | known.coefficients
    predicted = fit.law.predict(values, fit.table.N, fit.table.D, fit.table.U)
    loss = fit.table.loss
    r2 = 1 - ((loss - predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum()
    p = fits.problem(fit)
    start = p.coordinates(values)[None]
    x, f = p.solve(start)
    at = {name: float(v[0]) for name, v in p.coefficients(x).items()}
    residuals = np.log(predicted) - np.log(loss)
    return Basin(known, float(fit.loss.sum(residuals)), float(r2), at, float(f[0]))


# --- in words -----------------------------------------------------------------------------------


def number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:,.{digits}g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"


def span(low: float, high: float) -> str:
    """An interval that may be open."""
    if math.isnan(low):
        return "-"
    if low <= 0 and math.isinf(high):
        return "any value"
    if math.isinf(high):
        return f"above {number(low, 3)}"
    return f"below {number(high, 3)}" if low <= 0 else f"{number(low, 3)} to {number(high, 3)}"


def coefficient_rows(a: Analysis) -> list[list[str]]:
    """Name, value, profile interval, bootstrap interval, verdict. No value stands alone unless it
    is identified."""
    rows = []
    for v in a.verdicts:
        value = (
            number(v.value) if v.identified else f"not identified (minimum at {number(v.value)})"
        )
        boot = "-" if math.isnan(v.boot_low) else span(v.boot_low, _capped(a, v))
        verdict = v.reason or "identified"
        rows.append(
            [
                v.name,
                value,
                span(v.low, v.high),
                boot,
                f"{verdict}; {v.flag}" if v.flag else verdict,
            ]
        )
    rows += [[name, number(value), "-", "-", "given"] for name, value in a.fit.fixed.items()]
    return rows


def _capped(a: Analysis, v: Verdict) -> float:
    top = a.fit.law.coefficient(v.name).limits[1]
    return math.inf if v.boot_high > 0.99 * top else v.boot_high


def sentences(a: Analysis) -> list[str]:
    """What the analysis found, a paragraph an item."""
    fit, t = a.fit, a.fit.table
    found = [
        f"{fit.law.name} on {len(t)} runs ({t.groups} independent) of {t.name}, family {t.family}, "
        f"{a.how}. Objective ({_loss(fit.loss)}, summed over runs) {fit.objective:.8g}, R2 "
        f"{fit.r2:.4f}. Sizes {number(t.N.min(), 3)} to {number(t.N.max(), 3)}, unique tokens "
        f"{number(t.U.min(), 3)} to {number(t.U.max(), 3)}, epochs {number(t.epochs.min(), 3)} to "
        f"{number(t.epochs.max(), 4)}."
    ]
    found += [f"Note: {note}." for note in t.notes]
    if a.basin is not None:
        found += _compare(a, a.basin)
    elif a.rivals:
        words = "; ".join(
            f"{_fixed(fit.minima[i].coefficients, fit.law)} (objective {fit.minima[i].objective:.8g})"
            for i in a.rivals[:4]
        )
        found.append(f"{len(a.rivals)} other local minima are as good within the noise: {words}.")
    bad = [v for v in a.verdicts if not v.identified]
    if bad:
        found.append(
            "NOT IDENTIFIED: "
            + "; ".join(f"{v.name}: {v.reason}" for v in bad)
            + ". No point value of these should be quoted."
        )
        for s in a.suggestions:
            if s.shrinks > 0.99:
                found.append(
                    f"No single run of those considered would pin down {s.name}: its effect on the "
                    "loss at the fitted values is too small."
                )
                continue
            found.append(
                f"To pin down {s.name}, of the runs considered the most would be learnt from N = "
                f"{number(s.params, 3)}, U = {number(s.unique_tokens, 3)}, {number(s.epochs, 3)} "
                f"epochs: the variance of its logarithm would fall to {s.shrinks:.0%}."
            )
    else:
        found.append("Every coefficient is identified.")
    found += [f"{v.name} is {v.flag}." for v in a.verdicts if v.flag]
    found += _worth(a)
    if a.exponents:
        found.append(_exponents(a.exponents))
    found += [_prediction(p) for p in a.predictions]
    if a.outliers:
        names = ", ".join(f"{o.label} ({o.deviations:+.1f})" for o in a.outliers[:6])
        more = f" and {len(a.outliers) - 6} more" if len(a.outliers) > 6 else ""
        found.append(
            f"{len(a.outliers)} rows lie beyond 6 robust standard deviations: {names}{more}. They "
            "are in the fit; --drop-outliers 6 leaves them out by that rule."
        )
    if t.excluded:
        found.append(f"{len(t.excluded)} runs were left out; the reasons are listed.")
    return found


def _loss(loss: Loss) -> str:
    return {
        "huber": f"Huber on log loss, delta {loss.delta:g}",
        "lad": "absolute log residuals",
        "gaussian": "half squared log residuals",
    }[loss.name]


def _compare(a: Analysis, b: Basin) -> list[str]:
    fit = a.fit
    same = abs(b.objective - fit.objective) <= 1e-9 * fit.objective
    worse = f"{(b.objective / fit.objective - 1):.2%} above the global minimum"
    found = [
        f"Published, {b.published.title}: {_fixed(b.published.coefficients)}, objective "
        f"{b.at_published:.10f}, R2 {b.r2_at_published:.4f}. The local minimum there: "
        f"{_fixed(b.coefficients)}, objective {b.objective:.10f}"
        + (". It is the global one." if same else f", {worse}.")
    ]
    if not same:
        others = [m for m in fit.minima[1:] if abs(m.objective - b.objective) > 1e-9 * b.objective]
        between = "; ".join(
            f"({', '.join(f'{v:.4g}' for v in m.coefficients.values())}) {m.objective:.8f}"
            for m in others[:4]
        )
        found.append(
            f"Global minimum: {_fixed(fit.minima[0].coefficients)}, objective {fit.objective:.10f}, "
            f"R2 {fit.r2:.4f}. Other local minima found: {between}."
        )
    if "R_D" in a.profiles:
        p = a.profiles["R_D"]
        near = p.values[p.deviance < 1.0]
        top = p.objective[p.deviance < 1.0].max() / fit.objective - 1
        found.append(
            f"Between them lies a flat valley: with R_N refitted, the objective changes by {top:.2%} "
            f"for R_D from {number(near.min(), 3)} to {number(near.max(), 3)}, less than one unit of "
            f"deviance; a 90% interval allows {fits.threshold(fit):.2f}."
        )
    if a.joint is not None:
        j = a.joint
        found.append(
            f"Fitted jointly instead, on these runs alone: {_fixed(j.coefficients, j.law)}, objective "
            f"{j.objective:.8f} ({j.objective / fit.objective - 1:+.0%}), R2 {j.r2:.4f}; --steps "
            "joint gives its intervals and verdicts."
        )
    return found


def _worth(a: Analysis) -> list[str]:
    fit = a.fit
    try:
        half, low, high = critical.half_life(fit)
    except DlmError:
        return []
    name = next(n for n in ("R_D", "k_D", "p_D") if n in fit.law.names)
    verdict = next((v for v in a.verdicts if v.name == name), None)
    if verdict is not None and not verdict.identified:
        return []
    N, U = float(np.exp(np.log(fit.table.N).mean())), float(np.exp(np.log(fit.table.U).mean()))
    free = critical.epochs_within(fit, N, U, NATS)
    around = "" if math.isnan(low) else f" (90% {span(low, high)})"
    return [
        f"Half-life of repeated data: {number(half, 3)} repetitions{around}. At N = {number(N, 3)} "
        f"and U = {number(U, 3)}, repeating costs less than {NATS:g} nats per token against fresh "
        f"data up to {number(free, 3)} epochs."
    ]


def _exponents(found: tuple[Exponent, ...]) -> str:
    words = []
    for e in found:
        if math.isnan(e.value):
            words.append(f"{e.approach}: not to be had ({e.note or 'too few runs'})")
            continue
        around = "" if math.isnan(e.low) else f" ({number(e.low, 3)} to {number(e.high, 3)})"
        words.append(f"{e.approach} {e.value:.3f}{around}{', ' + e.note if e.note else ''}")
    values = [e.value for e in found if not math.isnan(e.value)]
    spread = f" They differ by up to {max(values) - min(values):.2f}." if len(values) > 1 else ""
    return f"Exponent a of N_opt ~ C^a: {'; '.join(words)}.{spread}"


def _prediction(p: Prediction) -> str:
    axis = f"{number(p.cut, 3)} {'FLOPs' if p.axis == 'flops' else 'epochs'}"
    side = "too high" if p.bias > 0 else "too low"
    return (
        f"Held out, {p.law}: fitted on the {p.fitted} runs up to {axis}, it predicts the {p.held_out} "
        f"above with an RMS error of {p.rms:.2%} (in sample {p.in_sample:.2%}), on average "
        f"{abs(p.bias):.2%} ± {p.bias_stderr:.2%} {side}."
    )


# --- as data ------------------------------------------------------------------------------------


def as_json(a: Analysis) -> dict[str, Any]:
    """Everything, without NaN (null); infinity as "inf"."""
    fit = a.fit
    return plain(
        {
            "table": fit.table.name,
            "family": fit.table.family,
            "law": fit.law.name,
            "formula": fit.law.formula,
            "source": fit.law.source,
            "how": a.how,
            "loss": dataclasses.asdict(fit.loss),
            "runs": len(fit.table),
            "groups": fit.table.groups,
            "objective": fit.objective,
            "r2": fit.r2,
            "coefficients": fit.coefficients,
            "fixed": fit.fixed,
            "verdicts": [dataclasses.asdict(v) for v in a.verdicts],
            "minima": [dataclasses.asdict(m) for m in fit.minima],
            "profiles": {
                n: {"values": p.values.tolist(), "objective": p.objective.tolist()}
                for n, p in a.profiles.items()
            },
            "samples": {n: v.tolist() for n, v in fit.samples.items()},
            "residuals": dict(zip(fit.table.labels, fit.residuals.tolist(), strict=True)),
            "exponents": [dataclasses.asdict(e) for e in a.exponents],
            "suggestions": [dataclasses.asdict(s) for s in a.suggestions],
            "published": None if a.basin is None else dataclasses.asdict(a.basin),
            "joint": None if a.joint is None else a.joint.coefficients,
            "held_out": [dataclasses.asdict(p) for p in a.predictions],
            "outliers": [dataclasses.asdict(o) for o in a.outliers],
            "excluded": [{"run": run, "reason": reason} for run, reason in fit.table.excluded],
            "sentences": sentences(a),
        }
    )


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value.item() if isinstance(value, np.generic) else value


LATEX = {"alpha": r"\alpha", "beta": r"\beta", "R_D": "R_D^*", "R_N": "R_N^*", "gamma": r"\gamma"}


def as_latex(found: list[Analysis]) -> str:
    """A booktabs table of the coefficients and their 90% profile intervals."""
    lines = [
        r"\begin{tabular}{llll}",
        r"\toprule",
        r"family & coefficient & value & 90\% interval \\",
        r"\midrule",
    ]
    for a in found:
        for v in a.verdicts:
            symbol = LATEX.get(
                v.name, v.name if "_" not in v.name else v.name.replace("_", "_{") + "}"
            )
            value = number(v.value) if v.identified else "not identified"
            family = a.fit.table.family.replace("_", r"\_")
            lines.append(f"{family} & ${symbol}$ & {value} & {span(v.low, v.high)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
