"""Tables on narrow and wide terminals: nothing lost, no word broken."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from dlm.report.terminal import grid, layout, prose

HEAD = ("data", "family", "loss, nats/token", "kind", "training", "best epoch", "FLOPs", "setting")
ROWS = [
    ["digits, 6,400 unique tokens", "masked diffusion", "1.5425 ± 0.0011", "upper bound", "1.100",
     "200", "2.0×10¹²", "optimizer.lr=0.002, model.dropout.residual=0.1 (of 3)"],
    ["日本語, 6,400 unique\ntokens", "AR", "1.5899 ± 0.0013", "exact", "1.100", "15", "1.5×10¹¹",
     "the only one (of 1)"],
]  # fmt: skip


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 400])
def test_every_word_is_there_whole_at_any_width(width):
    lines = layout(HEAD, ROWS, width)
    assert all(cell_len(line) <= width for text in lines for line in text.splitlines())
    words = " ".join(lines).split()
    for row in ROWS:
        for word in " ".join(row).split():
            if width >= 40:
                assert word in words or f"{word};" in words, (word, lines)
    if width >= 40:
        assert "1.5425 ± 0.0011" in "\n".join(lines)  # a value and its error share a line
    assert len(lines) == 3 or width < 400


def test_columns_without_room_stand_below_their_row():
    head, *rows = layout(HEAD, ROWS, 80)
    assert "kind" in head and "setting" not in head
    assert sum(line.startswith("  ") and "setting: " in line for line in rows) == 2


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    assert layout(("name", "loss"), [["a", "12.5"], ["bc", "3.5"]], 80) == [
        *("name  loss", "a     12.5", "bc     3.5"),
    ]


def test_a_word_longer_than_the_terminal_is_broken_behind_a_sign():
    (_, *lines) = layout(("path",), [["runs/quickstart/0123456789/checkpoints"]], 24)
    assert lines == ["runs/quickstart/", "0123456789/checkpoints"]


def test_it_prints_through_rich_without_markup():
    out = io.StringIO()
    console = Console(file=out, width=30)
    console.print(grid(("a", "b"), [["[red]x[/red]", "1"]]), prose("[b]bold[/b]"))
    assert "[red]x[/red]" in out.getvalue() and "[b]bold[/b]" in out.getvalue()
