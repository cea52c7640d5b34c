"""The spectral view: power of waves by frequency, and what is explained of what is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dlm import config, objectives
from dlm.errors import DlmError
from dlm.evaluation import spectrum
from dlm.model import transformer
from tolerances import FLOAT64

V = 4


def settings(name: str) -> config.Config:
    c = config.base()
    c.objective.name = name
    c.data.seq_len = 16
    c.model.layers, c.model.width, c.model.heads = 1, 16, 2
    return config.resolve(c)


def explained(name: str, levels, length: int = 16):
    c = settings(name)
    objective = objectives.make(c.objective, V)
    params = transformer(c.model, V + objective.family.extra_tokens).init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, V, (32, length))
    return spectrum.explained(c, V, objective.init(params), images, levels)


@pytest.mark.parametrize("cycles", [1, 2, 3])
def test_a_wave_has_its_power_at_its_frequency(cycles):
    wave = np.cos(2 * np.pi * cycles * np.arange(8) / 8)
    radius, power = spectrum._power(np.tile(wave, (5, 8)).reshape(5, 64), 8)
    assert radius.tolist() == [1, 2, 3, 4]
    assert (
        power.argmax() == cycles - 1 and np.delete(power, cycles - 1).max() < FLOAT64 * power.max()
    )
    turned = np.tile(wave[:, None], (5, 1, 8)).reshape(5, 64)
    np.testing.assert_allclose(spectrum._power(turned, 8)[1], power, atol=FLOAT64 * power.max())


@pytest.mark.parametrize("name", ["ar", "masked", "gaussian"])
def test_all_is_explained_when_all_is_known_and_more_than_when_nothing_is(name):
    _, shares = explained(name, (0.0, 1.0))
    assert (shares[1] > 0.97).all() and (shares[0] < 0.3).all()


def test_what_has_no_partly_known_image_is_refused():
    with pytest.raises(DlmError, match="no square images"):
        explained("ar", (0.5,), length=15)
    with pytest.raises(DlmError, match="d3pm: its states"):
        explained("d3pm", (0.5,))
