"""The `dlm` command with workers of tests/fake_worker.py, and without its report."""

import sys
from pathlib import Path

from dlm import cli, report, sweep

sweep.WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
report.load = lambda folder: None
report.write = lambda folder, loaded: folder / "report.html"
report.summary = lambda folder, loaded: []

if __name__ == "__main__":
    sys.exit(cli.main())
