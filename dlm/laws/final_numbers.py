"""The final numbers of a setting: its loss, and tighter ones that `dlm evaluate` left in its runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dlm.errors import DlmError
from dlm.runs import Run, Setting, likelihoods
from dlm.runs.estimate import Comparison, Estimate, compare, of_model, standard_error

LEAST_WINDOWS = 16  # of a number beyond the losses that is compared


class Number(NamedTuple):
    """A number of a setting, the mean over its seeds."""

    name: str  # how it was scored; "": the loss in the runs' results
    estimate: Estimate  # its standard error is over seeds, of one seed over documents
    # nats per token of each seed on each window, [S, n]; None: not kept
    per_seed: np.ndarray | None
    seeds: int
    over_documents: float  # standard error of one seed

    @property
    def windows(self) -> int:
        return 0 if self.per_seed is None else self.per_seed.shape[1]


class Pair(NamedTuple):
    """Two numbers on the same windows, compared: the second minus the first."""

    first: Number
    second: Number
    comparison: Comparison
    stderr_seeds: float | None
    stderr_windows: float
    paired: bool  # stderr_windows is of the per-window differences
    clustered: bool  # and the windows of one document were taken together


def loss(setting: Setting) -> Number:
    """The final loss: best weights, whole validation split."""
    first = setting.runs[0].result
    over_documents = float(setting.values("validation_stderr").mean())
    value, stderr = _over_seeds(setting.values("validation_loss"), over_documents)
    mc_stderr = float(setting.values("validation_mc_stderr").mean())  # seeds share their noise
    mean = Estimate(value, stderr, first["kind"], first["validation_tokens"], mc_stderr)
    return Number("", mean, _losses_of_windows(setting), setting.seeds, over_documents)


def _over_seeds(values: np.ndarray, over_documents: float) -> tuple[float, float]:
    """The mean over seeds, [S], and its standard error: over seeds, of one seed over documents."""
    if len(values) == 1:
        return float(values[0]), over_documents
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def compare_best(a: Setting, b: Setting, names: tuple[str, str]) -> Pair:
    """Setting b minus setting a, by the numbers that decide between them if any do.

    Those are a number that the one's likelihood cannot exceed, below one that the other's cannot fall
    below. If none decide, the tightest numbers that both have on the same windows are compared.
    `names` of b and a stand in the conclusion.
    """
    own = _pair(loss(a), loss(b), a.runs[0], names)
    others = [_pair(x, y, a.runs[0], names) for x, y in _same_windows(a, b)]
    decided = [pair for pair in (own, *others) if pair.comparison.proven]
    if decided:
        return max(decided, key=_clearness)
    above = [
        p for p in others if "lower bound" not in (p.first.estimate.kind, p.second.estimate.kind)
    ]
    # The values of other windows differ: the most windows first, then the tightest bounds.
    return min(above, key=lambda p: (-p.first.windows, _bounds(p)), default=own)


def _clearness(pair: Pair) -> float:
    """A difference over its standard error; without one, as far as can be."""
    error = pair.comparison.stderr
    return abs(pair.comparison.difference) / error if error > 0 else math.inf


def _bounds(pair: Pair) -> float:
    return sum(n.estimate.value for n in pair[:2] if n.estimate.kind == "upper bound")


def _same_windows(a: Setting, b: Setting) -> Iterator[tuple[Number, Number]]:
    """Pairs of numbers on the same windows, at least one of them kept beside the results."""
    kept = [_kept(setting) for setting in (a, b)]
    for x in kept[0]:
        yield from ((x, y) for y in kept[1] if x.windows == y.windows)
        if (y := _loss_on(b, x.windows)) is not None:
            yield x, y
    for y in kept[1]:
        if (x := _loss_on(a, y.windows)) is not None:
            yield x, y


def _kept(setting: Setting) -> list[Number]:
    """Numbers that all seeds of a setting keep; none if a file of one is damaged."""
    try:
        of_runs = [
            {(s.name, s.windows): s for s in likelihoods.read(run.path)} for run in setting.runs
        ]
    except DlmError:
        return []
    numbers = []
    for key in of_runs[0]:
        if not all(key in of_run for of_run in of_runs) or key[1] < LEAST_WINDOWS:
            continue
        estimates = [of_run[key].estimate for of_run in of_runs]
        over_documents = float(np.mean([e.stderr for e in estimates]))
        value, stderr = _over_seeds(np.array([e.value for e in estimates]), over_documents)
        # All seeds meet the same orders, so their Monte Carlo noise does not average out.
        mc_stderr = float(np.mean([e.mc_stderr for e in estimates]))
        mean = estimates[0]._replace(value=value, stderr=stderr, mc_stderr=mc_stderr)
        if (mean := of_model(mean)) is None:
            continue
        length = setting.runs[0].result["seq_len"]
        per_seed = np.stack([of_run[key].nats for of_run in of_runs]) / length
        numbers.append(Number(key[0], mean, per_seed, setting.seeds, over_documents))
    return numbers


def damage(run: Run) -> str:
    """Why the numbers beside a run's result cannot be read; "" if they can or there are none."""
    try:
        likelihoods.read(run.path)
    except DlmError as error:
        return f"{run.path.name}: {error}"
    return ""


