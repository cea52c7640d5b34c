"""What a sweep takes: time on workers, the speed of runs like these, memory and disk."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

import tiny
from dlm import sealed
from dlm.config import experiment, memory, planning
from dlm.sweep import forecast
from dlm.sweep.forecast import Speed
from dlm.sweep.jobs import Job
from dlm.training import environment
from tolerances import FLOAT64

HERE = memory.Machine(1, 8e9, cpu=True)


def job(objective: str = "ar", epochs: int = 10, width: int = 128) -> Job:
    from dlm import config

    c = experiment.edited(
        config.base(),
        {
            "objective.name": objective,
            "train.duration": f"{epochs} epochs",
            "model.width": width,
            "data.unique_tokens": 6400,
        }.items(),
    )
    plan = planning.plan(c, train_tokens=6400, vocab_size=17, validation_tokens=640)
    info = dataclasses.replace(tiny.INFO, run_id=objective, label=objective)
    return Job(c, Path("store"), Path("folder"), info, plan)


def test_runs_take_as_long_as_the_last_of_the_workers() -> None:
    assert forecast.side_by_side([4, 3, 3, 2], 2) == 6
    assert forecast.side_by_side([10, 1, 1], 8) == 10
    assert math.isnan(forecast.side_by_side([1, math.nan], 2))
    assert forecast.side_by_side([], 2) == 0


def test_the_time_is_the_flops_over_the_speed_of_a_run_like_it() -> None:
    one = job()
    after = planning.work(one.config, one.plan).after
    params = one.plan.parameters.total
    speeds = [Speed("ar", params * 1.1, 2e9), Speed("ar", params * 3.0, 9e9)]
    speeds += [Speed("masked", params, 5e9)]
    found = forecast.forecast([one, one], speeds, 1, HERE)
    assert found.seconds == pytest.approx(2 * (one.flops + after) / 2e9, rel=FLOAT64)
    assert found.training == 2 * one.flops and found.after == 2 * after
    assert found.memory == planning.bytes_on_device(one.config, one.plan, HERE).total
    assert found.disk > 2 * 2 * 12 * params  # checkpoints: parameters and two moments


@pytest.mark.parametrize("speed", [Speed("masked", 4e5, 1e9), Speed("ar", 1e9, 1e9)])
def test_another_family_or_a_far_size_tells_no_time(speed) -> None:
    assert math.isnan(forecast.forecast([job()], [speed], 1, HERE).seconds)


def test_finished_runs_of_this_processor_tell_their_speed(tmp_path) -> None:
    result = dict(objective="ar", params=1e6, flops=6e12, tokens=1e6, tokens_per_second=1e3)
    for name, changes in {
        "here": {"device": f"{environment.processor()} (1 core)"},
        "gpu": {"device": "NVIDIA H100"},
        "failed": {"device": f"{environment.processor()} (1 core)", "tokens_per_second": None},
    }.items():
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        sealed.write(folder / "result.json", result | changes)
    (tmp_path / "sweep" / "torn").mkdir()
    (tmp_path / "sweep" / "torn" / "result.json").write_text("{")
    assert forecast.measured(tmp_path, HERE) == [Speed("ar", 1e6, 6e9)]
    assert forecast.measured(tmp_path, HERE._replace(cpu=False)) == [Speed("ar", 1e6, 6e9)]
    assert forecast.measured(tmp_path / "none", HERE) == []
