"""A sweep runs every run once, also when runs fail, sweeps meet, and processes are killed.

Workers are real processes with real locks; only their training is a stand-in (fake_worker.py), but
for the last test, where it is real too.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tiny
from dlm import config
from dlm.cli import main
from dlm.config import experiment as experiments
from dlm.data import build
from dlm.errors import DlmError
from dlm.report import page
from dlm.runs import folder as run_folder
from dlm.sweep import local, machine
from dlm.sweep.jobs import Job, plan_jobs
from places import TESTS

DLM = [sys.executable, str(TESTS / "fake_dlm.py")]
SEEDS = """
def sweep(scale="laptop"):
    for seed in {seeds}:
        yield {{"train.seed": seed}}
"""


@pytest.fixture
def experiment(tmp_path) -> Path:
    return tiny.experiment_file(tmp_path)


def seeds_file(folder: Path, *seeds: int) -> Path:
    text = tiny.EXPERIMENT + SEEDS.replace("{seeds}", str(list(seeds)))
    return tiny.experiment_file(folder, text)


def jobs_of(path: Path, *overrides: tuple) -> list[Job]:
    return plan_jobs(str(path), "laptop", list(overrides), path.parent / "runs")


@pytest.fixture
def fake(monkeypatch) -> None:
    monkeypatch.setattr(local, "WORKER", (sys.executable, str(TESTS / "fake_worker.py")))


def execute(jobs: list[Job], workers: int = 1) -> tuple[dict, list]:
    events: list[tuple] = []
    jobs[0].folder.parent.mkdir(parents=True, exist_ok=True)
    ended = local.execute(
        jobs,
        workers,
        jobs[0].folder.parent / "workers.log",
        lambda event, job, row: events.append((event, job.config.train.seed, row)),
    )
    return {job.config.train.seed: ended[job.info.run_id] for job in jobs}, events


def starts(job: Job) -> int:
    file = job.folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for(condition, what: str) -> None:
    """A ceiling against hanging for ever; no verdict depends on how long it takes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- expansion ------------------------------------------------------------------------------------


def test_an_experiment_expands_into_runs(experiment) -> None:
    masked, ar = jobs_of(experiment)
    assert [masked.config.objective.name, ar.config.objective.name] == ["masked", "ar"]
    assert masked.info.label == "topics masked" and ar.info.label == "topics ar"
    assert masked.info.question == "Does a tiny run train?"
    assert masked.info.experiment == "tiny_experiment"
    name = f"topics-masked-{masked.info.run_id}"
    assert masked.folder == experiment.parent / "runs" / "tiny_experiment" / name
    assert len({masked.info.run_id, ar.info.run_id}) == 2
    assert masked.plan.steps == 24 and masked.flops == 24 * masked.plan.flops_per_step


def test_the_run_id_hashes_what_determines_the_result(experiment) -> None:
    def ids(*overrides: tuple) -> set[str]:
        return {job.info.run_id for job in jobs_of(experiment, *overrides)}

    usual = ids()
    assert ids() == usual
    for same in (
        ("train.steps_per_call", 8),
        ("train.checkpoint_every", "3 steps"),
        ("mesh.fsdp", 2),
    ):
        assert ids(same) == usual, same
    for other in (("train.seed", 1), ("optimizer.lr", 0.02), ("corpus.options.seed", 1)):
        assert not ids(other) & usual, other


def test_an_override_beats_the_sweep_and_twins_become_one(experiment) -> None:
    (job,) = jobs_of(experiment, ("objective.name", "ar"))
    assert job.config.objective.name == "ar"
    assert job.info.overrides == {"objective.name": "ar"}
    assert job.info.label == "topics ar"


