"""`dlm evaluate`: scores runs' best weights by any number for a likelihood, on held-out or own text."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import inputs, runs
from dlm.cli import likelihood_lines, options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.config.families import SCORED_AS
from dlm.config.family import PATHS
from dlm.config.method import BOUNDS, MOST_ORDERS, Method
from dlm.errors import DlmError, one_line
from dlm.runs import addresses

if TYPE_CHECKING:
    from dlm.api import Model
    from dlm.evaluation.likelihood import Likelihood
    from dlm.evaluation.texts import TextScore

SUMMARY = "score a run's best weights on the validation split, or on a text of your own"
EXAMPLES = """examples:
  dlm evaluate runs/quickstart/0123456789
  dlm evaluate 0123                      the one run below runs/ whose id begins so
  dlm evaluate 0123 --text new.txt       nats per token and bits per byte of a text file
  dlm evaluate 0123 4567 --bound orders --orders 16 --windows 128
  dlm evaluate 0123 --bound path --path confidence --tokens-per-call 4
  dlm evaluate 0123 4567 89ab --ensemble      three seeds as one model
  dlm evaluate runs/quickstart --ensemble     all seeds of each setting, for dlm report
  dlm evaluate DUAL_RUN --scored-as ar        its exact likelihood, left to right

Bounds of models that reveal tokens in a random order: nelbo, which training lowers; orders, the
K-order bound, never above it; tangent, from below. path is exact: the likelihood of the sampler that
reveals along --path. Objectives with an exact likelihood give it, whatever is asked. The report
compares runs by the numbers that --bound orders and tangent leave in their folders.

