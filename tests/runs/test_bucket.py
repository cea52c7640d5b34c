"""A workdir in a bucket, with a folder as a stand-in: what one machine leaves, another goes on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import register

import tiny
from dlm.cli import main
from dlm.errors import DlmError
from dlm.runs import bucket
from dlm.training import loop
from dlm.training.prepare import prepare

ADDRESS = "stand://bucket/runs"


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Path:
    """Where stand:// leads; the tests' own "machines" are their caches."""
    root = tmp_path / "remote"

    def lead(address: str) -> epath.Path:
        return epath.Path(root / address.removeprefix("stand://"))

    monkeypatch.setitem(register._URI_PREFIXES_TO_CLS, "stand://", lead)
    return root / "bucket" / "runs"


def machine(monkeypatch, path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_lands_in_the_bucket_and_is_known_elsewhere(
    remote, tmp_path, monkeypatch, capsys
) -> None:
    path = tiny.experiment_file(tmp_path)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    words = ["train", str(path), "--workdir"]
    machine(monkeypatch, tmp_path / "first")
    assert main.main([*words, ADDRESS]) == 0
    (folder,) = (remote / "tiny_experiment").iterdir()
    assert {"result.json", "metrics.jsonl", "ledger.npy", "checkpoints", "run.json"} <= names(
        folder
    )
    assert "24" in names(folder / "checkpoints")
    assert names(remote) == {"tiny_experiment"}  # neither token stores nor locks
    here = bucket.local(ADDRESS) / "tiny_experiment" / folder.name
    assert not (here / "checkpoints").exists()
    assert main.main([*words, str(tmp_path / "plain")]) == 0
    plain = tmp_path / "plain" / "tiny_experiment" / folder.name
    assert tiny.result(plain) == tiny.result(folder)
    machine(monkeypatch, tmp_path / "second")
    monkeypatch.setattr(loop, "train", lambda *a, **b: pytest.fail("trained again"))
    assert main.main([*words, ADDRESS]) == 0
    there = bucket.local(ADDRESS) / "tiny_experiment" / folder.name
    assert "validation" in capsys.readouterr().out
    assert main.main(["evaluate", str(there)]) == 0  # its checkpoint is read from the bucket
    machine(monkeypatch, tmp_path / "third")  # which has seen nothing of it
    address = f"{ADDRESS}/tiny_experiment/{folder.name}"
    assert main.main(["sample", address, "--count", "1"]) == 0
    for words in (["runs", ADDRESS], ["report", f"{ADDRESS}/tiny_experiment"]):
        assert main.main(words) == 0
        assert "masked" in capsys.readouterr().out
    assert main.main(["sample", f"{ADDRESS}/tiny_experiment/other", "--count", "1"]) == 2
    assert "other" in capsys.readouterr().err


def test_another_machine_goes_on_with_an_interrupted_run(
    remote, tiny_store, tmp_path, monkeypatch
) -> None:
    c, ends = tiny.resolved(), []
    for name, stops in (("first", True), ("second", False)):
        machine(monkeypatch, tmp_path / name)
        folder = bucket.local(ADDRESS) / "tiny" / "run"
        folder.mkdir(parents=True, exist_ok=True)
        asked: list[dict] = []
        try:
            ends.append(
                loop.train(
                    prepare(c, tiny_store),
                    folder,
                    stop=lambda stops=stops, asked=asked: stops and len(asked) > 9,
                    report=asked.append,
                )
            )
        except loop.Interrupted:
            assert stops
        first = asked[0]["step"]
        assert (first > 8) == (name == "second")  # where the other left off
    alone = tmp_path / "alone"
    alone.mkdir()
    whole = loop.train(prepare(c, tiny_store), alone)
    assert np.array_equal(whole.ledger, ends[0].ledger)
    assert tiny.evaluations(alone) == tiny.evaluations(folder)
    assert tiny.differences(*(tiny.final_state(c, tiny_store, f) for f in (alone, folder))) == {}


def test_a_plain_workdir_is_left_alone(tmp_path) -> None:
    assert bucket.local(str(tmp_path)) == tmp_path
    assert bucket.place(tmp_path) == tmp_path
    bucket.send(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_needs_a_workdir_and_an_experiment_before_it() -> None:
    assert bucket.run("runs/smoke/0123") == Path("runs/smoke/0123")
    with pytest.raises(DlmError, match="gs://bucket: must be a workdir, an experiment and a run"):
        bucket.run("gs://bucket")


def test_a_bucket_that_cannot_be_read_is_one_line(tmp_path, monkeypatch) -> None:
    machine(monkeypatch, tmp_path)
    with pytest.raises(DlmError, match="^nowhere://x: cannot be read"):
        bucket.local("nowhere://x")
