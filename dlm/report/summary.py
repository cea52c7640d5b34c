"""Compares a set of runs once, as one object that the terminal, the page and report.json render.

`summary(runs)` works out every number and sentence; the code that renders a `Summary` computes
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.format import number, scientific, with_error
from dlm.laws import crossover as cross
from dlm.laws.crossover import Crossover, Final, name_of
from dlm.laws.words import plain
from dlm.report import sentences, verdict
from dlm.runs import Family, Panel, Run, Setting, panels, rows

AXES = {"flops": "analytic", "flops_6nd": "6ND"}  # how compute is counted, and its name


@dataclass(frozen=True)
class Difference:
    """A setting minus the best setting of the reference, nats per token, and what it shows."""

    value: float
    stderr: float
    outcome: str  # BETTER, WORSE, UNDECIDED, NOTHING or NO_ORDER of dlm/report/verdict.py
    by: str  # the numbers beyond the losses that are compared, such as "orders 16"; "": none


@dataclass(frozen=True)
class FamilyRow:
    """The best setting of one family on one panel: a row of the table. Means are over seeds."""

    objective: str
    kind: str  # of the loss: exact, or upper bound
    settings_tried: int
    best_setting: str
    seeds: tuple[int, ...]
    loss: float  # nats per token
    stderr: float
    stderr_over: str
    validation_tokens: int
    losses: tuple[float, ...]  # of each seed
    epochs: float | None  # trained
    best_epoch: float | None
    best_flops: float | None
    train_loss: float | None
    bits_per_byte: float | None
    params: float | None
    flops: float | None
    seconds: float | None
    difference: Difference | None  # None: the reference itself, or a panel without reference
    overtakes: str  # when it overtakes the best of the reference's settings, in words
    overtakes_equal: str  # and when the reference at its own settings


@dataclass(frozen=True)
class SettingRow:
    """One setting of one family against the best setting of the reference."""

    objective: str
    setting: str
    kind: str
    seeds: int
    loss: float
    stderr: float
    difference: Difference | None


@dataclass(frozen=True)
class PanelSummary:
    """The runs of one data set, compared: the same tokens, unique tokens and length."""

    title: str
    corpus: str
    fingerprint: str
    unique_tokens: int
    seq_len: int
    reference: str
    verdict: str  # one line
    comparisons: tuple[str, ...]  # the same in full, a paragraph a family
    families: tuple[FamilyRow, ...]  # the reference first, then by loss
    settings: tuple[SettingRow, ...]
    crossovers: dict[str, tuple[Crossover, ...]]  # by the name of AXES
    finals: tuple[Final, ...]
    ensembled: str  # what ensembles over seeds reach, in one line; "": none are kept
    ensembles: tuple[
        FamilyRow, ...
    ]  # FLOPs, parameters and seconds are those of all members together
    ensemble_finals: tuple[Final, ...]  # each against its own family, the reference, its ensembles
    corpus_notes: tuple[str, ...]
    curve_gaps: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All numbers and sentences of a report."""

    experiments: tuple[str, ...]
    questions: tuple[str, ...]
    nothing: str  # the state of the runs if none has finished, else ""
    remarks: tuple[str, ...]  # what holds for all verdicts
    panels: tuple[PanelSummary, ...]
    compared: tuple[str, ...]
    kinds: tuple[str, ...]
    selected_on_validation: tuple[str, ...]
    excluded: tuple[dict[str, str], ...]  # experiment, run, label, reason
    versions: tuple[str, ...]
    devices: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]  # the columns of runs.csv


def summary(runs: Sequence[Run], reference: str = "") -> Summary:
    """Compares runs, as `dlm.runs.load` reads them, against `reference` (default: AR).

    Raises:
      DlmError: no finished run of the reference.
    """
    compared, excluded = panels(runs)
    return of(runs, cross.against(compared, reference) if reference else compared, excluded)


def numbers(
    runs: Sequence[Run], panels: Sequence[Panel], excluded: Sequence[tuple[Run, str]]
) -> dict[str, Any]:
    """The content of report.json for runs and their panels; see `as_json`."""
    return as_json(of(runs, panels, excluded))


