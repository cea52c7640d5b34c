"""Two runs beside each other: the fields in which their configs differ, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

from dlm.format import fixed, integer, number, scientific, with_error
from dlm.runs.groups import flatten
from dlm.runs.load import Run
from dlm.runs.schema import UNREADABLE

NONE = "-"  # how a field or result that a run has not is shown


class Line(NamedTuple):
    name: str
    first: str
    second: str


def settings(a: Run, b: Run) -> list[Line]:
    """The fields of the configs that differ, in their order there, and the tokens if those differ."""
    first, second = flatten(a.config), flatten(b.config)
    tokens = "tokens (fingerprint)"
    for flat, run in ((first, a), (second, b)):
        corpus = run.start.get("corpus")
        fingerprint = corpus.get("fingerprint") if isinstance(corpus, dict) else None
        flat[tokens] = str(fingerprint)[:12] if fingerprint else NONE
    lines = []
    for name in dict.fromkeys([*first, *second]):
        values = [str(flat.get(name, NONE)) for flat in (first, second)]
        if values[0] != values[1]:
            lines.append(Line(name, *values))
    return lines


def results(a: Run, b: Run) -> list[Line]:
    """What the runs ended in: loss with its error and kind, epochs, compute, and so on."""
    return [
        Line(*cells)
        for cells in zip(RESULTS, _cells(a), _cells(b), strict=True)
        if set(cells[1:]) != {NONE}
    ]


RESULTS = (
    *("status", "validation loss, nats/token", "kind", "training loss, nats/token"),
    *("bits per byte", "best epoch", "epochs", "steps", "tokens", "parameters", "FLOPs", "seconds"),
)


def _cells(run: Run) -> list[str]:
    readable = run.result if run.status != UNREADABLE else {}
    r = {name: value for name, value in readable.items() if value is not None}

    def loss(name: str) -> str:
        value = r.get(f"{name}_loss")
        return with_error(value, r.get(f"{name}_stderr")) if value is not None else ""

    cells = [
        f"{run.status}: {run.reason}" if run.reason else run.status,
        loss("validation"),
        str(r.get("kind", "")),
        loss("train"),
        fixed(r.get("bits_per_byte"), 4),
        *(number(r.get(name)) for name in ("best_epoch", "epochs")),
        *(integer(r.get(name)) for name in ("steps", "tokens", "params")),
        scientific(r.get("flops"), 3),
        number(r.get("seconds")),
    ]
    return [cell or NONE for cell in cells]
