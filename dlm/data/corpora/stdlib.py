"""English prose that every Python carries: its own manual's topics and its modules' docstrings.

The files are parsed, never imported. What is kept depends on the Python version, so the version is
part of a store's identity and its fingerprint is printed with every result.
"""

from __future__ import annotations

import ast
import inspect
import os
import platform
import re
import sysconfig
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

from dlm.data.corpora.source import Source
from dlm.errors import DlmError

VERSION = 1  # of the filter below; raise it with every change that moves a character

# Folders that hold no prose of the library's own: tests, installed packages, generated tables.
FOLDERS = """
test tests idle_test site-packages dist-packages idlelib lib2to3 encodings turtledemo ensurepip
pydoc_data lib-dynload __pycache__ __phello__
"""
# Words that hold English sentences together; code, tables and lists of names have few.
WORDS = """
a an the this that these those it its if is are was be been has have not no or and but of to in on
at by for from with as than then when which will can may must should does do there they any all each
only same such also into one two other more between after before you
"""
SKIP, GLUE = frozenset(FOLDERS.split()), frozenset(WORDS.split())

ASCII = str.maketrans(
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00a0\u2022",
    "'''\"\"\"------- *",
    "\u00ad",
) | {0x2026: "..."}

CODE = re.compile(r">>>|^\s*\.\.\. |::=|^\s*[$%] |^\s*[|+][-=|+ ]|[-=_~*#.]{4}|\\n|^\s*@\w", re.M)
STRANGE = re.compile(r"[^\t\n -~]")  # not ASCII, or a control character
TABLE = re.compile(r"\S(?: {3,}|\t)\S")
MARK = re.compile(r"^(?:[*+-]|\(?\d{1,2}[.)]|o) +")
SENTENCE = re.compile(r"^[\"'(`*]{0,2}[A-Z].*[.!?:][\"')`]{0,2}$", re.S)
CLAUSE = re.compile(r"^[\"'(`*]{0,2}[a-z].*[.!?][\"')`]{0,2}$", re.S)  # begins with a name
HYPHEN = re.compile(r"(?<=[a-z]-)\n\s*(?=[a-z])")  # a line broken inside a hyphenated word


def stdlib() -> Source:
    """One document per topic ("topic/assert") and per module ("module/json.decoder")."""
    state = {"python": platform.python_version(), "filter": VERSION}
    return Source(documents=_documents(), state=state)


def _documents() -> Iterator[tuple[str, str]]:
    seen: set[str] = set()  # paragraphs: the manual's topics overlap, and so do docstrings
    empty = True
    for name, texts in [*_topics(), *_modules(Path(sysconfig.get_path("stdlib")))]:
        kept = []
        for paragraph in (p for text in texts for p in paragraphs(text)):
            if paragraph not in seen:
                seen.add(paragraph)
                kept.append(paragraph)
        if kept:
            empty = False
            yield name, "\n".join(kept) + "\n"
    if empty:
        raise DlmError(
            "corpus.name='stdlib': this Python carries no pydoc topics and no .py files under "
            f"{sysconfig.get_path('stdlib')}; use corpus.name=files with texts of your own"
        )


def _topics() -> list[tuple[str, list[str]]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return []
    return [(f"topic/{name}", [topics[name]]) for name in sorted(topics)]


def _modules(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The docstrings of each module under `root`, in order of its name."""
    files = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIP and not f.startswith("config-")]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts).removesuffix(".__init__")] = path
    for name in sorted(files):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in somebody's string
                tree = ast.parse(files[name].read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        yield f"module/{name}", list(_docstrings(tree))


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Docstrings in the order of the source, without those of functions inside functions."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    if isinstance(node, ast.Module | ast.ClassDef | ast.If | ast.Try):
        for child in ast.iter_child_nodes(node):
            yield from _docstrings(child)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that read like English, each on one line of ASCII."""
    text = unicodedata.normalize("NFKD", inspect.cleandoc(text).translate(ASCII))
    text = STRANGE.sub("", text)
    for block in re.split(r"\n[ \t]*\n", text):
        for item in _items(block):
            line = " ".join(HYPHEN.sub("", item).split())
            if is_prose(item, line):
                yield line


def _items(block: str) -> Iterator[str]:
    """The points of a list without their marks, the bodies of definitions without their heads."""
    item: list[str] = []
    for line in block.strip("\n").split("\n"):
        text = line.lstrip()
        mark = MARK.match(text)
        body = len(item) == 1 and text[:1].isupper() and _indent(line) - _indent(item[0]) >= 3
        if item and (mark or (body and not SENTENCE.match(item[0].strip()))):
            yield "\n".join(item)
            item = []
        item.append(" " * (_indent(line) + mark.end()) + text[mark.end() :] if mark else line)
    yield "\n".join(item)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_prose(block: str, line: str) -> bool:
    """Whether a paragraph (`line`: the same, on one line) reads like English sentences."""
    words = [word.lower().strip("\"'`().,;:!?*") for word in line.split()]
    if len(line) < 20 or len(words) < 4 or CODE.search(block):
        return False
    if not (SENTENCE.match(line) or (len(words) >= 8 and CLAUSE.match(line))):
        return False
    rows = block.split("\n")
    if any(TABLE.search(row.strip()) for row in rows):
        return False
    indents = [_indent(row) for row in rows[1:]]
    if max(indents, default=0) - min(indents, default=0) > 2:
        return False  # code, or a list of arguments
    plain = sum(word.replace("'", "").replace("-", "").isalpha() for word in words)
    glue = sum(word in GLUE for word in words)
    return plain >= 0.7 * len(words) and glue >= 0.12 * len(words)
