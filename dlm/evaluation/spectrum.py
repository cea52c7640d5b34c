"""Which spatial frequencies of an image are settled first: the spectral view of generation.

As an image comes to be known, pixel by pixel or out of noise, its expectation is compared with the
image: at each frequency the share of the variance over images that is explained. Autoregression in
raster order settles all frequencies of its upper rows together; Gaussian noise hides high frequencies
first, so that diffusion is coarse to fine (Rissanen et al. 2022, arXiv 2206.13397; Dieleman 2024);
masks hide all frequencies alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dlm import config, objectives
from dlm.errors import DlmError
from dlm.evaluation import sampling
from dlm.model import Params, transformer
from dlm.objectives import gaussian

SEED = 0  # of what is drawn
GUESSES = 8  # completions behind an expectation


def explained(
    c: config.Config,
    vocab_size: int,
    params: Params,
    images: Int[np.ndarray, "n L"],
    levels: Sequence[float],
) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, "K F"]]:
    """Radial frequencies in cycles per image, and the explained share at each level of knowledge.

    A level of 0.25: a quarter of the pixels are known (in the family's own order: the first rows, or
    any), or of Gaussian diffusion, time is three quarters over.

    Raises:
      DlmError: sequences that are no square images, or a family that nothing can be told to.
    """
    side = round(images.shape[1] ** 0.5)
    if side**2 != images.shape[1]:
        raise DlmError(f"windows of {images.shape[1]} tokens are no square images")
    if c.objective.name in ("d3pm", "flow"):
        raise DlmError(f"{c.objective.name}: its states are no partly known images; see gaussian")
    centre = images.mean(0)
    radius, total = _power(images - centre, side)
    rows = []
    for k, level in enumerate(levels):
        key = jax.random.fold_in(jax.random.key(SEED), k)
        expected = _expected(c, vocab_size, params, images, level, key)
        rows.append(1 - _power(images - expected, side)[1] / total)
    return radius, np.stack(rows)


def _expected(c, vocab_size, params, images, level: float, key) -> Float[np.ndarray, "n L"]:
    if c.objective.name == "gaussian":
        objective = objectives.make(c.objective, vocab_size)
        network = transformer(c.model, vocab_size + objective.family.extra_tokens)
        first, last = gaussian.ends(c.objective, params)
        t = jnp.full(len(images), 1 - level)
        snr = first + (last - first) * t
        alpha, sigma = gaussian.scales(snr)
        e = gaussian.table(params)[jnp.asarray(images)]
        z = alpha * e + sigma * jax.random.normal(key, e.shape)
        logits = gaussian.predict(c.objective, vocab_size, network.apply, params, z, snr, t)[1]
        return np.asarray(jax.nn.softmax(logits) @ jnp.arange(vocab_size, dtype=jnp.float32))
    length = images.shape[1]
    count = round(level * length)
    order = np.arange(length)[None].repeat(len(images), 0)
    if c.objective.family.attention != "causal":
        noise = np.asarray(jax.random.uniform(key, images.shape))
        order = np.argsort(noise, axis=1)
    known = np.full(images.shape, -1, np.int32)
    chosen = order[:, :count]
    np.put_along_axis(known, chosen, np.take_along_axis(images, chosen, 1).astype(np.int32), 1)
    drawn = [
        sampling.fill(c, vocab_size, params, jax.random.fold_in(key, g), known)
        for g in range(GUESSES)
    ]
    return np.mean(drawn, axis=0)


def _power(x: Float[np.ndarray, "n L"], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean power by whole radial frequency, without the mean of each image, up to Nyquist's."""
    power = (np.abs(np.fft.fft2(x.reshape(-1, side, side))) ** 2).mean(0)
    cycles = np.fft.fftfreq(side, 1 / side)
    radius = np.rint(np.hypot(*np.meshgrid(cycles, cycles))).astype(int)
    wanted = np.arange(1, side // 2 + 1)
    return wanted, np.array([power[radius == r].mean() for r in wanted])
