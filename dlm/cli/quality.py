"""`dlm quality`: how the quality of samples depends on the number of sampling steps."""

from __future__ import annotations

import argparse

from dlm import disk, inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import ArgumentError
from dlm.format import fixed
from dlm.runs import addresses

SUMMARY = "steps against quality of samples, scored by an autoregressive run"
EXAMPLES = """examples:
  dlm quality 0123456789 --reference-model 9876543210 --steps 4 16 64
  dlm quality 0123456789 --reference-model 9876543210 --sampler confidence

A sampler along a path (left-to-right, confidence, least-entropy, blocks, entropy) is scored by its own
exact likelihood of held-out windows too; on corpus markov also with the source's exact posterior in
place of the model: what the sampler alone gets wrong."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_trust(parser)
    parser.add_argument("run", help=options.RUN)
    options.add_sampling(parser)
    options.add_count(parser, 256, "samples for each number of steps")
    parser.add_argument(
        "--reference-model", required=True, metavar="RUN", help="an ar run on the same tokens"
    )
    parser.add_argument("--steps", type=inputs.whole(1), nargs="+", default=[4, 8, 16, 32, 64])


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    folder, reference_folder = (
        addresses.run(word, a.workdir) for word in (a.run, a.reference_model)
    )
    options.check_writable(folder, "the run's folder")
    from dlm import api
    from dlm.data import windows as data
    from dlm.evaluation import sample_quality, sampling
    from dlm.report import canvas, sample_figures
    from dlm.report.terminal import grid

    model, reference = (api.restore(place, a.trust) for place in (folder, reference_folder))
    c, store = model.config, model.store
    if store.fingerprint != reference.store.fingerprint:
        wrong = f" {a.reference_model}: was trained on other tokens than {a.run}"
        raise ArgumentError("reference_model", wrong)
    for steps in a.steps:
        sampling.check_steps(c, steps)
    windows = data.validation_windows(store, c.data.seq_len)
    points = sample_quality.curve(
        *(c, model.params, reference.config, reference.params, store.vocab_size, windows),
        sorted({c.objective.sampler_calls(c.data.seq_len, n) for n in a.steps}),  # those made
        count=a.count,
        seed=a.seed,
        **options.sampling(a),
    )
    lines = [
        f"{c.objective.name} on {store.manifest.name}, judged by {reference.config.objective.name}"
    ]
    head = ["steps", "nats per token", "perplexity", "entropy of a sample", "distinct 1, 2, 3"]
    rows = [
        [
            str(q.steps) if q.steps else "held-out data",
            f"{q.nats:.3f} ± {q.stderr:.3f}",
            f"{q.perplexity:.2f}",
            f"{q.entropy:.3f}",
            " ".join(f"{share:.3f}" for share in q.distinct),
        ]
        for q in points
    ]
    for title, name in (("the sampler's own NLL", "sampler_nll"), ("an oracle's", "oracle_nll")):
        if any(getattr(q, name) is not None for q in points):
            head.append(title)
            for row, q in zip(rows, points, strict=True):
                row.append(fixed(getattr(q, name), 3))
    if store.manifest.entropy is not None:
        lines.append(f"entropy of the source: {store.manifest.entropy:.3f} nats per token")
    path = folder / "quality.json"
    records = [q._asdict() for q in points]
    disk.write_json(path, records)
    png, *_ = canvas.save(sample_figures.quality(records), folder / "quality")
    return show([*lines, grid(head, rows), f"written: {path}, {png}"])
