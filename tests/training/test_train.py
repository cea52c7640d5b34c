"""One loop: resumes in the same bits, on any number of devices, and stops when it should."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tiny
from dlm import config, runs
from dlm.config import flops, planning
from dlm.data import windows
from dlm.errors import DlmError
from dlm.evaluation import sampling, score
from dlm.model import sharding
from dlm.runs import bucket
from dlm.runs import folder as run_folder
from dlm.training import checkpoint, loop, metrics, optimizer, run, step
from dlm.training.prepare import prepare
from dlm.training.prepare import score as score_splits
from fake_runs import bare_result
from places import TESTS
from tolerances import FORMULA, GRADIENTS, NATS, TRAINED, assert_close


@dataclasses.dataclass
class Trained:
    config: config.Config
    folder: Path
    outcome: loop.Outcome

    @property
    def numbers(self) -> dict:
        return tiny.timeless(dataclasses.asdict(self.outcome.progress))


def trained(store, folder: Path, **overrides) -> Trained:
    c = tiny.resolved(**overrides)
    return Trained(c, folder, loop.train(prepare(c, store), folder))


def interrupt(store, c: config.Config, folder: Path, at: int) -> int:
    """Trains until a report says step `at` or later, then asks to stop; returns the step saved."""
    seen = [0]
    with pytest.raises(loop.Interrupted):
        loop.train(
            prepare(c, store),
            folder,
            stop=lambda: seen[-1] >= at,
            report=lambda r: seen.append(r["step"]),
        )
    with tiny.checkpoints(c, store, folder) as checkpoints:
        return checkpoints.steps()[-1]


def assert_same(a: Trained, b: Trained, store) -> None:
    """Bit for bit: parameters, optimizer, average, best weights, ledger, losses, evaluations."""
    assert a.numbers == b.numbers
    assert np.array_equal(a.outcome.ledger, b.outcome.ledger)
    assert tiny.evaluations(a.folder) == tiny.evaluations(b.folder)
    states = [tiny.final_state(x.config, store, x.folder) for x in (a, b)]
    assert tiny.differences(*states) == {}
    for x, y in zip(jax.tree.leaves(a.outcome.best), jax.tree.leaves(b.outcome.best), strict=True):
        assert np.array_equal(x, y)


@pytest.fixture(scope="module")
def whole(tiny_store, tmp_path_factory) -> Trained:
    """A run of 24 steps that nobody disturbed."""
    return trained(tiny_store, tmp_path_factory.mktemp("whole"))


# --- what a run leaves ----------------------------------------------------------------------------


def test_a_run_learns_and_its_ledger_is_exact(whole: Trained) -> None:
    losses = [row["validation_loss"] for row in tiny.evaluations(whole.folder)]
    assert losses[-1] < losses[0]
    assert [row["step"] for row in tiny.evaluations(whole.folder)] == [8, 16, 24]
    assert whole.outcome.ledger.sum() == 24 * 8 * 16
    assert set(whole.outcome.ledger.tolist()) == {6 * 16}  # six epochs of 32 windows
    steps = [row["step"] for row in tiny.rows(whole.folder)]
    assert steps == sorted(steps) and steps[-1] == 24


def test_a_training_row_says_where_it_is_and_what_it_cost(whole: Trained, tiny_store) -> None:
    plan = planning.plan(whole.config, train_tokens=len(tiny_store.train), vocab_size=16)
    for row in tiny.rows(whole.folder):
        assert row["tokens"] == row["step"] * 8 * 16
        assert row["epoch"] == row["tokens"] / 512
        assert row["flops"] == row["step"] * plan.flops_per_step
    last = [row for row in tiny.rows(whole.folder) if "loss" in row][-1]
    assert {"grad_norm", "lr", "tokens_per_second", "mfu", "seconds"} <= last.keys()
    assert last["mfu"] is None or 0 < last["mfu"] <= 1


def test_nothing_that_follows_the_scores_costs_a_run_its_result(
    whole, tiny_store, tmp_path, monkeypatch
) -> None:
    """A peak read too low, and samples, TensorBoard and a bucket that fail: each is a warning."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(score, "device_peak", lambda dtype: 1.0)
        patch.setattr(sampling, "sample", broken)
        patch.setattr(bucket, "send", broken)
        patch.setattr("tensorboard.summary.writer.event_file_writer.EventFileWriter", broken)
        rows: list[dict] = []
        result = run.train_and_score(
            whole.config, tiny_store, tmp_path, tiny.INFO, report=rows.append
        )
    phases = [row for row in rows if "phase" in row]
    assert list(dict.fromkeys(row["phase"] for row in phases)) == ["final score", "samples"]
    assert [row["share"] for row in phases].count(0.0) == 2 and phases[-2]["share"] > 0
    done = [row["work"] for row in phases]
    planned = planning.work(whole.config, prepare(whole.config, tiny_store).plan)
    assert done == sorted(done) and done[0] == planned.training + planned.tracked
    assert done[-1] == planned.training + planned.after - planned.samples
    assert result.status == "finished" and result.mfu is None
    assert len(result.warnings) == 3
    for words, text in zip(("MFU", "no samples", "written"), result.warnings, strict=True):
        assert words in text
    written = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert written["warnings"] == result.warnings
    assert tiny.rows(tmp_path)[-1]["step"] == 24
    assert all(row["mfu"] is None for row in tiny.rows(tmp_path) if "mfu" in row)
    assert tiny.evaluations(tmp_path) == tiny.evaluations(whole.folder)
    (record_of,) = runs.load(tmp_path)
    assert record_of.status == "finished"
    assert "no samples: RuntimeError: planted" in runs.rows([record_of])[0]["warnings"]


