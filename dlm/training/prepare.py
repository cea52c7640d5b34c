"""One run, worked out once: the plan, the mesh, and the windows that are scored."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from dlm import config
from dlm.config import planning
from dlm.data import windows as data
from dlm.data.store import Store
from dlm.evaluation import score as evaluation
from dlm.model import Params, sharding
from dlm.runs.estimate import Estimate


class Windows(NamedTuple):
    """Windows that are scored, and the document in which each of them starts."""

    tokens: Int[np.ndarray, "n L"]
    documents: Int[np.ndarray, " n"]


class Splits(NamedTuple):
    """Windows of the validation split, and up to as many of the training split."""

    validation: Windows
    train: Windows


class Scored(NamedTuple):
    """The loss on some windows, and the nats of each window that it is the mean of."""

    estimate: Estimate
    nats: Float[np.ndarray, " n"]


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
        total = len(validation.tokens)
        count = min(self.config.evaluation.sequences or total, total)
        spread = np.arange(count) * total // count
        return Splits(
            Windows(validation.tokens[spread], validation.documents[spread]),
            Windows(train.tokens[:count], train.documents[:count]),
        )


def prepare(c: config.Config, store: Store) -> Prepared:
    """Works out the plan, the mesh and the ids of a run.

    Raises:
      DlmError: the config does not suit the corpus, or the mesh does not suit the devices.
    """
    plan = planning.plan(
        c,
        train_tokens=len(store.train),
        validation_tokens=len(store.validation),
        vocab_size=store.vocab_size,
    )
    return Prepared(
        config=c,
        store=store,
        plan=plan,
        mesh=sharding.make_mesh(c),
        run_id=config.run_id(c, store.fingerprint),
        trunk_id=config.trunk_id(c, store.fingerprint, plan.warmup, plan.evaluate_every),
    )


def score(prepared: Prepared, params: Params, *, final: bool) -> tuple[Scored, Scored]:
    """Scores validation windows and up to as many training windows with one estimator.

    `final`: all windows and `evaluation.final_mc_samples`; otherwise the tracked windows and
    `evaluation.mc_samples`. An exact likelihood takes one pass, as nothing is drawn.
    """
    c = prepared.config
    exact = c.objective.family.exact
    passes = c.evaluation.final_mc_samples if final else c.evaluation.mc_samples
    passes = 1 if exact else passes
    scored = []
    for windows in prepared.all_windows if final else prepared.tracked_windows:
        nats = evaluation.score(
            c, prepared.store.vocab_size, params, windows.tokens, passes, prepared.mesh
        )
        kind = "exact" if exact else "upper bound"
        lengths = np.full(len(nats), c.data.seq_len)
        estimate = evaluation.estimate(nats, lengths, windows.documents, kind)
        scored.append(Scored(estimate, nats))
    return scored[0], scored[1]
