"""Describes an objective without JAX: its options, its facts, and how a user's file brings its own.

An objective's file defines FAMILY, a `Family`, and make(objective, vocab_size); also init(objective,
params) if the objective has parameters, and conditionals(objective, vocab_size) if it can score a
sequence in any order. Options of its own are a frozen dataclass derived from
`Objective`, which FAMILY names as `options`. Those of the product are in `dlm.config.families`.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from dlm import sealed
from dlm.config.fields import Group
from dlm.config.flops import ATTENTION
from dlm.errors import DlmError, fail, running

# Orders in which masks are revealed, see dlm/objectives/reveal.py; the first is the default. Along a
# path the positions depend only on what is revealed, so that it has an exact likelihood.
PATHS = ("left-to-right", "confidence", "least-entropy", "blocks", "entropy")
SAMPLERS = ("ancestral", *PATHS, "maskgit", "remask")


@dataclass(frozen=True, kw_only=True)
class Objective(Group):
    """The options that all families have. A family adds its own and overrides the methods below."""

    name: str = ""
    file: str = ""  # a Python file that defines the objective `name`; "": a built-in one
    digest: str = ""  # of the file; filled in when the config is resolved

    @property
    def family(self) -> Family:
        """The facts of the family. An options record overrides it if they depend on its options."""
        if not self.file:
            return FAMILIES[self.name]
        return load_custom(self.file, self.digest).FAMILY

    @property
    def training_attention(self) -> dict[str, float]:
        """The share of the training sequences that each kind of attention reads."""
        return {self.family.attention: 1.0}

    @property
    def block_length(self) -> int:
        """Tokens that are denoised together. The sequence length must be a multiple of it."""
        return 1

    def check(self) -> None:
        """Raises DlmError, which names the option, if two options contradict each other."""

    @property
    def least_vocabulary(self) -> int:
        """The smallest vocabulary that the options allow."""
        return 2

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises DlmError, which names the option, if an option names an unknown token."""

    @property
    def bounds(self) -> tuple[str, ...]:
        """The numbers beside the NELBO that an inexact family can be scored by: those that reveal
        tokens have all, see dlm/evaluation/likelihood.py; a file of one's own may."""
        return ("orders", "tangent", "path") if self.file or self.reveals else ()

    @property
    def reveals(self) -> bool:
        """Whether the sampler goes from all masks to none, in any order of SAMPLERS."""
        return False

    @property
    def samplers(self) -> tuple[str, ...]:
        """Lists the orders in which the sampler can reveal tokens, the default first."""
        if self.file:  # which ones it takes is not known
            return (*SAMPLERS, "ddim")
        return SAMPLERS if self.reveals else ("ancestral",)

    def sampler_calls(self, length: int, steps: int) -> int:
        """Counts the calls of the model that sample L tokens if the user asks for `steps`."""
        causal = not self.file and self.family.attention == "causal"
        return length if causal else max(steps, 1)

    def sampler_passes(self, length: int) -> float:
        """Counts the forward passes over a whole sequence that one sample takes, at least."""
        if self.file or self.family.attention == "causal":
            return 1  # a call a token, each with a cache of those before
        return length if self.reveals else 2 * length


class Family(NamedTuple):
    """Facts of an objective that are needed before JAX is loaded."""

    exact: bool  # True: `nll` is the exact likelihood; False: an upper bound on -log p
    extra_tokens: int  # embedding rows beyond the vocabulary: BOS, then MASK
    extra_positions: int  # input positions beyond the L tokens that are scored
    attention: str  # of scores, causal, full or block; for counting FLOPs
    formula: str  # of the score of one sequence, in nats
    source: str
    hides_targets: bool = True  # True if the model never sees a token it is scored on
    uses_time: bool = False  # True if model.time_conditioning tells the model the noise level
    title: str = ""  # the name in sentences; "": the objective's name
    options: type[Objective] = Objective

    @property
    def kind(self) -> str:
        """The kind of the number that `nll` gives, in words."""
        return "exact" if self.exact else "upper bound"


FAMILIES: dict[str, Family] = {}  # by name; dlm/config/families.py fills it


# --- files of the user's -----------------------------------------------------------------------


def digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return sealed.file_digest(path)[:16]


@functools.lru_cache(maxsize=16)
def load_custom(file: str, known: str) -> Any:
    """Runs a user's file and returns its module. `known` is the digest that the file must have.

    Raises:
      DlmError: the file is missing, fails to load, lacks FAMILY or make, holds something else under
        these names, or changed since the digest was taken.
    """
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"own_{known}", path)
    if spec is None or spec.loader is None or not path.is_file():
        fail("objective.file", file, "a Python file with FAMILY and make")
    if known != digest(path):
        fail("objective.file", file, "the file that this run was trained with; it changed")
    module = importlib.util.module_from_spec(spec)
    with running(file):
        spec.loader.exec_module(module)
    if missing := [name for name in ("FAMILY", "make") if not hasattr(module, name)]:
        fail("objective.file", file, f"a file that defines {' and '.join(missing)}")
    _check_family(file, module.FAMILY)
    check_call(file, "make", module.make, "(objective, vocab_size)", 2)
    return module


def _check_family(file: str, family: Any) -> None:
    if not isinstance(family, Family):
        kind = type(family).__name__
        fail("objective.file", file, f"a file whose FAMILY is a dlm.config.Family, not a {kind}")
    for name, kind in get_type_hints(Family).items():
        value = getattr(family, name)
        if name == "options":
            if not _is_options(value):
                right = "a frozen dataclass derived from dlm.config.Objective"
                fail("objective.file", file, f"a file whose FAMILY.options is {right}")
        elif type(value) is not kind:
            right = f"a file whose FAMILY.{name} is of type {kind.__name__}, not {value!r}"
            fail("objective.file", file, right)
        elif kind is int and value < 0:
            fail("objective.file", file, f"a file whose FAMILY.{name} is 0 or above, not {value}")
    if family.attention not in ATTENTION:
        names = ", ".join(ATTENTION)
        right = f"a file whose FAMILY.attention is one of {names}, not {family.attention!r}"
        fail("objective.file", file, right)


def _is_options(record: Any) -> bool:
    if not (isinstance(record, type) and issubclass(record, Objective)):
        return False
    settings = vars(record).get("__dataclass_params__")  # none if the class lacks the decorator
    return settings is not None and settings.frozen


def check_call(
    file: str, name: str, function: Any, right: str, count: int, options: Iterable[str] = ()
) -> None:
    """Raises DlmError unless a function of the file takes `count` arguments and the named options.

    `right` shows how the function is called, in parentheses.
    """
    if not callable(function):
        kind = type(function).__name__
        fail("objective.file", file, f"a file whose {name} is a function {right}, not a {kind}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # the function is not written in Python
        return
    try:
        signature.bind(*range(count), **dict.fromkeys(options))
    except TypeError as error:
        wrong = f"{signature} does not: {error}"
        raise DlmError(
            f"config.objective.file={file!r}: its {name} must take {right}; {wrong}"
        ) from error
