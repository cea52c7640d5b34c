"""What a set of runs says, once as numbers (report.json) and once in sentences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from dlm.format import between, number, scientific, sentence, with_error
from dlm.laws import crossings, frontiers
from dlm.laws import crossover as cross
from dlm.laws.crossover import Crossover, Final, name_of
from dlm.laws.words import plain
from dlm.runs import Family, Panel, Run, rows
from dlm.runs.estimate import Estimate

# --- numbers ------------------------------------------------------------------------------------


def numbers(
    runs: Sequence[Run], panels: Sequence[Panel], excluded: Sequence[tuple[Run, str]]
) -> dict[str, Any]:
    """Everything the report says, as strict JSON; see `words.plain`."""
    return plain(
        {
            "experiments": sorted({run.experiment for run in runs}),
            "questions": questions(runs),
            "answers": [answer(panel) for panel in panels] or [nothing(runs)],
            "panels": [_panel(panel) for panel in panels],
            "selected_on_validation": selected(panels),
            "excluded": [
                {"experiment": run.experiment, "run": run.run, "label": run.label, "reason": reason}
                for run, reason in excluded
            ],
            "versions": versions(runs),
            "devices": devices(runs),
            "runs": rows(runs),
        }
    )


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "corpus": panel.corpus,
        "fingerprint": panel.fingerprint,
        "unique_tokens": panel.unique_tokens,
        "seq_len": panel.seq_len,
        "corpus_notes": corpus_notes(panel),
        "curve_gaps": curve_gaps(panel),
        "families": [_family(family) for family in panel.families.values()],
        "crossovers": {
            axis: [
                dataclasses.asdict(found)
                for found in cross.equal_crossovers(panel, axis) + cross.crossovers(panel, axis)
            ]
            for axis in ("flops", "flops_6nd")
        },
        "finals": [_final(found) for found in cross.finals(panel)],
    }


def _family(family: Family) -> dict[str, Any]:
    best, estimate = family.best, cross.estimate(family.best)
    means = (
        "best_epoch",
        "best_flops",
        "train_loss",
        "bits_per_byte",
        "params",
        "flops",
        "seconds",
    )
    return {
        "objective": family.name,
        "kind": family.kind,
        "settings_tried": family.trials,
        "best_setting": best.name,
        "seeds": [run.result["seed"] for run in best.runs],
        "loss": estimate.value,
        "stderr": estimate.stderr,
        "stderr_over": stderr_over(best.seeds),
        "validation_tokens": estimate.tokens,
        "losses": best.values("validation_loss").tolist(),
        **{name: mean_of(family, name) for name in means},
    }


def _final(found: Final) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    for name in ("reference_estimate", "challenger_estimate", "comparison"):
        values[name] = getattr(found, name)._asdict()
    return values


def mean_of(family: Family, name: str) -> float | None:
    """Mean of a number of result.json over the seeds of the best setting; None if one lacks it."""
    values = [run.result.get(name) for run in family.best.runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def corpus_notes(panel: Panel) -> list[str]:
    """What the token store says of itself (copies, rows left out, text lost), each sentence once."""
    corpora = [r.start.get("corpus") for f in panel.families.values() for r in f.best.runs]
    known = [
        c["notes"] for c in corpora if isinstance(c, dict) and isinstance(c.get("notes"), list)
    ]
    return list(dict.fromkeys(str(sentence) for notes in known for sentence in notes))


def curve_gaps(panel: Panel) -> list[str]:
    """Which curves lack rows, a sentence each: the frontiers are read from the rows that are there."""
    runs = [r for f in panel.families.values() for setting in f.settings for r in setting.runs]
    return [f"{run.label}: {gap}" for run in runs for gap in run.gaps]


def questions(runs: Iterable[Run]) -> list[str]:
    """The questions that the experiments' headers ask, each once."""
    return list(dict.fromkeys(str(q) for run in runs if (q := run.start.get("question"))))


