"""A sweep on a Slurm cluster: a job array by submitit, a run to each task; no scheduler of our own.

A task trains as a worker does (`dlm.sweep.worker.work`), under the lock of its run's folder. Before its
time limit, and where Slurm preempts it, it saves a checkpoint, is queued again and goes on from
there. `job.json` in a run's folder holds the job's id: another call watches what is queued or
running, and submits the rest.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import sealed
from dlm.config import experiment
from dlm.errors import DlmError, nearest
from dlm.runs import folder as run_folder
from dlm.runs import schema
from dlm.sweep.jobs import Job
from dlm.sweep.progress import Show
from dlm.training import metrics

if TYPE_CHECKING:
    import submitit

REQUEUES = 10_000  # a run goes on from its checkpoint however often its time limit ends
SLOWEST = 15.0  # seconds between two looks at the queue; the first ones follow faster


def cluster(words: Sequence[str], folder: Path, at_once: int) -> submitit.SlurmExecutor:
    """Slurm with the parameters of `["time=720", "partition=gpu"]`; logs and scripts go to `folder`.

    The names are submitit's, which are sbatch's with underscores; `time` is in minutes. At most
    `at_once` jobs run at once, if it is not 0.

    Raises:
      DlmError: no Slurm or submitit here, or a parameter that is missing, unknown or not possible.
    """
    asked = parameters(words, at_once)
    try:
        import submitit
    except ImportError:
        raise DlmError("--executor=slurm: needs submitit: pip install -e '.[slurm]'") from None
    return _executor(submitit.SlurmExecutor, folder, asked)


def planned(words: Sequence[str], folder: Path, at_once: int, count: int) -> list[str]:
    """What `execute` would submit for `count` new jobs, in lines; works where no Slurm is.

    Raises:
      DlmError: a parameter that is missing, unknown or not possible; unknown ones, and those that
        sbatch alone knows to be impossible, are told only where submitit is installed.
    """
    asked = parameters(words, at_once)
    if not count:
        return ["nothing would be submitted"]
    head = f"a job array of {count}, a run to each" if count > 1 else "one job"
    try:
        import submitit
    except ImportError:
        options = " ".join(f"{key}={value}" for key, value in asked.items())
        missing = "submitit is not installed here, so these parameters are not checked"
        return [f"sbatch would take {head}: {options} ({missing})"]

    class Elsewhere(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # no srun is needed to write a script

    slurm = _executor(Elsewhere, folder, asked)
    if count > 1:
        slurm.parameters["map_count"] = count
    script = slurm._make_submission_file_text(slurm._submitit_command_str, "plan")
    return [f"sbatch would take {head}, by this script:", *(f"  {x}" for x in script.splitlines())]


def parameters(words: Sequence[str], at_once: int) -> dict[str, Any]:
    """What submitit is given; see `cluster`.

    Raises:
      DlmError: a parameter that is missing, or that no Slurm takes.
    """
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise DlmError(f"--slurm {word}: must be KEY=VALUE, such as --slurm time=720")
        given[key] = experiment.literal(value)
    minutes = given.get("time", "")
    if not isinstance(minutes, int) or minutes < 1:
        raise DlmError(f"--slurm time={minutes}: must be a job's time limit in whole minutes")
    for key in ("nodes", "ntasks_per_node"):
        if given.get(key, 1) != 1:
            raise DlmError(
                f"--slurm {key}={given[key]}: must be 1, as each job trains one run in one process; "
                "sbatch --nodes launch/slurm.sbatch trains one over several nodes"
            )
    if at_once:
        given["array_parallelism"] = at_once
    if isinstance(given.get("setup"), str):
        given["setup"] = [given["setup"]]
    return {"job_name": "dlm", "additional_parameters": {"requeue": True}} | given


def _executor(
    kind: type[submitit.SlurmExecutor], folder: Path, asked: dict[str, Any]
) -> submitit.SlurmExecutor:
    try:
        slurm = kind(folder, max_num_timeout=REQUEUES)
        slurm.update_parameters(**asked)
    except (RuntimeError, ValueError, TypeError) as error:
        known = kind._valid_parameters()
        for key in asked if isinstance(error, ValueError) else ():
            if key not in known:
                wrong = f"--slurm {key}={asked[key]}: submitit has no such parameter"
                raise DlmError(wrong + nearest(key, known)) from error
        raise DlmError(f"--executor=slurm: {str(error).splitlines()[0]}") from error
    return slurm


def execute(todo: list[Job], slurm: submitit.SlurmExecutor, show: Show) -> dict[str, str]:
    """Submits what is not queued yet and watches all of it; returns run id -> status.

    `show` is told the events of `dlm.sweep.local.execute`, read from the folders of the runs.

    Raises:
      DlmError: Slurm refuses the jobs.
      KeyboardInterrupt: the jobs go on.
    """
    ids = _submit(todo, slurm)
    ended: dict[str, str] = {}
    started: set[str] = set()
    gone: set[str] = set()
    pause = 1.0
    try:
        while True:
            try:
                queue = _queue()
            except DlmError:  # the controller does not answer: nothing is known to be gone
                queue = dict.fromkeys(ids.values(), "PENDING")
            for job in todo:
                run = job.info.run_id
                if run in ended:
                    continue
                status, state = run_folder.status(job.folder), queue.get(ids[run])
                over = status in (*run_folder.SETTLED, "failed")
                if run not in started and (over or state not in ("PENDING", None)):
                    started.add(run)
                    show("start", job, {})
                if status == run_folder.UNREADABLE:  # damaged since it was written
                    ended[run] = "failed"
                    show("failed", job, {"reason": run_folder.problem(job.folder)})
                elif over:
                    ended[run] = status
                    show(status, job, schema.headline(run_folder.read_result(job.folder)))
                elif state is None and run in gone:
                    _lost(job, slurm.folder / f"{ids[run]}_0_log.err")
                elif state is None:
                    gone.add(run)  # but looked at again: a shared disk may show its result late
                elif run in started:
                    for row in metrics.read(job.folder / "metrics.jsonl")[-1:]:
                        show("progress", job, row)
            if len(ended) == len(todo):
                return ended
            time.sleep(pause)
            pause = min(1.5 * pause, SLOWEST)
    except KeyboardInterrupt:
        numbers = " ".join(sorted({name.split("_")[0] for name in ids.values()}))
        print(f"the jobs go on: squeue --me shows them, scancel {numbers} ends them", flush=True)
        raise


def _submit(todo: list[Job], slurm: submitit.SlurmExecutor) -> dict[str, str]:
    """Run id -> job id, of the jobs that are queued or running and of those submitted here."""
    from submitit.core.utils import FailedJobError

    queue = _queue()
    ids = {job.info.run_id: _job_id(job) for job in todo}
    new = [job for job in todo if ids[job.info.run_id] not in queue]
    new.sort(key=lambda job: -job.flops)
    for job in new:
        job.folder.mkdir(parents=True, exist_ok=True)
        if run_folder.status(job.folder) == "failed":
            (job.folder / "result.json").unlink()
    try:
        submitted = slurm.submit_array([Train(job.message()) for job in new]) if new else []
    except FailedJobError as error:
        raise DlmError(f"--executor=slurm: sbatch: {error}") from error
    for job, task in zip(new, submitted, strict=True):
        ids[job.info.run_id] = task.job_id
        sealed.write(job.folder / "job.json", {"slurm": task.job_id})
    print(
        f"{len(new)} jobs submitted, {len(todo) - len(new)} in the queue before; "
        f"ctrl-C leaves them there; logs: {slurm.folder}",
        flush=True,
    )
    return ids


def _job_id(job: Job) -> str:
    path = job.folder / "job.json"
    return run_folder.read_json(path)["slurm"] if path.exists() else ""


def _queue() -> dict[str, str]:
    """Job id -> state of the user's jobs; ids as submitit has them: 12, or 12_3 in an array.

    By squeue: submitit asks sacct, which needs an accounting database that not every cluster has.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise DlmError("--executor=slurm: no squeue here; run it where Slurm is") from None
    except subprocess.CalledProcessError as error:
        raise DlmError(f"--executor=slurm: squeue: {error.stderr.strip()}") from error
    return dict(line.split() for line in done.stdout.splitlines())


