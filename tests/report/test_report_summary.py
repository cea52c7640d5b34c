"""One summary, three doors: the verdict lines, the screen of a terminal, the page and report.json."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from dlm import runs
from dlm.cli import main
from dlm.errors import DlmError
from dlm.format import scientific, with_error
from dlm.laws import crossings
from dlm.laws import crossover as cross
from dlm.report import brief, canvas, law_page, page, run_figures, sentences, summary, verdict
from dlm.runs.estimate import Estimate, compare
from fake_runs import autoregressive, diffusion, edit, quickstart, write_run

AR = autoregressive(1.6, 1.5e11)
CONTINUUM = ("ar", "any_order", "block", "d3pm", "flow", "gaussian", "masked", "noise", "orders")


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(crossings, "RESAMPLES", 100)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Digits, whose curves cross, and stdlib, whose curves do not; see tests/fake_runs.py."""
    return quickstart(tmp_path_factory.mktemp("runs"))


def verdicts(folder, reference="") -> list[str]:
    return [p.verdict for p in summary.summary(runs.load(folder), reference).panels]


def final(challenger: Estimate, reference: Estimate, stderr: float) -> cross.Final:
    names = ("masked diffusion", "AR")
    compared = compare(challenger, reference, stderr, names)
    return cross.Final(
        "ar", "masked", reference, challenger, compared, stderr, stderr, True, True
    )  # fmt: skip


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds, values, shows, words", [
    (("bound", "exact"), (1.5, 1.6), verdict.BETTER,
     "masked diffusion is better than AR by at least 0.100 ± 0.020 nats per token"),
    (("exact", "exact"), (1.5, 1.6), verdict.BETTER,
     "masked diffusion is better than AR by 0.100 ± 0.020 nats per token"),
    (("exact", "exact"), (1.6, 1.5), verdict.WORSE,
     "AR is better than masked diffusion by 0.100 ± 0.020 nats per token"),
    (("bound", "exact"), (1.62, 1.6), verdict.UNDECIDED,
     "AR is ahead by 0.020 ± 0.020 nats per token, not decided"),
    (("bound", "exact"), (1.58, 1.6), verdict.UNDECIDED,
     "masked diffusion is ahead by 0.020 ± 0.020 nats per token, not decided"),
    (("bound", "exact"), (1.7, 1.6), verdict.NOTHING,
     "the upper bound of masked diffusion lies 0.100 ± 0.020 nats per token above AR, which shows "
     "nothing"),
    (("exact", "bound"), (1.5, 1.6), verdict.NOTHING,
     "the upper bound of AR lies 0.100 ± 0.020 nats per token above masked diffusion, which shows "
     "nothing"),
    (("bound", "bound"), (1.5, 1.6), verdict.NO_ORDER,
     "the upper bound of masked diffusion lies 0.100 ± 0.020 nats per token below that of AR, "
     "which does not order them"),
])  # fmt: skip
def test_who_is_ahead_and_what_that_shows(kinds, values, shows, words):
    kinds = [kind.replace("bound", "upper bound") for kind in kinds]
    a, b = (Estimate(v, 0.02, kind, 64) for v, kind in zip(values, kinds, strict=True))
    made = final(a, b, 0.02)
    assert (verdict.outcome(made), verdict.lead(made)) == (shows, words)


def test_a_verdict_says_who_overtakes_the_best_settings(planted):
    digits, prose = verdicts(planted)
    assert re.fullmatch(
        r"Masked diffusion is better than AR by at least 0\.04\d+ ± 0\.00\d+ nats per token; it "
        r"overtakes the best of 3 settings after 12\d epochs, 1\.2×10¹² FLOPs \[90%: .*\]\.",
        digits,
    )
    assert re.fullmatch(
        r"The upper bound of masked diffusion lies .* nats per token above AR, which shows nothing; "
        r"at equal settings masked diffusion does not overtake within 2\.0×10¹² FLOPs\.",
        prose,
    )


def test_without_passing_the_best_a_verdict_tells_of_equal_settings(tmp_path):
    write_run(tmp_path, autoregressive(1.3, 1.5e11), lr=1e-3, epochs=50)
    write_run(tmp_path, AR, epochs=50)
    write_run(tmp_path, diffusion(1e12, 1.6), objective="masked")
    (line,) = verdicts(tmp_path)
    assert "at equal settings masked diffusion overtakes after " in line
    assert re.search(r"after (99|10\d)[.\d]* epochs, 1\.0×10¹² FLOPs \[no interval\]\.$", line)


def test_several_families_have_one_line(tmp_path):
    for k, name in enumerate(("ar", "any_order", "block", "masked")):
        law = AR if name == "ar" else diffusion(1e12 if k < 3 else 1e15, 1.6 - 0.1 * (k == 2))
        write_run(tmp_path, law, objective=name, epochs=200)
    (line,) = verdicts(tmp_path)
    start = "2 of 3 families are better than AR, block diffusion by most, at least 0."
    assert line.startswith(start)
    assert "; it overtakes " in line
    assert line.endswith("; a bound above AR shows nothing: masked diffusion.")