def test_a_label_names_what_was_overridden_by_hand(tmp_path) -> None:
    """Also a key that the sweep sets; not what changes nothing, or leaves the run's id alone."""
    path = seeds_file(tmp_path, 0, 1)

    def labels(*overrides: tuple) -> list[str]:
        return [job.info.label for job in jobs_of(path, *overrides)]

    assert labels() == ["topics masked seed=0", "topics masked seed=1"]
    four = ["topics masked seed=0 layers=4", "topics masked seed=1 layers=4"]
    assert labels(("model.layers", 4)) == four
    assert labels(("model.layers", 1), ("mesh.fsdp", 2), ("train.microbatches", 2)) == labels()
    assert labels(("train.seed", 0)) == ["topics masked seed=0"]
    muon = ["topics masked seed=0 optimizer=muon", "topics masked seed=1 optimizer=muon"]
    assert labels(("optimizer.name", "muon")) == muon
    assert labels(("objective.name", "ar"), ("train.seed", 1)) == ["topics ar seed=1"]
    told = "topics masked seed=0 options.seed=3 lr=0.03333"
    assert labels(("corpus.options.seed", 3), ("optimizer.lr", 0.03333))[0] == told
    (job,) = jobs_of(path, ("train.seed", 0), ("model.layers", 4))
    assert job.info.overrides == {"train.seed": 0, "model.layers": 4}


def test_a_label_moves_no_run_id(tmp_path) -> None:
    """The same setting has one id, by hand or not."""
    jobs = jobs_of(seeds_file(tmp_path, 0, 1))
    ids = [job.info.run_id for job in jobs]
    assert ids == [config.run_id(j.config, build.load(j.store).fingerprint) for j in jobs]
    (again,) = jobs_of(tmp_path / "tiny_experiment.py", ("train.seed", 1))
    assert again.info.run_id == ids[1] and again.info.label == jobs[1].info.label


def test_options_of_a_corpus_go_with_it() -> None:
    base = tiny.tiny_experiment()
    sweep = [{"corpus.options.topics": 3, "train.seed": 1}]
    same, runs = experiments.with_overrides(base, sweep, {"corpus.name": "topics", "train.seed": 2})
    assert same == base and runs == [sweep[0] | {"corpus.name": "topics", "train.seed": 2}]
    by_hand = {"corpus.name": "files", "corpus.options.paths": "*.txt"}
    other, runs = experiments.with_overrides(base, sweep, by_hand)
    (c,) = experiments.expand(other, runs)
    assert c.corpus.options == {"paths": "*.txt"} and c.train.seed == 1
    assert base.corpus.options.documents == 64  # the given one is left alone


def test_a_size_by_hand_that_the_sweep_undoes_is_refused(tmp_path) -> None:
    text = tiny.EXPERIMENT.replace('{{"objective.name": name}}', '{{"model.size": "7m"}}')
    path = tiny.experiment_file(tmp_path, text)
    with pytest.raises(DlmError, match=r"config.model.layers=4: has no effect.*--config.model.siz"):
        jobs_of(path, ("model.layers", 4))
    assert jobs_of(path, ("model.layers", 3))[0].config.model.layers == 3  # as 7m has
    assert jobs_of(path, ("model.layers", 4), ("model.size", ""))[0].config.model.layers == 4


def test_a_scale_has_its_own_folder(experiment) -> None:
    found = plan_jobs(str(experiment), "smoke", [], experiment.parent / "runs")
    assert found[0].folder.parent.name == "tiny_experiment-smoke"


def test_a_mistake_in_one_run_is_found_before_any_starts(tmp_path) -> None:
    with pytest.raises(DlmError, match="config.train.seed=-1"):
        jobs_of(seeds_file(tmp_path, 0, -1))


# --- execution ------------------------------------------------------------------------------------


# What becomes of the run of each seed of fake_worker.py, and of its worker.
REASONS = {
    13: "RuntimeError: planted",
    14: "OSError: Too many open files",
    95: "SystemExit: 0",
    96: "its worker process ended with code 9",
    97: "its worker process was ended by SIGKILL",
    98: "its worker process was ended by SIGKILL, as the system does if memory runs out",
}


