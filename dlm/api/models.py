"""A trained model: it scores texts and draws samples. JAX is imported inside the functions."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm import config, inputs
from dlm.config.families import SCORED_AS
from dlm.errors import ArgumentError, DlmError, nearest
from dlm.runs.estimate import Estimate

if TYPE_CHECKING:
    from dlm.config.method import Method
    from dlm.data.store import Store
    from dlm.evaluation.likelihood import Likelihood, Member
    from dlm.evaluation.texts import TextScore


@dataclass(frozen=True, eq=False)
class Model:
    """Weights, config and token store of a run: what scores text and samples."""

    config: config.Config
    store: Store
    params: Any
    others: tuple[Model, ...] = ()  # of an ensemble

    def __repr__(self) -> str:
        return f"Model({self.config.objective.name} on {self.store.manifest.name})"

    @inputs.checked
    def log_likelihood(self, texts: str | Sequence[str], **method: Any) -> list[Estimate]:
        """The negative log-likelihood of each text in nats per token, with its kind.

        Of a text longer than the window (`config.data.seq_len` tokens) consecutive windows are scored,
        each without the one before it, and the last at its own length. `value * tokens` are the nats
        of the text. Objective block scores whole blocks: `tokens` says how many were scored. The
        standard error is over windows, NaN of a single one.

        `method`: which number, by the fields of `dlm.config.method.Method`: bound="nelbo",
        "orders" (K-order bound, orders=16), "tangent" (a bound from below) or "path" (exact along
        path="confidence", tokens_per_call=1); mc_stderr, the Monte Carlo error to aim for.

        >>> model = dlm.load("runs/tiny")["ar"].model()
        >>> short, long = model.log_likelihood(["the cat", "the cat " * 9])
        >>> short.kind, short.tokens, long.tokens
        ('exact', 7, 72)

        Raises:
          DlmError: a text without tokens; without a tokenizer, one that is no list of ids.
        """
        from dlm.evaluation import texts as scoring

        listed = [texts] if isinstance(texts, str) else list(texts)
        how = self._text_method(method)
        return scoring.score_each(self._members(), self.store, listed, how)

    @inputs.checked
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
        from dlm.evaluation import texts as scoring

        documents = scoring.read(Path(text)) if _is_file(text) else [str(text)]
        how = self._text_method(method)
        return scoring.score_together(self._members(), self.store, documents, how)

    @inputs.checked
    def sample(
        self,
        count: int = 1,
        prompt: str = "",
        infill: str = "",
        steps: int = 0,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        sampler: str = "ancestral",
        entropy_budget: float = 0.1,
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
        from dlm.config import planning
        from dlm.evaluation import prompts, sampling
        from dlm.model import keys, sharding

        if count < 1:
            raise DlmError(f"count={count!r}: must be a whole number from 1")
        c, store = self.config, self.store
        planning.check_sampling(c, planning.plan(c, **store.sizes), sharding.machine(), count)
        free = prompts.infill("infill", infill, store, c.data.seq_len) if infill else None
        drawn = sampling.sample(
            *(c, store.vocab_size, self.params, keys.key_for(seed, "sample")),
            count=count, prompt=prompts.encode("prompt", prompt, store), infill=free, steps=steps,
            temperature=temperature, top_p=top_p, sampler=sampler, entropy_budget=entropy_budget,
        )  # fmt: skip
        return [store.decode(ids) for ids in drawn]

    @inputs.checked
    def validation(self, part: str = "validation", **method: Any) -> Estimate:
        """The loss on the run's validation split in nats per token, or on `part` "train": as many of
        its training windows. `method`: as of `log_likelihood`; also windows=128, spread over the split.

        >>> run = dlm.load("runs/tiny")["ar"]
        >>> run.model().validation().value == run.result["validation_loss"]
        True
        """
        return next(iter(self.likelihoods(part, **method).values())).estimate

    @inputs.checked
    def likelihoods(self, part: str = "validation", **method: Any) -> dict[str, Likelihood]:
        """Every number that a method of `validation` gives, by name, with the nats of each window.

        Bounds orders and tangent come together, with the NELBO of the same orders.

        >>> model = dlm.load("runs/tiny")["masked"].model()
        >>> numbers = model.likelihoods(bound="orders", orders=4, windows=8)
        >>> [(name, number.estimate.kind) for name, number in numbers.items()]
        [('orders', 'upper bound'), ('nelbo', 'upper bound'), ('tangent', 'lower bound')]

        Raises:
          DlmError: an unknown part or option, or a number that the objective has not.
        """
        from dlm.evaluation import likelihood
        from dlm.training import prepare

        if part not in ("validation", "train"):
            raise DlmError(f"part={part!r}: must be validation or train")
        how = self._method(method)
        prepared = prepare.prepare(self.config, self.store)
        windows = prepare.chosen(getattr(prepared.all_windows, part), how.windows)
        return likelihood.score_windows(self._members(), self.store.vocab_size, *windows, how)

    @inputs.checked
    def scored_as(self, family: str) -> Model:
        """A dual model that is scored and sampled as "ar" or "masked", however its run was scored.

        >>> dual = dlm.load("runs/tiny")["ar"].model().scored_as("masked")
        Traceback (most recent call last):
        dlm.errors.ArgumentError: scored_as=masked: only of a dual run; this is one of ar

        Raises:
          DlmError: the model is of another objective, or `family` is neither.
        """
        from dlm.config import experiment

        objective = self.config.objective
        if objective.name != "dual":
            raise ArgumentError(
                "scored_as", f"={family}: only of a dual run; this is one of {objective.name}"
            )
        if family not in SCORED_AS:
            raise ArgumentError("scored_as", f"={family}: must be {' or '.join(SCORED_AS)}")
        others = tuple(other.scored_as(family) for other in self.others)
        c = experiment.edited(self.config, [("objective.scored_as", family)])
        return dataclasses.replace(self, config=c, others=others)

    def _text_method(self, options: dict[str, Any]) -> Method:
        if "windows" in options:
            raise DlmError("windows: of the validation split alone; a text is scored whole")
        return self._method(options)

    def _method(self, options: dict[str, Any]) -> Method:
        from dlm.config.method import Method

        known = [field.name for field in dataclasses.fields(Method)]
        for name in options:
            if name not in known:
                raise DlmError(f"{name}: no such option of a likelihood{nearest(name, known)}")
        values: dict[str, Any] = {"mc_stderr": self.config.evaluation.mc_stderr} | options
        return Method(**values)

    def _members(self) -> list[Member]:
        from dlm.evaluation.likelihood import Member

        return [Member(m.config, m.params) for m in (self, *self.others)]


@inputs.checked
def ensemble(models: Sequence[Model]) -> Model:
    """Several models as one, whose probability of each token is the mean of theirs. It scores; to
    sample, take one of them.

    >>> runs = dlm.load("runs/tiny")
    >>> both = dlm.ensemble([runs["masked"].model(), runs["masked"].model()])
    >>> abs(both.validation().value - runs["masked"].model().validation().value) < 0.01
    True

    Raises:
      DlmError: no model, or models of other tokens or other options of their objective.
    """
    if not models:
        raise DlmError("ensemble: must be one model or more")
    first, *others = [
        dataclasses.replace(m, others=()) for each in models for m in (each, *each.others)
    ]
    for other in others:
        if other.store.fingerprint != first.store.fingerprint:
            raise DlmError("ensemble: its members were trained on other tokens")
        if other.config.data.seq_len != first.config.data.seq_len:
            raise DlmError("ensemble: its members have windows of other lengths")
    return dataclasses.replace(first, others=tuple(others))


def restore(folder: Path, trust: bool = False) -> Model:
    """The best weights of the run in a folder; see `Run.model`."""
    from dlm.sweep import worker
    from dlm.training import run

    worker.prepare_jax()
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
