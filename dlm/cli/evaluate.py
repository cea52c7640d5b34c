"""`dlm evaluate`: scores a run's best weights on the validation split, or on a user's text."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from dlm import inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError
from dlm.runs import addresses

if TYPE_CHECKING:
    from dlm.evaluation.texts import TextScore

SUMMARY = "score a run's best weights on the whole validation split, or on a text of your own"
EXAMPLES = """examples:
  dlm evaluate runs/quickstart/0123456789
  dlm evaluate 0123                      the one run below runs/ whose id begins so
  dlm evaluate 0123456789 --passes 64    less Monte Carlo noise in a bound
  dlm evaluate 0123 --text new.txt       nats per token and bits per byte of a text file"""

MOST_PASSES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_trust(parser)
    parser.add_argument("run", help=options.RUN)
    parser.add_argument(
        "--text",
        type=inputs.path,
        metavar="FILE",
        help="score this text in place of the validation split (.txt, .md, .jsonl, .csv, ...)",
    )
    parser.add_argument(
        "--passes",
        type=inputs.whole(0, MOST_PASSES),
        default=0,
        help="of a bound (default: as the run was scored)",
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    folder = addresses.run(a.run, a.workdir)  # JAX is loaded after the mistakes
    if a.text is not None and (problem := inputs.unreadable(a.text)):
        raise DlmError(f"--text {a.text}: {problem}; must be a file with text")
    from dlm import api
    from dlm.data import build
    from dlm.evaluation import score

    model = api.restore(folder, a.trust)
    c, store = model.config, model.store
    lines = [f"{c.objective.name} on {store.manifest.name}, best weights"]
    if a.text is not None:
        lines += _text_lines(str(a.text), model.perplexity(a.text, a.passes))
    else:
        held_out, training = model.validation(a.passes)
        for part, estimate in (("validation", held_out), ("training windows", training)):
            number = f"{estimate.value:.4f} ± {estimate.stderr:.4f} nats/token"
            lines.append(f"  {part}: {number} ({estimate.kind}, {estimate.tokens:,} tokens)")
        if (bits := score.bits_per_byte(held_out, store.bytes_per_token)) is not None:
            lines.append(f"  validation: {bits:.4f} bits per byte")
        lines += [f"  note: {sentence}" for sentence in build.notes(store.manifest)]
    if not c.objective.family.exact:
        lines.append(f"  Monte Carlo passes: {a.passes or c.evaluation.final_mc_samples}")
    return show(lines)


def _text_lines(name: str, scored: TextScore) -> list[str]:
    """A model's score of a user's text, in lines."""
    estimate, trip = scored.estimate, scored.round_trip
    units = "documents" if scored.documents > 1 else "windows"
    error = f" ± {estimate.stderr:.4f}" if math.isfinite(estimate.stderr) else ""
    documents = f"{scored.documents:,} document{'s' * (scored.documents > 1)}"
    counted = f"{estimate.tokens:,} tokens in {documents}"
    lines = [f"  {name}: {estimate.value:.4f}{error} nats/token ({estimate.kind}, {counted})"]
    lines.append(f"  perplexity {scored.perplexity:.2f} a token")
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
