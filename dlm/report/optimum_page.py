"""The best use of a range of compute by each family's law, in words, JSON and a figure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlm import disk
from dlm.errors import DlmError
from dlm.format import between, count, number, power, scientific
from dlm.laws import advice, optimum
from dlm.laws.advice import FamilyAdvice
from dlm.laws.chosen import Laws, short
from dlm.laws.compute_optimal import optimal
from dlm.laws.fits import LEVEL, Fit
from dlm.laws.intervals import interval, widened
from dlm.laws.optimum import Exponent
from dlm.laws.words import plain
from dlm.report import canvas
from dlm.report.canvas import Drawing, set_axis, style
from dlm.report.plan_page import named, stops
from dlm.report.terminal import grid, prose

HEAD = ("FLOPs", "family", "N", "90% interval", "D", "epochs", "loss", "90% interval", "beyond")
APPROACHES = ("family", "approach", "a of N ~ C^a", "90% interval", "N", "D", "note")
RESAMPLES = 100  # behind a band


@dataclasses.dataclass(frozen=True)
class Optima:
    """The best use of each compute, and the three approaches to N_opt(C) of each fitted family."""

    unique_tokens: float  # advice.UNLIMITED: no token is repeated
    flops: tuple[float, ...]
    best: tuple[FamilyAdvice, ...]  # by compute, then by family
    approaches: dict[str, list[Exponent]]


def optima(
    laws: Laws, flops: Sequence[float], unique_tokens: float = 0.0, resamples: int = 400
) -> Optima:
    """The best use of each compute by each family; `unique_tokens` 0: none is repeated.

    Raises:
      DlmError: numbers that cannot be raw counts, or a law without a size.
    """
    U = unique_tokens or advice.UNLIMITED
    for C in flops:
        advice.check_units(laws.by_family, U, C)
    return Optima(
        U,
        tuple(flops),
        tuple(
            advice.advise_family(family, law, U, C)
            for C in flops
            for family, law in laws.by_family.items()
        ),
        {
            family: optimum.approaches(law, resamples)
            for family, law in laws.by_family.items()
            if isinstance(law, Fit) and "alpha" in law.law.names
        },
    )


def rows(o: Optima) -> list[list[str]]:
    """A row for each compute and family; columns as HEAD."""
    families = len(o.best) // len(o.flops)
    return [
        [
            scientific(o.flops[k // families], 3),
            f.family,
            count(f.params),
            _counts(f.params_low, f.params_high),
            count(f.tokens),
            number(f.epochs, 3),
            f"{f.loss:.3f}",
            "-" if math.isnan(f.low) else f"{f.low:.3f} to {f.high:.3f}",
            f.beyond[-1] if f.beyond else "",
        ]
        for k, f in enumerate(o.best)
    ]


def _counts(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{count(low)} to {count(high)}"


def approach_rows(o: Optima) -> list[list[str]]:
    """Exponents of the three approaches, and the size that each gives at the middle compute."""
    C = o.flops[len(o.flops) // 2]
    found = []
    for family, exponents in o.approaches.items():
        for e in exponents:
            N = e.constant * C**e.value if math.isfinite(e.value) else math.nan
            size, tokens = (
                (count(N), count(C / (6 * N))) if math.isfinite(N) and N > 0 else ("", "")
            )
            around = between(e.low, e.high)
            found.append([family, e.approach, number(e.value, 3), around, size, tokens, e.note])
    return found


def sentences(laws: Laws, o: Optima) -> list[str]:
    fresh = o.unique_tokens == advice.UNLIMITED
    data = "without repeating a token" if fresh else f"on {count(o.unique_tokens)} unique tokens"
    said = [f"The best use of C = 6ND, {data}. Laws: {laws.title} ({laws.source})."]
    if o.approaches:
        C = scientific(o.flops[len(o.flops) // 2], 3)
        said.append(f"N and D of the three approaches are at {C} FLOPs, on fresh data.")
    loose = {
        f.family: ", ".join(f.unidentified_by_bootstrap)
        for f in o.best
        if f.unidentified_by_bootstrap
    }
    if loose:
        names = "; ".join(f"{named(family)}: {words}" for family, words in loose.items())
        said.append(f"The runs leave open ({names}): the intervals hold that.")
    most = max(o.flops)
    said += stops(advice.unspent(o.best[-(len(o.best) // len(o.flops)) :], most))
    return [*said, *laws.notes]


def terminal(laws: Laws, o: Optima) -> list[Any]:
    """Rich renderables."""
    first, *rest = sentences(laws, o)
    parts = [prose(f"{first}\n"), grid(HEAD, rows(o)), ""]
    if o.approaches:
        parts += [grid(APPROACHES, approach_rows(o)), ""]
    return [*parts, *map(prose, rest)]


def as_json(laws: Laws, o: Optima) -> dict[str, Any]:
    """Everything as strict JSON: a number that is not known is null."""
    families = len(o.best) // len(o.flops)
    best = [
        {"flops_budget": o.flops[k // families]} | dataclasses.asdict(f)
        for k, f in enumerate(o.best)
    ]
    fresh = o.unique_tokens == advice.UNLIMITED
    return plain(
        {
            "laws": {"title": laws.title, "source": laws.source},
            "unique_tokens": None if fresh else o.unique_tokens,
            "optima": best,
            "approaches": {
                family: [dataclasses.asdict(e) for e in exponents]
                for family, exponents in o.approaches.items()
            },
            "sentences": sentences(laws, o),
        }
    )


def drawing(laws: Laws, o: Optima) -> Drawing:
    """Size and loss of each family's best use of compute, with bands."""
    low, high = min(o.flops), max(o.flops)
    C = np.geomspace(low / (1 if high > low else 10), high * (1 if high > low else 10), 60)
    names = [short(family) for family in laws.by_family]

    def paint(ax: Any, column: str) -> None:
        for family, law in laws.by_family.items():
            colour, _, dash = style(names, short(family))
            best = optimal(law.law, law.coefficients, C, o.unique_tokens)
            ax.plot(C, getattr(best, column), color=colour, ls=dash, label=named(family))
            if law.samples:
                values = {name: v[:RESAMPLES, None] for name, v in law.samples.items()}
                draws = getattr(optimal(law.law, values, C, o.unique_tokens), column)
                ends = [interval(each, widened(LEVEL, law)) for each in draws.T]
                ax.fill_between(C, *np.array(ends).T, color=colour, alpha=0.18, lw=0)
        set_axis(ax, "x", power, "log")
        if column == "params":
            set_axis(ax, "y", count, "log")
        else:
            set_axis(ax, "y")
        labels = {"params": "best N", "loss": "expected loss, nats per token"}
        ax.set_ylabel(labels[column])

    return Drawing(
        {"size": lambda ax: paint(ax, "params"), "loss": lambda ax: paint(ax, "loss")},
        "Best size and expected loss of each family over compute; bands: 90% intervals.",
        "The best use of compute",
        x_label="compute 6ND, FLOPs",
        legend=True,
    )


def write(folder: Path, laws: Laws, o: Optima) -> list[Path]:
    """Writes optimum.json, and optimum.png, .svg and .pdf, into a folder.

    Raises:
      DlmError: they cannot be written.
    """
    drawn = canvas.attempt("optimum", lambda: drawing(laws, o), folder / "optimum")
    if drawn.problem:
        raise DlmError(drawn.problem)
    numbers = json.dumps(as_json(laws, o), indent=1)
    return [disk.write(folder / "optimum.json", numbers), *drawn.files]
