"""What a run takes in bytes and FLOPs; what cannot fit or end is refused before it is computed."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import pytest
from test_config import resolved

import tiny
from dlm.config import memory, planning
from dlm.config.memory import Machine
from dlm.errors import DlmError
from dlm.sweep import local, machine
from dlm.sweep.jobs import Job
from tolerances import FLOAT64

HERE = Machine(1, 8e9, cpu=True)


def planned(c, **tokens) -> planning.Plan:
    held_out = max(2_000, c.data.seq_len)
    known = dict(train_tokens=20_000, validation_tokens=held_out, vocab_size=50) | tokens
    return planning.plan(c, **known)


def refusal(machine: Machine | None = HERE, **overrides) -> str:
    """The line that refuses a config; "" if it is accepted."""
    try:
        c = resolved(**overrides)
        planning.check(c, planned(c), machine)
    except DlmError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


# --- FLOPs --------------------------------------------------------------------------------------


def test_work_counts_held_out_and_as_many_training_windows_pass_by_pass():
    c = resolved(objective__name="masked", evaluation__samples=3)
    p = planned(c)
    forward = p.flops_per_step / 3 / 16
    w = planning.work(c, p)
    assert w.training == p.steps * p.flops_per_step
    assert w.final == pytest.approx(forward * 8 * 2 * (2_000 // 64), rel=FLOAT64)
    assert w.tracked == pytest.approx(len(p.evaluate_at) * forward * 2 * (2_000 // 64), rel=FLOAT64)
    assert w.samples == pytest.approx(3 * 64 * forward, rel=FLOAT64)  # a call a token
    assert w.further == 0 and w.after == w.tracked + w.final + w.samples
    some = planning.work(resolved(objective__name="masked", evaluation__sequences=10), p)
    assert some.tracked == pytest.approx(w.tracked * 10 / 31, rel=FLOAT64)
    few = planned(c, validation_tokens=100_000)  # of 312 training windows all
    assert planning.work(c, few).final == pytest.approx(forward * 8 * (1562 + 312), rel=FLOAT64)
    more = resolved(objective__name="masked", evaluation__final="orders:4 on 10 windows")
    orders = planning.work(more, p)
    assert orders.after == pytest.approx(sum(orders) - orders.training, rel=FLOAT64)
    assert orders.further == pytest.approx(forward * 10 * 4 * 64, rel=FLOAT64)  # a call a token


def test_training_of_two_directions_costs_by_the_share_of_each():
    def both(name: str, **options) -> tuple[float, float]:
        named = {f"objective__{key}": value for key, value in options.items()}
        p = planned(resolved(objective__name=name, **named))
        return p.flops_per_step, p.flops_per_pass

    assert both("dual", ar_share=0) == both("masked")  # noise: AR with a row for MASK
    assert both("dual", ar_share=1, scored_as="ar") == both("noise")
    step, as_masked = both("dual", ar_share=0.25)
    as_ar = both("dual", ar_share=0.25, scored_as="ar")[1]
    mean = 0.25 * as_ar + 0.75 * as_masked
    assert as_ar < as_masked and step == pytest.approx(3 * 16 * mean, rel=FLOAT64)


def test_an_exact_likelihood_takes_one_pass_and_samples_from_a_cache():
    c = resolved(evaluation__final="orders:16", evaluation__samples=3)
    p = planned(c)
    w = planning.work(c, p)
    forward = p.flops_per_step / 3 / 16
    assert w.final == pytest.approx(forward * 62, rel=FLOAT64) and w.samples == pytest.approx(
        3 * forward, rel=FLOAT64
    )


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        (dict(objective__name="gaussian"), 128),
        (dict(objective__name="d3pm", objective__timesteps=10), 10),
        (dict(objective__name="d3pm"), 128),
        (dict(objective__name="flow"), 64),
        (dict(objective__name="flow", objective__path="uniform"), 128),
        (dict(objective__name="block", objective__block=8), 4.5),
        (dict(objective__name="any_order"), 1),
        (dict(objective__name="dual", objective__ar_share=0), 64),
        (dict(objective__name="dual", objective__ar_share=1, objective__scored_as="ar"), 1),
    ],
)
def test_every_family_samples_in_its_own_number_of_passes(overrides, passes):
    c = resolved(evaluation__samples=7, **overrides)
    p = planned(c)
    assert planning.work(c, p).samples == pytest.approx(
        7 * passes * p.flops_per_step / 48, rel=FLOAT64
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            dict(
                objective__name="masked", evaluation__final="orders:1024", train__duration="2 steps"
            )
            | dict(model__width=4096, model__layers=32),
            r"evaluation.final='orders:1024': must be of fewer orders or windows: it needs .* FLOPs or "
            r"more, .* times the training itself",
        ),
        (
            dict(objective__name="masked", evaluation__samples=10**9),
            r"evaluation.samples=1000000000: must be at most [\d,]+: it needs .*×10¹⁸ FLOPs or more, "
            r".* times the training itself",
        ),
        (
            dict(objective__name="masked", evaluation__mc_samples=10**12),
            r"evaluation.mc_samples=1000000000000: must be at most",
        ),
        (dict(evaluation__final="orders:1024", train__duration="2 steps"), "^$"),  # it is exact
    ],
)
def test_scores_and_samples_without_end_are_refused_with_their_size(overrides, words):
    assert re.search(words, refusal(None, **overrides))


def test_a_trial_of_two_steps_may_cost_less_than_its_scores():
    two = dict(objective__name="masked", train__duration="2 steps", evaluation__final="orders:8")
    c = resolved(**two)
    w = planning.work(c, planned(c))
    assert w.final + w.further > planning.MOST_TIMES_TRAINING * w.training
    assert refusal(**two) == ""


@pytest.mark.parametrize("unit", ["steps", "tokens", "epochs", "flops"])
@pytest.mark.parametrize("field", ["train.duration", "optimizer.warmup", "evaluation.every"])
def test_a_duration_beyond_all_steps_is_refused(field, unit):
    line = refusal(**{field.replace(".", "__"): f"1e29 {unit}"})
    assert line.startswith(f"config.{field}='1e29 {unit}': must be at most 1,000,000,000 steps")


def test_more_checkpoints_evaluations_or_decay_than_steps_are_refused():
    long = dict(train__duration="1000000 steps", evaluation__every="1000 steps")
    assert refusal(**long) == ""
    line = refusal(**long, train__checkpoint_every="1 steps")
    assert "checkpoint_every='1 steps': must be at least 10 steps: 1,000,000 checkpoints" in line
    often = long | dict(evaluation__every="1 steps", evaluation__interval_growth=1.0)
    assert "evaluation.every='1 steps': must be rarer: the 1,000,000 steps" in refusal(**often)
    wsd = dict(train__duration="100 steps", optimizer__decay="101 steps")
    assert "decay='101 steps': must be at most the 100 steps of the run" in refusal(
        **wsd, optimizer__schedule="wsd"
    )
    assert refusal(**wsd) == ""  # cosine does not read it


# --- bytes --------------------------------------------------------------------------------------


def held(least=False, machine=HERE, **overrides) -> memory.Memory:
    c = resolved(**overrides)
    return planning.bytes_on_device(c, planned(c), machine, least)


def test_the_state_is_what_is_written_out():
    m, n = held(), planned(resolved()).parameters.total
    assert (m.parameters, m.optimizer, m.average, m.best) == (4 * n, 8 * n, 0, 4 * n)
    assert held(optimizer__ema_decay=0.9).average == 4 * n
    assert m.batch == 4 * 16 * 16 * 64
    assert held(least=True).gradients == 4 * n


def test_more_of_anything_takes_no_less_and_the_least_is_below_the_estimate():
    more = {
        "model.layers": 4, "model.width": 256, "data.seq_len": 128, "evaluation.samples": 10_000,
        "evaluation.batch_size": 4096, "train.steps_per_call": 10_000, "optimizer.ema_decay": 0.9,
    }  # fmt: skip
    for name in ("ar", "masked", "block", "gaussian"):
        base = held(objective__name=name).total
        for key, value in more.items():
            overrides = {key.replace(".", "__"): value, "objective__name": name}
            assert held(**overrides).total >= base, key
            assert held(least=True, **overrides).total <= held(**overrides).total
    scan = dict(model__scan=True, model__layers=8, train__microbatches=1)
    kept = [held(model__remat=r, **scan).activations for r in ("none", "dots", "block")]
    assert kept == sorted(kept, reverse=True) and kept[0] > 2 * kept[2]


def test_fsdp_and_data_spread_what_they_split():
    four = Machine(4, 8e9, cpu=True)
    whole, split = held(), held(machine=four, mesh__fsdp=4)
    assert split.parameters == whole.parameters / 4 and split.optimizer == whole.optimizer / 4
    assert held(machine=four).parameters == whole.parameters
    assert held(machine=four).batch == split.batch == whole.batch / 4
    assert held(machine=four).scoring == whole.scoring / 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            dict(model__width=16384, model__layers=10),
            "config.model.width=16384: must be smaller: its 32,192,462,848 take 644 GB with",
        ),
        (dict(model__size="2980m"), "config.model.size='2980m': must be smaller: its "),
        (
            dict(evaluation__batch_size=1_000_000),
            "config.evaluation.batch_size=1000000: must be at most ",
        ),
        (dict(evaluation__samples=10_000_000), "config.evaluation.samples=10000000: must be at most"),
        (
            dict(data__seq_len=16_384, train__batch_size=1, train__microbatches=1,
                 objective__name="masked", evaluation__batch_size=1),
            "config.data.seq_len=16384: must be shorter: it takes at least 4.3 GB beside",
        ),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_by_what_must_be_there(overrides, words):
    small = HERE._replace(memory=4e9)
    line = refusal(small, **overrides)
    assert line.startswith(words) and ("beside the weights" in line or "parameters fit" in line)
    assert refusal(small._replace(memory=math.inf), **overrides) == ""
    # A little less than the least is what stands in the way.
    c = resolved(**overrides)
    least = planning.bytes_on_device(c, planned(c), small, least=True)
    enough = least.state + max(least.gradients, least.activations + least.logits, least.scoring,
                               least.samples, least.batch)  # fmt: skip
    assert refusal(small._replace(memory=enough * 1.001), **overrides) == ""
    assert refusal(small._replace(memory=enough * 0.999), **overrides) != ""


def test_microbatches_are_named_if_more_of_them_would_fit():
    large = dict(train__batch_size=256, train__microbatches=1, model__width=512)
    c = resolved(**large)
    least = planning.bytes_on_device(c, planned(c), HERE, least=True)
    line = refusal(
        HERE._replace(memory=least.state + 0.3 * (least.activations + least.logits)), **large
    )
    assert line.startswith("config.train.microbatches=1: must be at least 4: it takes")


# --- devices ------------------------------------------------------------------------------------


def test_a_mesh_that_the_machine_does_not_have_is_refused():
    line = refusal(mesh__fsdp=2)
    assert line.startswith("config.mesh: data=0 x fsdp=2 x tensor=1 must come to 1, the devices")
    assert refusal(Machine(2, 8e9, cpu=True), mesh__fsdp=2) == ""
    assert "must come to 4" in refusal(Machine(4, 8e9, cpu=True), mesh__data=2)
    gpus = Machine(4, math.inf, cpu=False, whole=False)  # a worker takes as few as it can do with
    assert refusal(gpus, mesh__data=2) == "" and refusal(gpus, mesh__fsdp=8) != ""
    assert refusal(Machine(0, math.inf, cpu=False), mesh__fsdp=8) == ""  # a TPU, seen without JAX


def test_a_sweep_refuses_before_anything_is_built_and_without_jax(tmp_path):
    """In a process of its own: JAX stays out, and the folder empty."""
    path = tiny.experiment_file(tmp_path)
    code = f"""
