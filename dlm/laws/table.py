"""A table of runs as arrays: read from CSV, Parquet or folders, checked, each dropped row listed.

Columns: params (N), tokens (D, all that were trained on, repeats included), unique_tokens (U, or else
epochs), loss (nats per token, natural logarithm); optional: family, flops, run or else name (rows
that share it are one run's checkpoints, and are resampled together), source, status, budget (a
number that the rows of one isoFLOP curve share), loops (how often the layers run, 1) and looped_params
(the parameters that loop, all). All counts are raw counts. `dlm.laws.columns` has
the other names under which these are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlm import inputs, runs
from dlm.errors import DlmError, nearest
from dlm.laws import crossover, own_runs, rows, sheet, units
from dlm.laws.forms import POINTS
from dlm.laws.frontiers import FamilyLosses
from dlm.laws.rows import Gathered


@dataclass(frozen=True)
class Ranges:
    """The ranges of the runs behind a law: the least and the most of each count."""

    runs: int
    typical_params: float  # their median
    params: tuple[float, float]
    tokens: tuple[float, float]
    unique_tokens: tuple[float, float]
    epochs: tuple[float, float]
    flops: tuple[float, float]


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
    loops: np.ndarray  # how often the layers run
    share: np.ndarray  # of the parameters, those that loop
    group: np.ndarray
    labels: tuple[str, ...]
    source: str  # the common prefix of the source column, or ""
    excluded: tuple[tuple[str, str], ...] = ()  # label and reason
    notes: tuple[str, ...] = ()
    tracked: tuple[FamilyLosses, ...] = ()  # of a folder: every tracked loss, for each data set
    budget: np.ndarray | None = None  # the isoFLOP budget of each row, NaN: of none

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def epochs(self) -> np.ndarray:
        return self.D / self.U

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """N, D, U, loops and share of the runs, as a law's prediction takes them."""
        return self.N, self.D, self.U, self.loops, self.share

    @property
    def groups(self) -> int:
        return len(np.unique(self.group))

    @property
    def ranges(self) -> Ranges:
        span = {
            name: (float(values.min()), float(values.max()))
            for name, values in (
                ("params", self.N),
                ("tokens", self.D),
                ("unique_tokens", self.U),
                ("epochs", self.epochs),
                ("flops", self.flops),
            )
        }
        return Ranges(len(self), float(np.median(self.N)), **span)

    def only(self, rows: np.ndarray, why: str = "") -> Table:
        """Keeps the rows of a mask [R]; `why` is the reason listed for each row left out."""
        rows = np.asarray(rows, bool)
        left = tuple((self.labels[i], why) for i in np.flatnonzero(~rows)) if why else ()
        each = ("N", "D", "U", "loss", "flops", "loops", "share", "group")
        picked: dict[str, Any] = {k: getattr(self, k)[rows] for k in each}
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
    loops: Any = None,
    looped_params: Any = None,
    raw: bool = False,
) -> Table:
    """Makes a table from arrays; `run` groups rows, `raw` skips unit checks. FLOPs default to 6ND, the
    parameters that loop counted once for each loop.

    Raises:
      DlmError: a number that cannot be one, or a mix of units.
    """
    N, D, U, L = (np.array(v, float).ravel() for v in (params, tokens, unique_tokens, loss))
    if len({len(N), len(D), len(U), len(L)}) > 1:
        raise DlmError(f"{name}: columns of {len(N)}, {len(D)}, {len(U)} and {len(L)} rows")
    named = [str(i) for i in range(len(L))] if labels is None else [str(v) for v in labels]
    where = [f"{name}, {'row ' if v.isdigit() else ''}{v}" for v in named]
    for column, values in (("params", N), ("tokens", D), ("unique_tokens", U)):
        for i in np.flatnonzero(~(np.isfinite(values) & (values > 0))):
            raise DlmError(f"{where[i]}: {column}={values[i]:g}: must be a positive number")
        if not raw:
            units.counts(name, column, values)
    r = np.ones(len(N)) if loops is None else np.array(loops, float).ravel()
    looped = N if looped_params is None else np.array(looped_params, float).ravel()
    for i in np.flatnonzero(~(np.isfinite(r) & (r >= 1))):
        raise DlmError(
            f"{where[i]}: loops={r[i]:g}: must be 1 or more, as the layers run once at least"
        )
    for i in np.flatnonzero(~((looped > 0) & (looped <= N))):
        raise DlmError(
            f"{where[i]}: looped_params={looped[i]:g}: must be from 1 to params={N[i]:g}"
        )
    passed = N + (r - 1) * looped  # the parameters that a token passes
    C = 6 * passed * D if flops is None else np.array(flops, float).ravel()
    for i in np.flatnonzero(~(np.isfinite(C) & (C > 0))):
        raise DlmError(f"{where[i]}: flops={C[i]:g}: must be a positive number")
    for i in np.flatnonzero(~((L > 0) & (L < units.LARGEST_LOSS))):
        raise DlmError(
            f"{where[i]}: loss={L[i]:g}: must be above 0 and below {units.LARGEST_LOSS:g}, in nats per "
            "token; of a perplexity give the natural logarithm"
        )
    for i in np.flatnonzero(U * (1 - 1e-6) > D):
        raise DlmError(
            f"{where[i]}: {D[i] / U[i]:.3g} epochs (tokens={D[i]:g} below unique_tokens={U[i]:g}): "
            "tokens are all that were trained on, unique_tokens those of them that differ"
        )
    notes: list[str] = []
    if not raw:
        notes = [
            *units.ratios(name, N, D, U),
            *units.losses(L),
            *units.flops(name, C, passed, D, where),
        ]
    groups = np.array(named if run is None else [str(v) for v in run])
    return Table(
        name=name,
        family=family,
        N=N,
        D=D,
        U=np.minimum(U, D),
        loss=L,
        flops=C,
        loops=r,
        share=looped / N,
        group=np.unique(groups, return_inverse=True)[1],
        labels=tuple(named),
        source=source,
        notes=tuple(notes),
    )


