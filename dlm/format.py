"""Turns numbers and names into text: the one place, for terminal, pages, LaTeX, figures and files.

The rule for numbers: plain with thousands separators from 0.001 to a million, powers of ten beyond.
An interval whose ends share a power of ten writes it once, behind brackets: (4.85 to 9.58)×10¹².
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence

PLAIN = range(-3, 6)  # the powers of ten of numbers written without one
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
JOINED = "\u00a0±\u00a0"  # keeps a value and its error on one line
NUMBER = re.compile(r"[-+]?[\d.,]+(×10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)?%?([ \u00a0]±[ \u00a0][\d.,]+)?")
LONGEST_STEM = 60  # characters, so that a file name stays far below the 255 bytes of file systems


# --- numbers ------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """Writes 1234.5 as 1,234 and 2.5e7 as 2.500×10⁷, in so many significant digits.

    Plain numbers lose the zeros at their end. None gives "", NaN "-", infinity "∞".
    """
    if value is None:
        return ""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    mantissa, exponent = _parts(value, digits)
    return _plain(value, digits) if exponent in PLAIN else f"{mantissa}×{_power(exponent)}"


def scientific(value: float | None, digits: int = 2) -> str:
    """Writes 3.24e12 as 3.2×10¹²: computes, which carry their power of ten unless they are 0."""
    if not value or not math.isfinite(value):
        return number(value)
    mantissa, exponent = _parts(value, digits)
    return f"{mantissa}×{_power(exponent)}"


def between(low: float, high: float, digits: int = 3) -> str:
    """Writes an interval: 31 to 57, (1.18 to 1.24)×10¹², above 72.5.

    An end at 0 or below that is not finite, or at 0, is open, as is an infinite upper end. Two
    infinite ends lie beyond the data. NaN, no interval, gives "-".
    """
    if math.isnan(low) or math.isnan(high):
        return "-"
    if low == math.inf:
        return "beyond the data"
    if low == high:
        return number(low, digits)
    open_below, open_above = low == 0 or math.isinf(low), math.isinf(high)
    if open_below and open_above:
        return "any value"
    if open_above:
        return f"above {number(low, digits)}"
    if open_below:
        return f"below {number(high, digits)}"
    (a, low_power), (b, high_power) = _parts(low, digits), _parts(high, digits)
    if low_power == high_power and low_power not in PLAIN:
        return f"({a} to {b})×{_power(low_power)}"
    return f"{number(low, digits)} to {number(high, digits)}"


def with_error(value: float, error: float | None, sign: bool = False) -> str:
    """Writes a value to the second digit of its standard error: 1.5425 ± 0.0011.

    Four decimals at most, but for an error that they would show as zero. Without an error, or with
    one that is not finite, four decimals and no ±. `sign`: +0.0388.
    """
    decimals, known = 4, error is not None and math.isfinite(error)
    if known and error:
        decimals = min(max(1 - _parts(error, 2)[1], 0), 4 if error >= 5e-5 else 8)
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    return f"{text} ± {error:,.{decimals}f}" if known else text


def fixed(value: float | None, decimals: int) -> str:
    """Writes so many decimals: losses of one column. None gives ""."""
    return "" if value is None else f"{value:,.{decimals}f}"


def integer(value: float | None) -> str:
    """Writes 6400 as 6,400; None gives ""."""
    return fixed(value, 0)


def percent(share: float | None, decimals: int = 0) -> str:
    """Writes 0.25 as 25%; None gives ""."""
    return "" if share is None else f"{share:.{decimals}%}"


def count(value: float, digits: int = 3) -> str:
    """Writes 1.2e8 as 120M, for the axes and titles of figures."""
    if abs(value) >= 1e18:
        return power(value, digits)
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= unit * 0.9995:
            return number(value / unit, digits) + letter
    return tick(value, digits)


def size(amount: float) -> str:
    """Writes 2.47e10 as 24.7 GB: bytes, in powers of a thousand."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if amount >= unit * 0.9995:
            return f"{number(amount / unit, 3)} {letter}B"
    return f"{number(amount / 1e3, 3)} kB"


def duration(seconds: float) -> str:
    """Writes 45 as 45 s, 720 as 12 min, 12,240 as 3.4 hours, 216,000 as 2.5 days."""
    for unit, longest, word in ((1, 90, "s"), (60, 5400, "min"), (3600, 172_800, "hours")):
        if seconds < longest:
            return f"{number(seconds / unit, 2)} {word}"
    return f"{number(seconds / 86_400, 2)} days"


