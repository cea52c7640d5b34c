"""Bad and odd tables, as people have them: each is read right, or refused in one line that helps."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import planted
from dlm import runs
from dlm.cli import main
from dlm.errors import DlmError
from dlm.laws import columns as titles
from dlm.laws import table as tables
from dlm.laws.table import Table
from fake_runs import autoregressive, diffusion, edit, write_run

HEAD = "params,tokens,loss\n"
ROWS = "2e7,1e8,5.46\n2e7,2e8,4.94\n2e7,4e8,4.52\n7e7,4e8,3.9\n"
N, D, LOSS = [2e7, 2e7, 2e7, 7e7], [1e8, 2e8, 4e8, 4e8], [5.46, 4.94, 4.52, 3.9]
EUROPE = "params;tokens;loss\n20.000.000;1,0e8;5,46\n2e7;200000000;4,94\n"


def one(tmp_path: Path, content: str | bytes, name: str = "t.csv", *words: str) -> Table:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tables.one(path, columns=titles.parse(words))


# --- files --------------------------------------------------------------------------------------


def with_quoted_newline(text: str) -> bytes:
    first, *rest = text.splitlines()
    return "\n".join(
        [first + ",notes", rest[0] + ',"two\nlines"', *(r + ",x" for r in rest[1:])]
    ).encode()


FILES: dict[str, Callable[[str], bytes]] = {
    "a BOM": lambda t: b"\xef\xbb\xbf" + t.encode(),
    "UTF-16": lambda t: t.encode("utf-16"),
    "UTF-16 without a BOM": lambda t: t.encode("utf-16-le"),
    "UTF-16, big end first": lambda t: t.encode("utf-16-be"),
    "Windows-1252": lambda t: re.sub("\n", ",café\n", t).encode("cp1252"),
    "Windows lines": lambda t: t.replace("\n", "\r\n").encode(),
    "old Macintosh lines": lambda t: t.replace("\n", "\r").encode(),
    "blank lines": lambda t: ("\n\n" + t.replace("\n", "\n\n")).encode(),
    "semicolons": lambda t: t.replace(",", ";").encode(),
    "tabs": lambda t: t.replace(",", "\t").encode(),
    "spaces around": lambda t: t.replace(",", " , ").encode(),
    "sep=, above the titles": lambda t: ("sep=;\n" + t.replace(",", ";")).encode(),
    "decimal commas": lambda t: t.replace(",", ";").replace(".", ",").encode(),
    "decimal commas, tabs": lambda t: t.replace(",", "\t").replace(".", ",").encode(),
    "gzip": lambda t: gzip.compress(t.encode()),
    "bzip2": lambda t: bz2.compress(t.encode()),
    "xz": lambda t: lzma.compress(t.encode()),
    "separators of thousands": lambda t: t.replace("2e7", '"20,000,000"').replace(
        "7e7", "70_000_000"
    ).replace("1e8", "100 000 000").encode(),
    "a last comma": lambda t: t.replace("\n", ",\n").encode(),
    "an index": lambda t: "\n".join(
        f"{'' if i == 0 else i - 1},{line}" for i, line in enumerate(t.splitlines())
    ).encode(),
    "an index, tabs": lambda t: FILES["an index"](t).replace(b",", b"\t"),
    "blanks above": lambda t: b" \n,,\n" + t.encode(),
    "a quoted newline": with_quoted_newline,
    "a cell of 200 kB": lambda t: re.sub("\n", ",notes\n", t, count=1).encode()
    + b"7e7,8e8,," + b"x" * 200_000,
    "titles again": lambda t: (t + t.splitlines()[0] + "\n").encode(),
    "capitals": lambda t: t.replace("params", "Params").replace("tokens", "TOKENS").encode(),
    "other names": lambda t: t.replace("params", "Model Size").replace(
        "tokens", "Training-Tokens"
    ).replace("loss", "val/loss").encode(),
    "letters": lambda t: t.replace("params,tokens", "N,D").encode(),
    "small letters": lambda t: t.replace("params,tokens", "n,d").encode(),
    "doubled rows": lambda t: (t + "\n".join(t.splitlines()[1:]) + "\n").encode(),
}  # fmt: skip


@pytest.mark.parametrize("how", FILES)
def test_a_file_is_read_whatever_its_form(tmp_path, how):
    t = one(tmp_path, FILES[how](HEAD + ROWS))
    np.testing.assert_array_equal([t.N, t.D, t.loss], [N, D, LOSS])


def test_parquet_and_zstandard_are_known_by_what_they_begin_with(tmp_path):
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.csv.read_csv(pa.BufferReader((HEAD + ROWS).encode()))
    pyarrow.parquet.write_table(table, tmp_path / "named.csv")
    with pa.output_stream(tmp_path / "t.csv.zst", compression="zstd") as stream:
        stream.write((HEAD + ROWS).encode())
    for name in ("named.csv", "t.csv.zst"):
        np.testing.assert_array_equal(tables.one(tmp_path / name).loss, LOSS)


def flipped(content: bytes) -> bytes:
    half = len(content) // 3
    return content[:half] + bytes(255 - b for b in content[half : half + 40]) + content[half + 40 :]


DAMAGED = {
    "nothing": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
    "a BOM alone": (b"\xff\xfe", "is empty"),
    "titles alone": (HEAD.encode(), "has no rows"),
    "a zip": (b"PK\x03\x04" + bytes(40), "is a zip archive or an Excel workbook; must be CSV"),
    "JSON": (b'[{"params": 1}]', "is JSON; must be CSV"),
    "NUL bytes": ((HEAD + ROWS).encode() + bytes(64), r"line 6: holds the byte '\x00': damaged?"),
    "noise": (bytes(range(256)) * 4, "not a text file; must be CSV"),
    "control characters": (b"params\x1b\x02,", "line 1: holds the byte"),
    "half of a gzip": (gzip.compress((HEAD + ROWS).encode())[:-12], "damaged gzip file"),
    "noise in gzip": (b"\x1f\x8b" + bytes(30), "damaged gzip file"),
    "half of an xz": (lzma.compress(b"x" * 99)[:-20], "damaged xz file"),
    "an open quote": ((HEAD + '"2e7,1e8,3\n').encode(), "t.csv, line 2: unexpected end of data"),
    "a comma too many": ((HEAD + "2e7,1,000,3\n").encode(), "row 2: has more fields than the tit"),
    "Parquet's name": (b"PAR1 is no table", "not a Parquet file, or damaged"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, what, capsys):
    content, words = DAMAGED[what]
    (tmp_path / "t.csv").write_bytes(content)
    assert main.main(["fit", str(tmp_path / "t.csv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_damaged_parquet_file_and_a_folder_of_junk_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    values = {name: np.random.default_rng(0).random(99) for name in ("params", "tokens", "loss")}
    pyarrow.parquet.write_table(pa.table(values), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    for damaged in (content[:-9], content[:99], content[:-60] + b"\xff" * 40 + content[-20:]):
        with pytest.raises(DlmError, match=r"not a Parquet file, or damaged \("):
            one(tmp_path, damaged, "damaged.parquet")
    (tmp_path / "junk" / "inner").mkdir(parents=True)
    (tmp_path / "junk" / "inner" / "notes.txt").write_text("x")
    with pytest.raises(DlmError, match="no run here; must be a folder of runs, or name a table"):
        tables.read(tmp_path / "junk")


# --- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head, row, both, meaning", [
    ("params,tokens,Loss,loss", "2e7,1e8,5,3", ("Loss", "loss"), "loss"),
    ("params,tokens,val_loss,eval/loss", "2e7,1e8,5,3", ("val_loss", "eval/loss"), "loss"),
    ("params,tokens,loss,unique,U", "2e7,1e8,3,1e8,2e7", ("unique", "U"), "unique_tokens"),
    ("N,params,tokens,loss", "2e7,2e7,1e8,3", ("N", "params"), "params"),
    ("params,D,training tokens,loss", "2e7,1e8,1e8,3", ("D", "training tokens"), "tokens"),
    ("params,tokens,loss,objective,Family", "2e7,1e8,3,ar,ar", ("objective", "Family"), "family"),
    ("params,tokens,loss,State,status", "2e7,1e8,3,ok,ok", ("State", "status"), "status"),
    ("params,tokens,loss,loss.1", "2e7,1e8,3,3", ("loss", "loss.1"), "loss"),
])  # fmt: skip
def test_two_columns_of_one_meaning_are_refused(tmp_path, head, row, both, meaning):
    words = f"columns {both[0]!r} and {both[1]!r} both mean {meaning}; choose one, as in --columns "
    with pytest.raises(DlmError, match=re.escape(words)):
        one(tmp_path, f"{head}\n{row}\n")
    chosen = one(tmp_path, f"{head}\n{row}\n", "t.csv", f"{meaning}={both[1]}")
    assert f"columns not used: {both[0]}" in chosen.notes


def test_a_doubled_title_is_refused(tmp_path):
    with pytest.raises(DlmError, match="two columns are called 'loss'; rename one of them"):
        one(tmp_path, "params,tokens,loss,loss\n2e7,1e8,5,3\n")


def test_columns_are_named_by_their_meaning(tmp_path):
    text = "size of it,seen,nll,part,compute\n2e7,1e8,3,ar,1.2e16\n"
    words = ("params=size of it", "tokens=seen,loss=NLL", "family=part", "flops=")
    t = one(tmp_path, text, "t.csv", *words)
    assert (t.family, t.N[0], t.D[0], t.loss[0]) == ("ar", 2e7, 1e8, 3)
    assert "columns not used: compute" in t.notes


@pytest.mark.parametrize("words, told", [
    (["params"], "--columns params: must be MEANING=COLUMN, as in params=n_params"),
    (["param=x"], "param is not one of params, tokens, loss, "),
    (["param=x"], "did you mean params?"),
    (["loss=nl"], "--columns loss=nl: no such column; did you mean nll?; has params, tokens, nll"),
    (["loss=nll", "loss=loss"], "--columns: loss is given twice"),
    (["loss=nll", "tokens=nll"], "--columns gives nll to loss and tokens"),
    (["loss=L"], "no such column"),
    (["loss=n ll"], "names several columns"),
    (["loss="], "no column loss; has params, tokens, nll, NLL, n-ll"),
])  # fmt: skip
def test_wrong_columns_are_refused(tmp_path, words, told):
    with pytest.raises(DlmError, match=re.escape(told)):
        one(tmp_path, "params,tokens,nll,NLL,n-ll\n2e7,1e8,3,3,3\n", "t.csv", *words)


def test_every_verb_that_reads_a_table_takes_columns(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("n_params,n_tokens,nll\n2e7,1e8,3\n")
    for verb in ("fit", "critical", "figures", "report"):
        assert main.main([verb, str(tmp_path / "t.csv"), "--columns", "loss=val"]) == 2
        assert "t.csv: --columns loss=val: no such column; has n_params" in capsys.readouterr().err


FAMILIES = "".join(
    f"{n}e7,1e9,{3 - n / 100},{word},{word[:1]}\n" for n in (1, 2, 3) for word in ("ar", "masked")
)


def test_a_column_of_few_words_at_several_sizes_is_a_family_by_another_name(tmp_path):
    (tmp_path / "t.csv").write_text(f"params,tokens,loss,model,kind\n{FAMILIES}")
    ar, masked = tables.read(tmp_path / "t.csv")
    assert (ar.family, len(ar), masked.family, len(masked)) == ("ar", 3, "masked", 3)
    assert "column model is taken for the family (ar, masked)" in ar.notes
    (together,) = tables.read(tmp_path / "t.csv", columns={"family": ""})
    assert len(together) == 6
    assert any(
        n.startswith("rows that differ in model (ar, masked), kind (a, m) are f")
        for n in together.notes
    )


def test_a_model_that_may_be_a_family_is_not_pooled_unseen(tmp_path):
    many = "\n".join(f"{n}e7,1e9,3.{n}{w},m{w}" for n in (1, 2) for w in range(5))
    with pytest.raises(DlmError, match=r"model has 5 words in 10 rows: families\? fit each with -"):
        one(tmp_path, f"params,tokens,loss,model\n{many}\n")
    names = "\n".join(f"{n}e7,1e9,3.{n},size-{n}" for n in range(1, 9))
    assert one(tmp_path, f"params,tokens,loss,model\n{names}\n").family == "all"
    with pytest.raises(DlmError, match="columns 'model' and 'arch' both mean family"):
        one(tmp_path, "params,tokens,loss,model,arch\n" + FAMILIES)


def test_families_that_differ_in_case_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("params,tokens,loss,family\n2e7,1e8,3,AR\n3e7,1e8,3,ar\n")
    first, second = tables.read(tmp_path / "t.csv")
    note = "families AR and ar are fitted apart: one name each?"
    assert note in first.notes and note in second.notes
    (tmp_path / "t.csv").write_text("params,tokens,loss,family\n2e7,1e8,3,wd0.1\n3e7,1e8,3,wd0.5\n")
    assert len(tables.read(tmp_path / "t.csv")[0].notes) == 1  # of unique_tokens


def test_loops_are_read_and_cost_what_they_pass(tmp_path):
    t = one(tmp_path, "N,D,loss,Loops,looped_params\n2e7,1e8,3,4,1e7\n3e7,1e8,2.9,,\n")
    np.testing.assert_array_equal(t.loops, [4, 1])
    np.testing.assert_array_equal(t.share, [0.5, 1])
    np.testing.assert_array_equal(t.flops, [6 * 5e7 * 1e8, 6 * 3e7 * 1e8])
    assert "loops has no number in 1 row: taken as 1" in t.notes
    np.testing.assert_array_equal(t.only(t.N < 2.5e7).loops, [4])
    plain = one(tmp_path, HEAD + ROWS)
    np.testing.assert_array_equal([plain.loops, plain.share], np.ones((2, 4)))


@pytest.mark.parametrize("cells, words", [
    ("0,1e7", "row 2: loops=0: must be 1 or more"), ("0.5,1e7", "loops=0.5: must be 1 or more"),
    ("2,3e7", "looped_params=3e+07: must be from 1 to params=2e+07"),
    ("2,0", "looped_params=0: must be from 1"), ("two,1e7", "loops is 'two', no number"),
])  # fmt: skip
def test_loops_that_cannot_be_are_refused(tmp_path, cells, words):
    with pytest.raises(DlmError, match=re.escape(words)):
        one(tmp_path, f"N,D,loss,loops,looped_params\n2e7,1e8,3,{cells}\n")


def test_budgets_are_kept(tmp_path):
    t = one(tmp_path, "params,tokens,loss,budget\n2e7,1e8,3,1e18\n3e7,1e8,2.9,\n")
    assert t.budget is not None
    np.testing.assert_array_equal(t.budget, [1e18, math.nan])
    np.testing.assert_array_equal(t.only(t.N < 2.5e7).budget, [1e18])
    assert one(tmp_path, HEAD + ROWS).budget is None


def test_epochs_stand_for_unique_tokens(tmp_path):
    t = one(tmp_path, "params,tokens,loss,epochs\n2e7,1e8,3,4\n2e7,1e8,3.1,0.5\n2e7,1e8,3.2,\n")
    np.testing.assert_allclose(t.epochs, [4, 1, 1])
    assert t.notes[-2:] == (
        "no column unique_tokens: they are taken as tokens / epochs",
        "unique_tokens has no number in 1 row: taken as one epoch",
    )


# --- rows ---------------------------------------------------------------------------------------


def test_rows_that_agree_in_everything_are_one_run(tmp_path):
    t = one(tmp_path, HEAD + ROWS * 3 + "7e7,400000000,3.90\n7e7,4e8,3.95\n")
    assert len(t) == t.groups == 5  # the last is another seed
    assert t.notes[0] == (
        "9 rows the same as another in every column: one run, counted once; 5 runs left"
    )
    seeds = one(tmp_path, "params,tokens,loss,seed\n2e7,1e8,3,0\n2e7,1e8,3,1\n2e7,1e8,3,1\n")
    assert len(seeds) == 2
    assert seeds.notes[1].startswith(
        "1 row with the numbers of another row but other words: counted"
    )
    index = one(tmp_path, "Unnamed: 0,params,tokens,loss\n0,2e7,1e8,3\n1,2e7,1e8,3\n")
    assert len(index) == 1
    runs_of = one(tmp_path, "run,params,tokens,loss\na,2e7,1e8,3\na,2e7,1e8,3\na,2e7,2e8,2.9\n")
    assert (len(runs_of), runs_of.groups) == (2, 1)


@pytest.mark.parametrize("cell, reason", [
    ("", "no loss"), ("-", "no loss"), ("n/a", "no loss"), ("None", "no loss"), ("NA", "no loss"),
    ("nan", "loss is nan"), ("NaN", "loss is nan"), ("inf", "loss is inf"),
    ("-Infinity", "loss is -inf"), ("1e999", "loss is inf"), ("OOM", "loss is 'OOM', no number"),
    ("diverged", "loss is 'diverged', no number"),
])  # fmt: skip
def test_a_row_without_a_finite_loss_is_listed(tmp_path, cell, reason):
    t = one(tmp_path, f"{HEAD}{ROWS}2e7,8e8,{cell}\n")
    assert len(t) == 4 and t.excluded == (("row 6", reason),)
    with pytest.raises(DlmError, match=re.escape(f"finished run (row 2: {reason})")):
        one(tmp_path, f"{HEAD}2e7,8e8,{cell}\n")


@pytest.mark.parametrize("cells, reason", [
    (",1e8,3", "no params"), ("2e7,nan,3", "tokens is nan"), ("inf,1e8,3", "params is inf"),
    ("2e7", "no tokens"),
])  # fmt: skip
def test_a_row_without_a_count_is_listed(tmp_path, cells, reason):
    t = one(tmp_path, f"name,{HEAD}" + "".join(f"a,{r}\n" for r in ROWS.split()) + f"b,{cells}\n")
    expected = "no loss" if cells == "2e7" else reason
    assert len(t) == 4 and t.excluded == (("row 6, b", expected),)


def test_status_words_are_known_in_any_case(tmp_path):
    good = ("finished", "Completed", "DONE", "success", "Succeeded", "ok", "", "complete (late)")
    bad = ("crashed", "FAILED", "killed", "Running", "diverged: loss above 9", "oom", "CANCELLED by 3",
           "OUT_OF_MEMORY", "not finished", "unfinished", "in progress")  # fmt: skip
    for title in ("state", "Status", "run_state"):
        rows = [f"2e7,{i}e8,3,{word}" for i, word in enumerate((*good, *bad), 1)]
        t = one(tmp_path, f"params,tokens,loss,{title}\n" + "\n".join(rows) + "\n")
        assert len(t) == len(good)
        assert [reason for _, reason in t.excluded] == [f"status {word}" for word in bad]
        assert not [n for n in t.notes if n.startswith("columns not used")]


def test_a_status_that_is_not_known_is_named(tmp_path):
    text = "params,tokens,loss,State\n2e7,1e8,3,archived\n2e7,2e8,3,archived\n2e7,3e8,3,ok\n"
    with pytest.raises(DlmError, match=r"State is 'archived' in 2 rows: not known as finished or"):
        one(tmp_path, text)
    assert len(one(tmp_path, text, "t.csv", "status=")) == 3


# --- units --------------------------------------------------------------------------------------


def grid(params: float = 1.0, tokens: float = 1.0, flops: float = 0.0, part: int = 99) -> str:
    """A table of 5 x 5 runs with some columns, or the first `part` rows of it, in other units."""
    lines = ["params,tokens,loss" + (",flops" if flops else "")]
    for i, (n, d) in enumerate(
        (n, d) for n in (2e7, 7e7, 3e8, 7e8, 3e9) for d in (1e8, 4e8, 2e9, 1e10, 6e10)
    ):
        a, b = (params, tokens) if i < part else (1.0, 1.0)
        loss = 1.8 + 480 / n**0.35 + 2100 / d**0.37
        lines.append(f"{n / a!r},{d / b!r},{loss!r}" + (f",{6 * n * d / flops!r}" if flops else ""))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("options, told", [
    ({"params": 1e6}, "params is at most 3000: give raw counts"),
    ({"params": 1e9}, "params is at most 3, with fractions: give raw counts"),
    ({"params": 1e6, "part": 5}, "params runs from 20 to 3e+09, with none between 20 and 7e+07: mi"),
    ({"params": 1e9, "part": 5}, "params runs from 0.02 to 3e+09"),
    ({"tokens": 1e9}, "tokens is at most 60, with fractions: give raw counts"),
    ({"tokens": 1e6}, "6.67e-06 tokens per parameter in the median row: is tokens in thousands, mil"),
    ({"tokens": 1e6, "part": 5}, "tokens runs from 100 to 6e+10, with none between 60000 and 1e+08"),
    ({"tokens": 1e6, "params": 1e6}, "params is at most 3000: give raw counts"),
    ({"flops": 1e9}, "flops are 1e-09 x 6 x params x tokens in the median row: GFLOPs? give FLOPs"),
    ({"flops": 1e15}, "PFLOPs?"),
    ({"flops": 8.64e19}, "flops are 1.16e-20 x 6 x params x tokens in the median row: PFLOP/s-days?"),
    ({"flops": 8.64e16}, "TFLOP/s-days?"),
])  # fmt: skip
def test_other_units_are_told(tmp_path, options, told):
    with pytest.raises(DlmError, match=re.escape(told)):
        one(tmp_path, grid(**options))


def test_flops_near_6nd_are_taken_as_given(tmp_path):
    t = one(tmp_path, grid(flops=0.8))
    np.testing.assert_allclose(t.flops, 6 * t.N * t.D / 0.8)
    assert not [note for note in t.notes if "flops" in note]
    assert (
        "flops are 4 x 6 x params x tokens in the median row"
        in one(tmp_path, grid(flops=0.25)).notes
    )
    with pytest.raises(DlmError, match=r"per token\?"):
        one(tmp_path, "params,tokens,loss,flops\n2e7,1e8,3,1.2e8\n2e7,2e8,3,1.2e8\n")
    with pytest.raises(DlmError, match=r"their logarithm\?"):
        one(tmp_path, "params,tokens,loss,flops\n2e7,1e8,3,16.08\n2e7,2e8,3,16.4\n")
    with pytest.raises(DlmError, match=r"row 4: flops=3.6e\+07 are 1e-09 x 6 x .* mixed units\?"):
        one(
            tmp_path,
            "params,tokens,loss,flops\n2e7,1e8,3,1.2e16\n2e7,2e8,3,2.4e16\n2e7,3e8,3,3.6e7\n",
        )
    t = one(tmp_path, grid(flops=1e9), "t.csv", "flops=")
    np.testing.assert_array_equal(t.flops, 6 * t.N * t.D)


def test_perplexities_are_told(tmp_path):
    t = one(tmp_path, HEAD + "".join(f"2e7,{d}e8,{math.exp(5 / d)!r}\n" for d in (1, 1.5, 2)))
    assert t.notes[0].startswith(
        "WARNING: loss is up to 148.4, and in 2 of 3 rows above 12.6 nats per token"
    )
    assert not any("WARNING" in note for note in one(tmp_path, HEAD + ROWS).notes)


# --- the product's own runs ---------------------------------------------------------------------

AR, MASKED = autoregressive(1.6, 1.5e11), diffusion(1e12, 1.6)
U = 12288


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Runs of two families on two corpora, one of each status, and the tables of them."""
    folder = tmp_path_factory.mktemp("study")
    for seed in range(2):
        for corpus in ("digits", "stdlib"):
            common = {"seed": seed, "corpus": corpus, "fingerprint": corpus[0] * 64}
            write_run(
                folder, AR, epochs=50, unique_tokens=U * (1 + seed), shift=seed / 10, **common
            )
            write_run(folder, MASKED, objective="masked", epochs=90, unique_tokens=U * (1 + seed),
                      shift=seed / 10, **common)  # fmt: skip
    for seed, status in enumerate(("diverged", "failed", None), 2):
        write_run(folder, AR, seed=seed, status=status)
    runs.write_table(runs.load(folder), folder)
    return folder


