"""The kinds of arguments that the Python API takes: whatever else is given is told in one line."""

# pyright: reportArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlm
import tiny
from dlm import inputs
from dlm.errors import DlmError


@inputs.checked
def take(
    number: float = 0.0,
    count: int = 0,
    text: str = "",
    path: str | Path = "",
    device: str | float = "",
    words: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> None: ...


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DlmError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "right",
    [
        {"number": 3, "count": np.int64(3), "path": Path("x"), "device": 3e10},
        {"number": np.float32(0.5), "words": ["a"], "columns": {"a": "b"}, "device": "h100"},
        {"words": ("a", "b"), "columns": None, "path": "x"},
    ],
)
def test_what_an_annotation_allows_is_taken(right) -> None:
    take(**right)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("number", "1e8", "number='1e8': must be a finite number"),
        ("number", [1e8], "number=[100000000.0]: must be a finite number"),
        ("number", np.ones(2), "must be a finite number"),
        ("number", True, "number=True: must be a finite number"),
        ("number", float("nan"), "number=nan: must be a finite number"),
        ("number", 10**400, "of 401 characters: must be a finite number"),
        ("count", 2.0, "count=2.0: must be a whole number"),
        ("count", False, "count=False: must be a whole number"),
        ("text", None, "text=None: must be a text"),
        ("path", 3, "path=3: must be a path"),
        ("device", None, "device=None: must be a text or a finite number"),
        ("words", "ar", "words='ar': must be a list of words"),
        ("words", ["ar", 3], "must be a list of words"),
        ("columns", ["loss=x"], "columns=['loss=x']: must be a dict from words to words, or None"),
        ("columns", {"loss": 3}, "columns={'loss': 3}: must be a dict"),
    ],
)
def test_another_kind_is_told_with_the_arguments_name(name, wrong, words) -> None:
    assert words in refusal(lambda: take(**{name: wrong}))


def test_every_public_function_checks_its_arguments() -> None:
    functions = [getattr(dlm, name) for name in dlm.__all__]
    functions = [f for f in functions if callable(f) and not isinstance(f, type)]
    functions += [dlm.plot.frontier, dlm.plot.profiles, dlm.Run.model]
    functions += [getattr(dlm.FittedLaw, name) for name in ("predict", "optimal")]
    names = ("log_likelihood", "perplexity", "sample", "validation", "likelihoods")
    functions += [getattr(dlm.Model, name) for name in names]
    assert len(functions) >= 17 and all(hasattr(f, "__wrapped__") for f in functions)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dlm.plan("1e8", flops=1e20), "unique_tokens='1e8'"),
        (lambda: dlm.plan(1e8, flops=[1e20]), "flops=[1e+20]"),
        (lambda: dlm.plan(1e8, flops=1e20, families="ar"), "families='ar': must be a list"),
        (lambda: dlm.plan(1e8, hours=1, device="h100", devices=0), "devices=0: must be"),
        (lambda: dlm.plan(1e8, flops=1e20, mfu=0.4), "mfu=0.4: only with a device"),
        (lambda: dlm.plan(1e8, flops=1e20, resamples=7), "resamples: only of a table"),
        (lambda: dlm.plan(1e8, hours=1, device=-3.0), "device=-3.0: must be"),
        (lambda: dlm.fit([1, 2]), "table=[1, 2]: must be a path or a list of dlm.Run"),
        (lambda: dlm.critical("a", "b", 1e8), "fit_ar='a': must be a dlm.FittedLaw"),
        (lambda: dlm.load(3), "path=3: must be a path"),
        (lambda: dlm.train("x.py", ["a"]), "overrides=['a']: must be a dict"),
        (lambda: dlm.train("x.py", run="1"), "run='1': must be a whole number"),
        (lambda: dlm.objective(3, 4), "name=3: must be a text"),
        (lambda: dlm.ensemble("ab"), "models='ab': must be a list of dlm.Model"),
        (lambda: dlm.plot.frontier("runs"), "group='runs': must be a list of dlm.Run"),
        (lambda: dlm.plot.profiles(3), "fit=3: must be a dlm.FittedLaw"),
    ],
)
def test_each_door_of_the_api_tells_it_before_it_works(call, words) -> None:
    assert words in refusal(call)


def test_a_dual_model_is_scored_the_other_way_and_back() -> None:
    store: Any = None
    model = dlm.Model(tiny.resolved(objective_name="dual"), store, {}, others=())
    pair = dlm.Model(model.config, store, {}, others=(model,))
    exact = pair.scored_as("ar")
    kinds = [m.config.objective.family.kind for m in (pair, exact, *exact.others)]
    assert kinds == ["upper bound", "exact", "exact"]
    assert exact.scored_as("masked").config == model.config
    assert "must be masked or ar" in refusal(lambda: model.scored_as("block"))
    ar = dlm.Model(tiny.resolved(objective_name="ar"), store, {})
    assert "only of a dual run; this is one of ar" in refusal(lambda: ar.scored_as("masked"))


def test_a_kind_that_no_check_knows_is_an_error_of_the_function() -> None:
    def odd(x: dict[int, str]) -> None: ...

    with pytest.raises(KeyError, match="no kind of argument"):
        inputs.checked(odd)