def test_a_run_is_prepared_once(tiny_store, tmp_path, monkeypatch) -> None:
    """From the start to the final scores: one plan, and the held-out windows gathered once."""
    calls: list[str] = []

    def count(module, name: str) -> None:
        actual = getattr(module, name)

        def counted(*arguments, **named):
            calls.append(name)
            return actual(*arguments, **named)

        monkeypatch.setattr(module, name, counted)

    count(planning, "plan")
    count(windows, "validation_windows")
    c = tiny.resolved(train_duration="16 steps", evaluation_samples=0)
    result = run.train_and_score(c, tiny_store, tmp_path, tiny.INFO)
    assert calls == ["plan", "validation_windows"]
    assert len(tiny.evaluations(tmp_path)) == 2
    assert run_folder.read_result(tmp_path) == result
    assert run_folder.read_start(tmp_path).plan.steps == 16
    again = prepare(c, tiny_store)
    assert again.tracked_windows.validation.tokens is again.tracked_windows.validation.tokens


def test_a_result_that_is_there_is_not_turned_into_a_failure(tmp_path) -> None:
    c = tiny.resolved()
    for status, kept in (("finished", True), ("diverged", True), ("failed", False)):
        result = bare_result(c, tiny.INFO, status=status, reason="before")
        run_folder.finish(tmp_path, result)
        with pytest.raises(OSError), run.recorded(tmp_path, c, tiny.INFO):
            raise OSError("a peer died after the result was written")
        reason = json.loads((tmp_path / "result.json").read_text())["reason"]
        assert (reason == "before") is kept


@pytest.mark.parametrize(
    ("rate", "peak", "share"), [(1.0, 4.0, 0.25), (4.0, 4.0, 1.0), (4.3, 4.0, None), (1, 0, None)]
)
def test_a_share_above_the_peak_is_unknown(rate, peak, share) -> None:
    assert flops.utilisation(rate, peak) == share


# --- interruption ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 16])  # before and after a checkpoint; between two: see below
def test_interrupted_and_resumed_is_the_same_bit_for_bit(whole, tiny_store, tmp_path, at) -> None:
    step_saved = interrupt(tiny_store, whole.config, tmp_path, at)
    assert at <= step_saved < 24
    assert_same(trained(tiny_store, tmp_path), whole, tiny_store)


def test_interrupted_at_every_opportunity(whole, tiny_store, tmp_path) -> None:
    for at in (3, 12, 18):
        interrupt(tiny_store, whole.config, tmp_path, at)
    assert_same(trained(tiny_store, tmp_path), whole, tiny_store)


