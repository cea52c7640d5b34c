"""A finished run goes on as a longer one, in the bits of a longer run from scratch."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from pathlib import Path

import pytest

import tiny
from dlm.cli import main
from dlm.data import build
from dlm.runs import addresses, names
from dlm.runs import folder as run_folder
from dlm.sweep import extend, local, worker
from dlm.sweep.jobs import Job
from dlm.training import run

LENGTHS = ("--config.train.duration=24 steps", "--config.train.duration=40 steps")
DECAY = "--config.optimizer.decay=25 percent"  # of which a constant schedule has none
CONSTANT = ("--config.optimizer.schedule=constant", DECAY)


def dlm(*words) -> int:
    return main.main([str(word) for word in words])


def trained(folder: Path, workdir: str, *words: str) -> Path:
    """The one run of the tiny experiment that is new in a workdir."""
    place = folder / workdir / "tiny_experiment"
    before = set(place.glob("*"))
    assert dlm("train", tiny.experiment_file(folder), "--workdir", folder / workdir, *words) == 0
    (new,) = set(place.glob("*")) - before
    return new


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What trains one run in a workdir of its own, and the same run once only."""
    return functools.cache(lambda *words: trained(tmp_path_factory.mktemp("whole"), "runs", *words))


def copied(run: Path, folder: Path) -> Path:
    """A run and its corpus in a workdir in which a test may train."""
    shutil.copytree(run.parent.parent, folder / "runs")
    return folder / "runs" / run.parent.name / run.name


def in_this_process(todo: list[Job], workers: int, log: Path, show: object) -> dict[str, str]:
    """Does the work of `dlm.sweep.local.execute` without processes."""
    for job in todo:
        worker.work(json.loads(job.message()), lambda event, **row: None, threading.Event())
    return {job.info.run_id: run_folder.status(job.folder) for job in todo}


@pytest.mark.parametrize(("schedule", "begins", "verb"), [
    ("constant", 24, "train"),  # its last state: the longer run evaluates at step 24 too
    ("wsd", 12, "run"),  # decays from step 18; 12 is the last checkpoint before
])  # fmt: skip
def test_an_extended_run_ends_in_the_bits_of_a_longer_one(
    whole, tmp_path, capsys, monkeypatch, schedule, begins, verb
):
    words = (f"--config.optimizer.schedule={schedule}", DECAY)
    short = copied(whole(*words, LENGTHS[0]), tmp_path)
    fresh = whole(*words, LENGTHS[1])
    capsys.readouterr()
    sweep = ("run", tiny.experiment_file(tmp_path), "--workdir", tmp_path / "runs", "--extend")
    if verb == "train":
        assert dlm("train", "--extend", short, LENGTHS[1]) == 0
        assert f"from step {begins} of 40" in capsys.readouterr().out
    else:  # the one run of the sweep whose family has a finished one
        monkeypatch.setattr(local, "execute", in_this_process)
        assert dlm(*sweep, *words, LENGTHS[1]) == 2
        assert "'topics ar schedule=wsd decay=25 percent duration=40 steps': no finished run" in (
            capsys.readouterr().err
        )
        masked = (*words, "--config.objective.name=masked")
        assert dlm(*sweep, *masked, LENGTHS[0].replace("24", "16")) == 2
        assert "must be more than the 24" in capsys.readouterr().err
        assert dlm(*sweep, *masked, LENGTHS[1], "--dry-run") == 0
        assert f" from {names.run_id(short)}" in capsys.readouterr().out
        assert dlm(*sweep, *masked, LENGTHS[1]) == 0
    extended = addresses.run(names.run_id(fresh), short.parents[1])  # the id of the fresh run
    c, store = run.opened(extended)
    assert build.load(store.path).fingerprint == store.fingerprint
    states = [tiny.final_state(c, store, folder) for folder in (extended, fresh)]
    assert tiny.differences(*states) == {}
    assert tiny.evaluations(extended) == tiny.evaluations(fresh)
    ends = [tiny.result(folder) | {"shared_steps": 0} for folder in (extended, fresh)]
    assert ends[0] == ends[1]
    assert tiny.result(extended)["shared_steps"] == begins
    # again: it is finished, and stays as it is
    before = (extended / "result.json").read_bytes()
    assert dlm("train", "--extend", short, LENGTHS[1]) == 0
    assert (extended / "result.json").read_bytes() == before


def test_a_last_state_that_an_evaluation_chose_is_not_gone_on_from(whole, tmp_path, capsys):
    """A longer run does not evaluate at step 20, so the run goes on from step 12, in the same bits."""
    short = trained(tmp_path, "runs", *CONSTANT, "--config.train.duration=20 steps")
    fresh = whole(*CONSTANT, LENGTHS[1])
    assert dlm("train", "--extend", short, LENGTHS[1]) == 0
    assert "from step 12 of 40" in capsys.readouterr().out
    extended = addresses.run(names.run_id(fresh), short.parents[1])
    c, store = run.opened(extended)
    states = [tiny.final_state(c, store, folder) for folder in (extended, fresh)]
    assert tiny.differences(*states) == {}
    assert tiny.evaluations(extended) == tiny.evaluations(fresh)


def test_what_cannot_be_extended_is_told_and_leaves_no_run(whole, tmp_path, capsys):
    constant = copied(whole(*CONSTANT, LENGTHS[0]), tmp_path)
    words = ("--config.optimizer.schedule=cosine", "--config.train.duration=8 steps")
    cosine = trained(tmp_path, "runs", *words)
    runs = sorted(cosine.parent.glob("*"))
    longer = LENGTHS[1]
    for words, told in (
        ((cosine, longer), "schedule='cosine' lowers the rate"),
        ((constant, LENGTHS[0]), "is 24 steps; must be more than the 24"),
        ((constant, "--config.train.duration=2 epochs"), "must be more than the 24"),
        ((constant, longer, "--config.optimizer.lr=1"), "changes train.duration alone"),
        ((constant,), "--extend: needs the new length"),
        ((constant, longer, "--run", "1"), "--run 1: goes without --extend"),
        ((constant.parent / "zzz", longer), "no such run"),
    ):
        assert dlm("train", "--extend", *words) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert dlm("train", "experiments/none.py", "--extend", constant, longer) == 2
    assert dlm("train") == 2
    assert "needs EXPERIMENT" in capsys.readouterr().err
    assert sorted(cosine.parent.glob("*")) == runs


def test_the_label_names_the_new_duration_in_place_of_the_old(whole, tmp_path):
    short = copied(whole(*CONSTANT, LENGTHS[0]), tmp_path)
    job, begin = extend.extend(short, [("train.duration", "40 steps")])
    assert begin == 24
    assert job.info.label == "topics masked schedule=constant decay=25 percent duration=40 steps"
    assert job.info.overrides["train.duration"] == "40 steps"
    assert names.run_id(job.folder) == job.info.run_id != names.run_id(short)


def test_an_override_with_a_space_is_no_experiment(capsys):
    assert dlm("benchmark", "--config.train.duration=4 steps", "--size", "none") == 2
    assert "none" in capsys.readouterr().err
