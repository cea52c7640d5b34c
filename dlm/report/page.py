"""One self-contained page per experiment: verdicts, the figure, one table; all else folds away.

`write` makes report.html (no network, no script), report.json with every number, the figures as
PNG and SVG, and the table of runs; `summary` is the short form for the terminal. All render one
`Summary` (dlm/report/summary.py), work with any number of runs, and name what is missing.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlm import disk, runs
from dlm.errors import DlmError
from dlm.format import between, fixed, integer, number, percent, scientific, with_error
from dlm.laws import crossover as cross
from dlm.laws.crossover import Crossover, name_of
from dlm.report import canvas, html, law_page, run_figures, sample_figures
from dlm.report import summary as findings
from dlm.report.brief import Brief
from dlm.report.canvas import Drawing, Drawn
from dlm.report.sentences import measured
from dlm.report.summary import PanelSummary, Summary
from dlm.runs import Panel, Run

FIGURES = ("frontier", "epochs", "settings")
SAMPLES = 3  # shown of each family, the first ones drawn
SAMPLE_LENGTH = 600  # characters
FEW = 4  # families beyond which every setting is drawn beside the best of each


class Loaded(NamedTuple):
    """The runs of a folder, in the groups in which they may be compared, and what they say."""

    runs: list[Run]
    panels: list[Panel]
    summary: Summary


def load(directory: Path | str, reference: str = "") -> Loaded:
    """Reads the runs of a workdir or an experiment's folder, for `write` and `summary`.

    `reference`: the family, or the family and setting, that all others are compared with; "": AR.

    Raises:
      DlmError: there is no such directory, or no finished run of the reference.
    """
    every = runs.load(directory)
    panels, excluded = runs.panels(every)
    panels = cross.against(panels, reference) if reference else panels
    return Loaded(every, panels, findings.of(every, panels, excluded))


def write(
    directory: Path | str,
    names: Sequence[str] = (),
    width: float = 0.0,
    loaded: Loaded | None = None,
) -> Path:
    """Writes the report of a workdir or an experiment's folder into it; returns report.html.

    `names`: only these figures or panels are drawn as files (default: all); `width`: in inches;
    `loaded`: its runs, if they are read already. A figure that cannot be drawn is named on the
    page, with the reason.

    Raises:
      DlmError: there is no such directory, it cannot be written, or a name that no figure has.
    """
    folder = Path(directory)
    loaded = loaded or load(folder)
    to_draw = canvas.chosen(drawings(loaded.panels), names)
    try:
        runs.write_table(loaded.runs, folder)
        disk.write_json(folder / "report.json", findings.as_json(loaded.summary))
        drawn = []
        for name, make, panel in to_draw:
            label = f"{name}-{panel}" if panel else name
            drawn.append(canvas.attempt(label, make, folder / label, panel, width))
        natural = () if width else drawn  # the page shows figures at their own width
        problems = [each.problem for each in drawn if each.problem]
        return disk.write(folder / "report.html", page(loaded, problems, natural))
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


def page(loaded: Loaded, problems: Sequence[str] = (), drawn: Sequence[Drawn] = ()) -> str:
    """The page as text.

    `problems`: figures that could not be written as files, and why; `drawn`: whole figures that need
    not be drawn again.
    """
    s, panels = loaded.summary, loaded.panels
    title = ", ".join(s.experiments) or "no runs"
    body = [
        f"<h1>{escape(s.questions[0] if len(s.questions) == 1 else title)}</h1>",
        f'<p class="soft">dlm, experiment {escape(title)}</p>',
        *(f"<p>{escape(q)}</p>" for q in s.questions if len(s.questions) > 1),
        *map(_verdict, s.panels),
        *([html.paragraph(s.nothing, "answer")] if s.nothing else []),
        *([html.paragraph(" ".join(s.remarks), "soft")] if s.remarks else []),
    ]
    if panels:
        body += _compared(loaded, problems, {each.name: each for each in drawn})
    reasons = [list(each.values()) for each in s.excluded]
    left_out = html.table(["experiment", "run", "label", "reason"], reasons)
    body += [
        *html.fold(
            f"Left out of the comparison ({len(reasons)})",
            left_out if reasons else "<p>No run.</p>",
        ),
        *html.fold(f"All runs ({len(s.runs)})", _all_runs(s)),
        *html.fold("Made with", html.bullets(_made_with(s))),
    ]
    return html.document(f"{title}: dlm report", body)


def _verdict(p: PanelSummary) -> str:
    texts = filter(None, (p.verdict, p.ensembled))
    return "".join(
        f'<p class="answer"><b>{escape(p.title)}.</b> {html.text(text)}</p>' for text in texts
    )


def _compared(loaded: Loaded, problems: Sequence[str], whole: Mapping[str, Drawn]) -> list[str]:
    """The figure and the table, then all else, folded."""
    s, panels = loaded.summary, loaded.panels
    drawn = {name: _figure(name, panels, whole.get(name)) for name in drawings(panels)}
    undrawn = [*problems, *(problem for _, _, missing in drawn.values() for problem in missing)]
    in_full = [text for p in s.panels for text in p.comparisons]
    tried = sum(len(p.settings) for p in s.panels)
    return [
        *(drawn[name][1] for name in drawn if name == FIGURES[0]),
        html.bullets(dict.fromkeys(undrawn)) if undrawn else "",
        html.table(*findings.table(s)),
        html.paragraph(findings.legend(s), "soft"),
        *html.fold("The comparison in full", *map(html.paragraph, in_full)),
        *html.fold("Critical compute", _critical(s)),
        *html.fold("Best of each family", _best(s)),
        *(html.fold("Ensembles over seeds", _ensembles(s)) if _has_ensembles(s) else ()),
        *html.fold(f"Every setting against the reference ({tried})", _settings(s)),
        *(part for name in drawn if name != FIGURES[0] for part in html.fold(*drawn[name][:2])),
        *html.fold("Scaling laws", *law_page.of_runs(loaded.runs, panels)),
        *html.fold("Samples", *map(_samples, panels)),
        *html.fold("What was compared", html.bullets([*s.compared, *s.selected_on_validation])),
        *html.fold("What kind of number each loss is", html.bullets(s.kinds)),
    ]


def _figure(name: str, panels: Sequence[Panel], whole: Drawn | None) -> tuple[str, str, list[str]]:
    """Heading, one figure per panel (beside each other if there is room), and what was not drawn.

    `whole`: the figure of all panels if it is drawn already; of a single panel it is the same.
    """
    makers = [(p.title, drawings([p])) for p in panels]
    if whole is not None and len(panels) == 1:
        drawn = [whole._replace(name=f"{name}, {panels[0].title}")]
    else:
        drawn = [canvas.attempt(f"{name}, {t}", made[name]) for t, made in makers if name in made]
    problems = [each.problem for each in drawn if each.problem]
    drawn = [each for each in drawn if each.svg]
    if not drawn:
        return name, "<p>Not drawn.</p>", problems
    alike = len({each.caption for each in drawn}) == 1  # else each explains its own marks
    svgs = [html.figure(d.svg, d.name, "" if alike else d.caption) for d in drawn]
    below = html.paragraph(drawn[0].caption, "soft") if alike else ""
    return drawn[0].heading, f'<div class="pair">{"".join(svgs)}</div>{below}', problems


def _best(s: Summary) -> str:
    head = ("data", "family", "loss, nats/token", "over", "kind", "training loss", "bits/byte")
    more = ("best epoch", "best FLOPs", "parameters", "setting", "settings tried", "seeds")
    rows = [
        [
            *(p.title, name_of(f.objective), with_error(f.loss, f.stderr), f.stderr_over, f.kind),
            *(fixed(f.train_loss, 3), fixed(f.bits_per_byte, 3), number(f.best_epoch)),
            *(scientific(f.best_flops), integer(f.params), f.best_setting or "the only one"),
            *(str(f.settings_tried), ", ".join(map(str, f.seeds))),
        ]
        for p in s.panels
        for f in (*p.families, *p.ensembles)
    ]
    return html.table((*head, *more), rows)


def _has_ensembles(s: Summary) -> bool:
    return any(p.ensembles for p in s.panels)


def _ensembles(s: Summary) -> str:
    """Each ensemble against its own family, the reference and its ensembles, with the FLOPs of each."""
    head = ("data", "family", "FLOPs", "nats/token", "against", "FLOPs", "nats/token")
    rows = []
    for p in s.panels:
        flops = {f.objective: scientific(f.flops) for f in (*p.families, *p.ensembles)}
        for final in p.ensemble_finals:
            sides = (final.challenger, final.challenger_estimate), (
                final.reference, final.reference_estimate,
            )  # fmt: skip
            cells = [(name_of(name), flops[name], measured(e)) for name, e in sides]
            shows = findings.difference_of(final)
            rows.append(
                [p.title, *cells[0], *cells[1], findings.signed(shows), shows.outcome, shows.by]
            )
    note = (
        "FLOPs of training: the mean over the seeds of a family, the sum over the members of an "
        "ensemble. An ensemble has no error over seeds: ± is over documents."
    )
    table = html.table((*head, "difference", "shows", "by"), rows)
    return table + html.paragraph(note, "soft")


def _settings(s: Summary) -> str:
    """Every setting minus the reference's best setting."""
    head = ("data", "family", "setting", "seeds", "loss, nats/token", "kind")
    rows = [
        [
            *(p.title, name_of(row.objective), row.setting or "the only one", str(row.seeds)),
            *(with_error(row.loss, row.stderr), row.kind),
            *(findings.signed(row.difference), row.difference.outcome if row.difference else ""),
        ]
        for p in s.panels
        for row in p.settings
    ]
    return html.table((*head, "minus the reference", "shows"), rows)


