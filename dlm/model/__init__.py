"""The transformer, its placement on a mesh of devices, and its random keys."""

from dlm.model.transformer import (
    NORM_EPS,
    TIME_FEATURES,
    Cache,
    Mask,
    Params,
    Transformer,
    transformer,
)

__all__ = [
    "Cache",
    "Mask",
    "NORM_EPS",
    "Params",
    "TIME_FEATURES",
    "Transformer",
    "transformer",
]
