"""One run, worked out once: the plan, the mesh, and the windows that are scored."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from dlm import config
from dlm.config import planning
from dlm.config.method import Method
from dlm.data import windows as data
from dlm.data.store import Store
from dlm.evaluation import likelihood
from dlm.evaluation import score as evaluation
from dlm.evaluation.likelihood import Likelihood
from dlm.model import Params, sharding
from dlm.runs.likelihoods import spread


class Windows(NamedTuple):
    """Windows that are scored, and the document in which each of them starts."""

    tokens: Int[np.ndarray, "n L"]
    documents: Int[np.ndarray, " n"]


class Splits(NamedTuple):
    """Windows of the validation split, and up to as many of the training split."""

    validation: Windows
    train: Windows


@dataclass(frozen=True, eq=False)
class Prepared:
    """What training, scoring and the records of a run read. Windows are gathered when first used."""

    config: config.Config
    store: Store
    plan: planning.Plan
    mesh: jax.sharding.Mesh
    run_id: str
    trunk_id: str  # "": the run shares no steps with others

    @functools.cached_property
    def all_windows(self) -> Splits:
        """The whole validation split, and up to as many training windows: the final scores."""
        store, length = self.store, self.config.data.seq_len
        held_out = data.validation_windows(store, length)
        unique = min(self.plan.unique_tokens, held_out.size)
        subset = (store, length, unique, self.config.data.subset)
        return Splits(
            Windows(held_out, data.validation_documents(store, length)),
            Windows(data.training_windows(*subset), data.training_documents(*subset)),
        )

    @functools.cached_property
    def tracked_windows(self) -> Splits:
        """`evaluation.sequences` windows of each split: the scores while training.

        The validation windows are spread over all documents, not the first ones.
        """
        validation, train = self.all_windows
        tracked = chosen(validation, self.config.evaluation.sequences)
        count = len(tracked.tokens)
        return Splits(tracked, Windows(train.tokens[:count], train.documents[:count]))


def prepare(c: config.Config, store: Store) -> Prepared:
    """Works out the plan, the mesh and the ids of a run.

    Raises:
      DlmError: the config does not suit the corpus, or the mesh does not suit the devices.
    """
    plan = planning.plan(c, **store.sizes)
    return Prepared(
        config=c,
        store=store,
        plan=plan,
        mesh=sharding.make_mesh(c),
        run_id=config.run_id(c, store.fingerprint),
        trunk_id=config.trunk_id(c, store.fingerprint, plan.warmup, plan.evaluate_every),
    )


def score(
    prepared: Prepared, params: Params, *, final: bool, tell: evaluation.Tell = evaluation.silent
) -> tuple[Likelihood, Likelihood]:
    """Scores validation windows and up to as many training windows with one estimator.

    `final`: all windows, with Monte Carlo samples until `evaluation.mc_stderr` is met; otherwise the
    tracked windows with `evaluation.mc_samples`. An exact likelihood draws nothing. `tell` is told the
    share of the final scores that is done.
    """
    if not final:
        validation, train = (
            _score_tracked(prepared, params, part) for part in prepared.tracked_windows
        )
        return validation, train
    windows = prepared.all_windows
    held_out = len(windows.validation.tokens)
    share = held_out / (held_out + len(windows.train.tokens))
    how = Method(mc_stderr=prepared.config.evaluation.mc_stderr)

    def scored(part: Windows, begin: float, share: float) -> Likelihood:
        numbers = score_by(prepared, params, part, how, lambda done: tell(begin + share * done))
        return next(iter(numbers.values()))

    return scored(windows.validation, 0.0, share), scored(windows.train, share, 1 - share)


def _score_tracked(prepared: Prepared, params: Params, windows: Windows) -> Likelihood:
    c, exact = prepared.config, prepared.config.objective.family.exact
    passes = 1 if exact else c.evaluation.mc_samples
    nats = evaluation.score(
        c, prepared.store.vocab_size, params, windows.tokens, passes, prepared.mesh
    )
    kind = "exact" if exact else "upper bound"
    lengths = np.full(len(nats), c.data.seq_len)
    estimate = evaluation.estimate(nats, lengths, windows.documents, kind)
    unknown = np.full(len(nats), 0.0 if exact else np.nan)
    return Likelihood(estimate, nats, unknown, windows.documents, 0 if exact else passes)


def score_by(
    prepared: Prepared,
    params: Params,
    windows: Windows,
    how: Method,
    tell: evaluation.Tell = evaluation.silent,
) -> dict[str, Likelihood]:
    """Scores windows by any number for a likelihood; see `likelihood.score_windows`."""
    member = likelihood.Member(prepared.config, params)
    return likelihood.score_windows([member], prepared.store.vocab_size, *windows, how, tell)


def chosen(windows: Windows, count: int) -> Windows:
    """`count` windows, spread evenly over all of them; 0: all."""
    total = len(windows.tokens)
    rows = spread(min(count or total, total), total)
    return Windows(windows.tokens[rows], windows.documents[rows])