def test_a_failing_run_is_recorded_and_the_others_go_on(tmp_path, fake, monkeypatch) -> None:
    """However its worker dies: without handles, in the middle of a line, alive but silent, ..."""
    monkeypatch.setattr(local, "GRACE", 0.3)
    jobs = jobs_of(seeds_file(tmp_path, 1, *REASONS, 2))
    before = open_files()
    ended, events = execute(jobs)
    assert ended == {1: "finished", **dict.fromkeys(REASONS, "failed"), 2: "finished"}
    assert [seed for event, seed, _ in events if event == "failed"] == list(REASONS)
    told = {seed: row["reason"] for event, seed, row in events if event == "failed"}
    for job in jobs[1:-1]:
        reason = json.loads((job.folder / "result.json").read_text())["reason"]
        assert reason.startswith(REASONS[job.config.train.seed])
        assert reason == told[job.config.train.seed]
        assert reason in (job.folder / "error.txt").read_text()
    assert "Traceback" in (jobs[1].folder / "error.txt").read_text()
    pids = [(job.folder / "starts").read_text().split()[0] for job in jobs]
    assert pids[0] == pids[1] and len(set(pids)) == 1 + len(REASONS)  # none is used again
    assert open_files() == before


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0


def test_a_worker_that_can_not_start_fails_each_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(local, "WORKER", (sys.executable, "-c", "import no_such_module"))
    ended, events = execute(jobs_of(seeds_file(tmp_path, 1, 2)))
    assert ended == {1: "failed", 2: "failed"}
    assert "its worker process ended with code 1; see" in events[0][2]["reason"]
    log = tmp_path / "runs" / "tiny_experiment" / "workers.log"
    assert "ModuleNotFoundError: No module named 'no_such_module'" in log.read_text()


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(tmp_path, fake) -> None:
    jobs = jobs_of(seeds_file(tmp_path, 1, 13))
    execute(jobs)
    ended, events = execute(jobs)
    assert ended == {1: "finished", 13: "failed"}
    assert [starts(job) for job in jobs] == [1, 2]
    assert {seed for _, seed, _ in events} == {13}


def test_longest_first(tmp_path, fake) -> None:
    text = tiny.EXPERIMENT + SEEDS.replace("{seeds}", "(1, 2, 3)").replace(
        '"train.seed": seed', '"train.seed": seed, "train.duration": f"{{seed * 10}} steps"'
    )
    jobs = jobs_of(tiny.experiment_file(tmp_path, text))
    _, events = execute(jobs)
    assert [seed for event, seed, _ in events if event == "start"] == [3, 2, 1]


def test_several_workers_share_the_runs(tmp_path, fake) -> None:
    jobs = jobs_of(seeds_file(tmp_path, *range(5)))
    ended, _ = execute(jobs, workers=2)
    assert set(ended.values()) == {"finished"}
    assert [starts(job) for job in jobs] == [1] * 5
    pids = {(job.folder / "starts").read_text().split()[0] for job in jobs}
    assert 1 <= len(pids) <= 2


