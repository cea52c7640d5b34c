"""A comparison concludes what the kinds of the two numbers allow, and nothing more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlm.runs.estimate import Estimate, compare, standard_error


def estimate(value: float, kind: str, stderr: float = 0.01) -> Estimate:
    return Estimate(value, stderr, kind, 1000)


# a below b by far; (kind of a, kind of b) -> which is proven better
PROVEN = {
    ("exact", "exact"): "first",
    ("upper bound", "exact"): "first",
    ("exact", "upper bound"): "",
    ("upper bound", "upper bound"): "",
    ("upper bound", "lower bound"): "first",
    ("exact", "lower bound"): "first",
    ("lower bound", "exact"): "",
    ("lower bound", "lower bound"): "",
}


@pytest.mark.parametrize(("kinds", "proven"), PROVEN.items())
def test_only_what_is_never_below_under_what_is_never_above_proves_anything(kinds, proven):
    a, b = estimate(1.0, kinds[0]), estimate(1.5, kinds[1])
    there, back = compare(a, b), compare(b, a)
    assert there.proven == proven
    assert back.proven == ("second" if proven else "")
    assert there.difference == -back.difference == -0.5
    assert ("proves nothing" in there.conclusion) == (not proven)
    assert there.conclusion.startswith("not decided") == (not proven)


def test_a_difference_within_two_standard_errors_is_not_one():
    a, b = estimate(1.0, "upper bound", 0.03), estimate(1.08, "exact", 0.04)
    assert compare(a, b).stderr == pytest.approx(0.05)
    assert compare(a, b).proven == ""
    assert compare(a, b, 0.039).proven == "first"  # paired: smaller
    assert compare(a, a).proven == ""


def test_unknown_standard_error_takes_the_values_as_they_are():
    a, b = estimate(1.0, "exact", math.nan), estimate(1.1, "exact", math.nan)
    assert compare(a, b).proven == "first" and math.isnan(compare(a, b).stderr)


def test_names_stand_in_the_conclusion_and_kinds_are_checked():
    a, b = estimate(1.0, "upper bound"), estimate(1.5, "exact")
    text = compare(a, b, names=("diffusion", "AR")).conclusion
    assert text.startswith("diffusion is better on this data, by at least 0.5000")
    with pytest.raises(ValueError, match="guess"):
        compare(a, estimate(1.0, "guess"))


def test_the_standard_error_is_over_documents_and_over_windows_if_there_is_one():
    values = np.repeat([1.0, 2.0, 4.0], 2)  # windows of a document agree: three values, not six
    of_three = np.array([1.0, 2.0, 4.0]).std(ddof=1) / math.sqrt(3)
    assert standard_error(values, np.repeat([7, 3, 5], 2)) == pytest.approx(of_three)
    of_six = values.std(ddof=1) / math.sqrt(6)
    assert standard_error(values) == pytest.approx(of_six)
    assert standard_error(values, np.zeros(6, int)) == pytest.approx(of_six)  # not zero
