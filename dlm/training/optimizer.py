"""Learning-rate schedules and the optimizer; learning rate and weight decay are runtime values.

A sweep over learning rates and weight decays compiles once: the optax transformation is built inside
the compiled step from traced numbers, and its state does not depend on them.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from dlm import config
from dlm.config import flops, planning
from dlm.model import Params


class Hyper(NamedTuple):
    """The numbers of an optimizer that may differ between runs that share one compiled step."""

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
    """The learning rate of 0-based `step`: linear warm-up from lr/warmup, then

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
    """AdamW, or Muon and AdamW: clips by global norm, scales, decays all but vectors (decoupled)."""
    scaled = optax.scale_by_adam(c.b1, c.b2, c.eps)
    if c.name == "muon":
        scaled = optax.partition({"muon": _scale_by_muon(), "adam": scaled}, _labels)
    return optax.chain(
        optax.clip_by_global_norm(c.grad_clip_norm),
        scaled,
        optax.add_decayed_weights(weight_decay, mask=_decayed),
        optax.scale_by_learning_rate(lr),
    )


# --- Muon ---------------------------------------------------------------------------------------

# Of each kernel in a block, the axes that its matrices map from and to, counted from the last; all
# other axes number the matrices: q, k, v; gate and up; adaLN's four; layers that are stacked.
KERNELS = {
    "qkv": MuonDimensionNumbers(-4, (-2, -1)),
    "out": MuonDimensionNumbers((-3, -2), -1),
    "gate_up": MuonDimensionNumbers(-3, -1),
    "down": MuonDimensionNumbers(-2, -1),
    "time_mod": MuonDimensionNumbers(-3, -1),
}
MOMENTUM = 0.95  # with Nesterov's step, as Jordan 2024 and Liu et al. 2025
RMS = 0.2  # of an update before the learning rate: that of AdamW's (Liu et al. 2025, section 2.2)


def _kernel(path: Any) -> MuonDimensionNumbers | None:
    """The matrices of a parameter that Muon updates: the kernels of blocks; None for all others."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    match = re.fullmatch(r"(?:layers|block_\d+)/(\w+)", name)
    return KERNELS.get(match[1]) if match else None


def _labels(params: Params) -> Params:
    return jax.tree.map_with_path(lambda path, _: "muon" if _kernel(path) else "adam", params)


def _scale_by_muon() -> optax.GradientTransformation:
    """Makes each matrix of the momentum nearly orthogonal, by five Newton-Schulz steps (Jordan 2024,
    kellerjordan.github.io/posts/muon), and scales it by 0.2 sqrt(max(rows, columns)).

    An orthogonal matrix has a root mean square of 1 / sqrt(max(rows, columns)), so an update has 0.2,
    about that of AdamW's: Liu et al. 2025 (arXiv 2502.16982) keep AdamW's learning rate and weight
    decay. AdamW's first updates, while gradients agree, are larger.
    """

    def axes(updates: Any) -> Any:
        return jax.tree.map_with_path(lambda path, _: _kernel(path), updates)

    def scale(path: Any, x: Array) -> Array:
        kernel = _kernel(path)
        assert kernel is not None  # of `_labels`
        return RMS * math.sqrt(max(np.prod(np.take(x.shape, side)) for side in kernel)) * x

    return optax.chain(
        scale_by_muon(
            ns_steps=flops.NEWTON_SCHULZ_STEPS, beta=MOMENTUM, weight_dimension_numbers=axes
        ),
        optax.stateless(lambda updates, _: jax.tree.map_with_path(scale, updates)),
    )


def _decayed(params: Params) -> Params:
    """True for parameters of two or more dimensions, not counting the axis of stacked layers."""

    def one(path, x) -> bool:
        return x.ndim > 1 + (jax.tree_util.DictKey("layers") in path)

    return jax.tree.map_with_path(one, params)


def average(ema: Params, params: Params, step: Int[Array, ""], decay: Float[Array, ""]) -> Params:
    """Exponential moving average of the weights; its decay is at most (1 + t)/(10 + t) at step t."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
