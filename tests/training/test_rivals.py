"""Muon and looped depth through a whole run: trains, and resumes in the same bits."""

from __future__ import annotations

from test_train import assert_same, interrupt, trained

import tiny

RIVAL = dict(optimizer_name="muon", model_loops=2)


def test_a_run_with_muon_and_loops_learns_and_resumes_in_the_same_bits(tiny_store, tmp_path):
    whole = trained(tiny_store, tmp_path / "whole", **RIVAL)
    losses = [row["validation_loss"] for row in tiny.evaluations(whole.folder)]
    assert losses[-1] < losses[0]
    assert interrupt(tiny_store, whole.config, tmp_path / "parts", 10) < 24
    assert_same(trained(tiny_store, tmp_path / "parts", **RIVAL), whole, tiny_store)
