"""The laws that a plan rests on: in print, from a JSON file, or fitted to a table or folder of runs.

A table is fitted by the law that predicts its runs of most epochs best: one of two that know
over-fitting, or one that does not. A law fitted below a cut of epochs predicts the runs above it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlm import runs
from dlm.config import proposal
from dlm.config.proposal import Recipe
from dlm.errors import DlmError, nearest
from dlm.laws import advice, analysis, holdout, intervals, law_files, own_runs, stages
from dlm.laws import table as tables
from dlm.laws.critical import Constants, Fitted
from dlm.laws.fits import Fit, cautions
from dlm.laws.forms import law as named
from dlm.laws.holdout import Prediction
from dlm.laws.published import PUBLISHED_LAWS, PublishedLaws
from dlm.laws.table import Ranges, Table

AUTO = "auto"
REPEATED = (
    "data-constrained",
    "over-fitting-one",
    "over-fitting",
)  # for runs that repeat their data
FRESH = ("chinchilla",)  # for runs of one epoch
HELD_OUT = 0.2  # share of the runs that a cut leaves to predict, at least
# An over-fitting law must lower the held-out RMS error to this share of the other law's: in planted
# worlds without over-fitting it lowers it to 0.76 to 1 by chance.
CLEARLY = 0.75
JOINT = "joint"  # constants in print have no intervals: with them those of a plan are too narrow
STARTS = 48  # of a fit that predicts held-out runs
ALIASES = {"mdm": "masked", "diffusion": "masked", "autoregressive": "ar"}


@dataclass(frozen=True, eq=False)
class Laws:
    """A law for each family, and what is known of them beside their coefficients."""

    title: str
    source: str
    by_family: dict[str, Fitted]
    spread: tuple[float, str]  # of single runs: a standard deviation in log loss, and its origin
    predictions: dict[str, Prediction]  # of held-out runs, by family
    notes: tuple[str, ...]
    recipes: dict[str, Recipe] = field(default_factory=dict)  # by family, of dlm's own runs


def read(
    source: str | Path,
    families: Sequence[str] = (),
    *,
    law: str = AUTO,
    columns: Mapping[str, str] | None = None,
    points: str = "best",
    resamples: int = 400,
    seed: int = 0,
    tell: stages.Tell = stages.silent,
) -> Laws:
    """The laws of a name in `PUBLISHED_LAWS`, of a JSON file, a table or a folder of runs.

    `families`: which of them (none: all). `law`: a law's name, or auto for tables. `points`: of dlm's
    own runs, best (at the best weights) or last, which shows over-fitting; see `dlm.laws.table.read`.

    Raises:
      DlmError: no such source or family, or runs that cannot determine a law.
    """
    if law != AUTO:
        named(law)  # raises DlmError, also if the source has laws of its own
    if str(source) in PUBLISHED_LAWS:
        return _in_print(PUBLISHED_LAWS[str(source)], families)
    path = Path(source)
    if not str(source) or not path.exists():
        known = ", ".join(PUBLISHED_LAWS)
        right = f"{known}, a JSON file, a table (CSV, Parquet) or a folder of runs"
        raise DlmError(
            f"laws={str(source)!r}: must be {right}{nearest(str(source), [*PUBLISHED_LAWS])}"
        )
    if path.suffix == ".json":
        found = law_files.read(path)
        laws: dict[str, Fitted] = {name: found[name] for name in chosen(list(found), families)}
        return Laws(path.name, str(path), laws, (math.nan, "not known"), {}, ())
    read_tables = {t.family: t for t in tables.read(path, columns=columns, points=points)}
    names = chosen(list(read_tables), families)
    fits, predictions, notes = {}, {}, []
    for name in names:
        t = read_tables[name]
        notes += [f"{name}: {note}" for note in t.notes]
        notes += [f"{name}: {len(t.excluded)} runs left out"] if t.excluded else []
        fits[name], predicted = fit(t, law, resamples, seed, tell)
        predictions |= {} if predicted is None else {name: predicted}
        notes += [f"{name}: {note}" for note in cautions(fits[name])]
    spread = advice.spread_of_runs(list(fits.values()))
    return Laws(
        path.name, str(path), dict(fits), spread, predictions, tuple(dict.fromkeys(notes)),
        recipes_of(path) if path.is_dir() else {},
    )  # fmt: skip


def recipes_of(folder: Path) -> dict[str, Recipe]:
    """The recipe of the best run of each family in a folder of runs."""
    found = runs.load(folder)
    records = runs.rows(found)
    best: dict[str, int] = {}
    for k, family in enumerate(own_runs.families_of(records)):
        loss = records[k]["validation_loss"]
        if records[k]["status"] == "finished" and loss is not None:
            before = best.get(family)
            if before is None or loss < records[before]["validation_loss"]:
                best[family] = k
    recipes = {}
    for family, k in best.items():
        with contextlib.suppress(DlmError):  # its config is another version's: the default recipe
            recipes[family] = proposal.recipe_of(
                found[k].config, int(found[k].result["vocab_size"])
            )
    return recipes


def chosen(names: Sequence[str], families: Sequence[str]) -> list[str]:
    """The families asked for, by their names in a table; all, if they are on one corpus.

    Raises:
      DlmError: a family that is not there, or several corpora; lists what there is.
    """
    if families:
        found = []
        for family in dict.fromkeys(families):
            key = ALIASES.get(family.lower(), family)
            same = [n for n in names if n == family]
            same = same or [n for n in names if short(n) == key]
            if len(same) != 1:
                problem = "is there more than once" if same else "has no law"
                raise DlmError(
                    f"families={family}: {problem}; must be one of {', '.join(names)}"
                    f"{'' if same else nearest(family, names)}"
                )
            found.append(same[0])
        return found
    if len({n.rpartition("/")[0] for n in names}) > 1:
        raise DlmError(
            f"the laws are of several corpora ({', '.join(names)}): name those of one with --families"
        )
    return list(names)


def short(name: str) -> str:
    """The family of a name in a table, without its corpus: digits/mdm gives masked."""
    last = name.rpartition("/")[2]
    return ALIASES.get(last.lower(), last)


def _in_print(known: PublishedLaws, families: Sequence[str]) -> Laws:
    names = chosen(list(known.coefficients), families)
    laws: dict[str, Fitted] = {
        name: Constants(
            named(known.law),
            known.coefficients[name],
            ranges=Ranges(known.runs[name], known.typical_params, **known.spans[name]),
        )
        for name in names
    }
    spread = (math.nan, "not known: each setting was trained once")
    if known.spread is not None:
        spread = (known.spread, "groups of four seeds of Muennighoff et al.")
    return Laws(known.title, known.source, laws, spread, {}, known.cautions)


def fit(
    table: Table,
    law: str = AUTO,
    resamples: int = 400,
    seed: int = 0,
    tell: stages.Tell = stages.silent,
) -> tuple[Fit, Prediction | None]:
    """A law with its resamples, and how it predicted held-out runs; None: too few runs for that.

    Raises:
      DlmError: the table cannot determine the law.
    """
    repeated = table.epochs.max() > 1 + 1e-6
    candidates = (law,) if law != AUTO else REPEATED if repeated else FRESH
    axis = "epochs" if repeated else "flops"
    cut = held_out_cut(table.epochs if repeated else table.flops)
    predicted = {}
    for name in candidates if cut else ():
        tell(f"{name}, family {table.family}: predicting held-out runs")
        try:
            predicted[name] = holdout.holdout(table, _maker(name), axis, cut)
        except DlmError:  # too few runs below the cut
            continue
    best = _best(candidates, predicted)
    tell(f"{best}, family {table.family}: fitting {len(table):,} rows")
    fitted = analysis.fit_table(table, best, steps=JOINT)[0]
    tell(f"{best}, family {table.family}: {intervals.affordable(table, resamples):,} resamples")
    return intervals.bootstrap(fitted, resamples, seed), predicted.get(best)


def _best(candidates: Sequence[str], predicted: Mapping[str, Prediction]) -> str:
    """The first law, unless others predict the held-out runs clearly better: then the best of them."""
    first, *others = candidates
    if first not in predicted:
        return first
    limit = CLEARLY * predicted[first].rms
    better = [name for name in others if name in predicted and predicted[name].rms < limit]
    return min(better, key=lambda name: predicted[name].rms, default=first)


def _maker(name: str) -> Callable[[Table], Fit]:
    return lambda table: analysis.fit_table(table, name, steps=JOINT, starts=STARTS)[0]


def held_out_cut(values: np.ndarray) -> float:
    """The highest value [R] above which a share HELD_OUT of the runs lies; 0: there is none."""
    for cut in np.unique(values)[::-1][1:]:
        if (values > cut * holdout.SAME).mean() >= HELD_OUT:
            return float(cut)
    return 0.0
