"""Fits a scaling law to a table of runs, and compares two fitted laws. Loads no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlm import inputs, runs
from dlm.errors import DlmError
from dlm.format import number

if TYPE_CHECKING:
    import numpy as np

    from dlm.laws.analysis import Analysis
    from dlm.laws.compute_optimal import Optimum


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """A scaling law fitted to the runs of one family; `analysis` holds all that is known of the fit."""

    analysis: Analysis

    def __repr__(self) -> str:
        law, table = self.analysis.fit.law, self.analysis.fit.table
        words = [
            f"{name} = {number(value)}{'' if self.identified.get(name, True) else ' (not identified)'}"
            for name, value in self.coefficients.items()
        ]
        return f"{law.name} on {len(table)} rows, family {table.family}: {', '.join(words)}"

    @property
    def coefficients(self) -> dict[str, float]:
        """By name; counts are raw, losses in nats per token. Read them with `identified`."""
        return dict(self.analysis.fit.coefficients)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """90% intervals of the fitted coefficients, (low, high): 0 or infinity is an open end, NaN is
        not known. The one that the verdict rests on, of profile and bootstrap the wider."""
        return {v.name: (v.low, v.high) for v in self.analysis.verdicts}

    @property
    def identified(self) -> dict[str, bool]:
        """Whether the runs determine each fitted coefficient."""
        return {v.name: v.identified for v in self.analysis.verdicts}

    @inputs.checked
    def predict(self, params: Any, tokens: Any, unique_tokens: Any, loops: Any = 1.0) -> np.ndarray:
        """The loss in nats per token; raw counts, numbers or arrays that broadcast.

        `tokens` are all that are trained on, `unique_tokens` those that differ (at most `tokens`).
        `loops`: how often the layers run, for a looped law; the share of the parameters that loop is
        the median of the runs fitted.

        >>> fit = dlm.fit("table.csv", law="chinchilla", resamples=0)
        >>> fit.predict(1e8, [1e9, 2e9], 1e9).shape
        (2,)

        Raises:
          DlmError: a number that is not above 0, shapes that do not broadcast, loops below 1, or above
            1 under a law that does not know them.
        """
        import numpy as np

        N, D = _positive("params", params), _positive("tokens", tokens)
        U, r = _positive("unique_tokens", unique_tokens), _positive("loops", loops)
        fitted = self.analysis.fit
        if (r < 1).any() or not (fitted.law.looped or (r == 1).all()):
            right = "1 or more" if fitted.law.looped else f"1, as {fitted.law.name} knows no loops"
            raise DlmError(f"loops={loops!r}: must be {right}")
        try:
            N, D, U, r = np.broadcast_arrays(N, D, U, r)
        except ValueError:
            shapes = f"{N.shape}, {D.shape}, {U.shape} and {r.shape}"
            raise DlmError(
                f"params, tokens, unique_tokens, loops: have shapes {shapes}, which do not broadcast"
            ) from None
        return fitted.predict(N, D, np.minimum(U, D), r, np.median(fitted.table.share))

    @inputs.checked
    def optimal(self, flops: Any, unique_tokens: Any) -> Optimum:
        """The best use of a compute C = 6 * params * tokens: its `params`, `epochs` and `loss`.

        >>> best = dlm.fit("table.csv", law="chinchilla", resamples=0).optimal(1e20, 1e9)
        >>> bool(1e7 < best.params < 1e11), bool(best.epochs >= 1)
        (True, True)

        Raises:
          DlmError: a number that is not above 0, or a law without a size.
        """
        from dlm.laws import compute_optimal

        C, U = _positive("flops", flops), _positive("unique_tokens", unique_tokens)
        return compute_optimal.optimal(self.analysis.fit.law, self.coefficients, C, U)


def _positive(name: str, values: Any) -> np.ndarray:
    import numpy as np

    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise DlmError(f"{name}={values!r}: must be a number, or an array of them") from None
    if not (np.isfinite(array) & (array > 0)).all():
        raise DlmError(f"{name}={values!r}: must be above 0 and finite")
    return array


@inputs.checked
def fit(
    table: str | Path | Iterable[runs.Run],
    law: str = "data-constrained",
    family: str = "",
    columns: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> FittedLaw:
    """Fits a scaling law to one family of a CSV, a Parquet file, a folder of runs, or `dlm.load`'s.

    `columns`: titles by meaning, such as {"params": "n"}; counts are raw, losses nats per token.
    `resamples`: of the bootstrap behind the intervals (0: profiles alone). As `dlm fit`, whose options
    are in `dlm.laws.analysis.analyse`.

    >>> fit = dlm.fit("table.csv", law="chinchilla", columns={"loss": "val_loss"}, resamples=100)
    >>> round(fit.coefficients["E"], 1), fit.identified["E"], len(fit.intervals["E"])
    (1.8, True, 2)

    Raises:
      DlmError: an unknown law, family or column, or a table that cannot determine the law.
    """
    from dlm.laws import analysis
    from dlm.laws import columns as titles
    from dlm.laws import table as tables

    analysis.check_options(law)
    if resamples < 0:
        raise DlmError(f"resamples={resamples!r}: must be a whole number from 0")
    for meaning, title in (columns or {}).items():
        titles.check_meaning(f"{meaning}={title}", meaning)
    if isinstance(table, str | Path):
        rows = tables.one(table, family, columns=columns)
    elif columns:
        raise DlmError(f"columns={dict(columns)!r}: runs have known columns; leave it out")
    else:
        rows = tables.of_family(tables.from_runs(table, "best", "runs"), family)
    return FittedLaw(analysis.analyse(rows, law, resamples=resamples, seed=seed))


class CriticalCompute(NamedTuple):
    """The FLOPs above which the second family's best loss stays below the first's, at U."""

    compute: float  # NaN: there is no such compute; `status` says why
    interval: tuple[float, float]  # 90%, by bootstrap: infinity is an open end, NaN not known
    status: str
    unique_tokens: float
    warnings: tuple[str, ...]  # what the number rests on beyond the runs


@inputs.checked
def critical(fit_ar: FittedLaw, fit_other: FittedLaw, unique_tokens: float) -> CriticalCompute:
    """The compute at which two fitted laws meet, each at its best use of C, as `dlm critical` has it.

    >>> fits = [dlm.fit("table.csv", "chinchilla", resamples=20) for _ in range(2)]
    >>> dlm.critical(*fits, unique_tokens=1e9).status
    'does not cross'

    Raises:
      DlmError: `unique_tokens` is no positive number, or a law has no size.
    """
    from dlm.laws import comparison

    _positive("unique_tokens", unique_tokens)
    fits = [fit_ar.analysis.fit, fit_other.analysis.fit]
    names = [fit.table.family for fit in fits]
    if names[0] == names[1]:
        names = [f"{names[0]}, {which}" for which in ("first", "second")]
    pair = (names[0], names[1])
    compared = comparison.compare(
        pair, dict(zip(pair, fits, strict=True)), {}, [float(unique_tokens)]
    )
    point = compared.points[0]
    words = tuple(comparison.cautions(compared))
    ends = (point.low, point.high)
    return CriticalCompute(point.compute, ends, point.status, point.unique_tokens, words)
