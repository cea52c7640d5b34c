"""Damaged run folders: each is one line with its reason, at every door, and costs no other run."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dlm import runs, sealed
from dlm.cli import main
from dlm.laws import table as tables
from dlm.report import page as report
from dlm.runs import folder as run_folder
from fake_runs import autoregressive, diffusion, edit, write_run

AR = autoregressive(1.6, 1.5e11)
ODD = ("abc", None, [1], {"a": 1}, True, math.nan, -1, 10**400, "")
FILES = (
    *("config.json", "run.json", "metrics.jsonl", "result.json"),
    *("nll.npy", "samples.npy", "samples.txt"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An experiment with a whole run of each of two families; its report has no figures."""
    monkeypatch.setattr(report, "drawings", lambda panels: {})
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, diffusion(1.2e12, 1.6), objective="masked")
    return tmp_path / "quickstart"


def every_door(folder: Path, capsys) -> list[runs.Run]:
    """Goes through whatever reads run folders; returns the unreadable ones."""
    loaded = runs.load(folder)
    for words in (["runs", str(folder)], ["report", str(folder)]):
        assert main.main(words) == 0
    out = capsys.readouterr().out
    unreadable = [run for run in loaded if run.status == "unreadable"]
    page = (folder / "report.html").read_text()
    assert len(unreadable) == page.count("unreadable: ")
    if unreadable:  # a screen counts them, the page names each
        assert f"{len(unreadable)} unreadable" in " ".join(out.split())
    for points in tables.POINTS:
        for table in tables.read(folder, points=points):
            assert np.isfinite(table.loss).all()
    return unreadable


def test_a_bit_flipped_in_any_file_of_a_run_is_told_or_harmless(folder) -> None:
    run = next(run for run in runs.load(folder) if run.objective == "masked")
    before = runs.rows([run])
    random, told = np.random.default_rng(0), 0
    for name in FILES:
        file = run.path / name
        content = file.read_bytes()
        for bit in random.integers(0, 8 * len(content), 10):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            (after,) = runs.load(run.path)
            if after.status == "unreadable":
                assert name in after.reason and "\n" not in after.reason
                assert run_folder.status(run.path) == "unreadable"
                told += 1
            else:  # white space
                assert name.endswith(".json") and runs.rows([after]) == before
        file.write_bytes(content)
    assert told > 60
    assert runs.rows(runs.load(run.path)) == before


def test_a_file_that_is_empty_cut_missing_or_a_folder_is_one_line(folder, capsys) -> None:
    other = write_run(folder.parent, diffusion(1.2e12, 1.6), objective="masked", seed=1)
    for name in FILES:
        for damage in ("empty", "cut", "missing", "folder"):
            file = folder / f"{damage} {name}" / name
            shutil.copytree(other, file.parent)
            content = file.read_bytes()
            file.unlink()
            if damage == "folder":
                file.mkdir()
            elif damage != "missing":
                file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    shutil.rmtree(other)
    unreadable = every_door(folder, capsys)
    assert len(unreadable) == 4 * len(FILES) - 1  # without a result a run is unfinished
    assert all(run.path.name.split()[1] in run.reason for run in unreadable)


