"""No test of float32 has a tolerance of its own: it is taken from the table of tests/tolerances.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from places import TESTS

NAMES = {"rtol", "atol", "rel", "abs"}
COMPARISONS = {"approx", "allclose", "isclose", "assert_allclose"}
ROUGH = 1e-4  # from here on a tolerance is about the matter, and not about rounding


def fine(node: ast.AST) -> bool:
    """Whether a number below ROUGH is written in it."""
    numbers = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return any(isinstance(n, float) and 0 < n < ROUGH for n in numbers)


def own(tree: ast.AST) -> Iterator[int]:
    """Lines with a tolerance below ROUGH in digits, or with the default of NumPy or pytest."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            named = [k for k in node.keywords if k.arg in NAMES]
            if any(fine(k.value) for k in named) or (function in COMPARISONS and not named):
                yield node.lineno
        elif isinstance(node, ast.Compare):
            below = (ast.Lt, ast.LtE)
            pairs = zip(node.ops, node.comparators, strict=True)
            if any(isinstance(op, below) and fine(right) for op, right in pairs):
                yield node.lineno


def modules(tree: ast.AST) -> set[str]:
    """The packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("text, refused", [
    ("assert_allclose(a, b, rtol=2e-6)", True),
    ("assert_allclose(a, b)", True),  # 1e-7: less than one rounding
    ("assert x == approx(y)", True),  # 1e-6: eight
    ("assert abs(x - 1) < 1e-5", True),
    ("assert abs(x - 1) < LIMIT * error + 2e-5", True),
    ("assert x == approx(y, rel=NATS)", False),
    ("assert abs(x - 1) < 0.02 and 1e-5 < error and x.min() > 1e-6", False),
])  # fmt: skip
def test_a_tolerance_of_its_own_is_found(text, refused):
    assert bool(list(own(ast.parse(text)))) == refused


def test_float32_is_compared_by_the_table():
    trees = {p.name: ast.parse(p.read_text()) for p in TESTS.rglob("*.py")}
    float32 = [name for name, tree in trees.items() if modules(tree) & {"jax", "tiny"}]
    assert {"test_continuum.py", "test_train.py"} <= set(float32)
    places = [f"{name}:{line}" for name in float32 for line in own(trees[name])]
    assert places == []
