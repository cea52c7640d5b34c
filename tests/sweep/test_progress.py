"""What a sweep shows: the display of a terminal, drawn into a string, and the lines elsewhere."""

from __future__ import annotations

import functools
import io
import math
import re
import types
from collections.abc import Callable

import pytest
import rich.console
import rich.progress

from dlm.config.planning import Work
from dlm.sweep import progress
from tolerances import FLOAT64

SCORES = dict(validation_loss=1.25, validation_stderr=0.0625)


def job(run: str, label: str = "digits ar", scores: float = 0.0) -> types.SimpleNamespace:
    """A run of 100 FLOPs of training, and some of scores after it."""
    space, family = types.SimpleNamespace, label.split()[-1]
    return space(
        info=space(run_id=run, label=f"{label} {run}"),
        work=Work(training=100.0, tracked=0.0, final=scores, further=0.0, samples=0.0),
        config=space(objective=space(name=family)),
        plan=space(parameters=space(total=1000)),
    )


def scoring(share: float, scores: float = 0.0) -> dict:
    return {"phase": "final score", "share": share, "work": 100 + share * scores}


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
        tell("progress", jobs[0], scoring(0.25))
        text = draw()
        assert "final score 25%" in text and "runs 0/3" in text
        tell("finished", jobs[1], SCORES)
        text = draw()
        assert "digits ar b: 1.2500 ± 0.0625 nats/token" in text and "runs 1/3" in text
        tell("failed", jobs[2], {"reason": "planted"})
        text = draw()
        assert "digits ar c: failed: planted" in text and "runs 2/3" in text


def test_a_terminal_shows_each_run_and_the_whole(draw) -> None:
    jobs = [job("a", scores=50.0), job("b")]
    with progress.show(jobs) as tell:
        tell("start", jobs[0], {})
        tell("progress", jobs[0], row(6, loss=2.5, tokens_per_second=12345.6))
        text = draw()
        assert "epoch 3.0, loss 2.500, 12,346 tokens/s" in text
        assert "40%" in text and "24%" in text  # 60 of 150 FLOPs, of 250
        tell("progress", jobs[0], row(9, validation_loss=2.25, loss=2.0))
        text = draw()
        assert "60%" in text and "36%" in text and "epoch 4.5, validation 2.250" in text
        tell("progress", jobs[0], scoring(0.7, 50.0))
        text = draw()
        assert "90%" in text and "54%" in text and "final score 70%" in text and "loss" not in text


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


def test_without_a_terminal_a_long_phase_is_told_like_training(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "EVERY", -1.0)  # every event may be a line
    one = job("a")
    with progress.show([one]) as tell:
        tell("start", one, {})
        tell("progress", one, row(2, loss=2.5))
        tell("progress", one, scoring(0.5))
        tell("finished", one, SCORES)
    assert capsys.readouterr().out.splitlines() == [
        "[1/1] digits ar a: started",
        "        digits ar a: epoch 1.0, loss 2.500",
        "        digits ar a: final score 50%",
        "[1/1] digits ar a: 1.2500 ± 0.0625 nats/token",
    ]


def test_the_time_left_is_told_when_it_is_known_then_once_a_minute(capsys, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    jobs = [job("a"), job("b")]
    with progress.show(jobs) as tell:
        for clock[0], step in ((0.0, 0), (3.0, 1), (12.0, 2), (50.0, 3), (71.9, 4), (72.0, 5)):
            if not step:
                tell("start", jobs[0], {})
            tell("progress", jobs[0], row(step, loss=2.5))
    lines = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert lines == ["[0/2] 10% done, about 1.8 min left", "[0/2] 25% done, about 3.6 min left"]


def timed(*events) -> progress.TimeLeft:
    """Two runs at a time of four, ar twice as fast as masked, which scores as long as it trains."""
    left = progress.TimeLeft([*AR, *MASKED])
    for now, event, one, told in events:
        left.tell(event, one, told, now)
    return left


AR, MASKED = [job("a"), job("b")], [job(name, "digits masked", scores=100.0) for name in "cd"]
BEGUN = (
    (0.0, "start", AR[0], {}),
    (0.0, "start", MASKED[0], {}),
    (10.0, "progress", AR[0], row(4)),  # by an earlier call, so no speed
    (10.0, "progress", MASKED[0], row(0)),
    (20.0, "progress", AR[0], row(8)),  # 4 FLOP/s
    (20.0, "progress", MASKED[0], row(2)),  # 2 FLOP/s
)


def test_no_time_is_told_before_a_run_has_trained_for_a_while() -> None:
    assert math.isnan(timed(*BEGUN[:4]).seconds(10.0))
    assert math.isnan(timed(*BEGUN[:4], (14.9, "progress", AR[0], row(9))).seconds(15.0))


def test_the_time_left_counts_each_family_by_its_own_speed_and_its_scores() -> None:
    left = timed(*BEGUN)
    assert left.of_run("a", 20.0) == 20 / 4 and left.of_run("c", 20.0) == 180 / 2
    assert left.of_run("b", 20.0) == 10 + 100 / 4  # it takes 10 s to start and compile
    assert left.of_run("d", 20.0) == 10 + 200 / 2
    assert left.seconds(20.0) == 90 + 35  # on the other worker 110 + 5
    assert left.of_run("a", 22.0) == 3 and left.of_run("c", 110.5) == 90  # it is slower


def test_a_final_score_is_part_of_the_time_left() -> None:
    masked = MASKED[0]
    events = (*BEGUN, (60.0, "progress", masked, row(10)))
    events += ((60.0, "progress", masked, scoring(0.0, 100.0)),)
    assert timed(*events).of_run("c", 60.0) == 50  # 100 FLOPs in 50 s, and 100 more
    events += ((80.0, "progress", masked, scoring(0.75, 100.0)),)  # 175 FLOPs in 70 s
    assert timed(*events).of_run("c", 80.0) == pytest.approx(10, rel=FLOAT64)


def test_a_run_that_ends_early_leaves_no_work_and_tells_no_speed() -> None:
    left = timed(*BEGUN, (21.0, "diverged", MASKED[0], {"reason": "planted"}))
    assert left.of_run("d", 21.0) == 10 + 200 / 2
    assert left.done == 80 + 200 and left.total == 600
