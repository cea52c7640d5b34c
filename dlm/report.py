"""One self-contained page per experiment: the answer, the figures, the samples, the table of runs.

`write` makes report.html (no network, no script), report.json with every number, the figures as
PNG and SVG, and the table of runs; `summary` is the short form for the terminal. Both work with
whatever runs there are, and say what is missing.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dlm import crossings, figures, findings, html, law_report, runs
from dlm import crossover as cross
from dlm.crossover import name_of
from dlm.errors import DlmError
from dlm.figures import scientific
from dlm.runs import Panel, Run

SAMPLES = 3  # shown of each family, the first ones drawn
SAMPLE_LENGTH = 600  # characters
FEW = 4  # families beyond which every setting is drawn beside the best of each


def write(directory: Path | str) -> Path:
    """Writes the report of a workdir or an experiment's folder into it; returns report.html.

    Raises:
      DlmError: there is no such directory, or it cannot be written.
    """
    folder = Path(directory)
    found = runs.load(folder)
    panels, excluded = runs.panels(found)
    try:
        runs.write_table(found, folder)
        numbers = findings.numbers(found, panels, excluded)
        html.replace(folder / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False))
        if panels:
            figures.save(figures.frontier(panels), folder / "frontier")
            figures.save(figures.epochs(panels), folder / "epochs")
            if many := [p for p in panels if len(p.families) > FEW]:
                figures.save(figures.every_setting(many), folder / "settings")
        return html.replace(folder / "report.html", page(found, panels, excluded))
    except OSError as error:
        raise DlmError(f"{folder}: the report cannot be written ({error.strerror})") from None


# --- the page -----------------------------------------------------------------------------------


def page(found: Sequence[Run], panels: Sequence[Panel], excluded: Sequence[tuple[Run, str]]) -> str:
    experiments = sorted({run.experiment for run in found})
    title = ", ".join(experiments) or "no runs"
    questions = findings.questions(found)
    answers = [findings.answer(panel) for panel in panels] or [findings.nothing(found)]
    body = [
        f"<h1>{escape(questions[0] if len(questions) == 1 else title)}</h1>",
        f'<p class="soft">dlm, experiment {escape(title)}</p>',
        *(f"<p>{escape(q)}</p>" for q in questions if len(questions) > 1),
        *(f'<p class="answer">{escape(text)}</p>' for text in answers),
    ]
    if panels:
        body += [
            _figures(panels),
            *html.section("Best of each family", _best(panels)),
            *html.section("Critical compute", _critical(panels)),
            *html.section("Scaling laws", *law_report.of_runs(found, panels)),
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


def _figures(panels: Sequence[Panel]) -> str:
    """One figure per panel: side by side on a desk, below each other on a phone."""
    parts = []
    for heading, draw, note in (
        (
            "Loss against compute",
            figures.frontier,
            "Bold: the best validation loss at or below each compute, averaged over seeds, lowest "
            "over settings, with one standard error; dotted on from where a family's runs end. "
            "Faint: each seed of each setting. Dashed upright: the crossover, with its 90% "
            "interval. The loss axis is cut to show the difference at the end.",
        ),
        (
            "Loss against epochs",
            figures.epochs,
            "The best setting of each family. Solid: validation; dashed: the same estimator on "
            "training windows. The distance between the two is memorisation.",
        ),
        (
            "Every setting",
            figures.every_setting,
            "Validation loss of every setting, by its lowest. Solid lines are exact; dashed lines are "
            "upper bounds, and the likelihoods behind them may be better.",
        ),
    ):
        shown = [p for p in panels if draw is not figures.every_setting or len(p.families) > FEW]
        if not shown:
            continue
        drawn = [
            f"<figure>{_svg(draw([panel]), f'{heading}, {panel.title}')}</figure>"
            for panel in shown
        ]
        parts += [*html.section(heading, f'<div class="pair">{"".join(drawn)}</div>')]
        parts += [f'<p class="soft">{escape(note)}</p>']
    return "".join(parts)


def _svg(figure: Any, label: str) -> str:
    return figures.svg_text(figure).replace(
        "<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1
    )


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
                *(panel.title, name_of(family.name), f"{value.value:.4f} ± {value.stderr:.4f}"),
                *(findings.stderr_over(family.best.seeds), family.kind),
                *(_number(mean["train_loss"], ".3f"), _number(mean["bits_per_byte"], ".3f")),
                *(_number(mean["best_epoch"], ".4g"), scientific(mean["best_flops"])),
                *(_number(mean["params"], ",.0f"), family.best.name or "the only one"),
                str(family.trials),
            ]
        )
    return made


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


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
    return [
        *(panel.title, f"{name_of(found.challenger)} against {name_of(found.reference)}"),
        *(counted, status, scientific(place.compute, 3)),
        figures.interval(place.low or 0, place.high or 0) + spread if known else "no interval",
        "" if found.share is None else f"{100 * found.share:.0f}%",
        _number(place.epochs, ".4g"),
        f"{found.gap:+.4f} at {scientific(found.end)}",
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
        return "".join(parts) + f"<figure>{_svg(figures.digits(sheet), label)}</figure>"
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
    except (OSError, ValueError):
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
        return f"{name_of(name)} {losses.mean() - entropy:+.4f} ± {error:.4f} ({kind})"

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
        f"{name_of(name)}: {words.get(kind, kind)} negative log-likelihood, nats per token."
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
                *(_number(row["validation_loss"], ".4f"), _number(row["validation_stderr"], ".4f")),
                *(_number(row["train_loss"], ".3f"), _number(row["epochs"], ".4g")),
                *(_number(row["best_epoch"], ".4g"), _number(row["params"], ",")),
                *("" if row["flops"] is None else scientific(row["flops"]),),
                *(_number(row["tokens_per_second"], ",.0f"), _number(row["mfu"], ".0%")),
                *(_number(row["seconds"], ",.0f"), row["run"] or ""),
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


def summary(directory: Path | str) -> list[Any]:
    """Rich renderables: a row per family's best setting, then the answer on each panel."""
    from rich.table import Table
    from rich.text import Text

    found = runs.load(directory)
    panels, excluded = runs.panels(found)
    if not panels:
        return [Text(findings.nothing(found)), *_exclusions(excluded)]
    table = Table(box=None, pad_edge=False)
    for name in ("data", "family", "loss, nats/token", "kind", "training", "best epoch", "FLOPs"):
        left = name in ("data", "family", "kind")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    table.add_column("setting (of how many)", overflow="fold")
    for panel in panels:
        for row in best_rows(panel):
            loss, setting = f"{row[2]}", f"{row[10]} (of {row[11]})"
            cells = (row[0], row[1], loss, row[4], row[5], row[7], row[8], setting)
            table.add_row(*(Text(cell) for cell in cells))
    answers = [Text(f"\n{findings.answer(panel)}") for panel in panels]
    return [table, *answers, *_exclusions(excluded)]


def _exclusions(excluded: Sequence[tuple[Run, str]]) -> list[Any]:
    from rich.text import Text

    return [Text(f"left out: {run.label}: {reason}", style="yellow") for run, reason in excluded]