@pytest.mark.parametrize("at", [0, 10, 12])  # before any step, between two saves, where one is due
def test_a_stop_right_after_a_resume_trains_and_saves_nothing(
    whole, tiny_store, tmp_path, monkeypatch, at
) -> None:
    saved = interrupt(tiny_store, whole.config, tmp_path, at) if at else None
    rows = tiny.rows(tmp_path) if at else []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *a, **b: pytest.fail("saved a step twice"))
        for _ in range(2):
            with pytest.raises(loop.Interrupted):
                loop.train(
                    prepare(whole.config, tiny_store), tmp_path, stop=lambda: True,
                    report=lambda row: pytest.fail(f"trained: {row}"),
                )  # fmt: skip
    with tiny.checkpoints(whole.config, tiny_store, tmp_path) as checkpoints:
        assert checkpoints.steps()[-1:] == ([saved] if saved else [])
    assert (tiny.rows(tmp_path) if at else []) == rows
    assert_same(trained(tiny_store, tmp_path), whole, tiny_store)


MULTISET = dict(data_mode="multiset", data_subset="documents")


def test_multiset_mode_resumes_in_the_same_bits(tiny_store, tmp_path) -> None:
    one = trained(tiny_store, tmp_path / "one", **MULTISET)
    c = tiny.resolved(**MULTISET)
    interrupt(tiny_store, c, tmp_path / "two", 10)
    two = trained(tiny_store, tmp_path / "two", **MULTISET)
    assert_same(one, two, tiny_store)
    assert one.outcome.ledger.sum() == 24 * 8 * 16


def test_a_run_that_is_over_stays_over(whole, tiny_store) -> None:
    """Killed after its last checkpoint, before its result: the same command adds no step."""
    again = Trained(
        whole.config, whole.folder, loop.train(prepare(whole.config, tiny_store), whole.folder)
    )
    assert_same(again, whole, tiny_store)


# --- devices and kills ----------------------------------------------------------------------------

# Begins the experiment file: kills the process in the middle of its 5th call of the compiled step,
# once a checkpoint is on the disk.
KILLER = """
import os, signal, time
from pathlib import Path
from dlm.data import windows

record = windows.record_exposures
calls = []

def record_and_die(*arguments):
    record(*arguments)
    calls.append(1)
    if len(calls) == 14:
        while not [*Path({folder!r}).glob("**/checkpoints/*/SHA256SUMS")]:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

windows.record_exposures = record_and_die
"""


