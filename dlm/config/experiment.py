"""Loads experiment files, and applies their sweeps and the overrides of a command line."""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.util
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from dlm import inputs
from dlm.config.resolve import LARGEST, Config, base, resolve, to_json
from dlm.errors import DlmError, fail, nearest, running

MOST_RUNS = 10_000  # of one sweep
FREE = ("corpus.options", "objective")  # groups that take new keys
SCALES = ("laptop", "smoke", "gpu", "paper")


def load(path: str, scale: str) -> tuple[ConfigDict, list[dict[str, Any]]]:
    """Runs an experiment file. Returns its base config and the overrides of each run of its sweep.

    The file may import files beside it.

    Raises:
      DlmError: the file is missing, fails to load, or does not offer `get_config(scale)`.
    """
    file = Path(path)
    if problem := inputs.unreadable(file, LARGEST) if path else "no such file":
        raise DlmError(f"{path or repr(path)}: {_no_experiment(file, problem)}")
    if scale not in SCALES:
        raise DlmError(f"--scale={scale}: must be one of {', '.join(SCALES)}")
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DlmError(f"{path}: not a Python file; an experiment is a .py with get_config(scale)")
    module = importlib.util.module_from_spec(spec)
    with running(path), _neighbours(file.resolve().parent):
        spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise DlmError(f"{path}: has no get_config(scale); an experiment defines it")
        config = module.get_config(scale)
        runs = (module.sweep(scale) or []) if hasattr(module, "sweep") else [{}]
        sweep = list(itertools.islice(runs, MOST_RUNS + 1))
    if len(sweep) > MOST_RUNS:
        raise DlmError(f"{path}: sweep yields more than {MOST_RUNS:,} runs; does it end?")
    if not sweep or not all(isinstance(run, dict) for run in sweep):
        raise DlmError(f"{path}: sweep must yield a dict of overrides for each run, at least one")
    for run in sweep:
        for key, value in run.items():
            if not isinstance(key, str):
                raise DlmError(f"{path}: sweep yields the key {key!r}; must be as 'model.layers'")
            check_plain(key, value)
    _check_base(path, config)
    return config, sweep


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Lets a file import the files in its folder; Python's own modules take precedence.

    The imported files are forgotten at the end. Otherwise a file of another folder with the same name
    would not be read.
    """
    before, place = set(sys.modules), str(folder)
    added = place not in sys.path
    if added:
        sys.path.append(place)
    importlib.invalidate_caches()  # a file may be new
    try:
        yield
    finally:
        if added and place in sys.path:
            sys.path.remove(place)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if added and file and Path(file).parent == folder:
                del sys.modules[name]


def _check_base(path: str, config: Any) -> None:
    """Raises DlmError unless a config has the groups and fields of dlm.config.base()."""
    if not isinstance(config, ConfigDict):
        raise DlmError(f"{path}: get_config must return the ConfigDict of dlm.config.base()")
    if isinstance(config, FrozenConfigDict):
        raise DlmError(f"{path}: get_config must return a ConfigDict that can be changed")
    right = base()
    for key in keys(right):
        node, group = config, isinstance(value_at(right, key), ConfigDict)
        for part in key.split("."):
            node = node.get(part) if isinstance(node, ConfigDict) else None
        if node is None or (group and not isinstance(node, ConfigDict)):
            raise DlmError(f"{path}: the config lacks {key}; get_config must begin with base()")


def _no_experiment(file: Path, problem: str) -> str:
    """Says why a path is no experiment, and which file may be meant."""
    experiments = sorted(Path("experiments").glob("*.py"))
    if problem == "is a folder" and str(file) != ".":
        inside = sorted(f.name for f in file.glob("*.py") if f.is_file())
        return f"is a folder{'; name a file of it: ' + ', '.join(inside) if inside else ''}"
    if problem not in ("no such file", "is a folder"):
        return f"{problem}; an experiment is a Python file"
    known = [f for f in [*sorted(file.parent.glob("*.py")), *experiments] if f.is_file()]
    same = [str(f) for f in known if f.stem == file.stem]
    near = f"; did you mean {same[0]}?" if same else nearest(str(file), map(str, known))
    return f"no such experiment file{near}"


def expand(config: ConfigDict, overrides: Iterable[dict[str, Any]]) -> list[Config]:
    """Returns one resolved Config for each run of a sweep, in the order of the sweep."""
    runs = []
    for values in overrides:
        runs.append(edited(config, values.items()))
    return runs


def with_overrides(
    config: ConfigDict, sweep: list[dict[str, Any]], by_hand: dict[str, Any]
) -> tuple[ConfigDict, list[dict[str, Any]]]:
    """Adds the overrides of a command line to a base config and to each run of its sweep.

    If they name another corpus or objective, the experiment's options of the old one are dropped.
    """
    changed: Any = copy.deepcopy(config)
    runs = sweep
    corpus, objective = (by_hand.get(f"{group}.name") for group in ("corpus", "objective"))
    if corpus not in (None, config.corpus.name):
        changed.corpus.options = ConfigDict()
        runs = [_without(run, "corpus.options.") for run in runs]
    if objective is not None:
        if objective != config.objective.name:
            changed.objective = base().objective
        own = config.objective.name
        runs = [
            _without(run, "objective.") if run.get("objective.name", own) != objective else run
            for run in runs
        ]
    return changed, [run | by_hand for run in runs]


def _without(run: dict[str, Any], group: str) -> dict[str, Any]:
    """A run's overrides without those of a group."""
    return {key: value for key, value in run.items() if not key.startswith(group)}


