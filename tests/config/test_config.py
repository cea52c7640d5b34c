"""Config: overrides, checks that name the field, durations in one place, run ids."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any, get_args

import pytest

from dlm import config
from dlm.config import experiment, families, fields, flops, planning
from dlm.errors import DlmError


def resolved(**overrides) -> config.Config:
    """The defaults with dotted keys set, `model__width=64` for model.width."""
    c = config.base()
    for key, value in overrides.items():
        experiment.override(c, key.replace("__", "."), value)
    return config.resolve(c)


# --- overrides ----------------------------------------------------------------------------------


def test_an_override_sets_a_key_and_is_typed_when_resolved():
    c = config.base()
    experiment.override(c, "model.layers", 6.0)  # 6e0 on a command line
    experiment.override(c, "optimizer.lr", 1)
    experiment.override(c, "model.dropout.residual", 0.1)
    experiment.override(c, "model.tied", False)
    experiment.override(c, "train.duration", "5 epochs")
    experiment.override(c, "corpus.options.anything", [1, 2])
    assert c.corpus.options.anything == [1, 2]
    typed = config.resolve(c)
    assert typed.model.layers == 6 and type(typed.model.layers) is int
    assert typed.optimizer.lr == 1.0 and type(typed.optimizer.lr) is float
    assert typed.model.dropout.residual == 0.1 and not typed.model.tied


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("model.layer", 6, "did you mean model.layers?"),
        ("modle.layers", 6, "did you mean model.layers?"),
        ("optimizer.wieght_decay", 0.1, "did you mean optimizer.weight_decay?"),
        ("model.dropout.residul", 0.1, "did you mean model.dropout.residual?"),
        ("xyzzy", 1, "no such key"),
        ("model.layers.deep", 1, "model.layers has no parts"),
        ("model", 3, "is a group of attention, "),
        ("model.layers", "six", "must be an integer"),
        ("model.layers", 2.5, "must be an integer"),
        ("model.layers", True, "must be an integer"),
        ("optimizer.lr", "fast", "must be a number"),
        ("optimizer.lr", True, "must be a number"),
        ("model.tied", 1, "must be true or false"),
        ("train.duration", 60, "=60: must be a text such as '60 epochs' (steps, tokens, epochs or"),
        ("train.checkpoint_every", 60, "must be a text such as '60 epochs'"),
        ("evaluation.every", 2.5, "must be a text such as '60 epochs'"),
        ("optimizer.warmup", 60, "must be a text such as '60 epochs'"),
        ("optimizer.decay", 0.2, "must be a text such as '60 epochs'"),
        ("tokenizer.kind", 3, "must be one of chars, bytes, bpe"),
        ("objective.shedule", "cosine", "ar has no such option; it has none"),
        ("corpus.name", None, "must be a word"),
    ],
)
def test_a_wrong_override_names_the_key_and_what_would_be_right(key, value, names):
    with pytest.raises(DlmError) as error:
        resolved(**{key: value})
    assert str(error.value).startswith(f"config.{key}") and names in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", 6),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("stdlib", "stdlib"),
        ("60 epochs", "60 epochs"),
        ("'12'", "12"),
        ("['a', 'b']", ["a", "b"]),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_overrides_are_parsed_from_the_command_line(text, value):
    key, parsed = experiment.parse_override(f"--config.model.layers={text}")
    assert key == "model.layers" and parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("text", ["--config.model.layers", "--model.layers=6", "--config.=6", "x"])
def test_what_is_no_override_is_refused(text):
    with pytest.raises(DlmError, match="GROUP.FIELD=VALUE"):
        experiment.parse_override(text)


# --- checks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            dict(model__width=128, model__heads=6),
            "config.model.heads=6: must be a divisor of model.width=128, such as 4 or 8",
        ),
        (dict(model__width=100, model__heads=20), "config.model.heads=20: must be such that width"),
        (
            dict(data__seq_len=64, data__unique_tokens=150),
            "config.data.unique_tokens=150: must be a multiple of data.seq_len=64, such as 128",
        ),
        (dict(data__seq_len=64, data__unique_tokens=10), "such as 64"),
        (dict(data__unique_tokens=-64), "config.data.unique_tokens=-64: must be from 0 to"),
        (dict(train__batch_size=0), "config.train.batch_size=0: must be from 1 to 1,048,576"),
        (dict(optimizer__lr=math.nan), "config.optimizer.lr=nan: must be from 1e-10 to 10"),
        (dict(optimizer__lr=math.inf), "config.optimizer.lr=inf: must be from 1e-10 to 10"),
        (dict(optimizer__b2=1.0), "config.optimizer.b2=1.0: must be at least 0 and below 1"),
        (
            dict(optimizer__min_lr_ratio=1.5),
            "config.optimizer.min_lr_ratio=1.5: must be from 0 to 1",
        ),
        (dict(model__dropout__residual=1.0), "config.model.dropout.residual=1.0"),
        (dict(model__dtype="bf16"), "did you mean bfloat16?"),
        (
            dict(model__attention="cudnn"),
            "config.model.dtype='float32': must be bfloat16, for model.attention='cudnn'",
        ),
        (
            dict(model__attention="cudnn", model__dtype="bfloat16", model__heads=32),
            "config.model.heads=32: must be such that width / heads is a multiple of 8",
        ),
        (
            dict(
                model__attention="cudnn", model__dtype="bfloat16", model__width=528, model__heads=2
            ),
            "width / heads is a multiple of 8, at most 256, for model.attention='cudnn'",
        ),
        (dict(model__size="14M"), "config.model.size='14M': must be one of Table 5"),
        (dict(objective__name="mask"), "did you mean masked?"),
        (dict(optimizer__schedule="cos"), "config.optimizer.schedule='cos': must be one of cosine"),
        (
            dict(corpus__validation_fraction=1.0),
            "config.corpus.validation_fraction=1.0: must be above 0 and below 1",
        ),
        (
            dict(evaluation__interval_growth=0.5),
            "config.evaluation.interval_growth=0.5: must be from 1 to 1,000",
        ),
        (dict(tokenizer__kind="bpe"), "config.tokenizer.vocab_size=0: must be 259 (256 bytes"),
        (dict(tokenizer__kind="hf"), "config.tokenizer.path='': must be a path"),
        (dict(train__duration="fast"), "config.train.duration='fast': must be a number and a unit"),
        (dict(train__duration="10"), "config.train.duration='10'"),
        (dict(train__duration="10 parsecs"), "a number and a unit"),
        (dict(train__duration="-5 epochs"), "a number and a unit"),
        (dict(evaluation__every="often"), "config.evaluation.every='often'"),
        (dict(optimizer__warmup=""), "config.optimizer.warmup=''"),
        (dict(train__duration="nan flops"), "config.train.duration='nan flops': must be a number"),
        (
            dict(optimizer__decay="200 percent"),
            "config.optimizer.decay='200 percent': must be at most 100 percent of the run",
        ),
        (dict(model__layers=100_000), "config.model.layers=100000: must be from 1 to 1,000"),
        (dict(model__width=10**9), "config.model.width=1000000000: must be from 2 to 65,536"),
        (dict(model__init_std=1e300), "config.model.init_std=1e+300: must be from 1e-06 to 10"),
        (dict(model__loops=0), "config.model.loops=0: must be from 1 to 100"),
        (
            dict(optimizer__name="moun"),
            "config.optimizer.name='moun': must be one of adamw, muon; did",
        ),
        (dict(train__steps_per_call=10**9), "steps_per_call=1000000000: must be from 1 to 10,000"),
        (
            dict(objective__name="masked", objective__low_noise=1e-300),
            "low_noise=1e-300: must be from 0.01 to 1",
        ),
        (
            dict(optimizer__lr=0.1, optimizer__weight_decay=10),
            "config.optimizer.lr=0.1: must be below 0.1, for optimizer.weight_decay=10: else",
        ),
    ],
)
def test_a_wrong_value_is_an_error_that_names_field_value_and_remedy(overrides, message):
    with pytest.raises(DlmError) as error:
        resolved(**overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def numbers(record: type, prefix: str = "") -> dict[str, tuple[type, fields.Range]]:
    """Type and range of each number of a record and its groups, by dotted name."""
    found = {}
    for name, hint in fields.hints(record).items():
        if hasattr(hint, "__dataclass_fields__"):
            found |= numbers(hint, f"{prefix}{name}.")
        kind, *marks = get_args(hint) or (hint,)
        assert hint not in (int, float), f"{prefix}{name} has no range"
        if kind in (int, float):
            found[prefix + name] = kind, *marks
    return found


# By family ("" for all) and dotted name.
NUMBERS = {("", name): known for name, known in numbers(config.Config).items()} | {
    (name, key): known
    for name, family in config.FAMILIES.items()
    for key, known in numbers(family.options, "objective.").items()
}
ABSURD = (math.nan, math.inf, -math.inf, 1e300, -1, -1e-9, 10**400, 10**5000, True, "x", None)


def refused(family: str, name: str, value) -> str:
    with pytest.raises(DlmError) as error:
        resolved(**{"objective.name": family or "ar", name: value})
    return str(error.value)


@pytest.mark.parametrize("family, name", NUMBERS)
def test_an_absurd_number_is_one_line_that_names_the_field(family, name):
    for value in ABSURD:
        if (name, value) == ("objective.separator_id", -1):  # its default
            continue
        line = refused(family, name, value)
        assert line.startswith(f"config.{name}=") and ": must be " in line
        assert "\n" not in line and len(line) < 200


@pytest.mark.parametrize("family, name", NUMBERS)
def test_both_ends_of_a_range_are_what_they_say(family, name):
    """One step beyond an end is refused in the words of the range; a value inside passes."""
    kind, known = NUMBERS[family, name]
    low, high, without = known.low, known.high, known.without
    whole = kind is int
    below = low - 1 if whole else low if without in ("low", "both") else math.nextafter(low, -1e9)
    above = high + 1 if whole else high if without in ("high", "both") else high * (1 + 1e-15)
    for value in (below, above):
        assert refused(family, name, value).endswith(f": must be {known}")
    assert str(known).startswith(("from ", "above ", "at least "))


def test_every_default_is_one_that_its_field_takes():
    for name, family in config.FAMILIES.items():
        c = dataclasses.replace(config.Config(), objective=config.objective(name))
        assert config.from_json(config.to_json(c)) == c
        assert type(c.objective) is family.options


def test_the_options_of_a_family_are_its_own():
    c = resolved(objective__schedule="cosine", objective__name="masked")  # in any order
    assert isinstance(c.objective, families.Masked) and c.objective.schedule == "cosine"
    with pytest.raises(DlmError) as error:
        resolved(objective__name="block", objective__schedule="cosine")
    told = "config.objective.schedule: block has no such option; it has estimator, block"
    assert str(error.value) == told
    with pytest.raises(DlmError, match="did you mean schedule[?]; it has schedule, schedule_exp"):
        resolved(objective__name="flow", objective__shedule="cosine")


def test_another_objective_on_a_command_line_leaves_the_options_of_the_experiment_out():
    c = config.base()
    c.objective.name, c.objective.schedule = "masked", "cosine"
    sweep = [{"objective.suffix": 0.5}, {"objective.name": "noise", "objective.noise": 0.2}]
    by_hand = {"objective.name": "noise", "objective.noise_kind": "replace"}
    runs = experiment.expand(*experiment.with_overrides(c, sweep, by_hand))
    assert [run.objective.name for run in runs] == ["noise", "noise"]
    assert [run.objective.noise for run in runs] == [0.1, 0.2]
    assert {run.objective.noise_kind for run in runs} == {"replace"}


def test_the_defaults_and_every_named_size_resolve():
    assert resolved() == dataclasses.replace(
        config.Config(), model=dataclasses.replace(config.Model(), ff=320)
    )
    for size, (layers, width, heads, ff) in config.LADDER.items():
        model = resolved(model__size=size).model if width % heads == 0 else None
        if model:
            assert (model.layers, model.width, model.heads, model.ff) == (layers, width, heads, ff)


def test_every_named_size_has_heads_that_divide_its_width():
    bad = [n for n, (_, width, heads, _) in config.LADDER.items() if width % heads]
    bad += [n for n, (_, width, heads, _) in config.LADDER.items() if width // heads % 2]
    assert not bad


def test_unknown_and_missing_fields_are_refused():
    values = config.to_json(resolved())
    with pytest.raises(DlmError, match="config.model.layrs: no such key; did you mean layers"):
        config.from_json(values | {"model": values["model"] | {"layrs": 3}})
    del values["train"]["seed"]
    with pytest.raises(DlmError, match="config.train.seed: missing"):
        config.from_json(values)


# --- plan ---------------------------------------------------------------------------------------

TOKENS = 20_000  # in the training split: 312 windows of 64
UNIQUE = 10_240  # 10 batches of 16 x 64


def planned(tokens: int = TOKENS, **overrides) -> planning.Plan:
    return planning.plan(resolved(**overrides), train_tokens=tokens, vocab_size=50)


def test_the_corpus_bounds_unique_tokens_and_batch():
    with pytest.raises(DlmError, match="must be at most 19,968: the training split .* 20,000 tok"):
        planned(data__unique_tokens=64_000)
    with pytest.raises(DlmError, match="config.train.batch_size=16: must be at most 10, the wind"):
        planned(data__unique_tokens=640)
    with pytest.raises(DlmError, match="config.data.seq_len=64: must be at most 50"):
        planned(tokens=50)
    assert planned().unique_tokens == 19_968 and planned().windows == 312


def test_durations_agree_in_every_unit():
    plan = planned(data__unique_tokens=UNIQUE, train__duration="200 steps")
    assert (plan.steps, plan.tokens_per_step, plan.epochs) == (200, 1024, 20.0)
    same = ["204800 tokens", "204_800 tokens", "2.048e5 tokens", "20 epochs", "20epochs"]
    same += [f"{200 * plan.flops_per_step} flops", "200 Steps", "204,800 tokens"]
    for duration in same:
        assert planned(data__unique_tokens=UNIQUE, train__duration=duration) == plan, duration
    for warmup in ("20 steps", "20480 tokens", "2 epochs", "10 percent"):
        more = planned(
            data__unique_tokens=UNIQUE, train__duration="20 epochs", optimizer__warmup=warmup
        )
        assert more.warmup == 20, warmup
    assert planned(data__unique_tokens=UNIQUE, train__duration="0.001 epochs").steps == 1
    with pytest.raises(DlmError, match="config.train.duration='20 percent': must be in steps"):
        planned(train__duration="20 percent")


@pytest.mark.parametrize("name", ["ar", "masked"])
def test_a_plan_counts_the_rows_and_positions_of_its_objective(name):
    plan = planned(objective__name=name, data__unique_tokens=UNIQUE)
    extra, positions, attention = {"ar": (1, 64, "causal"), "masked": (2, 65, "full")}[name]
    sizes = dict(layers=2, width=128, ff=320, rows=50 + extra)
    assert plan.parameters == flops.parameters(**sizes, tied=True)
    forward = flops.forward_flops(**sizes, length=positions, attention=attention)
    assert plan.flops_per_step == 16 * 3 * forward
    assert plan.flops_6nd_per_step == 6 * plan.parameters.total * 1024
    assert plan.flops_per_pass == forward


def test_a_plan_counts_loops_and_the_products_of_muon():
    plain, looped, muon = (
        planned(data__unique_tokens=UNIQUE, **overrides)
        for overrides in ({}, dict(model__loops=2), dict(optimizer__name="muon"))
    )
    logits = 2 * 64 * 128 * 51
    assert looped.flops_per_pass - logits == 2 * (plain.flops_per_pass - logits)
    assert looped.flops_per_step == 16 * 3 * looped.flops_per_pass
    assert looped.parameters == plain.parameters == muon.parameters
    products = flops.muon_flops([(8, 128, 128), (6, 320, 128)])
    assert muon.flops_per_step == plain.flops_per_step + products
    assert muon.flops_per_pass == plain.flops_per_pass


@pytest.mark.parametrize("growth", [1.0, 1.15, 2.0])
@pytest.mark.parametrize("every", [1, 7, 10, 500])
def test_evaluations_start_dense_grow_apart_and_end_with_the_run(growth, every):
    at = planned(
        data__unique_tokens=UNIQUE,
        train__duration="300 steps",
        evaluation__every=f"{every} steps",
        evaluation__interval_growth=growth,
    ).evaluate_at
    assert at[0] == min(every, 300) and at[-1] == 300
    assert list(at) == sorted(set(at))
    for a, b in zip(at[:-1], at[1:-1], strict=False):  # the last comes when the run ends
        assert b == max(a + every, round(a * growth))


# --- run ids ------------------------------------------------------------------------------------


def test_a_run_id_depends_on_what_determines_the_result_and_on_nothing_else():
    plain = config.run_id(resolved(), "abc")
    assert plain == config.run_id(resolved(), "abc") and len(plain) == 10
    assert plain != config.run_id(resolved(), "abd")
    same = dict(
        mesh__data=4, mesh__fsdp=2, train__steps_per_call=1, train__checkpoint_every="5 steps"
    )
    for key, value in same.items():
        assert config.run_id(resolved(**{key: value}), "abc") == plain, key
    other = dict(
        data__seq_len=32,
        data__subset="documents",
        model__layers=3,
        model__dropout__residual=0.1,
        objective__name="masked",
        optimizer__lr=1e-3,
        train__seed=1,
        train__duration="99 epochs",
        evaluation__mc_samples=2,
    )
    ids = {config.run_id(resolved(**{key: value}), "abc") for key, value in other.items()}
    assert len(ids) == len(other) and plain not in ids


def test_a_config_survives_json():
    c = resolved(corpus__options__n=3, model__width=64, optimizer__lr=3e-4, data__unique_tokens=640)
    again = config.from_json(json.loads(json.dumps(config.to_json(c))))
    assert again == c and config.run_id(again, "x") == config.run_id(c, "x")


def test_a_sweep_expands_in_order_and_leaves_the_base_alone():
    base = config.base()
    before = base.to_dict()
    runs = experiment.expand(base, [{"model.layers": 3}, {}, {"train.seed": 2, "model.width": 64}])
    assert [r.model.layers for r in runs] == [3, 2, 2]
    assert [r.train.seed for r in runs] == [0, 0, 2] and runs[2].model.width == 64
    assert base.to_dict() == before
    with pytest.raises(DlmError, match="did you mean model.layers"):
        experiment.expand(base, [{"model.layer": 3}])


# --- experiment files ---------------------------------------------------------------------------

GOOD = """
from dlm import config