@pytest.mark.parametrize("points", ["best", "last"])
def test_a_folder_and_its_tables_give_the_same_runs(study, points):
    whole = tables.read(study, points=points)
    names = {f"{corpus}/{family}" for corpus in ("digits", "stdlib") for family in ("ar", "masked")}
    assert {t.family for t in whole} == names
    assert sum(len(t) for t in whole) == 8 and sum(len(t.excluded) for t in whole) == 3
    for name in ("runs.csv", "runs.parquet"):
        again = tables.read(study / name, points=points)
        for a, b in zip(whole, again, strict=True):
            for field in ("N", "D", "U", "loss", "flops", "group"):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
            assert (a.family, a.labels, a.notes) == (b.family, b.labels, b.notes)
            assert a.excluded == b.excluded
    ar = next(t for t in whole if t.family == "digits/ar")
    epochs = {"best": 15, "last": 50}[points]  # of the best weights, and of the whole run
    np.testing.assert_array_equal(sorted(ar.D), [epochs * U, 2 * epochs * U])


def test_every_door_fits_the_same_law(study, capsys):
    told = []
    for name in ("", "runs.csv", "runs.parquet"):
        words = ["--family", "digits/ar", "--law", "one-size", "--resamples", "3"]
        fixed = ["--fixed", "B=900", "beta=0.3", "R_D=20"]
        assert main.main(["fit", str(study / name), *words, *fixed]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        told.append(printed.replace(name or str(study), "TABLE"))
    assert told[0] == told[1] == told[2]
    assert "on 2 runs (2 independent) of TABLE, family digits/ar" in told[0]
    assert "left out: digits ar lr=0.002 seed=2: status diverged: " in told[0]


def test_what_does_not_fit_a_table_of_runs_is_refused(study, tmp_path):
    with pytest.raises(DlmError, match="a table holds no curves; give the folder of these runs"):
        tables.read(study / "runs.csv", points="curve")
    for place in (study, study / "runs.csv"):
        with pytest.raises(
            DlmError, match="holds dlm's own runs, whose columns are known; drop --c"
        ):
            tables.read(place, columns={"loss": "train_loss"})
    text = (study / "runs.csv").read_text()
    (tmp_path / "cut.csv").write_text(text.replace("best_flops", "best_flop"))
    with pytest.raises(DlmError, match="with no column best_flops; write it again with dlm runs F"):
        tables.read(tmp_path / "cut.csv")
    (tmp_path / "text.csv").write_text(text.replace("400000", "many", 1))
    with pytest.raises(DlmError, match=r"text.csv, row \d: params='many': no number"):
        tables.read(tmp_path / "text.csv")
    (tmp_path / "other.csv").write_text(HEAD + ROWS)
    with pytest.raises(DlmError, match="points='last' is for folders and tables of dlm's own runs"):
        tables.read(tmp_path / "other.csv", points="last")


def change(folder: Path, **values: object) -> None:
    """Other values in a run's result, and in its config where that has them."""
    edit(folder / "result.json", lambda result: result.update(values))
    within = {k: v for k, v in values.items() if k in ("seq_len", "subset", "unique_tokens")}
    edit(folder / "config.json", lambda config: config["data"].update(within))
    nll = np.load(folder / "nll.npy") / 64 * values.get("seq_len", 64)
    np.save(folder / "nll.npy", nll)
    edit(folder / "result.json", lambda result: None)


@pytest.mark.parametrize("differs, names", [
    ({"unique_tokens": U}, {"ar"}),
    ({"seq_len": 128}, {"digits L=64/ar", "digits L=128/ar"}),
    ({"subset": "documents"}, {"digits windows/ar", "digits documents/ar"}),
    ({"fingerprint": "e" * 64}, {"digits ffffff/ar", "digits eeeeee/ar"}),
    ({"corpus": "stdlib"}, {"digits/ar", "stdlib/ar"}),
    ({"seq_len": 128, "fingerprint": "e" * 64}, {"digits L=64/ar", "digits L=128/ar"}),
])  # fmt: skip
def test_runs_on_different_data_share_no_law(tmp_path, differs, names):
    write_run(tmp_path, AR, epochs=50, unique_tokens=2 * U)
    other = write_run(tmp_path, AR, epochs=50, unique_tokens=2 * U, seed=1)
    change(other, **differs)
    if "corpus" in differs:
        edit(other / "run.json", lambda start: start["corpus"].update(name=differs["corpus"]))
    write_run(tmp_path, AR, seed=2, status=None)
    found = tables.read(tmp_path)
    assert {t.family for t in found} == names
    assert sum(len(t) for t in found) == 2 and sum(len(t.excluded) for t in found) == 1
    runs.write_table(runs.load(tmp_path), tmp_path)
    assert {t.family for t in tables.read(tmp_path / "runs.csv")} == names


def test_a_run_in_two_experiments_is_one(tmp_path):
    first = write_run(tmp_path, AR, epochs=50, unique_tokens=U)
    write_run(tmp_path, AR, epochs=50, unique_tokens=U, seed=1)
    shutil.copytree(first, tmp_path / "again" / first.name)
    (found,) = tables.read(tmp_path)
    assert len(found) == 2
    assert found.notes == ("1 run there more than once, by the same id: counted once",)


# --- files after public reports -----------------------------------------------------------------


@pytest.mark.parametrize("name, rows, notes", [
    ("duplicated", 30, ["60 rows the same as another in every column: one run, counted once; 30 runs"]),
    ("nan_inf", 28, []), ("nan_lower", 29, []), ("wandb_state", 25, ["columns not used: _step"]),
    ("status_completed", 30, []), ("perplexity", 30, ["WARNING: loss is up to 235.1, and in 27 of 3"]),
    ("family_column_named_model", 20, ["column model is taken for the family (ar, masked)"]),
    ("other_column_names", 20, ["column model is taken for the family (ar, masked)"]),
])  # fmt: skip
def test_planted_tables_are_read(name, rows, notes):
    first = tables.read(planted.public(f"faults/tables/{name}.csv"))[0]
    assert len(first) == rows
    assert len(first.excluded) == {28: 2, 29: 1, 25: 5}.get(rows, 0)
    for note in notes:
        assert any(told.startswith(note) for told in first.notes)


@pytest.mark.parametrize("name, told", [
    ("loss_LOSS.csv", "columns 'Loss' and 'loss' both mean loss"),
    ("U_unique.csv", "columns 'unique_tokens' and 'U' both mean unique_tokens"),
    ("flops_giga.csv", "flops are 1e-09 x 6 x params x tokens in the median row: GFLOPs?"),
    ("flipped_table.parquet", "not a Parquet file, or damaged"),
])  # fmt: skip
def test_planted_tables_are_refused(name, told):
    with pytest.raises(DlmError, match=re.escape(told)):
        tables.read(planted.public(f"faults/tables/{name}"))


def test_the_quickstarts_own_table_pairs_losses_with_the_tokens_they_took():
    path = planted.public("faults/tables/quickstart_runs.csv")
    found = {t.family: t for t in tables.read(path)}
    assert set(found) == {"stdlib/ar", "stdlib/masked", "digits/ar", "digits/masked"}
    ar = found["stdlib/ar"]
    assert (ar.D[0], ar.loss[0]) == (92160, 2.5740975887625366)
    assert [len(t) for t in found.values()] == [9, 9, 3, 3]