def _loss_on(setting: Setting, windows: int) -> Number | None:
    """The final loss on as many windows, spread over the split; None if it cannot be had of them."""
    whole = loss(setting)
    if whole.per_seed is None or windows > whole.windows:
        return None
    some = whole.per_seed[:, likelihoods.spread(windows, whole.windows)]
    documents = _documents(setting.runs[0], windows)
    over_documents = float(np.mean([standard_error(seed, documents) for seed in some]))
    value, stderr = _over_seeds(some.mean(axis=1), over_documents)
    tokens = windows * setting.runs[0].result["seq_len"]
    mc_stderr = whole.estimate.mc_stderr * math.sqrt(whole.windows / windows)
    part = whole.estimate._replace(value=value, stderr=stderr, tokens=tokens, mc_stderr=mc_stderr)
    return whole._replace(estimate=part, per_seed=some, over_documents=over_documents)


def _pair(x: Number, y: Number, run: Run, names: tuple[str, str]) -> Pair:
    """The noise of seeds and of windows is added in quadrature. The seeds of both settings are scored
    on the same windows, so the noise of windows is that of the per-window differences if both have
    them. Else it is the two standard errors in quadrature, which is too large. Windows of one document
    go together if nll_documents.npy, int [n], numbers the document of each window."""
    over_seeds = [number.estimate.stderr for number in (x, y) if number.seeds > 1]
    seeds = math.hypot(*over_seeds) if over_seeds else None
    paired, documents = x.windows == y.windows > 1, None
    if paired and x.per_seed is not None and y.per_seed is not None:
        documents = _documents(run, x.windows)
        windows = standard_error(y.per_seed.mean(axis=0) - x.per_seed.mean(axis=0), documents)
    else:
        windows = math.hypot(x.over_documents, y.over_documents)
    # The tails of a lower bound's noise are heavier than a few windows show.
    noise = [n.estimate.mc_stderr for n in (x, y) if n.estimate.kind == "lower bound"]
    total = math.hypot(seeds or 0.0, windows, *noise)
    comparison = compare(y.estimate, x.estimate, total, names)
    clustered = documents is not None and len(np.unique(documents)) > 1
    return Pair(x, y, comparison, seeds, windows, paired, clustered)


def _losses_of_windows(setting: Setting) -> np.ndarray | None:
    """Nats per token of each seed on each validation window, [S, n]; None if a seed has none."""
    losses = []
    for run in setting.runs:
        nll = _array(run, "nll.npy")
        if nll is None or not np.isfinite(nll).all() or (losses and len(nll) != len(losses[0])):
            return None
        losses.append(nll / run.result["seq_len"])
    return np.stack(losses)


def _documents(run: Run, windows: int) -> np.ndarray | None:
    """The document of each of as many windows, spread over the split; None if it is not known."""
    documents = _array(run, "nll_documents.npy")
    if documents is None or windows > len(documents):
        return None
    return documents[likelihoods.spread(windows, len(documents))]


def _array(run: Run, name: str) -> np.ndarray | None:
    """Reads a one-dimensional array of the run's folder; None if it is missing or damaged."""
    try:
        values = np.load(run.path / name, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.ndim == 1 else None
