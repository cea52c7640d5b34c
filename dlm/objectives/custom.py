"""Loads an objective from a user's file, and checks what its functions take and return."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from dlm import config
from dlm.config.family import check_call
from dlm.errors import DlmError, fail, running
from dlm.model import Params
from dlm.objectives.common import SampleRequest, Sum


class Door(NamedTuple):
    """What the file of an objective defines, see `dlm.objectives.OBJECTIVES`."""

    FAMILY: config.Family
    make: Callable[[config.Objective, int], tuple[Callable, Callable, Callable]]
    init: Callable[[config.Objective, Params], Params]


def load(c: config.Objective) -> Door:
    """Loads the file. If one of its functions fails later, it raises DlmError with the line.

    Raises:
      DlmError: the file does not load, or lacks a definition.
    """
    module = config.load_custom(c.file, c.digest)
    init = getattr(module, "init", lambda objective, params: params)
    check_call(c.file, "init", init, "(objective, params)", 2)
    make = functools.partial(_make, c.file, module.make)
    return Door(module.FAMILY, make, _guarded(c.file, init, lambda out, args: None))


def _make(
    file: str, make: Callable, objective: config.Objective, vocab_size: int
) -> tuple[Callable, Callable, Callable]:
    """Calls `make` of the file and wraps the loss, nll and sample that it returns in checks.

    Raises:
      DlmError: `make` fails, or does not return three functions that take the arguments of
        `dlm.objectives.Objective`.
    """
    with running(file):
        returned = make(objective, vocab_size)
    if not isinstance(returned, tuple) or len(returned) != 3:
        wrong = f"a {type(returned).__name__}"
        wrong = f"{len(returned)} values" if isinstance(returned, tuple) else wrong
        fail("objective.file", file, f"a file whose make returns (loss, nll, sample), not {wrong}")
    loss, nll, sample = returned
    check_call(file, "loss", loss, "(apply, params, tokens, key, step=None)", 5)
    check_call(file, "loss", loss, "(apply, params, tokens, key, step=None)", 4)
    check_call(file, "nll", nll, "(apply, params, tokens, key, passes)", 5)
    right = "(model, params, key, prompt, length, *, infill=None, **options)"
    check_call(file, "sample", sample, right, 5, ("infill", *SampleRequest._fields[2:]))
    return (
        _guarded(file, loss, lambda out, args: _check_sum(file, "loss", loss, out, ())),
        _guarded(file, nll, lambda out, args: _check_sum(file, "nll", nll, out, args[2].shape[:1])),
        _guarded(file, sample, lambda out, args: _check_sample(file, sample, out, *args[3:5])),
    )


def _guarded(file: str, function: Callable, check: Callable[[Any, tuple], None]) -> Callable:
    """Wraps a function of the file: turns its exceptions into one line, and checks what it returns."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> Any:
        passing = (jax.errors.UnexpectedTracerError,)  # see dlm.objectives.checks.blind
        with running(file, passing):
            try:
                out = function(*args, **options)
            except TypeError as error:
                if "RowKeys" not in str(error):
                    raise
                right = "must draw from dlm.model.keys.row_keys(key, len(tokens)), each row its own"
                raise DlmError(f"{file}: the loss {right}, not from key itself") from error
        check(out, args)
        return out

    return guarded


def _check_sum(file: str, name: str, function: Callable, out: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(out, Sum):
        wrong = f"dlm.objectives.Sum(nats, tokens, terms), not a {type(out).__name__}"
        _wrong(file, function, f"{name} must return {wrong}")
    if not isinstance(out.terms, dict):
        kind = type(out.terms).__name__
        _wrong(file, function, f"{name}: terms must be a dict of parts of nats, not a {kind}")
    for label, value in {"nats": out.nats, **out.terms}.items():
        if not _is_array(value) or not jnp.issubdtype(value.dtype, jnp.floating):
            _wrong(file, function, f"{name}: {label} must be a float array, not {_shown(value)}")
        if value.shape != shape:
            right = (
                "a scalar, the sum over all sequences" if shape == () else "one number a sequence"
            )
            _wrong(file, function, f"{name}: {label} must be {right}, not of shape {value.shape}")
    if not isinstance(out.tokens, int | np.integer) or isinstance(out.tokens, bool):
        wrong = f"tokens must be an integer, such as tokens.size, not {_shown(out.tokens)}"
        _wrong(file, function, f"{name}: {wrong}")


def _check_sample(file: str, function: Callable, out: Any, prompt: Any, length: int) -> None:
    shape = (len(prompt), length)
    if not _is_array(out) or out.shape != shape or not jnp.issubdtype(out.dtype, jnp.integer):
        _wrong(file, function, f"sample must return tokens, integers {shape}, not {_shown(out)}")


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _shown(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if _is_array(value) else repr(value)


def _wrong(file: str, function: Callable, what: str) -> NoReturn:
    code = getattr(function, "__code__", None)
    where = f":{code.co_firstlineno}" if code is not None and code.co_filename == file else ""
    raise DlmError(f"{file}{where}: {what}")
