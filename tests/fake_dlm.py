"""The `dlm` command with workers of tests/fake_worker.py, and without its report."""

import sys
from pathlib import Path

from dlm.cli import main
from dlm.report import page
from dlm.sweep import local

local.WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
page.load = lambda folder: None
page.write = lambda folder, loaded: folder / "report.html"
page.summary = lambda folder, loaded: []

if __name__ == "__main__":
    sys.exit(main.main())
