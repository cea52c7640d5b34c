"""Counts parameters and FLOPs analytically, and lists device peaks. No JAX.

Conventions: one multiply-add is two FLOPs; a backward pass costs twice the forward one; norms,
softmax, rotary embedding and the gather of input embeddings are not counted.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

ATTENTION = ("causal", "full", "block")
NEWTON_SCHULZ_STEPS = 5  # of Muon; see `dlm.training.optimizer`

# Dense peak of one device in FLOP/s, by a pattern in `device_kind` (the first that matches counts), in
# bfloat16 and in float32, which JAX multiplies in TF32 on GPUs. Sources: NVIDIA data sheets and
# architecture white papers (products accumulated in float32, without sparsity), Google Cloud TPU
# pages. JAX shows a chip of TPU v2, v3 and 7x as two devices.
PEAKS: dict[str, dict[str, float]] = {
    "GB[23]00": {"bfloat16": 2500e12, "float32": 1250e12},
    "B[23]00": {"bfloat16": 2250e12, "float32": 1125e12},
    "G?H200": {"bfloat16": 989e12, "float32": 494e12},
    "H100 PCIe": {"bfloat16": 756e12, "float32": 378e12},
    "H100 NVL": {"bfloat16": 835e12, "float32": 417e12},
    "H100": {"bfloat16": 989e12, "float32": 494e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
    "A10G": {"bfloat16": 70e12, "float32": 35e12},
    "A10": {"bfloat16": 125e12, "float32": 62.5e12},
    "L40S": {"bfloat16": 362e12, "float32": 183e12},
    "L4": {"bfloat16": 121e12, "float32": 60e12},
    "RTX 5090$": {"bfloat16": 209.5e12, "float32": 104.8e12},
    "RTX 4090$": {"bfloat16": 165.2e12, "float32": 82.6e12},
    "RTX 3090$": {"bfloat16": 71e12, "float32": 35.6e12},
    "TPU v2": {"bfloat16": 22.5e12},
    "TPU v3": {"bfloat16": 61.5e12},
    "TPU v4 lite": {"bfloat16": 138e12},
    "TPU v4": {"bfloat16": 275e12},
    "TPU v5 lite|TPU v5e": {"bfloat16": 197e12},
    "TPU v5p?": {"bfloat16": 459e12},
    "TPU v6 lite|TPU v6e": {"bfloat16": 918e12},
    "TPU7x": {"bfloat16": 1153e12},
}


class Parameters(NamedTuple):
    """Parameter counts of one model; `total` is the N of the paper when embeddings are tied."""

    embedding: int
    non_embedding: int

    @property
    def total(self) -> int:
        return self.embedding + self.non_embedding


def parameters(
    *, layers: int, width: int, ff: int, rows: int, tied: bool, time: bool = False
) -> Parameters:
    """Counts the parameters of a model.

    `rows` is the vocabulary with the objective's extra tokens (BOS, MASK). Per layer: 4D² attention,
    3DF feed-forward, 2D norm scales; then D for the final norm. The paper's formula (section 9)
    has 6lD for norms in place of (2l + 1)D; the difference is below 0.1 % of every size it trains.
    `time`: adaLN adds 64D, 4D² a layer and 2D², which run once a sequence and count no FLOPs.
    """
    block = 4 * width**2 + 3 * width * ff + 2 * width
    timed = (64 * width + (4 * layers + 2) * width**2) if time else 0
    return Parameters(rows * width * (1 if tied else 2), layers * block + width + timed)


def paper_parameters(*, layers: int, width: int, ff: int, vocabulary: int = 50257) -> int:
    """P = 4lh² + 3lhf + 6lh + Vh, the paper's count (section 9, Table 5)."""
    return layers * (4 * width**2 + 3 * width * ff + 6 * width) + vocabulary * width


def forward_flops(
    *,
    layers: int,
    width: int,
    ff: int,
    rows: int,
    length: int,
    attention: str,
    block: int = 0,
    loops: int = 1,
) -> float:
    """Counts the FLOPs of one forward pass over one sequence of `length` input positions.

    Matrix products 2·(4D² + 3DF) per position and layer, logits 2·D·rows per position, attention
    4·D per (query, key) pair that the mask allows: length² pairs when full, half of them (and the
    diagonal) when causal. "block": the noisy and the clean copy of `length` positions of which the
    first is BOS; a noisy block sees itself and what is clean before it, a clean one the same.
    `loops`: the layers run so many times, the logits once.
    """
    layers *= loops
    if attention == "block":
        tokens = length - 1
        blocks = tokens // block
        noisy = (block + 1) ** 2 + (blocks - 1) * block * (1 + block + block * blocks / 2)
        pairs = noisy + 1 + tokens + tokens * (tokens + block) / 2
        length = 2 * length
    else:
        pairs = {"full": length * length, "causal": length * (length + 1) / 2}[attention]
    products = 2 * layers * (4 * width**2 + 3 * width * ff) + 2 * width * rows
    return length * products + layers * 4 * width * pairs


def training_flops(**sizes) -> float:
    """Counts the FLOPs of one training step over one sequence: three times a forward pass."""
    return 3 * forward_flops(**sizes)


def matrices(*, layers: int, width: int, ff: int, time: bool = False) -> list[tuple[int, int, int]]:
    """(number, rows, columns) of the matrices in the blocks: what Muon updates.

    Per layer q, k, v and the output projection, gate, up and down; `time`: adaLN's four.
    """
    return [(layers * (8 if time else 4), width, width), (layers * 3, width, ff)]


def muon_flops(shapes: list[tuple[int, int, int]]) -> float:
    """FLOPs of Muon in one training step, whatever the batch, for the shapes of `matrices`.

    A Newton-Schulz step on X, n x m with n <= m, is A = XX' (2n²m), AA (2n³) and BX (2n²m).
    AdamW, which multiplies no matrices, counts none.
    """
    sides = [(number, min(a, b), max(a, b)) for number, a, b in shapes]
    return NEWTON_SCHULZ_STEPS * sum(k * (4.0 * n**2 * m + 2 * n**3) for k, n, m in sides)


def utilisation(flops_per_second: float, peak: float) -> float | None:
    """Returns counted FLOP/s over the peak (MFU); None if the ratio exceeds 1.

    It can exceed 1 if the peak was measured while other programs ran.
    """
    share = flops_per_second / peak if peak > 0 else math.inf
    return share if share <= 1 else None


def peak(device_kind: str, dtype: str) -> float | None:
    """Looks up the peak of a device in FLOP/s; None if unknown (CPUs, slices of a GPU)."""
    if re.search(r"\bMIG\b", device_kind):
        return None
    for pattern, peaks in PEAKS.items():
        if re.search(rf"\b({pattern})(?!\w)", device_kind, re.IGNORECASE):
            return peaks.get(dtype)
    return None