@pytest.fixture(scope="module")
def processes(whole, tiny_store, tmp_path_factory, cache, callers_flags) -> Path:
    """The folder in which processes with one device have worked: see one_device.py.

    They compile as a user's do: bits are promised of that, not of conftest's flags.
    """
    own = {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache), "XLA_FLAGS": callers_flags}
    environment = os.environ | own
    workdir = tmp_path_factory.mktemp("processes")
    killed = workdir / "killed"
    plain = tiny.EXPERIMENT
    path = tiny.experiment_file(workdir, plain + KILLER.replace("{folder!r}", repr(str(killed))))
    command = [sys.executable, "-m", "dlm", "train", str(path), "--workdir", str(killed)]
    died = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not list(killed.glob("tiny_experiment/*/result.json"))
    tiny.experiment_file(workdir, plain)
    interrupt(tiny_store, whole.config, workdir / "half-on-8", 10)
    script = TESTS / "one_device.py"
    done = subprocess.run(
        [sys.executable, str(script), str(workdir)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return workdir


def only_run(folder: Path) -> Path:
    (found,) = folder.glob("tiny_experiment/*/result.json")
    return found.parent


def assert_same_runs(a: Path, b: Path, store) -> None:
    assert tiny.result(a)["status"] == "finished"
    assert tiny.result(a) == tiny.result(b)
    assert tiny.evaluations(a) == tiny.evaluations(b)
    for name in ("ledger.npy", "nll.npy", "samples.npy"):
        assert np.array_equal(np.load(a / name), np.load(b / name)), name
    c = tiny.resolved()
    assert tiny.differences(*(tiny.final_state(c, store, folder) for folder in (a, b))) == {}


def test_steps_per_call_moves_no_bit(processes, tiny_store) -> None:
    """One step in a call against eight, or four where an evaluation or a checkpoint is due."""
    folders = (only_run(processes / name) for name in ("undisturbed", "calls-of-8"))
    assert_same_runs(*folders, tiny_store)


def test_killed_and_run_again_is_the_same_bit_for_bit(processes, tiny_store) -> None:
    killed, undisturbed = (only_run(processes / name) for name in ("killed", "undisturbed"))
    assert_same_runs(killed, undisturbed, tiny_store)
    steps = [row["step"] for row in tiny.rows(killed) if "validation_loss" in row]
    assert steps == [8, 16, 24]  # rows after the checkpoint were dropped, then redone


def test_one_device_agrees_with_eight(processes, whole) -> None:
    one = tiny.evaluations(only_run(processes / "undisturbed"))
    eight = tiny.evaluations(whole.folder)
    for name in ("validation_loss", "train_eval_loss"):
        a, b = ([row[name] for row in rows] for rows in (one, eight))
        np.testing.assert_allclose(a, b, rtol=TRAINED, err_msg=name)
    (ledger,) = {tuple(np.load(only_run(processes / "undisturbed") / "ledger.npy").tolist())}
    assert ledger == tuple(whole.outcome.ledger.tolist())


def test_a_checkpoint_moves_between_device_counts(processes, whole, tiny_store) -> None:
    """Restored on another number of devices, every leaf is the same, and the run goes on."""
    eight = tiny.final_state(whole.config, tiny_store, processes / "half-on-8")
    with np.load(processes / "half-on-8.npz") as file:  # as one device read it
        assert tiny.differences(dict(file), eight) == {}
    last = tiny.evaluations(whole.folder)[-1]
    back = trained(tiny_store, processes / "half-on-1")  # begun by one device
    for folder in (processes / "moved-to-1", back.folder):
        row = tiny.evaluations(folder)[-1]
        assert row["step"] == 24
        assert row["validation_loss"] == pytest.approx(last["validation_loss"], rel=TRAINED)
    assert np.array_equal(back.outcome.ledger, whole.outcome.ledger)


def test_the_batch_lies_on_all_devices(tiny_store) -> None:
    c = tiny.resolved()
    mesh = sharding.make_mesh(c)
    placed = sharding.put_batch(mesh, np.zeros((3, 8, 16), np.int32), axis=1, size=8)
    assert len(placed.sharding.device_set) == 8
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 1, 16)}


def test_a_batch_must_divide_over_the_devices(tiny_store, tmp_path) -> None:
    c = tiny.resolved(train_batch_size=9)
    with pytest.raises(DlmError, match="config.train.batch_size=9: must be a multiple of 8"):
        loop.train(prepare(c, tiny_store), tmp_path)


def test_sharded_parameters_train_to_the_same_loss(whole, tiny_store, tmp_path, capfd) -> None:
    c = tiny.resolved(mesh_fsdp=2, mesh_tensor=2)
    assert interrupt(tiny_store, c, tmp_path, 8) == 8
    (row,), first = tiny.evaluations(tmp_path), tiny.evaluations(whole.folder)[0]
    assert row["validation_loss"] == pytest.approx(first["validation_loss"], rel=TRAINED)
    specs = {leaf.sharding.spec for leaf in jax.tree.leaves(step.abstract(c, 16, mesh_of(c)))}
    assert len(specs) > 3
    assert "full rematerialization" not in capfd.readouterr().err  # XLA moves no activations


