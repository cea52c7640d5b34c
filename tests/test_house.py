"""The house has one direction: the imports are read from the source and checked against it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlm import usage

PACKAGE = Path(__file__).parents[1] / "dlm"

# Each row may import the rows above it, never its own neighbours or a row below.
LEFT = (
    ("errors", "format"),
    ("terminal", "inputs", "disk", "private"),
    ("sealed",),
    ("flops", "bucket"),
    ("families",),
    ("schema",),
    ("rules",),
    ("config",),
    ("experiment", "memory"),
    ("planning",),
    ("paper", "labels"),
    ("tokenizer_files",),
    ("tokenizers",),
    ("corpora", "round_trip"),
    ("store", "spool", "split"),
    ("corpus",),
    ("data",),
    ("keys",),
    ("model",),
    ("objectives",),
    ("likelihood", "hosts"),
    ("optim", "sharding", "checkpoint", "metrics"),
    ("evaluate", "step", "trunks"),
    ("train",),
    ("sampling", "proofs"),
    ("quality", "spectrum", "benchmark"),
    ("record",),
    ("run",),
    ("worker", "sweep"),
    ("together",),
    ("progress",),
    ("executor",),
)
# The other side of the run directory: these, and of the left only what RIGHT_MAY names.
RIGHT = (
    *("run_folders", "runs", "frontiers", "crossings", "crossover", "laws", "ticks", "canvas"),
    *("figures", "law_figures", "curve_figures", "html", "findings", "law_report", "report"),
    "commands",
)
# The command line joins both sides.
TOP = ("addresses", "prompts", "help_text", "trained", "usage", "sending", "cli")
RIGHT_MAY = {
    *("errors", "format", "disk", "sealed", "terminal", "inputs", "config", "flops", "likelihood"),
    "corpora",
}
FORBIDDEN = {"tensorflow", "torch", "clu", "tensorboardX", "tensorflow_datasets"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """`dlm/objectives/ar.py` -> objectives."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, dotted: dlm.config, jax.sharding, ..."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def own(path: Path) -> set[str]:
    """The places of dlm that a file imports, without its own."""
    parts = (name.split(".") for name in imports(path))
    return {name[1] for name in parts if name[0] == "dlm" and len(name) > 1} - {place(path)}


def allowed(name: str) -> set[str]:
    if name in TOP:
        return {place for row in LEFT for place in row} | set(RIGHT) | set(TOP[: TOP.index(name)])
    if name in RIGHT:
        return RIGHT_MAY | set(RIGHT[: RIGHT.index(name)])
    row = next(i for i, places in enumerate(LEFT) if name in places)
    return {place for places in LEFT[:row] for place in places}


def test_every_file_has_its_place() -> None:
    known = {place for row in LEFT for place in row} | set(RIGHT) | set(TOP)
    assert {place(path) for path in sources()} - {"__init__"} == known


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nothing_imports_against_the_arrows(path: Path) -> None:
    if place(path) != "__init__":
        assert own(path) - allowed(place(path)) == set()


def test_only_the_model_knows_flax_and_nobody_knows_tensorflow_or_torch() -> None:
    by_file = {path.name: {name.split(".")[0] for name in imports(path)} for path in sources()}
    assert [name for name, tops in by_file.items() if "flax" in tops] == ["model.py"]
    assert {name: tops & FORBIDDEN for name, tops in by_file.items() if tops & FORBIDDEN} == {}


def test_the_right_side_and_the_command_line_load_no_jax() -> None:
    """In a process of its own: what imports, and every --help, bring into sys.modules."""
    code = """
import contextlib, importlib, io, json, pkgutil, sys, time
import dlm.report, dlm.cli, dlm.sweep, dlm.runs, dlm.progress, dlm.findings, dlm.likelihood
import dlm.usage, dlm.commands, dlm.html, dlm.law_figures, dlm.law_report, dlm.laws
for module in pkgutil.iter_modules(dlm.laws.__path__):
    importlib.import_module(f"dlm.laws.{module.name}")
heavy = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow", "torch")
loaded = {"imports": [name for name in heavy if name in sys.modules]}
for words in ([], *([verb] for verb in dlm.usage.VERBS)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        dlm.cli.main([*words, "--help"])
    loaded[" ".join(["dlm", *words])] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert len(loaded) == 2 + len(usage.VERBS)
    assert {name: found for name, found in loaded.items() if found} == {}
