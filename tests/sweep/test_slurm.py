"""A real Slurm, started here: munge, a controller and one node of two cores, all in one folder.

Run with `pytest -m slurm` as root, with slurm-wlm and munge installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from dlm.runs import names
from places import ROOT

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))),
        reason="needs slurm-wlm and munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd does"),
]

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
    dlm.write_text(f'#!/bin/sh\nexec {sys.executable} -m dlm "$@"\n')
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


# Some seconds, so that a signal finds a run half way.
LONG = [
    "--config.train.duration=800 steps",
    "--config.evaluation.every=200 steps",
    "--config.train.checkpoint_every=300 steps",
]
SLURM = ["--executor", "slurm", "--slurm", "time=30", "--slurm", "cpus_per_task=1"]


def run(experiment: Path, workdir: Path, *words: str) -> list[str]:
    return ["dlm", "run", str(experiment), "--workdir", str(workdir), *LONG, *words]


def folders(workdir: Path) -> dict[str, Path]:
    """Run id -> folder, in the order of the sweep."""
    found = {names.run_id(path.parent): path.parent for path in workdir.glob("*/*/run.json")}
    return dict(sorted(found.items(), key=lambda item: "masked" not in read(item[1] / "run.json")))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    return tiny.experiment_file(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def expected(slurm, experiment, tmp_path_factory) -> dict[str, Path]:
    """The two runs, trained without Slurm and without interruption."""
    workdir = tmp_path_factory.mktemp("expected")
    call(*run(experiment, workdir, "--jobs", "1"))
    return folders(workdir)


def assert_same(workdir: Path, expected: dict[str, Path]) -> None:
    """Results, evaluations, ledgers, samples and the nats of every window, bit for bit."""
    found = folders(workdir)
    assert list(found) == list(expected)
    for run, folder in found.items():
        assert tiny.result(folder) == tiny.result(expected[run])
        assert tiny.evaluations(folder) == tiny.evaluations(expected[run])
        for name in ("ledger.npy", "nll.npy", "samples.npy"):
            assert (folder / name).read_bytes() == (expected[run] / name).read_bytes()


def queue() -> list[str]:
    return call("squeue", "--me", "--noheader", "--array", "--format=%i").split()


def wait_half_way(workdir: Path) -> dict[Path, list[dict]]:
    """Until both runs train; returns what each has recorded by then."""

    def training() -> bool:
        return len(folders(workdir)) == 2 and all(
            read(path / "metrics.jsonl").count("\n") > 20 for path in folders(workdir).values()
        )

    wait_for(training, "both runs to train", 120)
    return {path: tiny.rows(path) for path in folders(workdir).values()}


def assert_resumed(before: dict[Path, list[dict]]) -> None:
    """What a run had recorded stands, to the millisecond: it was not trained again."""
    for folder, rows in before.items():
        assert tiny.rows(folder)[: len(rows)] == rows


def test_ctrl_c_leaves_the_jobs_to_the_next_call(slurm, experiment, expected, tmp_path) -> None:
    words = run(experiment, tmp_path, *SLURM)
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(queue()) == 2, "the array")
    wait_half_way(tmp_path)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 75 and "Traceback" not in out + err
    assert "2 jobs submitted, 0 in the queue before" in out
    assert f"scancel {queue()[0].split('_')[0]} ends them" in out
    out = call(*words)
    assert "0 jobs submitted, 2 in the queue before" in out and "[2/2]" in out
    assert_same(tmp_path, expected)
    assert "2 runs" in (out := call(*words)) and "0 to do" in out and queue() == []


def test_what_is_preempted_and_what_runs_out_of_time_goes_on(
    slurm, experiment, expected, tmp_path
) -> None:
    words = run(experiment, tmp_path, *SLURM)
    sweep = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: len(queue()) == 2, "the array")
    before = wait_half_way(tmp_path)
    first, second = sorted(queue())
    call("scontrol", "requeue", first)  # as Slurm preempts: SIGTERM, and the job is queued again
    call("scancel", "--signal=USR2", second)  # as Slurm warns before the time limit
    out, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out
    assert_resumed(before)
    assert_same(tmp_path, expected)
    for job in (first, second):
        log = read(tmp_path / f"slurm/{job}_0_log.out")
        assert log.count('"event": "start"') == 2
        assert log.count('"event": "finished"') == 1
    assert f"Requeued job {second}" in read(tmp_path / f"slurm/{second}_0_log.out")


def test_a_cancelled_job_is_a_failed_run_which_the_next_call_finishes(
    slurm, experiment, expected, tmp_path
) -> None:
    words = run(experiment, tmp_path, *SLURM)
    sweep = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(queue()) == 2, "the array")
    before = wait_half_way(tmp_path)
    call("scancel", sorted(queue())[0])
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 1, out + err
    assert "its Slurm job ended, or was cancelled" in out and "error.txt" in err
    assert "1 jobs submitted, 0 in the queue before" in call(*words)
    assert_resumed(before)
    assert_same(tmp_path, expected)


def test_the_job_script_trains_an_array_and_queues_it_again(
    slurm, experiment, expected, tmp_path
) -> None:
    words = ["sbatch", "--parsable", "--array=0-1", "--time=30", "--cpus-per-task=1"]
    words += [f"--output={tmp_path}/%A_%a.out", "launch/slurm.sbatch"]
    words += [str(experiment), "--workdir", str(tmp_path), *LONG]
    array = call(*words).strip()
    before = wait_half_way(tmp_path)
    call("scancel", "--batch", "--signal=USR1", f"{array}_0")  # as before the time limit
    call("scancel", "--signal=TERM", f"{array}_1")  # a node that is going down
    wait_for(lambda: not queue(), "the array to end", 300)
    assert_resumed(before)
    assert_same(tmp_path, expected)


def test_the_job_script_runs_a_sweep_and_stays_cancelled(
    slurm, experiment, expected, tmp_path
) -> None:
    words = ["sbatch", "--parsable", "--time=30", "--cpus-per-task=2"]
    words += [f"--output={tmp_path}/%j.out", "launch/slurm.sbatch"]
    words += [str(experiment), "--workdir", str(tmp_path), "--jobs", "2", *LONG]
    call(*words)
    before = wait_half_way(tmp_path)
    call("scancel", *queue())
    wait_for(lambda: not queue(), "the job to end")
    job = call(*words).strip()
    wait_for(lambda: not queue(), "the job to end", 300)
    assert_resumed(before)
    assert_same(tmp_path, expected)
    assert "report:" in read(tmp_path / f"{job}.out")