import json, sys, pathlib
from dlm.cli import main as cli
codes = [cli.main(["run", {str(path)!r}, "--workdir", "runs", "--config." + word])
         for word in ("mesh.fsdp=2", "model.width=1000000000", "train.duration=1e29 steps",
                      "evaluation.mc_samples=1e12")]
print(json.dumps([codes, "jax" in sys.modules, [p.name for p in pathlib.Path("runs").glob("*")]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[2, 2, 2, 2], False, []]
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: config.") for line in lines)


def test_devices_of_a_cpu_are_read_from_where_jax_reads_them(monkeypatch):
    monkeypatch.setattr(machine, "_gpus", list)
    monkeypatch.setattr(machine, "_tpu", lambda: False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=4")
    here = machine.machine()
    assert here.devices == 4 and here.cpu and 0 < here.memory <= memory.host_memory()
    monkeypatch.setenv("XLA_FLAGS", "")
    assert machine.machine().devices == 1
    monkeypatch.setattr(machine, "_gpus", lambda: ["0", "1"])
    assert machine.machine() == Machine(2, math.inf, cpu=False, whole=False)


def test_the_limit_of_a_control_group_counts(tmp_path):
    group = tmp_path / "memory"
    group.mkdir()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("400\n")
    assert set(memory._groups(tmp_path)) == {(1000.0, 400.0)}


def test_runs_at_a_time_that_may_not_fit_together_are_warned_of(tmp_path):
    c = resolved()
    job = Job(c, tmp_path, tmp_path, tiny.INFO, planned(c))
    one = planning.bytes_on_device(c, job.plan, HERE).total
    here = HERE._replace(memory=2.5 * one)
    assert local.memory_warning([job] * 3, 2, here) == ""
    assert local.memory_warning([job], 3, here) == ""
    assert local.memory_warning([job] * 3, 3, here).endswith("are free; --jobs 2 takes less")
    tight = here._replace(memory=0.9 * one)
    assert "runs, 1 at a time, may take" in local.memory_warning([job], 1, tight)
