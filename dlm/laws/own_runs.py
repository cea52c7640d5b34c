"""Reads dlm's own runs for the laws: from folders and from runs.csv or runs.parquet alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlm import runs
from dlm.errors import DlmError
from dlm.laws import rows as reading
from dlm.laws.rows import Gathered
from dlm.laws.sheet import Sheet

# The columns by which dlm's own table is recognised, and those that the laws read from it.
RECOGNISED_BY = ("objective", "fingerprint", "validation_loss")
NEEDED = (
    *RECOGNISED_BY,
    *("run", "label", "status", "reason", "corpus", "seq_len", "unique_tokens", "tokens", "params"),
    *("flops", "best_flops", "last_validation_loss"),
)
COUNTS = ("params", "unique_tokens", "tokens", "flops", "best_flops")
WITHIN = "finished, but this loss lies within the first epoch"


def is_own(sheet: Sheet) -> bool:
    return all(name in sheet.titles for name in RECOGNISED_BY)


def read_records(sheet: Sheet) -> list[dict[str, Any]]:
    """The rows of runs.csv or runs.parquet as `dlm.runs.rows` gives them.

    Raises:
      DlmError: a column is missing or doubled, or a cell cannot be read.
    """
    for name in NEEDED:
        if sheet.titles.count(name) != 1:
            problem = "no column" if name not in sheet.titles else "two columns"
            raise DlmError(
                f"{sheet.name}: a table of dlm's runs with {problem} {name}; write it again with "
                "dlm runs FOLDER"
            )
    known = {name: sheet.titles.index(name) for name in runs.COLUMNS if name in sheet.titles}
    losses = [reading.text(v) for v in sheet.column(known["validation_loss"])]
    comma = reading.decimal_comma(losses)
    records = []
    for number, cells in sheet.rows:
        record: dict[str, Any] = dict.fromkeys(runs.COLUMNS)
        for name, at in known.items():
            where = f"{sheet.name}, row {number}: {name}"
            record[name] = _value(cells[at], runs.COLUMNS[name], comma, where)
        records.append(record)
    return records


def _value(cell: Any, kind: type, comma: bool, where: str) -> Any:
    """A cell as `dlm.runs.rows` gives it; None if it is empty or not finite."""
    text = reading.text(cell)
    if kind is str or not text:
        return runs.unsafe(text) or None
    try:
        value = reading.number(cell, comma)
    except ValueError:
        raise DlmError(f"{where}={text!r}: no number") from None
    return None if not math.isfinite(value) else round(value) if kind is int else value


def gather(
    records: Sequence[Mapping[str, Any]], points: str, curves: Sequence[runs.Curve] = ()
) -> Gathered:
    """The runs of records, as `dlm.runs.rows` gives them, in the form that laws are fitted to.

    `points`: best, last, or with the curve of each record curve; see `dlm.laws.table.read`.
    """
    gathered = Gathered()
    families = families_of(records)
    counted: set[str] = set()
    twice = 0
    for i, (record, family) in enumerate(zip(records, families, strict=True)):
        run = str(record["run"] or f"row {i}")  # of everything that determines the result
        label = str(record["label"] or run)
        if record["status"] != "finished":
            reason = f"status {record['status']}: {record['reason'] or 'no reason was recorded'}"
            gathered.excluded.append((family, label, reason))
            continue
        if missing := [name for name in COUNTS if not (record[name] or 0) > 0]:
            gathered.excluded.append((family, label, f"no {missing[0]}"))
            continue
        unique = record["unique_tokens"]
        each = _points(record, points, curves[i] if curves else None)
        measured = [p for p in each if p[1] is not None and math.isfinite(p[1])]
        later = [p for p in measured if p[0] >= unique * (1 - 1e-6)]
        if not later:
            gathered.excluded.append((family, label, WITHIN if measured else "no loss"))
            continue
        if run in counted:
            twice += 1
            continue
        counted.add(run)
        if gaps := record["gaps"]:
            gathered.notes.append(f"{label}: {gaps}")
        about = {"family": family, "group": run, "label": label, "source": ""}
        about |= {"params": record["params"], "unique_tokens": unique}
        about |= {"loops": record["loops"] or 1.0}  # an older run has no such setting
        about |= {"looped_params": record["params_non_embedding"] or record["params"]}
        gathered.rows += [
            about | {"tokens": tokens, "loss": loss, "flops": flops}
            for tokens, loss, flops in later
        ]
    if twice:
        gathered.notes.append(
            f"{reading.count(twice, 'run')} there more than once, by the same id: counted once"
        )
    return gathered


def _points(
    record: Mapping[str, Any], points: str, curve: runs.Curve | None
) -> list[tuple[float, float, float]]:
    """Tokens, loss and FLOPs of each point of a run."""
    if points == "curve":
        assert curve is not None
        return list(zip(curve.tokens, curve.validation_loss, curve.flops, strict=True))
    if points == "last":
        return [(record["tokens"], record["last_validation_loss"], record["flops"])]
    return [(runs.best_tokens(record), record["validation_loss"], record["best_flops"])]


def families_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The objective of each record, with its data before it if the finished runs are on several.

    Losses on different data make no one law: another corpus, another fingerprint of it, another
    sequence length or another kind of subset. Unique tokens may differ.
    """
    data = [runs.data_of(record) for record in records]
    finished = dict.fromkeys(
        d for d, record in zip(data, records, strict=True) if record["status"] == "finished"
    )
    names = _short(list(finished))
    families = []
    for d, record in zip(data, records, strict=True):
        near = [names[other] for other in finished if other[0] == d[0]]
        name = names.get(d, near[0] if len(near) == 1 else str(d[0] or "unknown"))
        objective = runs.family_of(record["objective"] or "unknown", record.get("kind"))
        families.append(f"{name}/{objective}" if len(finished) > 1 else objective)
    return families


def _short(data: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """A name of each: its corpus, and of the rest what tells it from others of that corpus."""
    names = {d: str(d[0] or "unknown") for d in data}
    for form in ("L={2}", "{3}", "{1:.6}"):
        longer = {d: f"{names[d]} {form.format(*(str(v or 'unknown') for v in d))}" for d in data}
        for corpus in {d[0] for d in data}:
            same = [d for d in data if d[0] == corpus]
            if len({longer[d] for d in same}) > len({names[d] for d in same}):
                names |= {d: longer[d] for d in same}
    return names
