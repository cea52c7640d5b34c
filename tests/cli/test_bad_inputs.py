"""What a user may get wrong in a file, a name or a number: one line, exit 2, and nothing is waited for.

Four hundred commands in one process; they are listed in `bad_inputs.py`. `test_mistakes.py` has the
words that a newcomer mistypes.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fake_runs
import stores
import tiny
from bad_inputs import EXPERIMENT, FILES, LAWS, LONGER, OBJECTIVE, commands, table
from dlm.cli import main, objectives, parser, train
from dlm.training import run
from places import TESTS


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with every kind of bad file, a good experiment, a good table and three runs."""
    place = tmp_path_factory.mktemp("place")
    tests = str(TESTS)
    for name, content in FILES.items():
        if isinstance(content, str) and name.endswith(".py"):
            head = OBJECTIVE if name.startswith("o_") else EXPERIMENT.format(tests=tests)
            content = head + content + "\n"
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (place / "good.py").write_text(EXPERIMENT.format(tests=tests))
    (place / "good.csv").write_text(table() + table("masked").split("\n", 1)[1])
    (place / "params.csv").write_text(table(params=1e6))
    (place / "unique.csv").write_text(table(unique=1e6))
    ids = np.arange(40).reshape(4, 10)
    np.savez(place / "good.npz", a=ids)
    whole = (place / "good.npz").read_bytes()
    (place / "cut.npz").write_bytes(whole[:-30])
    (place / "flipped.npz").write_bytes(whole[:150] + bytes([whole[150] ^ 255]) + whole[151:])
    np.savez(place / "objects.npz", a=np.array([{}, []], object))
    np.save(place / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    np.save(place / "floats.npy", np.zeros(3))
    np.save(place / "cube.npy", np.zeros((2, 2, 2), int))
    for ending in ("py", "csv", "json", "txt", "model"):
        os.mkfifo(place / f"pipe.{ending}")
        (place / f"zero.{ending}").symlink_to("/dev/zero")
        (place / f"loop.{ending}").symlink_to(f"loop.{ending}")
        (place / f"folder.{ending}").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(place)  # the name of a socket is short
        listening.bind("socket.csv")
        os.chdir(here)
    for name, laws in LAWS.items():
        text = laws if isinstance(laws, str) else json.dumps(laws)
        (place / f"{name}.json").write_text(text)
    return place


def named(command: str) -> str:
    """A command that is short enough for the name of a test."""
    return command.encode("unicode_escape").decode()[:100]


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Ends a test that waits, such as for the writer of a pipe."""

    def late(*_: object) -> None:
        pytest.fail("it waits")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def runs(place, tiny_store) -> Iterator[dict[str, Path]]:
    """Folders of a masked and an AR run on ids and of an AR run on text, without weights."""
    with pytest.MonkeyPatch.context() as patch:
        stores.register(patch, stores.DOCUMENTS)
        text = stores.build(place / "stores")
    here, weights = {}, {}
    for name, objective, store in (
        ("MASKED", "masked", tiny_store), ("AR", "ar", tiny_store), ("TEXT", "ar", text)
    ):  # fmt: skip
        folder = fake_runs.write_run(
            place / "runs", fake_runs.diffusion(1e12, 2.0), objective=objective, note=name,
            corpus=store.manifest.name,
        )  # fmt: skip
        here[name] = folder
        weights[folder.name] = (tiny.resolved(objective_name=objective), store, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "restore_best", lambda folder, *_: weights[folder.name])
        yield here


@pytest.mark.parametrize("command, told", commands(), ids=lambda words: named(words))
def test_a_bad_input_is_one_line(command, told, place, runs, monkeypatch, capsys) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(main.os, "execv", lambda *_: pytest.fail("starts another program"))
    words = [runs[word].name if word in runs else word for word in shlex.split(command)]
    for short, long in LONGER.items():
        words = [word.replace(short, long) for word in words]
    code = main.main(words)
    out, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 3000
    assert told in err
    # the corpora that are looked at are named as they are, nothing else is said
    assert [line for line in out.splitlines() if not line.startswith("corpus ")] == []


def test_there_are_three_hundred() -> None:
    cases = commands()
    assert len(set(cases)) == len(cases) >= 300
    assert {command.split()[0] for command, _ in cases} >= set(parser.VERBS) - {"objectives"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("command", [
    "run secret.py", "fit secret.csv", "critical --unique-tokens 1e8 --laws secret.json",
    "check-objective secret.py",
])  # fmt: skip
def test_a_file_that_may_not_be_read(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("secret.py", "secret.csv", "secret.json"):
        (tmp_path / name).touch(mode=0o000)
    assert main.main(command.split()) == 2
    assert "cannot be read: no permission" in capsys.readouterr().err


def test_a_full_disk_under_a_checkpoint_is_told_as_one(monkeypatch, capsys) -> None:
    told = (
        'RESOURCE_EXHAUSTED: Failed writing: "runs/a/state": Failed to write 9 bytes to file 11: '
    )
    told += "No space left on device [os_error_code='28']"

    def full(*_: object) -> int:
        raise ValueError(told)

    monkeypatch.setattr(train, "execute", full)
    assert main.main(["train", "good.py"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: runs/a/state: No space left on device; what was saved before")


def test_a_terminal_that_knows_ascii_alone_gets_every_line(place, monkeypatch) -> None:
    monkeypatch.chdir(place)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    assert main.main(["run", "good.py", "--dry-run"]) == 0
    assert b"\\xd710\\u2077 FLOPs" in out.buffer.getvalue()  # ×10⁷


def test_a_number_that_no_memory_holds_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(objectives, "execute", lambda *_: np.zeros(2**45))
    assert main.main(["objectives"]) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory for this input: Unable to")
