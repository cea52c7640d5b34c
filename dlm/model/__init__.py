"""The transformer, its placement on a mesh of devices, and its random keys."""

from dlm.model.transformer import Cache, Mask, Params, Transformer, transformer