def override(config: ConfigDict, key: str, value: Any) -> Any:
    """Sets a dotted key in place, such as ("model.layers", 6). Returns the value before.

    Raises:
      DlmError: the key does not exist (names the nearest that does), or is a group.
    """
    node, *parts = config, *key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        free = last and ".".join(parts[:depth]) in FREE
        if (part not in node and not free) or len(parts) > 3:
            raise DlmError(f"config.{key}: no such key{nearest(key, keys(config))}")
        if not last:
            node = node[part]
            if not isinstance(node, ConfigDict):
                raise DlmError(f"config.{key}: {'.'.join(parts[: depth + 1])} has no parts")
    old = node.get(part)
    if isinstance(old, ConfigDict):
        inside = f"is a group of {', '.join(old)}" if old else "is a group without fields so far"
        raise DlmError(f"config.{key}: {inside}; set one of them, as in --config.{key}.NAME=VALUE")
    check_plain(key, value)
    if isinstance(old, float) and isinstance(value, bool):
        fail(key, value, "a number")  # a ConfigDict would hold 1.0
    with node.ignore_type():  # `resolve` checks the type
        node[part] = value
    return old


def check_plain(key: str, value: Any) -> None:
    """Refuses a value that JSON cannot hold.

    Raises:
      DlmError: an object, or an integer of more than 64 bits.
    """
    if isinstance(value, list | tuple):
        for each in value:
            check_plain(key, each)
    elif isinstance(value, dict):
        for each in value.values():
            check_plain(key, each)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        fail(key, value, "an integer of at most 64 bits")
    elif not isinstance(value, str | int | float | np.generic | None):
        fail(key, value, "a number, a word, true, false, or a list of these")


def value_at(config: ConfigDict, key: str) -> Any:
    """Returns the value at a dotted key of the config, such as "model.layers"."""
    node: Any = config
    for part in key.split("."):
        node = node[part]
    return node


def edited(config: Config | ConfigDict, overrides: Iterable[tuple[str, Any]]) -> Config:
    """Changes some keys of a config and resolves it again.

    A `Config` has every option of its objective; if another one is named, these are dropped.
    """
    values = dict(overrides)
    if isinstance(config, Config):
        config, (values,) = with_overrides(ConfigDict(to_json(config)), [{}], values)
    config = copy.deepcopy(config)
    for key, value in values.items():
        override(config, key, value)
    return resolve(config)


def parse_override(text: str) -> tuple[str, Any]:
    """Splits `--config.model.layers=6` into ("model.layers", 6), see `literal`."""
    match = re.fullmatch(r"--config\.([\w.]+)=(.*)", text, re.DOTALL)
    if not match:
        raise DlmError(f"{text}: an override reads --config.GROUP.FIELD=VALUE")
    key, value = match.groups()
    return key, literal(value)


def literal(text: str) -> Any:
    """Reads a Python literal, true or false. Any other text stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: many brackets
        return {"true": True, "false": False}.get(text, text)


def keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """Lists the dotted keys of a config, groups included."""
    dotted = []
    for name, value in config.items():
        inner = keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else []
        dotted += [prefix + name, *inner]
    return dotted
