"""Tables of runs: what is read, what is refused and how it is told, what is left out and why."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import planted
from dlm import runs
from dlm.errors import DlmError
from dlm.laws import table as tables
from dlm.laws.table import Table
from fake_runs import autoregressive, diffusion, edit, write_run

ROWS = """family,params,tokens,unique_tokens,loss,run
ar,1e7,1e9,1e8,3.5,a
ar,1e7,1e9,1e8,3.6,a
ar,1e8,1e9,1e9,3.1,b
masked,1e8,4e9,1e8,3.3,c
"""
AR = autoregressive(1.6, 1.5e11)
U = 12288  # twelve steps of the written runs, so that an epoch ends with a step


def written(tmp_path: Path, text: str, name: str = "runs.csv") -> Path:
    (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / name


def same(a: Table, b: Table) -> None:
    for field in ("N", "D", "U", "loss", "flops", "group"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (a.family, a.labels, a.excluded, a.notes) == (b.family, b.labels, b.excluded, b.notes)


# --- reading ------------------------------------------------------------------------------------


def test_one_table_per_family_rows_of_a_run_in_one_group(tmp_path):
    ar, masked = tables.read(written(tmp_path, ROWS))
    assert (ar.family, masked.family, ar.name) == ("ar", "masked", "runs.csv")
    np.testing.assert_array_equal(ar.N, [1e7, 1e7, 1e8])
    np.testing.assert_allclose(ar.epochs, [10, 10, 1])
    np.testing.assert_array_equal(ar.flops, 6 * ar.N * ar.D)
    np.testing.assert_array_equal(ar.group, [0, 0, 1])
    assert (len(ar), ar.groups, ar.labels) == (3, 2, ("a", "a", "b"))
    assert (ar.excluded, ar.notes) == ((), ())
    same(tables.one(tmp_path / "runs.csv", "masked"), masked)


def test_parquet_and_csv_give_the_same_table(tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    path = written(tmp_path, ROWS)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), tmp_path / "runs.parquet")
    for a, b in zip(tables.read(path), tables.read(tmp_path / "runs.parquet"), strict=True):
        same(a, b)


def test_short_names_spreadsheets_and_a_family_that_is_an_objective(tmp_path):
    said = "\ufeffN,D,U,loss,objective,flops\n1e7,1e9,1e8,3.5,ar,7e16\n"
    found = tables.one(written(tmp_path, said))
    assert (found.family, found.N[0], found.D[0], found.U[0]) == ("ar", 1e7, 1e9, 1e8)
    assert found.flops[0] == 7e16


def test_without_unique_tokens_every_run_is_one_epoch_and_that_is_said(tmp_path):
    found = tables.one(written(tmp_path, "params,tokens,loss\n1e7,1e9,3.5\n1e8,2e9,3\n"))
    np.testing.assert_array_equal(found.epochs, 1)
    assert found.notes == (
        "no column unique_tokens: every run is taken as one epoch over fresh tokens",
    )
    text = "params,tokens,unique_tokens,loss\n1e7,1e9,1e8,3.5\n1e8,2e9,,3\n"
    found = tables.one(written(tmp_path, text))
    np.testing.assert_array_equal(found.epochs, [10, 1])
    assert found.notes == ("unique_tokens has no number in 1 row: taken as one epoch",)


def test_a_source_is_that_of_every_row(tmp_path):
    text = "params,tokens,loss,source\n1e7,1e9,3.5,x_1\n1e8,2e9,3,{}\n"
    assert tables.one(written(tmp_path, text.format("x_1"))).source == "x_1"
    assert tables.one(written(tmp_path, text.format("x_2"))).source == ""


def test_a_table_of_part_of_the_rows_says_which_were_left_out():
    whole = planted.table("chinchilla")
    part = whole.only(whole.epochs < 100, "too many epochs")
    assert len(part) == 60 and part.groups == 60 and part.epochs.max() == 64
    assert len(part.excluded) == 15 and set(r for _, r in part.excluded) == {"too many epochs"}
    assert [label for label, _ in part.excluded] == [
        str(i) for i in np.flatnonzero(whole.epochs > 100)
    ]
    assert whole.only(whole.epochs < 100).excluded == ()


# --- what is left out ---------------------------------------------------------------------------


def test_unfinished_rows_and_rows_without_a_loss_are_listed(tmp_path):
    found = tables.read(written(tmp_path, """name,params,tokens,loss,status,family
