"""A folder from elsewhere may be read. It runs no code, and sends and writes nothing outside."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest

import tiny
from dlm import config, disk, private, runs, sealed
from dlm.cli import main
from dlm.config import family
from dlm.errors import DlmError
from dlm.laws import own_runs, sheet
from dlm.runs import bucket
from dlm.runs import folder as run_folder
from fake_runs import autoregressive, edit, write_run

AR = autoregressive(1.6, 1.5e11)
CODE = """
from pathlib import Path
from dlm import config
FAMILY = config.FAMILIES["masked"]
Path({mark!r}).touch()

def make(objective, vocab_size): ...
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def stranger(tmp_path) -> tuple[Path, Path, Path]:
    """A run whose objective is a file of code; that file; and the mark it leaves if it is run."""
    mark, file = tmp_path / "was run", tmp_path / "theirs.py"
    file.write_text(CODE.format(mark=str(mark)))
    folder = write_run(tmp_path / "runs", AR)
    c = tiny.resolved()
    named = dict(name="theirs", file=str(file), digest=family.digest(file))
    c = dataclasses.replace(c, objective=dataclasses.replace(c.objective, **named))
    edit(folder / "config.json", lambda theirs: theirs.update(config.to_json(c)))
    run_id = config.run_id(c, "f" * 64)
    edit(folder / "run.json", lambda start: start.update(run_id=run_id))
    return folder, file, mark


# --- code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["evaluate", "sample", "spectrum"])
def test_code_that_a_run_names_is_not_run(verb, stranger, capsys) -> None:
    folder, file, mark = stranger
    assert main.main([verb, str(folder)]) == 2
    line = capsys.readouterr().err
    assert str(file) in line and "--trust" in line and not mark.exists()


def test_it_is_run_with_trust_or_if_the_user_trained_with_it(stranger, capsys) -> None:
    folder, file, _ = stranger
    assert main.main(["evaluate", str(folder), "--trust"]) == 2  # it has no tokens
    assert "--trust" not in capsys.readouterr().err
    private.trust(file)
    private.check_trusted(str(file), folder)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DlmError, match="--trust"):
        private.check_trusted(str(file), folder)
    file.unlink()
    with pytest.raises(DlmError, match="which is not here"):
        private.check_trusted(str(file), folder)


# --- places -------------------------------------------------------------------------------------


def test_a_mark_inside_a_workdir_sends_nothing(tmp_path) -> None:
    there, here = tmp_path / "there", tmp_path / "buckets" / bucket._name("x") / "experiment"
    here.mkdir(parents=True)
    (here / "result.json").write_text("{}")
    for address in (str(there), "x"):
        (here.parent / bucket.MARK).write_text(address)
        assert bucket.place(here) == here
        bucket.send(here)
    assert not there.exists()


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet", "report.html", "report.json"])
def test_a_link_is_replaced_and_not_written_through(name, tmp_path) -> None:
    folder = write_run(tmp_path / "runs", AR).parent
    target = tmp_path / "target"
    target.write_text("as it was")
    (folder / name).symlink_to(target)
    assert main.main(["report", str(folder)]) == 0
    assert target.read_text() == "as it was" and not (folder / name).is_symlink()


@pytest.mark.parametrize("name", [*run_folder.WRITTEN_INTO, "", ".."])
def test_a_run_is_not_trained_through_a_link(name, tmp_path) -> None:
    folder, elsewhere = tmp_path / "runs" / "experiment" / "0", tmp_path / "elsewhere"
    (elsewhere / "0").mkdir(parents=True)
    link = folder.parent if name == ".." else folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(DlmError, match="is a link"), run_folder.claim(folder):
        pass
    assert [path.name for path in elsewhere.iterdir()] == ["0"]


def test_a_draft_that_lies_in_the_way_is_a_link_to_nowhere(tmp_path) -> None:
    target = tmp_path / "target"
    target.write_text("as it was")
    (tmp_path / f".draft-{os.getpid()}-result.json").symlink_to(target)
    disk.write_json(tmp_path / "result.json", {"n": 1})
    assert target.read_text() == "as it was"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs the owners of files")
def test_a_private_folder_is_the_users_alone(home, tmp_path, capsys) -> None:
    place = private.folder("xla")
    assert place == home / "dlm" / "xla" and place.stat().st_mode & 0o777 == 0o700
    for path in (place, place.parent):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert private.folder("xla") is None and "chmod 700" in capsys.readouterr().err
        path.chmod(mode)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    assert private.folder("xla") == place
    place.parent.rename(tmp_path / "all")
    place.parent.symlink_to(tmp_path / "all")
    assert private.folder("xla") is None


