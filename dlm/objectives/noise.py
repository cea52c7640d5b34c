"""AR with noise on its inputs in training: the control for the masking of diffusion.

Finding 8 of arXiv 2507.15857 (section 3.5). `noise` masks a share of the input tokens, never BOS, or
replaces them by random tokens; the targets stay. `attention_noise` lets a share of the queries draw t
and lose each key except their own with probability t, the same in all layers and heads. Evaluation has
no noise, so the likelihood is exact. With both shares 0 this is AR.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlm import config
from dlm.config import families
from dlm.model import keys
from dlm.objectives import ar
from dlm.objectives.common import mask_id

FAMILY = config.FAMILIES["noise"]


def make(objective: families.Noise, vocab_size: int) -> tuple[Callable, Callable, Callable]:
    """Makes loss, nll and sample of `dlm.objectives.Objective`."""

    def noisy_example(draws: keys.RowKeys, tokens: Int[Array, "B L"]) -> ar.ARExample:
        where, what, queries, lost_keys = draws.split(4)
        length = tokens.shape[1]
        example = ar.left_to_right(tokens, vocab_size)
        if objective.noise:
            noise = mask_id(vocab_size)
            if objective.noise_kind == "replace":
                noise = what.below(vocab_size, length)
            changed = where.uniform(length) < objective.noise
            changed &= jnp.arange(length) > 0
            example = example._replace(inputs=jnp.where(changed, noise, example.inputs))
        if objective.attention_noise:
            chosen, t = jnp.split(queries.uniform(length, 2), 2, axis=-1)
            lost = lost_keys.uniform(length, length) < t
            lost &= (chosen < objective.attention_noise) & ~jnp.eye(length, dtype=bool)
            example = example._replace(mask=jnp.tri(length, dtype=bool) & ~lost)
        return example

    noisy = objective.noise or objective.attention_noise
    return ar.trained_on(noisy_example if noisy else None, vocab_size)
