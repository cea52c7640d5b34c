"""The report says what the runs say, with whatever runs there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from dlm import runs
from dlm.errors import DlmError
from dlm.laws import fits
from dlm.report import canvas, run_figures, sample_figures, summary
from dlm.report import page as report
from fake_runs import autoregressive, diffusion, edit, quickstart, write_run

AR = autoregressive(1.6, 1.5e11)
VOID = {"meta", "br", "wbr", "path", "use", "image", "rect", "line", "circle"}


class Balanced(HTMLParser):
    """Fails where a tag closes that is not open; keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            assert not (name in ("src", "href") and "://" in value), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def page_of(folder) -> str:
    return report.page(report.load(folder))


def read(html: str) -> str:
    """The words of a page, after checking that it is whole and stands alone."""
    page = Balanced()
    page.feed(html)
    assert page.open == []
    assert "<script" not in html and "<link" not in html and "@import" not in html
    assert not re.search(r"\b(nan|None|inf)\b", "".join(page.text))
    return "".join(page.text)


def printed(folder) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*report.summary(folder))
    return console.export_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = quickstart(tmp_path_factory.mktemp("runs"))
    report.write(folder)
    return folder


def test_the_whole_report(written):
    folder, text = written, read((written / "report.html").read_text("utf-8"))
    opening = "On digits, 6,400 unique tokens: masked diffusion passes AR at equal settings for"
    assert text.count(opening) == 1
    assert "Masked diffusion passes the best AR of 3 settings for good at C = 1.2×10¹²" in text
    assert "1.2×10¹² FLOPs, after 121 epochs (90% interval" in text
    assert "Masked diffusion does not pass the best AR of 3 settings for good within" in text
    assert "Extrapolated, not measured" in text and "proves nothing" in text
    assert "Does diffusion pass AR <on> digits?" in text  # escaped in the page
    assert "a <b> sample" in text
    assert "Settings tried on digits, 6,400 unique tokens: AR 3, masked diffusion 1." in text
    assert text.count("fingerprint dddd") == 1 and "jax 0.10.2" in text and "Device: cpu" in text
    for name in ("frontier.png", "epochs.png"):
        assert 10_000 < (folder / name).stat().st_size < 200_000
    terminal = printed(folder)
    assert "it overtakes the best of 3 settings after 121 epochs, 1.2×10¹² FLOPs [90%: " in terminal
    assert "1.5425 ± 0.0011" in terminal and "upper bound" in terminal


def test_the_numbers_are_in_json_and_agree_with_the_plant(written):
    numbers = json.loads((written / "report.json").read_text())
    digits, stdlib = numbers["panels"]
    assert digits["crossovers"]["flops"][0]["compute"] == pytest.approx(1.2e12, rel=0.05)
    spread = stdlib["crossovers"]["flops"][0]
    assert (spread["high"], spread["open"]) == (None, "above")
    assert stdlib["crossovers"]["flops"][0]["trend"]["compute"] == pytest.approx(4e12, rel=0.05)
    assert digits["finals"][0]["comparison"]["proven"] == "first"
    assert [f["settings_tried"] for f in digits["families"]] == [3, 1]
    assert len(numbers["runs"]) == 16 and numbers["excluded"] == []


def test_the_same_runs_give_the_same_bytes(written, tmp_path):
    assert page_of(written) == (written / "report.html").read_text("utf-8")
    panels, _ = runs.panels(runs.load(written))
    for path in canvas.save(canvas.draw(run_figures.frontier(panels)), tmp_path / "frontier"):
        assert path.read_bytes() == (written / path.name).read_bytes()


@pytest.mark.parametrize("status", [None, "failed", "diverged"])
def test_without_a_finished_run_it_says_so(tmp_path, status):
    write_run(tmp_path, AR, status=status)
    text = read(page_of(tmp_path))
    assert f"No run has finished yet: 1 {status or 'unfinished'}." in text
    assert "digits ar lr=0.002 seed=0" in text
    assert "No run has finished yet" in printed(tmp_path)


def test_an_empty_folder_and_a_missing_one(tmp_path):
    assert "There is no run here yet." in read(report.write(tmp_path).read_text("utf-8"))
    with pytest.raises(DlmError, match="no such directory"):
        report.write(tmp_path / "missing")


@pytest.mark.parametrize(("objective", "missing"), [("ar", "a diffusion family"), ("masked", "AR")])
def test_one_family_only(tmp_path, objective, missing):
    write_run(tmp_path, AR, objective=objective)
    text = read(page_of(tmp_path))
    assert f"no finished run of {missing}, so no comparison yet" in text
    assert missing in printed(tmp_path)


def test_one_seed_each_has_no_interval(tmp_path):
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked")
    text = read(page_of(tmp_path))
    assert "(one seed each: no interval)" in text
    assert "One seed only of AR and masked diffusion" in text


def test_exclusions_and_disagreement_are_said(tmp_path):
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked", final=1.7)
    (write_run(tmp_path, AR, seed=8) / "result.json").write_text("{")
    text = read(page_of(tmp_path))
    assert "The frontiers and the final numbers disagree in sign" in text
    assert "unreadable: result.json is not readable JSON" in text


def test_a_third_family_and_other_corpora_are_drawn(tmp_path):
    for objective, law in (("ar", AR), ("masked", diffusion(1e12, 1.6)), ("noise", AR)):
        write_run(tmp_path, law, objective=objective, samples="")
        write_run(tmp_path, law, objective=objective, corpus="prose", fingerprint="p" * 64)
        write_run(tmp_path, law, objective=objective, unique_tokens=12800, epochs=2)
    panels, _ = runs.panels(runs.load(tmp_path))
    assert len(panels) == 3
    png, *_ = canvas.save(canvas.draw(run_figures.frontier(panels)), tmp_path / "frontier")
    assert png.stat().st_size < 200_000
    assert printed(tmp_path).count("noise") > 5


