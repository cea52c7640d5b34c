"""An experiment file, for people: its base ConfigDict, its sweep, and overrides by dotted keys."""

from __future__ import annotations

import ast
import copy
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dlm.config import Config, resolve, to_json
from dlm.errors import DlmError, in_file, nearest
from dlm.rules import convert

SCALES = ("laptop", "smoke", "gpu", "paper")


def load(path: str, scale: str) -> tuple[ConfigDict, list[dict[str, Any]]]:
    """Runs an experiment file: its base config and the overrides of each run of its sweep.

    Raises:
      DlmError: the file is missing, fails to load, or does not offer `get_config(scale)`.
    """
    file = Path(path)
    if not file.is_file():
        near = nearest(path, [str(f) for f in file.parent.glob("*.py")])
        raise DlmError(f"{path}: no such experiment file{near}")
    if scale not in SCALES:
        raise DlmError(f"--scale={scale}: must be one of {', '.join(SCALES)}")
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DlmError(f"{path}: not a Python file; an experiment is a .py with get_config(scale)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(scale)
        sweep = list(module.sweep(scale)) if hasattr(module, "sweep") else [{}]
    except DlmError:
        raise
    except (Exception, SystemExit) as error:
        raise in_file(path, error) from error
    if not sweep or not all(isinstance(run, dict) for run in sweep):
        raise DlmError(f"{path}: sweep must yield a dict of overrides for each run, at least one")
    if not isinstance(config, ConfigDict):
        raise DlmError(f"{path}: get_config must return the ConfigDict of dlm.config.base()")
    return config, sweep


def expand(config: ConfigDict, overrides: Iterable[dict[str, Any]]) -> list[Config]:
    """One resolved Config per run of a sweep, in the sweep's order."""
    runs = []
    for values in overrides:
        runs.append(edited(config, values.items()))
    return runs


def override(config: ConfigDict, key: str, value: Any) -> Any:
    """Sets a dotted key in place, `"model.layers", 6`; returns the value that it replaces.

    Raises:
      DlmError: the key does not exist (names the nearest that does) or the value's type is wrong.
    """
    node, *parts = config, *key.split(".")
    for depth, part in enumerate(parts):
        free = depth > 1 and parts[:2] == ["corpus", "options"]
        if (part not in node and not free) or len(parts) > 3:
            raise DlmError(f"config.{key}: no such key{nearest(key, _keys(config))}")
        if depth < len(parts) - 1:
            node = node[part]
            if not isinstance(node, ConfigDict):
                raise DlmError(f"config.{key}: {'.'.join(parts[: depth + 1])} has no parts")
    old = node.get(part)
    if isinstance(old, ConfigDict):
        raise DlmError(f"config.{key}: is a group of {', '.join(old)}; set one of them")
    if old is not None and not free:
        value = convert(key, value, type(old))
    node[part] = value
    return old


def value_at(config: ConfigDict, key: str) -> Any:
    """The value at a dotted key of the config, such as "model.layers"."""
    node: Any = config
    for part in key.split("."):
        node = node[part]
    return node


def edited(config: Config | ConfigDict, overrides: Iterable[tuple[str, Any]]) -> Config:
    """A config with some keys changed, resolved again."""
    if isinstance(config, Config):
        config = ConfigDict(to_json(config))
    config = copy.deepcopy(config)
    for key, value in overrides:
        override(config, key, value)
    return resolve(config)


def parse_override(text: str) -> tuple[str, Any]:
    """Splits `--config.model.layers=6` into ("model.layers", 6); other words stay strings."""
    match = re.fullmatch(r"--config\.([\w.]+)=(.*)", text, re.DOTALL)
    if not match:
        raise DlmError(f"{text}: an override reads --config.GROUP.FIELD=VALUE")
    key, value = match.groups()
    return key, literal(value)


def literal(text: str) -> Any:
    """A Python literal, true or false; any other text stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def _keys(config: ConfigDict, prefix: str = "") -> list[str]:
    keys = []
    for name, value in config.items():
        inner = _keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else []
        keys += [prefix + name, *inner]
    return keys
