"""Every experiment file explains itself, plans at every scale, and trains its smoke variant."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm import config
from dlm.config import experiment, flops, planning
from dlm.config.memory import Machine
from dlm.data import build
from dlm.data.corpora import CORPORA, Source
from dlm.training import loop
from dlm.training.prepare import prepare
from places import ROOT

FILES = sorted((ROOT / "experiments").glob("*.py"))
PAPER = [path for path in FILES if path.stem.startswith("paper_")]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Iterator[Path]:
    """The token stores of all experiments. The standard library's prose is read once for them."""
    stdlib = CORPORA["stdlib"]
    read = functools.cache(lambda: list(stdlib().documents))

    @functools.wraps(stdlib)
    def known(**options) -> Source:
        return dataclasses.replace(stdlib(**options), documents=read())

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CORPORA, "stdlib", known)
        yield tmp_path_factory.mktemp("corpora")


PER_DOCUMENT = 478.625835  # tokens of a document of C4
# What each scale is meant for: a core of a laptop, or one large GPU.
CORE, GPU = Machine(1, 4e9, cpu=True), Machine(1, 80e9, cpu=False)
MACHINES = {"laptop": CORE, "smoke": CORE, "gpu": GPU, "paper": GPU}


@functools.cache
def runs_of(path: Path, scale: str) -> list[config.Config]:
    return experiment.expand(*experiment.load(str(path), scale))


def test_there_are_experiments() -> None:
    assert ROOT / "experiments" / "smoke.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_header_has_question_command_and_expected_result(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text.split("\n\n")[0].strip().endswith("?")
    assert f"dlm run experiments/{path.name}" in text
    assert "Expected:" in text