def of(
    runs: Sequence[Run], panels: Sequence[Panel], excluded: Sequence[tuple[Run, str]]
) -> Summary:
    """The summary of runs that are grouped into panels already."""
    return Summary(
        experiments=tuple(sorted({run.experiment for run in runs})),
        questions=tuple(sentences.questions(runs)),
        nothing="" if panels else sentences.nothing(runs),
        remarks=tuple(verdict.remarks(panels, excluded)),
        panels=tuple(_panel(panel) for panel in panels),
        compared=tuple(sentences.compared(panels)) if panels else (),
        kinds=tuple(sentences.kinds(panels)),
        selected_on_validation=tuple(sentences.selected(panels)),
        excluded=tuple(
            {"experiment": run.experiment, "run": run.run, "label": run.label, "reason": reason}
            for run, reason in excluded
        ),
        versions=tuple(_versions(runs)),
        devices=tuple(_devices(runs)),
        runs=tuple(rows(runs)),
    )


def _panel(panel: Panel) -> PanelSummary:
    finals = {final.challenger: final for final in cross.finals(panel)}
    best = {crossover.challenger: crossover for crossover in cross.crossovers(panel)}
    equal = {crossover.challenger: crossover for crossover in cross.equal_crossovers(panel)}
    ensemble_finals = cross.ensemble_finals(panel)
    to_reference = {f.challenger: f for f in ensemble_finals if f.reference == panel.reference}
    families = [
        _family(family, finals.get(name), best.get(name), equal.get(name))
        for name, family in panel.families.items()
    ]
    return PanelSummary(
        title=panel.title,
        corpus=panel.corpus,
        fingerprint=panel.fingerprint,
        unique_tokens=panel.unique_tokens,
        seq_len=panel.seq_len,
        reference=panel.reference,
        verdict=verdict.verdict(panel),
        comparisons=tuple(sentences.comparisons(panel)),
        families=tuple(sorted(families, key=lambda f: (f.objective != panel.reference, f.loss))),
        settings=tuple(
            _setting(panel, family, setting)
            for family in panel.families.values()
            for setting in family.settings
        ),
        crossovers={
            axis: (
                *cross.equal_crossovers(panel, axis),
                *cross.crossovers(panel, axis),
                *cross.ensemble_crossovers(panel, axis),
            )
            for axis in AXES
        },
        finals=tuple(finals.values()),
        ensembled=verdict.ensembles(panel),
        ensembles=tuple(
            _family(family, to_reference.get(name), None, None)
            for name, family in panel.ensembles.items()
        ),
        ensemble_finals=tuple(ensemble_finals),
        corpus_notes=tuple(sentences.corpus_notes(panel)),
        curve_gaps=tuple(sentences.curve_gaps(panel)),
    )


def _family(
    family: Family, final: Final | None, best: Crossover | None, equal: Crossover | None
) -> FamilyRow:
    setting, estimate = family.best, cross.estimate(family.best)
    names = ("epochs", "best_epoch", "best_flops", "train_loss", "bits_per_byte", "params", "flops")
    return FamilyRow(
        objective=family.name,
        kind=family.kind,
        settings_tried=family.trials,
        best_setting=setting.name,
        seeds=tuple(
            setting.runs[0].result.get("seeds") or [run.result["seed"] for run in setting.runs]
        ),
        loss=estimate.value,
        stderr=estimate.stderr,
        stderr_over=sentences.stderr_over(setting),
        validation_tokens=estimate.tokens,
        losses=tuple(setting.values("validation_loss").tolist()),
        **{name: _mean(setting, name) for name in (*names, "seconds")},
        difference=_difference(final),
        overtakes=verdict.place(best),
        overtakes_equal=verdict.place(equal),
    )


def _setting(panel: Panel, family: Family, setting: Setting) -> SettingRow:
    reference, estimate = panel.families.get(panel.reference), cross.estimate(setting)
    difference = None
    if reference is not None and setting is not reference.best:
        names = {"reference": reference.name, "challenger": family.name}
        difference = _difference(cross.paired(reference.best, setting, **names))
    return SettingRow(
        *(family.name, setting.name, family.kind, setting.seeds),
        *(estimate.value, estimate.stderr, difference),
    )


def _difference(final: Final | None) -> Difference | None:
    return difference_of(final) if final else None