def tick(value: float, digits: int = 3) -> str:
    """Writes 0.25 and 1,000 plainly and 2.5e-7 as 2.5×10⁻⁷: the values of an axis."""
    return (
        power(value, digits)
        if value and _parts(value, digits)[1] not in PLAIN
        else (number(value, digits))
    )


def power(value: float, digits: int = 3) -> str:
    """Writes 1e18 as 10¹⁸ and 2.5e18 as 2.5×10¹⁸, for axes of compute."""
    if not value:
        return "0"
    mantissa, exponent = _parts(value, digits)
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    if abs(float(mantissa)) == 1:
        return mantissa.rstrip("1") + _power(exponent)
    return f"{mantissa}×{_power(exponent)}"


def is_number(text: str) -> bool:
    """Whether a text is one number of this module, maybe with its error: columns of these align."""
    return NUMBER.fullmatch(text) is not None


def _parts(value: float, digits: int) -> tuple[str, int]:
    """The mantissa, rounded to so many digits, and the power of ten behind it."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return mantissa, int(exponent)


def _plain(value: float, digits: int) -> str:
    mantissa, exponent = _parts(value, digits)
    decimals = max(digits - 1 - exponent, 0)
    text = f"{float(f'{mantissa}e{exponent}'):,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


# --- sentences and names ------------------------------------------------------------------------


def sentence(text: str) -> str:
    """The text with a capital first letter, whatever name it begins with."""
    return text[:1].upper() + text[1:]


def shortened(text: str, longest: int = 60) -> str:
    """The text on one line, its middle left out (…) beyond so many characters."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return f"{text[: longest - longest // 3 - 1]}…{text[-(longest // 3) :]}"


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """A file name without its ending for each name: safe on every system, and one of its own.

    Letters and digits of ASCII, "=", "+", "_" and dots within the name stay; all else becomes "-".
    Names that then agree up to case, are cut, or lose every letter carry a hash of the whole name.
    """
    stems = {name: file_stem(name) for name in dict.fromkeys(names)}
    folded = [stem.casefold() for stem in stems.values()]
    return {
        name: stem
        if stem and len(stem) <= LONGEST_STEM and folded.count(stem.casefold()) == 1
        else f"{stem[:LONGEST_STEM].strip('-.') or 'name'}-{_digest(name)}"
        for name, stem in stems.items()
    }


def file_stem(name: str) -> str:
    """A name as part of a file name; "" if no letter of it stays. See `file_stems`."""
    ascii_letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9.=+_]+", "-", ascii_letters)
    return re.sub(r"\.{2,}", ".", kept).strip("-.")


def fit_words(words: Sequence[str], room: int, between: str = " ", gap: str = "") -> str:
    """Words in at most `room` characters: those in the middle give way to `gap`, the last ones stay.

    >>> fit_words("topics masked lr=0.002 layers=4 seed=1".split(), 28, gap="…")
    'topics masked … seed=1'
    """
    whole = between.join(words)
    if len(whole) <= room:
        return whole
    head, tail = [*words[:2], *([gap] if gap else [])], []
    for word in reversed(words[2:]):
        if len(between.join([*head, word, *tail])) > room:
            break
        tail.insert(0, word)
    short = between.join([*head, *tail])
    return short if len(short) <= room else whole[: room - len(gap)] + gap


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


# --- LaTeX --------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}
BACK = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def latex(text: str) -> str:
    """A name as LaTeX prints it, on one line: its special characters escaped."""
    return "".join(LATEX.get(mark, mark) for mark in " ".join(text.split()))


def latex_number(text: str) -> str:
    r"""A number or interval of this module as LaTeX: 1.2×10⁹ becomes $1.2\times10^{9}$."""

    def maths(match: re.Match[str]) -> str:
        mantissa, exponent = match["mantissa"] or "", match["exponent"]
        behind = rf"\times10^{{{exponent.translate(BACK)}}}" if exponent else ""
        return f"${mantissa}{behind}$"

    if text == "-":
        return "--"
    signed = r"(?P<mantissa>-?[\d.,]*\d)?×10(?P<exponent>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)"
    text = re.sub(signed, maths, text)
    text = re.sub(r"(?<![\w$^{-])-(?=[\d∞])", r"$-$", text)
    return text.replace("∞", r"$\infty$").replace("±", r"$\pm$")
