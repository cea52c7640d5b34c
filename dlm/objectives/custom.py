"""An objective of one's own, from `objective.file`: what its functions take and return is checked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from dlm import config
from dlm.config.families import check_call
from dlm.errors import DlmError, fail, running
from dlm.objectives.common import Sum

SAMPLE = ("infill", "steps", "temperature", "top_p", "order", "budget")


def parts(c: config.Objective, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Loads loss, nll and sample from the file; each raises DlmError, with a line, if it fails.

    Raises:
      DlmError: `make` fails, or returns other than three functions that can be called as
        `dlm.objectives.Objective` says.
    """
    module = config.own(c.file, c.digest)
    with running(c.file):
        returned = module.make(c, vocab_size)
    if not isinstance(returned, tuple) or len(returned) != 3:
        what = (
            f"{len(returned)} values"
            if isinstance(returned, tuple)
            else f"a {type(returned).__name__}"
        )
        fail("objective.file", c.file, f"a file whose make returns (loss, nll, sample), not {what}")
    loss, nll, sample = returned
    check_call(c.file, "loss", loss, "(apply, params, tokens, key, step=None)", 5)
    check_call(c.file, "loss", loss, "(apply, params, tokens, key, step=None)", 4)
    check_call(c.file, "nll", nll, "(apply, params, tokens, key, passes)", 5)
    options = "(model, params, key, prompt, length, *, infill=None, **options)"
    check_call(c.file, "sample", sample, options, 5, SAMPLE)
    return (
        _guarded(c.file, loss, lambda out, args: _check_sum(c.file, "loss", loss, out, ())),
        _guarded(
            c.file, nll, lambda out, args: _check_sum(c.file, "nll", nll, out, args[2].shape[:1])
        ),
        _guarded(c.file, sample, lambda out, args: _check_sample(c.file, sample, out, *args[3:5])),
    )


def _guarded(file: str, function: Callable, check: Callable[[Any, tuple], None]) -> Callable:
    """Wraps a function of the file: an exception in it becomes one line, what it returns is checked."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> Any:
        passing = (jax.errors.UnexpectedTracerError,)  # see dlm.objectives.checks.blind
        with running(file, passing):
            try:
                out = function(*args, **options)
            except TypeError as error:
                if "Draws" not in str(error):
                    raise
                right = "must draw from dlm.model.keys.draws(key, len(tokens)), each row its own"
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
