"""The sentences behind the verdicts: full comparisons, the data compared, the kinds of loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from dlm.format import between, number, scientific, sentence, with_error
from dlm.laws import crossings, frontiers
from dlm.laws import crossover as cross
from dlm.laws.crossover import Crossover, Final, name_of
from dlm.runs import Panel, Run, Setting
from dlm.runs.estimate import Estimate

# --- the comparison in full ---------------------------------------------------------------------


def stderr_over(setting: Setting) -> str:
    """What the error of a setting's loss is over."""
    if setting.seeds > 1:
        return f"{setting.seeds} seeds"
    one = "ensemble" if setting.runs[0].result.get("seeds") else "seed"
    return f"validation documents, one {one}"


def measured(estimate: Estimate) -> str:
    """1.560 ± 0.005, an upper bound."""
    kind = "exact" if estimate.kind == "exact" else f"an {estimate.kind}"
    return f"{with_error(estimate.value, estimate.stderr)}, {kind}"


def no_comparison(panel: Panel) -> str:
    """Why there is no verdict: which family is missing."""
    missing = name_of(panel.reference)
    if panel.reference in panel.families:
        missing = "a diffusion family" if panel.reference == "ar" else "another family"
    return f"No finished run of {missing}, so no comparison yet."


def comparisons(panel: Panel) -> list[str]:
    """Each family of a panel against its reference in full, a paragraph each."""
    finals = cross.finals(panel)
    if not finals:
        have = "; ".join(
            f"{name_of(f.name)} reaches {measured(cross.estimate(f.best))} nats per token"
            for f in panel.families.values()
        )
        missing = no_comparison(panel)
        return [f"On {panel.title}: {missing[0].lower()}{missing[1:]} {sentence(have)}."]
    equal = {crossover.challenger: crossover for crossover in cross.equal_crossovers(panel)}
    paragraphs = []
    for crossover, final in zip(cross.crossovers(panel), finals, strict=True):
        parts = [crossing(equal[crossover.challenger])] if crossover.challenger in equal else []
        parts += [crossing(crossover), _ending(crossover, final)]
        if not paragraphs:
            parts[0] = f"On {panel.title}: {parts[0]}"
        paragraphs.append(" ".join(map(sentence, parts)))
    paragraphs += [sentence(crossing(each)) for each in cross.ensemble_crossovers(panel)]
    return paragraphs


def crossing(crossover: Crossover) -> str:
    """The crossing of two measured frontiers in sentences, the same at every door."""
    a, b = name_of(crossover.reference), name_of(crossover.challenger)
    if crossover.reference.endswith(frontiers.WITH_ENSEMBLES):
        single = name_of(crossover.reference.removesuffix(frontiers.WITH_ENSEMBLES))
        a = f"the best of {crossover.trials} settings and ensembles of {single}"
    elif crossover.trials > 1 and frontiers.AT_EQUAL not in crossover.reference:
        a = f"the best {a} of {crossover.trials} settings"
    start = "" if crossover.basis == frontiers.TRACKED else f"From {crossover.basis}: "
    if crossover.status == crossings.TOO_FEW:
        return (
            f"{start}{b} and {a} are known together at one compute only ({scientific(crossover.end)} "
            f"FLOPs): {crossover.status} to say where they cross."
        )
    if crossover.compute is None:
        text = f"{start}{b} does not pass {a} for good within {scientific(crossover.end)} FLOPs."
        if crossover.status == crossings.BETWEEN:
            ranges = " and ".join(between(*window) for window in crossover.windows)
            text += f" It is below from {ranges} FLOPs, and above again at the end."
        return f"{text} {_gap(crossover)} {_trend(crossover)}"
    epochs = f", after {number(crossover.epochs, 3)} epochs" if crossover.epochs is not None else ""
    if crossover.status == crossings.FROM_START:
        text = f"{start}{b} is below {a} from the first compute at which both have been evaluated"
        text += f" ({scientific(crossover.compute)} FLOPs)"
    else:
        text = (
            f"{start}{b} passes {a} for good at C = {scientific(crossover.compute)} FLOPs{epochs}"
        )
    if crossover.low is not None and crossover.high is not None and crossover.share is not None:
        kind = "90% interval" if crossover.over == "seeds" else "90% spread over settings"
        text += f" ({kind} {between(crossover.low, crossover.high)}; it crosses in "
        text += f"{100 * crossover.share:.0f}% of resamples of the {crossover.over})"
    else:
        text += " (one seed each: no interval)"
    text += "."
    text += _shown(crossover.kinds, a, b)
    if crossover.compute > crossover.reference_end:
        text += (
            f" {sentence(a)} was trained up to {scientific(crossover.reference_end)} FLOPs; "
            "beyond that its best stands."
        )
    if not crossover.plateau and crossover.basis == frontiers.TRACKED:
        text += (
            f" {sentence(a)} was still improving at its last evaluation: it has not shown its best."
        )
    return text


