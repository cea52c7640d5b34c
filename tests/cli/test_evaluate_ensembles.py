"""`dlm evaluate ... --ensemble` on a pair of tiny trained runs, and what it refuses on planted ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dlm import runs
from dlm.api import ensembles
from dlm.cli import main
from dlm.errors import DlmError
from dlm.runs import likelihoods
from fake_runs import autoregressive, write_run

AR = autoregressive(1.6, 1.5e11)
EXPERIMENT = '''
"""Two seeds."""
from dlm import config

def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "markov"
    c.corpus.options = {"documents": 300, "length": 8, "vocabulary": 5}
    c.data.seq_len = 8
    c.model.layers, c.model.width, c.model.heads, c.model.ff = 1, 16, 2, 32
    c.objective.name = "masked"
    c.train.duration, c.train.batch_size = "4 steps", 8
    c.evaluation.mc_stderr, c.evaluation.samples = 1.0, 0
    c.evaluation.final = "orders:2 on 16 windows"
    return c

def sweep(scale="laptop"):
    for seed in (0, 1):
        yield {"train.seed": seed}
'''


def dlm(*words) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    (folder / "pair.py").write_text(EXPERIMENT)
    for seed in (0, 1):
        words = ("train", folder / "pair.py", "--run", seed, "--workdir", folder / "runs")
        assert dlm(*words) == 0
    return folder / "runs" / "pair"


def test_the_seeds_of_a_folder_are_scored_as_one_and_the_report_shows_it(pair, capsys):
    assert dlm("evaluate", pair, "--ensemble") == 0
    out = capsys.readouterr().out
    assert "masked diffusion on markov, ensemble of 2 (seeds 0, 1)" in out
    assert "validation, K-order bound" in out and "written: " in out
    members = runs.load(pair)
    (panel,), excluded = runs.panels(members)
    (ensemble,) = panel.ensembles.values()
    found = ensemble.best.runs[0]
    assert (ensemble.name, ensemble.kind, excluded) == (
        "masked, ensemble of 2", "upper bound", [],
    )  # fmt: skip
    # The same masks for all: -log of a mean is below the mean of -log.
    alone = np.mean([np.load(run.path / "nll.npy") for run in members], axis=0)
    assert (np.load(found.path / "nll.npy") < alone).all()
    assert found.result["flops"] == sum(run.result["flops"] for run in members)
    assert [kept.name for kept in likelihoods.read(found.path)] == ["orders 2", "nelbo of orders 2"]
    assert dlm("report", pair, "--figure", "frontier") == 0
    assert "masked diffusion, ensemble of 2" in (pair / "report.html").read_text()


def test_an_ensemble_of_one_is_the_run_bit_for_bit(pair, tmp_path):
    shutil.copytree(pair.parent, tmp_path / "runs")
    run, _ = runs.load(tmp_path / "runs" / "pair")
    scored = ensembles.score([run])
    assert scored.loss.estimate.value == run.result["validation_loss"]
    np.testing.assert_array_equal(scored.loss.nats, np.load(run.path / "nll.npy"))


def test_what_is_no_ensemble_is_one_line(tmp_path, capsys):
    a = write_run(tmp_path, AR, epochs=50)
    b = write_run(tmp_path, AR, epochs=50, seed=1)
    c = write_run(tmp_path, AR, epochs=50, seed=2, lr=1e-3)
    d = write_run(tmp_path, AR, epochs=50, seed=3, corpus="stdlib")
    (b / "nll.npy").write_bytes(b"")
    for words, told in (
        ((a, "--ensemble"), "--ensemble: takes two runs or more, or a folder of runs"),
        ((a, c, "--ensemble"), "optimizer.lr 0.002 and 0.001"),
        ((a, d, "--ensemble"), "have corpus digits and stdlib"),
        ((a, a, "--ensemble"), "both have seed 0"),
        ((a, b, "--ensemble"), f"run {b.name} is unreadable: nll.npy is not as it was written"),
        ((a, c, "--ensemble", "--text", __file__), "optimizer.lr 0.002 and 0.001"),
        ((a, c, "--ensemble", "--windows", 8), "windows=8: an ensemble's loss is of all windows"),
        ((a, c, "--ensemble", "--members", 2), "--members: only with --ensemble of a folder"),
        ((a, "--members", 2), "--members: only with --ensemble of a folder"),
        ((a.parent, "--ensemble"), "no setting has so many finished seeds; the most is 1"),
    ):
        assert dlm("evaluate", *words, "--workdir", tmp_path) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_the_first_seeds_of_each_setting_that_has_them(tmp_path):
    for seed in range(3):
        write_run(tmp_path, AR, epochs=50, seed=seed)
    for seed in range(2):
        write_run(tmp_path, AR, epochs=50, seed=seed, lr=1e-3)
        write_run(tmp_path, AR, epochs=50, seed=seed, experiment="other")
    every = runs.load(tmp_path)
    assert sorted(map(len, ensembles.over_seeds(every))) == [2, 2, 3]
    (three,) = ensembles.over_seeds(every, 3)
    assert [run.seed for run in three] == [0, 1, 2]
    assert [len(each) for each in ensembles.over_seeds(every, 2)] == [2, 2, 2]
    with pytest.raises(
        DlmError, match="members=4: no setting has so many finished seeds; the most is 3"
    ):
        ensembles.over_seeds(every, 4)