def test_cores_are_shared_out_without_overlap(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert [p["cores"] for p in machine.placements(2, 1)] == [[0, 2], [1, 3]]
    assert [p["cores"] for p in machine.placements(4, 8)] == [[0], [1], [2], [3]]
    assert [p["cores"] for p in machine.placements(5, 1)] == [[0, 1, 2, 3]] * 5
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert [p["env"]["CUDA_VISIBLE_DEVICES"] for p in machine.placements(3, 1)] == ["0", "3", "0"]
    assert machine.default_workers(1) == 2


def test_workers_on_one_gpu_share_its_memory(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in ("JAX_PLATFORMS", *machine.GPU_MEMORY):
        monkeypatch.delenv(name, raising=False)
    shares = [place["env"].get("XLA_CLIENT_MEM_FRACTION") for place in machine.placements(3, 1)]
    assert shares == ["0.375", None, "0.375"]  # two workers on GPU 0, one on GPU 1
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")  # the user's own; never both
    assert not any("XLA_CLIENT_MEM_FRACTION" in p["env"] for p in machine.placements(3, 1))


@pytest.mark.parametrize(
    "visible, gpus",
    [
        ("0,3", ["0", "3"]),
        (" 1, GPU-4c1f,MIG-77 ", ["1", "GPU-4c1f", "MIG-77"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),  # CUDA stops at the first that is none
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_the_environment_shows(monkeypatch, tmp_path, visible, gpus) -> None:
    (tmp_path / "nvidia0").touch()  # is not asked
    monkeypatch.setattr(machine, "Path", {"/dev": tmp_path}.__getitem__)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine._gpus() == gpus
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert machine._gpus() == []


def test_where_the_environment_shows_none_the_devices_are_counted(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(machine, "Path", {"/dev": tmp_path}.__getitem__)
    monkeypatch.setattr(machine.environment, "cores", lambda: [0, 1, 2])
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert machine._gpus() == [] and machine.default_workers(8) == 3
    assert not any("CUDA_VISIBLE_DEVICES" in place["env"] for place in machine.placements(2, 1))
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()  # of the driver, also if there are no chips
    assert machine.default_workers(8) == 3
    for name in ("accel0", "vfio/0"):  # one process holds all of a TPU host
        (tmp_path / name).touch()
        assert machine.default_workers(4) == 1
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        assert machine.default_workers(4) == 3
        monkeypatch.delenv("JAX_PLATFORMS")
        (tmp_path / name).unlink()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "nvidia-caps"):
        (tmp_path / name).touch()
    assert machine._gpus() == ["0", "1"] and machine.default_workers(1) == 2
    first, second = machine.placements(2, 1)
    assert first == {"env": {"CUDA_VISIBLE_DEVICES": "0"}, "cores": [0, 1, 2]}
    assert second == {"env": {"CUDA_VISIBLE_DEVICES": "1"}, "cores": [0, 1, 2]}


def test_a_worker_gets_as_many_gpus_as_a_mesh_takes(monkeypatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5,6,7,8")
    for devices, shares in ((1, list("0125678")), (2, ["0,1", "2,5", "6,7"]), (4, ["0,1,2,5"])):
        workers = machine.default_workers(devices)
        found = [p["env"]["CUDA_VISIBLE_DEVICES"] for p in machine.placements(workers, devices)]
        assert found == shares
    with pytest.raises(DlmError, match="config.mesh: takes 8 GPUs; this machine shows 7"):
        machine.placements(machine.default_workers(8), 8)


@pytest.mark.parametrize(
    "mesh, devices", [({}, 1), ({"fsdp": 8}, 8), ({"data": 2, "tensor": 2}, 4)]
)
def test_the_fewest_devices_of_a_job(mesh, devices) -> None:
    c = tiny.resolved(**{f"mesh_{axis}": size for axis, size in mesh.items()})
    job = Job(c, Path(), Path(), {}, None)  # pyright: ignore (no plan)
    assert job.devices == devices


# --- several sweeps, kills ------------------------------------------------------------------------


def start(path: Path, jobs: int = 1) -> subprocess.Popen:
    workdir = str(path.parent / "runs")
    return subprocess.Popen(
        [*DLM, "run", str(path), "--workdir", workdir, "--jobs", str(jobs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a job that a shell started in the background ignores ctrl-C, and its children with it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def hold(jobs: list[Job]) -> Path:
    folder = jobs[0].folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hold").touch()
    return folder / "hold"


def test_two_sweeps_at_once_do_no_run_twice(tmp_path) -> None:
    path = seeds_file(tmp_path, *range(6))
    jobs = jobs_of(path)
    barrier = hold(jobs)  # until each sweep has a run in hand
    both = [start(path), start(path)]
    wait_for(lambda: sum(map(starts, jobs)) == 2, "a run of each sweep")
    barrier.unlink()
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert [starts(job) for job in jobs] == [1] * 6


def test_a_killed_sweep_leaves_its_run_to_the_next(tmp_path) -> None:
    path = seeds_file(tmp_path, 1, 2, 3)
    jobs = jobs_of(path)
    barrier = hold(jobs)
    first = start(path)
    wait_for(lambda: sum(map(starts, jobs)) == 1, "the first run")
    (worker,) = [int((j.folder / "starts").read_text().split()[0]) for j in jobs if starts(j)]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    wait_for(lambda: not alive(worker), "the end of a worker whose sweep is gone")
    assert [j for j in jobs if (j.folder / "saved").exists()]  # it saved before it went
    second = start(path)
    wait_for(lambda: sum(map(starts, jobs)) == 2, "the run to be taken up")
    barrier.unlink()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, out + err
    assert sorted(map(starts, jobs)) == [1, 1, 2]
    assert {run_folder.status(job.folder) for job in jobs} == {"finished"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number) -> None:
    path = seeds_file(tmp_path, 1, 2)
    jobs = jobs_of(path)
    barrier = hold(jobs)
    process = start(path)
    wait_for(lambda: sum(map(starts, jobs)) == 1, "the first run")
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, out + err
    assert "Interrupted" in err and "Traceback" not in out + err
    assert len([j for j in jobs if (j.folder / "saved").exists()]) == 1
    barrier.unlink()
    process = start(path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert sorted(map(starts, jobs)) == [1, 2]


def test_sigterm_before_the_first_worker_starts(tmp_path) -> None:
    waits = """
import time
from pathlib import Path

Path({ready!r}).touch()
time.sleep(60)
"""
    ready = tmp_path / "ready"
    path = tiny.experiment_file(
        tmp_path, tiny.EXPERIMENT + waits.replace("{ready!r}", repr(str(ready)))
    )
    process = start(path)
    wait_for(ready.exists, "the experiment file to be read")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, out + err
    assert "Interrupted" in err and "Traceback" not in out + err


def test_a_failed_run_makes_exit_code_1_and_a_done_sweep_0(tmp_path) -> None:
    path = seeds_file(tmp_path, 1, 13)
    process = start(path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "failed: topics masked seed=13: see" in err and "error.txt" in err
    assert "Traceback" not in out + err
    path = seeds_file(tmp_path, 1)
    process = start(path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "1 runs" in out and "0 to do" in out


def test_a_worker_killed_in_real_training(tmp_path, monkeypatch, cache, capsys) -> None:
    """Its run is recorded as failed, the others go on, and the next `dlm run` finishes it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(page, "write", lambda folder, *_, **__: folder / "report.html")
    monkeypatch.setattr(page, "summary", lambda *_, **__: [])
    path = seeds_file(tmp_path, 0, 1)
    killed, other = (job.folder for job in jobs_of(path, ("evaluation.samples", 0)))
    words = ["run", str(path), "--workdir", str(tmp_path / "runs"), "--jobs", "1"]
    words += ["--config.evaluation.samples=0"]
    with monkeypatch.context() as patch:
        patch.setattr(local, "WORKER", (sys.executable, str(TESTS / "dying_worker.py")))
        assert main.main(words) == 1
    assert run_folder.status(killed) == "failed" and run_folder.status(other) == "finished"
    reason = json.loads((killed / "result.json").read_text())["reason"]
    assert "its worker process was ended by SIGKILL" in reason and "workers.log" in reason
    assert reason in (killed / "error.txt").read_text()
    assert "failed: topics masked seed=0 samples=0: see" in capsys.readouterr().err
    (evaluated,) = [row for row in tiny.rows(killed) if "validation_loss" in row]
    before = (other / "result.json").stat().st_mtime_ns

    assert main.main(words) == 0
    assert run_folder.status(killed) == "finished" and not (killed / "error.txt").exists()
    assert (other / "result.json").stat().st_mtime_ns == before  # what was finished is left alone
    rows = [row for row in tiny.rows(killed) if "validation_loss" in row]
    assert [row["step"] for row in rows] == [8, 16, 24]
    assert rows[0] == evaluated  # to the second: the run went on from its checkpoint
    assert set(np.load(killed / "ledger.npy").tolist()) == {6 * 16}  # six epochs of 32 windows