def _shown(kinds: tuple[str, str], a: str, b: str) -> str:
    """What a crossing shows of the likelihoods if a loss is an upper bound."""
    if kinds == ("exact", "upper bound"):
        return f" Since {b} is scored by an upper bound, its likelihood passes there or earlier."
    if kinds == ("upper bound", "exact"):
        return f" Since {a} is scored by an upper bound, this shows nothing of its likelihood."
    if kinds == ("upper bound", "upper bound"):
        return " Both are scored by upper bounds, which does not order their likelihoods."
    return ""


def _gap(crossover: Crossover) -> str:
    alone = " (one seed each)" if crossover.gap_stderr is None else ""
    gap = with_error(crossover.gap, crossover.gap_stderr)
    return f"There its frontier is {gap}{alone} nats per token above."


def _trend(crossover: Crossover) -> str:
    trend = crossover.trend
    if trend is None or not math.isfinite(trend.compute):
        return f"Its trend does not cross within {crossings.REACH:.0f} times the compute trained."
    text = (
        "Extrapolated, not measured: a power law through the frontier from "
        f"{scientific(trend.start)} FLOPs on (exponent {trend.exponent:.3f}, no floor, so an "
        f"optimistic guess) would meet the best of {name_of(crossover.reference)} at "
        f"{scientific(trend.compute)} FLOPs"
    )
    if trend.low is not None and trend.high is not None:
        text += f" (90% interval over {crossover.over} {between(trend.low, trend.high)})"
    after = f", after {number(trend.epochs, 3)} epochs" if trend.epochs is not None else ""
    return f"{text}{after}."


def _where(final: Final) -> str:
    """The part of the validation split on which two final numbers are compared."""
    if not final.tightened:
        return "the whole validation split"
    return f"{final.challenger_estimate.tokens:,} tokens of the validation split"


def _by(name: str) -> str:
    """How a number was scored, in parentheses; "" of the loss in the results."""
    return f" ({name})" if name else ""


def _ending(crossover: Crossover, final: Final) -> str:
    a, b = name_of(final.reference), name_of(final.challenger)
    difference = with_error(final.comparison.difference, final.comparison.stderr, sign=True)
    text = (
        f"Final, best weights on {_where(final)}: {b} "
        f"{measured(final.challenger_estimate)}{_by(final.challenger_by)}, against {a} "
        f"{measured(final.reference_estimate)}{_by(final.reference_by)}; "
        f"difference {difference} nats per token. {sentence(final.comparison.conclusion)}."
    )
    if (crossover.gap < 0) != (final.comparison.difference < 0):
        text += (
            " The frontiers and the final numbers disagree in sign: the frontiers take the lowest "
            "of all settings on the losses tracked while training, the final numbers the best "
            "setting with the most seeds on the whole split."
        )
    return text


# --- what was compared, and how -----------------------------------------------------------------


def nothing(runs: Sequence[Run]) -> str:
    """The sentence for runs of which none has finished: how many have which status."""
    if not runs:
        return "There is no run here yet."
    counts = [(s, sum(run.status == s for run in runs)) for s in sorted({r.status for r in runs})]
    return "No run has finished yet: " + ", ".join(f"{n} {status}" for status, n in counts) + "."


def questions(runs: Iterable[Run]) -> list[str]:
    """The questions that the experiments' headers ask, each once."""
    return list(dict.fromkeys(str(q) for run in runs if (q := run.start.get("question"))))


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


def _above_truth(panel: Panel) -> list[str]:
    """How far each family's best lies above the entropy of the source, where that is known."""
    best = {f.name: f.best.runs for f in panel.families.values()}
    entropy = next(iter(best.values()))[0].result.get("entropy")
    if entropy is None:
        return []

    def gap(name: str, rows: Sequence[Run]) -> str:
        losses, errors = (
            np.array([r.result[key] for r in rows], float)
            for key in ("validation_loss", "validation_stderr")
        )
        error = errors.mean()  # over documents, which all seeds share
        kind = rows[0].result["kind"]
        return f"{name_of(name)} {with_error(losses.mean() - entropy, error, sign=True)} ({kind})"

    gaps = ", ".join(gap(name, rows) for name, rows in best.items())
    return [
        f"{panel.title}: the entropy of the source is {entropy:.4f} nats/token over whole documents "
        f"(windows that cut them can score above or below it); above it lie {gaps}, "
        "± over validation documents."
    ]


