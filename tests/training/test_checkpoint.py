"""A checkpoint is read only as it was saved: by whom, every file of it, to the last bit."""

from __future__ import annotations

import gc
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import tiny
from dlm import config
from dlm.errors import DlmError
from dlm.training import checkpoint, loop, run
from dlm.training.prepare import prepare
from fake_runs import edit

SHORT = dict(train_duration="4 steps", evaluation_every="2 steps", evaluation_samples=0)


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory) -> Path:
    """The folder of a run with checkpoints of steps 12 and 24."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run.train_and_score(tiny.resolved(), tiny_store, folder, tiny.INFO)
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of it that a test may harm."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def refused(c: config.Config, store, folder: Path) -> str:
    """The one line that training in this folder ends with."""
    with pytest.raises(DlmError) as caught:
        loop.train(prepare(c, store), folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- damage -------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_file_is_named(folder) -> None:
    draws, last = random.Random(0), folder / "checkpoints" / "24"
    assert checkpoint.damage(last) == ""
    tried = 0
    for path in files(last):
        for bit in draws.sample(range(8 * path.stat().st_size), min(4, 8 * path.stat().st_size)):
            flip(path, bit)
            problem = checkpoint.damage(last)
            assert problem.startswith(str(last)), (path, bit)
            assert path.name == checkpoint.SUMS or problem.startswith(f"{path}: is damaged")
            flip(path, bit)
            tried += 1
    assert tried > 60 and checkpoint.damage(last) == ""


def test_a_file_too_few_or_too_many_is_named(folder) -> None:
    last = folder / "checkpoints" / "24"
    for path in files(last):
        content = path.read_bytes()
        if content:
            path.write_bytes(b"")  # as a full disk leaves it
            assert str(path) in checkpoint.damage(last)
        if path.name != checkpoint.SUMS:
            path.unlink()
            assert checkpoint.damage(last) == f"{path}: is missing"
        path.write_bytes(content)
    (last / "state" / "more").touch()
    assert checkpoint.damage(last) == f"{last}/state/more: does not belong to the checkpoint"


def test_the_checkpoint_before_a_damaged_one_is_used_to_the_same_bits(
    folder, finished, tiny_store, capsys
) -> None:
    metadata = folder / "checkpoints" / "24" / "_CHECKPOINT_METADATA"
    metadata.write_bytes(b"")
    (folder / "result.json").unlink()
    result = run.train_and_score(tiny.resolved(), tiny_store, folder, tiny.INFO)
    warning = f"{metadata}: is damaged (its sha256 is not that in SHA256SUMS)"
    warning += "; the checkpoint of step 12 is used"
    assert warning in result.warnings and f"warning: {warning}\n" in capsys.readouterr().err
    assert tiny.result(folder) == tiny.result(finished)
    states = [tiny.final_state(tiny.resolved(), tiny_store, f) for f in (folder, finished)]
    assert tiny.differences(*states) == {}


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again_by_itself(
    folder, tiny_store
) -> None:
    for path in folder.glob("checkpoints/*/ledger/_METADATA"):
        flip(path, 9)
    line = refused(tiny.resolved(), tiny_store, folder)
    assert line.startswith(f"{folder}/checkpoints/24/ledger/_METADATA: is damaged")
    assert f"delete {folder}/checkpoints to start the run again" in line


def test_a_save_that_was_cut_short_does_not_count(folder, finished, tiny_store) -> None:
    """Neither one without checksums nor what Orbax leaves of one; the next save clears them away."""
    place = folder / "checkpoints"
    (place / "24" / "SHA256SUMS").unlink()
    for name in ("12.orbax-checkpoint-tmp", "18"):
        (place / name).mkdir()
    with tiny.checkpoints(tiny.resolved(), tiny_store, folder) as checkpoints:
        assert checkpoints.steps() == [12]
    outcome = loop.train(prepare(tiny.resolved(), tiny_store), folder)
    assert np.array_equal(outcome.ledger, np.load(finished / "ledger.npy"))
    assert {path.name for path in place.iterdir()} == {"12", "24"}


def test_best_weights_are_those_of_the_result(folder, tiny_store) -> None:
    def scored_at(best_step: int) -> None:
        edit(folder / "result.json", lambda result: result.update(best_step=best_step))

    def elsewhere(start: dict) -> None:
        start["corpus"]["path"] = str(tiny_store.path)
        start["run_id"] = config.run_id(tiny.resolved(), tiny_store.fingerprint)

    edit(folder / "run.json", elsewhere)
    run.restore_best(folder)
    flip(folder / "checkpoints" / "24" / "best" / "manifest.ocdbt", 100)
    scored_at(8)
    run.restore_best(folder)  # the checkpoint of step 12 has them too
    scored_at(24)
    with pytest.raises(DlmError, match="best weights of step 8, its result was scored with.* 24"):
        run.restore_best(folder)


# --- whose it is --------------------------------------------------------------------------------


def test_checkpoints_of_another_run_are_refused_by_name(folder, tiny_store) -> None:
    other = tiny.resolved(train_seed=1)
    line = refused(other, tiny_store, folder)
    for c in (tiny.resolved(), other):
        assert config.run_id(c, tiny_store.fingerprint) in line
    assert line.startswith(f"{folder}/checkpoints/24: is a checkpoint of run")


def test_a_trunk_is_checked_as_a_run_is(tiny_store, tmp_path, capsys) -> None:
    def branch(name: str, **overrides) -> loop.Outcome:
        setting = dict(optimizer_schedule="wsd", optimizer_decay="25 percent") | overrides
        c = tiny.resolved(**setting)
        return loop.train(prepare(c, tiny_store), tmp_path / name, trunk=tmp_path / "trunk")

    branch("first", train_duration="16 steps")  # leaves a state at 12
    damaged = tmp_path / "trunk" / "12" / "metrics.jsonl"
    with pytest.raises(DlmError, match="trunk/12: is a checkpoint of run"):
        branch("another", train_seed=1)
    flip(damaged, 33)
    alone = branch("alone")
    assert alone.progress.shared_steps == 0
    assert f"warning: {damaged}: is damaged" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "trunk" / "18")
    branch("mends", train_duration="16 steps")  # which leaves its state once more
    assert checkpoint.damage(tmp_path / "trunk" / "12") == ""
    shared = branch("shared")
    assert shared.progress.shared_steps == 12
    assert tiny.evaluations(tmp_path / "shared") == tiny.evaluations(tmp_path / "alone")


# --- handles ------------------------------------------------------------------------------------


def handles() -> tuple[int, list[str]]:
    """The number of open descriptors, and the names of Python's threads."""
    gc.collect()  # a failed run's iterator, by its traceback
    names = sorted(str(thread) for thread in threading.enumerate())
    return len(os.listdir("/proc/self/fd")), names


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc lists descriptors here")
def test_no_handle_or_thread_outlives_a_run(tiny_store, tmp_path, monkeypatch) -> None:
    """Of runs that finish, stop and fail: a worker trains hundreds of them."""
    c = tiny.resolved(**SHORT)

    def broken(*_, **__) -> None:
        raise RuntimeError("planted")

    def one(name: str) -> None:
        run.train_and_score(c, tiny_store, tmp_path / name, tiny.INFO)
        seen: list[dict] = []
        with pytest.raises(loop.Interrupted):
            loop.train(
                prepare(c, tiny_store), tmp_path / f"{name}-stopped",
                stop=lambda: len(seen) > 1, report=seen.append,
            )  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="planted"):
            patch.setattr("dlm.training.prepare.score", broken)
            loop.train(prepare(c, tiny_store), tmp_path / f"{name}-failed")

    for number in range(2):
        one(f"first-{number}")
    before = handles()
    for number in range(3):
        one(f"later-{number}")
    assert handles() == before


def test_a_full_disk_is_told_as_such(tiny_store, tmp_path) -> None:
    def full(*_) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: writing x: [OS error 28: No space left on device]")

    with (
        pytest.raises(OSError, match="No space left on device"),
        tiny.checkpoints(tiny.resolved(), tiny_store, tmp_path) as checkpoints,
    ):
        checkpoints.saving = checkpoints.finisher.submit(full)
