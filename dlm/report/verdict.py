"""The verdict on each panel in one line, and the remarks that hold for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.format import between, number, percent, scientific, sentence, with_error
from dlm.laws import crossings, final_numbers, frontiers
from dlm.laws import crossover as cross
from dlm.laws.crossover import Crossover, Final, name_of
from dlm.report.sentences import corpus_notes, curve_gaps, measured, no_comparison
from dlm.runs import Panel, Run

LISTED = 3  # families that a verdict names; more are counted

# What a final difference shows of the challenger, in one word of a table.
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
NOTHING, NO_ORDER = "nothing", "no order"  # a bound above an exact value; two bounds


# --- the verdict --------------------------------------------------------------------------------


def verdict(panel: Panel) -> str:
    """The line that answers the question on one panel: who is ahead, and who overtakes when."""
    finals = sorted(cross.finals(panel), key=lambda f: f.comparison.difference)
    if not finals:
        return no_comparison(panel)
    leader = finals[0].challenger
    best, equal = (
        next((crossover for crossover in crossovers if crossover.challenger == leader), None)
        for crossovers in (cross.crossovers(panel), cross.equal_crossovers(panel))
    )
    assert best is not None  # every challenger has one
    first, *others = [lead(finals[0])] if len(finals) == 1 else _leads(finals)
    ahead = finals[0].comparison.difference < 0 and outcome(finals[0]) in (BETTER, UNDECIDED)
    subject = "it" if ahead and name_of(leader) in first else name_of(leader)
    parts = [first, overtakes(best, equal, subject), *others]
    return f"{sentence('; '.join(parts))}."


def ensembles(panel: Panel) -> str:
    """What ensembles over seeds reach, with how many FLOPs, and how they compare with the family that
    is ahead of all challengers, or with the reference; "" if none are kept."""
    if not panel.ensembles:
        return ""
    parts = [
        f"{name_of(f.name)} reaches {measured(cross.estimate(f.best))}, with "
        f"{scientific(f.best.runs[0].result['flops'])} FLOPs"
        for f in panel.ensembles.values()
    ]
    leaders = sorted(cross.finals(panel), key=lambda f: f.comparison.difference)
    of_pair = {(f.reference, f.challenger): f for f in cross.ensemble_finals(panel)}
    if leaders:
        a, b = (
            _with_best_ensemble(panel, name) for name in (panel.reference, leaders[0].challenger)
        )
        pairs = ((x, y) for x in a for y in b)
        parts += [lead(of_pair[pair]) for pair in pairs if pair in of_pair]
    return f"Ensembles over seeds: {'; '.join(parts)}."


def _with_best_ensemble(panel: Panel, family: str) -> list[str]:
    """The names of a family and of its ensemble of the lowest loss, if it has one."""
    known = cross.ensembles(panel, family)
    best = min(known, key=lambda f: cross.estimate(f.best).value, default=None)
    return [family, best.name] if best else [family]


def outcome(final: Final) -> str:
    """What the final difference shows about the challenger: one of the words above."""
    if not final.comparison.clear:
        return UNDECIDED
    if final.comparison.proven:
        return BETTER if final.comparison.proven == "first" else WORSE
    kinds = {final.challenger_estimate.kind, final.reference_estimate.kind}
    return NO_ORDER if kinds == {"upper bound"} else NOTHING


def lead(final: Final) -> str:
    """Who is ahead in the final numbers, by how much, and what that shows."""
    names = name_of(final.challenger), name_of(final.reference)
    estimates = final.challenger_estimate, final.reference_estimate
    order = slice(None) if final.comparison.difference < 0 else slice(None, None, -1)
    low, high = names[order]
    by = f"{with_error(abs(final.comparison.difference), final.comparison.stderr)} nats per token"
    shows = outcome(final)
    by += f", by {how}" if (how := scored_by(final)) else ""
    if shows == UNDECIDED:
        return f"{low} is ahead by {by}, not decided"
    if shows == NOTHING:
        return f"the upper bound of {high} lies {by} above {low}, which shows nothing"
    if shows == NO_ORDER:
        return f"the upper bound of {low} lies {by} below that of {high}, which does not order them"
    exact = {e.kind for e in estimates} == {"exact"}
    return f"{low} is better than {high} by {'' if exact else 'at least '}{by}"


def scored_by(final: Final) -> str:
    """The numbers beyond the losses that are compared: "orders 16"; "" if none are."""
    return " and ".join(dict.fromkeys(filter(None, (final.challenger_by, final.reference_by))))


def _leads(finals: Sequence[Final]) -> list[str]:
    """The same of several challengers, the lowest loss first."""
    a = name_of(finals[0].reference)
    better = [f for f in finals if outcome(f) == BETTER]
    parts = []
    if better:
        first = better[0]
        least = "at least " if first.challenger_estimate.kind == "upper bound" else ""
        by = with_error(-first.comparison.difference, first.comparison.stderr)
        how = f", by {scored_by(first)}" if scored_by(first) else ""
        parts.append(
            f"{len(better)} of {len(finals)} families are better than {a}, "
            f"{name_of(first.challenger)} by most, {least}{by} nats per token{how}"
        )
    else:
        parts.append(f"none of {len(finals)} families is shown to be better than {a}")
    words = {
        WORSE: f"worse than {a}",
        UNDECIDED: "not decided",
        NOTHING: f"a bound above {a} shows nothing",
        NO_ORDER: "two bounds, which have no order",
    }
    for shows, text in words.items():
        names = [name_of(f.challenger) for f in finals if outcome(f) == shows]
        if names:
            listed = ", ".join(names) if len(names) <= LISTED else f"{len(names)} families"
            parts.append(f"{text}: {listed}")
    return parts


def overtakes(best: Crossover, equal: Crossover | None, subject: str) -> str:
    """When the challenger overtakes: the best of the reference's settings, else at equal ones."""
    if equal is not None and best.compute is None:
        return f"at equal settings {_overtakes(equal, subject)}"
    many = f" the best of {best.trials} settings" if best.trials > 1 else ""
    return _overtakes(best, subject, many)


