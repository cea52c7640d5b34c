"""What `import dlm` offers, and what the command line calls: thin functions over the packages.

`dlm/__init__.py` lists the names. JAX is imported inside the functions that compute with a model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from dlm import config, inputs, runs
from dlm.errors import DlmError, nearest
from dlm.format import number
from dlm.runs import addresses, bucket
from dlm.runs.estimate import Estimate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dlm.data.store import Store
    from dlm.evaluation.likelihood import Member
    from dlm.evaluation.texts import TextScore
    from dlm.laws.analysis import Analysis
    from dlm.laws.critical import Optimum
    from dlm.objectives import Objective
    from dlm.sweep.local import Job

SHOWN = 6  # runs that an error lists


# --- runs ---------------------------------------------------------------------------------------


class Run(runs.Run):
    """One run as its folder has it; see `dlm.runs.Run` for all fields.

    >>> run = dlm.load("runs/tiny")["masked"]
    >>> run.status, run.config["objective"]["name"], run.result["kind"]
    ('finished', 'masked', 'upper bound')
    >>> run.curve.epoch.shape == run.curve.validation_loss.shape  # [evaluations], nats per token
    True
    """

    def model(self, trust: bool = False) -> Model:
        """The best weights with their config, tokens and tokenizer. Loads JAX.

        `trust`: run the objective file that the run names even if you have not trained with it here.

        >>> dlm.load("runs/tiny")["ar"].model().config.objective.name
        'ar'

        Raises:
          DlmError: no checkpoint yet, a damaged one, or an objective file that is not trusted.
        """
        return restore(self.path, trust)


class Runs(Sequence[Run]):
    """Runs in the order of their folders; a string finds one by its id, a unique beginning of it, its
    label, or words that only its label has, as in runs["masked seed=0"].

    >>> runs = dlm.load("runs/tiny")
    >>> len(runs), [run.objective for run in sorted(runs, key=lambda run: run.label)]
    (2, ['ar', 'masked'])
    >>> runs[runs[0].run[:6]] is runs[0]
    True
    """

    def __init__(self, found: Iterable[Run], name: str = "") -> None:
        self._runs = tuple(found)
        self.name = name

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @overload
    def __getitem__(self, index: int | str) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | str | slice) -> Run | Runs:
        if isinstance(index, str):
            return self._find(index)
        if isinstance(index, slice):
            return Runs(self._runs[index], self.name)
        return self._runs[index]

    def __repr__(self) -> str:
        lines = [f"{run.run}  {run.status}  {run.label}" for run in self]
        return "\n".join([f"{len(self)} runs in {self.name}", *lines])

    def _find(self, word: str) -> Run:
        """The run of an id, a unique beginning of it, a label, or words that no other label has.

        Raises:
          DlmError: no run, or several; lists those that may be meant.
        """
        matches = [run for run in self if word in (run.run, run.label)]
        if word and not matches:
            matches = [run for run in self if run.run.startswith(word)]
            asked = set(word.split())
            matches = matches or [run for run in self if asked <= set(run.label.split())]
        if len(matches) == 1:
            return matches[0]
        if matches:
            named = ", ".join(f"{run.run} ({run.label})" for run in matches[:SHOWN])
            raise DlmError(f"{word}: may be any of {len(matches)} runs: {named}; give more of it")
        known = [name for run in self for name in (run.run, run.label)]
        raise DlmError(f"{word!r}: no such run among {len(self)}{nearest(word, known)}")

    @cached_property
    def _grouped(self) -> tuple[list[runs.Panel], list[tuple[runs.Run, str]]]:
        return runs.panels(self)

    @property
    def panels(self) -> list[runs.Panel]:
        """The groups whose losses may be compared: the same tokens, unique tokens and length.

        >>> [(panel.unique_tokens, list(panel.families)) for panel in dlm.load("runs/tiny").panels]
        [(512, ['ar', 'masked'])]
        """
        return self._grouped[0]

    @property
    def excluded(self) -> list[tuple[runs.Run, str]]:
        """The runs that are in no panel, each with the reason."""
        return self._grouped[1]

    def table(self) -> pa.Table:
        """One row per run, of every status; the columns and values of runs.parquet.

        >>> dlm.load("runs/tiny").table().select(["objective", "status"]).num_rows
        2
        """
        return runs.table(self)

    def summary(self) -> dict[str, Any]:
        """Every number and sentence of the report, as report.json has them.

        >>> len(dlm.load("runs/tiny").summary()["answers"])  # one sentence a panel
        1
        """
        from dlm.report import summary

        return summary.numbers(self, self.panels, self.excluded)


def load(path: str | Path = "runs", workdir: str | Path = "runs") -> Runs:
    """The runs of a workdir, an experiment's folder, or one run: `path`, or a name below `workdir`.

    Loads no JAX. A damaged run is one of status unreadable, with the reason; none is left out.

    >>> runs = dlm.load("runs/tiny")
    >>> runs["masked"].result["validation_loss"] > 0  # nats per token
    True

    Raises:
      DlmError: there is no such folder, or no run in it.
    """
    folder = addresses.folder(str(path), Path(bucket.local(str(workdir))))
    return Runs((Run(**vars(run)) for run in runs.load(folder)), str(folder))


# --- models -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Model:
    """Weights, config and token store of a run: what scores text and samples."""

    config: config.Config
    store: Store
    params: Any

    def __repr__(self) -> str:
        return f"Model({self.config.objective.name} on {self.store.manifest.name})"

    def log_likelihood(self, texts: str | Sequence[str], **method: Any) -> list[Estimate]:
        """The negative log-likelihood of each text in nats per token, with its kind.

        Of a text longer than the window (`config.data.seq_len` tokens) consecutive windows are scored,
        each without the one before it, and the last at its own length. `value * tokens` are the nats
        of the text. Objective block scores whole blocks: `tokens` says how many were scored. The
        standard error is over windows, NaN of a single one.

        `method`: which number, by the fields of `dlm.evaluation.likelihood.Method`: bound="nelbo",
        "orders" (K-order bound, orders=16), "tangent" (a bound from below) or "path" (exact along
        path="confidence", tokens_per_call=1); mc_stderr, the Monte Carlo error to aim for.

        >>> model = dlm.load("runs/tiny")["ar"].model()
        >>> short, long = model.log_likelihood(["the cat", "the cat " * 9])
        >>> short.kind, short.tokens, long.tokens
        ('exact', 7, 72)

        Raises:
          DlmError: a text without tokens; without a tokenizer, one that is no list of ids.
        """
        from dlm.evaluation import likelihood
        from dlm.evaluation import texts as scoring

        listed = [texts] if isinstance(texts, str) else list(texts)
        how = likelihood.Method(**method)
        return scoring.score_each([self._member()], self.config, self.store, listed, how)

    def _member(self) -> Member:
        from dlm.evaluation.likelihood import Member

        return Member(self.config.model, self.config.objective, self.params)

    def perplexity(self, text: str | os.PathLike[str], **method: Any) -> TextScore:
        """The loss on a text, or on the documents of a file (.txt, .jsonl, .csv, .parquet, ...).

        Scored as a validation split is: each document with its end, in windows, also the last and
        shorter one. `.perplexity`; `.estimate`: nats per token, its standard error over documents (of
        one document, over windows) and its kind; `.bits_per_byte`: None if the tokenizer alters the
        text; `.round_trip`: what it loses. `method`: as of `log_likelihood`.

        >>> found = dlm.load("runs/tiny")["masked"].model().perplexity("new.txt")
        >>> found.estimate.kind, found.estimate.tokens, found.round_trip.characters
        ('upper bound', 37, '7!')

        Raises:
          DlmError: no such file, a file of an unknown kind, or a text without tokens.
        """
        from dlm.evaluation import likelihood
        from dlm.evaluation import texts as scoring

        documents = scoring.read(Path(text)) if _is_file(text) else [str(text)]
        how = likelihood.Method(**method)
        return scoring.score_together([self._member()], self.config, self.store, documents, how)

    def sample(
        self,
        count: int = 1,
        prompt: str = "",
        infill: str = "",
        steps: int = 0,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        order: str = "ancestral",
        budget: float = 0.1,
    ) -> list[str]:
        """`count` texts of `config.data.seq_len` tokens; ids or drawings if the corpus is no text.

        They begin with `prompt`, or hold `infill`, in which [MASK] is one free token and [MASK*N] are
        N. `steps`: calls of the model (0: one a token). The rest is as in `dlm sample --help`.

        >>> texts = dlm.load("runs/tiny")["masked"].model().sample(2, prompt="the ", seed=1)
        >>> [text[:4] for text in texts]
        ['the ', 'the ']

        Raises:
          DlmError: a prompt that is too long or not of the tokenizer, or an option out of range.
        """
        from dlm.evaluation import prompts, sampling
        from dlm.model import keys

        if not (isinstance(count, int) and count >= 1):
            raise DlmError(f"count={count!r}: must be a whole number from 1")
        c, store = self.config, self.store
        free = prompts.infill("--infill", infill, store, c.data.seq_len) if infill else None
        drawn = sampling.sample(
            *(c, store.vocab_size, self.params, keys.key_for(seed, "sample")),
            count=count, prompt=prompts.encode("--prompt", prompt, store), infill=free, steps=steps,
            temperature=temperature, top_p=top_p, order=order, budget=budget,
        )  # fmt: skip
        return [store.decode(ids) for ids in drawn]

    def validation(self, passes: int = 0) -> tuple[Estimate, Estimate]:
        """The loss on the run's validation split, and on as many training windows, nats per token.

        >>> run = dlm.load("runs/tiny")["ar"]
        >>> run.model().validation()[0].value == run.result["validation_loss"]
        True
        """
        import dataclasses

        from dlm.training import run

        c = self.config
        if passes:
            evaluation = dataclasses.replace(c.evaluation, final_mc_samples=passes)
            c = dataclasses.replace(c, evaluation=evaluation)
        (held_out, _), (training, _) = run.final(c, self.store, self.params)
        return held_out, training


def restore(folder: Path, trust: bool = False) -> Model:
    """The best weights of the run in a folder; see `Run.model`."""
    from dlm.training import run

    return Model(*run.restore_best(folder, trust))


def _is_file(text: str | os.PathLike[str]) -> bool:
    """Whether a file is meant: a path, or the name of a file that is there.

    Raises:
      DlmError: one word that looks like the name of a file, where none is.
    """
    if not isinstance(text, str):
        return True
    if len(text) <= 4096 and not inputs.unreadable(Path(text or ".")):
        return True
    if re.fullmatch(r"\S*(/\S*|\w\.[A-Za-z]\w{1,6})", text):
        raise DlmError(f"{text}: no such file; to score it as a text use log_likelihood")
    return False


# --- training -----------------------------------------------------------------------------------


def train(
    experiment: str | Path,
    overrides: Mapping[str, Any] | None = None,
    run: int = 0,
    workdir: str | Path = "runs",
    scale: str = "laptop",
) -> Run:
    """Trains one run of an experiment in this process, or goes on with it, and returns it.

    `overrides` sets config fields by dotted keys, `run` counts the runs of its sweep from 0. A run
    that is finished is returned as it is; after an interruption the same call goes on. Loads JAX.

    >>> run = dlm.train("tiny.py", {"train.duration": "2 steps"}, run=1, workdir="more")
    >>> run.status, run.result["steps"]
    ('finished', 2)

    Raises:
      DlmError: anything wrong with the experiment, an override, its corpus, or `run`; before it trains.
    """
    from dlm.model import sharding
    from dlm.sweep import in_process, local

    values, where = (overrides or {}).items(), bucket.local(str(workdir))
    jobs = local.jobs(str(experiment), scale, values, where, machine=sharding.machine())
    job = chosen(jobs, run)
    in_process.execute([job], lambda: False)
    return load(job.folder)[0]


def chosen(jobs: Sequence[Job], run: int) -> Job:
    """One run of a sweep by its number.

    Raises:
      DlmError: there is no such number.
    """
    if not 0 <= run < len(jobs):
        raise DlmError(f"--run={run}: must be 0 to {len(jobs) - 1}")
    return jobs[run]


def objective(name: str, vocab_size: int, **options: Any) -> Objective:
    """An objective over ids 0 to vocab_size - 1: its `loss`, `nll` and `sample`. Loads JAX.

    `name` is a family of `dlm objectives`, or a Python file of one's own, which is run; `options` are
    fields of the config's group objective. `loss(apply, params, tokens, key)` gives a Sum in nats.

    >>> masked = dlm.objective("masked", vocab_size=257, schedule="cosine")
    >>> masked.name, masked.family.exact, masked.family.extra_tokens
    ('masked', False, 2)

    Raises:
      DlmError: no such family, file or option, or a value out of range.
    """
    from dlm import objectives

    if not (isinstance(vocab_size, int) and vocab_size >= 1):
        raise DlmError(f"vocab_size={vocab_size!r}: must be a whole number from 1")
    values = {f"objective.{key}": value for key, value in options.items()}
    return objectives.make(objective_config(name, values.items()).objective, vocab_size)


def objective_config(name: str, overrides: Iterable[tuple[str, Any]]) -> config.Config:
    """The default config with a built-in objective, or one of a Python file, and overrides.

    Raises:
      DlmError: the name is no family and no Python file, or an override is wrong.
    """
    from dlm import private
    from dlm.config import experiment

    values: Any = config.base()
    if name.endswith(".py"):
        values.objective.file, values.objective.name = name, Path(name).stem
    elif name in config.FAMILIES:
        values.objective.name = name
    else:
        names = nearest(name, config.FAMILIES)
        raise DlmError(f"{name!r}: must be a Python file or an objective's name{names}")
    c = experiment.edited(values, overrides)
    if c.objective.file:
        private.trust(c.objective.file)
    return c


# --- laws ---------------------------------------------------------------------------------------


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

    def predict(self, params: Any, tokens: Any, unique_tokens: Any) -> np.ndarray:
        """The loss in nats per token; raw counts, numbers or arrays that broadcast.

        `tokens` are all that are trained on, `unique_tokens` those that differ (at most `tokens`).

        >>> fit = dlm.fit("table.csv", law="chinchilla", resamples=0)
        >>> fit.predict(1e8, [1e9, 2e9], 1e9).shape
        (2,)

        Raises:
          DlmError: a number that is not above 0.
        """
        import numpy as np

        N, D = _positive("params", params), _positive("tokens", tokens)
        U = np.minimum(_positive("unique_tokens", unique_tokens), D)
        return self.analysis.fit.predict(N, D, U)

    def optimal(self, flops: Any, unique_tokens: Any) -> Optimum:
        """The best use of a compute C = 6 * params * tokens: its `params`, `epochs` and `loss`.

        >>> best = dlm.fit("table.csv", law="chinchilla", resamples=0).optimal(1e20, 1e9)
        >>> bool(1e7 < best.params < 1e11), bool(best.epochs >= 1)
        (True, True)

        Raises:
          DlmError: a number that is not above 0, or a law without a size.
        """
        from dlm.laws import critical

        C, U = _positive("flops", flops), _positive("unique_tokens", unique_tokens)
        return critical.optimal(self.analysis.fit.law, self.coefficients, C, U)


def _positive(name: str, values: Any) -> np.ndarray:
    import numpy as np

    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise DlmError(f"{name}={values!r}: must be a number, or an array of them") from None
    if not (np.isfinite(array) & (array > 0)).all():
        raise DlmError(f"{name}={values!r}: must be above 0 and finite")
    return array


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
    if not (isinstance(resamples, int) and resamples >= 0):
        raise DlmError(f"resamples={resamples!r}: must be a whole number from 0")
    for meaning, title in (columns or {}).items():
        titles.check_meaning(f"{meaning}={title}", meaning)
    if isinstance(table, str | Path):
        found = tables.one(table, family, columns=columns)
    elif columns:
        raise DlmError(f"columns={dict(columns)!r}: runs have known columns; leave it out")
    else:
        found = tables.of_family(tables.from_runs(table, "best", "runs"), family)
    return FittedLaw(analysis.analyse(found, law, resamples=resamples, seed=seed))


class CriticalCompute(NamedTuple):
    """The FLOPs above which the second family's best loss stays below the first's, at U."""

    compute: float  # NaN: there is no such compute; `status` says why
    interval: tuple[float, float]  # 90%, by bootstrap: infinity is an open end, NaN not known
    status: str
    unique_tokens: float
    warnings: tuple[str, ...]  # what the number rests on beyond the runs


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
