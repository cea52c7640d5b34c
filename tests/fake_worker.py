"""dlm.sweep.worker with its protocol, locks and files, but a training that needs no JAX and no time.

Each start adds a line to the run's `starts`. By the seed: 13 fails; 14 finds no handle left, also
to record that; the process of 98 is killed in the middle of a line, of 97 is stopped and
silent, its output closed, of 96 leaves a child with its output, of 95 exits as a user's file may.
While `hold` lies in the experiment's folder, a run waits, or saves (`saved`) if it is asked to stop.
"""

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

JAX = (  # what trains, of which nothing is loaded
    *("data.windows", "model", "model.keys", "model.sharding", "model.transformer"),
    *("evaluation.score", "evaluation.sampling", "training.checkpoint", "training.loop"),
    *("training.step", "training.prepare", "training.progress", "training.distributed"),
)


class Stub(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


for name in JAX:
    sys.modules[f"dlm.{name}"] = Stub(f"dlm.{name}")


class Interrupted(Exception):
    pass


sys.modules["dlm.training.loop"].Interrupted = Interrupted

# They find dlm.training.loop replaced.
from dlm import disk, sealed  # noqa: E402
from dlm.runs import folder as run_folder  # noqa: E402
from dlm.sweep import worker  # noqa: E402
from dlm.training import run  # noqa: E402
from fake_runs import bare_result  # noqa: E402


def output() -> int:
    """The descriptor on which the worker answers: the pipe with the highest number."""
    pipes = [int(fd) for fd in os.listdir("/proc/self/fd")]
    return max(fd for fd in pipes if fd > 2 and is_pipe(fd))


def is_pipe(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except OSError:
        return False


def no_handle(*_) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def train(c, store, folder: Path, info, *, trunk, stop, report):
    for name in ("result.json", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    sealed.write(folder / "run.json", vars(info))
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\n")
    if c.train.seed == 13:
        raise RuntimeError("planted\nwith a second line")
    if c.train.seed == 14:
        disk.write_json = no_handle
        no_handle()
    if c.train.seed == 98:
        os.write(output(), b'{"event": "fin')
        os.kill(os.getpid(), signal.SIGKILL)
    if c.train.seed == 97:
        os.close(output())
        time.sleep(600)
    if c.train.seed == 96:
        subprocess.Popen(["sleep", "2"], pass_fds=[output()])
        os._exit(9)
    if c.train.seed == 95:
        sys.exit(0)
    while (folder.parent / "hold").exists():
        if stop():
            (folder / "saved").touch()
            raise Interrupted
        time.sleep(0.02)
    report({"step": 1, "epoch": 1.0, "flops": 1.0, "loss": 2.0})
    result = bare_result(c, info)
    run_folder.finish(folder, result)
    return result


run.train_and_score = train
worker.prepare_jax = lambda: None

if __name__ == "__main__":
    code = worker.main([int(core) for core in sys.argv[1:]])
    assert "jax" not in sys.modules
    sys.exit(code)
