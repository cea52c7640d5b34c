"""The public API: what `import dlm` brings, the examples of its docstrings, and its oracles."""

from __future__ import annotations

import doctest
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dlm
import planted
from dlm.cli import main
from dlm.errors import DlmError
from dlm.format import number
from places import ROOT

EXPERIMENT = '''"""Tiny runs on text."""
from dlm import config

def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name, c.corpus.validation_fraction = "files", 0.25
    c.corpus.options = {"paths": "corpus.jsonl"}
    c.tokenizer.kind = "chars"
    c.data.seq_len, c.data.unique_tokens = 8, 512
    c.model.layers, c.model.width, c.model.heads, c.model.ff = 1, 16, 2, 32
    c.train.duration, c.train.batch_size = "8 steps", 8
    c.evaluation.every, c.evaluation.samples = "4 steps", 0
    c.evaluation.mc_stderr, c.evaluation.batch_size = 1.0, 16
    return c

def sweep(scale="laptop"):
    for name in ("ar", "masked"):
        yield {"objective.name": name}
'''
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "ran")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with two finished runs on text, a table of runs and a text file."""
    folder = tmp_path_factory.mktemp("api")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 6)) for _ in range(64)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "corpus.jsonl").write_text("".join(lines))
    (folder / "tiny.py").write_text(EXPERIMENT)
    (folder / "new.txt").write_text("the cat ran 7! and sat on a mat and ")
    table = planted.table("chinchilla", noise=0.01)
    rows = zip(table.N, table.D, table.U, table.loss, strict=True)
    text = "".join(f"{n},{d},{u},{loss}\n" for n, d, u, loss in rows)
    (folder / "table.csv").write_text("params,tokens,unique_tokens,val_loss\n" + text)
    (folder / "other.csv").write_text("params,tokens,unique_tokens,loss\n" + text)
    here = Path.cwd()
    os.chdir(folder)
    try:
        for run in (0, 1):
            dlm.train("tiny.py", run=run)
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_importing_dlm_loads_nothing_heavy_and_lists_the_names() -> None:
    code = """
