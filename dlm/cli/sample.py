"""`dlm sample`: draws sequences from a run."""

from __future__ import annotations

import argparse

from dlm import inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.runs import addresses

SUMMARY = "draw sequences from a run"
EXAMPLES = """examples:
  dlm sample runs/quickstart/0123456789 --count 4
  dlm sample 0123456789 --prompt "The " --temperature 0.8 --top-p 0.95
  dlm sample 0123456789 --sampler confidence --steps 16
  dlm sample 0123456789 --infill "The [MASK*12] of the"

Samplers of masked tokens: ancestral, left-to-right, confidence, least-entropy, blocks (confidence from
left to right, 8 tokens at a time), entropy (as many as stay within --entropy-budget nats), maskgit and
remask. Samplers of Gaussian diffusion: ancestral (DDPM) and ddim. In --infill, [MASK] stands for one
token and [MASK*N] for N; what follows the text is free."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_trust(parser)
    parser.add_argument("run", help=options.RUN)
    options.add_sampling(parser)
    options.add_count(parser, 4, "sequences (default: 4)")
    parser.add_argument("--prompt", default="", help="text, or token ids where there is no text")
    parser.add_argument("--infill", default="", help="text or ids with [MASK] where it is free")
    parser.add_argument(
        "--steps", type=inputs.whole(), default=0, help="calls (default: one a token)"
    )


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    how = options.sampling(a)
    folder = addresses.run(a.run, a.workdir)
    from dlm import api

    words = (a.count, a.prompt, a.infill, a.steps, a.seed)
    drawn = api.restore(folder, a.trust).sample(*words, **how)
    return show(["\n-----\n".join(drawn)])