def get_config(scale):
    c = config.base()
    c.model.layers = 3
    c.train.duration = {"smoke": "1 steps"}.get(scale, "5 epochs")
    return c
"""


def write(folder, text: str, name: str = "question.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_an_experiment_gives_its_config_and_its_sweep(tmp_path):
    c, sweep = experiment.load(write(tmp_path, GOOD), "smoke")
    assert c.model.layers == 3 and c.train.duration == "1 steps" and sweep == [{}]
    swept = GOOD + "\ndef sweep(scale):\n    return ({'train.seed': s} for s in range(2))\n"
    c, sweep = experiment.load(write(tmp_path, swept), "laptop")
    assert sweep == [{"train.seed": 0}, {"train.seed": 1}] and c.train.duration == "5 epochs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1 +\n", "SyntaxError"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("x = 1\n", "get_config"),
        ("def get_config(scale):\n    return {}\n", "must return the ConfigDict"),
        (GOOD.replace("model.layers", "model.layer"), "question.py:6"),
        (GOOD.replace("model.layers = 3", "train.seed = 'a'"), "question.py:6"),
        (
            "from dlm.errors import DlmError\n"
            "def get_config(scale):\n    raise DlmError('no such scale here')\n",
            "no such scale here",
        ),
    ],
)
def test_a_broken_experiment_is_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(DlmError) as error:
        experiment.load(write(tmp_path, text), "smoke")
    assert message in str(error.value)


def test_an_experiment_imports_the_files_beside_it_and_no_others(tmp_path):
    for name, layers in (("a", 5), ("b", 6)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"LAYERS = {layers}\n", "shared_by_both.py")
        text = "import shared_by_both\n" + GOOD.replace("= 3", "= shared_by_both.LAYERS")
        c, _ = experiment.load(write(tmp_path / name, text), "laptop")
        assert c.model.layers == layers
    assert "shared_by_both" not in sys.modules and str(tmp_path / "a") not in sys.path
    with pytest.raises(DlmError, match="shared_by_both.py: has no get_config"):
        experiment.load(str(tmp_path / "a" / "shared_by_both.py"), "laptop")


def test_an_experiment_that_is_not_there_names_the_nearest(tmp_path):
    path = write(tmp_path, GOOD)
    with pytest.raises(DlmError, match="no such experiment file; did you mean .*question.py"):
        experiment.load(path.replace("question", "qestion"), "smoke")
    with pytest.raises(DlmError, match="--scale=tiny: must be one of laptop"):
        experiment.load(path, "tiny")
    with pytest.raises(DlmError, match="not a Python file"):
        experiment.load(write(tmp_path, GOOD, "question.txt"), "smoke")


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"objective.name": "any_order", "objective.order_kind": "segments"},
            "objective.order_kind='segments': must be one of jitter, uniform, spans",
        ),
        (
            {"objective.name": "ar", "model.time_conditioning": "adaln"},
            "model.time_conditioning='adaln': must be none, for ar",
        ),
    ],
)
def test_what_would_be_no_bound_or_of_no_use_is_refused(changes, said):
    edited = config.base()
    for key, value in changes.items():
        experiment.override(edited, key, value)
    with pytest.raises(DlmError, match=said):
        config.resolve(edited)


@pytest.mark.parametrize(
    "text, said",
    [
        ("def make(:", "SyntaxError"),
        ("FAMILY = {}\ndef make(c, v): pass", "FAMILY is a dlm.config.Family"),
        (
            "from dlm import config\nFAMILY = config.FAMILIES['ar']._replace(attention='both')\n"
            "def make(c, v): pass",
            "attention is one of causal, full, block",
        ),
    ],
)
def test_a_mistake_in_an_objective_of_ones_own_is_one_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    edited = config.base()
    edited.objective.file, edited.objective.name = str(path), "mine"
    with pytest.raises(DlmError, match=said):
        _ = config.resolve(edited).objective.family


OWN_OPTIONS = """
from dataclasses import dataclass
from typing import Annotated
from dlm import config
from dlm.config.fields import Range

