"""A short campaign of faults (tests/faults.py), in a process of its own: it has one device."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import faults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, mounts small disks")
KINDS = ("signals-sweep", "signals-build", "full-disk", "flip-run", "flip-store", "flip-halfway")


def test_numbers_keep_their_bits_or_are_refused_by_name(tmp_path, cache) -> None:
    out = tmp_path / "faults.json"
    words = ["--kinds", *KINDS, "--rounds", "1", "--steps", str(faults.SHORTEST), "--no-report"]
    env = os.environ | {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(Path(faults.__file__)), *words, "--out", str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = json.loads(out.read_text())["kinds"]
    assert kinds.keys() == set(KINDS)
    for kind, count in kinds.items():
        assert sum(count.values()) == (faults.FLIPS if kind.startswith("flip") else 1)
        assert set(count) <= {"same", "refused", *(["skipped"] if kind == "full-disk" else [])}
    assert kinds["flip-run"].get("refused", 0) > 0


def test_other_numbers_and_missing_runs_are_wrong(tmp_path) -> None:
    numbers = {"0": [{"validation_loss": 1.5}, {}, []]}
    c = faults.Campaign(*[tmp_path] * 5, numbers=numbers, store="", sent=Counter())
    with pytest.raises(faults.Wrong, match="0 of 1 runs, and no reason"):
        faults._same(c, tmp_path, "")
    assert faults._same(c, tmp_path, f"error: {tmp_path}/0: is damaged") == "refused"
    folder = tmp_path / "experiment" / "0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"validation_loss": 1.25}')
    for name in ("nll", "ledger", "samples"):
        (folder / f"{name}.npy").touch()
    (folder / "metrics.jsonl").touch()
    with pytest.raises(faults.Wrong, match="other numbers in"):
        faults._same(c, tmp_path, "")
    found = faults.numbers_of(tmp_path)
    assert faults._same(dataclasses.replace(c, numbers=found), tmp_path, "") == "same"
