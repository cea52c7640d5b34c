"""One self-contained page per experiment: the answer, the figures, the samples, the table of runs.

`write` makes report.html (no network, no script), report.json with every number, the figures as
PNG and SVG, and the table of runs; `summary` is the short form for the terminal. Both work with
whatever runs there are, and say what is missing.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlm import disk, runs
from dlm.errors import DlmError
from dlm.format import (
    between,
    fixed,
    integer,
    number,
    percent,
    scientific,
    sentence,
    with_error,
)
from dlm.laws import crossings
from dlm.laws import crossover as cross
from dlm.laws.crossover import name_of
from dlm.report import canvas, html, law_page, run_figures
from dlm.report import summary as findings
from dlm.report.canvas import Drawing
from dlm.report.terminal import grid, prose
from dlm.runs import Panel, Run

FIGURES = ("frontier", "epochs", "settings")
SAMPLES = 3  # shown of each family, the first ones drawn
SAMPLE_LENGTH = 600  # characters
FEW = 4  # families beyond which every setting is drawn beside the best of each


class Loaded(NamedTuple):
    """The runs of a folder, in the groups in which they may be compared."""

    runs: list[Run]
    panels: list[Panel]
    excluded: list[tuple[Run, str]]


def load(directory: Path | str) -> Loaded:
    """Reads the runs of a workdir or an experiment's folder, for `write` and `summary`.

    Raises:
      DlmError: there is no such directory.
    """
    found = runs.load(directory)
    return Loaded(found, *runs.panels(found))


def write(
    directory: Path | str,
    asked: Sequence[str] = (),
    width: float = 0.0,
    loaded: Loaded | None = None,
) -> Path:
    """Writes the report of a workdir or an experiment's folder into it; returns report.html.

    `asked`: only these figures or panels are drawn as files (default: all); `width`: in inches;
    `loaded`: its runs, if they are read already. A figure that cannot be drawn is named on the
    page, with the reason.

    Raises:
      DlmError: there is no such directory, it cannot be written, or a name that no figure has.
    """
    folder = Path(directory)
    found, panels, excluded = loaded or load(folder)
    to_draw = canvas.chosen(drawings(panels), asked)
    try:
        runs.write_table(found, folder)
        numbers = findings.numbers(found, panels, excluded)
        disk.write_json(folder / "report.json", numbers)
        problems = []
        for name, make, panel in to_draw:
            label = f"{name}-{panel}" if panel else name
            drawn = canvas.attempt(label, make, folder / label, panel, width)
            problems += [drawn.problem] if drawn.problem else []
        return disk.write(folder / "report.html", page(found, panels, excluded, problems))
    except OSError as error:
        raise DlmError(f"{folder}: the report cannot be written ({error.strerror})") from None


def drawings(panels: Sequence[Panel]) -> dict[str, Callable[[], Drawing]]:
    """The figures of an experiment, by name."""
    if not panels:
        return {}
    many = [p for p in panels if len(p.families) > FEW]
    return {
        "frontier": lambda: run_figures.frontier(panels),
        "epochs": lambda: run_figures.epochs(panels),
        **({"settings": lambda: run_figures.every_setting(many)} if many else {}),
    }


# --- the page -----------------------------------------------------------------------------------


def page(
    found: Sequence[Run],
    panels: Sequence[Panel],
    excluded: Sequence[tuple[Run, str]],
    problems: Sequence[str] = (),
) -> str:
    """The page as text; `problems`: figures that could not be written as files, and why."""
    experiments = sorted({run.experiment for run in found})
    title = ", ".join(experiments) or "no runs"
    questions = findings.questions(found)
    answers = [findings.answer(panel) for panel in panels] or [findings.nothing(found)]
    body = [
        f"<h1>{escape(questions[0] if len(questions) == 1 else title)}</h1>",
        f'<p class="soft">dlm, experiment {escape(title)}</p>',
        *(f"<p>{escape(q)}</p>" for q in questions if len(questions) > 1),
        *(f'<p class="answer">{html.text(words)}</p>' for words in answers),
    ]
    if panels:
        body += [
            _figures(panels, problems),
            *html.section("Best of each family", _best(panels)),
            *html.section("Critical compute", _critical(panels)),
            *html.section("Scaling laws", *law_page.of_runs(found, panels)),
            *html.section("Samples", *map(_samples, panels)),
            *html.section("What was compared", html.bullets(_compared(panels))),
            *html.section("What kind of number each loss is", html.bullets(_kinds(panels))),
        ]
    reasons = [[run.experiment, run.run, run.label, reason] for run, reason in excluded]
    left_out = html.table(["experiment", "run", "label", "reason"], reasons)
    body += [
        *html.section("Left out of the comparison", left_out if reasons else "<p>No run.</p>"),
        *html.section("All runs", _all_runs(found)),
        *html.section("Made with", html.bullets(_made_with(found, panels))),
    ]
    return html.document(f"{title}: dlm report", body)


def _figures(panels: Sequence[Panel], problems: Sequence[str]) -> str:
    """One figure per panel: side by side on a desk, below each other on a phone."""
    parts = []
    undrawn = list(problems)
    for name in drawings(panels):
        drawn = [
            canvas.attempt(f"{name}, {panel.title}", drawings([panel])[name])
            for panel in panels
            if name in drawings([panel])
        ]
        undrawn += [each.problem for each in drawn if each.problem]
        drawn = [each for each in drawn if each.svg]
        if not drawn:
            continue
        alike = len({each.caption for each in drawn}) == 1  # else each explains its own marks
        svgs = [html.figure(d.svg, d.name, "" if alike else d.caption) for d in drawn]
        parts += html.section(drawn[0].heading, f'<div class="pair">{"".join(svgs)}</div>')
        parts += [f'<p class="soft">{html.text(drawn[0].caption)}</p>'] if alike else []
    return "".join(parts) + (html.bullets(dict.fromkeys(undrawn)) if undrawn else "")


def _best(panels: Sequence[Panel]) -> str:
    head = ("data", "family", "loss, nats/token", "over", "kind", "training loss", "bits/byte")
    more = ("best epoch", "best FLOPs", "parameters", "setting", "settings tried")
    return html.table((*head, *more), [row for panel in panels for row in best_rows(panel)])


def best_rows(panel: Panel) -> list[list[str]]:
    """The best setting of each family in words, one row each."""
    made = []
    for family in panel.families.values():
        value = cross.estimate(family.best)
        mean = {
            name: findings.mean_of(family, name)
            for name in ("train_loss", "bits_per_byte", "best_epoch", "best_flops", "params")
        }
        made.append(
            [
                *(panel.title, name_of(family.name), with_error(value.value, value.stderr)),
                *(findings.stderr_over(family.best.seeds), family.kind),
                *(fixed(mean["train_loss"], 3), fixed(mean["bits_per_byte"], 3)),
                *(number(mean["best_epoch"]), scientific(mean["best_flops"])),
                *(integer(mean["params"]), family.best.name or "the only one"),
                str(family.trials),
            ]
        )
    return made


def _critical(panels: Sequence[Panel]) -> str:
    body = [
        _critical_row(panel, counted, found)
        for panel in panels
        for axis, counted in (("flops", "analytic"), ("flops_6nd", "6ND"))
        for found in cross.equal_crossovers(panel, axis) + cross.crossovers(panel, axis)
    ]
    if not body:
        return "<p>Needs a finished run of AR and of a diffusion family on the same data.</p>"
    head = ("data", "families", "FLOPs counted", "status", "critical compute", "90% interval")
    return html.table((*head, "resamples crossing", "epochs", "gap at the end"), body)


def _critical_row(panel: Panel, counted: str, found: cross.Crossover) -> list[str]:
    status, place = found.status, found
    if found.trend is not None:  # it does not cross: the extrapolation, and marked as one
        place = found.trend
        meets = math.isfinite(found.trend.compute)
        status += "; extrapolated from its trend" if meets else "; nor does its trend"
    known = place.low is not None and place.high is not None
    spread = " (spread)" if found.over == "settings" else ""
    compute = "none in reach" if place.compute == math.inf else scientific(place.compute, 3)
    return [
        *(panel.title, f"{name_of(found.challenger)} against {name_of(found.reference)}"),
        *(counted, status, compute),
        between(place.low or 0, place.high or 0) + spread if known else "no interval: one seed",
        percent(found.share),
        number(place.epochs),
        f"{with_error(found.gap, found.gap_stderr, sign=True)} at {scientific(found.end)}",
    ]


def _samples(panel: Panel) -> str:
    """The first samples of the first seed of each family's best setting: not chosen by eye."""
    note = f"{panel.title}: the first drawn by the first seed of each best setting, not chosen."
    parts = [f'<p class="soft">{escape(note)}</p>']
    drawn = {f.name: _drawn(f.best.runs[0]) for f in panel.families.values()}
    if (
        panel.corpus == "digits"
        and panel.seq_len == 64
        and all(x is not None for x in drawn.values())
    ):
        sheet = {name_of(name): ids[:16] for name, ids in drawn.items() if ids is not None}
        real = _real_digits(max(len(ids) for ids in sheet.values()))
        if real is not None:
            sheet = {"real, from scikit-learn": real} | sheet
        label = f"Samples of {', '.join(sheet)}"
        try:
            return "".join(parts) + html.figure(canvas.svg_text(run_figures.digits(sheet)), label)
        except Exception as error:  # a picture must not cost the report
            parts.append(f"<p>{escape(f'The samples are not drawn: {error}')}</p>")
    for family in panel.families.values():
        path = family.best.runs[0].path / "samples.txt"
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        pieces = [p.strip("\n") for p in f"\n{text}\n".split("\n-----\n") if p.strip()][:SAMPLES]
        parts.append(f"<h3>{escape(name_of(family.name))}</h3>")
        parts += [f"<pre>{escape(piece[:SAMPLE_LENGTH])}</pre>" for piece in pieces]
        parts += [] if pieces else ["<p>None were drawn.</p>"]
    return "".join(parts)


