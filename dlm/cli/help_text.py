"""Lays out a page of --help for the width of the terminal: no line is longer, no word is broken."""

from __future__ import annotations

import argparse
import re
import textwrap

CONTINUES = " \\"  # at the end of a command that goes on in the next line


class Formatter(argparse.HelpFormatter):
    """Takes examples, lines that begin with two spaces, and paragraphs of any other lines.

    An example is a command and, after two spaces or more, what it does.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrap(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for block in re.split(r"\n\s*\n", text.strip("\n")):
            lines += ["", *_block(block.splitlines(), width)]
        return "\n".join(indent + line if line else "" for line in lines[1:])


def _block(lines: list[str], width: int) -> list[str]:
    """A paragraph, wrapped, or a heading and its examples; a line such as "laws: ..." begins anew."""
    laid_out: list[str] = []
    prose: list[str] = []
    examples: list[str] = []
    for line in lines:
        if line.startswith("  "):
            if examples and examples[-1].endswith(CONTINUES):
                examples[-1] = examples[-1].removesuffix(CONTINUES) + " " + line.strip()
            else:
                examples.append(line.strip())
            continue
        if re.match(r"[\w.]+: ", line) and prose:
            laid_out += _wrap(" ".join(prose), width)
            prose = []
        prose.append(line)
    laid_out += _wrap(" ".join(prose), width)
    return laid_out + _examples(examples, width)


def _examples(examples: list[str], width: int) -> list[str]:
    """Comments in a column of their own if all fit there, else each below its command."""
    pairs = [tuple(re.split(r"\s{2,}", line, maxsplit=1)) for line in examples]
    column = max((len(pair[0]) for pair in pairs if len(pair) == 2), default=0) + 4
    beside = all(column + len(pair[1]) <= width for pair in pairs if len(pair) == 2)
    lines: list[str] = []
    for command, *comment in pairs:
        if comment and beside:
            lines.append(f"  {command}".ljust(column) + comment[0])
            continue
        together = re.sub(
            r"(--[\w.-]+) (?=[^-\s])", "\\1\u00a0", command
        )  # an option and its value
        wrapped = _wrap(together, width - 2 - len(CONTINUES), hanging=4)
        parts = [part.replace("\u00a0", " ") for part in wrapped]
        lines += [f"  {part}{CONTINUES}" for part in parts[:-1]] + [f"  {parts[-1]}"]
        for text in comment:
            lines += [f"      {line}" for line in _wrap(text, width - 6)]
    return lines


def _wrap(text: str, width: int, hanging: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
