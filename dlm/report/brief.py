"""A summary on one screen of a terminal: verdicts, the table of families, remarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlm.report import summary as findings
from dlm.report.summary import Summary
from dlm.report.terminal import columns_in_one_line, layout, wrap

LINES = 14  # beside the line with the path of the page


@dataclass(frozen=True)
class Brief:
    """A summary for Rich, laid out at the width where it is printed."""

    summary: Summary

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        for line in lines(self.summary, options.max_width):
            yield Text(line, no_wrap=True, overflow="ignore")


def lines(s: Summary, width: int) -> list[str]:
    """The lines of a summary, each at most `width` wide.

    Shows each verdict and the remarks in full, as many rows of the table as LINES leave room for, and
    the reasons why runs are left out if all of them fit. Rows that do not fit are counted; the page
    has them.
    """
    verdicts = [
        line
        for panel in s.panels
        for text in filter(None, (panel.verdict, panel.ensembled))
        for line in wrap(f"{panel.corpus}, {panel.unique_tokens:,} tokens: {text}", width)
    ]
    remarks = wrap(" ".join(filter(None, [s.nothing, *s.remarks])), width)
    remarks = remarks if any(remarks) else []
    table = _table(s, width, LINES - len(verdicts) - len(remarks))
    above = [*verdicts, *table, *remarks]
    reasons = [
        line
        for each in s.excluded
        for line in wrap(f"left out: {each['label']}: {each['reason']}", width)
    ]
    return above + (reasons if len(above) + len(reasons) <= LINES else [])


def _table(s: Summary, width: int, room: int) -> list[str]:
    """The head and rows of the table, a line each, in at most `room` lines (one at least)."""
    head, rows = findings.table(s)
    if not rows:
        return []
    same = ("data", "unique") if len(s.panels) == 1 else ()  # the verdict names them
    places = [k for k, name in enumerate(head) if name not in same]
    head, rows = [head[k] for k in places], [[row[k] for k in places] for row in rows]
    kept = columns_in_one_line(head, rows, width)
    laid_out = layout(head[:kept], [row[:kept] for row in rows], width)
    if len(laid_out) <= room:
        return laid_out
    shown = max(room - 2, 0)
    more = f"{len(rows) - shown} {'more ' if shown else ''}rows of the table are on the page."
    return [*(laid_out[: shown + 1] if shown else []), more]
