"""The tiniest run there is: 64 synthetic documents of 16 tokens, one layer, 24 steps.

Used in the test process, which has 8 devices, and by processes of their own, which have one.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from dlm import config
from dlm.config import experiment
from dlm.data import build
from dlm.data.store import Store
from dlm.runs.schema import RunInfo
from places import TESTS

# An experiment file with the same config; `sweep` has two families.
EXPERIMENT = '''"""Does a tiny run train?

  dlm run tiny.py

Expected: it does.
"""

import sys

sys.path.insert(0, {tests!r})

import tiny


def get_config(scale="laptop"):
    return tiny.tiny_experiment()


def sweep(scale="laptop"):
    for name in ("masked", "ar"):
        yield {{"objective.name": name}}
'''

INFO = RunInfo(experiment="tiny", run_id="0", label="tiny", overrides={}, question="?")
# And nothing else may differ, but for the digests of what holds these.
TIMES = ("seconds", "tokens_per_second", "mfu", "device", "warnings", "files", "sha256", "log")


def tiny_experiment() -> Any:
    c = config.base()
    c.corpus.name = "topics"
    c.corpus.validation_fraction = 0.25
    c.corpus.options = dict(documents=64, length=16, vocabulary=16, topics=4)
    values = {
        "data.seq_len": 16, "data.unique_tokens": 512, "model.layers": 1, "model.width": 16,
        "model.heads": 2, "model.ff": 32, "model.dropout.residual": 0.1, "objective.name": "masked",
        "optimizer.lr": 0.01, "optimizer.warmup": "4 steps", "optimizer.ema_decay": 0.8,
        "train.duration": "24 steps", "train.batch_size": 8, "train.steps_per_call": 1,
        "train.checkpoint_every": "12 steps", "evaluation.every": "8 steps",
        "evaluation.interval_growth": 1.0, "evaluation.mc_stderr": 1.0,
        "evaluation.batch_size": 16, "evaluation.samples": 2,
    }  # fmt: skip
    for key, value in values.items():
        experiment.override(c, key, value)
    return c


def resolved(**overrides: Any) -> config.Config:
    """The tiny config with overrides such as `train_seed=1`: the first underscore is the dot."""
    c = tiny_experiment()
    for key, value in overrides.items():
        experiment.override(c, key.replace("_", ".", 1), value)
    return config.resolve(c)


def objective(name: str, **options: Any) -> config.Objective:
    """The options record of a family, with those of `options` that the family has."""
    record = config.FAMILIES[name].options
    known = {key: value for key, value in options.items() if hasattr(record, key)}
    return config.objective(name, **known)


def store(workdir: Path) -> Store:
    c = resolved()
    return build.build(c.corpus, c.tokenizer, workdir / "corpora")


def experiment_file(folder: Path, text: str = EXPERIMENT) -> Path:
    path = folder / "tiny_experiment.py"
    path.write_text(text.format(tests=str(TESTS)))
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The rows of evaluations, without times."""
    return [timeless(row) for row in rows(folder) if "validation_loss" in row]


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES}


def result(folder: Path) -> dict[str, Any]:
    """result.json without times and versions."""
    return timeless(json.loads((folder / "result.json").read_text()))


@contextlib.contextmanager
def checkpoints(c: config.Config, store: Store, folder: Path):
    """The checkpoints of the run of this config in this folder."""
    from dlm.training import checkpoint

    run = config.run_id(c, store.fingerprint)
    with checkpoint.open_checkpoints(folder / "checkpoints", run) as opened:
        yield opened


def final_state(c: config.Config, store: Store, folder: Path) -> dict[str, np.ndarray]:
    """Every leaf of the last checkpoint (parameters, optimizer, average, best, ledger), by path."""
    import jax

    from dlm.model import sharding
    from dlm.training import checkpoint, step

    mesh = sharding.make_mesh(c)
    shapes = step.abstract(c, store.vocab_size, mesh)
    with checkpoints(c, store, folder) as opened:
        saved = checkpoint.restore(opened, state=shapes, best=step.weights(shapes), ledger=None)
    assert saved is not None
    saved = {name: saved[name] for name in ("state", "best", "ledger")}
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(saved)
    }


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """The leaves in which two states differ at all, and by how much."""
    assert a.keys() == b.keys()
    pairs = {name: (a[name].astype(np.float64), b[name].astype(np.float64)) for name in a}
    return {n: float(abs(x - y).max()) for n, (x, y) in pairs.items() if not np.array_equal(x, y)}
