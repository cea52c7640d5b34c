"""One sampling driver for every objective."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from dlm import config, objectives
from dlm.errors import DlmError
from dlm.model import Params, transformer


@functools.lru_cache(maxsize=16)
def _sampler(
    model: config.Model, objective: config.Objective, vocab_size: int, length: int, options: tuple
) -> Callable:
    goal = objectives.make(objective, vocab_size)
    network = transformer(model, vocab_size + goal.family.extra_tokens)
    return jax.jit(
        lambda params, key, prompt: goal.sample(
            network, params, key, prompt, length, **dict(options)
        )
    )


def sample(
    c: config.Config,
    vocab_size: int,
    params: Params,
    key: PRNGKeyArray,
    *,
    count: int,
    prompt: Int[np.ndarray, " P"] | None = None,
    steps: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    order: str = "ancestral",
) -> Int[np.ndarray, "S L"]:
    """`count` sequences of L tokens that begin with the prompt.

    Raises:
      DlmError: the prompt fills the sequence or has unknown ids, or an option is out of range.
    """
    prompt = np.zeros(0, np.int32) if prompt is None else np.asarray(prompt, np.int32)
    if len(prompt) >= c.data.seq_len:
        raise DlmError(
            f"--prompt: {len(prompt)} tokens, must be below config.data.seq_len={c.data.seq_len}"
        )
    if len(prompt) and not 0 <= prompt.min() <= prompt.max() < vocab_size:
        raise DlmError(f"--prompt: ids must be 0 to {vocab_size - 1}")
    if temperature < 0:
        raise DlmError(f"--temperature={temperature}: must be 0 (the most likely) or above")
    if not 0 < top_p <= 1:
        raise DlmError(f"--top-p={top_p}: must be above 0, at most 1")
    if order not in ("ancestral", "confidence"):
        raise DlmError(f"--order={order}: must be ancestral or confidence")
    if steps < 0:
        raise DlmError(f"--steps={steps}: must be above 0, or 0 for one a token")
    options = dict(steps=steps, temperature=temperature, top_p=top_p, order=order)
    run = _sampler(c.model, c.objective, vocab_size, c.data.seq_len, tuple(options.items()))
    prompts = jnp.tile(jnp.asarray(prompt), (count, 1))
    return np.asarray(run(params, key, prompts))
