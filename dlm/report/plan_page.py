"""A plan in words: one screen in the terminal, JSON, and the lines that a page and a file repeat."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dlm.config import FAMILIES
from dlm.format import between, count, number, percent, scientific, size
from dlm.laws import advice
from dlm.laws.advice import CLOSE, Advice, FamilyAdvice, Turn, is_reference
from dlm.laws.chosen import short
from dlm.laws.crossings import BETWEEN, CROSSES, FROM_START
from dlm.laws.crossover import name_of
from dlm.laws.plan import TrainingPlan
from dlm.laws.words import plain
from dlm.report.terminal import grid, prose
from dlm.runs import OF_KIND

HEAD = (
    "family",
    "loss",
    "90% interval",
    "N",
    "epochs",
    "hours",
    "memory",
    "disk",
    "tokens",
    "FLOPs",
)
NO_INTERVAL = "none"


def named(family: str) -> str:
    """A family's name in a sentence; "digits/ar" is AR."""
    return name_of(short(family))


def title(p: TrainingPlan) -> str:
    a, b = p.advice, p.budget
    target = "" if math.isnan(p.target_loss) else f"a loss of {p.target_loss:g}: "
    words = f"{count(a.unique_tokens)} unique tokens, {target}{scientific(a.flops, 3)} FLOPs (6ND)"
    if b.device is None:
        return words
    devices = f"{b.devices} x {b.device.name}"
    how = ""
    if not b.device.measured:
        how = f" at {percent(b.utilisation)} of its peak{', assumed' if b.assumed else ''}"
    hours = number(b.hours(a.flops), 3)
    return f"{words}: {hours} {'hour' if hours == '1' else 'hours'} of {devices}{how}"


def rows(p: TrainingPlan) -> list[list[str]]:
    """A row for each family, best first; columns as HEAD."""
    found = []
    for f in p.advice.families:
        run = p.proposals.get(f.family)
        hours = "" if run is None or p.budget.device is None else run.flops / p.budget.rate
        found.append(
            [
                f.family,
                f"{f.loss:.3f}",
                NO_INTERVAL if math.isnan(f.low) else f"{f.low:.3f} to {f.high:.3f}",
                count(f.params),
                number(f.epochs, 3),
                "" if hours == "" else number(hours, 3),
                "" if run is None else size(run.memory),
                "" if run is None else size(run.disk),
                count(f.tokens),
                "" if run is None else scientific(run.flops),
            ]
        )
    return found


# --- sentences ----------------------------------------------------------------------------------


def sentences(p: TrainingPlan) -> list[str]:
    """The answer first, then what would change it, what it costs and what it rests on."""
    a = p.advice
    said = [answer(a), *(_turn(p, turn) for turn in a.turns), _cheapest(p), _seeds(a)]
    return [words for words in [*said, *_cautions(p)] if words]


def answer(a: Advice) -> str:
    """Which family to prefer, and how sure that is."""
    best = a.best
    if len(a.families) == 1:
        return f"Only {named(best.family)} has a law: no family to compare it with."
    first, second = (named(f.family) for f in a.families[:2])
    by = f"expected loss is {a.gap:.3f} nats per token below {second}'s"
    if a.decided is None:
        return (
            f"By these laws: {first}; its {by}. How sure is not known: the laws have no intervals."
        )
    around = f"90% interval {a.gap_low:.3f} to {a.gap_high:.3f}"
    share = f"lowest in {percent(best.share)} of the joint resamples"
    if not a.decided:
        return f"Cannot tell: {first}'s {by} ({around}), {share}."
    return f"Prefer {first}: its {by} ({around}), {share}."


def _turn(p: TrainingPlan, turn: Turn) -> str:
    """Where the budget lies against C_crit, and what more compute or more tokens would change."""
    a, point = p.advice, turn.critical
    first, second = named(turn.challenger), named(turn.reference)
    U = count(a.unique_tokens)
    share = "" if not point.share < 0.995 else f"; {percent(point.share)} of the resamples cross"
    if point.status == CROSSES:
        low = point.low if not point.low <= point.searched[0] else 0.0
        around = "no interval" if math.isnan(point.low) else f"90% {between(low, point.high)}"
        side = "above" if a.flops >= point.compute else "below"
        factor = max(a.flops / point.compute, point.compute / a.flops)
        words = (
            f"C_crit at {U}: {first} passes {second} at {scientific(point.compute)} FLOPs"
            f"{_hours(p, point.compute)} ({around}{share}); the budget is {number(factor, 2)} times "
            f"{side} it."
        )
    elif point.status in (FROM_START, BETWEEN):
        words = f"At {U}, {first} is {point.status} of the compute searched{share}."
    else:
        ends = between(*point.searched, digits=2)
        words = f"At {U}, {first} does not cross {second} within {ends} FLOPs{share}."
    return f"{words}{_more_tokens(a, turn)}"


def _more_tokens(a: Advice, turn: Turn) -> str:
    """On how many unique tokens the family that is behind at this budget would be ahead."""
    if math.isnan(turn.unique_tokens):
        return ""
    pair = [f for f in a.families if f.family in (turn.reference, turn.challenger)]
    side = "more" if turn.unique_tokens > a.unique_tokens else "fewer"
    return (
        f" On {side} than {count(turn.unique_tokens)} unique tokens {named(pair[1].family)} is ahead "
        "at this compute."
    )


def _hours(p: TrainingPlan, compute: float) -> str:
    hours = p.budget.hours(compute)
    return "" if math.isnan(hours) else f", {number(hours, 2)} hours"


