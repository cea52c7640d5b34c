"""Runs in a process of its own, with one device: `python one_device.py WORKDIR`. See test_train.py.

Goes on with the run that was killed, trains the same one undisturbed and again with more steps in a
call, and goes on with a run that 8 devices began. What it finds is left in the folders.
"""

import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np

import tiny


def main(workdir: Path) -> None:
    from dlm.cli import main as cli
    from dlm.sweep import worker
    from dlm.training import loop
    from dlm.training.prepare import prepare

    worker.prepare_jax()
    experiment = str(workdir / "tiny_experiment.py")
    for folder, calls in (("killed", 1), ("undisturbed", 1), ("calls-of-8", 8)):
        words = ["--workdir", str(workdir / folder), f"--config.train.steps_per_call={calls}"]
        code = cli.main(["train", experiment, *words])
        assert code == 0, code
    store, c = tiny.store(workdir), tiny.resolved()
    np.savez(workdir / "half-on-8.npz", **tiny.final_state(c, store, workdir / "half-on-8"))
    shutil.copytree(workdir / "half-on-8", workdir / "moved-to-1")
    loop.train(prepare(c, store), workdir / "moved-to-1")
    asked = []
    with contextlib.suppress(loop.Interrupted):  # half a run, which 8 devices finish
        loop.train(
            prepare(c, store),
            workdir / "half-on-1",
            report=asked.append,
            stop=lambda: len(asked) > 6,
        )
    assert not (workdir / "half-on-1" / "checkpoints" / "24").exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
