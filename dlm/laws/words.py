"""An analysis in words, as JSON and as LaTeX."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dlm.errors import DlmError
from dlm.format import between, latex, latex_number, number, sentence
from dlm.laws import fits, intervals, verdicts, worth
from dlm.laws.analysis import NATS, Analysis, Basin, listed
from dlm.laws.holdout import Prediction
from dlm.laws.optimum import Exponent
from dlm.laws.robust_loss import RobustLoss
from dlm.laws.verdicts import Verdict


def coefficient_rows(a: Analysis) -> list[list[str]]:
    """Name, value, profile interval, bootstrap interval, verdict; an unidentified value says so."""
    rows = [_row(v) for v in a.verdicts]
    known = {v.name: v for v in a.first.verdicts} if a.first else {}
    for name, value in a.fit.fixed.items():
        if name in known:
            row = _row(known[name])
            rows.append([*row[:-1], f"step one: {row[-1]}"])
        else:
            rows.append([name, number(value), "-", "-", _why_fixed(a, name)])
    return rows


def _why_fixed(a: Analysis, name: str) -> str:
    law, first = a.fit.law, a.fit.first
    if held_at := law.coefficient(name).held_at:
        return f"the unit of {held_at}, not fitted"
    return f"tied to {first.law.ties[name]}" if first else "given"


def _row(v: Verdict) -> list[str]:
    value = number(v.value) if v.identified else f"not identified (minimum at {number(v.value)})"
    verdict = v.reason or "identified"
    verdict = f"{verdict}; {v.flag}" if v.flag else verdict
    return [v.name, value, between(*v.profile), between(*v.boot), verdict]


def sentences(a: Analysis) -> list[str]:
    """The results of an analysis, one paragraph per item."""
    fit, t = a.fit, a.fit.table
    sizes, unique, epochs = (between(v.min(), v.max()) for v in (t.N, t.U, t.epochs))
    texts = [
        f"{sentence(fit.law.name)} on {len(t)} runs ({t.groups} independent) of {t.name}, family "
        f"{t.family}, {a.how}. Objective ({_loss(fit.loss)}, summed over runs) "
        f"{number(fit.objective, 8)}, R2 {fit.r2:.4f}. Sizes {sizes}, unique tokens {unique}, epochs "
        f"{epochs}."
    ]
    texts += [f"Note: {note}." for note in (*t.notes, *fits.cautions(fit))]
    if drawn := len(next(iter(fit.samples.values()), ())):
        few = f", not the {fit.requested_resamples:,} requested, as the table has {len(t):,} rows"
        texts.append(
            f"Bootstrap: {drawn:,} resamples{few if drawn < fit.requested_resamples else ''}."
        )
    if a.basin is not None:
        texts += _compare(a, a.basin)
    elif a.rivals:
        words = "; ".join(
            f"{listed(m.coefficients, fit.law)} (objective {number(m.objective, 8)})"
            for m in (fit.minima[i] for i in a.rivals[:4])
        )
        flat = "" if a.identified else ", points of the flat directions above all"
        texts.append(
            f"{len(a.rivals)} other local minima are as good within the noise{flat}: {words}."
        )
    bad = [v for v in a.verdicts if not v.identified]
    if bad:
        texts.append(
            "NOT IDENTIFIED: "
            + "; ".join(f"{v.name}: {v.reason}" for v in bad)
            + ". No point value of these should be quoted."
        )
        for s in a.suggestions:
            if s.shrinks > 0.99:
                texts.append(
                    f"No single run considered would identify {s.name}: its effect on the loss is too "
                    "small at the fitted values."
                )
                continue
            texts.append(
                f"To narrow {s.name}, add a run of N = {number(s.params, 3)}, U = "
                f"{number(s.unique_tokens, 3)}, {number(s.epochs, 3)} epochs"
                f"{f', loops {s.loops:g}' if fit.law.looped else ''}. Of the runs considered "
                f"it tells most: the variance of log {s.name} falls to {s.shrinks:.0%}."
            )
    else:
        texts.append("Every coefficient is identified.")
    texts.append(verdicts.rule(fit))
    if a.first is not None:
        texts.append(
            "Two steps: the intervals of step two are the bootstrap's, which refits step one with "
            "each resample; the profiles take step one as known, and are too narrow."
        )
    texts += [f"{v.name} is {v.flag}." for v in a.verdicts if v.flag]
    texts += [*_worth(a), *_growth(a)]
    if a.exponents:
        texts.append(_exponents(a.exponents))
    texts += [_prediction(p) for p in a.predictions]
    if a.outliers:
        names = ", ".join(f"{o.label} ({o.deviations:+.1f})" for o in a.outliers[:6])
        more = f" and {len(a.outliers) - 6} more" if len(a.outliers) > 6 else ""
        texts.append(
            f"{len(a.outliers)} rows lie beyond 6 robust standard deviations: {names}{more}. They "
            "are in the fit; --drop-outliers 6 leaves them out by that rule."
        )
    if t.excluded:
        texts.append(f"{len(t.excluded)} runs were left out; the reasons are listed.")
    return texts


def _loss(loss: RobustLoss) -> str:
    return {
        "huber": f"Huber on log loss, delta {loss.delta:g}",
        "lad": "absolute log residuals",
        "gaussian": "half squared log residuals",
    }[loss.name]


def _compare(a: Analysis, b: Basin) -> list[str]:
    fit = a.fit
    same = abs(b.objective - fit.objective) <= 1e-9 * fit.objective
    worse = f"{(b.objective / fit.objective - 1):.2%} above the global minimum"
    texts = [
        f"Published, {b.published.title}: {listed(b.published.coefficients)}, objective "
        f"{b.at_published:.10f}, R2 {b.r2_at_published:.4f}. The local minimum there: "
        f"{listed(b.coefficients)}, objective {b.objective:.10f}"
        + (". It is the global one." if same else f", {worse}.")
    ]
    if not same:
        others = [m for m in fit.minima[1:] if abs(m.objective - b.objective) > 1e-9 * b.objective]
        others_listed = "; ".join(
            f"({', '.join(number(v) for v in m.coefficients.values())}) {m.objective:.8f}"
            for m in others[:4]
        )
        texts.append(
            f"Global minimum: {listed(fit.minima[0].coefficients)}, objective {fit.objective:.10f}, "
            f"R2 {fit.r2:.4f}. Other local minima found: {others_listed}."
        )
    if "R_D" in a.profiles:
        p = a.profiles["R_D"]
        near = p.values[p.deviance < 1.0]
        top = p.objective[p.deviance < 1.0].max() / fit.objective - 1
        texts.append(
            f"Between them lies a flat valley: with R_N refitted, the objective changes by {top:.2%} "
            f"for R_D from {number(near.min(), 3)} to {number(near.max(), 3)}, less than one unit of "
            f"deviance; a 90% interval allows {intervals.threshold(fit):.2f}."
        )
    if a.joint is not None:
        j = a.joint
        texts.append(
            f"Fitted jointly instead, on these runs alone: {listed(j.coefficients, j.law)}, objective "
            f"{j.objective:.8f} ({j.objective / fit.objective - 1:+.0%}), R2 {j.r2:.4f}; --stages "
            "joint gives its intervals and verdicts."
        )
    return texts


def _worth(a: Analysis) -> list[str]:
    fit = a.fit
    try:
        N, U = float(np.exp(np.log(fit.table.N).mean())), float(np.exp(np.log(fit.table.U).mean()))
        half, low, high = worth.half_life(fit, N, U)
    except DlmError:
        return []
    name = next(n for n in ("R_D", "k_D", "p_D") if n in fit.law.names)
    verdict = next((v for v in a.verdicts if v.name == name), None)
    if verdict is not None and not verdict.identified:
        return []
    free = worth.epochs_within(fit, N, U, NATS)
    around = "" if math.isnan(low) else f" (90% {between(low, high)})"
    return [
        f"Half-life of repeated data: {number(half, 3)} repetitions{around}. At N = {number(N, 3)} "
        f"and U = {number(U, 3)}, repeating costs less than {NATS:g} nats per token against fresh "
        f"data up to {number(free, 3)} epochs."
    ]


def _growth(a: Analysis) -> list[str]:
    """The power at which R_D grows, if the runs tell it."""
    v = next((v for v in a.verdicts if v.name == "growth" and v.identified), None)
    if v is None:
        return []
    power, low, high = (math.log10(value) for value in (v.value, v.low, v.high))
    axis = "U" if "U_0" in a.fit.law.names else "N"
    return [f"R_D goes as {axis}^{power:.2f} (90% {low:.2f} to {high:.2f}); 0 is data-constrained."]


def _exponents(exponents: tuple[Exponent, ...]) -> str:
    words = []
    for e in exponents:
        if math.isnan(e.value):
            words.append(f"{e.approach}: unknown ({e.note or 'too few runs'})")
            continue
        around = "" if math.isnan(e.low) else f" ({number(e.low, 3)} to {number(e.high, 3)})"
        words.append(f"{e.approach} {e.value:.3f}{around}{', ' + e.note if e.note else ''}")
    values = [e.value for e in exponents if not math.isnan(e.value)]
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
    """The whole analysis as strict JSON; see `plain`."""
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
            "ranges": dataclasses.asdict(fit.ranges),
            "objective": fit.objective,
            "r2": fit.r2,
            "coefficients": fit.coefficients,
            "fixed": fit.fixed,
            "verdicts": [_verdict(v) for v in a.verdicts],
            "minima": [dataclasses.asdict(m) for m in fit.minima],
            "profiles": {
                n: {"values": p.values.tolist(), "objective": p.objective.tolist()}
                for n, p in a.profiles.items()
            },
            "samples": {n: v.tolist() for n, v in fit.samples.items()},
            "share": intervals.widened(intervals.LEVEL, fit),
            "residuals": [
                {"run": label, "log_predicted_over_observed": r}
                for label, r in zip(fit.table.labels, fit.residuals.tolist(), strict=True)
            ],
            "exponents": [dataclasses.asdict(e) for e in a.exponents],
            "suggestions": [dataclasses.asdict(s) for s in a.suggestions],
            "step_one": None if a.first is None else as_json(a.first),
            "published": None if a.basin is None else dataclasses.asdict(a.basin),
            "joint": None if a.joint is None else a.joint.coefficients,
            "held_out": [dataclasses.asdict(p) for p in a.predictions],
            "outliers": [dataclasses.asdict(o) for o in a.outliers],
            "excluded": [{"run": run, "reason": reason} for run, reason in fit.table.excluded],
            "sentences": sentences(a),
        }
    )


def _verdict(v: Verdict) -> dict[str, Any]:
    """Coefficients are positive, so an interval that begins at 0 has no lower end."""

    def ends(low: float, high: float) -> dict[str, float]:
        return {"low": -math.inf if low <= 0 else low, "high": high}

    fields = dataclasses.asdict(v) | ends(v.low, v.high)
    return fields | {"profile": ends(*v.profile), "boot": ends(*v.boot)}


def plain(value: Any) -> Any:
    """Converts a value to strict JSON: an unknown number (NaN) and an open end (infinity) are null.

    An object with `low` and `high` also gets "open", the ends that its interval lacks: "above",
    "below", "both", or "" if it has two ends or none is known.
    """
    if isinstance(value, dict):
        members = {str(k): plain(v) for k, v in value.items()}
        ends = value.get("low"), value.get("high")
        if all(isinstance(end, int | float | np.number) for end in ends):
            members["open"] = _open(*ends)
        return members
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _open(low: Any, high: Any) -> str:
    below, above = low == -math.inf, math.inf in (low, high)
    return "both" if below and above else "below" if below else "above" if above else ""


SYMBOLS = {"alpha": r"\alpha", "beta": r"\beta", "R_D": "R_D^*", "R_N": "R_N^*", "gamma": r"\gamma"}
SYMBOLS |= {"phi": r"\varphi", "growth": r"\mathrm{growth}"}


def as_latex(analyses: list[Analysis]) -> str:
    """A booktabs table of the coefficients and the 90% intervals that their verdicts rest on."""
    lines = [
        *(f"% {' '.join(f'{a.fit.law.name} on {a.fit.table.name}'.split())}" for a in analyses[:1]),
        r"\begin{tabular}{llll}",
        r"\toprule",
        r"family & coefficient & value & 90\% interval \\",
        r"\midrule",
    ]
    for a in analyses:
        for v in a.verdicts:
            symbol = SYMBOLS.get(
                v.name, v.name if "_" not in v.name else v.name.replace("_", "_{") + "}"
            )
            value = latex_number(number(v.value)) if v.identified else "not identified"
            around = latex_number(between(v.low, v.high))
            lines.append(f"{latex(a.fit.table.family)} & ${symbol}$ & {value} & {around} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