@dataclass(frozen=True, kw_only=True)
class Options(config.Objective):
    depth: Annotated[int, Range(1, 9)] = 3

FAMILY = config.FAMILIES["ar"]._replace(options=Options)

def make(objective, vocab_size): ...
"""


def test_an_objective_of_ones_own_has_its_own_options(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN_OPTIONS)
    mine = {"objective.file": str(path), "objective.name": "mine"}
    c: Any = resolved(**mine, **{"objective.depth": 5})
    assert c.objective.depth == 5 and c.objective.digest and c.objective.family.exact
    assert config.from_json(json.loads(json.dumps(config.to_json(c)))) == c
    with pytest.raises(DlmError, match="objective.depth=10: must be from 1 to 9"):
        resolved(**mine, **{"objective.depth": 10})
    with pytest.raises(
        DlmError, match="objective.dept: mine has no such option; did you mean depth"
    ):
        resolved(**mine, **{"objective.dept": 5})
    path.write_text(OWN_OPTIONS.replace("frozen=True, ", ""))
    with pytest.raises(DlmError, match="TypeError: cannot inherit non-frozen"):
        resolved(**mine)
    path.write_text(OWN_OPTIONS.replace("options=Options", "options=dict"))
    with pytest.raises(
        DlmError, match="FAMILY.options is a frozen dataclass derived from dlm.conf"
    ):
        resolved(**mine)
