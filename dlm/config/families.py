"""The families between autoregression and diffusion: what is known of each without JAX."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from dlm.config.flops import ATTENTION
from dlm.errors import DlmError, fail, running


class Family(NamedTuple):
    """What the rest must know of an objective before JAX is loaded."""

    exact: bool  # is `nll` the likelihood, or an upper bound on it?
    extra_tokens: int  # rows of the embedding beyond the vocabulary: BOS, then MASK
    extra_positions: int  # inputs beyond the L tokens that are scored
    attention: str  # for counting FLOPs
    formula: str  # of what is scored, per sequence, in nats
    source: str
    hides_targets: bool = True  # the model never sees a token that it is scored on
    uses_time: bool = False  # the model is told the noise level, if model.time_conditioning is on


FAMILIES: dict[str, Family] = {
    "ar": Family(
        *(True, 1, 0, "causal", "-sum_j log p(x_j | x_<j)"),
        "chain rule; arXiv 2507.15857, section 2.1",
    ),
    "orders": Family(
        *(True, 1, 0, "causal", "as ar; trained on N orders of each sequence"),
        "arXiv 2507.15857, section 3.5; target positions: sigma-GPT, arXiv 2404.09562",
    ),
    "any_order": Family(
        *(False, 1, 0, "causal", "E_s[-sum_j log p(x_s(j) | x_s(<j), positions)]"),
        "Uria et al. 2014; sigma-GPT, arXiv 2404.09562",
    ),
    "noise": Family(
        *(True, 2, 0, "causal", "as ar; trained with inputs or attention disturbed"),
        "arXiv 2507.15857, section 3.5",
    ),
    "masked": Family(
        *(False, 2, 1, "full", "int m'(t)/m(t) E sum_masked -log p(x_i | x_t) dt + prior + rec."),
        "MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329; arXiv 2507.15857",
        uses_time=True,
    ),
    "block": Family(
        *(False, 2, 1, "block", "sum over blocks of the masked bound given the blocks before"),
        "BD3-LM, arXiv 2503.09573",
    ),
    "d3pm": Family(
        *(False, 2, 1, "full", "int rate sum_y [a_p(y) - a(y) + a(y) log(a(y)/a_p(y))] dt"),
        "D3PM, arXiv 2107.03006; SEDD, arXiv 2310.16834; UDLM, arXiv 2412.10193",
        hides_targets=False,
        uses_time=True,
    ),
    "flow": Family(
        *(False, 2, 1, "full", "int k'/(1-k) [1 - p(x_t) - [x_t != x](1 + log p(x))] dt"),
        "discrete flow matching, arXiv 2407.15595, 2412.03487",
        hides_targets=False,
        uses_time=True,
    ),
    "gaussian": Family(
        *(False, 1, 1, "full", "KL(q(z_1)||N) + 1/2 int SNR' ||x - x_p||^2 dt - E log p(x | z_0)"),
        "VDM, arXiv 2107.00630; Diffusion-LM, arXiv 2205.14217; Plaid, arXiv 2305.18619",
        hides_targets=False,
        uses_time=True,
    ),
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@functools.lru_cache(maxsize=16)
def own(file: str, known: str) -> Any:
    """The module of an objective of one's own: FAMILY, and make(objective, vocab_size).

    Raises:
      DlmError: no such file, or it fails to load, lacks one of the two or has another thing in its
        place, or is not what it was for this run.
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
        if type(value) is not kind:
            right = f"a file whose FAMILY.{name} is of type {kind.__name__}, not {value!r}"
            fail("objective.file", file, right)
        if kind is int and value < 0:
            fail("objective.file", file, f"a file whose FAMILY.{name} is 0 or above, not {value}")
    if family.attention not in ATTENTION:
        names = ", ".join(ATTENTION)
        right = f"a file whose FAMILY.attention is one of {names}, not {family.attention!r}"
        fail("objective.file", file, right)


def check_call(
    file: str, name: str, function: Any, right: str, count: int, options: Iterable[str] = ()
) -> None:
    """Raises DlmError unless a function of the file takes `count` values and the named options.

    `right` shows how it is called, in parentheses.
    """
    if not callable(function):
        kind = type(function).__name__
        fail("objective.file", file, f"a file whose {name} is a function {right}, not a {kind}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return
    try:
        signature.bind(*range(count), **dict.fromkeys(options))
    except TypeError as error:
        wrong = f"{signature} does not: {error}"
        raise DlmError(
            f"config.objective.file={file!r}: its {name} must take {right}; {wrong}"
        ) from error
