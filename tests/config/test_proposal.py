"""Devices by name, and the runs and files that a plan proposes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dlm import config
from dlm.config import LADDER, devices, experiment, experiment_file, flops, proposal
from dlm.config.experiment_file import Advised
from dlm.errors import DlmError


@pytest.mark.parametrize("name", devices.DEVICES)
def test_every_device_that_can_be_named_has_a_peak(name) -> None:
    found = devices.device(name.upper())
    assert found.peak > 1e13 and found.memory >= 16e9 and not found.measured


def test_a_device_is_a_name_or_a_speed() -> None:
    assert devices.device("3e10").peak == 3e10 and devices.device("3e10").measured
    assert devices.utilisation(devices.device("3e10"), 1e6) == 1.0
    assert devices.utilisation(devices.device("h100"), 1e9) == 0.35
    assert devices.utilisation(devices.device("h100"), 1e7) == 0.21
    assert devices.utilisation(devices.device("h100"), 1e7, 0.5) == 0.5
    with pytest.raises(DlmError, match="did you mean h100"):
        devices.device("h10")


def test_hours_count_attention_and_all_devices() -> None:
    budget = devices.Budget(1e20, devices.Device("x", 1e15, 8e10, False), 2, 0.5, overhead=1.2)
    assert budget.hours(1e20) == pytest.approx(1.2e20 / (1e15 * 2 * 0.5 * 3600))
    assert math.isnan(devices.Budget(1e20).hours(1e20))


@pytest.mark.parametrize("size", ["7m", "140m", "2298m"])
def test_a_size_of_table_5_is_found_by_its_parameters(size) -> None:
    layers, width, _, ff = LADDER[size]
    count = flops.paper_parameters(layers=layers, width=width, ff=ff)
    assert proposal.sized(count * 1.01, proposal.GPT2) == {"model.size": size}


@pytest.mark.parametrize("params", [4e5, 3e6, 2e7])
def test_a_model_of_characters_has_about_the_parameters_asked_for(params) -> None:
    run = proposal.propose("ar", params, 1e8, 3e5)
    assert params / 1.5 < run.params < params * 1.5
    assert run.unique_tokens == 3e5 // 64 * 64


@pytest.mark.parametrize(("objective", "unique"), [("ar", 1e8), ("masked", 1e8), ("masked", 3e5)])
def test_a_proposed_run_spends_the_compute_that_is_advised(objective, unique) -> None:
    params, tokens = (1.4e8, 5e9) if unique > 1e6 else (4e5, 3e7)
    run = proposal.propose(objective, params, tokens, unique)
    assert 6 * run.params * run.tokens == pytest.approx(6 * params * tokens, rel=0.03)
    assert run.flops > 0.9 * 6 * run.params * run.tokens
    assert run.memory > 4 * 4 * run.params and run.disk > 2 * run.unique_tokens


def test_a_budget_below_one_epoch_takes_fewer_unique_tokens() -> None:
    run = proposal.propose("ar", 1.4e8, 2e9, 1e10)
    assert run.epochs == pytest.approx(1.0, rel=0.01)
    assert run.unique_tokens == pytest.approx(2e9, rel=0.05)


def written(tmp_path, unique: float, params: float, compute: float, recipe=None) -> str:
    path = tmp_path / "mine.py"
    recipe = recipe or proposal.default_recipe(unique)
    advised = [Advised(name, params, compute, recipe) for name in ("masked", "ar")]
    words = dict(path="mine.py", command="dlm plan", source="a law", cost="1", expected="3.4")
    path.write_text(experiment_file.experiment_text(advised, unique, **words))
    return str(path)


@pytest.mark.parametrize(
    ("unique", "params", "compute", "corpus"),
    [(1e8, 6e8, 2e20, "hub"), (3e5, 4e5, 1e14, "stdlib")],
)
def test_the_written_file_is_an_experiment_around_what_is_advised(
    tmp_path, unique, params, compute, corpus
) -> None:
    path = written(tmp_path, unique, params, compute)
    base, sweep = experiment.load(path, "laptop")
    configs = experiment.expand(base, sweep)
    assert [c.objective.name for c in configs] == ["masked"] * 3 + ["ar"] * 3
    assert {c.corpus.name for c in configs} == {corpus}
    assert all(abs(c.data.unique_tokens / unique - 1) < 0.01 for c in configs)
    smoke = experiment.expand(*experiment.load(path, "smoke"))
    assert [c.train.duration for c in smoke] == ["2 steps", "2 steps"]
    question = Path(path).read_text().split('"""')[1]
    assert all(len(line) <= 100 for line in question.splitlines())


