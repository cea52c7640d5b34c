"""Samples from a trained model, by the sampler of its family."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from dlm import config, objectives
from dlm.errors import ArgumentError, nearest
from dlm.model import Params, sharding, transformer

MOST_CALLS = 100  # of the model, for each position of a sequence


def check_steps(c: config.Config, steps: int) -> None:
    """Refuses a number of calls that gains nothing.

    Raises:
      DlmError: `steps` is below 0, or above MOST_CALLS for each position.
    """
    if steps < 0:
        raise ArgumentError("steps", f"={steps}: must be above 0, or 0 for one a token")
    if steps > (most := MOST_CALLS * c.data.seq_len):
        positions = f"{MOST_CALLS} for each of {c.data.seq_len} positions"
        raise ArgumentError("steps", f"={steps}: must be at most {most:,} calls, {positions}")


@functools.lru_cache(maxsize=16)
def _sampler(
    model: config.Model, objective: config.Objective, vocab_size: int, length: int, options: tuple
) -> Callable:
    functions = objectives.make(objective, vocab_size)
    network = transformer(model, vocab_size + functions.family.extra_tokens)

    def run(params, key, prompt, infill):
        return functions.sample(
            network, params, key, prompt, length, infill=infill, **dict(options)
        )

    return jax.jit(run)


def sample(
    c: config.Config,
    vocab_size: int,
    params: Params,
    key: PRNGKeyArray,
    *,
    count: int,
    prompt: Int[np.ndarray, " P"] | None = None,
    infill: Int[np.ndarray, " L"] | None = None,
    steps: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    sampler: str = "ancestral",
    entropy_budget: float = 0.1,
) -> Int[np.ndarray, "S L"]:
    """Samples `count` sequences of L tokens that begin with the prompt, or keep `infill`'s tokens.

    Raises:
      DlmError: the prompt fills the sequence or has unknown ids, or an option is out of range.
    """
    length = c.data.seq_len
    prompt = np.zeros(0, np.int32) if prompt is None else np.asarray(prompt, np.int32)
    if len(prompt) and infill is not None:
        raise ArgumentError("infill", ": holds a prompt already; give one of the two")
    if len(prompt) >= length:
        wrong = f": {len(prompt)} tokens, must be below config.data.seq_len={length}"
        raise ArgumentError("prompt", wrong)
    if infill is not None:
        if len(infill) > length:
            wrong = f": {len(infill)} tokens, must be at most config.data.seq_len={length}"
            raise ArgumentError("infill", wrong)
        infill = np.pad(np.asarray(infill, np.int32), (0, length - len(infill)), constant_values=-1)
    for name, ids, lowest in (("prompt", prompt, 0), ("infill", infill, -1)):
        if ids is not None and len(ids) and not lowest <= ids.min() <= ids.max() < vocab_size:
            raise ArgumentError(name, f": ids must be 0 to {vocab_size - 1}")
    if not 0 <= temperature < float("inf"):
        raise ArgumentError("temperature", f"={temperature}: must be 0 (the most likely) or above")
    if not 0 < top_p <= 1:
        raise ArgumentError("top_p", f"={top_p}: must be above 0, at most 1")
    if sampler not in (known := c.objective.samplers):
        near = nearest(sampler, known)
        right = f"must be one of {', '.join(known)}, for {c.objective.name}{near}"
        raise ArgumentError("sampler", f"={sampler}: {right}")
    check_steps(c, steps)
    if steps and (taken := c.objective.sampler_calls(length, steps)) != steps:
        right = f"{c.objective.name} runs {taken} steps here; pass {taken}, or 0 for one per token"
        raise ArgumentError("steps", f"={steps}: {right}")
    if not entropy_budget >= 0:
        raise ArgumentError("entropy_budget", f"={entropy_budget}: must be 0 or above, in nats")
    options = dict(
        steps=steps, temperature=temperature, top_p=top_p, order=sampler, budget=entropy_budget
    )
    run = _sampler(c.model, c.objective, vocab_size, length, tuple(options.items()))
    prompts = jnp.tile(jnp.asarray(prompt), (count, 1))
    wanted = None if infill is None else jnp.tile(jnp.asarray(infill), (count, 1))
    return sharding.gathered(run(params, key, prompts, wanted))


def fill(
    c: config.Config,
    vocab_size: int,
    params: Params,
    key: PRNGKeyArray,
    known: Int[np.ndarray, "S L"],
    steps: int = 16,
) -> Int[np.ndarray, "S L"]:
    """Samples one completion of each row, -1 where a token is free; at temperature one."""
    run = _sampler(c.model, c.objective, vocab_size, c.data.seq_len, (("steps", steps),))
    empty = jnp.zeros((len(known), 0), jnp.int32)
    return sharding.gathered(run(params, key, empty, jnp.asarray(known)))
