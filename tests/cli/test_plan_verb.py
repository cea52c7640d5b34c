"""`dlm plan`: the question in one screen, as JSON, as an experiment file and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planted
import tiny
from dlm.cli import forecast, main
from dlm.config import experiment, planning, proposal
from dlm.sweep.jobs import Job
from places import ROOT
from tolerances import FLOAT64

WEEK = ("--unique-tokens", "1e8", "--device", "h100", "--hours", "168")


def dlm(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Forty runs of two families, AR ahead at little compute."""
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    lines = ["family,params,tokens,unique_tokens,loss"]
    for seed, (family, R_D) in enumerate((("ar", 10.0), ("masked", 300.0))):
        values = planted.TRUTHS["data-constrained"] | {"R_D": R_D}
        values |= {"E": 1.8 + 0.1 * (family == "masked")}
        grid: Any = dict(sizes=np.geomspace(2e7, 6e8, 4), unique=(1e8,), epochs=(1, 4, 16, 64, 200))
        t = planted.table("data-constrained", values, noise=0.003, seed=seed, **grid)
        for row in zip(t.N, t.D, t.U, t.loss, strict=True):
            lines.append(f"{family}," + ",".join(f"{v:.8g}" for v in row))
    path.write_text("\n".join(lines))
    return path


def test_a_week_on_one_device_is_answered_in_one_screen(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert dlm("plan", *WEEK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])  # the last is a command, to be copied
    assert len(lines) < 45
    text = " ".join(" ".join(lines).split())
    assert "168 hours of 1 x H100 at 26% of its peak, assumed" in text
    assert "By these laws: masked diffusion" in text and "no intervals" in text
    assert "recovered from the paper's figures" in text
    assert "knows no over-fitting" in text
    assert "--write experiments/mine.py" in lines[-1]


def test_a_table_of_forty_runs_is_fitted_and_decided(table, tmp_path, capsys) -> None:
    words = ("plan", "--laws", table, "--unique-tokens", "1e8", "--flops", "3e20", "--json")
    words += ("--resamples", 40, "--law", "data-constrained")
    assert dlm(*words, "--out", tmp_path / "out") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["preferred"] == "masked"
    first, second = found["advice"]["families"]
    assert first["low"] < first["loss"] < first["high"] < second["loss"]
    assert first["params_low"] < first["params"] < first["params_high"]
    assert first["share"] > 0.95 and found["advice"]["gap_low"] > 0
    (turn,) = found["advice"]["turns"]
    assert turn["critical"]["status"] == "crosses" and turn["critical"]["compute"] < 3e20
    assert "residuals of the fits" in found["advice"]["spread_of"]
    assert set(found["held_out"]) == {"ar", "masked"}
    page = (tmp_path / "out" / "plan.html").read_text()
    assert "<svg" in page and found["sentences"][0].split(":")[0] in page
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"plan.html", "plan.png", "plan.svg", "plan.pdf"}


@pytest.mark.parametrize(
    ("unique", "flops", "words"),
    [("1e29", "1e20", "config.data.unique_tokens"), ("1e5", "1e26", "must be at most 1,000,000")],
)
def test_what_no_config_trains_is_advised_and_not_proposed(unique, flops, words, capsys) -> None:
    asked = ("plan", "--unique-tokens", unique, "--flops", flops)
    assert dlm(*asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["advice"]["families"]) == 2 and found["proposals"] == {}
    assert all(words in why for why in found["not_proposed"].values())
    assert any("No run of AR is proposed" in sentence for sentence in found["sentences"])
    assert dlm(*asked, "--write", "mine.py") == 2
    assert "--write mine.py: no run is proposed" in capsys.readouterr().err


