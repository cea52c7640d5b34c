"""What RUN and FOLDER may be: paths, ids, beginnings of ids; what an error says of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import fake_runs
from dlm.cli import main, parser
from dlm.errors import DlmError
from dlm.report import page
from dlm.runs import addresses

IDS = ("0123456789", "0124aaaaaa", "9876543210")


@pytest.fixture
def workdir(tmp_path, monkeypatch) -> Path:
    """Three runs in two experiments, below runs/ of the working directory, and a token store."""
    monkeypatch.chdir(tmp_path)
    law = fake_runs.diffusion(1e12, 2.0)
    for seed, (name, experiment) in enumerate(zip(IDS, ("one", "one", "two"), strict=True)):
        made = fake_runs.write_run(tmp_path / "runs", law, experiment=experiment, seed=seed)
        made.rename(made.parent / name)
    (tmp_path / "runs/corpora/digits-0123").mkdir(parents=True)
    return Path("runs")


@pytest.mark.parametrize(
    "word, folder",
    [
        ("runs/one/0123456789", "one/0123456789"),
        ("runs/one/0123456789/", "one/0123456789"),
        ("runs/one/0123", "one/0123456789"),
        ("0123456789", "one/0123456789"),
        ("0123", "one/0123456789"),
        ("98", "two/9876543210"),
        ("two/9", "two/9876543210"),
        ("two", "two/9876543210"),  # the only run there
        ("runs/two", "two/9876543210"),
    ],
)
def test_a_run_is_its_path_its_id_or_a_unique_beginning(word, folder, workdir) -> None:
    assert addresses.run(word, workdir) == workdir / folder
    absolute = workdir.absolute()
    assert addresses.run(word.replace("runs/", f"{absolute}/"), absolute) == absolute / folder


@pytest.mark.parametrize(
    "word",
    [
        "digits-ar-s2-9876543210",
        "two/digits-ar-s2-9876543210",
        "digits-ar-s2",
        "98",
        "two/98",
        "runs/two/98",
        "runs/two/digits-ar-s2",
        "digits ar lr=0.002 seed=2",
        "seed=2 ar",
    ],
)
def test_a_run_under_a_readable_name_has_its_id_its_name_and_its_label(word, workdir) -> None:
    place = workdir / "two/digits-ar-s2-9876543210"
    (workdir / "two/9876543210").rename(place)
    assert addresses.run(word, workdir) == addresses.folder(word, workdir) == place
    (place / "run.json").write_text("{")
    assert "seed" in word or addresses.run(word, workdir) == place  # all but its label


def test_words_that_several_labels_hold_are_ambiguous(workdir) -> None:
    with pytest.raises(DlmError, match=r"ar lr=0.002: may be any of 3 runs: one/0123456789 .dig"):
        addresses.run("ar lr=0.002", workdir)


def test_an_id_is_looked_for_below_the_workdir_of_the_call(workdir, tmp_path) -> None:
    shutil.copytree("runs/two", "elsewhere/two")
    assert addresses.run("98", Path("elsewhere")) == Path("elsewhere/two/9876543210")
    with pytest.raises(DlmError, match="0123: no such run"):
        addresses.run("0123", Path("elsewhere"))


def test_an_ambiguous_beginning_lists_its_runs(workdir) -> None:
    for word in ("012", "one", "runs/one", "runs/one/0"):
        with pytest.raises(DlmError) as told:
            addresses.run(word, workdir)
        assert str(told.value) == (
            f"{word}: may be any of 2 runs: one/0123456789 (digits ar lr=0.002 seed=0), "
            "one/0124aaaaaa (digits ar lr=0.002 seed=1); give more of it"
        )


@pytest.mark.parametrize(
    "word, told",
    [
        ("9867543210", ["no such run", "did you mean two/9876543210 (digits ar lr=0.002 seed=2)?"]),
        ("987654321x", ["did you mean two/9876543210"]),
        (
            "runs/one/99",
            ["no such run", "a label that begins so below runs, where 3 runs lie"],
        ),
        ("", ["'': no run; give its folder"]),
        ("zzzz", ["zzzz: no such run; looked for its folder, and for an id"]),
    ],
)
def test_an_unknown_run_is_told_with_the_nearest_and_where_it_was_looked_for(
    word, told, workdir
) -> None:
    with pytest.raises(DlmError) as error:
        addresses.run(word, workdir)
    text = str(error.value)
    assert all(part in text for part in told) and "\n" not in text, text


def test_without_a_workdir_that_is_told(tmp_path) -> None:
    with pytest.raises(DlmError, match="nowhere, which does not exist .--workdir names"):
        addresses.run("0123", tmp_path / "nowhere")


def test_a_folder_of_runs_is_a_path_or_a_name_below_the_workdir(workdir) -> None:
    for word, folder in (
        (None, "."),
        ("one", "one"),
        ("runs/one", "one"),
        ("98", "two/9876543210"),
    ):
        assert addresses.folder(word, workdir) == workdir / folder
    with pytest.raises(DlmError, match=r"onne: no such folder of runs; did you mean one\?; below"):
        addresses.folder("onne", workdir)


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "0123"),
        ("sample", "0123"),
        ("quality", "0123", "--reference-model", "98"),
        ("spectrum", "0123", "98"),
    ],
)
def test_every_verb_that_takes_a_run_finds_it(words, workdir, monkeypatch, capsys) -> None:
    """Until its checkpoint, which these runs lack."""
    assert words[0] in parser.VERBS
    assert main.main(list(words)) == 2
    assert "runs/one/0123456789" in capsys.readouterr().err
    assert main.main([words[0], "zzzz", *words[2:]]) == 2
    assert "zzzz: no such run" in capsys.readouterr().err


def test_every_verb_that_takes_a_folder_finds_it(workdir, monkeypatch, capsys) -> None:
    assert main.main(["runs", "two"]) == 0
    assert "two: digits ar lr=0.002 seed=2\n1 runs" in capsys.readouterr().out
    monkeypatch.setattr(page, "write", lambda folder, *_: folder / "report.html")
    monkeypatch.setattr(page, "summary", lambda folder, loaded: [])
    assert main.main(["report", "two"]) == 0
    assert "report: runs/two/report.html" in capsys.readouterr().out
    started: list[list[str]] = []
    monkeypatch.setattr(main.os, "execv", lambda path, words: started.append(words))
    main.main(["tensorboard", "98"])  # one run, named by its folder
    spec = "9876543210:runs/two/9876543210/tensorboard"
    assert started[0][3:5] == ["--logdir_spec", spec]
    main.main(["tensorboard", "one"])
    assert started[1][3:5] == ["--logdir", "runs/one"]