def test_a_state_that_is_too_large_for_one_device_is_split_over_all(tiny_store, tmp_path) -> None:
    """fsdp=8: of parameters, both Adam moments and the average each device holds an eighth."""
    wide = dict(model_width=64, model_ff=128, model_heads=2)
    c = tiny.resolved(mesh_fsdp=8, model_scan=True, model_layers=2, **wide)
    state = step.build(c, 16, mesh_of(c)).init(jax.random.key(0))
    leaves = jax.tree.leaves(state)
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    assert here < sum(leaf.nbytes for leaf in leaves) / 7.5  # norms and counters are on each
    assert interrupt(tiny_store, c, tmp_path, 8) == 8
    one = tiny.resolved(model_scan=True, model_layers=2, **wide)
    assert interrupt(tiny_store, one, tmp_path / "data", 8) == 8
    rows = [tiny.evaluations(folder)[0] for folder in (tmp_path, tmp_path / "data")]
    assert rows[0]["validation_loss"] == pytest.approx(rows[1]["validation_loss"], rel=TRAINED)


# --- microbatches ---------------------------------------------------------------------------------


def taken(store, tokens: np.ndarray, **overrides) -> tuple[dict, float, float]:
    """State, loss and gradient norm after one step on one device."""
    c = tiny.resolved(train_duration="8 steps", **overrides)
    kinds = (jax.sharding.AxisType.Auto,) * 3
    axes = ("data", "fsdp", "tensor")
    mesh = jax.make_mesh((1, 1, 1), axes, axis_types=kinds, devices=jax.devices()[:1])
    steps = step.build(c, store.vocab_size, mesh)
    plan = planning.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
    hyper = optimizer.hyper(c.optimizer, plan)
    state = steps.init(jax.random.key(0))
    state, loss, norm = steps.train_steps(state, tokens[None], 1, hyper, jax.random.key(1))
    return state, float(loss[0]), float(norm[0])


@pytest.mark.parametrize("parts", [2, 8])
def test_microbatches_change_nothing_but_rounding(tiny_store, parts) -> None:
    """With masks, times and dropout: a sequence draws the same noise in any part of its batch."""
    tokens = np.random.default_rng(0).integers(0, 16, (8, 16)).astype(np.int32)
    dropped = {"model_dropout.residual": 0.2, "model_dropout.attention": 0.1}
    whole = taken(tiny_store, tokens, **dropped, train_microbatches=1)
    split = taken(tiny_store, tokens, **dropped, train_microbatches=parts)
    assert split[1:] == pytest.approx(whole[1:], rel=GRADIENTS)
    for a, b in zip(jax.tree.leaves(whole[0]), jax.tree.leaves(split[0]), strict=True):
        assert_close(b, a, GRADIENTS)


def test_microbatches_must_divide_the_batch(tiny_store, tmp_path) -> None:
    with pytest.raises(DlmError, match="config.train.microbatches=3: must be a divisor of .*=8"):
        tiny.resolved(train_microbatches=3)
    c = tiny.resolved(train_microbatches=2)
    with pytest.raises(
        DlmError, match="multiple of 16, mesh.data x mesh.fsdp x train.microbatches"
    ):
        loop.train(prepare(c, tiny_store), tmp_path)


def mesh_of(c: config.Config) -> jax.sharding.Mesh:
    return sharding.make_mesh(c)


# --- when to stop ---------------------------------------------------------------------------------


def test_a_diverging_run_is_marked_and_stops(tiny_store, tmp_path) -> None:
    c = tiny.resolved(optimizer_lr=9, optimizer_warmup="1 steps", evaluation_divergence_factor=1.5)
    result = run.train_and_score(c, tiny_store, tmp_path, tiny.INFO)
    assert result.status == "diverged" and "nats/token" in result.reason
    assert result.steps < 24 and result.validation_loss is None
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "diverged"
    steps = result.steps
    (tmp_path / "result.json").unlink()  # killed just before it was written
    again = run.train_and_score(c, tiny_store, tmp_path, tiny.INFO)
    assert again.status == "diverged" and again.steps == steps


def test_a_loss_that_is_no_number_is_marked_as_diverged(tiny_store, tmp_path) -> None:
    c = tiny.resolved()
    c = dataclasses.replace(c, optimizer=dataclasses.replace(c.optimizer, lr=1e30))
    result = run.train_and_score(c, tiny_store, tmp_path, tiny.INFO)
    assert result.status == "diverged" and result.steps < 24
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)


OVERFIT = dict(objective_name="ar", optimizer_lr=0.1, train_duration="60 steps", data_unique_tokens=128,
               evaluation_every="1 steps")  # fmt: skip


