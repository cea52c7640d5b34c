"""A real Slurm, started here: munge, a controller and one node of two cores, all in one folder.

Run with `pytest -m slurm` as root, with slurm-wlm and munge installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))),
        reason="needs slurm-wlm and munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd does"),
]

ROOT = Path(__file__).parents[1]
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
SchedulerParameters=bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def call(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout


@contextlib.contextmanager
def daemon(log: Path, *words: str) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=log.open("a"), stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, cache) -> Iterator[Path]:
    """Its folder. The environment, of the jobs too, has this Slurm and a `dlm` of this tree."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(folder=folder, ports=free_ports(2), host=socket.gethostname().split(".")[0])
    )
    dlm = folder / "bin/dlm"
    dlm.write_text(f'#!/bin/sh\nexec {sys.executable} -m dlm.cli "$@"\n')
    dlm.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(conf))
        patch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("XDG_CACHE_HOME", str(cache))
        stack.enter_context(daemon(folder / "munged.log", *munged, *files.values()))
        wait_for((folder / "munge.socket").exists, "munged")
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(daemon(folder / f"{name}.log", name, "-D"))
        wait_for(lambda: "idle" in call("sinfo", "--noheader", "--format=%t"), "the node")
        yield folder
        call("scancel", "--me")
        wait_for(lambda: not call("squeue", "--noheader"), "the jobs to end")


LONG = [  # some seconds, so that a signal finds it half way
    "--config.train.duration=3000 steps",
    "--config.evaluation.every=500 steps",
    "--config.train.checkpoint_every=1000 steps",
]


def dlm(verb: str, experiment: Path, workdir: Path, *words: str) -> list[str]:
    return ["dlm", verb, str(experiment), "--workdir", str(workdir), *words]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    return tiny.experiment_file(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def expected(slurm, experiment, tmp_path_factory) -> dict[str, Path]:
    """Run id -> folder of the two long runs, trained without Slurm and without interruption."""
    workdir = tmp_path_factory.mktemp("expected")
    call(*dlm("run", experiment, workdir, "--jobs", "1", *LONG))
    return folders(workdir)


def folders(workdir: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in workdir.glob("*/*/run.json")}


def same(workdir: Path, expected: dict[str, Path]) -> None:
    """Results, evaluations, ledgers and nats of every window, bit for bit."""
    found = folders(workdir)
    assert found.keys() == expected.keys()
    for run, folder in found.items():
        assert tiny.result(folder) == tiny.result(expected[run])
        assert tiny.evaluations(folder) == tiny.evaluations(expected[run])
        for name in ("ledger.npy", "nll.npy", "samples.npy"):
            assert (folder / name).read_bytes() == (expected[run] / name).read_bytes()


SLURM = ["--executor", "slurm", "--slurm", "time=30", "--slurm", "cpus_per_task=1"]


def test_dlm_run_submits_an_array_with_the_same_results(slurm, experiment, expected, tmp_path):
    out = call(*dlm("run", experiment, tmp_path, *SLURM, *LONG))
    print(out)
    assert "2 jobs submitted, 0 in the queue before" in out and "2/2" in out
    same(tmp_path, expected)
    assert "0 to do" in call(*dlm("run", experiment, tmp_path, *SLURM, *LONG))
