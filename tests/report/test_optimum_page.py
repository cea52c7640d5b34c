"""`dlm optimum`: the best use of compute, the three approaches, words, JSON and files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import planted
from dlm.cli import main
from dlm.errors import DlmError
from dlm.laws import advice, chosen
from dlm.laws.chosen import Laws
from dlm.laws.optimum import chinchilla_optimum
from dlm.report import optimum_page

FRESH = dict(sizes=np.geomspace(2e7, 1.3e9, 6), unique=tuple(np.geomspace(4e8, 3e10, 6)))


@pytest.fixture(scope="module")
def fitted() -> Laws:
    table = planted.table("chinchilla", noise=0.002, family="ar", epochs=(1,), **FRESH)  # pyright: ignore
    fit, predicted = chosen.fit(table, resamples=60)
    assert fit.law.name == "chinchilla" and predicted is not None and predicted.axis == "flops"
    return Laws("planted", "planted", {"ar": fit}, (0.002, "planted"), {}, ())


def test_the_best_size_on_fresh_data_is_the_closed_form_of_the_law(fitted) -> None:
    found = optimum_page.optima(fitted, [1e19, 1e20], resamples=60)
    law = fitted.by_family["ar"]
    for C, best in zip(found.flops, found.best, strict=True):
        N, D = chinchilla_optimum(law.law.complete(law.coefficients), C)
        assert best.params == pytest.approx(float(N), rel=1e-3)
        assert best.tokens == pytest.approx(float(D), rel=1e-3) and best.epochs == 1
        truth, _ = chinchilla_optimum(law.law.complete(planted.TRUTHS["chinchilla"]), C)
        assert best.params_low < float(truth) < best.params_high
        assert best.low < best.loss < best.high


def test_three_approaches_stand_beside_each_other(fitted) -> None:
    found = optimum_page.optima(fitted, [1e19], resamples=60)
    rows = optimum_page.approach_rows(found)
    assert ["approach" in row[1] for row in rows] == [True] * 3
    (law,) = [row for row in rows if "approach 3" in row[1]]
    assert law[4] and float(law[2]) == pytest.approx(0.33 / 0.65, abs=0.1)


def test_repeated_data_costs_and_its_bounds_are_told(fitted) -> None:
    laws = chosen.read("paper")
    few = optimum_page.optima(laws, [1e20], 1e8)
    many = optimum_page.optima(laws, [1e20])
    assert few.best[0].loss > many.best[0].loss and many.best[0].epochs == 1
    told = optimum_page.as_json(laws, many)
    assert told["unique_tokens"] is None and told["optima"][0]["low"] is None
    assert told["approaches"] == {}
    json.dumps(told, allow_nan=False)
    with pytest.raises(DlmError, match="raw count"):
        optimum_page.optima(laws, [1.0])
    assert math.isnan(few.best[0].low) and many.unique_tokens == advice.UNLIMITED


def test_the_verb_prints_and_writes(tmp_path, capsys) -> None:
    words = ["optimum", "paper", "--flops", "1e20", "--unique-tokens", "1e8"]
    assert main.main([*words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "on 100M unique tokens" in out and out.count("masked") >= 5
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"optimum.json", "optimum.png", "optimum.svg", "optimum.pdf"}
    assert main.main(["optimum", "paper"]) == 2
    assert "needs --flops" in capsys.readouterr().err
