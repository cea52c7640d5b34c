"""Learning-rate schedules and optimizers, with every rate a runtime value.

A sweep over learning rates and weight decays of one shape then compiles once: the optax
transformation is built inside the compiled step from traced numbers, and its state does not
depend on them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from dlm import config
from dlm.config import planning
from dlm.model import Params


class Hyper(NamedTuple):
    """Numbers of an optimizer that may differ between runs of one compiled step."""

    lr: Float[Array, ""]
    weight_decay: Float[Array, ""]
    warmup: Float[Array, ""]  # steps
    decay: Float[Array, ""]  # steps at the end (wsd)
    min_lr_ratio: Float[Array, ""]  # share of lr at the end
    steps: Float[Array, ""]
    ema_decay: Float[Array, ""]


def hyper(c: config.Optimizer, plan: planning.Plan) -> Hyper:
    rates = (c.lr, c.weight_decay, plan.warmup, plan.decay)
    numbers = (*rates, c.min_lr_ratio, plan.steps, c.ema_decay)
    return Hyper(*(jnp.float32(n) for n in numbers))


def learning_rate(schedule: str, step: Int[Array, ""] | int, h: Hyper) -> Float[Array, ""]:
    """The rate of 0-based `step`: linear warm-up from lr/warmup, then

    cosine    from lr at step `warmup` towards min_lr_ratio·lr (paper, section 8)
    wsd       lr until step `steps - decay`, then linear towards min_lr_ratio·lr
    constant  lr

    min_lr_ratio·lr is the rate of step `steps`, one after the last that is trained.
    """
    warm = jnp.minimum(1.0, (step + 1) / h.warmup)
    if schedule == "cosine":
        progress = jnp.clip((step - h.warmup) / jnp.maximum(h.steps - h.warmup, 1), 0, 1)
        shape = h.min_lr_ratio + (1 - h.min_lr_ratio) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif schedule == "wsd":
        left = jnp.clip((h.steps - step) / h.decay, 0, 1)
        shape = h.min_lr_ratio + (1 - h.min_lr_ratio) * left
    else:
        shape = 1.0
    return h.lr * warm * shape


def optimizer(
    c: config.Optimizer, lr: Float[Array, ""], weight_decay: Float[Array, ""]
) -> optax.GradientTransformation:
    """AdamW: clip by global norm, Adam, decoupled decay of all but one-dimensional parameters."""
    return optax.chain(
        optax.clip_by_global_norm(c.grad_clip_norm),
        optax.scale_by_adam(c.b1, c.b2, c.eps),
        optax.add_decayed_weights(weight_decay, mask=_decayed),
        optax.scale_by_learning_rate(lr),
    )


def _decayed(params: Params) -> Params:
    """True for what has more than one dimension, the layers' axis of stacked layers aside."""

    def one(path, x) -> bool:
        return x.ndim > 1 + (jax.tree_util.DictKey("layers") in path)

    return jax.tree.map_with_path(one, params)


def average(ema: Params, params: Params, step: Int[Array, ""], decay: Float[Array, ""]) -> Params:
    """Exponential average of the weights, with decay at most (1 + t)/(10 + t) while it warms up."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