def _drawn(run: Run) -> np.ndarray | None:
    """samples.npy, int [S, L], where it is there and whole."""
    try:
        ids = np.load(run.path / "samples.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return ids if ids.ndim == 2 and ids.shape[1] == 64 and len(ids) else None


def _real_digits(count: int) -> np.ndarray | None:
    """Images of scikit-learn's file, which is read without the seconds that importing it takes."""
    found = importlib.util.find_spec("sklearn")
    parts = found.submodule_search_locations if found is not None else None
    path = Path(*parts, "datasets", "data", "digits.csv.gz") if parts else None
    if path is None or not path.is_file():  # reports are also written where only runs are read
        return None
    images = np.loadtxt(path, delimiter=",")[:, :64]
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _above_truth(panel: Panel) -> list[str]:
    """How far each family's best lies above the entropy of the source, where that is known."""
    best = {f.name: f.best.runs for f in panel.families.values()}
    entropy = next(iter(best.values()))[0].result.get("entropy")
    if entropy is None:
        return []

    def gap(name: str, rows: Sequence[Any]) -> str:
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


def _compared(panels: Sequence[Panel]) -> list[str]:
    found = []
    for panel in panels:
        seeds = ", ".join(f"{name_of(f.name)} {f.best.seeds}" for f in panel.families.values())
        tokens = {f.best.runs[0].result["validation_tokens"] for f in panel.families.values()}
        found.append(
            f"{panel.title}: all families train on the same tokens in windows of {panel.seq_len}, "
            f"score the same {panel.seq_len} positions of each window, and are evaluated on the "
            f"same validation windows ({' or '.join(f'{n:,}' for n in sorted(tokens))} tokens). "
            f"Seeds of the best setting: {seeds}."
        )
        found += [f"{panel.title}: {sentence}" for sentence in findings.corpus_notes(panel)]
        found += [f"{panel.title}: {sentence}" for sentence in findings.curve_gaps(panel)]
        found += _above_truth(panel)
        for final in cross.finals(panel):
            seed = "" if final.stderr_seeds is None else f"{final.stderr_seeds:.4f} over seeds, "
            how = "paired, window by window" if final.paired else "not paired, so too large"
            if final.paired:
                how += (
                    "; windows of one document go together"
                    if final.clustered
                    else "; windows are taken as independent"
                )
            found.append(
                f"{panel.title}: the ± of the difference adds in quadrature {seed}"
                f"{final.stderr_windows:.4f} over validation windows ({how})."
            )
    found.append(
        "Crossovers are read from the losses tracked while training, by straight lines in log compute. "
        f"Their interval resamples seeds ({crossings.RESAMPLES:,} times, widened for few seeds) and "
        "does not hold the noise of validation windows or of settings with one seed. If no setting "
        f"at the crossing has several seeds and each family has {crossings.SPREAD} settings or more, "
        "settings are resampled instead: a spread, not an interval."
    )
    return found + findings.selected(panels)


def _kinds(panels: Sequence[Panel]) -> list[str]:
    kinds = {(f.name, f.kind) for panel in panels for f in panel.families.values()}
    words = {"exact": "the exact", "upper bound": "an upper bound on the"}
    found = [
        f"{sentence(name_of(name))}: {words.get(kind, kind)} negative log-likelihood, nats per token."
        for name, kind in sorted(kinds)
    ]
    if any(kind == "upper bound" for _, kind in kinds):
        found.append(
            "A bound that lies below an exact value proves the bounded model better on this data. "
            "A bound that lies above proves nothing: its likelihood may lie anywhere below it."
        )
    return found


def _all_runs(found: Sequence[Run]) -> str:
    head = (
        "label",
        "status",
        "loss",
        "±",
        "training",
        "epochs",
        "best epoch",
        "parameters",
        "FLOPs",
    )
    body = []
    for row in runs.rows(found):
        body.append(
            [
                *(row["label"] or row["run"] or "", row["status"]),
                *(fixed(row["validation_loss"], 4), fixed(row["validation_stderr"], 4)),
                *(fixed(row["train_loss"], 3), number(row["epochs"])),
                *(number(row["best_epoch"]), integer(row["params"])),
                scientific(row["flops"]),
                *(integer(row["tokens_per_second"]), percent(row["mfu"])),
                *(integer(row["seconds"]), row["run"] or ""),
            ]
        )
    note = (
        "The ± of one run is over validation windows. All columns are in runs.csv and runs.parquet."
    )
    table = html.table((*head, "tokens/s", "MFU", "seconds", "run"), body)
    return f'{table}<p class="soft">{note}</p>'


def _made_with(found: Sequence[Run], panels: Sequence[Panel]) -> list[str]:
    prints = [f"Tokens of {panel.title}: fingerprint {panel.fingerprint}" for panel in panels]
    versions = [f"Versions: {text}" for text in findings.versions(found)]
    return [*prints, *versions, *(f"Device: {text}" for text in findings.devices(found))]


# --- the terminal -------------------------------------------------------------------------------


def summary(directory: Path | str, loaded: Loaded | None = None) -> list[Any]:
    """Rich renderables: a row per family's best setting, then the answer on each panel."""
    found, panels, excluded = loaded or load(directory)
    left_out = [prose(f"left out: {run.label}: {reason}", "yellow") for run, reason in excluded]
    if not panels:
        return [prose(findings.nothing(found)), *left_out]
    head = ("data", "family", "loss, nats/token", "kind", "best epoch", "FLOPs", "training loss")
    rows = [
        [*row[:3], row[4], row[7], row[8], row[5], f"{row[10]} (of {row[11]})"]
        for panel in panels
        for row in best_rows(panel)
    ]
    answers = [prose(f"\n{findings.answer(panel)}") for panel in panels]
    return [grid((*head, "setting (of how many)"), rows), *answers, *left_out]
