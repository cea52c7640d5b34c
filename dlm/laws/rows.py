"""Reads the rows of any sheet as runs: which are left out and why, which are one run, which family."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlm.errors import DlmError
from dlm.laws import columns
from dlm.laws.sheet import Sheet

FINISHED = ("finished", "completed", "complete", "done", "success", "succeeded", "successful", "ok")
UNFINISHED = (
    *("crashed", "crash", "failed", "failure", "fail", "killed", "running", "diverged", "oom"),
    *("out", "node", "not", "in", "unfinished", "incomplete", "unreadable", "pending", "queued"),
    *("preempted", "preempting", "cancelled", "canceled", "timeout", "error", "errored"),
    *("aborted", "interrupted", "started", "new", "nan", "invalid"),
)  # first words: out of memory, node fail, not finished, in progress
BLANK = ("", "-", "--", "–", "—", "na", "n/a", "none", "null", "<na>", "?")
FEW = 12  # words that a column of families has at most
NUMBERS = (
    *("params", "tokens", "unique_tokens", "epochs", "loss", "flops", "budget", "loops"),
    "looped_params",
)
INDEX = ("", "unnamed0", "index", "indexlevel0")  # plain titles of a column that numbers the rows


@dataclass
class Gathered:
    """Runs as rows of one form; `excluded`: family, label and reason of each row left out.

    Each row has params, tokens, unique_tokens, loss, flops (numbers), family, group, label, source, and
    maybe budget, loops and looped_params (numbers).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(sheet: Sheet, chosen: Mapping[str, str]) -> Gathered:
    """The runs of a sheet; `chosen`: the columns that a user names, by meaning.

    Raises:
      DlmError: a column that is missing, doubled or unclear, or a cell that cannot be read.
    """
    if not sheet.rows:
        raise DlmError(f"{sheet.name}: has no rows")
    places = columns.match(sheet.name, sheet.titles, chosen)
    comma = decimal_comma([text(v) for v in sheet.column(places["loss"])])
    gathered = Gathered()
    if "family" not in places and "family" not in chosen:
        places |= _family(sheet, places, gathered.notes)
    _refuse_unknown_status(sheet, places)
    numbers = [places[m] for m in NUMBERS if m in places]
    others = [i for i in _content_columns(sheet) if i not in numbers]
    keys = []  # what two rows of one run agree in
    assumed = {"unique_tokens": 0, "flops": 0, "loops": 0}
    for place, cells in sheet.rows:
        words = {m: text(cells[i]) for m, i in places.items() if m not in NUMBERS}
        values, reason = _numbers(sheet, place, cells, places, comma)
        if (status := words.get("status", "")) and not _is_finished(status):
            reason = f"status {status}"
        own = words.get("name") or words.get("run") or ""
        family = words.get("family") or "all"
        if reason:
            label = f"row {place}, {own}" if own else f"row {place}"
            gathered.excluded.append((family, label, reason))
            continue
        for name, count in assumed.items():
            assumed[name] = count + (name not in values)
        values.setdefault("unique_tokens", values["tokens"])
        values.setdefault("loops", 1.0)
        looped = values.setdefault("looped_params", values["params"])
        passed = values["params"] + (values["loops"] - 1) * looped  # parameters that a token passes
        values.setdefault("flops", 6 * passed * values["tokens"])
        about = {"family": family, "source": words.get("source", ""), "label": own or str(place)}
        gathered.rows.append(values | about | {"group": _group(words, values, place)})
        keys.append((*values.values(), *(text(cells[i]) for i in others)))
    gathered.rows = _distinct(gathered, keys)
    gathered.notes += _nearly_one_name(row["family"] for row in gathered.rows)
    gathered.notes += _notes(sheet, places, assumed, comma)
    return gathered


def _content_columns(sheet: Sheet) -> list[int]:
    """The columns with content: all but those that only number the rows."""
    return [i for i, t in enumerate(sheet.titles) if columns.plain(t) not in INDEX]


