"""The command line: the verbs on a real, finished experiment, and what a mistake is told."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from dlm import config, disk
from dlm.cli import main, parser
from dlm.data import build
from dlm.report import page as report
from dlm.runs import folder as run_folder
from dlm.sweep import local as sweep
from dlm.training import loop
from places import ROOT
from tolerances import TRAINED


def dlm(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache) -> Path:
    """The workdir of `dlm run` on the tiny experiment: two families, real workers."""
    folder = tmp_path_factory.mktemp("finished")
    path = tiny.experiment_file(folder)
    done = subprocess.run(
        [sys.executable, "-m", "dlm", "run", str(path), "--workdir", str(folder / "runs")],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def at_home(monkeypatch, cache) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def folders(finished: Path) -> dict[str, Path]:
    found = (finished / "runs" / "tiny_experiment").glob("*/result.json")
    return {json.loads(path.read_text())["objective"]: path.parent for path in found}


# --- verbs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", parser.VERBS)
def test_help_teaches_by_example(verb, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        dlm(verb, "--help")
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert "examples:" in text and f"dlm {verb} " in text.split("examples:")[1]


@pytest.mark.parametrize("verb", ["", *parser.VERBS])
def test_help_fits_the_terminal_and_breaks_no_word(verb, capsys, monkeypatch) -> None:
    """The words are those of a page of any width, but for the end of a line that goes on."""
    pages = {}
    for width in (1000, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            dlm(*([verb] if verb else []), "--help")
        pages[width] = capsys.readouterr().out
    wide, narrow = (sorted(w for w in page.split() if w != "\\") for page in pages.values())
    assert wide == narrow
    assert max(map(len, pages[80].splitlines())) <= 80


def test_run_leaves_finished_runs_a_table_and_a_report(finished) -> None:
    said = (finished / "said").read_text()
    assert "2 runs" in said and "report.html" in said
    runs = folders(finished)
    assert runs.keys() == {"ar", "masked"}
    for name, folder in runs.items():
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == "finished"
        assert result["kind"] == ("exact" if name == "ar" else "upper bound")
        files = {path.name for path in folder.iterdir()}
        wanted = {"config.json", "run.json", "metrics.jsonl", "ledger.npy", "samples.txt"}
        assert wanted <= files and "error.txt" not in files
    page = finished / "runs" / "tiny_experiment" / "report.html"
    assert "<svg" in page.read_text() or "<img" in page.read_text()


def test_a_second_run_does_nothing_and_says_so(finished, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sweep, "execute", lambda *a: pytest.fail("nothing is to be done"))
    before = {p: p.stat().st_mtime_ns for p in finished.glob("runs/*/*/result.json")}
    assert dlm("run", finished / "tiny_experiment.py", "--workdir", finished / "runs") == 0
    assert "0 to do" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in finished.glob("runs/*/*/result.json")}


def test_a_damaged_run_is_named_left_alone_and_finished_again_if_asked(
    finished, tmp_path, capsys, monkeypatch, at_home
) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    words = (finished / "tiny_experiment.py", "--workdir", tmp_path / "runs")
    folder = folders(tmp_path)["ar"]
    loss = run_folder.read_json(folder / "result.json")["validation_loss"]
    config_file = folder / "config.json"
    config_file.write_text(config_file.read_text().replace('"layers": 1', '"layers": 7'))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "execute", lambda *a: pytest.fail("nothing is to be done"))
        assert dlm("run", *words, "--dry-run") == dlm("run", *words) == 1
    told = capsys.readouterr()
    assert "0 to do, 1 unreadable" in told.out and "left out: topics ar" in told.out
    dry, line = told.err.splitlines()
    assert dry == line and line.startswith(f"unreadable: {folder}: config.json is not as it was")
    assert "delete its result.json" in line
    for verb in (("evaluate", folder), ("sample", folder), ("train", *words, "--run", 1)):
        assert "config.json is not as it was written" in refused(capsys, *verb)
    assert before == {path: path.read_bytes() for path in before}
    (folder / "result.json").unlink()
    assert dlm("train", *words, "--run", 1) == 0
    assert run_folder.status(folder) == "finished"
    result = run_folder.read_json(folder / "result.json")
    assert result["validation_loss"] == pytest.approx(loss, rel=TRAINED) and result["gaps"] == []


def test_a_report_that_cannot_be_made_costs_no_run(finished, capsys, monkeypatch) -> None:
    def broken(folder: Path, loaded: report.Loaded) -> Path:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("dlm.report.page.write", broken)
        words = ("run", finished / "tiny_experiment.py", "--workdir", finished / "runs")
        assert dlm(*words) == 1
    told = capsys.readouterr().err
    assert "no report: ZeroDivisionError; the runs are saved" in told


def test_a_dry_run_lists_and_trains_nothing(tmp_path, capsys) -> None:
    path = tiny.experiment_file(tmp_path)
    assert dlm("run", path, "--workdir", tmp_path / "runs", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "topics masked" in out and "topics ar" in out and "FLOPs" in out
    assert not list(tmp_path.glob("runs/tiny_experiment/*"))


def test_a_dry_run_fetches_nothing(tmp_path, capsys, monkeypatch) -> None:
    """Runs on C4 are planned by their configs, whatever number of hosts would train them."""
    lines = "".join(f'{{"text": "some words {i}"}}\n' for i in range(60))
    (tmp_path / "a.jsonl").write_text(lines)
    local = config.Corpus(
        name="hub", options={"dataset": "json", "files": str(tmp_path / "a.jsonl")}
    )
    spelt = config.Tokenizer(kind="bytes")
    assert build.to_fetch(local, spelt, tmp_path / "corpora")
    build.build(local, spelt, tmp_path / "corpora")  # another corpus of the Hub has a store
    assert not build.to_fetch(local, spelt, tmp_path / "corpora")
    assert build.to_fetch(local, config.Tokenizer(kind="gpt2"), tmp_path / "corpora")
    monkeypatch.setattr("dlm.data.build.build", lambda *_: pytest.fail("builds"))
    path = ROOT / "experiments/paper_orderings.py"
    words = ("run", path, "--scale", "paper", "--workdir", tmp_path, "--dry-run", "--distributed")
    assert dlm(*words) == 0
    out = capsys.readouterr().out
    assert "10 runs" in out and "1.9×10²⁰ FLOPs" in out
    assert out.count("----------") == out.count("no store") == 10
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "corpora"}


def test_evaluate_repeats_the_result(finished, at_home, capsys) -> None:
    """The same estimator, weights and noise, so the same number; other devices, so to 1e-4."""
    folder = folders(finished)["masked"]
    assert dlm("evaluate", folder) == 0
    out = capsys.readouterr().out
    loss = json.loads((folder / "result.json").read_text())["validation_loss"]
    assert f"validation: {loss:.3f}" in out or f"validation: {loss:.4f}"[:16] in out
    assert "upper bound" in out and "Monte Carlo error" in out and "bits per byte" not in out


def test_sample_draws_what_was_asked(finished, at_home, capsys) -> None:
    folder = folders(finished)["masked"]
    assert dlm("sample", folder, "--count", 3, "--prompt", "5 7") == 0
    drawn = capsys.readouterr().out.strip().split("\n-----\n")
    assert len(drawn) == 3
    for text in drawn:
        ids = [int(word) for word in text.split()]
        assert ids[:2] == [5, 7] and len(ids) == 16 and all(0 <= i < 16 for i in ids)


def test_runs_lists_and_writes_tables(finished, capsys) -> None:
    assert dlm("runs", finished / "runs") == 0
    out = capsys.readouterr().out
    assert "topics masked" in out and "2 runs" in out and "finished" in out
    assert (finished / "runs" / "runs.csv").exists()
    assert (finished / "runs" / "runs.parquet").exists()


def test_report_is_written_again(finished, capsys) -> None:
    folder = finished / "runs" / "tiny_experiment"
    (folder / "report.html").unlink()
    assert dlm("report", folder) == 0
    assert (folder / "report.html").exists() and "report:" in capsys.readouterr().out


def test_corpus_describes_the_store(finished, capsys) -> None:
    assert dlm("corpus", finished / "tiny_experiment.py", "--workdir", finished / "runs") == 0
    out = capsys.readouterr().out
    assert "fingerprint" in out and "vocabulary 16" in out and "training:" in out


def test_corpus_says_what_one_should_know(tmp_path, capsys) -> None:
    texts = [*(f"some words {i}" for i in range(60) for _ in range(2)), None]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps({'text': t})}\n" for t in texts))
    path = tmp_path / "own.py"
    path.write_text(
        '"""Does it read?"""\nfrom dlm import config\n\n\ndef get_config(scale):\n'
        '    c = config.base()\n    c.corpus.name = "files"\n'
        f'    c.corpus.options.paths = "{tmp_path}/a.jsonl"\n    return c\n'
    )
    assert dlm("corpus", path, "--workdir", tmp_path / "runs") == 0
    out = capsys.readouterr().out
    assert "note: 1 of 121 rows without text left out" in out and "a.jsonl:121: 'text'" in out
    assert re.search(r"note: (\d+) of (\d+) training documents are copies .*U\) count them", out)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.fixture
def experiment(tmp_path) -> Path:
    return tiny.experiment_file(tmp_path)


def refused(capsys, *words: object) -> str:
    """What the last line of stderr says of a command that is refused: exit code 2, no traceback."""
    try:
        code = dlm(*words)
    except SystemExit as left:  # argparse, which prints the usage first
        code = left.code
    err = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert "error: " in lines[-1]
    assert lines[-1].startswith("error: ") is (len(lines) == 1)
    return lines[-1]


@pytest.mark.parametrize(
    "override, told",
    [
        ("model.layer=6", ["config.model.layer: no such key", "did you mean model.layers?"]),
        ("model.layers=six", ["config.model.layers='six'", "an integer"]),
        ("model.layers=0", ["config.model.layers=0", "from 1 to 1,000"]),
        ("model=3", ["config.model", "is a group"]),
        ("model.heads=3", ["config.model.heads=3", "divisor of model.width=16"]),
        ("objective.name=arr", ["config.objective.name='arr'", "did you mean ar?"]),
        ("corpus.name=digit", ["config.corpus.name='digit'", "did you mean digits?"]),
        ("corpus.options.lenght=8", ["lenght", "did you mean length?"]),
        ("data.unique_tokens=160000", ["config.data.unique_tokens=160000", "at most"]),
        ("data.unique_tokens=100", ["config.data.unique_tokens=100", "a multiple of"]),
        ("data.seq_len=5", ["config.data.", "5"]),
        ("train.batch_size=64", ["config.train.batch_size=64", "at most 32"]),
        ("train.duration='many epochs'", ["config.train.duration", "60 epochs"]),
        ("train.duration=60", ["config.train.duration=60", "'60 epochs'", "tokens"]),
        ("model.attention=cudnn", ["config.model.dtype='float32'", "bfloat16", "cudnn"]),
        ("train.seed=1.5", ["config.train.seed=1.5", "an integer"]),
        ("optimizer.lr=-1", ["config.optimizer.lr=-1", "from 1e-10 to 10"]),
    ],
)
def test_a_wrong_override_names_the_field(experiment, capsys, override, told) -> None:
    workdir = experiment.parent / "runs"
    line = refused(capsys, "run", experiment, f"--config.{override}", "--workdir", workdir)
    assert all(word in line for word in told), line
    assert not list(workdir.glob("tiny_experiment/*"))


def test_train_leaves_its_error_in_the_run(experiment, capsys, monkeypatch, at_home) -> None:
    """Of a mistake, which is one line, and of anything else, which comes out with its traceback."""
    monkeypatch.setattr(main.signal, "signal", lambda *arguments: None)  # of the test process: kept
    workdir = experiment.parent / "runs"
    words = ("train", experiment, "--workdir", workdir, "--config.model.dtype=bfloat16")
    line = refused(capsys, *words, "--config.model.attention=cudnn")
    assert "config.model.attention='cudnn'" in line and "a GPU" in line
    (told,) = workdir.glob("tiny_experiment/*/error.txt")
    assert "config.model.attention='cudnn'" in told.read_text()

    def planted(*arguments, **named):
        raise RuntimeError("planted\nwith a second line")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", planted)
        with pytest.raises(RuntimeError, match="planted"):
            dlm(*words)
    (other,) = set(workdir.glob("tiny_experiment/*/error.txt")) - {told}
    text, folder = other.read_text(), other.parent
    assert "Traceback" in text and "RuntimeError: planted" in text and "in planted" in text
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "failed" and result["reason"] == "RuntimeError: planted"
    assert run_folder.status(folder) not in run_folder.DONE  # so the same command tries again


def test_a_train_that_is_interrupted_has_not_failed(
    experiment, capsys, monkeypatch, at_home
) -> None:
    def interrupted(*arguments, **named):
        raise loop.Interrupted

    monkeypatch.setattr(main.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(loop, "train", interrupted)
    workdir = experiment.parent / "runs"
    assert dlm("train", experiment, "--workdir", workdir) == 75
    (folder,) = workdir.glob("tiny_experiment/*")
    assert run_folder.status(folder) == "started" and not (folder / "error.txt").exists()


def test_other_wrong_words(experiment, capsys, tmp_path) -> None:
    assert "no such experiment" in refused(capsys, "run", tmp_path / "tiny_experimant.py")
    assert "tiny_experiment.py" in refused(capsys, "run", tmp_path / "tiny_experimant.py")
    assert "--scale=huge" in refused(capsys, "run", experiment, "--scale", "huge")
    assert "--jobs=-1" in refused(capsys, "run", experiment, "--jobs", -1)
    assert "--confg.model" in refused(capsys, "run", experiment, "--confg.model.layers=6")
    assert "--config.model.layers" in refused(capsys, "run", experiment, "--config.model.layers")
    workdir = ("--workdir", tmp_path / "runs")
    assert "--run=2: must be 0 to 1" in refused(capsys, "train", experiment, "--run", 2, *workdir)
    assert "no such run" in refused(capsys, "evaluate", tmp_path / "nothing")
    assert str(tmp_path / "nothing") in refused(capsys, "sample", tmp_path / "nothing")
    refused(capsys, "runs", tmp_path / "nothing")
    refused(capsys, "report", tmp_path / "nothing")
    refused(capsys, "tensorboard", tmp_path / "nothing")


def test_a_broken_experiment_names_its_line(tmp_path, capsys) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import dlm\n\n\ndef get_config(scale):\n    return 1 / 0\n")
    assert f"{path}:5" in refused(capsys, "run", path)
    path.write_text("def get_config(scale):\n    return {}\n")
    assert "dlm.config.base()" in refused(capsys, "run", path)
    path.write_text("def get_config(\n")
    assert "SyntaxError" in refused(capsys, "run", path)


def test_a_workdir_below_a_file(experiment, capsys, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(capsys, "run", experiment, "--workdir", tmp_path / "file" / "runs")
    assert "--workdir=" in line and "Not a directory; must be a folder" in line


@pytest.mark.parametrize("text", ["{", "{}", '{"format": "of another program"}', "\xff"])
def test_a_corrupt_or_foreign_manifest(experiment, capsys, tmp_path, text) -> None:
    workdir = ("--workdir", tmp_path / "runs")
    assert dlm("corpus", experiment, *workdir) == 0
    capsys.readouterr()
    (manifest,) = tmp_path.glob("runs/corpora/topics-*/manifest.json")
    manifest.write_text(text, encoding="latin-1")
    for verb in ("run", "corpus"):
        line = refused(capsys, verb, experiment, *workdir)
        assert "manifest.json" in line and "delete" in line


def test_a_checkpoint_that_cannot_be_read(finished, tmp_path, capsys, at_home) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(finished / "runs", folder)
    for state in folders(tmp_path)["ar"].glob("checkpoints/*/state"):
        shutil.rmtree(state)
    line = refused(capsys, "evaluate", folders(tmp_path)["ar"])
    assert "/state/" in line and "is missing" in line and "put the file back" in line


def test_a_run_without_a_checkpoint(finished, tmp_path, capsys, at_home) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(finished / "runs", folder)
    shutil.rmtree(folders(tmp_path)["ar"] / "checkpoints")
    assert "has no checkpoint yet" in refused(capsys, "sample", folders(tmp_path)["ar"])


def test_bad_sampling_options(finished, capsys, at_home) -> None:
    folder = folders(finished)["masked"]
    assert "--top-p=2" in refused(capsys, "sample", folder, "--top-p", 2)
    assert "--count=0" in refused(capsys, "sample", folder, "--count", 0)
    assert "--prompt" in refused(capsys, "sample", folder, "--prompt", "hello")
    assert "--sampler=best" in refused(capsys, "sample", folder, "--sampler", "best")


def test_a_full_disk_is_one_line(experiment, capsys, tmp_path, monkeypatch) -> None:
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "tokens.bin")

    monkeypatch.setattr(Path, "write_text", full)
    line = refused(capsys, "run", experiment, "--workdir", tmp_path / "runs")
    assert "No space left" in line


def test_json_on_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "result.json"
    disk.write_json(path, {"loss": float("nan"), "n": 1})
    written = path.read_text()
    assert json.loads(written) == {"loss": None, "n": 1}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_json(path, {"n": 2})
    assert path.read_text() == written and os.listdir(tmp_path) == [path.name]
