"""The `dlm` command with workers of tests/fake_worker.py, and without its report."""

import sys
from pathlib import Path

import no_report  # noqa: F401 (it leaves the report out)
from dlm.cli import main
from dlm.sweep import local

local.WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))

if __name__ == "__main__":
    sys.exit(main.main())