def _group(words: Mapping[str, str], values: Mapping[str, float], place: int) -> str:
    """The key of a run: its run id, or else its name, size and, if data repeat, its unique tokens.

    A name may be that of a model, with several sizes or data sets.
    """
    if words.get("run") or not words.get("name"):
        return words.get("run") or str(place)
    again = values["tokens"] > values["unique_tokens"]
    data = f"{values['unique_tokens']:g}" if again else ""
    return f"{words['name']} {values['params']:g} {data}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def text(value: Any) -> str:
    """A cell as text; "" if it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip()


def decimal_comma(losses: Sequence[str]) -> bool:
    """True if a table writes 5,46 for 5.46: no loss is a thousand nats."""
    written = any(re.fullmatch(r"\d+,\d+(e[+-]?\d+)?", loss.lower()) for loss in losses)
    return written and not any("." in loss for loss in losses)


def number(value: Any, comma: bool = False) -> float:
    """A cell as a number: 1e9, 1_000, "1,000,000", "1 000", and with `comma` 1.000.000 and 5,46.

    Raises:
      ValueError: it is none.
    """
    if isinstance(value, bool):
        raise ValueError(value)
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, OverflowError):
            raise ValueError(value) from None
    value = re.sub(r"(?<=\d)[\s_'’](?=\d{3}(?!\d))", "", value.strip())
    if comma:
        if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?", value):
            value = value.replace(".", "")
        value = value.replace(",", ".")
    elif re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", value):
        value = value.replace(",", "")
    elif re.fullmatch(r"[+-]?\d{1,3}(\.\d{3}){2,}", value):
        value = value.replace(".", "")
    return float(value)


def _numbers(
    sheet: Sheet, row: int, cells: Sequence[Any], places: Mapping[str, int], comma: bool
) -> tuple[dict[str, float], str]:
    """The finite numbers of a row, and why it cannot be used, or "".

    Raises:
      DlmError: a count that is text.
    """
    values: dict[str, float] = {}
    reasons = {}
    for meaning in NUMBERS:
        if meaning not in places:
            continue
        cell = cells[places[meaning]]
        if text(cell).lower() in BLANK:
            reasons[meaning] = f"no {meaning}"
            continue
        try:
            values[meaning] = number(cell, comma)
        except ValueError:
            shown = text(cell) if len(text(cell)) <= 40 else f"{text(cell)[:37]}..."
            reasons[meaning] = f"{meaning} is {shown!r}, no number"
            continue
        if not math.isfinite(values[meaning]):
            reasons[meaning] = f"{meaning} is {values.pop(meaning)}"
    if [text(cell) for cell in cells] == list(sheet.titles):
        return values, "the titles again"
    if "loss" in reasons:
        return values, reasons["loss"]
    for reason in reasons.values():
        if reason.endswith("no number"):
            raise DlmError(f"{sheet.name}, row {row}: {reason}; give raw counts, such as 7e6")
    epochs = values.pop("epochs", None)
    if epochs is not None and "tokens" in values:
        if epochs <= 0:
            raise DlmError(f"{sheet.name}, row {row}: epochs={epochs:g}: must be above 0")
        values["unique_tokens"] = values["tokens"] / max(epochs, 1.0)
    return values, reasons.get("params") or reasons.get("tokens") or ""


def _is_finished(status: str) -> bool | None:
    """None: the word is not known."""
    word = re.split(r"[^a-z]+", status.lower().strip())[0]
    return True if word in FINISHED else False if word in UNFINISHED else None


def _refuse_unknown_status(sheet: Sheet, places: Mapping[str, int]) -> None:
    if "status" not in places:
        return
    words = [text(v) for v in sheet.column(places["status"])]
    title = sheet.titles[places["status"]]
    unknown = [w for w in words if w and w != title and _is_finished(w) is None]
    if unknown:
        raise DlmError(
            f"{sheet.name}: {title} is {unknown[0]!r} in {count(unknown.count(unknown[0]), 'row')}: "
            "not known as finished or not; write finished or failed, or read every row with "
            "--columns status="
        )


def _family(sheet: Sheet, places: Mapping[str, int], notes: list[str]) -> dict[str, int]:
    """The column that holds families under another title, if there is one.

    It has few words, each of them at several sizes. A word of one size is the name of a model.
    """
    family_columns = []
    sizes = [text(v) for v in sheet.column(places["params"])]
    for i, title in enumerate(sheet.titles):
        if i in places.values() or columns.plain(title) not in columns.MAYBE_FAMILY:
            continue
        words = [text(v) for v in sheet.column(i)]
        by: dict[str, set[str]] = {word: set() for word in words}
        for word, size in zip(words, sizes, strict=True):
            by[word].add(size)
        of_families = any(len(s) > 1 for s in by.values()) or len(set(sizes)) == 1
        if len(by) < 2 or not of_families:
            continue
        if len(by) > FEW or len(words) < 3 * len(by):
            raise DlmError(
                f"{sheet.name}: {title} has {len(by)} words in {len(words)} rows: families? fit each "
                f"with --columns family={title}, or all rows together with --columns family="
            )
        family_columns.append(i)
    if len(family_columns) > 1:
        raise columns.two(sheet.name, "family", [sheet.titles[i] for i in family_columns])
    if not family_columns:
        return {}
    at = family_columns[0]
    families = columns.listed(list(dict.fromkeys(text(v) for v in sheet.column(at))))
    notes.append(f"column {sheet.titles[at]} is taken for the family ({families})")
    return {"family": at}


def _distinct(gathered: Gathered, keys: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """The rows without those that repeat another, and notes of how many there were."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, row in zip(keys, gathered.rows, strict=True):
        first.setdefault(key, row)
    rows = list(first.values())
    if twice := len(gathered.rows) - len(rows):
        gathered.notes.append(
            f"{count(twice, 'row')} the same as another in every column: one run, counted once; "
            f"{count(len(rows), 'run')} left"
        )
    alike = [tuple(row[k] for k in (*NUMBERS, "family") if k in row) for row in rows]
    if again := len(alike) - len(set(alike)):
        gathered.notes.append(
            f"{count(again, 'row')} with the numbers of another row but other words: counted as given"
        )
    return rows


