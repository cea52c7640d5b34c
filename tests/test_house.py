"""The house has eleven rooms, a front door and one direction: its imports are read and checked."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlm.cli import parser
from places import ROOT, TESTS

PACKAGE = ROOT / "dlm"

# What each package may import. Files beside the packages may be imported by all.
ARROWS: dict[str, set[str]] = {
    "config": set(),
    "runs": {"config"},
    "data": {"config", "runs"},
    "model": {"config"},
    "objectives": {"config", "model"},
    "evaluation": {"config", "data", "model", "objectives", "runs"},
    "training": {"config", "data", "model", "objectives", "evaluation", "runs"},
    "sweep": {"config", "data", "training", "runs"},
    "laws": {"config", "runs"},
    "report": {"config", "runs", "laws"},
    "cli": {"config", "data", "model", "objectives", "evaluation", "training", "sweep", "runs"}
    | {"laws", "report", "api"},
}
ROOMS = frozenset(ARROWS)
BESIDE = {"errors", "format", "inputs", "disk", "sealed", "private"}
# The front door stands at the top: it may import every package below the command line, and only the
# command line imports it. dlm/__init__.py names what it offers.
ARROWS["api"] = ARROWS.keys() - {"cli"}
ARROWS["plot"] = ARROWS["api"] | {"api"}
ARROWS["__main__"] = {"cli"}
FORBIDDEN = {"tensorflow", "torch", "clu", "tensorboardX", "tensorflow_datasets"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """`dlm/objectives/ar.py` -> objectives."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """`dlm/objectives/ar.py` -> dlm.objectives.ar; a package's __init__ -> dlm.objectives."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, dotted: dlm.config, jax.sharding, ..."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return names


def test_there_are_eleven_rooms() -> None:
    assert {room(path) for path in sources()} - {"__init__"} == ARROWS.keys() | BESIDE
    assert len(ROOMS) == 11


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nothing_imports_against_the_arrows(path: Path) -> None:
    if room(path) != "__init__":
        parts = (name.split(".") for name in imports(path))
        others = {name[1] for name in parts if name[0] == "dlm" and len(name) > 1} - {room(path)}
        assert others <= ARROWS.get(room(path), set()) | BESIDE


def test_files_import_one_way_inside_a_room_too() -> None:
    known = {module(path) for path in sources()}
    graph = {}
    for path in sources():
        inside = {n for n in imports(path) if n.startswith(f"dlm.{room(path)}.")}
        graph[module(path)] = {n if n in known else n.rpartition(".")[0] for n in inside} & known
        graph[module(path)] -= {module(path), f"dlm.{room(path)}"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_only_the_model_knows_flax_and_nobody_knows_tensorflow_or_torch() -> None:
    by_file = {module(p): {name.split(".")[0] for name in imports(p)} for p in sources()}
    assert [name for name, tops in by_file.items() if "flax" in tops] == ["dlm.model.transformer"]
    assert {name: tops & FORBIDDEN for name, tops in by_file.items() if tops & FORBIDDEN} == {}


def test_the_right_side_and_the_command_line_load_no_jax() -> None:
    """In a process of its own: what imports, and every --help, bring into sys.modules."""
    code = """
import contextlib, importlib, io, json, pkgutil, sys, time
import dlm.config, dlm.runs, dlm.laws, dlm.report, dlm.cli.main, dlm.sweep.local, dlm.sweep.progress
for package in (dlm.config, dlm.runs, dlm.laws, dlm.report, dlm.cli):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
heavy = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow", "torch")
loaded = {"imports": [name for name in heavy if name in sys.modules]}
for words in ([], *([verb] for verb in dlm.cli.parser.VERBS)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        dlm.cli.main.main([*words, "--help"])
    loaded[" ".join(["dlm", *words])] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert len(loaded) == 2 + len(parser.VERBS)
    assert {name: found for name, found in loaded.items() if found} == {}


def test_tests_stand_in_folders_named_as_the_rooms() -> None:
    folders = {path.parent.name for path in TESTS.rglob("*/test_*.py")} - {TESTS.name}
    assert folders == ROOMS