def compared(panels: Sequence[Panel]) -> list[str]:
    """How the numbers of each panel were compared, and what their errors hold."""
    texts = []
    for panel in panels:
        seeds = ", ".join(f"{name_of(f.name)} {f.best.seeds}" for f in panel.families.values())
        tokens = {f.best.runs[0].result["validation_tokens"] for f in panel.families.values()}
        texts.append(
            f"{panel.title}: all families train on the same tokens in windows of {panel.seq_len}, "
            f"score the same {panel.seq_len} positions of each window, and are evaluated on the "
            f"same validation windows ({' or '.join(f'{n:,}' for n in sorted(tokens))} tokens). "
            f"Seeds of the best setting: {seeds}."
        )
        texts += [f"{panel.title}: {note}" for note in corpus_notes(panel)]
        texts += [f"{panel.title}: {gap}" for gap in curve_gaps(panel)]
        texts += _above_truth(panel)
        for final in cross.finals(panel):
            seed = "" if final.stderr_seeds is None else f"{final.stderr_seeds:.4f} over seeds, "
            how = "paired, window by window" if final.paired else "not paired, so too large"
            if final.paired:
                how += (
                    "; windows of one document go together"
                    if final.clustered
                    else "; windows are taken as independent"
                )
            texts.append(
                f"{panel.title}: the ± of the difference adds in quadrature {seed}"
                f"{final.stderr_windows:.4f} over validation windows ({how})."
            )
    texts.append(
        "Crossovers are read from the losses tracked while training, by straight lines in log compute. "
        f"Their interval resamples seeds ({crossings.RESAMPLES:,} times, widened for few seeds) and "
        "does not hold the noise of validation windows or of settings with one seed. If no setting "
        f"at the crossing has several seeds and each family has {crossings.SPREAD} settings or more, "
        "settings are resampled instead: a spread, not an interval."
    )
    return texts


def kinds(panels: Sequence[Panel]) -> list[str]:
    """What kind of number each family's loss is, and what bounds show."""
    pairs = {(f.name, f.kind) for panel in panels for f in panel.families.values()}
    words = {"exact": "the exact", "upper bound": "an upper bound on the"}
    texts = [
        f"{sentence(name_of(name))}: {words.get(kind, kind)} negative log-likelihood, nats per token."
        for name, kind in sorted(pairs)
    ]
    if any(kind == "upper bound" for _, kind in pairs):
        texts.append(
            "A bound that lies below an exact value proves the bounded model better on this data. "
            "A bound that lies above proves nothing: its likelihood may lie anywhere below it."
        )
    if any(panel.ensembles for panel in panels):
        texts.append(
            "Ensemble over seeds: one model, whose probability of each token is the mean of its "
            "members'. Its number is of the kind of theirs: exact if each member's is, else an upper "
            "bound on the negative log-likelihood of the ensemble. Its FLOPs are theirs added up."
        )
    return texts


def selected(panels: Sequence[Panel]) -> list[str]:
    """Which numbers were chosen on the validation split, and so flatter what was chosen."""
    texts = [
        "Chosen on validation, for all families alike: the best weights of each run, the best "
        "setting of each family (lowest mean final loss among the settings with the most seeds), "
        "and the frontier, a minimum over evaluations and settings. More trials find lower minima."
    ]
    for panel in panels:
        tried = {name: family.trials for name, family in panel.families.items()}
        words = ", ".join(f"{name_of(name)} {count}" for name, count in tried.items())
        text = f"Settings tried on {panel.title}: {words}."
        reference = tried.get(panel.reference, 0)
        more = [name_of(name) for name, count in tried.items() if count > reference]
        if reference and more:
            text += f" {' and '.join(more)} had more trials than {name_of(panel.reference)}."
        if panel.ensembles:
            words = ", ".join(f"{name_of(n)} {f.trials}" for n, f in panel.ensembles.items())
            text += f" Ensembles scored: {words}. Of one setting the first seeds count, of several "
            text += "settings the lowest loss."
        texts.append(text)
    return texts