def test_one_family_has_no_verdict(tmp_path):
    write_run(tmp_path, AR)
    assert verdicts(tmp_path) == [
        "No finished run of a diffusion family, so no comparison yet."
    ]  # fmt: skip
    with pytest.raises(DlmError, match="--reference 'maskd': must be one of ar"):
        verdicts(tmp_path, "maskd")


def test_a_crossing_of_bounds_shows_nothing_of_the_likelihoods(planted):
    line = verdicts(planted, "masked")[1]
    assert line.startswith("The upper bound of masked diffusion lies")
    assert line.endswith(", by bounds, which shows nothing of the likelihoods.")


def test_the_remark_on_seeds_is_made_once(tmp_path):
    for unique in (1600, 3200, 6400):
        write_run(tmp_path, AR, epochs=50, unique_tokens=unique)
        write_run(tmp_path, diffusion(1e12, 1.6), objective="masked", unique_tokens=unique)
    write_run(tmp_path, AR, epochs=50, seed=1)
    made = summary.summary(runs.load(tmp_path))
    digits = [f"digits, {unique} unique tokens" for unique in ("1,600", "3,200")]
    assert made.remarks == (
        f"One seed only of AR ({'; '.join(digits)}) and masked diffusion: differences between seeds "
        "are unknown.",
    )
    assert not any("One seed" in " ".join((*p.comparisons, p.verdict)) for p in made.panels)


def test_what_is_left_out_and_damaged_is_counted_beside_the_verdicts(tmp_path):
    folder = quickstart(tmp_path, seeds=2)
    for path in folder.rglob("run.json"):
        edit(path, lambda start: start["corpus"].update(notes=["9 of 10 documents are copies."]))
    write_run(tmp_path, AR, seed=8, status="diverged")
    (write_run(tmp_path, AR, seed=9) / "result.json").write_text("{")
    made = page.load(folder).summary
    text = " ".join(made.remarks)
    assert "Left out of the comparison: 1 diverged, 1 unreadable." in text
    assert "Notes on the data: 1." in text
    assert [len(each["reason"]) > 0 for each in made.excluded] == [True, True]
    screen = " ".join(brief.lines(made, 200))  # and named if there is room
    assert all(f"left out: {x['label']}: {x['reason']}" in screen for x in made.excluded)


# --- the doors ------------------------------------------------------------------------------------


def test_terminal_page_and_json_print_the_same_numbers(planted):
    loaded = page.load(planted)
    html = page.page(loaded).replace("\u00a0", " ").replace("<wbr>", "")
    screen = "\n".join(brief.lines(loaded.summary, 200))
    stored = json.loads(json.dumps(summary.as_json(loaded.summary)))
    assert stored == json.loads(json.dumps(summary.numbers(loaded.runs, *runs.panels(loaded.runs))))
    for panel in stored["panels"]:
        assert panel["verdict"] in screen and panel["verdict"] in html
        for row in panel["families"]:
            texts = [with_error(row["loss"], row["stderr"])]
            if row["difference"] is not None:
                difference = row["difference"]["value"], row["difference"]["stderr"]
                texts += [with_error(*difference, sign=True), row["difference"]["outcome"]]
            for text in texts:
                assert text in screen and text in html
        for crossing in panel["crossovers"]["flops"]:
            at = crossing["compute"] or crossing["end"]
            assert scientific(at) in screen and scientific(at) in html
        (final,) = panel["finals"]
        row = panel["families"][1]
        assert row["difference"]["value"] == final["comparison"]["difference"]
        assert row["difference"]["stderr"] == final["comparison"]["stderr"]


def test_a_screen_is_fifteen_lines_of_eighty_columns(tmp_path):
    """With the path of the page, the last of them."""
    for name in CONTINUUM:
        write_run(tmp_path / "a", AR if name == "ar" else diffusion(1e12, 1.6), objective=name)
    for unique in (1600, 3200, 6400):
        for name, law in (("ar", AR), ("masked", diffusion(1e12, 1.6))):
            write_run(tmp_path / "b", law, objective=name, unique_tokens=unique)
    for folder, rows in ((tmp_path / "a", 9), (tmp_path / "b", 6)):
        made = page.load(folder).summary
        lines = brief.lines(made, 80)
        assert len(lines) <= 14 and max(map(len, lines)) <= 80
        (head,) = [k for k, line in enumerate(lines) if line.startswith("family ")]
        shown = sum(" ± " in line for line in lines[head:])
        more = re.search(r"(\d+) more rows of the table are on the page", "\n".join(lines))
        assert shown + (int(more[1]) if more else 0) == rows and shown > 1
        assert {"epochs", "nats/token", "kind"} <= set(lines[head].split())
        assert lines[-1].startswith("One seed only of")