# --- cells --------------------------------------------------------------------------------------

TEXTS = ["=HYPERLINK(1)", "+1", "-1", "@a", "\t=1", "'quoted", "'=1", "plain", "a=1", "'"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_cell_computes_nothing_and_is_read_back(text, tmp_path) -> None:
    write_run(tmp_path, AR, corpus=text)
    tables = runs.write_table(runs.load(tmp_path), tmp_path)
    with open(tables[0], newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["corpus"][0] not in "=+-@\t\r"
    for table in tables:
        (record,) = own_runs.read_records(sheet.read(table))
        assert record["corpus"].strip() == text.strip()


# --- what a stranger put there -------------------------------------------------------------------


def only_reason(workdir, capsys) -> str:
    """Why the one bad run is unreadable, by `dlm runs`, which goes on with the others."""
    assert main.main(["runs", str(workdir)]) == 0
    capsys.readouterr()
    (bad,) = [run for run in runs.load(workdir) if run.status == "unreadable"]
    return bad.reason


@pytest.mark.parametrize(
    "name", ["config.json", "run.json", "result.json", "metrics.jsonl", "nll.npy"]
)
def test_a_pipe_or_a_device_in_a_run_is_not_waited_for(name, tmp_path, capsys) -> None:
    for kind in ("pipe", "device"):
        workdir = tmp_path / kind
        write_run(workdir, AR, seed=0)
        folder = write_run(workdir, AR, seed=1)
        (folder / name).unlink()
        if kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to("/dev/zero")
        assert f"is a {kind}" in only_reason(workdir, capsys)


@pytest.mark.parametrize("name", ["/dev/zero", "../result.json", "a\0b", "\ud800", ""])
def test_a_run_names_only_files_beside_it(name, tmp_path, capsys) -> None:
    write_run(tmp_path, AR, seed=0)
    folder = write_run(tmp_path, AR, seed=1)
    value = sealed.read(folder / "result.json")
    value["files"][name] = "0" * 64
    text = json.dumps(value | {sealed.DIGEST: sealed.digest(value)})
    (folder / "result.json").write_text(text)
    assert "no file of this folder" in only_reason(tmp_path, capsys)


@pytest.mark.parametrize("changes", [
    {"kind": "banana"}, {"flops": 1e-300}, {"validation_loss": 1e300}, {"steps": 10**4000},
    {"bits_per_byte": "abc"}, {"validation_stderr": [1]}, {"best_epoch": []}, {"seed": 10**400},
])  # fmt: skip
def test_absurd_numbers_of_one_run_are_its_own_trouble(changes, tmp_path, capsys) -> None:
    good = write_run(tmp_path, AR, seed=0)
    folder = write_run(tmp_path, AR, seed=1)
    value = sealed.read(folder / "result.json") | changes
    if "seed" in changes:
        config = sealed.read(folder / "config.json")
        config["train"]["seed"] = changes["seed"]
        sealed.write(folder / "config.json", config)
    disk.write_json(folder / "result.json", value | {sealed.DIGEST: sealed.digest(value)})
    assert only_reason(tmp_path, capsys)
    words = ["runs", "--diff", str(good), str(folder)]
    assert main.main(words) == 0 and "unreadable" in capsys.readouterr().out


def test_a_label_forges_no_line_of_the_terminal(tmp_path, capsys) -> None:
    folder = write_run(tmp_path, AR)
    for name in ("run.json", "result.json"):
        value = sealed.read(folder / name) | {"label": "\x1b]0;x\x07\x1b[2J\nfake finished 0.1"}
        disk.write_json(folder / name, value | {sealed.DIGEST: sealed.digest(value)})
    main.main(["runs", str(tmp_path)])
    out = capsys.readouterr().out
    assert "\x1b" not in out and not [x for x in out.splitlines() if x.startswith("fake")]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, capsys) -> None:
    folder = write_run(tmp_path / "runs", AR).parent
    (folder / "runs.csv").mkdir()
    assert main.main(["runs", str(folder)]) == 2
    assert "runs.csv: is a folder" in capsys.readouterr().err


def test_an_experiment_found_by_name_is_no_link(tmp_path, capsys) -> None:
    folder = write_run(tmp_path / "there", AR).parent
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / folder.name).symlink_to(folder)
    assert main.main(["report", folder.name, "--workdir", str(tmp_path / "runs")]) == 2
    assert "is a link" in capsys.readouterr().err and not (folder / "report.html").exists()