def test_a_recipe_holds_the_options_of_its_family_that_are_not_the_defaults() -> None:
    changes = {"objective.name": "masked", "objective.schedule": "cosine"}
    c = experiment.edited(config.base(), changes.items())
    settings = proposal.recipe_of(config.to_json(c), 128).settings
    assert {k: v for k, v in settings.items() if k.startswith("objective.")} == {
        "objective.schedule": "cosine"
    }


def test_a_run_of_ones_own_lends_its_recipe_to_the_file(tmp_path) -> None:
    changes = {"corpus.name": "topics", "corpus.options.topics": 8, "optimizer.lr": 1e-3}
    changes |= {"data.seq_len": 32, "train.duration": "7 epochs", "model.layers": 3}
    c = experiment.edited(config.base(), changes.items())
    recipe = proposal.recipe_of(config.to_json(c), 128)
    decided = {"train.duration", "model.layers", "model.ff"}
    assert {k: recipe.settings[k] for k in changes if k not in decided} == {
        k: v for k, v in changes.items() if k not in decided
    }
    assert not decided & recipe.settings.keys()
    configs = experiment.expand(
        *experiment.load(written(tmp_path, 6400, 4e5, 1e12, recipe), "laptop")
    )
    assert {c.corpus.name for c in configs} == {"topics"}
    assert {c.data.seq_len for c in configs} == {32} and {c.optimizer.lr for c in configs} == {1e-3}
    assert {c.data.unique_tokens for c in configs} == {6400}
    tiny = experiment.expand(*experiment.load(written(tmp_path, 6400, 4e5, 1e12, recipe), "smoke"))
    assert {c.model.width for c in tiny} == {32} and {c.train.duration for c in tiny} == {"2 steps"}


def recipe_with(**changes) -> proposal.Recipe:
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    c = experiment.edited(config.base(), ({"corpus.name": "topics"} | settings).items())
    return proposal.recipe_of(config.to_json(c), 128)


def test_each_family_of_a_file_has_its_own_recipe_whichever_stands_first(tmp_path) -> None:
    """Two ways to score one objective, two lengths of a window, two rates."""
    masked = recipe_with(objective__name="dual", data__seq_len=48, optimizer__lr=2e-3)
    exact = recipe_with(objective__name="dual", objective__scored_as="ar", data__seq_len=64)
    other = proposal.without_objective(exact)
    advised = [
        Advised(family, 4e5, 1e12, recipe)
        for family, recipe in (("ar", other), ("dual", masked), ("dual-exact", exact))
    ]
    words = dict(path="mine.py", command="dlm plan", source="a law", cost="1", expected="3.4")
    for k, order in enumerate((advised, advised[::-1])):
        path = tmp_path / f"mine{k}.py"
        path.write_text(experiment_file.experiment_text(order, 6400, **words))
        configs = experiment.expand(*experiment.load(str(path), "laptop"))
        assert len(configs) == 9 and {c.corpus.name for c in configs} == {"topics"}
        found = {}
        for c in configs:
            kind = c.objective.name, getattr(c.objective, "scored_as", "")
            found[kind] = (c.data.seq_len, c.data.unique_tokens, c.optimizer.lr)
        default = config.base().optimizer.lr
        assert found == {
            ("ar", ""): (64, 6400, default),
            ("dual", "masked"): (48, 6384, 2e-3),
            ("dual", "ar"): (64, 6400, default),
        }


def test_a_dual_run_scored_as_ar_is_proposed_by_the_name_that_a_table_gives_it() -> None:
    exact, bound = (
        proposal.propose(family, 4e5, 1e8, 3e5, recipe=proposal.default_recipe(3e5))
        for family in ("dual-exact", "dual")
    )
    assert exact.flops == bound.flops and exact.params == bound.params
    run = proposal.run_of("dual-exact", exact.size, 1e14, 3e5, proposal.PROSE_RECIPE)
    assert run["objective.name"] == "dual" and run["objective.scored_as"] == "ar"
    with pytest.raises(DlmError, match="diffusion-of-others is no family that dlm trains"):
        proposal.propose("diffusion-of-others", 4e5, 1e8, 3e5)


def test_a_recipe_runs_no_file_of_an_objective() -> None:
    values = config.to_json(experiment.edited(config.base(), ()))
    values["objective"] |= {"name": "mine", "file": "/nowhere/mine.py"}
    with pytest.raises(DlmError, match="built-in objective"):
        proposal.recipe_of(values, 17)
    with pytest.raises(DlmError):  # of another version
        proposal.recipe_of({"corpus": {"name": "digits"}}, 17)