@pytest.fixture(scope="module")
def overfit(tiny_store, tmp_path_factory) -> Trained:
    """8 windows again and again: validation turns, and patience ends the run."""
    folder = tmp_path_factory.mktemp("overfit")
    return trained(tiny_store, folder, evaluation_patience=3, **OVERFIT)


def test_patience_stops_a_run_that_no_longer_improves(overfit) -> None:
    losses = [row["validation_loss"] for row in tiny.evaluations(overfit.folder)]
    assert len(losses) < 60
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3  # three evaluations without a better one
    progress = overfit.outcome.progress
    assert progress.best_step == best + 1 and progress.best_loss == min(losses)
    assert progress.last_loss == losses[-1]


def test_a_run_that_patience_ended_stays_ended(overfit, tiny_store) -> None:
    before = overfit.numbers
    after = loop.train(prepare(overfit.config, tiny_store), overfit.folder).progress
    assert tiny.timeless(dataclasses.asdict(after)) == before


def test_the_best_weights_are_those_of_the_best_evaluation(overfit, tiny_store) -> None:
    c = overfit.config
    scored, _ = score_splits(prepare(c, tiny_store), overfit.outcome.best, final=True)
    best = overfit.outcome.progress.best_loss
    assert scored.estimate.value == pytest.approx(best, rel=NATS)
    assert scored.estimate.value < overfit.outcome.progress.last_loss
    state = tiny.final_state(c, tiny_store, overfit.folder)
    for path, leaf in jax.tree.leaves_with_path(overfit.outcome.best):
        name = jax.tree_util.keystr(path)
        assert np.array_equal(state[f"['best']{name}"], leaf)
        assert not np.array_equal(state[f"['state']['params']{name}"], leaf)


def test_training_loss_is_below_validation_where_few_windows_repeat(overfit) -> None:
    last = tiny.evaluations(overfit.folder)[-1]
    assert last["train_eval_loss"] < last["validation_loss"] - 0.1  # the memorisation gap


# --- metrics --------------------------------------------------------------------------------------


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def test_tensorboard_shows_the_same_numbers(whole) -> None:
    board = events(whole.folder)
    shown = {tag: {e.step: e.value for e in board.Scalars(tag)} for tag in board.Tags()["scalars"]}
    recorded = {row["step"]: row["validation_loss"] for row in tiny.evaluations(whole.folder)}
    assert shown["validation/loss"].keys() == recorded.keys()
    for at, value in recorded.items():
        assert shown["validation/loss"][at] == pytest.approx(value, rel=FORMULA)
    assert {"run/loss", "run/lr", "run/grad_norm", "run/tokens_per_second"} <= shown.keys()