def alike(values: Any, tolerance: float = 0.03) -> list[np.ndarray]:
    """Indices of values that agree within a factor of exp(tolerance), from the lowest up."""
    values = np.log(np.asarray(values, float))
    groups: list[list[int]] = []
    for i in np.argsort(values, kind="stable"):
        if groups and values[i] - values[groups[-1][0]] <= tolerance:
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    return [np.sort(rows) for rows in groups]


def unique_budgets(tables: Iterable[Table]) -> list[float]:
    """The numbers of unique tokens that were trained on, raw; nearly equal ones count as one."""
    every = np.concatenate([np.zeros(0), *(t.U for t in tables)])
    return [float(np.median(every[rows])) for rows in alike(every)]


def with_unique(t: Table, unique_tokens: float) -> Table:
    return t.only(np.abs(np.log(t.U / unique_tokens)) < 0.03)


def settings(t: Table) -> dict[str, Table]:
    """Groups the rows by the words of their labels, without the seed and words that all share."""
    words = [[w for w in label.split() if not w.startswith("seed=")] for label in t.labels]
    common = set.intersection(*(set(w) for w in words))
    names = np.array([" ".join(w for w in label if w not in common) or "base" for label in words])
    return {str(name): t.only(names == name) for name in dict.fromkeys(names)}


def read(
    path: Path | str, *, points: str = "best", columns: Mapping[str, str] | None = None
) -> list[Table]:
    """One table per family of a CSV or Parquet file, or of a folder of runs.

    For a folder, and for the runs.csv or runs.parquet that `dlm runs` writes, `points` picks the
    losses of a run: best (the best weights, at their number of tokens; whole validation split), last
    (the last tracked loss, at all tokens) or curve (every loss tracked from the first epoch on; only
    for a folder). Runs that did not finish, diverged or have no such loss are left out, each with
    its reason. `columns`: titles of another table's columns by meaning, as `columns.parse` gives.

    Raises:
      DlmError: the file is missing or wrong; the message says where.
    """
    path = Path(path)
    if points not in POINTS:
        raise DlmError(f"points={points!r}: must be one of {', '.join(POINTS)}")
    if path.is_dir():
        _refuse_columns(str(path), columns)
        return from_runs(runs.load(path), points, str(path))
    if problem := inputs.unreadable(path):
        problem = "no such table" if problem == "no such file" else problem
        raise DlmError(f"{path}: {problem}; must be a CSV, a Parquet file or a folder of runs")
    cells = sheet.read(path)
    if own_runs.is_own(cells):
        _refuse_columns(cells.name, columns)
        if points == "curve":
            raise DlmError(f"{path}: a table holds no curves; give the folder of these runs")
        return _tables(cells.name, own_runs.gather(own_runs.read_records(cells), points), raw=True)
    if points == "last":
        raise DlmError(f"{path}: points='last' is for folders and tables of dlm's own runs")
    return _tables(cells.name, rows.gather(cells, columns or {}))