Members of an ensemble differ in their seed alone. Its loss, and the number of --bound or else of the
runs' evaluation.final, are kept in the experiment's folder, where the report finds them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_trust(parser)
    parser.add_argument("run", nargs="+", help=options.RUN)
    parser.add_argument(
        "--text",
        type=inputs.path,
        metavar="FILE",
        help="score this text in place of the validation split (.txt, .md, .jsonl, .csv, ...)",
    )
    words = f"{', '.join(BOUNDS)} (default: nelbo)"
    parser.add_argument("--bound", type=inputs.one_of(BOUNDS), default="nelbo", help=words)
    parser.add_argument(
        "--orders",
        type=inputs.whole(2, MOST_ORDERS),
        help="of --bound orders and tangent (default: 16)",
    )
    words = f"of --bound path: {', '.join(PATHS)} (default: confidence)"
    parser.add_argument("--path", type=inputs.one_of(PATHS), help=words)
    parser.add_argument(
        "--tokens-per-call",
        type=inputs.whole(1, 1_048_576),
        metavar="N",
        help="tokens that a call of the sampler reveals, not of nelbo (default: 1)",
    )
    parser.add_argument(
        "--windows",
        type=inputs.whole(1, 10**15),
        metavar="N",
        help="validation windows, spread over the split (default: all)",
    )
    parser.add_argument(
        "--mc-stderr",
        type=inputs.above_zero(),
        metavar="NATS",
        help="Monte Carlo error to reach, of nelbo (default: a quarter of the error over documents)",
    )
    parser.add_argument(
        "--scored-as",
        type=inputs.one_of(SCORED_AS),
        help="of dual runs: masked, a bound, or ar, exact (default: as the run was)",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="score runs as one model, their mean probability; of a folder the seeds of each setting",
    )
    parser.add_argument(
        "--members",
        type=inputs.whole(2, 1000),
        metavar="N",
        help="of a folder's ensembles: the first N seeds (default: all)",
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    method = _method(a)
    if a.members is not None and not (a.ensemble and len(a.run) == 1):
        raise DlmError("--members: only with --ensemble of a folder of runs")
    if a.ensemble and a.text is None:
        if a.scored_as:
            raise DlmError("--scored-as: goes without --ensemble, unless with --text")
        from dlm.cli import ensembles

        return ensembles.score(a.run, a.workdir, a.members or 0, a.trust, method)
    folders = [addresses.run(run, a.workdir) for run in a.run]  # JAX is loaded after the mistakes
    if a.text is not None and (problem := inputs.unreadable(a.text)):
        raise DlmError(f"--text {a.text}: {problem}; must be a file with text")
    if a.ensemble and len(folders) < 2:
        raise DlmError("--ensemble --text: takes two runs or more")
    from dlm import api

    if a.ensemble:
        runs.check_seeds([run for folder in folders for run in runs.load(folder)])
    models = [api.restore(folder, a.trust) for folder in folders]
    if a.scored_as:
        models = [model.scored_as(a.scored_as) for model in models]
    if a.ensemble:
        models = [api.ensemble(models)]
    lines: list[str] = []
    scored: list[tuple[Model, Likelihood]] = []
    for i, model in enumerate(models):
        lines.append(_heading(model, a.scored_as))
        if a.text is not None:
            lines += _text_lines(str(a.text), model.perplexity(a.text, **method))
            continue
        numbers = model.likelihoods(**method)
        lines += likelihood_lines.of_model(model, numbers)
        if method["bound"] == "nelbo" and not a.windows:
            training = next(iter(model.likelihoods("train", **method).values()))
            lines.append(likelihood_lines.line("training windows", training))
        scored.append((model, next(iter(numbers.values()))))
        if not a.scored_as:  # a run's folder has the numbers of the one way it was scored
            lines += _kept(folders[i], numbers, method)
    lines += _differences(a.run, scored)
    return show(lines)


def _heading(model: Model, scored_as: str | None) -> str:
    how = f" scored as {scored_as}" if scored_as else ""
    many = f", {1 + len(model.others)} runs as one" if model.others else ""
    return f"{model.config.objective.name}{how} on {model.store.manifest.name}, best weights{many}"


def _method(a: argparse.Namespace) -> dict[str, Any]:
    """The options of a likelihood; refuses one that the bound does not read."""
    reads = {
        "orders": ("orders", "tangent"),
        "path": ("path",),
        "tokens_per_call": BOUNDS[1:],
        "mc_stderr": ("nelbo",),
    }
    for name, bounds in reads.items():
        if getattr(a, name) is not None and a.bound not in bounds:
            option = f"--{name.replace('_', '-')}"
            raise DlmError(f"{option}: only with --bound {' or '.join(bounds)}, not {a.bound}")
    if a.windows is not None and a.text is not None:
        raise DlmError("--windows: goes without --text, which is scored whole")
    names = ("bound", *reads, "windows")
    method = {name: value for name in names if (value := getattr(a, name)) is not None}
    Method(**method)  # raises where an option is out of range
    return method


def _kept(folder: Path, numbers: dict[str, Likelihood], method: dict[str, Any]) -> list[str]:
    """Keeps bounds in the run's folder, where the report finds them; says so, or why not."""
    from dlm.evaluation import likelihood
    from dlm.runs import folder as run_folder
    from dlm.runs import likelihoods

    kept = likelihood.to_keep(numbers, Method(**method))
    if method["bound"] == "nelbo" or not kept or run_folder.status(folder) != "finished":
        return []
    try:
        return [f"  written: {likelihoods.write(folder, kept)}"]
    except (DlmError, OSError) as error:
        return [f"  note: not written into the run's folder: {one_line(error)}"]


def _differences(names: Sequence[str], scored: Sequence[tuple[Model, Likelihood]]) -> list[str]:
    """What the numbers of several runs say of each other, each against the first, window by window."""
    from dlm.runs.estimate import compare, of_model, standard_error

    lines = []
    for name, (model, number) in list(zip(names, scored, strict=False))[1:]:
        first_model, first = scored[0]
        if model.store.fingerprint != first_model.store.fingerprint or (
            number.nats.shape != first.nats.shape
            or model.config.data.seq_len != first_model.config.data.seq_len
        ):
            lines.append(f"{name} and {names[0]}: other data, so their losses are not compared")
            continue
        second, reference = of_model(number.estimate), of_model(first.estimate)
        if len(number.nats) < 2:
            lines.append(
                f"{name} and {names[0]}: one window has no standard error, so no comparison"
            )
        elif second is None or reference is None:
            lines.append(
                f"{name} and {names[0]}: a lower bound of one sampler says nothing of others"
            )
        else:
            differences = (number.nats - first.nats) / model.config.data.seq_len
            noise = [
                n.estimate.mc_stderr for n in (number, first) if n.estimate.kind == "lower bound"
            ]
            error = math.hypot(standard_error(differences, number.documents), *noise)
            lines.append(compare(second, reference, error, (name, names[0])).conclusion)
    return lines


def _text_lines(name: str, scored: TextScore) -> list[str]:
    """A model's score of a user's text, in lines."""
    estimate, trip = scored.estimate, scored.round_trip
    units = "documents" if scored.documents > 1 else "windows"
    error = f" ± {estimate.stderr:.4f}" if math.isfinite(estimate.stderr) else ""
    documents = f"{scored.documents:,} document{'s' * (scored.documents > 1)}"
    counted = f"{estimate.tokens:,} tokens in {documents}"
    about = f"{likelihood_lines.kind(estimate)}, {counted}{likelihood_lines.noise(estimate)}"
    lines = [f"  {name}: {estimate.value:.4f}{error} nats/token ({about})"]
    kind = "" if estimate.kind == "exact" else f" ({estimate.kind})"
    lines.append(f"  perplexity {scored.perplexity:.2f} a token{kind}")
    if scored.bits_per_byte is not None:
        lines.append(f"  {scored.bits_per_byte:.4f} bits per byte ({scored.bytes:,} bytes)")
    if error:
        lines.append(f"  note: the standard error is over {units}")
    else:
        lines.append("  note: a single window has no standard error")
    if trip and trip.altered:
        lines.append(
            f"  note: {trip.altered:,} of {trip.texts:,} documents come back altered from the "
            f"tokenizer: {trip.words}; bits per byte is withheld"
        )
    if scored.left_out:
        lines.append(
            f"  note: tokens at the end that fill no whole block, not scored: {scored.left_out}"
        )
    return lines