def difference_of(final: Final) -> Difference:
    """A final comparison as a row of a table shows it."""
    compared = final.comparison
    how = verdict.scored_by(final)
    return Difference(compared.difference, compared.stderr, verdict.outcome(final), how)


def _mean(setting: Setting, name: str) -> float | None:
    """Mean of a number of result.json over the seeds of a setting; None if one lacks it."""
    values = [run.result.get(name) for run in setting.runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _versions(runs: Iterable[Run]) -> list[str]:
    versions = [run.result.get("versions") or run.start.get("versions") for run in runs]
    known = [each for each in versions if isinstance(each, dict) and each]
    return sorted({", ".join(f"{k} {v}" for k, v in sorted(each.items())) for each in known})


def _devices(runs: Iterable[Run]) -> list[str]:
    devices = [run.result.get("device") or run.start.get("device") for run in runs]
    return sorted({str(device) for device in devices if device})


# --- as JSON and as a table -----------------------------------------------------------------------


def as_json(s: Summary) -> dict[str, Any]:
    """The whole summary as strict JSON, for report.json; see `words.plain`."""
    values = {field.name: getattr(s, field.name) for field in dataclasses.fields(s)}
    panels = [
        {field.name: getattr(panel, field.name) for field in dataclasses.fields(panel)}
        | {
            "families": [dataclasses.asdict(row) for row in panel.families],
            "settings": [dataclasses.asdict(row) for row in panel.settings],
            "crossovers": {
                axis: [dataclasses.asdict(each) for each in each_axis]
                for axis, each_axis in panel.crossovers.items()
            },
            "finals": [_final(final) for final in panel.finals],
            "ensembles": [dataclasses.asdict(row) for row in panel.ensembles],
            "ensemble_finals": [_final(final) for final in panel.ensemble_finals],
        }
        for panel in s.panels
    ]
    answers = [" ".join(panel.comparisons) for panel in s.panels] or [s.nothing]
    return plain(values | {"answers": answers, "panels": panels})


def _final(final: Final) -> dict[str, Any]:
    values = dataclasses.asdict(final)
    for name in ("reference_estimate", "challenger_estimate", "comparison"):
        values[name] = getattr(final, name)._asdict()
    return values


def table(s: Summary) -> tuple[list[str], list[list[str]]]:
    """The table of families, unique tokens and epochs: its head and rows, by importance.

    A column in which no row has a word is left out.
    """
    reference = s.panels[0].reference if s.panels else ""  # all panels have one
    columns = {
        "family": lambda p, f: name_of(f.objective),
        "data": lambda p, f: p.corpus,
        "unique": lambda p, f: number(p.unique_tokens, 5),
        "epochs": lambda p, f: number(f.epochs, 3),
        "nats/token": lambda p, f: with_error(f.loss, f.stderr),
        "kind": lambda p, f: f.kind.removeprefix("upper "),
        f"minus {reference}": lambda p, f: signed(f.difference),
        "shows": lambda p, f: f.difference.outcome if f.difference else "",
        "by": lambda p, f: f.difference.by if f.difference else "",
        "FLOPs": lambda p, f: scientific(f.flops) if p.ensembles else "",
        "best epoch": lambda p, f: number(f.best_epoch, 3),
        "overtakes at equal settings": lambda p, f: f.overtakes_equal,
        "overtakes the best": lambda p, f: f.overtakes,
    }
    cells = [
        [cell(p, f) for cell in columns.values()]
        for p in s.panels
        for f in (*p.families, *p.ensembles)
    ]
    kept = [k for k in range(len(columns)) if any(row[k] for row in cells)]
    head = list(columns)
    return [head[k] for k in kept], [[row[k] for k in kept] for row in cells]


def legend(s: Summary) -> str:
    """What the columns of the table mean."""
    rows = (row for panel in s.panels for row in (*panel.families, *panel.ensembles))
    over = dict.fromkeys(row.stderr_over for row in rows)
    return (
        f"± is over {' or over '.join(over)}; a difference is paired on the same windows. Shows: "
        f"what the difference proves; a bound above an exact value proves {verdict.NOTHING}. "
        "Overtakes: epochs and FLOPs from which its best loss so far stays the lower one."
    )


def signed(difference: Difference | None) -> str:
    """+0.045 ± 0.024, or "" without a difference."""
    return with_error(difference.value, difference.stderr, sign=True) if difference else ""