def _refuse_columns(name: str, columns: Mapping[str, str] | None) -> None:
    if columns:
        raise DlmError(f"{name}: holds dlm's own runs, whose columns are known; drop --columns")


def from_runs(listed: Iterable[runs.Run], points: str, name: str) -> list[Table]:
    """One table per family, and per corpus where there are several; see `read`."""
    listed = list(listed)
    if not listed:
        raise DlmError(f"{name}: no run here; must be a folder of runs, or name a table in it")
    curves = [run.curve for run in listed] if points == "curve" else []
    records = runs.rows(listed)
    tracked = crossover.tracked(listed, own_runs.families_of(records))
    tables = _tables(name, own_runs.gather(records, points, curves), raw=True)
    return [dataclasses.replace(t, tracked=tracked.get(t.family, ())) for t in tables]


def one(
    path: Path | str,
    family: str = "",
    *,
    points: str = "best",
    columns: Mapping[str, str] | None = None,
) -> Table:
    """The one family of a table, or the one that is named."""
    return of_family(read(path, points=points, columns=columns), family)


def of_family(tables: Iterable[Table], family: str = "") -> Table:
    """The table of the one family there is, or of the one that is named.

    Raises:
      DlmError: no such family, or several and none is named; lists those there are.
    """
    by_family = {table.family: table for table in tables}
    name = next(iter(by_family.values())).name
    if family and family not in by_family:
        raise DlmError(
            f"family={family!r}: {name} has {', '.join(by_family)}{nearest(family, by_family)}"
        )
    if not family and len(by_family) > 1:
        raise DlmError(f"{name} has the families {', '.join(by_family)}: name one with --family")
    return by_family[family] if family else next(iter(by_family.values()))


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


def _tables(name: str, gathered: Gathered, raw: bool = False) -> list[Table]:
    """One table per family, the excluded rows with their family's, or else with the first."""
    if not gathered.rows:
        reasons = "; ".join(f"{label}: {reason}" for _, label, reason in gathered.excluded[:3])
        more = len(gathered.excluded) - 3
        and_more = f" and {more} more" if more > 0 else ""
        raise DlmError(f"{name}: no row with a loss of a finished run ({reasons}{and_more})")
    tables = []
    known = dict.fromkeys(row["family"] for row in gathered.rows)
    for family in known:
        part = [row for row in gathered.rows if row["family"] == family]
        sources = {row["source"] for row in part}
        table = make(
            *([row[key] for row in part] for key in ("params", "tokens", "unique_tokens", "loss")),
            family=family,
            name=name,
            run=[row["group"] for row in part],
            flops=[row["flops"] for row in part],
            labels=[row["label"] for row in part],
            source=sources.pop() if len(sources) == 1 else "",
            loops=[row.get("loops", 1.0) for row in part],
            looped_params=[row.get("looped_params", row["params"]) for row in part],
            raw=raw,
        )
        gone = [
            (label, reason if of == family else f"{reason} (family {of}: nothing of it is left)")
            for of, label, reason in gathered.excluded
            if of == family or (of not in known and not tables)
        ]
        notes = (*table.notes, *gathered.notes)
        budget = None
        if any("budget" in row for row in part):
            budget = np.array([row.get("budget", np.nan) for row in part])
        tables.append(dataclasses.replace(table, excluded=tuple(gone), notes=notes, budget=budget))
    return tables