def _nearly_one_name(families: Iterable[str]) -> list[str]:
    """A note of families whose names differ in case or spaces alone."""
    names: dict[str, str] = {}
    notes = []
    for family in dict.fromkeys(families):
        other = names.setdefault("".join(family.lower().split()), family)
        if other != family:
            notes.append(f"families {other} and {family} are fitted apart: one name each?")
    return notes


def _notes(
    sheet: Sheet, places: Mapping[str, int], assumed: Mapping[str, int], comma: bool
) -> list[str]:
    notes = ["commas are read as decimal points"] if comma else []
    if "epochs" in places:
        notes.append("no column unique_tokens: they are taken as tokens / epochs")
    elif "unique_tokens" not in places:
        notes.append("no column unique_tokens: every run is taken as one epoch over fresh tokens")
    for meaning, titles, how in (
        ("unique_tokens", ("unique_tokens", "epochs"), "one epoch"),
        ("flops", ("flops",), "6 x params x tokens"),
        ("loops", ("loops",), "1"),
    ):
        if assumed[meaning] and not places.keys().isdisjoint(titles):
            notes.append(
                f"{meaning} has no number in {count(assumed[meaning], 'row')}: taken as {how}"
            )
    unused = [i for i in _content_columns(sheet) if i not in places.values()]
    if unused:
        notes.append(f"columns not used: {columns.listed([sheet.titles[i] for i in unused])}")
    return notes + _pooled(sheet, [*unused, *(places[m] for m in ("source",) if m in places)])


def _pooled(sheet: Sheet, unused: Sequence[int]) -> list[str]:
    """A note of the columns of few words that are not used, as rows that differ there share a law."""
    pooled = {}
    for i in unused:
        words = [text(v) for v in sheet.column(i)]
        kinds = list(dict.fromkeys(words))
        if 2 <= len(kinds) <= min(FEW, len(words) // 3) and not all(map(_numeric, kinds)):
            pooled[sheet.titles[i]] = f"{sheet.titles[i]} ({columns.listed(kinds)})"
    if not pooled:
        return []
    more = f" and {len(pooled) - 4} other columns" if len(pooled) > 4 else ""
    return [
        f"rows that differ in {', '.join(list(pooled.values())[:4])}{more} are fitted together; "
        f"--columns family={columns.quoted(next(iter(pooled)))} fits each by itself"
    ]


def _numeric(word: str) -> bool:
    try:
        number(word)
    except ValueError:
        return not word
    return True
