"""dlm.worker with its protocol, locks and files, but a training that needs no JAX and no time.

Each start adds a line to the run's `starts`. By the seed: 13 fails, 99 kills its process. While
`hold` lies in the experiment's folder, a run waits, or saves (`saved`) if it is asked to stop.
"""

import os
import sys
import time
import types
from pathlib import Path

LEFT = ["checkpoint", "data", "evaluate", "keys", "model", "sampling", "sharding", "step", "train"]
for name in LEFT:
    sys.modules[f"dlm.{name}"] = types.ModuleType(name)


class Interrupted(Exception):
    pass


sys.modules["dlm.train"].Interrupted = Interrupted

from dlm import disk, record, run, worker  # noqa: E402 (it finds dlm.train replaced)


def train(c, store, folder: Path, about, *, trunk, stop, report):
    for name in ("result.json", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    disk.write_json(folder / "run.json", about | {"status": "running"})
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\n")
    if c.train.seed == 13:
        raise RuntimeError("planted\nwith a second line")
    if c.train.seed == 99:
        os._exit(9)
    while (folder.parent / "hold").exists():
        if stop():
            (folder / "saved").touch()
            raise Interrupted
        time.sleep(0.02)
    report({"step": 1, "epoch": 1.0, "flops": 1.0, "loss": 2.0})
    scores = dict(validation_loss=1.0, validation_stderr=0.1, reason=None)
    result = record.identity(c, about) | {"status": "finished"} | scores
    disk.write_json(folder / "result.json", result)
    return result


run.run = train
worker.prepare_jax = lambda: None

if __name__ == "__main__":
    code = worker.main([int(core) for core in sys.argv[1:]])
    assert "jax" not in sys.modules
    sys.exit(code)
