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
        raise DlmError(f"{path or repr(path)}: {_no_experiment(file)}")
    if scale not in SCALES:
        raise DlmError(f"--scale={scale}: must be one of {', '.join(SCALES)}")
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DlmError(f"{path}: not a Python file; an experiment is a .py with get_config(scale)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise DlmError(f"{path}: has no get_config(scale); an experiment defines it")
        config = module.get_config(scale)
        sweep = list(module.sweep(scale) or []) if hasattr(module, "sweep") else [{}]
    except DlmError:
        raise
    except (Exception, SystemExit) as error:
        raise in_file(path, error) from error
    if not sweep or not all(isinstance(run, dict) for run in sweep):
        raise DlmError(f"{path}: sweep must yield a dict of overrides for each run, at least one")
    if not isinstance(config, ConfigDict):
        raise DlmError(f"{path}: get_config must return the ConfigDict of dlm.config.base()")
    return config, sweep


def _no_experiment(file: Path) -> str:
    """Why a path is no experiment, and which one may have been meant."""
    experiments = sorted(Path("experiments").glob("*.py"))
    if file.is_dir() and str(file) != ".":
        inside = sorted(f.name for f in file.glob("*.py") if f.is_file())
        return f"is a folder{'; name a file of it: ' + ', '.join(inside) if inside else ''}"
    known = [f for f in [*sorted(file.parent.glob("*.py")), *experiments] if f.is_file()]
    same = [str(f) for f in known if f.stem == file.stem]
    near = f"; did you mean {same[0]}?" if same else nearest(str(file), map(str, known))
    return f"no such experiment file{near}"


def expand(config: ConfigDict, overrides: Iterable[dict[str, Any]]) -> list[Config]:
    """One resolved Config per run of a sweep, in the sweep's order."""
    runs = []
    for values in overrides:
        runs.append(edited(config, values.items()))
    return runs


def with_overrides(
    config: ConfigDict, sweep: list[dict[str, Any]], by_hand: dict[str, Any]
) -> tuple[ConfigDict, list[dict[str, Any]]]:
    """The base config and the runs of its sweep, with the overrides of a command line in each run.

    If they name another corpus, the options of the experiment's own corpora are left out.
    """
    base: Any = copy.deepcopy(config)
    if by_hand.get("corpus.name", base.corpus.name) != base.corpus.name:
        base.corpus.options = ConfigDict()
        sweep = [
            {key: value for key, value in run.items() if not key.startswith("corpus.options")}
            for run in sweep
        ]
    return base, [run | by_hand for run in sweep]


def override(config: ConfigDict, key: str, value: Any) -> Any:
    """Sets a dotted key in place, `"model.layers", 6`; returns the value that it replaces.

    Raises:
      DlmError: the key does not exist (names the nearest that does) or the value's type is wrong.
    """
    node, *parts = config, *key.split(".")
    for depth, part in enumerate(parts):
        free = depth > 1 and parts[:2] == ["corpus", "options"]
        if (part not in node and not free) or len(parts) > 3:
            raise DlmError(f"config.{key}: no such key{nearest(key, keys(config))}")
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


def keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """The dotted keys of a config, groups included."""
    found = []
    for name, value in config.items():
        inner = keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else []
        found += [prefix + name, *inner]
    return found