import json, sys
import dlm
light = sorted({"jax", "numpy", "pyarrow", "ml_collections"} & set(sys.modules))
from dlm import load, fit, plot, Runs
print(json.dumps([light, sorted({"jax"} & set(sys.modules)), dir(dlm), dlm.__all__]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_import, after_names, listed, public = json.loads(done.stdout)
    assert at_import == after_names == []
    assert set(public) <= set(listed)
    assert all(getattr(dlm, name).__doc__ for name in public)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = dlm.lod  # pyright: ignore


def examples() -> list:
    from dlm import plot
    from dlm.api import laws, models, planner, runs, training

    modules = (laws, models, planner, runs, training, plot)
    parsed = [doctest.DocTestFinder().find(module, globs={"dlm": dlm}) for module in modules]
    return [test for tests in parsed for test in tests if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_examples_of_the_docstrings_hold(example) -> None:
    lines: list[str] = []
    failed = doctest.DocTestRunner().run(example, out=lines.append).failed
    assert not failed, "".join(lines)


def test_the_notebook_runs_on_a_folder_of_runs(folder, capsys) -> None:
    """Its code cells, one after another, on other runs than the quickstart's; nothing is trained."""
    cells = json.loads((ROOT / "docs/tour.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    assert 'RUNS = "runs/quickstart"' in code[0] and not any(".train(" in text for text in code)
    names: dict[str, object] = {}
    for text in [code[0].replace("runs/quickstart", "runs/tiny"), *code[1:]]:
        exec(compile(text, "tour.ipynb", "exec"), names)
    out = capsys.readouterr().out
    assert "512 unique tokens: masked: " in out and "(upper bound, seeds: 1)" in out
    assert out.count("nats per token (upper bound)") == 2 and "at 1e20 FLOPs" in out


def test_every_public_function_shows_itself_at_work() -> None:
    shown = {re.sub(r"^dlm\.(api\.)?\w+\.", "", example.name) for example in examples()}
    functions = {
        "load",
        "plan",
        "train",
        "fit",
        "critical",
        "objective",
        "Runs",
        "Run",
        "Run.model",
    }
    methods = {f"Model.{name}" for name in ("log_likelihood", "perplexity", "sample", "validation")}
    assert functions | methods | {"FittedLaw.predict", "FittedLaw.optimal"} <= shown


def test_runs_are_found_by_id_label_and_beginning(folder) -> None:
    runs = dlm.load()
    first = runs[0]
    assert runs[first.run] is runs[first.run[:5]] is runs[first.label] is first
    assert [run.run for run in runs[:1]] == [first.run] and len(runs[:1]) == 1
    assert runs["masked"].objective == "masked" and runs["ar files"].objective == "ar"
    with pytest.raises(DlmError, match="may be any of 2 runs"):
        _ = runs["files"]
    with pytest.raises(DlmError, match="no such run among 2"):
        _ = runs["zzz"]
    with pytest.raises(DlmError, match="no such folder of runs"):
        dlm.load("runz")


def test_the_table_is_that_of_the_file(folder) -> None:
    runs = dlm.load("tiny")
    assert main.main(["runs", "runs/tiny"]) == 0
    assert runs.table().equals(pq.read_table("runs/tiny/runs.parquet"))
    summary = runs.summary()
    assert [row["run"] for row in summary["runs"]] == runs.table()["run"].to_pylist()
    assert summary["panels"][0]["unique_tokens"] == runs.panels[0].unique_tokens
    assert runs.excluded == []


def test_a_validation_split_as_a_text_has_the_loss_of_the_run(folder) -> None:
    """The windows of the run's own score, from a file: the same nats and the same error."""
    for name in ("ar", "masked"):
        run = next(run for run in dlm.load() if run.objective == name)
        model = run.model()
        store = model.store
        ends = store.validation_offsets
        texts = [store.decode(store.validation[a : b - 1]) for a, b in zip(ends, ends[1:])]  # noqa: B905
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        Path("held_out.jsonl").write_text("".join(lines))
        found = model.perplexity("held_out.jsonl")
        assert found.estimate.tokens == len(store.validation) and found.documents == len(texts)
        windows = len(store.validation) // 8
        same = run.result["validation_tokens"] == windows * 8
        assert same and (found.estimate.kind == run.result["kind"])
        rest = found.estimate.tokens - windows * 8
        nats = run.result["validation_loss"] * windows * 8
        if rest == 0:
            assert found.estimate.value == pytest.approx(run.result["validation_loss"], rel=1e-6)
            assert found.estimate.stderr == pytest.approx(run.result["validation_stderr"], rel=1e-5)
            assert found.bits_per_byte == pytest.approx(run.result["bits_per_byte"], rel=1e-6)
        else:
            left = found.estimate.value * found.estimate.tokens - nats
            assert 0 < left / rest < 2 * math.log(store.vocab_size)


def test_windows_of_a_text_are_scored_apart_and_the_nats_add_up(folder) -> None:
    model = next(run for run in dlm.load() if run.objective == "ar").model()
    text = "the cat sat on a mat"
    (whole,) = model.log_likelihood([text])
    parts = model.log_likelihood([text[:8], text[8:16], text[16:]])
    nats = [each.value * each.tokens for each in parts]
    assert whole.tokens == 20 and whole.kind == "exact"
    assert whole.value * 20 == pytest.approx(sum(nats), rel=1e-6)
    assert math.isnan(parts[0].stderr) and whole.stderr > 0
    # the standard error of a ratio, by hand
    residuals = np.array(nats) - whole.value * np.array([8, 8, 4])
    assert whole.stderr == pytest.approx(math.sqrt((residuals**2).sum() * 3 / 2) / 20, rel=1e-6)


def test_the_command_line_prints_the_same_score_and_what_the_tokenizer_lost(folder, capsys) -> None:
    run = next(run for run in dlm.load() if run.objective == "ar")
    found = run.model().perplexity("new.txt")
    assert main.main(["evaluate", run.run, "--text", "new.txt"]) == 0
    out = capsys.readouterr().out
    estimate = found.estimate
    assert f"{estimate.value:.4f} ± {estimate.stderr:.4f} nats/token (exact, 37 tokens" in out
    assert f"perplexity {found.perplexity:.2f}" in out and " bits per byte (" not in out
    lost = f"{100 * 2 / 36:.3g}% of their characters are lost, such as 7 !"
    assert f"1 of 1 documents come back altered from the tokenizer: {lost}" in out
    Path("clean.txt").write_text("the cat sat on a mat")
    assert main.main(["evaluate", run.run, "--text", "clean.txt"]) == 0
    out, clean = capsys.readouterr().out, run.model().perplexity(Path("clean.txt"))
    nats = clean.estimate.value * clean.estimate.tokens
    assert clean.bits_per_byte == pytest.approx(nats / 20 / math.log(2))
    assert f"{clean.bits_per_byte:.4f} bits per byte (20 bytes)" in out


def test_exact_likelihoods_of_all_strings_sum_to_one(folder) -> None:
    """Shorter than the window too: 14 symbols and length 2."""
    model = next(run for run in dlm.load() if run.objective == "ar").model()
    tokenizer = model.store.tokenizer
    assert tokenizer is not None
    symbols = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size - 2)]
    strings = [a + b for a in symbols for b in symbols]
    total = sum(math.exp(-each.value * each.tokens) for each in model.log_likelihood(strings))
    rest = 1 - total  # strings with the unknown character or an end
    assert 0 < rest < 0.6


@pytest.mark.parametrize(("call", "told"), [
    (lambda m: m.perplexity("new.tx"), "new.tx: no such file"),
    (lambda m: m.perplexity(Path("new.tx")), "no file matches"),
    (lambda m: m.log_likelihood([""]), "has too few tokens"),
    (lambda m: m.log_likelihood(["\ud800"]), "no character of UTF-8"),
    (lambda m: m.sample(0), "count=0: must be"),
    (lambda m: m.sample(10**12), "count=1000000000000: must be at most "),
    (lambda m: m.sample(1, entropy_budget=-1), "entropy_budget=-1: must be 0 or above"),
    (lambda m: m.sample(1, sampler="confidence"), "sampler=confidence: must be one of ancestral"),
    (lambda m: m.sample(1, prompt="the cat sat"), "prompt: 11 tokens, must be below"),
    (lambda m: m.sample(1, prompt="the 7"), "prompt='the 7': the chars tokenizer of files has no '7'"),
    (lambda m: dlm.train("tiny.py", run=2), "run=2: must be 0 to 1"),
    (lambda m: dlm.train("tiny.py", {"model.layer": 2}), "did you mean model.layers"),
    (lambda m: dlm.objective("maskd", 5), "did you mean masked?"),
    (lambda m: dlm.objective("masked", 0), "vocab_size=0"),
    (lambda m: dlm.objective("masked", 5, schedul="linear"), "did you mean schedule?; it has"),
    (lambda m: dlm.fit("other.csv", law="chinchila"), "did you mean chinchilla"),
    (lambda m: dlm.fit("other.csv", columns={"prams": "n"}), "did you mean params?"),
    (lambda m: dlm.fit("other.csv", family="ar"), "family='ar'"),
    (lambda m: dlm.fit("other.csv", resamples=-1), "resamples=-1"),
    (lambda m: dlm.fit(dlm.load(), columns={"params": "n"}), "leave it out"),
    (lambda m: dlm.plot.frontier([]), "no finished run"),
])  # fmt: skip
def test_a_wrong_argument_is_told_in_one_line(folder, call, told) -> None:
    model = next(run for run in dlm.load() if run.objective == "ar").model()
    with pytest.raises(DlmError) as caught:
        call(model)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_fit_says_what_it_does_not_identify_and_is_that_of_the_command_line(capsys) -> None:
    fit = dlm.fit("other.csv", law="data-constrained", resamples=20)
    words = ["--law", "data-constrained", "--resamples", "20"]
    assert main.main(["fit", "other.csv", *words]) == 0
    out = capsys.readouterr().out
    for name, known in fit.identified.items():
        row = next(line.split() for line in out.splitlines() if line.startswith(f"{name} "))
        assert row[1] == (number(fit.coefficients[name]) if known else "not")
    loose = [name for name, known in fit.identified.items() if not known]
    assert loose and f"{loose[0]} = " in repr(fit) and "(not identified)" in repr(fit)
    with pytest.raises(DlmError, match="tokens=0: must be above 0"):
        fit.predict(1e8, 0, 1e9)
    with pytest.raises(DlmError, match="loops=2: must be 1, as data-constrained knows no loops"):
        fit.predict(1e8, 1e9, 1e9, loops=2)


def test_two_fits_cross_where_the_command_line_says(folder, tmp_path) -> None:
    same = {"E": 1.7, "B": 500.0}
    truths = {"ar": same | {"A": 200.0, "alpha": 0.3}, "masked": same | {"A": 1500.0, "alpha": 0.4}}
    truths["masked"]["B"] = 6000.0
    path = tmp_path / "two.csv"
    rows = ["family,params,tokens,unique_tokens,loss"]
    for family, truth in truths.items():
        t = planted.table("chinchilla-tied", truth, noise=0.001)
        numbers = zip(t.N, t.D, t.U, t.loss, strict=True)
        rows += [f"{family},{n},{d},{u},{loss}" for n, d, u, loss in numbers]
    path.write_text("\n".join(rows))
    options = {"law": "chinchilla-tied", "resamples": 20}
    ar, masked = (dlm.fit(path, family=family, **options) for family in truths)
    by_api = dlm.critical(ar, masked, unique_tokens=1e12)
    words = ["--law", "chinchilla-tied", "--resamples", "20", "--unique-tokens", "1e12"]
    assert main.main(["critical", str(path), *words, "--out", str(tmp_path)]) == 0
    point = json.loads((tmp_path / "critical.json").read_text())["points"][0]
    assert by_api.status == point["status"] == "crosses"
    assert by_api.compute == pytest.approx(point["compute"], rel=1e-12)


def test_a_figure_is_drawn_on_the_axes_that_are_given(folder) -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert dlm.plot.frontier(dlm.load(), ax=ax) is ax.figure
    assert ax.lines and ax.get_ylabel() == "loss, nats per token"
    with pytest.raises(DlmError, match="ax: 1 axes; must be 5"):
        dlm.plot.profiles(dlm.fit("other.csv", law="chinchilla", resamples=0), ax=ax)


def test_an_ensemble_of_ensembles_has_all_members(folder) -> None:
    one = dlm.load(folder / "runs" / "tiny")["masked"].model()
    assert len(dlm.ensemble([dlm.ensemble([one, one]), one]).others) == 2
    with pytest.raises(DlmError, match="windows: of the validation split alone"):
        one.log_likelihood("the cat", windows=3)
    with pytest.raises(DlmError, match="no such option of a likelihood; did you mean orders"):
        one.validation(order=3)
