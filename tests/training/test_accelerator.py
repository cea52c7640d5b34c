"""tests/accelerator.py holds together without an accelerator: its losses, its plan, its tables."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import accelerator
import accelerator_heads as heads
import accelerator_profile as profile
import accelerator_steps as steps
import accelerator_table
from dlm import config, objectives
from dlm.config import experiment, flops, planning
from dlm.model import keys
from dlm.training import benchmark
from tolerances import FLOAT64, NATS

# --- cheaper logits -------------------------------------------------------------------------------

VOCAB, WIDTH = 11, 8


def a_model(params, inputs, *, mask, time=None, key=None, hidden=False):
    """Logits of a token from itself and from the mean of all."""
    x = params["embedding"][inputs]
    x = jnp.tanh(x @ params["mix"] + jnp.mean(x, axis=1, keepdims=True))
    return x if hidden else x @ params["embedding"].T


def nats_and_slopes(loss):
    """Of one batch, under one key and one set of weights."""
    rng = np.random.default_rng(0)
    shapes = {"embedding": (VOCAB + 2, WIDTH), "mix": (WIDTH, WIDTH)}
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    tokens = jnp.asarray(rng.integers(0, VOCAB, (8, 16)), jnp.int32)
    draw = keys.key_for(0, "noise")
    return jax.jit(jax.value_and_grad(lambda p: loss(a_model, p, tokens, draw).nats))(params)


@pytest.fixture(scope="module")
def of_the_product():
    return nats_and_slopes(objectives.make(config.objective("masked"), VOCAB).loss)


@pytest.mark.parametrize(
    "name, share",  # room for the masked positions, or not
    [
        ("masked-positions", 0.625),
        ("masked-positions", 0.1),
        ("masked-chunks", 0.625),
        ("masked-both", 0.625),
        ("masked-narrow", 0.625),
        ("masked-aligned", 0.625),
    ],
)
def test_a_loss_with_cheaper_logits_is_the_products(
    monkeypatch, of_the_product, name, share
) -> None:
    monkeypatch.setattr(heads, "CHUNK", 16)
    monkeypatch.setattr(heads, "SHARE", share)
    options = dataclasses.replace(config.objective("masked"), name=name, file="x")
    nats, slopes = nats_and_slopes(heads.make(options, VOCAB)[0])
    assert float(nats) == pytest.approx(float(of_the_product[0]), rel=NATS)
    for leaf, slope in of_the_product[1].items():
        np.testing.assert_allclose(slopes[leaf], slope, rtol=1e-4, atol=1e-3)


# --- profiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, kind",
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NTN", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("gemm_fusion_dot_12", "matrix products"),
        ("dot", "matrix products"),
        ("fusion convolution fusion", "matrix products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7", "attention"),
        ("void cudnn::fusion::compute_dot_do_o_specialized<true, 128>", "attention"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage)", "collectives"),
        ("all-gather-start", "collectives"),
        ("MemcpyD2D", "copies"),
        ("loop_add_fusion_3", "fused loops"),
        ("input_reduce_fusion", "fused loops"),
        ("fusion loop fusion", "fused loops"),
        ("void cub::DeviceSegmentedSortKernel<...>", "other"),
    ],
)
def test_kernels_are_told_apart_by_name(name, kind) -> None:
    assert profile.kernel_class(name) == kind


def test_the_body_of_a_loop_is_counted_once() -> None:
    line = [("while.2", 0.0, 100.0), ("dot.1", 10.0, 30.0), ("copy.4", 50.0, 20.0)]
    other = [("loop_add_fusion", 90.0, 60.0)]
    found = profile.summary([line, other], calls=2, seconds=200e-9)
    ms = {kind: part["ms"] * 2e6 for kind, part in found["classes"].items()}
    assert ms["matrix products"] == pytest.approx(30, rel=FLOAT64) and ms[
        "copies"
    ] == pytest.approx(20, rel=FLOAT64)
    assert ms["other"] == pytest.approx(50, rel=FLOAT64)  # of the loop itself
    assert sum(part["share"] for part in found["classes"].values()) == pytest.approx(1, rel=FLOAT64)
    assert found["idle"] == pytest.approx(0.25, rel=FLOAT64)  # 150 of 200 ns run something
    assert found["kernels"][0]["name"] == "loop_add_fusion"


# --- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_every_cell_is_a_config_of_its_size(platform) -> None:
    cells = accelerator.cells(platform)
    assert [c.name for c in cells[:6]] == ["plain"] * 6
    names = [(c.size, c.family, c.name) for c in cells]
    assert len(set(names)) == len(names)
    for cell in cells:
        asked = accelerator.request(cell, False)
        base, usual = benchmark.sized(asked["size"])
        assert base.model.layers == accelerator.LAYERS[cell.size]
        base.model.dtype, base.model.attention = "bfloat16", "cudnn" if platform == "gpu" else "xla"
        c = experiment.edited(base, steps.complete(asked["changes"]).items())
        vocab_size = asked.get("vocab_size") or usual
        plan = planning.plan(c, train_tokens=64 * c.data.seq_len, vocab_size=vocab_size)
        assert plan.parameters.non_embedding > 90e6
        if "rows" in cell.note:
            assert (vocab_size + c.objective.family.extra_tokens) % 64 == 0
        if "positions" in cell.note:
            assert (c.data.seq_len + c.objective.family.extra_positions) % 64 == 0


class Scripted:
    """In place of the processes: answers in turn, and a log of what was asked."""

    def __init__(self, monkeypatch, answers) -> None:
        self.log: list[str] = []
        self.answers = iter(answers)
        monkeypatch.setattr(accelerator, "start", self.start)
        monkeypatch.setattr(accelerator, "ask", self.ask)
        monkeypatch.setattr(accelerator, "close", lambda process: self.log.append("close"))

    def start(self, log, flags="", **env):
        self.log.append(f"start {flags}".strip())
        return self

    def poll(self):
        return None

    def ask(self, process, patience, **request):
        self.log.append(request["step"])
        return next(self.answers)


ROW = dict(
    vars(benchmark.Speed("100M", "ar", 10**8, 9.0, 1e5, 0.9e5, 1.1e5, 3e14, 7e14, 0.4, 0.0, 2**31,
                         None, None, 1.0)),
    length=2048, batch=16, tokens=32768, dtype="bfloat16",
)  # fmt: skip


def results() -> dict:
    return {
        "date": "2026-01-01T00:00:00", "command": "python x", "rehearsal": True,
        "device": {"kind": "K", "count": 1, "versions": {"jax": "1"}},
        "checks": [{"name": "losses", "holds": False, "found": "much"}],
        "peaks": [dict(dtype="bfloat16", precision="default", rates={"8192": 7e14},
                       measured_peak=6.9e14, table=989e12)],
        "speeds": [], "profiles": [],
    }  # fmt: skip


def test_a_failure_costs_its_own_row_and_time_is_kept(monkeypatch, tmp_path) -> None:
    summary = profile.summary([[("dot", 0.0, 50.0)]], 1, 1e-7)
    answers = [{"result": ROW}, {"result": summary}, {"failed": "out of memory"}]
    answers += [{"result": ROW | {"tokens_per_second": 5e4}}]
    script = Scripted(monkeypatch, answers)
    cells = [accelerator.Cell("100M", "ar"), accelerator.Cell("1B", "ar")]
    cells += [accelerator.Cell("100M", "ar", {"model.remat": "block"}, flags="--flag")]
    cells += [accelerator.Cell("400M", "ar", {"model.scan": False})]
    found = results()
    clock = iter([0.0, 0.0, 20.0, 20.0, 20.0, 50.0, 50.0, 50.0, 70.0, 70.0])
    monkeypatch.setattr(accelerator.time, "monotonic", lambda: next(clock))
    for _ in accelerator.speeds(None, cells, False, tmp_path, 100.0, found):
        pass
    asked = ["start", "speed", "profile", "speed", "close", "start --flag", "speed", "close"]
    assert script.log == asked
    assert [row.get("failed", "")[:10] for row in found["speeds"]] == [
        "", "out of mem", "", "left out: ",
    ]  # fmt: skip
    assert found["profiles"][0]["classes"]["matrix products"]["share"] == 1
    text = accelerator_table.markdown(found)
    assert "| 100M ar | remat=block | 50,000 (90,000 to 110,000) | 0.50 |" in text
    assert "* 1B ar, plain: out of memory" in text and "rehearsal" in text and "BROKEN" in text
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_a_promise_is_judged_and_the_rest_is_only_reported() -> None:
    done = {"result": {"masked": {"folder": "f"}}}
    names = ("cpu", "highest", "float32", "bfloat16", "killed", "deterministic")
    runs = dict.fromkeys(names, done) | {"cudnn": {"failed": "no cuDNN"}}
    runs["deterministic-killed"] = {"failed": "died"}

    def answer(step, a, b):
        if step == "losses":
            return {"result": {"difference": 2e-4, "losses": 16, "where": ""}}
        return {"result": {"leaves": 43, "differ": 2, "largest": 1e-9, "scores_alike": False}}

    found = {c["name"]: c["holds"] for c in accelerator._compared(runs, "gpu", answer)}
    assert list(found.values()) == [False, None, None, None, None, False]
    found = list(accelerator._compared(runs, "cpu", answer))
    assert found[-1]["name"].endswith("against cpu") and found[-1]["holds"] is False


# --- processes ------------------------------------------------------------------------------------


def test_a_process_answers_fails_and_is_ended(tmp_path) -> None:
    for name, loss in (("a", 2.0), ("b", 2.02)):
        (tmp_path / name).mkdir()
        rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": loss}, {"step": 2, "lr": 0.1}]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name / "metrics.jsonl").write_text(text)
    process = accelerator.start(tmp_path / "log.txt", JAX_PLATFORMS="cpu", XLA_FLAGS="")
    folders = {name: str(tmp_path / name) for name in "ab"}
    found = accelerator.ask(process, 100, step="losses", **folders)["result"]
    assert found["difference"] == pytest.approx(0.01, rel=FLOAT64) and found["losses"] == 2
    assert found["where"] == ", in loss at step 2"
    gone = accelerator.ask(process, 100, step="losses", a="nowhere", b="nowhere")
    assert gone["failed"].startswith("FileNotFoundError")
    process.kill()
    assert accelerator.ask(process, 100, step="losses", **folders)["failed"].endswith("-9")
    accelerator.close(process)


def test_patience_ends_a_process(tmp_path) -> None:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", "input(); input()"], stdin=pipe, stdout=pipe)
    assert "without an answer" in accelerator.ask(process, 0, step="x")["failed"]
    assert process.poll() == -9
    accelerator.close(process)


def test_a_row_is_timed_and_profiled(tmp_path) -> None:
    """Here and now, on the CPU: the objective file, the benchmark and the profiler together."""
    cell = accelerator.Cell("100M", "masked", {"objective.name": "masked-chunks"})
    asked = accelerator.request(cell, True)
    asked["changes"] |= {"train.batch_size": 8, "evaluation.batch_size": 8, "model.layers": 1}
    kept: dict = {}
    row = steps.speed(kept, **asked | {"seconds": 0.01})
    assert row["tokens_per_second"] > 0 and row["tokens"] == 8 * 32
    assert row["sampling_tokens_per_second"] is None
    found = steps.profile(kept, str(tmp_path), calls=1)
    assert found["classes"]["matrix products"]["ms"] > 0 and found["calls"] == 1


@pytest.mark.slow  # a minute of one core
def test_the_rehearsal_ends_well(tmp_path, cache) -> None:
    env = os.environ | {"XLA_FLAGS": "", "XDG_CACHE_HOME": str(cache)}
    words = ["--rehearse", "--out", str(tmp_path), "--minutes", "60"]
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, str(Path(accelerator.__file__)), *words],
        env=env,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "accelerator.json").read_text())
    assert 0 < found["seconds"] < time.monotonic() - began
    assert [check["holds"] for check in found["checks"]] == [True, None, True]
    failed = [row["failed"] for row in found["speeds"] if "failed" in row]
    assert len(failed) == 1 and "cudnn needs a GPU" in failed[0]
    assert len(found["profiles"]) == 2
    assert "A rehearsal on a CPU" in (tmp_path / "accelerator.md").read_text()


# --- what a device can do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),  # a slice: to be measured
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("TPU7x", 1153e12),
        ("cpu", None),
    ],
)
def test_the_peak_is_that_of_the_device(kind, peak) -> None:
    assert flops.peak(kind, "bfloat16") == peak
