"""A sweep on Slurm: what is asked of it (by fakes of its commands), and training in submitit's jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import submitit

import tiny
from dlm.cli import main
from dlm.errors import DlmError
from dlm.report import page
from dlm.runs import folder as run_folder
from dlm.sweep import slurm as executor
from dlm.sweep import worker
from dlm.sweep.jobs import Job, plan_jobs
from fake_command import Fakes
from fake_runs import bare_result

TIME = ["time=30"]


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Fakes:
    fakes = Fakes(tmp_path / "fakes", "sbatch", "squeue", "srun")
    for name, value in fakes.environment.items():
        monkeypatch.setenv(name, value)
    return fakes


def jobs_of(folder: Path) -> list[Job]:
    return plan_jobs(str(tiny.experiment_file(folder)), "laptop", [], folder / "runs")


def ids(jobs: list[Job]) -> list[str]:
    return [run_folder.read_json(job.folder / "job.json")["slurm"] for job in jobs]


# --- what is asked of Slurm -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--slurm time=: must be a job's time limit in whole minutes"),
        (["time=12:00:00"], "time=12:00:00"),
        (["time=0"], "time=0"),
        (["time"], "--slurm time: must be KEY=VALUE"),
        (["=3"], "--slurm =3: must be KEY=VALUE"),
        ([*TIME, "partion=gpu"], r"partion(.|\n)*partition"),
        ([*TIME, "nodes=2"], "nodes=2: must be 1(.|\n)*launch/slurm.sbatch"),
        ([*TIME, "additional_parameters=3"], "--executor=slurm"),
    ],
)
def test_wrong_parameters_are_named(words, message, tmp_path, fakes) -> None:
    with pytest.raises(DlmError, match=message):
        executor.cluster(words, tmp_path, 0)
    assert fakes.calls() == []


def test_where_there_is_no_slurm_it_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DlmError, match='Could not detect "srun"'):
        executor.cluster(TIME, tmp_path, 0)
    with pytest.raises(DlmError, match="no squeue"):
        executor._queue()


SLURM = ["--executor", "slurm", "--slurm", "time=30", "--slurm", "gpus_per_node=1", "--jobs", "1"]


def dry_run(folder: Path, *words: str) -> int:
    path = str(tiny.experiment_file(folder))
    return main.main(["run", path, "--workdir", str(folder / "runs"), "--dry-run", *words])


def test_a_dry_run_prints_off_a_cluster_what_would_be_submitted(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, no srun
    assert dry_run(tmp_path, *SLURM) == 0
    out = capsys.readouterr().out
    assert (
        "2 runs in" in out and "sbatch would take a job array of 2, a run to each, by this" in out
    )
    wanted = (
        "job-name=dlm",
        "time=30",
        "gpus-per-node=1",
        "array=0-1%1",
        "requeue",
        "signal=USR2@90",
    )
    assert all(f"  #SBATCH --{word}\n" in out for word in wanted)
    assert "export SUBMITIT_EXECUTOR=slurm" in out
    assert not list(tmp_path.glob("runs/slurm")) and not list(tmp_path.glob("runs/tiny*"))
    assert dry_run(tmp_path, *SLURM[:2]) == 2
    assert dry_run(tmp_path, *SLURM, "--slurm", "gpu_per_node=1") == 2
    err = capsys.readouterr().err
    assert "--slurm time=: must be" in err and "did you mean gpus_per_node?" in err
    assert err.count("\n") == 2


def test_a_dry_run_needs_no_submitit(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert dry_run(tmp_path, *SLURM) == 0
    assert "time=30 gpus_per_node=1" in (out := capsys.readouterr().out)
    assert "submitit is not installed here, so these parameters are not checked" in out
    assert executor.planned(SLURM[3:4], tmp_path, 0, 0) == ["nothing would be submitted"]
    assert main.main(["run", "x.py", *SLURM]) == 2
    assert "needs submitit" in capsys.readouterr().err


def test_slurm_words_without_slurm_are_an_error(tmp_path, capsys) -> None:
    path = str(tiny.experiment_file(tmp_path))
    assert main.main(["run", path, "--slurm", "time=30"]) == 2
    assert "--slurm time=30: only with --executor slurm" in capsys.readouterr().err


def test_one_array_with_what_is_not_queued_yet(tmp_path, fakes, capsys) -> None:
    jobs = jobs_of(tmp_path)
    slurm = executor.cluster(
        [*TIME, "partition=gpu", "setup=module load cuda"], tmp_path / "slurm", 1
    )
    fakes.answer(("sbatch", "Submitted batch job 7", 0))
    executor._submit(jobs, slurm)
    assert sorted(ids(jobs)) == ["7_0", "7_1"]
    script = (tmp_path / "slurm/7_submission.sh").read_text().splitlines()
    wanted = {"--time=30", "--partition=gpu", "--array=0-1%1", "--requeue", "--signal=USR2@90"}
    assert {f"#SBATCH {word}" for word in wanted} <= set(script)
    assert script.index("module load cuda") < script.index("export SUBMITIT_EXECUTOR=slurm")

    fakes.answer(("squeue", f"{ids(jobs)[0]} RUNNING\n9_[0-3] PENDING", 0), ("sbatch", "job 8", 0))
    executor._submit(jobs, slurm)
    assert sorted(ids(jobs)) == sorted([ids(jobs)[0], "8"])
    assert "1 jobs submitted, 1 in the queue before" in capsys.readouterr().out


def test_what_slurm_refuses_is_an_error_of_one_line(tmp_path, fakes) -> None:
    slurm = executor.cluster(TIME, tmp_path / "slurm", 0)
    fakes.answer(("sbatch", "", 1))
    with pytest.raises(DlmError, match="sbatch"):
        executor._submit(jobs_of(tmp_path), slurm)
    fakes.answer(("squeue", "", 1))
    with pytest.raises(DlmError, match="squeue"):
        executor._submit(jobs_of(tmp_path), slurm)


def test_a_job_that_leaves_no_result_has_failed_unless_another_trains_it(
    tmp_path, fakes, monkeypatch
) -> None:
    monkeypatch.setattr(executor, "SLOWEST", 0.01)
    gone, elsewhere = jobs_of(tmp_path)
    fakes.answer(
        ("squeue", "", 0),
        ("sbatch", "Submitted batch job 7", 0),
        *[("squeue", "7_0 PENDING\n7_1 RUNNING", 0)] * 2,
        ("squeue", "", 1),  # the controller does not answer
    )
    told = []

    def show(event: str, job: Job, row: dict) -> None:
        told.append((event, job is gone))
        if event == "failed":  # the other process is done, too
            run_folder.finish(elsewhere.folder, bare_result(elsewhere.config, elsewhere.info))

    with run_folder.claim(elsewhere.folder):
        slurm = executor.cluster(TIME, tmp_path / "slurm", 0)
        ended = executor.execute([gone, elsewhere], slurm, show)
    assert ended == {gone.info.run_id: "failed", elsewhere.info.run_id: "finished"}
    assert ("failed", True) in told and told[-1] == ("finished", False)
    reason = run_folder.read_json(gone.folder / "result.json")["reason"]
    assert "its Slurm job ended, or was cancelled, without a result" in reason
    assert f"{ids([gone])[0]}_0_log.err" in reason


# --- training, in jobs of submitit's local executor -----------------------------------------------


class Local(submitit.LocalExecutor):
    """In place of Slurm: the job is a process that starts the task, again where it is requeued."""

    jobs: list[submitit.LocalJob]

    def submit_array(self, fns):
        self.jobs = [self.submit(fn) for fn in fns]
        Local.last = self
        return self.jobs

    def queue(self) -> dict[str, str]:
        return {job.job_id: "RUNNING" for job in self.jobs if not job.done()}


@pytest.fixture
def local(monkeypatch, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(submitit, "SlurmExecutor", Local)
    monkeypatch.setattr(executor, "SLOWEST", 0.2)
    monkeypatch.setattr(page, "write", lambda folder, loaded: folder / "report.html")
    monkeypatch.setattr(page, "summary", lambda folder, loaded: [])
    queue = lambda: Local.last.queue() if hasattr(Local, "last") else {}  # noqa: E731
    monkeypatch.setattr(executor, "_queue", queue)
    yield
    with contextlib.suppress(AttributeError):
        del Local.last


LONG = [
    "--config.train.duration=400 steps",
    "--config.evaluation.every=100 steps",
    "--config.train.checkpoint_every=150 steps",
    "--config.objective.name=masked",
]


def command(path: Path, workdir: Path, *words: str) -> list[str]:
    return ["run", str(path), "--workdir", str(workdir), *LONG, *words]


def the_run(workdir: Path) -> Path:
    (path,) = workdir.glob("*/*/config.json")
    return path.parent


@pytest.fixture(scope="module")
def expected(tmp_path_factory, cache) -> Path:
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        assert main.main(command(tiny.experiment_file(folder), folder / "runs", "--jobs", "1")) == 0
    return the_run(folder / "runs")


def assert_same(folder: Path, expected: Path) -> None:
    assert tiny.result(folder) == tiny.result(expected)
    assert tiny.evaluations(folder) == tiny.evaluations(expected)
    for name in ("ledger.npy", "nll.npy", "samples.npy"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def task_of(job: submitit.LocalJob) -> int:
    pid = job.job_id
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_job_that_is_told_to_stop_saves_and_goes_on_to_the_same_bits(
    number, tmp_path, local, expected, monkeypatch, capsys
) -> None:
    """After SIGUSR2 submitit queues it again; after SIGTERM Slurm would, and here the next call."""
    words = command(tiny.experiment_file(tmp_path), tmp_path / "runs")
    words += ["--executor", "slurm", "--slurm", "time=30"]
    before: list[dict] = []
    sleep = time.sleep

    def meanwhile(seconds: float) -> None:
        """Called between two looks of the parent: sends the signal once, half way."""
        sleep(seconds)
        found = list((tmp_path / "runs").glob("*/*/metrics.jsonl"))
        if not before and found and len(rows := tiny.rows(found[0].parent)) > 20:
            before.extend(rows)
            os.kill(task_of(Local.last.jobs[0]), number)

    monkeypatch.setattr(executor.time, "sleep", meanwhile)
    code = main.main(words)
    out = capsys.readouterr().out
    if number == signal.SIGTERM:
        assert code == 1 and "its Slurm job ended, or was cancelled" in out
        code = main.main(words)
    assert code == 0
    folder = the_run(tmp_path / "runs")
    assert before and tiny.rows(folder)[: len(before)] == before  # not trained again
    assert_same(folder, expected)


@pytest.mark.parametrize("events, code", [(["start", "failed"], 1), (["start", "finished"], None)])
def test_the_exit_code_of_a_job_says_whether_its_run_failed(events, code, monkeypatch) -> None:
    def work(message: dict, tell, stopping) -> bool:
        assert message == {"folder": "x"}
        for event in events:
            tell(event)
        return True

    monkeypatch.setattr(worker, "work", work)
    monkeypatch.setattr(worker, "prepare_jax", lambda: None)
    numbers = (signal.SIGUSR2, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        with contextlib.nullcontext() if code is None else pytest.raises(SystemExit) as left:
            executor.Train('{"folder": "x"}')()
        assert code is None or left.value.code == code
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
