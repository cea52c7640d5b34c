"""Numbers and names as text: one table of each kind."""

from __future__ import annotations

import math

import pytest

from dlm import format as text

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value, digits, words", [
    (None, 4, ""), (NAN, 4, "-"), (INF, 4, "∞"), (-INF, 4, "-∞"), (0, 4, "0"),
    (0.32991, 4, "0.3299"), (1234.5, 4, "1,234"), (12, 4, "12"), (-0.5, 4, "-0.5"),
    (1320, 3, "1,320"), (13_245, 3, "13,200"), (999_999.9, 4, "1.000×10⁶"), (0.001, 4, "0.001"),
    (0.00012345, 4, "1.234×10⁻⁴"), (2.5e7, 4, "2.500×10⁷"), (-3.1e-9, 2, "-3.1×10⁻⁹"),
    (9.99, 2, "10"), (0.5, 3, "0.5"),
])  # fmt: skip
def test_numbers(value, digits, words):
    assert text.number(value, digits) == words


@pytest.mark.parametrize("value, digits, words", [
    (3.24e12, 2, "3.2×10¹²"), (9.96e11, 2, "1.0×10¹²"), (5, 2, "5.0×10⁰"), (None, 2, ""),
    (0, 2, "0"), (0.0, 3, "0"),
])  # fmt: skip
def test_computes_carry_their_power_of_ten(value, digits, words):
    assert text.scientific(value, digits) == words


@pytest.mark.parametrize("low, high, words", [
    (1.0, 2.0, "1 to 2"), (0.0, 2.0, "below 2"), (1.0, INF, "above 1"), (0.0, INF, "any value"),
    (NAN, NAN, "-"), (INF, INF, "beyond the data"), (-INF, 2e9, "below 2.00×10⁹"),
    (-0.31, 0.5, "-0.31 to 0.5"), (1180, 1320, "1,180 to 1,320"),
    (1.18e12, 1.24e12, "(1.18 to 1.24)×10¹²"), (4.85e12, 9.58e12, "(4.85 to 9.58)×10¹²"),
    (9e11, 1.2e12, "9.00×10¹¹ to 1.20×10¹²"), (9e11, INF, "above 9.00×10¹¹"),
    (9.999e11, 1.2e12, "(1.00 to 1.20)×10¹²"), (1320, 2.5e7, "1,320 to 2.50×10⁷"),
    (1e8, 1e8, "1.00×10⁸"),
])  # fmt: skip
def test_an_interval_never_loses_a_power_of_ten(low, high, words):
    assert text.between(low, high) == words


@pytest.mark.parametrize("value, error, sign, words", [
    (1.54251, 0.00112, False, "1.5425 ± 0.0011"), (1.5425, 0.023, False, "1.542 ± 0.023"),
    (0.03881, 0.00823, True, "+0.0388 ± 0.0082"), (1.5, None, False, "1.5000"),
    (1.5, NAN, False, "1.5000"), (1.5, 0.0, False, "1.5000 ± 0.0000"),
    (2.116158, 0.00096, False, "2.1162 ± 0.0010"),
    (1.5, 3.14e-6, False, "1.5000000 ± 0.0000031"),
    (1523.4, 61.2, False, "1,523 ± 61"), (1.0, 0.0996, False, "1.00 ± 0.10"),
])  # fmt: skip
def test_an_error_decides_the_decimals(value, error, sign, words):
    assert text.with_error(value, error, sign) == words


@pytest.mark.parametrize("value, words", [
    (1.2e8, "120M"), (999.6, "1K"), (1600, "1.6K"), (9.9996e11, "1T"), (640, "640"), (0.5, "0.5"),
    (2.5e13, "25T"), (3e19, "3×10¹⁹"), (2e15, "2,000T"), (123_456, "123K"),
])  # fmt: skip
def test_counts(value, words):
    assert text.count(value) == words


def test_powers_for_axes():
    assert [text.power(v) for v in (1e18, 2e18, 2.5e18, 1.05e-3, -1e-7, 0)] == [
        *("10¹⁸", "2×10¹⁸", "2.5×10¹⁸", "1.05×10⁻³", "-10⁻⁷", "0"),
    ]


def test_integers_and_sentences():
    assert [text.integer(v) for v in (6400, 1e6, None)] == ["6,400", "1,000,000", ""]
    assert text.sentence("masked diffusion passes") == "Masked diffusion passes"
    assert text.sentence("") == "" and text.sentence("AR turns") == "AR turns"
    assert text.shortened("a\nb") == "a b"
    long = text.shortened("a" * 200 + "end")
    assert len(long) == 60 and long.endswith("end") and "…" in long


NAMES = [
    *("wd0.1", "wd0.5", "wd0.9", "digits/masked", "digits-masked", "AR", "ar", "..", "../../etc"),
    *(
        "",
        " ",
        "a b",
        "a$b_{c}",
        "日本",
        "日本語",
        "Größe",
        "CON",
        "x" * 300,
        "x" * 299 + "y",
        ".hidden",
    ),
    *("lr=1e-3", "a\x00b", "a\nb", "tail.", "tail"),
]


def test_each_name_has_a_file_name_of_its_own():
    stems = text.file_stems(NAMES)
    assert list(stems) == NAMES
    assert len({stem.casefold() for stem in stems.values()}) == len(NAMES)
    for stem in stems.values():
        assert stem.isascii() and 0 < len(stem) <= 70 and ".." not in stem
        assert not set(stem) & set('/\\:*?"<>| $\x00\n') and stem[0] not in ".-" and stem[-1] != "."
    assert [stems[f"wd0.{k}"] for k in (1, 5, 9)] == ["wd0.1", "wd0.5", "wd0.9"]
    assert text.file_stems(["digits/masked"]) == {"digits/masked": "digits-masked"}
    assert text.file_stems(NAMES[::-1]) == stems  # not by the order in which they come


@pytest.mark.parametrize("name, words", [
    ("ar_small", r"ar\_small"), ("50% & more", r"50\% \& more"), ("$x$ #1 {a}", r"\$x\$ \#1 \{a\}"),
    ("a~b^c\\d", r"a\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"), ("a\nb", "a b"),
])  # fmt: skip
def test_names_in_latex(name, words):
    assert text.latex(name) == words


@pytest.mark.parametrize("plain, words", [
    ("1.2×10⁹", r"$1.2\times10^{9}$"), ("-3.1×10⁻⁹", r"$-3.1\times10^{-9}$"), ("-0.5", "$-$0.5"),
    ("(4.85 to 9.58)×10¹²", r"(4.85 to 9.58)$\times10^{12}$"), ("above 72.5", "above 72.5"),
    ("9.00×10¹¹ to 1.20×10¹²", r"$9.00\times10^{11}$ to $1.20\times10^{12}$"), ("-", "--"),
    ("1,320", "1,320"), ("∞", r"$\infty$"), ("1.54 ± 0.12", r"1.54 $\pm$ 0.12"),
    ("-0.31 to 0.5", "$-$0.31 to 0.5"),
])  # fmt: skip
def test_numbers_in_latex(plain, words):
    assert text.latex_number(plain) == words
