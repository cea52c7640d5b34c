"""`dlm corpus`: builds an experiment's token stores and describes them."""

from __future__ import annotations

import argparse

from dlm.cli import jobs as cli_jobs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import DONE

SUMMARY = "build an experiment's token stores and describe them"
EXAMPLES = """examples:
  dlm corpus experiments/quickstart.py
  dlm corpus experiments/smoke.py --config.corpus.name=files \\
      --config.corpus.options.paths='data/*.jsonl.gz' --config.tokenizer.kind=bpe \\
      --config.tokenizer.vocab_size=4096"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser)


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    from dlm.data import store

    jobs = cli_jobs.plan_jobs(a, overrides, machine=None)
    for path in dict.fromkeys(job.store for job in jobs):
        manifest = store.load(path).manifest
        print(f"{manifest.name}: {path}")
        print(f"  fingerprint {manifest.fingerprint}")
        kind = manifest.tokenizer or "ids"
        print(f"  vocabulary {manifest.vocab_size:,} ({kind}), Python {manifest.python}")
        for name, part in (("training", manifest.train), ("validation", manifest.validation)):
            what = "passages" if manifest.cut_documents else "documents"
            documents = f"{part.documents:,} {what} ({part.unique_documents:,} distinct)"
            print(f"  {name}: {documents}, {part.tokens:,} tokens")
        if manifest.entropy is not None:
            print(f"  entropy of the source: {manifest.entropy:.4f} nats/token of whole documents")
        print(f"  distinct 13-grams of training tokens: {manifest.unique_ngrams:.1%}")
        for sentence in store.notes(manifest):
            print(f"  note: {sentence}")
    return DONE
