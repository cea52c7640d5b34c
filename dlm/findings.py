"""What a set of runs says, once as numbers (report.json) and once in sentences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from dlm import crossover as cross
from dlm.crossover import Crossover, Final, name_of
from dlm.figures import interval, scientific
from dlm.laws.words import plain
from dlm.likelihood import Estimate
from dlm.runs import Family, Panel, Run, rows

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


def questions(runs: Iterable[Run]) -> list[str]:
    """The questions that the experiments' headers ask, each once."""
    return list(dict.fromkeys(str(q) for run in runs if (q := run.start.get("question"))))


def versions(runs: Iterable[Run]) -> list[str]:
    found = [run.result.get("versions") or run.start.get("versions") or {} for run in runs]
    return sorted(
        {", ".join(f"{k} {v}" for k, v in sorted(each.items())) for each in found if each}
    )


def devices(runs: Iterable[Run]) -> list[str]:
    found = [run.result.get("device") or run.start.get("device") for run in runs]
    return sorted({str(device) for device in found if device})


# --- sentences ----------------------------------------------------------------------------------


def stderr_over(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "validation windows, one seed"


def measured(estimate: Estimate) -> str:
    """1.560 ± 0.005, an upper bound."""
    kind = "exact" if estimate.kind == "exact" else f"an {estimate.kind}"
    return f"{estimate.value:.4f} ± {estimate.stderr:.4f}, {kind}"


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
        return f"On {panel.title}: no finished run of {missing}, so no comparison yet. {have}."
    both = zip(cross.crossovers(panel), cross.finals(panel), strict=True)
    equal = {found.challenger: found for found in cross.equal_crossovers(panel)}
    return f"On {panel.title}: " + " ".join(
        (f"{_crossing(panel, equal[found.challenger])} " if found.challenger in equal else "")
        + f"{_crossing(panel, found)} {_ending(panel, found, final)}"
        for found, final in both
    )


def _crossing(panel: Panel, found: Crossover) -> str:
    a, b = name_of(found.reference), name_of(found.challenger)
    if found.reference == cross.REFERENCE and (tried := panel.families[found.reference].trials) > 1:
        a = f"the best {a} of {tried} settings"
    if found.compute is None:
        return f"{b} does not pass {a} within {scientific(found.end)} FLOPs. {_gap(found)} " + (
            _trend(found)
        )
    epochs = f"after {found.epochs:.3g} epochs" if found.epochs is not None else ""
    if found.status == "below from the start":
        text = f"{b} is below {a} from the first compute at which both have been evaluated"
        text += f" ({scientific(found.compute)} FLOPs)"
    else:
        text = f"{b} passes {a} for good at C = {scientific(found.compute)} FLOPs, {epochs}"
    if found.low is not None and found.high is not None and found.share is not None:
        text += f" (90% interval {interval(found.low, found.high)}; it crosses in "
        text += f"{100 * found.share:.0f}% of resamples of the seeds)"
    else:
        text += " (one seed each: no interval)"
    text += "."
    if panel.families[found.challenger].kind != "exact":
        text += f" Since {b} is scored by an upper bound, its likelihood passes there or earlier."
    if not found.plateau:
        text += f" {a} was still improving at its last evaluation: it has not shown its best."
    return text


def _gap(found: Crossover) -> str:
    error = f" ± {found.gap_stderr:.4f}" if found.gap_stderr is not None else " (one seed each)"
    return f"There its frontier is {found.gap:.4f}{error} nats per token above."


def _trend(found: Crossover) -> str:
    trend = found.trend
    if trend is None or not math.isfinite(trend.compute):
        return f"Its trend does not cross within {cross.REACH:.0f} times the compute trained."
    text = (
        "Extrapolated, not measured: a power law through the frontier from "
        f"{scientific(trend.start)} FLOPs on (exponent {trend.exponent:.3f}, no floor, so an "
        f"optimistic guess) would meet the best of {name_of(found.reference)} at "
        f"{scientific(trend.compute)} FLOPs"
    )
    if trend.low is not None and trend.high is not None:
        text += f" (90% interval over seeds {interval(trend.low, trend.high)})"
    return f"{text}, after {trend.epochs:.3g} epochs." if trend.epochs is not None else f"{text}."


def _ending(panel: Panel, found: Crossover, final: Final) -> str:
    a, b = name_of(final.reference), name_of(final.challenger)
    text = (
        f"Final, best weights on the whole validation split: {b} "
        f"{measured(final.challenger_estimate)}, against {a} {measured(final.reference_estimate)}; "
        f"difference {final.comparison.difference:+.4f} ± {final.comparison.stderr:.4f} nats per "
        f"token. {final.comparison.conclusion[0].upper()}{final.comparison.conclusion[1:]}."
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
