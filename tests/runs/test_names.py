"""Names of run folders: short, safe, and with the id at the end, by which a run is found again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fake_runs
from dlm.runs import names


@pytest.mark.parametrize(
    "label, name",
    [
        ("digits masked duration=260 epochs seed=0", "digits-masked-260ep-s0"),
        ("digits ar lr=0.002 weight_decay=0.1 seed=12", "digits-ar-lr0.002-weight_decay0.1-s12"),
        ("topics ar schedule=cosine", "topics-ar-schedule-cosine"),
        ("stdlib d3pm duration=1e9 tokens", "stdlib-d3pm-1e9tok"),
        ("a/../b .. $(rm) [x]", "a-..-b-rm-x"),
        ("数字", ""),
        ("", ""),
    ],
)
def test_a_label_is_the_beginning_of_a_name(label, name) -> None:
    made = names.folder_name(label, "bee6a16197")
    assert made.removesuffix("bee6a16197").removesuffix("-") == name.replace("..", ".")
    assert re.fullmatch(r"[A-Za-z0-9][\w.+-]*", made)


def test_a_long_label_keeps_its_first_and_its_last_words() -> None:
    label = "digits masked " + " ".join(f"option{i}=0.00{i}" for i in range(20)) + " seed=3"
    name = names.folder_name(label, "bee6a16197")
    assert len(name) <= names.LONGEST
    assert name.startswith("digits-masked-") and name.endswith("-option190.0019-s3-bee6a16197")
    endless = names.folder_name("x" * 300, "bee6a16197")
    assert len(endless) == names.LONGEST and endless.endswith("x-bee6a16197")


def test_the_id_is_the_end_of_the_name_else_what_run_json_says(tmp_path: Path) -> None:
    folder = fake_runs.write_run(tmp_path, fake_runs.diffusion(1e12, 2.0))
    run = folder.name
    named = folder.rename(folder.with_name(f"digits-ar-{run}"))
    assert names.run_id(folder) == names.run_id(named) == run
    renamed = named.rename(named.with_name("the best one"))
    assert names.run_id(renamed) == run
    (renamed / "run.json").write_text("{")
    assert names.run_id(renamed) == "the best one"


def test_a_run_keeps_its_folder_under_another_label(tmp_path: Path) -> None:
    runs = [("bee6a16197", "digits ar seed=0"), ("0123456789", "digits ar seed=1")]
    fresh = names.places(tmp_path, runs)
    assert [path.name for path in fresh] == ["digits-ar-s0-bee6a16197", "digits-ar-s1-0123456789"]
    (tmp_path / "digits-ar-lr0.1-bee6a16197").mkdir()
    (tmp_path / "0123456789").mkdir()
    found = [path.name for path in names.places(tmp_path, runs)]
    assert found == ["digits-ar-lr0.1-bee6a16197", "0123456789"]
    (tmp_path / "zzz-bee6a16197").mkdir()
    (tmp_path / "zzz-bee6a16197/result.json").touch()
    (tmp_path / "zzzz-bee6a16197").mkdir()
    assert names.places(tmp_path, runs)[0].name == "zzz-bee6a16197"