def test_tensorboard_has_hparams_and_text(tmp_path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    log = metrics.Metrics(tmp_path, metrics.hparams(tiny.resolved()))
    log.write({"step": 1, "loss": 2.0, "kind": "exact", "bits_per_byte": None})
    log.close()
    metrics.write_text(tmp_path, "samples", "two\nlines")
    board = events(tmp_path)
    assert board.Tags()["scalars"] == ["run/loss"]
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert content.plugin_name == "hparams"
    start = plugin_data_pb2.HParamsPluginData.FromString(content.content).session_start_info
    assert start.hparams["model.width"].number_value == 16
    assert start.hparams["objective.name"].string_value == "masked"
    assert start.hparams["model.tied"].bool_value is True
    assert board.SummaryMetadata("samples").plugin_data.plugin_name == "text"
    assert board.Tensors("samples")[0].tensor_proto.string_val == [b"two\nlines"]


def test_a_resumed_record_forgets_what_comes_after_its_checkpoint(tmp_path) -> None:
    log = metrics.Metrics(tmp_path, {}, 0)
    for at in (1, 2, 3):
        log.write({"step": at, "loss": float(at)})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    log = metrics.Metrics(tmp_path, {}, 2)
    log.write({"step": 3, "loss": 30.0})
    log.close()
    assert [(r["step"], r["loss"]) for r in tiny.rows(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("run/loss")] == [
        (1, 1.0), (2, 2.0), (3, 30.0)
    ]  # fmt: skip


def logged(folder: Path, steps: int) -> metrics.Metrics:
    log = metrics.Metrics(folder, {})
    for at in range(1, steps + 1):
        log.write({"step": at, "loss": float(at)})
    log.close()
    return log


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines, ""),
        (lambda lines: [*lines, '{"step": 6, "lo'], ""),  # cut short by a kill
        (lambda lines: lines[2:], "2 of the 4 rows up to step 4"),
        (lambda lines: lines[:1], "1 of the 4 rows up to step 4"),
        (lambda lines: None, r"0 of the 4 rows .*\(the file was missing\)"),
        (
            lambda lines: [lines[0], "rubbish\n", *lines[2:]],
            r"3 of .*\(line 2 is not a JSON object with a step\)",
        ),
        (
            lambda lines: ['{"loss": 1}\n', *lines[1:]],
            r"3 of .*\(line 1 is not a JSON object with a step\)",
        ),
        (
            lambda lines: ['{"step": "1"}\n', *lines[1:]],
            r"3 of .*\(line 1 is not a JSON object with a step\)",
        ),
        (lambda lines: [lines[0].replace("1.0", "7.0"), *lines[1:]], "some of .*were changed"),
    ],
)
def test_rows_that_a_record_lacks_are_told_when_it_is_opened_again(tmp_path, damage, words) -> None:
    written = logged(tmp_path, 4).written
    path = tmp_path / "metrics.jsonl"
    lines = damage([*path.read_text().splitlines(keepends=True), '{"step": 5, "loss": 5.0}\n'])
    path.unlink() if lines is None else path.write_text("".join(lines))
    log = metrics.Metrics(tmp_path, {}, 4, written)
    log.write({"step": 5, "loss": 50.0})
    log.close()
    assert re.search(words, log.gap) if words else not log.gap
    assert tiny.rows(tmp_path)[-1] == {"step": 5, "loss": 50.0}
    again = metrics.Metrics(tmp_path, {}, 5, log.written)  # a gap is told once
    again.close()
    assert again.gap == "" and again.written == log.written


def test_a_run_resumed_without_its_record_tells_what_its_curve_lacks(
    whole, tiny_store, tmp_path
) -> None:
    at = interrupt(tiny_store, whole.config, tmp_path, 10)
    (tmp_path / "metrics.jsonl").unlink()
    result = run.train_and_score(whole.config, tiny_store, tmp_path, tiny.INFO)
    (gap,) = result.gaps
    assert re.match(rf"metrics.jsonl: 0 of the \d+ rows up to step {at},", gap)
    assert gap in result.warnings
    assert result.last_validation_loss == whole.outcome.progress.last_loss  # nothing else lost
    (loaded,) = runs.load(tmp_path)
    assert loaded.status == "finished" and loaded.gaps == [gap]
    assert runs.rows([loaded])[0]["gaps"] == gap


# --- a disk that is full --------------------------------------------------------------------------


def test_a_failing_checkpoint_ends_the_run_at_once(
    whole, tiny_store, tmp_path, monkeypatch
) -> None:
    """The error comes out; nothing hangs, and what was saved before is still good."""
    at = interrupt(tiny_store, whole.config, tmp_path, 5)

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(OSError, match="No space left"):
            loop.train(prepare(whole.config, tiny_store), tmp_path)
    with tiny.checkpoints(whole.config, tiny_store, tmp_path) as checkpoints:
        assert checkpoints.steps() == [at]
    assert_same(trained(tiny_store, tmp_path), whole, tiny_store)


def test_a_save_that_fails_in_the_background_comes_out_at_the_end(tmp_path) -> None:
    with pytest.raises(Exception, match=r"create|directory|exist|NOT_FOUND"):  # noqa: SIM117
        with checkpoint.open_checkpoints(tmp_path / "c", "a run") as checkpoints:
            checkpoint.save(checkpoints, {"step": 1}, np.zeros(1), state={"w": np.ones(1_000_000)})
            shutil.rmtree(tmp_path / "c", ignore_errors=True)
            (tmp_path / "c").write_text("")  # where the folder was