def test_the_page_folds_all_but_verdict_figure_and_table(planted):
    html = page.page(page.load(planted))
    opened, folded = html.split("<details>", 1)
    assert opened.count('class="answer"') == 2 and opened.count("<table>") == 1
    assert opened.count("<svg") == 2
    titles = re.findall(r"<summary>(.*?)</summary>", html)
    assert "The comparison in full" in titles and "All runs (16)" in titles
    assert len(titles) == html.count("</details>") == folded.count("<details>") + 1
    assert html.count("law cannot be fitted") == 1
    assert "The data-constrained law cannot be fitted to 4 of 4 families" in html


def test_many_crossings_are_rings_and_no_words(tmp_path):
    for k, name in enumerate(CONTINUUM[:5]):
        write_run(tmp_path, AR if not k else diffusion(4e11 * k, 1.6), objective=name)
    panels, _ = runs.panels(runs.load(tmp_path))
    drawing = run_figures.frontier(panels)
    ax = canvas.draw(drawing).axes[0]
    assert len(ax.texts) == 0 and "Ring: where a family passes the best AR" in drawing.caption
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    passed = [crossing.compute for crossing in cross.crossovers(panels[0])]
    assert [float(np.asarray(line.get_xdata())[0]) for line in rings] == passed
    assert len(rings) == 4


def test_a_caption_tells_an_interval_from_a_spread_and_from_none(planted, tmp_path):
    for k in range(crossings.SPREAD):
        write_run(tmp_path / "spread", AR, lr=1e-3 * (k + 1), epochs=50)
        write_run(tmp_path / "spread", diffusion(4e11, 1.6), objective="masked", lr=1e-3 * (k + 1))
    for name, law in (("ar", AR), ("masked", diffusion(4e11, 1.6))):
        write_run(tmp_path / "alone", law, objective=name)
    for folder, words in (
        (planted, "passes the best AR; shaded: its 90% interval over seeds."),
        (tmp_path / "spread", "passes the best AR; shaded: its 90% spread over settings."),
        (tmp_path / "alone", "passes the best AR. "),
    ):
        assert words in run_figures.frontier(runs.panels(runs.load(folder))[0]).caption


# --- another reference ----------------------------------------------------------------------------


def test_the_difference_to_another_reference_is_the_same_with_the_other_sign(planted):
    to_ar, to_masked = (summary.summary(runs.load(planted), name) for name in ("", "masked"))
    for a, b in zip(to_ar.panels, to_masked.panels, strict=True):
        assert [row.objective for row in a.families] == ["ar", "masked"]
        assert [row.objective for row in b.families] == ["masked", "ar"]
        first, second = a.families[1].difference, b.families[1].difference
        assert first is not None and second is not None
        assert (second.value, second.stderr) == pytest.approx((-first.value, first.stderr))
        assert a.families[0].difference is b.families[0].difference is None


def test_one_setting_may_be_the_reference(planted):
    found = runs.load(planted)
    made, plain = (summary.summary(found, name) for name in ("ar optimizer.lr=0.001", ""))
    for panel, usual in zip(made.panels, plain.panels, strict=True):
        names = [row.objective for row in panel.families]
        assert names[0] == "ar" and set(names[1:]) == {"ar, other settings", "masked"}
        assert panel.families[0].settings_tried == 1
        (own,) = [r.difference for r in usual.settings if r.setting == "optimizer.lr=0.001"]
        (best,) = [r.difference for r in panel.settings if r.setting == "optimizer.lr=0.002"]
        assert own is not None and best is not None
        assert best.value == pytest.approx(-own.value) and own.outcome == verdict.WORSE
    text = cross.name_of("ar, other settings")
    assert text == "AR, other settings" and text in " ".join(made.panels[0].comparisons)
    with pytest.raises(DlmError, match=r"ar has optimizer.lr=0.002; .*did you mean optimizer.lr"):
        summary.summary(found, "ar optimizer.lr=0.0011")


def test_report_takes_a_reference(planted, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main.main(["report", str(planted), "--reference", "masked", "--figure", "epochs"]) == 0
    out = capsys.readouterr().out
    assert "minus masked " in out and out.splitlines()[-1].endswith("report.html")
    stored = json.loads((planted / "report.json").read_text())
    assert [panel["reference"] for panel in stored["panels"]] == ["masked"] * 2
    assert main.main(["report", str(planted), "--reference", "flow"]) == 2
    assert "--reference 'flow': must be one of ar, masked" in capsys.readouterr().err
    assert main.main(["report", str(planted / "runs.csv"), "--reference", "ar"]) == 2
    assert "--reference: only with a folder of runs" in capsys.readouterr().err


def test_laws_that_cannot_be_fitted_are_one_sentence(planted):
    found = runs.load(planted)
    parts = law_page.of_runs(found, runs.panels(found)[0])
    assert sum(part.startswith("<p>") for part in parts) == 2
    assert "one model size only" in parts[1] and sentences.nothing([]) not in parts
