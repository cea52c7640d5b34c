"""What a sweep shows: the display of a terminal, drawn into a string, and the lines elsewhere."""

from __future__ import annotations

import functools
import io
import re
import types
from collections.abc import Callable

import pytest
import rich.console
import rich.progress

from dlm.sweep import progress

SCORES = dict(validation_loss=1.25, validation_stderr=0.0625)


def job(run: str, label: str = "digits ar") -> types.SimpleNamespace:
    info = types.SimpleNamespace(run_id=run, label=f"{label} {run}")
    return types.SimpleNamespace(info=info, flops=100.0)


def row(step: int, **more) -> dict:
    return dict(step=step, epoch=step / 2, flops=10.0 * step) | more


@pytest.fixture
def draw(monkeypatch, request) -> Callable[[], str]:
    """Draws the display as if in a terminal, and gives what was written since the last time."""
    width = getattr(request, "param", 120)
    out, displays = io.StringIO(), []
    console = functools.partial(
        rich.console.Console, file=out, force_terminal=True, color_system=None, width=width
    )

    class Display(rich.progress.Progress):
        def __init__(self, *columns, **options) -> None:
            super().__init__(*columns, **options, auto_refresh=False)  # when the test says so
            displays.append(self)

    monkeypatch.setattr(rich.console, "Console", console)
    monkeypatch.setattr(rich.progress, "Progress", Display)

    def now() -> str:
        displays[0].refresh()
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return text

    return now


def test_a_run_whose_first_news_is_a_phase_is_shown_in_a_terminal(draw) -> None:
    """A resumed run that had only its final evaluation left: no step, no loss, no FLOPs."""
    jobs = [job("a"), job("b"), job("c")]
    with progress.show(jobs) as tell:
        tell("start", jobs[0], {})
        assert "compiling" in draw()
        tell("progress", jobs[0], {"phase": "final evaluation"})
        text = draw()
        assert "final evaluation" in text and "runs 0/3" in text
        tell("finished", jobs[1], SCORES)
        text = draw()
        assert "digits ar b: 1.2500 ± 0.0625 nats/token" in text and "runs 1/3" in text
        tell("progress", jobs[0], row(3, loss=2.5, tokens_per_second=12345.6))
        text = draw()
        assert "30%" in text and "epoch 1.5, loss 2.500, 12,346 tokens/s" in text
        tell("progress", jobs[0], {"phase": "final evaluation"})
        text = draw()
        assert "30%" in text and "final evaluation" in text and "loss" not in text
        tell("failed", jobs[2], {"reason": "planted"})
        tell("progress", jobs[0], row(4, validation_loss=2.25, loss=2.0))
        text = draw()
        assert "digits ar c: failed: planted" in text
        assert "40%" in text and "epoch 2.0, validation 2.250" in text
        assert "runs 2/3" in text and "80%" in text  # 240 of 300 FLOPs


def test_brackets_are_shown_as_they_are(draw) -> None:
    one = job("a", "files paths=[x]")
    with progress.show([one]) as tell:
        tell("start", one, {})
        assert "files paths=[x] a  " in draw()  # beside its bar
        tell("failed", one, {"reason": "no [bold]such[/] file: [/data/x]"})
    assert "files paths=[x] a: failed: no [bold]such[/] file: [/data/x]" in draw()


@pytest.mark.parametrize("draw", [80, 99, 100, 119, 140], indirect=True)
def test_a_narrow_terminal_cuts_labels_alone_and_at_words(draw) -> None:
    label = "digits masked lr=0.004 weight_decay=2.5 seed=1 layers=4"
    jobs = [job("a", label), job("b", "prose ar"), job("c", "x" * 90)]
    with progress.show(jobs) as tell:
        for one in jobs:
            tell("start", one, {})
        numbers = dict(step=4, epoch=1234.5, flops=40.0, tokens_per_second=1234567.8)
        tell("progress", jobs[0], numbers | {"validation_loss": 12.345})
        draw()
        text = draw()
        lines = re.sub(r"\x1b\[\d*\w", "", text).strip().splitlines()
        assert len(lines) == 4 and "epoch 1234.5, validation 12.345" in text
        assert "runs 0/3" in text and "prose ar b" in text and "compiling" in text
        (first,) = [line for line in lines if line.startswith("digits masked")]
        short = first.split("  ")[0].split(" ━")[0].split("…")
        assert all(word in (label + " a").split() for part in short for word in part.split())
        assert first.count("…") == 1 and " a " in first
        path = "/data/" + "a" * 80
        tell("failed", jobs[1], {"reason": f"cannot read {path}"})
        assert path in draw()


def test_without_a_terminal_a_phase_is_no_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "EVERY", -1.0)  # every event may be a line
    one = job("a")
    with progress.show([one]) as tell:
        tell("start", one, {})
        tell("progress", one, {"phase": "final evaluation"})
        tell("progress", one, row(2, loss=2.5))
        tell("finished", one, SCORES)
    assert capsys.readouterr().out.splitlines() == [
        "[1/1] digits ar a: started",
        "        digits ar a: epoch 1.0, loss 2.500",
        "[1/1] digits ar a: 1.2500 ± 0.0625 nats/token",
    ]


def test_without_a_terminal_the_time_left_is_a_line_a_minute(capsys, monkeypatch) -> None:
    """30 of 300 FLOPs in 70 seconds; 20 of them were there before: 270 more take 31 minutes."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    jobs = [job("a"), job("b"), job("c")]
    with progress.show(jobs) as tell:
        tell("start", jobs[0], {})
        tell("progress", jobs[0], row(2, loss=2.5))
        for clock[0], step in ((5.0, 2), (70.0, 3), (80.0, 4)):
            tell("progress", jobs[0], row(step, loss=2.5))
    lines = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert lines == ["[0/3] 10% of the training, about 32 min left"]