def _overtakes(crossover: Crossover, subject: str, many: str = "") -> str:
    start = "" if crossover.basis == frontiers.TRACKED else f"from {crossover.basis}, "
    if crossover.status == crossings.TOO_FEW:
        return f"{start}{crossover.status} to say where {subject} overtakes"
    if crossover.status == crossings.BETWEEN:
        ranges = " and ".join(between(*window, digits=2) for window in crossover.windows)
        return f"{start}{subject} is ahead in between only, from {ranges} FLOPs"
    if crossover.compute is None:
        return f"{start}{subject} does not overtake{many} within {scientific(crossover.end)} FLOPs"
    text = f"{start}{subject} overtakes{many} {_when(crossover)}"
    if crossover.kinds[0] == "upper bound":
        text += ", by bounds, which shows nothing of the likelihoods"
    return text


def _when(crossover: Crossover) -> str:
    """Writes: after 24.9 epochs, 4.0×10¹¹ FLOPs [90%: 1.9×10¹¹ to 2.2×10¹²]."""
    after = (
        f"after {number(crossover.epochs, 3)} epochs, " if crossover.epochs is not None else "at "
    )
    if crossover.status == crossings.FROM_START:
        after = "from the start, "
    around = "no interval"
    if crossover.low is not None and crossover.high is not None:
        kind = "90% spread" if crossover.over == "settings" else "90%"
        around = f"{kind}: {between(crossover.low, crossover.high, digits=2)}"
        if crossover.share is not None and crossover.share < 0.95:
            around += f", in {percent(crossover.share)} of resamples"
    return f"{after}{scientific(crossover.compute)} FLOPs [{around}]"


def place(crossover: Crossover | None) -> str:
    """Epochs and FLOPs at which the challenger overtakes, for a cell of a table; "" without any."""
    if crossover is None:
        return ""
    if crossover.compute is None:
        return (
            f"not by {scientific(crossover.end)}"
            if crossover.status == crossings.NEVER
            else crossover.status
        )
    after = f"{number(crossover.epochs, 3)} epochs, " if crossover.epochs is not None else ""
    after = "from the start, " if crossover.status == crossings.FROM_START else after
    return f"{after}{scientific(crossover.compute)}"


# --- remarks, said once for all panels ----------------------------------------------------------


def remarks(panels: Sequence[Panel], excluded: Sequence[tuple[Run, str]]) -> list[str]:
    """Remarks on all verdicts, one sentence each: seeds, runs left out, damage."""
    texts = [_single_seeds(panels)]
    if excluded:
        statuses = ["double" if run.status == "finished" else run.status for run, _ in excluded]
        counts = ", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses)))
        texts.append(f"Left out of the comparison: {counts}.")
    if gaps := sum(len(curve_gaps(panel)) for panel in panels):
        texts.append(f"Curves with gaps: {gaps}.")
    damaged = [words for panel in panels for words in _damaged(panel)]
    if damaged:
        texts.append(f"Left out, damaged: {'; '.join(damaged)}.")
    if notes := list(dict.fromkeys(note for panel in panels for note in corpus_notes(panel))):
        texts.append(f"Notes on the data: {len(notes)}.")
    return [text for text in texts if text]


def _damaged(panel: Panel) -> list[str]:
    """Likelihoods beside the results that cannot be read, each with the reason."""
    families = (*panel.families.values(), *panel.ensembles.values())
    runs = (run for f in families for s in f.settings for run in s.runs)
    return [words for run in runs if (words := final_numbers.damage(run))]


def _single_seeds(panels: Sequence[Panel]) -> str:
    """Which families have one seed only; "" if none has."""
    seeds: dict[str, dict[str, bool]] = {}
    for panel in panels:
        for family in panel.families.values():
            seeds.setdefault(name_of(family.name), {})[panel.title] = family.best.seeds == 1
    single = {name: [title for title, alone in of.items() if alone] for name, of in seeds.items()}
    single = {name: titles for name, titles in single.items() if titles}
    if not single:
        return ""
    everywhere = all(len(titles) == len(seeds[name]) for name, titles in single.items())
    if len(single) == len(seeds) and everywhere and len(single) > LISTED:
        who = f"each of {len(single)} families"
    else:
        *first, last = (
            name if len(titles) == len(seeds[name]) else f"{name} ({'; '.join(titles)})"
            for name, titles in single.items()
        )
        who = f"{', '.join(first)} and {last}" if first else last
    return f"One seed only of {who}: differences between seeds are unknown."