@pytest.mark.parametrize("scale", experiment.SCALES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_scale_resolves_and_plans(path: Path, scale: str, corpora: Path) -> None:
    runs = runs_of(path, scale)
    assert runs
    for c in runs:
        plan = planned(c, corpora)
        assert plan.steps > 0 and plan.evaluate_at[-1] == plan.steps
        assert plan.epochs >= 1 or "epochs" not in c.train.duration  # each token is seen
        assert plan.held_out
        machine = MACHINES[scale]
        planning.check(c, plan, machine)
        assert planning.bytes_on_device(c, plan, machine).total < machine.memory
        work = planning.work(c, plan)
        assert scale == "smoke" or work.after < 20 * work.training  # far from what is refused


def planned(c: config.Config, corpora: Path) -> planning.Plan:
    """With the tokens of its corpus; of one that is fetched, with those that its config says."""
    if c.corpus.name == "hub":
        documents = [c.corpus.options[name] for name in ("documents", "validation_documents")]
        most, held_out = (int(count * PER_DOCUMENT) for count in documents)
        tokens = dict(train_tokens=most, validation_tokens=held_out)
        return planning.plan(c, **tokens, vocab_size=50_257)
    assert c.corpus.name in CORPORA
    return planning.plan(c, **build.build(c.corpus, c.tokenizer, corpora).sizes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_smoke_variant_trains_two_steps(path: Path, corpora: Path, tmp_path: Path) -> None:
    """The first runs of two families, as far as two steps and an evaluation.

    tests/test_trained.py trains every family.
    """
    base, sweep = experiment.load(str(path), "smoke")
    for key, value in SHORT.items():
        experiment.override(base, key, value)
    sweep = [{k: v for k, v in run.items() if k not in SHORT} for run in sweep]
    first = {c.objective.name: c for c in reversed(experiment.expand(base, sweep))}
    for name, c in list(first.items())[-2:]:
        store = build.build(c.corpus, c.tokenizer, corpora)
        outcome = loop.train(prepare(c, store), tmp_path / name)
        assert outcome.progress.step == 2
        assert outcome.progress.best_loss is not None
        assert outcome.ledger.sum() == 2 * c.train.batch_size * c.data.seq_len


SHORT = {
    "train.duration": "2 steps",
    "train.checkpoint_every": "2 steps",
    "train.batch_size": 8,  # the test process has 8 devices
    "evaluation.every": "2 steps",
    "evaluation.sequences": 16,
}


# --- the paper's programme: numbers of arXiv 2507.15857 -------------------------------------------


def file(name: str) -> Path:
    return ROOT / "experiments" / f"paper_{name}.py"


def of(name: str, scale: str = "paper", **fields) -> list[config.Config]:
    """Runs of a paper experiment by objective, size, duration."""
    known = dict(objective="objective.name", size="model.size", duration="train.duration")
    runs = runs_of(file(name), scale)
    for key, value in fields.items():
        group, field = known[key].split(".")
        runs = [c for c in runs if getattr(getattr(c, group), field) == value]
    return runs


def params_of(c: config.Config) -> float:
    """Millions, by the paper's formula."""
    shape = {name: getattr(c.model, name) for name in ("layers", "width", "ff")}
    return flops.paper_parameters(**shape) / 1e6


def test_every_part_of_the_programme_is_there() -> None:
    names = ("ablations", "contours", "isoflop", "orderings", "pareto", "repetition")
    assert [path.stem for path in PAPER] == [f"paper_{name}" for name in names]


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_recipe_is_that_of_section_8(path: Path) -> None:
    for c in runs_of(path, "paper"):
        o = c.optimizer
        assert (o.lr, o.min_lr_ratio * o.lr, o.schedule, o.warmup) == (
            2e-4,
            2e-5,
            "cosine",
            "1 percent",
        )
        assert (o.b1, o.b2, o.eps, o.weight_decay, o.grad_clip_norm) == (0.9, 0.95, 1e-8, 0.1, 1.0)
        assert c.data.seq_len * c.train.batch_size == 524_288
        assert (c.data.subset, c.data.mode, c.data.seq_len) == ("documents", "multiset", 2048)
        assert (c.model.init_std, c.model.tied, c.model.dtype) == (0.02, True, "bfloat16")
        assert c.model.size in config.LADDER
        assert c.train.seed == 1234 and o.ema_decay == 0


def test_figure_2_has_its_sizes_and_runs() -> None:
    sizes = {
        "ar": "2154.7 1086.3 615.3 534.4 416.9 275.7 217.5 144.8 80.5 50.7 13.6 7.0",
        "masked": "2154.7 1086.3 700.3 615.3 534.4 416.9 275.7 217.5 144.8 80.5 50.7 13.6 7.0",
    }
    for objective, count in (("ar", 69), ("masked", 71)):
        runs = of("contours", objective=objective)
        assert len(runs) == len(set(runs_key(c) for c in runs)) == count
        found = dict.fromkeys(f"{params_of(c):.1f}" for c in runs)
        assert " ".join(found) == sizes[objective]


def runs_key(c: config.Config) -> tuple:
    return (c.objective.name, c.model.size, c.train.duration, c.data.unique_tokens)


def test_the_frontiers_have_about_a_hundred_runs_of_each_family() -> None:
    assert (len(of("pareto", objective="ar")), len(of("pareto", objective="masked"))) == (100, 102)


@pytest.mark.parametrize(
    ("objective", "size", "epochs", "steps", "spent"),
    [("ar", "140m", 50, 9_532, 4.32e18), ("masked", "425m", 500, 95_320, 1.24e20)],
)
def test_the_best_runs_of_figure_2_cost_what_it_says(
    objective: str, size: str, epochs: int, steps: int, spent: float, corpora: Path
) -> None:
    """FLOPs printed in the figure, and by hand: 6 N D with N of Table 5 and D = epochs of 99.95M."""
    (c,) = of("contours", objective=objective, size=size, duration=f"{epochs} epochs")
    plan = planned(c, corpora)
    found = plan.steps * plan.flops_6nd_per_step
    assert plan.steps == steps
    assert found == pytest.approx(spent, rel=0.01)
    assert found == pytest.approx(6 * params_of(c) * 1e6 * epochs * 99_952_399, rel=1e-3)
    assert plan.warmup == round(steps / 100)


def test_a_hundred_epochs_of_100m_tokens(corpora: Path) -> None:
    (c,) = of("orderings", objective="ar")
    plan = planned(c, corpora)
    assert (c.model.size, c.corpus.options["documents"]) == ("278m", 208_931)
    assert (plan.unique_tokens, plan.steps) == (99_950_592, 19_064)
    assert plan.steps * plan.tokens_per_step == pytest.approx(100 * 99_952_399, rel=1e-4)


def test_budgets_are_the_codes_and_contain_each_other() -> None:
    """One store and one prefix rule for 25, 50 and 100M; Table 3's pair has a store of its own."""
    runs = of("pareto")
    tokens = {c.data.unique_tokens for c in runs}
    assert tokens == {24_741_888, 49_872_896, 99_950_592, 499_789_824}
    assert {c.corpus.options["documents"] for c in runs} == {208_931, 1_044_657}
    for scale, grown in (("gpu", 4), ("laptop", 4), ("smoke", 2)):
        found = {(c.data.unique_tokens, str(c.corpus)) for c in runs_of(file("pareto"), scale)}
        assert len({text for _, text in found}) == 1
        assert max(found)[0] / min(found)[0] == pytest.approx(grown, rel=0.01)


@pytest.mark.parametrize(
    ("objective", "size", "compute", "billions"),
    [
        ("ar", "217m", 1e19, 7.66), ("ar", "425m", 3e19, 11.99), ("ar", "724m", 1e20, 23.8),
        ("masked", "117m", 1e19, 13.48), ("masked", "217m", 3e19, 22.99),
        ("masked", "425m", 1e20, 39.98),
    ],
)  # fmt: skip
def test_figure_3_spends_the_same_on_every_share(
    objective: str, size: str, compute: float, billions: float, corpora: Path
) -> None:
    runs = of("repetition", objective=objective, size=size)
    plans = [planned(c, corpora) for c in runs]
    assert [round(p.epochs) for p in plans] == [1, 2, 4, 10, 20, 50, 100][
        : 7 if compute < 2e19 else 5
    ]
    for plan in plans:
        assert plan.steps == plans[0].steps
        assert plan.steps * plan.flops_6nd_per_step == pytest.approx(compute, rel=1e-3)
        assert plan.steps * plan.tokens_per_step == pytest.approx(billions * 1e9, rel=2e-3)


@pytest.mark.parametrize("scale", ["paper", "gpu", "laptop"])
def test_a_fixed_compute_is_spent_by_every_size(scale: str, corpora: Path) -> None:
    plans = [planned(c, corpora) for c in runs_of(file("isoflop"), scale)]
    levels = {"paper": (6e18, 1e19, 3e19, 1e20), "gpu": (3e16, 5e16, 1.5e17, 5e17)}
    levels["laptop"] = (1e11, 3e11, 1e12, 3e12)
    for plan in plans:
        spent = plan.steps * plan.flops_6nd_per_step
        assert plan.epochs == 1
        assert min(abs(spent / level - 1) for level in levels[scale]) < 0.015


@pytest.mark.parametrize("scale", ["paper", "gpu", "laptop"])
def test_runs_of_several_figures_are_the_same_runs(scale: str) -> None:
    """What the headers say may be copied: equal configs have equal run ids."""
    grid = runs_of(file("contours"), scale)
    larger = runs_of(file("pareto"), scale)
    assert all(c in larger for c in grid)
    for name in ("orderings", "ablations"):
        runs = runs_of(file(name), scale)
        assert runs[0].objective.name == "ar" and runs[0] in grid
        assert [c for c in runs if c.objective.name == "masked" and not c.objective.suffix][
            0
        ] in grid


def test_figures_7_and_8_vary_one_thing() -> None:
    orders = of("orderings", objective="orders")
    assert {(c.objective.order_kind, c.objective.orders) for c in orders} == {
        (kind, n) for kind in ("jitter", "uniform") for n in (2, 4, 8, 16)
    }
    assert not any(c.objective.targets for c in orders)
    ar = of("ablations", objective="ar")
    assert [c.model.dropout.attention for c in ar] == [0.1, 0.25, 0.5, 0.75]
    assert {(c.model.size, c.train.duration) for c in ar} == {("140m", "50 epochs")}


COST = re.compile(r"^  (\w+) +(\d+) runs, ([\d.e]+) FLOPs, ([\d,.]+) (?:H100-hours|minutes)", re.M)
SPEED = {"paper": 0.4 * 989e12 * 3600, "gpu": 0.25 * 989e12 * 3600, "laptop": 2 * 3e10 * 60}


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_header_says_what_it_costs(path: Path, corpora: Path) -> None:
    said = COST.findall(ast.get_docstring(ast.parse(path.read_text())) or "")
    assert [row[0] for row in said] == list(SPEED)
    for scale, runs, spent, time in said:
        plans = [planned(c, corpora) for c in runs_of(path, scale)]
        total = sum(plan.steps * plan.flops_per_step for plan in plans)
        assert int(runs) == len(plans)
        assert float(spent) == pytest.approx(total, rel=0.01)
        assert float(time.replace(",", "")) == pytest.approx(total / SPEED[scale], rel=0.06)
