"""Several processes as one: two over loopback train as one does, through a kill, a move and ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiny
from dlm.cli import main
from dlm.errors import DlmError
from dlm.training import distributed
from tolerances import NATS, TRAINED

OPTIONS = ("--config.train.checkpoint_every=8 steps", "--config.optimizer.lr=0.002")
SPLIT = ("--config.mesh.fsdp=2", "--config.mesh.tensor=2")

# Begins the experiment file: sends the second process a signal in its 14th step, after a checkpoint.
# JAX looks for SIGTERM once a second, hence the pauses.
DISTURBED = """
import os, signal, time
from pathlib import Path
from dlm.data import windows

record, calls = windows.record_exposures, []

def record_and_stop(*arguments):
    record(*arguments)
    calls.append(1)
    if os.environ.get("JAX_PROCESS_ID") == "1" and len(calls) >= 14:
        while not [*Path({folder!r}).glob("*/*/checkpoints/*/SHA256SUMS")]:
            time.sleep(0.05)
        if len(calls) == 14:
            os.kill(os.getpid(), signal.{name})
        time.sleep(0.5)

windows.record_exposures = record_and_stop
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(path: Path, workdir: Path, cache: Path, processes: int, devices: int, *options: str):
    """`dlm train --distributed` in so many processes, each with so many devices."""
    address = f"127.0.0.1:{free_port()}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    base = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "XDG_CACHE_HOME": str(cache)}
    base |= {"DLM_HOSTS_PATIENCE": "6"}  # a kill is noticed sooner
    command = [sys.executable, "-m", "dlm", "train", str(path), "--workdir", str(workdir)]
    started = []
    for number in range(processes):
        env, words = base, []
        if processes > 1:
            values = (address, str(processes), str(number))
            env, words = (
                base | dict(zip(distributed.VARIABLES, values, strict=True)),
                ["--distributed"],
            )
        log = (workdir.parent / f"{workdir.name}-{number}.log").open("a")
        process = subprocess.Popen(
            [*command, *words, *options], env=env, stdout=log, stderr=log, start_new_session=True
        )
        started.append(process)
    return started


def finish(started, code: int = 0) -> None:
    for process in started:
        assert process.wait(timeout=300) == code


def folder_of(workdir: Path) -> Path:
    (found,) = (workdir / "tiny_experiment").iterdir()
    return found


def saved_steps(workdir: Path) -> list[int]:
    return [int(p.name) for p in workdir.glob("*/*/checkpoints/*") if p.name.isdecimal()]


def disturbed(folder: Path, workdir: Path, name: str) -> Path:
    (folder / name).mkdir()
    extra = DISTURBED.replace("{folder!r}", repr(str(workdir))).replace("{name}", name)
    return tiny.experiment_file(folder / name, tiny.EXPERIMENT + extra)


def assert_same(one: Path, other: Path) -> None:
    """Losses alike but for rounding, and the same ledger."""
    a, b = folder_of(one), folder_of(other)
    assert a.name == b.name  # the number of devices is not part of a run's id
    rows = tiny.evaluations(a), tiny.evaluations(b)
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for x, y in zip(*rows, strict=True):
        assert x["validation_loss"] == pytest.approx(y["validation_loss"], rel=TRAINED)
    results = [json.loads((f / "result.json").read_text()) for f in (a, b)]
    assert results[0]["validation_loss"] == pytest.approx(
        results[1]["validation_loss"], rel=TRAINED
    )
    assert np.array_equal(np.load(a / "ledger.npy"), np.load(b / "ledger.npy"))
    np.testing.assert_allclose(np.load(a / "nll.npy"), np.load(b / "nll.npy"), rtol=NATS)


def train_here(path: Path, workdir: Path) -> None:
    """`dlm train` in this process, which has eight devices."""
    assert main.main(["train", str(path), "--workdir", str(workdir), *OPTIONS]) == 0


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """An undisturbed run of one process with eight devices."""
    folder = tmp_path_factory.mktemp("hosts")
    train_here(tiny.experiment_file(folder), folder / "one")
    return folder


def test_one_of_two_is_killed_and_one_process_goes_on_with_another_mesh(one, cache) -> None:
    path = disturbed(one, one / "killed", "SIGKILL")
    started = start(path, one / "killed", cache, 2, 4, *OPTIONS, *SPLIT)
    assert started[0].wait(timeout=300) != 0  # it can not go on alone
    assert started[1].wait() == -signal.SIGKILL
    assert saved_steps(one / "killed") == [8]
    train_here(one / "tiny_experiment.py", one / "killed")
    assert_same(one / "one", one / "killed")


def test_ctrl_c_to_one_has_all_save_and_leave_and_two_processes_train_as_one(one, cache) -> None:
    """It sends itself SIGTERM, which is what schedulers send."""
    path = disturbed(one, one / "stopped", "SIGINT")
    started = start(path, one / "stopped", cache, 2, 2, *OPTIONS)
    finish(started, code=75)
    assert 14 <= max(saved_steps(one / "stopped")) < 24
    finish(start(one / "tiny_experiment.py", one / "stopped", cache, 2, 4, *OPTIONS, *SPLIT))
    assert_same(one / "one", one / "stopped")
    folder = folder_of(one / "stopped")
    trained = [row["step"] for row in tiny.rows(folder) if "loss" in row]
    assert trained == sorted(set(trained))  # one of the two writes
    assert json.loads((folder / "result.json").read_text())["device"].startswith("8 x")


@pytest.mark.slow
def test_a_corpus_may_take_longer_than_a_collective_waits(tmp_path, cache) -> None:
    slow = """
import os, time

if os.environ["JAX_PROCESS_ID"] == "0":
    time.sleep(35)
"""
    path = tiny.experiment_file(tmp_path, tiny.EXPERIMENT + slow)
    finish(start(path, tmp_path / "slow", cache, 2, 2))
    assert (folder_of(tmp_path / "slow") / "result.json").is_file()


@pytest.mark.parametrize(
    "values, wrong",
    [
        (("127.0.0.1:1", "", "0"), "JAX_NUM_PROCESSES='': must be how many"),
        (("127.0.0.1:1", "2", "zero"), "JAX_PROCESS_ID='zero': must be 0 for the first"),
        (("", "2", "1"), "JAX_COORDINATOR_ADDRESS='': must be HOST:PORT"),
        (("127.0.0.1", "2", "1"), "JAX_COORDINATOR_ADDRESS='127.0.0.1': must be HOST:PORT"),
    ],
)
def test_half_of_the_variables_is_an_error(monkeypatch, values, wrong) -> None:
    for name, value in zip(distributed.VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(DlmError, match=wrong):
        distributed.start()