def test_figures_ask_for_a_finished_run_and_draw_digits():
    with pytest.raises(DlmError, match="no finished run"):
        run_figures.frontier([])
    sheet = sample_figures.digits({"real": np.zeros((2, 64)), "AR": np.full((4, 64), 16)})
    assert len(sheet.axes) == 2


def test_what_the_token_store_says_of_itself_is_in_the_report(tmp_path) -> None:
    folder = quickstart(tmp_path)
    sentences = ["243 of 270 training documents are copies.", "Lost: <é>."]
    for path in folder.rglob("run.json"):
        edit(path, lambda start: start["corpus"].update(notes=sentences))
    text = read(page_of(folder))
    panels, _ = runs.panels(runs.load(folder))
    for sentence in sentences:
        assert text.count(sentence) == len(panels)  # once each, and not once for each run
    numbers = summary.numbers(runs.load(folder), panels, [])
    assert [panel["corpus_notes"] for panel in numbers["panels"]] == [sentences] * len(panels)


def test_a_figure_that_fails_costs_neither_the_page_nor_the_others(tmp_path, monkeypatch):
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked")

    def fail(*_):
        raise FloatingPointError("a hole\nin the curve")

    monkeypatch.setattr(run_figures, "_epochs_panel", fail)
    monkeypatch.setattr(sample_figures, "digits", fail)
    text = read(report.write(tmp_path).read_text("utf-8"))
    assert "epochs: not drawn: FloatingPointError: a hole in the curve" in text
    assert "The samples are not drawn: a hole" in text and "Bold: the best" in text
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {"frontier.png", "frontier.svg", "frontier.pdf", "report.json", "runs.csv"} <= files
    assert not any(name.startswith("epochs") for name in files)


def test_a_law_that_cannot_be_fitted_never_costs_the_report(tmp_path, monkeypatch):
    """Five seeds of one evaluation each: every point of the curve has the same tokens."""
    for seed in range(5):
        folder = write_run(tmp_path, AR, seed=seed, epochs=50, shift=0.01 * seed)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        (folder / "metrics.jsonl").write_text("\n".join(lines[-2:]) + "\n")
        edit(folder / "result.json", lambda result: None)  # with the digest of these two lines
    assert "every run has 307,200 tokens" in read(report.write(tmp_path).read_text("utf-8"))

    def fail(*_, **__):
        raise FloatingPointError("no fit")

    monkeypatch.setattr(fits, "fit", fail)
    assert "FloatingPointError: no fit" in read(page_of(tmp_path))


def test_the_figure_of_one_panel_is_drawn_once(tmp_path, monkeypatch):
    write_run(tmp_path, AR, epochs=50)
    widths = []
    draw = canvas.draw
    monkeypatch.setattr(canvas, "draw", lambda *each: widths.append(each[2]) or draw(*each))
    page = report.write(tmp_path).read_text("utf-8")
    assert len(widths) == 2 and page.count("<figure") == 3  # frontier, epochs; and the samples
    report.write(tmp_path, ["epochs"], width=3.25)  # the page shows figures at their own width
    assert widths[2:] == [3.25, 0.0, 0.0]


def test_one_panel_at_the_width_of_a_column(tmp_path):
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, AR, epochs=50, corpus="prose", fingerprint="p" * 64)
    name = "frontier-prose-6-400-unique-tokens"
    report.write(tmp_path, [name], width=3.25)
    drawn = {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".svg", ".pdf")}
    assert drawn == {f"{name}.png", f"{name}.svg", f"{name}.pdf"}
    assert 'width="234pt"' in (tmp_path / f"{name}.svg").read_text("utf-8")
    with pytest.raises(
        DlmError, match="frontier, frontier-digits-6-400-unique-tokens, frontier-prose"
    ):
        report.write(tmp_path, ["frontier-c4"])


def test_a_sentence_begins_with_a_capital(written):
    for panel in json.loads((written / "report.json").read_text())["answers"]:
        for sentence in re.split(r"(?<=[a-z)]\.) ", panel):
            assert sentence[0].isupper(), sentence


def test_a_page_keeps_a_value_and_its_error_together_and_breaks_no_word(written):
    page = (written / "report.html").read_text("utf-8")
    assert "1.5425\u00a0±\u00a00.0011" in page and "1.5425 ± 0.0011" not in page
    assert "optimizer.<wbr>lr=<wbr>0" not in page and "optimizer.<wbr>lr=0.002" in page
    assert re.search(r"\(1\.\d+ to 1\.\d+\)×10¹²", page)
    assert not re.search(r"\de[+-]?\d", words_of(page))
    assert "anywhere" not in page.split("th,td{")[1].split("}")[0]  # cells break at spaces


def words_of(html: str) -> str:
    page = Balanced()
    page.feed(html)
    return " ".join(t for t in page.text if not re.fullmatch(r"\s*[0-9a-f]{10,64}\s*", t))


def test_importing_the_report_imports_nothing_heavy():
    code = "import sys, dlm.report.page; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"jax", "flax", "matplotlib", "sklearn", "pyarrow", "rich", "scipy"}
    assert not heavy & set(out.stdout.split())


def test_mean_curve_stops_with_the_first_seed(tmp_path):
    write_run(tmp_path, AR, seed=0)
    panel = runs.panels(runs.load(tmp_path))[0][0]
    x, y = run_figures.mean_curve(panel.families["ar"].best, "validation_loss")
    np.testing.assert_allclose(y, AR(x * 1e10))
