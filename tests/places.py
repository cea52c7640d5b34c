"""Where things stand: the repository, its tests, and the public tables that lie beside a checkout."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PUBLIC = (
    ROOT.parent / "shared" / "data"
)  # tables of runs, faults, tokenizers; tests skip without it
