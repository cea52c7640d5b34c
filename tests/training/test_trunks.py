"""Runs that share a trunk end in the bits of runs that do not, and take its steps once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import tiny
from dlm import config
from dlm.config import planning
from dlm.data import windows
from dlm.sweep import local
from dlm.sweep.jobs import Job, ordered
from dlm.training import loop
from dlm.training.prepare import prepare

SETTING = dict(optimizer_schedule="wsd", optimizer_decay="25 percent")


def identity(c: config.Config, store) -> str:
    plan = planning.plan(c, train_tokens=len(store.train), vocab_size=store.vocab_size)
    return config.trunk_id(c, store.fingerprint, plan.warmup, plan.evaluate_every)


def steps_taken(monkeypatch) -> list[int]:
    """Grows by one for every batch that is trained on."""
    taken: list[int] = []
    record = windows.record_exposures

    def recorded(*arguments) -> None:
        taken.append(1)
        record(*arguments)

    monkeypatch.setattr(windows, "record_exposures", recorded)
    return taken


def test_a_branch_ends_in_the_bits_of_a_run_of_its_own(tiny_store, tmp_path, monkeypatch) -> None:
    taken, trunk = steps_taken(monkeypatch), tmp_path / "trunks" / "one"
    costs = []
    for steps in (16, 24, 40):
        c = tiny.resolved(**SETTING, train_duration=f"{steps} steps")
        ends = []
        for name, where in (("alone", None), ("branch", trunk)):
            folder = tmp_path / f"{name}-{steps}"
            folder.mkdir()
            taken.clear()
            outcome = loop.train(prepare(c, tiny_store), folder, trunk=where)
            costs.append(len(taken))
            ends.append((tiny.final_state(c, tiny_store, folder), tiny.evaluations(folder)))
            ends[-1] += (outcome.ledger.tolist(), outcome.progress.best_loss)
        assert tiny.differences(ends[0][0], ends[1][0]) == {}
        assert ends[0][1:] == ends[1][1:]
        rows = [row["step"] for row in tiny.rows(tmp_path / f"branch-{steps}")]
        assert rows == sorted(rows) and rows[-1] == steps
    # 16 decays from 12, 24 from 18, 40 from 30: each goes on where the one before it decayed
    assert costs == [16, 16, 24, 24 - 12, 40, 40 - 18]


def test_a_branch_goes_on_from_its_own_checkpoint_and_never_from_beyond_its_decay(
    tiny_store, tmp_path, monkeypatch
) -> None:
    trunk = tmp_path / "trunk"
    for name in ("long", "short"):
        (tmp_path / name).mkdir()
    long = tiny.resolved(**SETTING, train_duration="40 steps")
    loop.train(prepare(long, tiny_store), tmp_path / "long", trunk=trunk)  # leaves a state at 30
    taken = steps_taken(monkeypatch)
    short = tiny.resolved(**SETTING, train_duration="24 steps")
    outcome = loop.train(prepare(short, tiny_store), tmp_path / "short", trunk=trunk)
    assert len(taken) == 24 and outcome.progress.shared_steps == 0
    taken.clear()
    loop.train(prepare(long, tiny_store), tmp_path / "long", trunk=trunk)
    assert not taken


def test_what_may_share_a_trunk(tiny_store) -> None:
    one = identity(tiny.resolved(**SETTING), tiny_store)
    same = (
        {"train_duration": "99 steps"},
        {"optimizer_decay": "3 steps"},
        {"optimizer_min_lr_ratio": 0.5},
        {"train_steps_per_call": 4},
    )
    other = (
        {"train_seed": 1},
        {"optimizer_lr": 0.1},
        {"optimizer_warmup": "5 steps"},
        {"evaluation_every": "7 steps"},
        {"objective_name": "ar"},
    )
    assert one and all(identity(tiny.resolved(**SETTING | c), tiny_store) == one for c in same)
    assert all(identity(tiny.resolved(**SETTING | c), tiny_store) != one for c in other)
    shuffled = {"data_mode": "multiset", "data_subset": "documents"}
    for c in ({"optimizer_schedule": "cosine"}, SETTING | shuffled):
        assert identity(tiny.resolved(**c), tiny_store) == ""


def test_runs_of_a_trunk_follow_one_another_the_shortest_first(tiny_store, tmp_path) -> None:
    c = tiny.resolved()
    plan = planning.plan(c, train_tokens=len(tiny_store.train), vocab_size=tiny_store.vocab_size)

    def job(name: str, steps: int, trunk: str | None) -> Job:
        long = dataclasses.replace(plan, steps=steps)
        where = Path(trunk) if trunk else None
        return Job(
            c,
            tiny_store.path,
            tmp_path / name,
            dataclasses.replace(tiny.INFO, run_id=name),
            long,
            where,
        )

    jobs = [job("a", 30, "t"), job("b", 20, None), job("c", 10, "t"), job("d", 40, None)]
    assert [j.info.run_id for j in ordered(jobs)] == ["d", "c", "a", "b"]
    waiting = ordered(jobs)
    first = [local._next(waiting, {}, busy) for busy in (set(), set(), {Path("t")}, {Path("t")})]
    assert [j and j.info.run_id for j in first] == ["d", "c", "b", None]
    assert np.all([j.info.run_id == "a" for j in waiting])
