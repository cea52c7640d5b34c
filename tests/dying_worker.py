"""dlm.sweep.worker that trains for real, and in the run of seed 0 kills its own process with SIGKILL.

That is at step 14 of the tiny run (tiny.py), once the checkpoint of step 12 is on the disk.
"""

import os
import signal
import sys
import time

from dlm.data import windows
from dlm.sweep import worker
from dlm.training import run

train = run.train_and_score


def train_and_die(c, store, folder, info, **told):
    record, steps = windows.record_exposures, []

    def record_and_die(*arguments):
        record(*arguments)
        steps.append(1)
        if len(steps) == 14:
            while not (folder / "checkpoints" / "12" / "SHA256SUMS").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)

    if c.train.seed == 0:
        windows.record_exposures = record_and_die
    return train(c, store, folder, info, **told)


run.train_and_score = train_and_die

if __name__ == "__main__":
    os._exit(worker.main([int(core) for core in sys.argv[1:]]))