def _lost(job: Job, log: Path) -> None:
    """Records that a run's job is gone without a result, unless another process trains the run."""

    with run_folder.claim(job.folder) as mine:
        if mine and run_folder.status(job.folder) not in run_folder.DONE:
            error = DlmError(f"its Slurm job ended, or was cancelled, without a result; see {log}")
            run_folder.fail(job.folder, job.config, job.info, error)


class Train:
    """One run, as submitit pickles it, calls it in the job, and submits it again."""

    def __init__(self, message: str):
        self.message = message  # of sweep.Job

    def __call__(self) -> None:
        """Leaves with 75 if told by SIGTERM to save: Slurm itself queues again what it preempts."""
        import submitit

        from dlm.sweep import worker

        warning = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        requeue = signal.getsignal(
            warning
        )  # submitit's own handler, which does not wait for a save
        assert callable(requeue)
        told: list[int] = []
        events: list[str] = []
        stopping = threading.Event()

        def stop(number: int, frame: Any) -> None:
            told.append(number)
            stopping.set()

        def tell(event: str, **row: Any) -> None:
            events.append(event)
            print(json.dumps({"event": event, **row}), flush=True)

        for number in (warning, signal.SIGTERM):
            signal.signal(number, stop)
        worker.prepare_jax()
        if worker.work(json.loads(self.message), tell, stopping):
            if "failed" in events:
                sys.exit(1)
            return
        if warning in told:
            requeue(warning, None)  # queues the job again and leaves
        sys.exit(worker.INTERRUPTED)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues again: the same, as the checkpoint is in the run's folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
