"""`dlm benchmark` measures what it says: counts by hand, variants in turn, no time is judged."""

from __future__ import annotations

import json

import pytest

import tiny
from dlm.cli import main
from dlm.config import flops, planning
from dlm.evaluation import score
from dlm.training import benchmark
from tolerances import FLOAT64


def test_its_numbers_fit_together(tmp_path, capsys, monkeypatch) -> None:
    path, out = tiny.experiment_file(tmp_path), tmp_path / "speed.json"
    words = ["benchmark", str(path), "--workdir", str(tmp_path), "--seconds", "0.01"]
    compare = ["--compare", "model.scan=True,objective.name=ar"]
    assert main.main([*words, "--out", str(out), "--run", "0", *compare]) == 0
    table = capsys.readouterr().out
    assert "Ratio: to the first" in table and "jax" in table
    found = json.loads(out.read_text())
    assert {"device", "versions", "date", "command"} < found.keys()
    speeds = found["speeds"]
    assert speeds[1]["name"].endswith(compare[1])
    assert speeds[1]["config"]["model"]["scan"] and not speeds[0]["config"]["model"]["scan"]
    assert [s["objective"] for s in speeds] == ["masked", "ar"]
    assert speeds[0]["ratio"] == 1.0
    for s in speeds:
        assert 0 < s["low"] <= s["tokens_per_second"] <= s["high"]
        assert (s["mfu"] is None or 0 < s["mfu"] <= 1) and 0 < s["input_share"] < 1
        assert s["evaluation_tokens_per_second"] > 0 and s["sampling_tokens_per_second"] > 0
    c = tiny.resolved()
    plan = planning.plan(c, train_tokens=16 * 64, vocab_size=16)
    s = speeds[0]
    assert s["parameters"] == plan.parameters.non_embedding
    rate = s["tokens_per_second"] / plan.tokens_per_step * plan.flops_per_step
    peak = 8 * score.measured_peak("float32")
    assert s["peak"] == peak
    assert s["mfu"] == pytest.approx(flops.utilisation(rate, peak), rel=FLOAT64)


@pytest.mark.parametrize("name", benchmark.SIZES)
def test_a_size_has_about_the_parameters_of_its_name(name) -> None:
    from dlm import config

    c, vocab_size = benchmark.sized(name)
    plan = planning.plan(config.resolve(c), train_tokens=1 << 20, vocab_size=vocab_size)
    wanted = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert plan.parameters.non_embedding == pytest.approx(wanted, rel=0.25)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--size", "2M"], "--size 2M: must be one of 0.2M, 1M"),
        (["--size", "0.2M", "--seconds", "0"], "--seconds=0: must be above 0"),
        (["x.py", "--size", "0.2M"], "--size 0.2M: goes without an experiment"),
        (["--size", "0.2M", "--out", "/proc/none/x.json"], "/proc/none: cannot be written"),
        (["--size", "0.2M", "--compare", "model.scann=True"], "did you mean model.scan"),
    ],
)
def test_mistakes_are_told_before_anything_is_timed(words, said, capsys) -> None:
    assert main.main(["benchmark", *words]) == 2
    assert said in capsys.readouterr().err