def test_values_of_any_type_break_no_table_and_no_report(folder, capsys) -> None:
    """Sealed by somebody who writes files of runs himself."""
    good = next(run.path for run in runs.load(folder) if run.objective == "masked")
    result, start = sealed.read(good / "result.json"), sealed.read(good / "run.json")
    config, count = sealed.read(good / "config.json"), 0
    changes = [("result.json", (name,)) for name in result if name != sealed.FILES]
    changes += [("run.json", (name,)) for name in start if name != sealed.FILES]
    changes += [("run.json", ("corpus", "name")), ("run.json", ("corpus", "notes"))]
    changes += [("config.json", (group,)) for group in config]
    changes += [("config.json", ("data", "seq_len")), ("config.json", ("train", "seed"))]
    changes += [("config.json", ("objective", "name")), ("config.json", ("data", "subset"))]
    for number, (name, (*groups, last)) in enumerate(changes):
        copy, odd = folder / f"copy-{count}", ODD[number % len(ODD)]
        shutil.copytree(good, copy)
        count += 1

        def change(tree, groups=groups, last=last, odd=odd) -> None:
            for group in groups:
                tree = tree[group]
            tree[last] = odd

        edit(copy / name, change)
    for field in ("step", "flops", "validation_loss", "train_eval_loss"):
        for odd in ODD:
            copy = folder / f"copy-{count}"
            shutil.copytree(good, copy)
            count += 1
            rows = [json.loads(x) for x in (copy / "metrics.jsonl").read_text().splitlines()]
            rows[1][field] = odd
            (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            edit(copy / "result.json", lambda result: None)
    unreadable = every_door(folder, capsys)
    assert count // 3 < len(unreadable) < count
    assert all(run.reason and "\n" not in run.reason for run in unreadable)


@pytest.mark.parametrize(("name", "field", "value", "words"), [
    ("result.json", "version", 0, "version=0, must be 1: written by another version of dlm"),
    ("result.json", "version", None, "version=None, must be 1"),
    ("run.json", "version", 2, "version=2, must be 1"),
    ("result.json", "mfu", "fast", "mfu='fast', must be a finite number"),
    ("result.json", "gaps", [1], "gaps=1, must be a text"),
    ("result.json", "steps", 1.5, "steps=1.5, must be a whole number"),
    ("run.json", "plan", {"steps": 1}, "run.json has no plan.epochs"),
])  # fmt: skip
def test_a_record_of_another_version_or_type_is_unreadable(
    folder, name, field, value, words
) -> None:
    path = next(run.path for run in runs.load(folder))
    edit(path / name, lambda values: values.update({field: value}))
    (run,) = runs.load(path)
    assert run.status == "unreadable" and words in run.reason and "\n" not in run.reason
    if name == "result.json":
        assert run_folder.status(path) == "unreadable"
        assert words in run_folder.problem(path)


def test_a_field_that_is_missing_is_named(folder) -> None:
    path = next(run.path for run in runs.load(folder))
    edit(path / "result.json", lambda result: result.pop("shared_steps"))
    assert runs.load(path)[0].reason == "result.json has no shared_steps"


def test_the_loss_of_a_result_is_that_of_its_windows(folder) -> None:
    whole = next(iter(runs.load(folder)))
    loss = whole.result["validation_loss"]
    edit(whole.path / "result.json", lambda result: result.update(validation_loss=1.0))
    (run,) = runs.load(whole.path)
    assert run.status == "unreadable"
    assert run.reason == f"result.json: validation_loss=1.0, but nll.npy has {loss:.6g}"


def test_parts_of_two_runs_make_no_run(folder) -> None:
    a, b = (run.path for run in runs.load(folder))
    for name in ("config.json", "run.json", "metrics.jsonl", "nll.npy"):
        copy = folder.parent / "mixed" / name
        shutil.copytree(a, copy)
        shutil.copy(b / name, copy / name)
        (run,) = runs.load(copy)
        assert run.status == "unreadable", name
    unfinished = folder.parent / "unfinished"
    shutil.copytree(a, unfinished)
    (unfinished / "result.json").unlink()
    assert runs.load(unfinished)[0].status == "unfinished"
    shutil.copy(b / "config.json", unfinished)
    assert runs.load(unfinished)[0].reason == f"config.json {sealed.CHANGED}"


def test_a_whole_run_of_another_id_is_not_taken_for_this_one(folder) -> None:
    a, b = (run.path for run in runs.load(folder))
    assert run_folder.status(a) == "finished" and run_folder.problem(a, a.name) == ""
    assert f"result.json is of run {a.name!r}" in run_folder.problem(a, b.name)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read_is_one_line(folder, capsys) -> None:
    shut = write_run(folder.parent, AR, seed=1)
    shut.chmod(0)
    try:
        (run,) = every_door(folder, capsys)
    finally:
        shut.chmod(0o700)
    assert "Permission denied" in run.reason