def _cheapest(p: TrainingPlan) -> str:
    each = [
        f"{named(f.family)} {scientific(f.cheapest)} FLOPs{_hours(p, f.cheapest)}"
        for f in p.advice.families
        if math.isfinite(f.cheapest)
    ]
    return f"Cheapest within {CLOSE:g} nats of these losses: {'; '.join(each)}." if each else ""


def _seeds(a: Advice) -> str:
    if not a.seeds:
        return f"Seeds that resolve {CLOSE:g} nats: the spread of runs is {a.spread_of}."
    return (
        f"Seeds that resolve {CLOSE:g} nats: {a.seeds} of each family; single runs spread by "
        f"{a.spread:.4f} ({a.spread_of})."
    )


def stops(unspent: Mapping[str, float]) -> list[str]:
    """Says at which compute families are best that a larger one makes worse, by `advice.unspent`."""
    return [
        f"{named(family)} is best after {scientific(flops, 2)} FLOPs on these tokens: by its law of "
        "over-fitting, more compute makes it worse."
        for family, flops in unspent.items()
    ]


def _cautions(p: TrainingPlan) -> list[str]:
    a = p.advice
    words = []
    far = [f"{named(f.family)}: {', '.join(f.beyond)}" for f in a.families if f.beyond]
    if far:
        words.append(f"Extrapolated. {'; '.join(far)}.")
    hopeful = [named(f.family) for f in a.families if not f.overfits and f.epochs > 4]
    if hopeful:
        words.append(
            f"The law of {' and of '.join(hopeful)} knows no over-fitting: these are an optimist's "
            "epochs, and training may not reach the loss. Track the validation loss."
        )
    words += stops(advice.unspent(a.families, a.flops))
    loose = [
        f"{named(f.family)}: {', '.join(f.unidentified_by_bootstrap)}"
        for f in a.families
        if f.unidentified_by_bootstrap
    ]
    if loose:
        words.append(f"The runs leave open ({'; '.join(loose)}): the intervals hold that.")
    held = [
        f"{named(name)} {percent(each.rms, 1)} (above {number(each.cut, 3)} {each.axis})"
        for name, each in p.laws.predictions.items()
    ]
    if held:
        words.append(f"Error of the laws on held-out runs, RMS: {', '.join(held)}.")
        worst = max(each.rms for each in p.laws.predictions.values()) * a.best.loss
        if a.gap < worst:
            words.append(
                f"The difference is smaller than that error, {worst:.3f} nats here, which no interval "
                "holds: it is of the laws' form."
            )
    words += [
        f"No run of {named(family)} is proposed: {why}." for family, why in p.not_proposed.items()
    ]
    words += _bounds(a)
    words += _memory(p)
    return [*words, *p.laws.notes]


def _bounds(a: Advice) -> list[str]:
    """That a bound above an exact likelihood shows nothing."""
    best, *others = a.families
    exact = [f for f in others if not _is_exact(f)]
    if _is_exact(best) and exact:
        names = " and ".join(named(f.family) for f in exact)
        return [
            f"The loss of {names} is an upper bound; above an exact one it does not show a worse model."
        ]
    return []


def _is_exact(f: FamilyAdvice) -> bool:
    known = FAMILIES.get(short(f.family))
    if f.family.endswith(OF_KIND["exact"]):
        return True
    return is_reference(f.family) if known is None else known.exact


def _memory(p: TrainingPlan) -> list[str]:
    device = p.budget.device
    if device is None:
        return []
    large = [f for f, run in p.proposals.items() if run.memory > device.memory]
    if not large:
        return []
    names = " and ".join(map(named, large))
    return [
        f"{names} may not fit the {size(device.memory)} of a device: split it, "
        "--config.mesh.fsdp=2, or take larger train.microbatches."
    ]


# --- doors --------------------------------------------------------------------------------------


def terminal(p: TrainingPlan) -> list[Any]:
    """Rich renderables: the question, the answer, the table, and what it rests on."""
    first, *rest = sentences(p)
    laws = f"Laws: {p.laws.title} ({p.laws.source})."
    lines = [prose(f"{title(p)}\n"), prose(f"{first}\n", "bold"), grid(HEAD, rows(p)), ""]
    return [*lines, *map(prose, rest), prose(laws)]


def summary(p: TrainingPlan) -> tuple[str, str]:
    """Cost and expected losses in one line each, for an experiment file."""
    costs, losses = [], []
    for f in p.advice.families:
        around = "no interval" if math.isnan(f.low) else f"{f.low:.3f} to {f.high:.3f}"
        losses.append(f"{named(f.family)} {f.loss:.3f} ({around})")
        if run := p.proposals.get(f.family):
            hours = (
                "" if p.budget.device is None else f", {number(run.flops / p.budget.rate, 3)} hours"
            )
            costs.append(f"{named(f.family)} {scientific(run.flops)} FLOPs{hours} a run")
    return "; ".join(costs), "; ".join(losses)


def as_json(p: TrainingPlan) -> dict[str, Any]:
    """Everything as strict JSON: a number that is not known is null."""
    device = p.budget.device
    return plain(
        {
            "unique_tokens": p.advice.unique_tokens,
            "flops": p.advice.flops,
            "hours": p.budget.hours(p.advice.flops),
            "budget": dataclasses.asdict(p.budget)
            | {"device": None if device is None else device._asdict()},
            "laws": {"title": p.laws.title, "source": p.laws.source},
            "preferred": p.advice.best.family if p.advice.decided else None,
            "advice": dataclasses.asdict(p.advice),
            "proposals": {name: dataclasses.asdict(run) for name, run in p.proposals.items()},
            "not_proposed": p.not_proposed,
            "held_out": {name: dataclasses.asdict(e) for name, e in p.laws.predictions.items()},
            "sentences": sentences(p),
        }
    )