def test_the_written_experiment_is_planned_by_dlm_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert dlm("plan", *WEEK, "--write", "experiments/mine.py") == 0
    assert "written: experiments/mine.py" in capsys.readouterr().out
    assert dlm("plan", *WEEK, "--write", "experiments/mine.py") == 0  # its own file, written anew
    Path("experiments/yours.py").write_text("# not a plan's")
    capsys.readouterr()
    assert dlm("plan", *WEEK, "--write", "experiments/yours.py") == 2
    assert "no plan wrote it" in capsys.readouterr().err
    assert dlm("run", "experiments/mine.py", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.startswith("6 runs") and "masked size=489m" in out and "ar size=1018m" in out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--flops", "2e20"), "needs --unique-tokens"),
        (("--unique-tokens", "100", "--flops", "2e20"), "write 1e+08 for 100 million"),
        (("--unique-tokens", "1e8"), "give one of --hours"),
        (("--unique-tokens", "1e8", "--hours", "5"), "--hours=5: needs a device"),
        ((*WEEK, "--laws", "pape"), "--laws='pape': must be paper"),
        (("--unique-tokens", "1e8", "--flops", "1e40"), "--flops=1e+40: must be a raw count"),
        (("--unique-tokens", "1e8", "--loss", "30"), "--loss=30: must be above 0, at most 20"),
        (("--unique-tokens", "1e8", "--loss", "0.1"), "--loss=0.1: no law reaches it"),
        (
            (*WEEK, "--families", "ar", "maskd"),
            "--families=maskd: has no law; must be one of ar",
        ),
        ((*WEEK, "--write", "mine.txt"), "must be a Python file"),
        (
            ("--unique-tokens", "1e8", "--flops", "2e20", "--mfu", "0.4"),
            "--mfu=0.4: only with a dev",
        ),
        (("--unique-tokens", "1e8", "--flops", "2e20", "--devices", "8"), "--devices=8: only with"),
        ((*WEEK, "--device", "3e14", "--mfu", "0.4"), "--mfu=0.4: goes without a measured device"),
        ((*WEEK, "--scale", "paper"), "--scale: only with EXPERIMENT"),
        ((*WEEK, "--law", "chinchilla"), "--law: only of a table or a folder of runs"),
        ((*WEEK, "--points", "last"), "--points: only of a table"),
        ((*WEEK, "--resamples", "7"), "--resamples: only of a table"),
        (("--unique-tokens", "1e8", "--flops", "nan"), "must be above 0"),
    ],
)
def test_a_mistake_is_one_line(words, error, capsys) -> None:
    assert dlm("plan", *words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert error in captured.err


def long_job(unique: float, epochs: int, size: str = "2283m") -> Job:
    """A masked run of the paper's recipe, planned without its corpus."""
    run = {"objective.name": "masked", "model.size": size, "train.duration": f"{epochs} epochs"}
    c = experiment.edited(proposal.C4.config(unique), run.items())
    plan = planning.plan(c, train_tokens=c.data.unique_tokens, vocab_size=proposal.GPT2)
    return Job(c, Path(), Path(), tiny.INFO, plan)


def test_a_long_run_below_the_papers_critical_compute_is_warned_of() -> None:
    """Table 3's pair: 2.3B parameters for 130 epochs of 500M tokens is 8.4e20 FLOPs, C_crit 2.3e21."""
    (warning,) = forecast.warnings([long_job(500e6, 130)])
    assert "500M unique tokens" in warning and "8.4×10²⁰" in warning and "2.3×10²¹" in warning
    assert forecast.warnings([long_job(500e6, 130)], seconds=3600) == []  # no day is spent
    assert forecast.warnings([long_job(100e6, 130)]) == []  # above C_crit there
    assert forecast.warnings([long_job(500e6, 1, "7m")]) == []


def test_an_experiment_on_named_devices_takes_its_flops_over_their_speed(tmp_path, capsys) -> None:
    words = ("plan", ROOT / "experiments" / "smoke.py", "--workdir", tmp_path)
    assert dlm(*words, "--device", "1e9", "--devices", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 2 and found["workers"] == 1
    assert found["seconds"] == pytest.approx(
        (found["training"] + found["after"]) / 1e9, rel=FLOAT64
    )
    assert dlm(*words, "--device", "h100") == 0
    assert "2 runs: 2.8×10⁹ FLOPs" in (out := capsys.readouterr().out)
    assert "(H100 at 21% of its peak, assumed)" in out
    for option in ("--hours=3", "--laws=muennighoff", "--families=ar", "--points=last"):
        assert dlm(*words, option) == 2
        wrong = f"{option.partition('=')[0]}: goes without EXPERIMENT"
        assert wrong in capsys.readouterr().err
    assert dlm(*words, "--mfu", "0.4") == 2
    assert "--mfu: only with --device" in capsys.readouterr().err
