"""A finished run goes on as a longer one, in the bits of a longer run from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from dlm.cli import main
from dlm.data import build
from dlm.training import extension, run

LENGTHS = ("--config.train.duration=24 steps", "--config.train.duration=40 steps")


def dlm(*words) -> int:
    return main.main([str(word) for word in words])


def trained(folder: Path, workdir: str, *words: str) -> Path:
    """The one run of the tiny experiment that is new in a workdir."""
    place = folder / workdir / "tiny_experiment"
    before = set(place.glob("*"))
    assert dlm("train", tiny.experiment_file(folder), "--workdir", folder / workdir, *words) == 0
    (new,) = set(place.glob("*")) - before
    return new


@pytest.mark.parametrize(("schedule", "begins"), [
    ("constant", 24),  # its last state: the longer run evaluates at step 24 too
    ("wsd", 12),  # decays from step 18; 12 is the last checkpoint before
])  # fmt: skip
def test_an_extended_run_ends_in_the_bits_of_a_longer_one(tmp_path, capsys, schedule, begins):
    words = (f"--config.optimizer.schedule={schedule}", "--config.optimizer.decay=25 percent")
    short = trained(tmp_path, "runs", *words, LENGTHS[0])
    fresh = trained(tmp_path, "fresh", *words, LENGTHS[1])
    capsys.readouterr()
    assert dlm("train", "--extend", short, LENGTHS[1]) == 0
    assert f"from step {begins} of 40" in capsys.readouterr().out
    extended = short.parent / fresh.name  # the id of the fresh run
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


def test_a_last_state_that_an_evaluation_chose_is_not_gone_on_from(tmp_path, capsys):
    """A longer run does not evaluate at step 20, so the run goes on from step 12, in the same bits."""
    words = ("--config.optimizer.schedule=constant",)
    short = trained(tmp_path, "runs", *words, "--config.train.duration=20 steps")
    fresh = trained(tmp_path, "fresh", *words, LENGTHS[1])
    assert dlm("train", "--extend", short, LENGTHS[1]) == 0
    assert "from step 12 of 40" in capsys.readouterr().out
    extended = short.parent / fresh.name
    c, store = run.opened(extended)
    states = [tiny.final_state(c, store, folder) for folder in (extended, fresh)]
    assert tiny.differences(*states) == {}
    assert tiny.evaluations(extended) == tiny.evaluations(fresh)


def test_what_cannot_be_extended_is_told_and_leaves_no_run(tmp_path, capsys):
    cosine = trained(tmp_path, "runs", "--config.optimizer.schedule=cosine", LENGTHS[0])
    constant = trained(tmp_path, "runs", "--config.optimizer.schedule=constant", LENGTHS[0])
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


def test_the_label_names_the_new_duration_in_place_of_the_old(tmp_path):
    words = ("--config.optimizer.schedule=constant", "--config.train.duration=16 steps")
    short = trained(tmp_path, "runs", *words)
    job = extension.extend(short, [("train.duration", "24 steps")])
    assert job.begin == 16
    assert job.info.label == "topics masked schedule=constant duration=24 steps"
    assert job.info.overrides["train.duration"] == "24 steps"
    assert job.folder.name == job.info.run_id != short.name


def test_an_override_with_a_space_is_no_experiment(capsys):
    assert dlm("benchmark", "--config.train.duration=4 steps", "--size", "none") == 2
    assert "none" in capsys.readouterr().err
