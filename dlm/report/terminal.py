"""Tables and prose for a terminal of any width: no word is broken, no column squeezed to nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlm.format import JOINED, is_number

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # spaces between columns
LONGEST_WORD = 28  # characters that a column always finds room for; longer words may be broken
LONGEST_HALF = 16  # characters: a long text may take more than two lines


def prose(text: str, style: str = "") -> Text:
    """A paragraph, wrapped at spaces; brackets are no markup."""
    from rich.text import Text

    return Text(text, style=style)


@dataclass(frozen=True)
class Grid:
    """A table for Rich, laid out at the width where it is printed; columns by importance."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        lines = layout(self.head, self.rows, options.max_width)
        for k, line in enumerate(lines):
            yield Text(line, style="bold" if k == 0 else "", no_wrap=True, overflow="ignore")


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """A table: the names of its columns, and as many cells a row."""
    return Grid(tuple(head), tuple(tuple(row) for row in rows))


def layout(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The lines of a table at most `width` wide, the first item its head.

    Cells wrap at spaces. Columns that then have no room, from the right, stand below their row as
    "name: value". Columns of numbers are aligned to the right.
    """
    cells = [[_joined(cell) for cell in row] for row in rows]
    columns = list(zip(head, *cells, strict=True))
    natural = [max(map(_width, column)) for column in columns]
    least = [_least(column) for column in columns]
    kept = len(head)
    while kept > 1 and sum(least[:kept]) + GAP * (kept - 1) > width:
        kept -= 1
    widths = _shared(natural[:kept], least[:kept], width - GAP * (kept - 1))
    right = [all(is_number(c) for c in column[1:] if c) for column in columns[:kept]]
    lines = ["\n".join(_row(head[:kept], widths, right))]
    for row in cells:
        lines += _row(row[:kept], widths, right)
        pairs = zip(head[kept:], row[kept:], strict=True)
        below = "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)
        lines += [f"  {line}" for line in wrap(below, width - 2)] if below else []
    return [line.replace("\u00a0", " ").rstrip() for line in lines]


def columns_in_one_line(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, fit beside each other so that no cell wraps; at least one."""
    columns = zip(head, *([_joined(cell) for cell in row] for row in rows), strict=True)
    ends = itertools.accumulate(max(map(_width, column)) + GAP for column in columns)
    return max(sum(end - GAP <= width for end in ends), 1)


def _joined(cell: str) -> str:
    """A cell on one line, a value and its error not to be parted."""
    return " ".join(cell.split()).replace(" ± ", JOINED)


def _least(column: Sequence[str]) -> int:
    """The width below which a column is hard to read: its longest word, or its cells in two lines."""
    words = max(_width(word) for cell in column for word in cell.split(" "))
    halves = (max(map(_width, column)) + 1) // 2
    return max(min(words, LONGEST_WORD), min(halves, LONGEST_HALF))


def _shared(natural: list[int], least: list[int], width: int) -> list[int]:
    """Widths between the least and the natural ones; the columns that lack little are filled first."""
    widths = [min(a, b) for a, b in zip(least, natural, strict=True)]
    spare = max(width - sum(widths), 0)
    order = sorted(range(len(widths)), key=lambda i: natural[i] - widths[i])
    for k, i in enumerate(order):
        more = min(natural[i] - widths[i], spare // (len(order) - k))
        widths[i] += more
        spare -= more
    return [min(w, max(width, 1)) for w in widths]


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    lines = []
    for k in range(height):
        parts = [part[k] if k < len(part) else "" for part in wrapped]
        padded = [
            " " * (w - _width(p)) + p if r else p + " " * (w - _width(p))
            for p, w, r in zip(parts, widths, right, strict=True)
        ]
        lines.append((" " * GAP).join(padded))
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width`, broken at spaces; a word breaks only if no line could hold it."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while _width(word) > width:
            at = _break(word, width)
            lines[-1], word = word[:at], word[at:]
            lines.append("")
        lines[-1] = word
    return lines


def _break(word: str, width: int) -> int:
    """Where a word too long for its line is broken: behind a sign in its last half, or at the end."""
    whole = max(k for k in range(1, len(word) + 1) if k == 1 or _width(word[:k]) <= width)
    signs = [k for k in range(whole // 2, whole) if word[k] in "=/_.,-:"]
    return signs[-1] + 1 if signs else whole


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