def versions(runs: Iterable[Run]) -> list[str]:
    found = [run.result.get("versions") or run.start.get("versions") for run in runs]
    known = [each for each in found if isinstance(each, dict) and each]
    return sorted({", ".join(f"{k} {v}" for k, v in sorted(each.items())) for each in known})


def devices(runs: Iterable[Run]) -> list[str]:
    found = [run.result.get("device") or run.start.get("device") for run in runs]
    return sorted({str(device) for device in found if device})


# --- sentences ----------------------------------------------------------------------------------


def stderr_over(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "validation documents, one seed"


def measured(estimate: Estimate) -> str:
    """1.560 ± 0.005, an upper bound."""
    kind = "exact" if estimate.kind == "exact" else f"an {estimate.kind}"
    return f"{with_error(estimate.value, estimate.stderr)}, {kind}"


def nothing(runs: Sequence[Run]) -> str:
    """What there is when no run has finished."""
    if not runs:
        return "There is no run here yet."
    counts = [(s, sum(run.status == s for run in runs)) for s in sorted({r.status for r in runs})]
    return "No run has finished yet: " + ", ".join(f"{n} {status}" for status, n in counts) + "."


def answer(panel: Panel) -> str:
    """The paragraph that answers the question on one panel, from its numbers alone."""
    names = list(panel.families)
    if cross.REFERENCE not in names or len(names) == 1:
        missing = "a diffusion family" if cross.REFERENCE in names else name_of(cross.REFERENCE)
        have = "; ".join(
            f"{name_of(f.name)} reaches {measured(cross.estimate(f.best))} nats per token"
            for f in panel.families.values()
        )
        start = f"On {panel.title}: no finished run of {missing}, so no comparison yet."
        return f"{start} {sentence(have)}."
    both = zip(cross.crossovers(panel), cross.finals(panel), strict=True)
    equal = {found.challenger: found for found in cross.equal_crossovers(panel)}
    parts = []
    for found, final in both:
        if found.challenger in equal:
            parts.append(crossing(equal[found.challenger]))
        parts += [crossing(found), _ending(panel, found, final)]
    first, *others = parts
    return " ".join([f"On {panel.title}: {first}", *map(sentence, others)])


def crossing(found: Crossover) -> str:
    """The crossing of two measured frontiers in sentences, the same at every door."""
    a, b = name_of(found.reference), name_of(found.challenger)
    if found.trials > 1 and frontiers.AT_EQUAL not in found.reference:
        a = f"the best {a} of {found.trials} settings"
    start = "" if found.basis == frontiers.TRACKED else f"From {found.basis}: "
    if found.status == crossings.TOO_FEW:
        return (
            f"{start}{b} and {a} are known together at one compute only ({scientific(found.end)} "
            f"FLOPs): {found.status} to say where they cross."
        )
    if found.compute is None:
        text = f"{start}{b} does not pass {a} for good within {scientific(found.end)} FLOPs."
        if found.status == crossings.BETWEEN:
            ranges = " and ".join(between(*window) for window in found.windows)
            text += f" It is below from {ranges} FLOPs, and above again at the end."
        return f"{text} {_gap(found)} {_trend(found)}"
    epochs = f", after {number(found.epochs, 3)} epochs" if found.epochs is not None else ""
    if found.status == crossings.FROM_START:
        text = f"{start}{b} is below {a} from the first compute at which both have been evaluated"
        text += f" ({scientific(found.compute)} FLOPs)"
    else:
        text = f"{start}{b} passes {a} for good at C = {scientific(found.compute)} FLOPs{epochs}"
    if found.low is not None and found.high is not None and found.share is not None:
        kind = "90% interval" if found.over == "seeds" else "90% spread over settings"
        text += f" ({kind} {between(found.low, found.high)}; it crosses in "
        text += f"{100 * found.share:.0f}% of resamples of the {found.over})"
    else:
        text += " (one seed each: no interval)"
    text += "."
    text += _shown(found.kinds, a, b)
    if found.compute > found.reference_end:
        text += (
            f" {sentence(a)} was trained up to {scientific(found.reference_end)} FLOPs; "
            "beyond that its best stands."
        )
    if not found.plateau and found.basis == frontiers.TRACKED:
        text += (
            f" {sentence(a)} was still improving at its last evaluation: it has not shown its best."
        )
    return text


def _shown(kinds: tuple[str, str], a: str, b: str) -> str:
    """What b's losses below a's show of the likelihoods, by the kinds of both."""
    if kinds == ("exact", "upper bound"):
        return f" Since {b} is scored by an upper bound, its likelihood passes there or earlier."
    if kinds == ("upper bound", "exact"):
        return f" Since {a} is scored by an upper bound, this shows nothing of its likelihood."
    if kinds == ("upper bound", "upper bound"):
        return " Both are scored by upper bounds, which does not order their likelihoods."
    return ""


def _gap(found: Crossover) -> str:
    alone = " (one seed each)" if found.gap_stderr is None else ""
    gap = with_error(found.gap, found.gap_stderr)
    return f"There its frontier is {gap}{alone} nats per token above."


def _trend(found: Crossover) -> str:
    trend = found.trend
    if trend is None or not math.isfinite(trend.compute):
        return f"Its trend does not cross within {crossings.REACH:.0f} times the compute trained."
    text = (
        "Extrapolated, not measured: a power law through the frontier from "
        f"{scientific(trend.start)} FLOPs on (exponent {trend.exponent:.3f}, no floor, so an "
        f"optimistic guess) would meet the best of {name_of(found.reference)} at "
        f"{scientific(trend.compute)} FLOPs"
    )
    if trend.low is not None and trend.high is not None:
        text += f" (90% interval over {found.over} {between(trend.low, trend.high)})"
    after = f", after {number(trend.epochs, 3)} epochs" if trend.epochs is not None else ""
    return f"{text}{after}."


def _ending(panel: Panel, found: Crossover, final: Final) -> str:
    a, b = name_of(final.reference), name_of(final.challenger)
    difference = with_error(final.comparison.difference, final.comparison.stderr, sign=True)
    text = (
        f"Final, best weights on the whole validation split: {b} "
        f"{measured(final.challenger_estimate)}, against {a} {measured(final.reference_estimate)}; "
        f"difference {difference} nats per token. {sentence(final.comparison.conclusion)}."
    )
    single = [name_of(f.name) for f in panel.families.values() if f.best.seeds == 1]
    if single:
        text += f" One seed only of {' and '.join(single)}: differences between seeds are unknown."
    if (found.gap < 0) != (final.comparison.difference < 0):
        text += (
            " The frontiers and the final numbers disagree in sign: the frontiers take the lowest "
            "of all settings on the losses tracked while training, the final numbers the best "
            "setting with the most seeds on the whole split."
        )
    return text


def selected(panels: Sequence[Panel]) -> list[str]:
    """Which numbers were chosen on the validation split, and so flatter what was chosen."""
    found = [
        "Chosen on validation, for all families alike: the best weights of each run, the best "
        "setting of each family (lowest mean final loss among the settings with the most seeds), "
        "and the frontier, a minimum over evaluations and settings. More trials find lower minima.",
    ]
    for panel in panels:
        tried = {name: family.trials for name, family in panel.families.items()}
        words = ", ".join(f"{name_of(name)} {count}" for name, count in tried.items())
        text = f"Settings tried on {panel.title}: {words}."
        reference = tried.get(cross.REFERENCE, 0)
        more = [name_of(name) for name, count in tried.items() if count > reference]
        if reference and more:
            text += f" {' and '.join(more)} had more trials than {name_of(cross.REFERENCE)}."
        found.append(text)
    return found
