"""The verbs about objectives and trained runs, from evaluate to check-objective."""

from __future__ import annotations

import argparse
import datetime
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import config, disk, inputs
from dlm.config import flops
from dlm.errors import DlmError
from dlm.format import sentence
from dlm.runs import Family, Run, Setting, addresses, panel_key

if TYPE_CHECKING:
    from dlm.evaluation.texts import TextScore

PASSES, COUNT = 10_000, 1_000_000  # the most that an option may ask for
RUN = "a run's folder, its id below the workdir or a beginning of that, or its address in a bucket"


def arguments(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Adds what each verb takes."""
    for name in ("evaluate", "sample", "quality", "spectrum"):
        parsers[name].add_argument(
            "--trust", action="store_true", help="run the objective file that a run names"
        )
    for name in ("evaluate", "sample", "quality"):
        parsers[name].add_argument("run", help=RUN)
    parsers["evaluate"].add_argument(
        "--text",
        type=inputs.path,
        metavar="FILE",
        help="score this text in place of the validation split (.txt, .md, .jsonl, .csv, ...)",
    )
    parsers["evaluate"].add_argument(
        "--passes",
        type=inputs.whole(0, PASSES),
        default=0,
        help="of a bound (default: as the run was scored)",
    )
    for name in ("sample", "quality"):
        p = parsers[name]
        p.add_argument(
            "--seed",
            type=inputs.whole(0, 2**32 - 1),
            default=0,
            help="of what is drawn (default: 0)",
        )
        p.add_argument(
            "--temperature", type=inputs.zero_or_more(), default=1.0, help="0: the likeliest token"
        )
        p.add_argument(
            "--top-p",
            type=inputs.number("above 0, at most 1", lambda share: 0 < share <= 1),
            default=1.0,
            help="nucleus: 0 to 1 (default: 1)",
        )
        p.add_argument("--order", default="ancestral", help="see the end of dlm sample --help")
        p.add_argument(
            "--budget",
            type=inputs.zero_or_more("0 or more, in nats"),
            default=0.1,
            help="of --order entropy, in nats",
        )
    sample = parsers["sample"]
    count = inputs.whole(1, COUNT)
    sample.add_argument("--count", type=count, default=4, help="sequences (default: 4)")
    sample.add_argument("--prompt", default="", help="text, or token ids where there is no text")
    sample.add_argument("--infill", default="", help="text or ids with [MASK] where it is free")
    sample.add_argument(
        "--steps", type=inputs.whole(), default=0, help="calls (default: one a token)"
    )
    quality = parsers["quality"]
    quality.add_argument(
        "--count", type=count, default=256, help="samples for each number of steps"
    )
    quality.add_argument(
        "--judge", required=True, metavar="RUN", help="an ar run on the same tokens"
    )
    quality.add_argument("--steps", type=inputs.whole(1), nargs="+", default=[4, 8, 16, 32, 64])
    parsers["spectrum"].add_argument("runs", nargs="+", metavar="run", help=f"on images: {RUN}")
    parsers["spectrum"].add_argument("--count", type=count, default=64, help="validation images")
    parsers["spectrum"].add_argument("--out", type=inputs.path, default=Path("."), help="a folder")
    parsers["check-objective"].add_argument("objective", help="a Python file, or a name")


def evaluate(a: argparse.Namespace) -> list[Any]:
    folder = addresses.run(a.run, a.workdir)  # JAX is loaded after the mistakes
    if a.text is not None and (problem := inputs.unreadable(a.text)):
        raise DlmError(f"--text {a.text}: {problem}; must be a file with text")
    from dlm import api
    from dlm.data import build
    from dlm.evaluation import score
    from dlm.sweep import worker

    worker.prepare_jax()
    model = api.restore(folder, a.trust)
    c, store = model.config, model.store
    said = [f"{c.objective.name} on {store.manifest.name}, best weights"]
    if a.text is not None:
        said += _text_lines(str(a.text), model.perplexity(a.text, a.passes))
    else:
        held_out, training = model.validation(a.passes)
        for part, estimate in (("validation", held_out), ("training windows", training)):
            number = f"{estimate.value:.4f} ± {estimate.stderr:.4f} nats/token"
            said.append(f"  {part}: {number} ({estimate.kind}, {estimate.tokens:,} tokens)")
        if (bits := score.bits_per_byte(held_out, store.bytes_per_token)) is not None:
            said.append(f"  validation: {bits:.4f} bits per byte")
        said += [f"  note: {sentence}" for sentence in build.notes(store.manifest)]
    if not c.objective.family.exact:
        said.append(f"  Monte Carlo passes: {a.passes or c.evaluation.final_passes}")
    return said


def _text_lines(name: str, found: TextScore) -> list[str]:
    """What a model's score of a user's text says, a line each."""
    estimate, trip = found.estimate, found.round_trip
    units = "documents" if found.documents > 1 else "windows"
    error = f" ± {estimate.stderr:.4f}" if math.isfinite(estimate.stderr) else ""
    documents = f"{found.documents:,} document{'s' * (found.documents > 1)}"
    counted = f"{estimate.tokens:,} tokens in {documents}"
    lines = [f"  {name}: {estimate.value:.4f}{error} nats/token ({estimate.kind}, {counted})"]
    lines.append(f"  perplexity {found.perplexity:.2f} a token")
    if found.bits_per_byte is not None:
        lines.append(f"  {found.bits_per_byte:.4f} bits per byte ({found.bytes:,} bytes)")
    if error:
        lines.append(f"  note: the standard error is over {units}")
    else:
        lines.append("  note: a single window has no standard error")
    if trip and trip.altered:
        lines.append(
            f"  note: {trip.altered:,} of {trip.texts:,} documents come back altered from the "
            f"tokenizer: {trip.words}; bits per byte is withheld"
        )
    if found.left_out:
        lines.append(
            f"  note: tokens at the end that fill no whole block, not scored: {found.left_out}"
        )
    return lines


def sample(a: argparse.Namespace) -> list[Any]:
    folder = addresses.run(a.run, a.workdir)
    from dlm import api
    from dlm.sweep import worker

    worker.prepare_jax()
    words = (a.count, a.prompt, a.infill, a.steps, a.seed)
    return ["\n-----\n".join(api.restore(folder, a.trust).sample(*words, **_options(a)))]


def difference(words: Sequence[str], workdir: Path) -> list[Any]:
    """Two runs beside each other: the fields of their configs that differ, then their results."""
    from dlm import api
    from dlm.laws import crossover
    from dlm.report.terminal import grid, prose
    from dlm.runs import difference

    a, b = (api.load(addresses.run(word, workdir))[0] for word in words)
    head = ("", f"{a.run} {a.label}", f"{b.run} {b.label}")
    settings = difference.settings(a, b)
    shown = [grid(head, settings)] if settings else ["The configs do not differ."]
    shown += ["", grid(head, difference.results(a, b)), ""]
    unfinished = [run for run in (a, b) if run.status != "finished"]
    if unfinished:
        return [*shown, prose(f"{unfinished[0].run} is not finished: the losses are not compared.")]
    if panel_key(a) != panel_key(b):
        what = "corpus, tokens, unique tokens or length differ: the losses are not comparable."
        return [*shown, prose(f"Not the same data: {what}")]
    conclusion = crossover.final(*(_alone(run) for run in (a, b))).comparison.conclusion
    return [
        *shown,
        prose(f"{sentence(conclusion)}. The standard error is over validation documents."),
    ]


def _alone(run: Run) -> Family:
    """A run as a family of its own, named by its id."""
    return Family(run.run, run.result["kind"], (Setting(run.label, (run,)),), 1)


def _options(a: argparse.Namespace) -> dict[str, Any]:
    return dict(temperature=a.temperature, top_p=a.top_p, order=a.order, budget=a.budget)


def quality(a: argparse.Namespace) -> list[Any]:
    folder, judge_folder = (addresses.run(word, a.workdir) for word in (a.run, a.judge))
    from dlm.data import windows as data
    from dlm.evaluation import sample_quality, sampling
    from dlm.report import canvas, run_figures
    from dlm.report.terminal import grid
    from dlm.sweep import worker
    from dlm.training import run

    worker.prepare_jax()
    c, store, params = run.restore_best(folder, a.trust)
    judge, judged, judge_params = run.restore_best(judge_folder, a.trust)
    if store.fingerprint != judged.fingerprint:
        raise DlmError(f"--judge {a.judge}: was trained on other tokens than {a.run}")
    for steps in a.steps:
        sampling.check_steps(c, steps)
    windows = data.validation_windows(store, c.data.seq_len)
    found = sample_quality.curve(
        *(c, params, judge, judge_params, store.vocab_size, windows),
        sorted({sampling.calls(c, steps) for steps in a.steps}),  # as many as are made
        count=a.count,
        seed=a.seed,
        **_options(a),
    )
    head = ("steps", "nats per token", "perplexity", "entropy of a sample", "distinct 1, 2, 3")
    rows = [
        [
            str(q.steps) if q.steps else "held-out data",
            f"{q.nats:.3f} ± {q.stderr:.3f}",
            f"{q.perplexity:.2f}",
            f"{q.entropy:.3f}",
            " ".join(f"{share:.3f}" for share in q.distinct),
        ]
        for q in found
    ]

    path = folder / "quality.json"
    records = [q._asdict() for q in found]
    disk.write_json(path, records)
    png, *_ = canvas.save(run_figures.quality(records), folder / "quality")
    return [
        f"{c.objective.name} on {store.manifest.name}, judged by {judge.objective.name}",
        grid(head, rows),
        f"written: {path}, {png}",
    ]


def objectives(a: argparse.Namespace) -> list[Any]:
    from dlm.report.terminal import grid

    sizes: dict[str, Any] = dict(layers=6, width=512, ff=1344, rows=8192)
    length = 512
    base = flops.forward_flops(**sizes, length=length, attention="causal")
    rows = []
    for name, family in config.FAMILIES.items():
        positions = length + family.extra_positions
        cost = flops.forward_flops(
            **sizes, length=positions, attention=family.attention, block=config.Objective().block
        )
        kind = "exact" if family.exact else "upper bound"
        rows.append([name, kind, f"{cost / base:.2f}", family.formula, family.source])
    return [
        grid(("objective", "number", "FLOPs of AR's", "nats per sequence", "source"), rows),
        f"FLOPs per token over AR's, 6 layers of width 512 at {length} tokens; a bound is a mean over "
        "passes, each of that cost. Fields of each: dlm/config/schema.py, class Objective.",
    ]


def check(a: argparse.Namespace, overrides: list[tuple[str, Any]]) -> list[Any]:
    from dlm import api, objectives
    from dlm.objectives import checks
    from dlm.report.terminal import grid
    from dlm.sweep import worker

    worker.prepare_jax()
    c = api.objective_config(a.objective, overrides)
    objective = objectives.make(c.objective, checks.VOCABULARY)
    found = checks.check(objective)
    rows = [["holds" if p.holds else "BROKEN", p.law, p.found] for p in found]
    broken = [p for p in found if not p.holds]
    kind = "exact" if objective.family.exact else "upper bound"
    head = f"{objective.name} ({kind}), all {checks.VOCABULARY}^{checks.LENGTH} strings"
    if broken:
        raise DlmError("; ".join(f"{objective.name}: {p.law}: {p.found}" for p in broken))
    return [head, grid(("", "law", "found"), rows)]


def benchmark(
    a: argparse.Namespace,
    overrides: list[tuple[str, Any]],
    given: tuple[str, config.Config, int] | None,
) -> list[Any]:
    """`given` is a config of the caller's, with its name and vocabulary; else the sizes are timed."""
    import dataclasses

    from dlm.cli.laws_verbs import writable
    from dlm.config import experiment
    from dlm.report.terminal import grid
    from dlm.training import benchmark, environment

    writable(a.out and a.out.parent)
    if a.out is not None and a.out.exists() and (problem := inputs.unreadable(a.out)):
        raise DlmError(f"--out {a.out}: {problem}; must be a JSON file")
    cases = [given] if given else []
    for name in [] if given else a.size or benchmark.default_sizes():
        c, vocab_size = benchmark.sized(name)
        cases.append((name, experiment.edited(c, overrides), vocab_size))
    found, configs = [], {}
    for name, c, vocab_size in cases:
        variants = {name: c}
        for text in a.compare:
            pairs = (experiment.parse_override(f"--config.{pair}") for pair in text.split(","))
            variants[f"{name} {text}"] = experiment.edited(c, pairs)
        found += benchmark.run(variants, vocab_size, a.seconds, a.training_only)
        configs |= {name: config.to_json(each) for name, each in variants.items()}
    training = [
        [
            *(s.name, s.objective, f"{s.parameters:,}", f"{s.tokens_per_second:,.0f}"),
            f"{s.low:,.0f} to {s.high:,.0f}",
            *("unknown" if s.mfu is None else f"{s.mfu:.0%}", f"{s.ratio:.2f}"),
        ]
        for s in found
    ]
    rest = [
        [
            *(s.name, f"{s.compile_seconds:.1f} s", f"{s.step_bytes / 2**20:,.0f} MiB"),
            f"{s.input_share:.1%}",
            *(
                "" if rate is None else f"{rate:,.0f}"
                for rate in (s.evaluation_tokens_per_second, s.sampling_tokens_per_second)
            ),
        ]
        for s in found
    ]
    head = ("", "objective", "parameters", "training tokens/s", "quartiles", "MFU", "ratio")
    said = [
        f"{environment.device()}, jax {environment.versions()['jax']}",
        grid(head, training),
        "",
        grid(
            ("", "compiling", "memory of a step", "input", "scored tokens/s", "sampled tokens/s"),
            rest,
        ),
    ]
    if a.compare:
        said.append(
            "Ratio: to the first of a size, the median over rounds in which each has a turn."
        )
    if a.out is not None:
        about = {
            "device": environment.device(),
            "versions": environment.versions(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["dlm", *sys.argv[1:]]),
            "speeds": [dataclasses.asdict(s) | {"config": configs[s.name]} for s in found],
        }
        disk.write_json(a.out, about)
        said.append(f"written: {a.out}")
    return said


def spectrum(a: argparse.Namespace) -> list[Any]:
    folders = [addresses.run(word, a.workdir) for word in a.runs]
    from dlm.cli.laws_verbs import writable

    writable(a.out)
    from dlm.data import windows as data
    from dlm.evaluation import spectrum
    from dlm.laws.crossover import name_of
    from dlm.report import canvas, run_figures
    from dlm.report.terminal import grid
    from dlm.sweep import worker
    from dlm.training import run

    worker.prepare_jax()
    levels = (0.125, 0.25, 0.5, 0.75)
    found, rows = {}, []
    for folder in folders:
        c, store, params = run.restore_best(folder, a.trust)
        if store.tokenizer is not None:
            raise DlmError(
                f"{folder}: was trained on text ({store.manifest.name}); must be on images"
            )
        images = data.validation_windows(store, c.data.seq_len)[: a.count]
        name = name_of(c.objective.name)
        if name in found:  # another run of the family
            name = f"{name} {folder.name}"
        found[name] = spectrum.explained(c, store.vocab_size, params, images, levels)
        radius, shares = found[name]
        for level, row in zip(levels, shares, strict=True):
            rows.append([name, f"{level:.1%}", *(f"{share:.3f}" for share in row)])
    head = ("family", "known", *(f"{r} cycles" for r in radius))
    png, *_ = canvas.save(run_figures.spectrum(found, levels), a.out / "spectrum")
    return ["Share of the variance of each spatial frequency that is explained", grid(head, rows),
            f"written: {png}"]  # fmt: skip


ACTIONS: dict[str, Callable[[argparse.Namespace], list[Any]]] = {
    "evaluate": evaluate,
    "sample": sample,
    "quality": quality,
    "objectives": objectives,
    "spectrum": spectrum,
}
