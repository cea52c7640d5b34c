"""Every experiment file explains itself, plans at every scale, and trains its smoke variant."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dlm import config, corpus, experiment, planning, train
from dlm.corpora import CORPORA

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.py"))


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def runs_of(path: Path, scale: str) -> list[config.Config]:
    return experiment.expand(*experiment.load(str(path), scale))


def test_there_are_experiments() -> None:
    assert ROOT / "experiments" / "smoke.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_header_has_question_command_and_expected_result(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text.split("\n\n")[0].strip().endswith("?")
    assert f"dlm run experiments/{path.name}" in text
    assert "Expected:" in text


@pytest.mark.parametrize("scale", experiment.SCALES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_scale_resolves_and_plans(path: Path, scale: str, corpora: Path) -> None:
    runs = runs_of(path, scale)
    assert runs
    for c in runs:
        assert c.corpus.name in CORPORA
        store = corpus.build(c.corpus, c.tokenizer, corpora)
        plan = planning.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
        assert plan.steps > 0 and plan.evaluate_at[-1] == plan.steps
        assert plan.unique_tokens <= len(store.train)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_smoke_variant_trains_two_steps(path: Path, corpora: Path, tmp_path: Path) -> None:
    """The first run of each family, as far as two steps and an evaluation."""
    base, sweep = experiment.load(str(path), "smoke")
    for key, value in SHORT.items():
        experiment.override(base, key, value)
    sweep = [{k: v for k, v in run.items() if k not in SHORT} for run in sweep]
    first = {c.objective.name: c for c in reversed(experiment.expand(base, sweep))}
    for name, c in first.items():
        store = corpus.build(c.corpus, c.tokenizer, corpora)
        outcome = train.train(c, store, tmp_path / name)
        assert outcome.progress["step"] == 2
        assert outcome.progress["best_loss"] is not None
        assert outcome.ledger.sum() == 2 * c.train.batch_size * c.data.seq_len


SHORT = {
    "train.duration": "2 steps",
    "train.checkpoint_every": "2 steps",
    "train.batch_size": 8,  # the test process has 8 devices
    "evaluation.every": "2 steps",
    "evaluation.sequences": 16,
}