good,1e7,1e9,3.5,finished,ar
bad,1e7,1e9,9.5,diverged: loss above 3 log V,ar
none,1e7,1e9,,finished,ar
lone,1e7,1e9,,,masked
"""))  # fmt: skip
    assert [table.family for table in found] == ["ar"]
    assert found[0].labels == ("good",)
    assert found[0].excluded == (
        ("row 3, bad", "status diverged: loss above 3 log V"), ("row 4, none", "no loss"),
        ("row 5, lone", "no loss (family masked: nothing of it is left)"),
    )  # fmt: skip


@pytest.mark.parametrize("points", tables.POINTS)
def test_runs_are_read_from_their_folders(tmp_path, points):
    write_run(tmp_path, AR, epochs=50, unique_tokens=U)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked", epochs=100, unique_tokens=U)
    write_run(tmp_path, AR, seed=1, status="diverged")
    write_run(tmp_path, AR, seed=2, status=None)
    loaded = {(r.objective, r.seed): r for r in runs.load(tmp_path)}
    run = loaded["ar", 0]
    ar, masked = sorted(tables.read(tmp_path, points=points), key=lambda t: t.family)
    assert (ar.family, masked.family) == ("ar", "masked")
    assert sorted(reason.split(":")[0] for _, reason in ar.excluded) == [
        "status diverged", "status unfinished",
    ]  # fmt: skip
    assert set(ar.N) == {run.result["params"]} and set(ar.U) == {U} and ar.groups == 1
    if points == "curve":
        np.testing.assert_array_equal(ar.loss, run.curve.validation_loss)
        np.testing.assert_array_equal(ar.D, run.curve.tokens)
    elif points == "last":
        assert (ar.loss[0], ar.D[0]) == (run.result["last_validation_loss"], run.result["tokens"])
    else:
        assert ar.loss[0] == run.result["validation_loss"]
        assert ar.epochs[0] == pytest.approx(run.result["best_epoch"])
        assert ar.flops[0] == run.result["best_flops"]


def test_corpora_do_not_mix(tmp_path):
    write_run(tmp_path, AR)
    write_run(tmp_path, AR, corpus="stdlib")
    assert sorted(t.family for t in tables.read(tmp_path)) == ["digits/ar", "stdlib/ar"]


def test_a_run_at_its_best_within_the_first_epoch_is_listed(tmp_path):
    write_run(tmp_path, AR, epochs=50, unique_tokens=U)
    early = write_run(tmp_path, AR, seed=1, epochs=50, unique_tokens=U) / "result.json"
    result = json.loads(early.read_text())
    edit(early, lambda values: values.update(best_flops=result["flops"] / 100))
    (found,) = tables.read(tmp_path)
    assert len(found) == 1
    assert found.excluded == (
        (result["label"], "finished, but this loss lies within the first epoch"),
    )


def test_the_loops_of_a_run_are_those_of_its_config(tmp_path):
    """Also of the table that is written; a run from before there were loops has one."""
    for seed, change in enumerate((
        lambda c: None, lambda c: c["model"].update(loops=4), lambda c: c["model"].pop("loops")
    )):  # fmt: skip
        edit(write_run(tmp_path, AR, seed=seed, unique_tokens=U) / "config.json", change)
    loaded = runs.load(tmp_path)
    assert sorted(row["loops"] or 0 for row in runs.rows(loaded)) == [0, 1, 4]
    table, _ = runs.write_table(loaded, tmp_path)
    for found in (tables.from_runs(loaded, "best", "runs"), tables.read(table)):
        assert sorted(found[0].loops) == [1, 1, 4]
        np.testing.assert_allclose(found[0].share, 390_000 / 400_000)


def test_curves_are_one_group_a_run(tmp_path):
    write_run(tmp_path, AR, epochs=50, unique_tokens=U)
    write_run(tmp_path, AR, seed=1, epochs=30, unique_tokens=U)
    loaded = runs.load(tmp_path)
    found = tables.of_curves(loaded, "digits", "ar")
    assert found.groups == 2 and len(found) == sum(len(r.curve.step) for r in loaded)
    assert tables.of_curves([], "digits", "ar") is None


def test_settings_are_told_apart_by_what_their_labels_do_not_share():
    labels = [f"digits ar lr={lr} seed={s}" for lr in (1, 2) for s in (0, 1)] + ["digits ar"]
    whole = dataclasses.replace(
        planted.table("chinchilla", sizes=[1e8], unique=[1e8]), labels=tuple(labels)
    )
    found = tables.settings(whole)
    assert {name: list(t.D / 1e8) for name, t in found.items()} == {
        "lr=1": [1, 4], "lr=2": [16, 64], "base": [256],
    }  # fmt: skip


# --- refusals -----------------------------------------------------------------------------------

HEAD = "params,tokens,unique_tokens,loss\n"


@pytest.mark.parametrize("text, words", [
    ("", "runs.csv: is empty; must be CSV"),
    (HEAD, "runs.csv: has no rows"),
    ("param,tokens,loss\n1e7,1e9,3\n",
     "runs.csv: no column params; has param, tokens, loss; name it with --columns params=param"),
    ("params,tokens,perplexity\n1e7,1e9,3\n",
     "runs.csv: no column loss; has params, tokens, perplexity; loss is the natural logarithm of "),
    (HEAD + "1e7,1e9,1e8,3\n7M,1e9,1e8,3\n",
     "runs.csv, row 3: params is '7M', no number; give raw counts, such as 7e6"),
    (HEAD + "1e7,,1e8,3\n", "no row with a loss of a finished run (row 2: no tokens)"),
    (HEAD + "1e7,1e9,1e8,\n", "runs.csv: no row with a loss of a finished run (row 2: no loss)"),
    (HEAD + "1e7,1e9,1e8,3\n1e7,1e9,1e8,-3\n",
     "runs.csv, row 3: loss=-3: must be above 0 and below 1000, in nats per token"),
    (HEAD + "1e7,1e9,1e8,2000\n", "of a perplexity give the natural logarithm"),
    (HEAD + "1e7,-1e9,1e8,3\n", "row 2: tokens=-1e+09: must be a positive number"),
    (HEAD + "1e7,1e9,0,3\n", "row 2: unique_tokens=0: must be a positive number"),
    (HEAD + "1e7,1e8,4e8,3\n",
     "row 2: 0.25 epochs (tokens=1e+08 below unique_tokens=4e+08): tokens are all that were "),
    ("params,tokens,loss,flops\n1e7,1e9,3,0\n", "row 2: flops=0: must be a positive number"),
])  # fmt: skip
def test_a_wrong_table_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(DlmError, match=re.escape(words)):
        tables.read(written(tmp_path, text))


def test_a_family_is_named_where_there_are_several(tmp_path):
    path = written(tmp_path, ROWS)
    with pytest.raises(DlmError, match=r"has the families ar, masked: name one with --family"):
        tables.one(path)
    with pytest.raises(DlmError, match=r"family='mask': .* has ar, masked; did you mean masked\?"):
        tables.one(path, "mask")


def test_a_folder_without_runs_and_unknown_points_are_refused(tmp_path):
    with pytest.raises(DlmError, match="no run"):
        tables.read(tmp_path)
    write_run(tmp_path, AR, status="failed")
    with pytest.raises(DlmError, match="no row with a loss of a finished run"):
        tables.read(tmp_path)
    with pytest.raises(DlmError, match="points='final': must be one of best, last, curve"):
        tables.read(tmp_path, points="final")


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(DlmError, match="x: columns of 2, 2, 2 and 1 rows"):
        tables.make([1e7, 1e8], [1e9, 1e9], [1e9, 1e9], [3.0], name="x")


def test_an_epoch_that_rounding_took_a_token_from_is_one():
    found = tables.make([1e8], [1e9 - 1], [1e9], [3.0])
    assert found.epochs[0] == 1.0 and math.isclose(found.D[0], 1e9 - 1)


# --- public tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("name, rows", [
    ("datablations_182", 182), ("gadre_openlm", 208), ("gemstones_cool_end", 199),
    ("gemstones_one_width_512", 175), ("gemstones_slim_chinchilla", 28),
])  # fmt: skip
def test_public_tables_are_read_whole(name, rows):
    found = tables.one(planted.public(f"fits/{name}.csv"))
    assert len(found) == rows and found.excluded == ()
    notes = [note for note in found.notes if not note.startswith("columns not used: ")]
    assert len(notes) == (name == "gadre_openlm")  # of three training sets, scored on two
    for note in notes:
        assert re.match(r"rows that differ in train_set \(.*\), source \(.*\) are fitted tog", note)