def _critical(s: Summary) -> str:
    rows = [
        _critical_row(p, counted, crossing)
        for p in s.panels
        for axis, counted in findings.AXES.items()
        for crossing in p.crossovers[axis]
    ]
    if not rows:
        return (
            "<p>Needs a finished run of the reference and of another family on the same data.</p>"
        )
    head = ("data", "families", "FLOPs counted", "status", "critical compute", "90% interval")
    return html.table((*head, "resamples crossing", "epochs", "gap at the end"), rows)


def _critical_row(p: PanelSummary, counted: str, crossing: Crossover) -> list[str]:
    status, place = crossing.status, crossing
    if crossing.trend is not None:  # it does not cross: the extrapolation, and marked as one
        place = crossing.trend
        meets = math.isfinite(crossing.trend.compute)
        status += "; extrapolated from its trend" if meets else "; nor does its trend"
    known = place.low is not None and place.high is not None
    spread = " (spread)" if crossing.over == "settings" else ""
    compute = "none in reach" if place.compute == math.inf else scientific(place.compute, 3)
    return [
        *(p.title, f"{name_of(crossing.challenger)} against {name_of(crossing.reference)}"),
        *(counted, status, compute),
        between(place.low or 0, place.high or 0) + spread if known else "no interval: one seed",
        percent(crossing.share),
        number(place.epochs),
        f"{with_error(crossing.gap, crossing.gap_stderr, sign=True)} at {scientific(crossing.end)}",
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
            return "".join(parts) + html.figure(
                canvas.svg_text(sample_figures.digits(sheet)), label
            )
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
    spec = importlib.util.find_spec("sklearn")
    parts = spec.submodule_search_locations if spec is not None else None
    path = Path(*parts, "datasets", "data", "digits.csv.gz") if parts else None
    if path is None or not path.is_file():  # reports are also written where only runs are read
        return None
    images = np.loadtxt(path, delimiter=",")[:, :64]
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _all_runs(s: Summary) -> str:
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
    for row in s.runs:
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


def _made_with(s: Summary) -> list[str]:
    prints = [f"Tokens of {p.title}: fingerprint {p.fingerprint}" for p in s.panels]
    versions = [f"Versions: {text}" for text in s.versions]
    return [*prints, *versions, *(f"Device: {text}" for text in s.devices)]


# --- the terminal -------------------------------------------------------------------------------


def summary(directory: Path | str, loaded: Loaded | None = None) -> list[Any]:
    """Rich renderables, of one screen: verdicts, the table of families, remarks."""
    return [Brief((loaded or load(directory)).summary)]
