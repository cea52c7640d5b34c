"""A table of runs as arrays: read from CSV, Parquet or folders of runs, checked, nothing dropped
unseen.

Columns: params (N), tokens (D, all that were trained on, repeats included), unique_tokens (U), loss
(nats per token, natural logarithm); optional: family, flops, run or else name (rows that share
it are one run's checkpoints, and are resampled together), source, status, budget (a number that the
rows of one isoFLOP curve share). All counts are raw counts.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlm import runs
from dlm.errors import DlmError, nearest

NEEDED = ("params", "tokens", "loss")
OPTIONAL = ("unique_tokens", "family", "flops", "run", "name", "source", "status", "budget")
# What a run directory calls them, and short names that tables use.
ALIASES = {
    "objective": "family",
    "validation_loss": "loss",
    "N": "params",
    "D": "tokens",
    "U": "unique_tokens",
}
POINTS = ("best", "last", "curve")
SMALLEST = {"params": 2e3, "tokens": 1e3, "unique_tokens": 1e3}  # of the largest in a column
LARGEST_LOSS = 1e3  # nats per token: e^1000 symbols
MIXED = 1e7  # the largest ratio within one column of counts that is taken as one unit


@dataclass(frozen=True, eq=False)
class Table:
    """Runs of one family, [R] each; `group` numbers what is resampled together."""

    name: str
    family: str
    N: np.ndarray
    D: np.ndarray
    U: np.ndarray
    loss: np.ndarray
    flops: np.ndarray
    group: np.ndarray
    labels: tuple[str, ...]
    source: str  # the common prefix of the source column, or ""
    excluded: tuple[tuple[str, str], ...] = ()  # label and reason
    notes: tuple[str, ...] = ()
    budget: np.ndarray | None = None  # the isoFLOP budget of each row, NaN: of none

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def epochs(self) -> np.ndarray:
        return self.D / self.U

    @property
    def groups(self) -> int:
        return len(np.unique(self.group))

    def only(self, rows: np.ndarray, why: str = "") -> Table:
        """The rows of a mask [R]; `why` names the rule in the list of what was left out."""
        rows = np.asarray(rows, bool)
        left = tuple((self.labels[i], why) for i in np.flatnonzero(~rows)) if why else ()
        picked = {k: getattr(self, k)[rows] for k in ("N", "D", "U", "loss", "flops", "group")}
        picked["budget"] = None if self.budget is None else self.budget[rows]
        labels = tuple(np.array(self.labels, object)[rows])
        return dataclasses.replace(self, **picked, labels=labels, excluded=self.excluded + left)


def make(
    params: Any,
    tokens: Any,
    unique_tokens: Any,
    loss: Any,
    *,
    family: str = "all",
    name: str = "table",
    run: Any = None,
    flops: Any = None,
    labels: Any = None,
    source: str = "",
    raw: bool = False,
) -> Table:
    """A table from arrays; `run` groups rows, flops default to 6ND. `raw`: counts are known to be.

    Raises:
      DlmError: a number that cannot be one, or a mix of units.
    """
    N, D, U, L = (np.array(v, float).ravel() for v in (params, tokens, unique_tokens, loss))
    if len({len(N), len(D), len(U), len(L)}) > 1:
        raise DlmError(f"{name}: columns of {len(N)}, {len(D)}, {len(U)} and {len(L)} rows")
    named = [str(i) for i in range(len(L))] if labels is None else [str(v) for v in labels]
    where = [f"{name}, row {label}" for label in named]
    for column, values in (("params", N), ("tokens", D), ("unique_tokens", U)):
        for i in np.flatnonzero(~(np.isfinite(values) & (values > 0))):
            raise DlmError(f"{where[i]}: {column}={values[i]:g}: must be a positive number")
        if not raw:
            _units(name, column, values)
    C = 6 * N * D if flops is None else np.array(flops, float).ravel()
    for i in np.flatnonzero(~(np.isfinite(C) & (C > 0))):
        raise DlmError(f"{where[i]}: flops={C[i]:g}: must be a positive number")
    for i in np.flatnonzero(~((L > 0) & (L < LARGEST_LOSS))):
        raise DlmError(f"{where[i]}: loss={L[i]:g}: must be above 0, in nats per token")
    for i in np.flatnonzero(U * (1 - 1e-6) > D):
        raise DlmError(
            f"{where[i]}: {D[i] / U[i]:.3g} epochs (tokens={D[i]:g} below unique_tokens={U[i]:g}): "
            "tokens are all that were trained on, unique_tokens those of them that differ"
        )
    groups = np.array(named if run is None else [str(v) for v in run])
    return Table(
        name=name,
        family=family,
        N=N,
        D=D,
        U=np.minimum(U, D),
        loss=L,
        flops=C,
        group=np.unique(groups, return_inverse=True)[1],
        labels=tuple(named),
        source=source,
    )


def _units(name: str, column: str, values: np.ndarray) -> None:
    if not len(values):
        return
    if values.max() / values.min() > MIXED:
        raise DlmError(
            f"{name}: {column} runs from {values.min():g} to {values.max():g}: mixed units? "
            "give raw counts in every row"
        )
    parts = (values != np.round(values)).mean() > 0.1 and values.max() < 1e6
    if values.max() < SMALLEST[column] or parts:
        raise DlmError(
            f"{name}: {column} is at most {values.max():g}{', with fractions' if parts else ''}: "
            "give raw counts, not thousands, millions or billions"
        )


def alike(values: Any, tolerance: float = 0.03) -> list[np.ndarray]:
    """Indices of values that agree within a factor of exp(tolerance), from the lowest up."""
    values = np.log(np.asarray(values, float))
    found: list[list[int]] = []
    for i in np.argsort(values, kind="stable"):
        if found and values[i] - values[found[-1][0]] <= tolerance:
            found[-1].append(int(i))
        else:
            found.append([int(i)])
    return [np.sort(rows) for rows in found]


def unique_budgets(tables: Iterable[Table]) -> list[float]:
    """The numbers of unique tokens that were trained on, raw; nearly equal ones count as one."""
    every = np.concatenate([np.zeros(0), *(t.U for t in tables)])
    return [float(np.median(every[rows])) for rows in alike(every)]


def with_unique(t: Table, unique_tokens: float) -> Table:
    return t.only(np.abs(np.log(t.U / unique_tokens)) < 0.03)


def settings(t: Table) -> dict[str, Table]:
    """The rows by what their labels say beside the seed and what all of them say."""
    words = [[w for w in label.split() if not w.startswith("seed=")] for label in t.labels]
    common = set.intersection(*(set(w) for w in words))
    names = np.array([" ".join(w for w in label if w not in common) or "base" for label in words])
    return {str(name): t.only(names == name) for name in dict.fromkeys(names)}


def read(path: Path | str, *, points: str = "best") -> list[Table]:
    """One table per family of a CSV or Parquet file, or of a folder of runs.

    Of a folder, `points` picks a run's numbers: best (the best weights, at the tokens that they had
    seen; whole validation split), last (the last tracked loss, at all tokens) or curve (every
    loss tracked from the first epoch on). Runs that did not finish, or diverged, or have no such
    loss, are left out with their reason.

    Raises:
      DlmError: the file is missing or wrong; the message says where.
    """
    path = Path(path)
    if points not in POINTS:
        raise DlmError(f"points={points!r}: must be one of {', '.join(POINTS)}")
    if path.is_dir():
        return from_runs(runs.load(path), points, str(path))
    if not path.is_file():
        raise DlmError(f"{path}: no such table; must be a CSV, a Parquet file or a folder of runs")
    return _from_rows(path.name, _rows(path))


def one(path: Path | str, family: str = "", *, points: str = "best") -> Table:
    """The one family of a table, or the one that is named."""
    found = {table.family: table for table in read(path, points=points)}
    if family and family not in found:
        raise DlmError(f"family={family!r}: {path} has {', '.join(found)}{nearest(family, found)}")
    if not family and len(found) > 1:
        raise DlmError(f"{path} has the families {', '.join(found)}: name one with --family")
    return found[family] if family else next(iter(found.values()))


def of_curves(tracked: Iterable[runs.Run], name: str, family: str) -> Table | None:
    """The losses tracked from the first epoch on, rows of a run together; None without any."""
    rows = [
        (r.result["params"], tokens, r.result["unique_tokens"], loss, r.run, flops)
        for r in tracked
        for tokens, loss, flops in zip(
            r.curve.tokens, r.curve.validation_loss, r.curve.flops, strict=True
        )
        if tokens >= r.result["unique_tokens"]
    ]
    if not rows:
        return None
    params, tokens, unique, loss, group, flops = zip(*rows, strict=True)
    return make(
        *(params, tokens, unique, loss), family=family, name=name, run=group, flops=flops, raw=True
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(path).to_pylist()
        except pa.ArrowInvalid as error:
            raise DlmError(f"{path}: not a Parquet file ({error})") from None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets add a BOM
            head = file.readline()
            file.seek(0)
            between = max(",;\t", key=head.count)
            rows = list(csv.DictReader(file, delimiter=between))
    except UnicodeDecodeError:
        raise DlmError(f"{path}: not a text file; must be CSV, or end in .parquet") from None
    for line, row in enumerate(rows, 2):
        if None in row:
            raise DlmError(
                f"{path.name}, line {line}: has more fields than the header ({len(row) - 1}): a "
                "comma within a number or a name?"
            )
    return rows


def _column(title: str) -> str:
    """A column as it is known here: its alias, or its name whatever the case."""
    plain = title.strip().lower()
    return ALIASES.get(title.strip(), ALIASES.get(plain, plain))


def _from_rows(name: str, rows: list[dict[str, Any]], raw: bool = False) -> list[Table]:
    if not rows:
        raise DlmError(f"{name}: has no rows")
    columns = {_column(str(k)): k for k in rows[0]}
    for needed in NEEDED:
        if needed not in columns:
            have = ", ".join(str(k) for k in rows[0])
            raise DlmError(f"{name}: no column {needed}; has {have}{nearest(needed, columns)}")
    kept, excluded = [], {}
    assumed = 0
    for number, row in enumerate(rows, 2):  # as an editor counts the lines of a CSV
        said = {key: row[column] for key, column in columns.items()}
        label = str(said.get("name") or said.get("run") or number)
        family = str(said.get("family") or "all")
        status = str(said.get("status") or "finished")
        if status != "finished":
            excluded.setdefault(family, []).append((label, f"status {status}"))
            continue
        if said["loss"] in (None, ""):
            excluded.setdefault(family, []).append((label, "no loss"))
            continue
        numbers = {
            key: _number(name, number, key, said[key])
            for key in ("params", "tokens", "unique_tokens", "loss", "flops", "budget")
            if key in columns and said[key] not in (None, "")
        }
        for key in NEEDED:
            if key not in numbers:
                raise DlmError(f"{name}, line {number}: {key} is empty")
        assumed += "unique_tokens" not in numbers
        numbers.setdefault("unique_tokens", numbers["tokens"])
        numbers.setdefault("flops", 6 * numbers["params"] * numbers["tokens"])
        # A name may be a model's: rows of one run have its size and, once repeated, its data.
        again = numbers["tokens"] > numbers["unique_tokens"]
        data = f"{numbers['unique_tokens']:g}" if again else ""
        same = f"{said.get('name')} {numbers['params']:g} {data}"
        group = str(said.get("run") or (same if said.get("name") else number))
        source = str(said.get("source") or "")
        kept.append(numbers | {"family": family, "group": group, "label": label, "source": source})
    notes = []
    if "unique_tokens" not in columns:
        notes.append("no column unique_tokens: every run is taken as one epoch over fresh tokens")
    elif assumed:
        notes.append(f"unique_tokens is empty in {assumed} rows: they are taken as one epoch")
    if unknown := [str(k) for key, k in columns.items() if key not in (*NEEDED, *OPTIONAL)]:
        notes.append(f"columns not used: {', '.join(unknown)}")
    seen = [tuple(v for k, v in row.items() if k != "label") for row in kept]
    if twice := len(seen) - len(set(seen)):
        notes.append(f"{twice} rows repeat another row in every column; they are counted as given")
    tables = []
    for family in dict.fromkeys([row["family"] for row in kept]):
        part = [row for row in kept if row["family"] == family]
        table = make(
            *([row[key] for row in part] for key in ("params", "tokens", "unique_tokens", "loss")),
            family=family,
            name=name,
            run=[row["group"] for row in part],
            flops=[row["flops"] for row in part],
            labels=[row["label"] for row in part],
            source=_common([row["source"] for row in part]),
            raw=raw,
        )
        budget = np.array([row.get("budget", np.nan) for row in part])
        table = dataclasses.replace(table, budget=budget if "budget" in columns else None)
        tables.append(
            dataclasses.replace(table, excluded=tuple(excluded.get(family, ())), notes=tuple(notes))
        )
    if not tables:
        raise DlmError(f"{name}: no row with a loss of a finished run")
    known = {table.family for table in tables}
    gone = [
        (label, f"{reason} (family {family}, of which nothing is left)")
        for family, pairs in excluded.items()
        if family not in known
        for label, reason in pairs
    ]
    tables[0] = dataclasses.replace(tables[0], excluded=tables[0].excluded + tuple(gone))
    return tables


def _common(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else ""


def _number(name: str, line: int, key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DlmError(f"{name}, line {line}: {key}={value!r}: must be a number") from None


def from_runs(found: Iterable[runs.Run], points: str, name: str) -> list[Table]:
    """One table per family, and per corpus where there are several; see `read`."""
    rows: list[dict[str, Any]] = []
    found = list(found)
    several = len({run.corpus for run in found}) > 1  # losses on different data make no one law
    for run in found:
        family = run.objective or "unknown"
        family = f"{run.corpus}/{family}" if several else family
        base = {"family": family, "name": run.label, "run": run.run}
        if run.status != "finished":
            reason = f"{run.status}: {run.reason}"
            rows.append(base | {"params": "", "tokens": "", "loss": "", "status": reason})
            continue
        result, curve = run.result, run.curve
        rest = {"params": result["params"], "unique_tokens": result["unique_tokens"]}
        if points == "best":
            share = result["best_flops"] / result["flops"]
            at = [
                (round(result["tokens"] * share), result["validation_loss"], result["best_flops"])
            ]
        else:
            pick = slice(-1, None) if points == "last" else slice(None)
            columns = (curve.tokens, curve.validation_loss, curve.flops)
            at = list(zip(*(c[pick] for c in columns), strict=True))
        seen = [
            base | rest | {"tokens": tokens, "loss": loss, "flops": flops, "status": ""}
            for tokens, loss, flops in at
            if tokens >= rest["unique_tokens"] * (1 - 1e-6)
        ]
        within = {"status": "finished, but this loss lies within the first epoch"}
        rows += seen or [base | within]
    if not rows:
        raise DlmError(f"{name}: no run here")
    keys = ("params", "tokens", "unique_tokens", "loss", "flops", "family", "name", "run", "status")
    return _from_rows(name, [{key: row.get(key, "") for key in keys} for row in rows], raw=True)
