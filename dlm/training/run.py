"""One run from config to result: trains, scores the best weights on all held-out windows, writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dlm import config, disk, private
from dlm.config import planning
from dlm.config.method import parse
from dlm.data.store import Store, notes
from dlm.errors import DlmError, one_line
from dlm.evaluation import likelihood, sampling, score
from dlm.evaluation.likelihood import Likelihood
from dlm.model import Params, keys, sharding
from dlm.runs import bucket, likelihoods
from dlm.runs import folder as run_folder
from dlm.runs.load import value_at
from dlm.runs.schema import (
    DIVERGED,
    FINISHED,
    CorpusInfo,
    PlanNumbers,
    RunInfo,
    RunResult,
    RunStart,
)
from dlm.training import checkpoint, distributed, environment, loop, metrics, prepare, step
from dlm.training.hooks import Report
from dlm.training.prepare import Prepared
from dlm.training.progress import Progress


def train_and_score(
    c: config.Config,
    store: Store,
    folder: Path,
    info: RunInfo,
    *,
    trunk: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Report = lambda row: None,
) -> RunResult:
    """Trains and scores one run; returns its result, which is also in result.json.

    The caller holds the claim (`dlm.runs.folder.claim`). Of several processes the primary writes.
    `trunk`, `stop` and `report` are those of `dlm.training.loop.train`; after the training a row that
    is reported names the phase, the share of it that is done, and `work`, the FLOPs of all that is.

    Raises:
      loop.Interrupted: asked to stop; a checkpoint is saved.
      DlmError, or any exception of the training: `recorded` writes it down.
    """
    prepared = prepare.prepare(c, store)
    if distributed.primary():
        run_folder.begin(folder, c, _start(prepared, folder, info))
    outcome = loop.train(prepared, folder, trunk=trunk, stop=stop, report=report)
    progress = outcome.progress
    warnings = [*progress.warnings, *progress.gaps]
    if progress.mfu is None:
        warnings.append(
            f"MFU is unknown: training ran faster than the peak of {environment.device()}, a reading "
            "that other programs lower; no other number depends on it"
        )
    scored = None
    if not progress.reason:
        work = planning.work(c, prepared.plan)
        tell = _phase(report, "final score", work.training + work.tracked, work.final)
        scored = prepare.score(prepared, outcome.best, final=True, tell=tell)
        if distributed.primary():
            disk.write_array(folder / run_folder.NLL, scored[0].nats)
            documents = prepared.all_windows.validation.documents
            disk.write_array(folder / run_folder.NLL_DOCUMENTS, documents)
        if c.evaluation.final:
            with _warned(f"not scored by {c.evaluation.final}", warnings):
                _score_further(prepared, outcome.best, folder, report)
        if c.evaluation.samples:
            _phase(report, "samples", work.training + work.after - work.samples, work.samples)
        with _warned("no samples", warnings):
            samples = _samples(c, store, outcome.best)
            if distributed.primary():
                _write_samples(store, folder, samples)
    result = _result(prepared, info, progress, scored, warnings)
    if distributed.primary():
        disk.write_array(folder / run_folder.LEDGER, outcome.ledger)
        run_folder.finish(folder, result)
        if problem := bucket.try_send(folder):
            warnings.append(f"{problem}; the next call sends it")
            result = _result(prepared, info, progress, scored, warnings)
            run_folder.finish(folder, result)
    return result


def _phase(report: Report, phase: str, before: float, flops: float) -> score.Tell:
    """What tells of a part of a run after its training: `before` and `flops` are its FLOPs as
    `planning.work` counts them, those before it and its own."""

    def tell(share: float) -> None:
        report({"phase": phase, "share": share, "work": before + share * flops})

    tell(0.0)
    return tell


def _score_further(prepared: Prepared, params: Params, folder: Path, report: Report) -> None:
    """Scores the best weights by the number of evaluation.final, and keeps it in the run's folder."""
    how = parse(prepared.config.evaluation.final)
    windows = prepare.chosen(prepared.all_windows.validation, how.windows)
    work = planning.work(prepared.config, prepared.plan)
    before = work.training + work.tracked + work.final
    tell = _phase(report, f"final score by {how.bound}", before, work.further)
    numbers = prepare.score_by(prepared, params, windows, how, tell)
    kept = likelihood.to_keep(numbers, how)
    if kept and distributed.primary():
        likelihoods.write(folder, kept)


def _start(prepared: Prepared, folder: Path, info: RunInfo) -> RunStart:
    """What run.json says of a run before its first step."""
    store, plan = prepared.store, prepared.plan
    numbers = PlanNumbers(
        steps=plan.steps,
        epochs=plan.epochs,
        unique_tokens=plan.unique_tokens,
        tokens_per_step=plan.tokens_per_step,
        params=plan.parameters.total,
        flops=plan.steps * plan.flops_per_step,
    )
    corpus = CorpusInfo(
        path=os.path.relpath(store.path, folder),
        name=store.manifest.name,
        fingerprint=store.fingerprint,
        vocab_size=store.vocab_size,
        bytes_per_token=store.bytes_per_token,
        python=store.manifest.python,
        notes=notes(store.manifest),
    )
    versions, device = environment.versions(), environment.device()
    return RunStart(**vars(info), plan=numbers, corpus=corpus, versions=versions, device=device)


def _result(
    prepared: Prepared,
    info: RunInfo,
    progress: Progress,
    scored: tuple[Likelihood, Likelihood] | None,
    warnings: list[str],
) -> RunResult:
    """The numbers of a run that ended; `scored` is None if it diverged."""
    c, store, plan = prepared.config, prepared.store, prepared.plan
    val_estimate, train_estimate = [part.estimate for part in scored] if scored else (None, None)
    tokens = progress.step * plan.tokens_per_step
    return RunResult(
        **run_folder.identity(c, info),
        status=DIVERGED if progress.reason else FINISHED,
        reason=progress.reason or None,
        fingerprint=store.fingerprint,
        vocab_size=store.vocab_size,
        bytes_per_token=store.bytes_per_token,
        entropy=store.manifest.entropy,
        seq_len=c.data.seq_len,
        unique_tokens=plan.unique_tokens,
        epochs=tokens / plan.unique_tokens,
        steps=progress.step,
        tokens=tokens,
        batch_size=c.train.batch_size,
        params=plan.parameters.total,
        params_non_embedding=plan.parameters.non_embedding,
        flops=progress.step * plan.flops_per_step,
        flops_6nd=progress.step * plan.flops_6nd_per_step,
        shared_steps=progress.shared_steps,
        best_step=progress.best_step,
        best_epoch=progress.best_step * plan.tokens_per_step / plan.unique_tokens,
        best_flops=progress.best_step * plan.flops_per_step,
        last_validation_loss=progress.last_loss,
        mc_samples=scored[0].mc_samples if scored else None,
        seconds=progress.seconds,
        tokens_per_second=progress.tokens_per_second,
        mfu=progress.mfu,
        device=environment.device(),
        versions=environment.versions(),
        gaps=progress.gaps,
        warnings=warnings,
        validation_loss=val_estimate and val_estimate.value,
        validation_stderr=val_estimate and val_estimate.stderr,
        validation_mc_stderr=val_estimate and val_estimate.mc_stderr,
        validation_tokens=val_estimate and val_estimate.tokens,
        bits_per_byte=val_estimate and score.bits_per_byte(val_estimate, store.bytes_per_token),
        train_loss=train_estimate and train_estimate.value,
        train_stderr=train_estimate and train_estimate.stderr,
    )


@contextlib.contextmanager
def _warned(what: str, warnings: list[str]) -> Iterator[None]:
    """Turns whatever goes wrong inside into a warning; the scores that were made before it stay."""
    try:
        yield
    except Exception as error:
        warnings.append(f"{what}: {one_line(error)}")


@contextlib.contextmanager
def recorded(folder: Path, c: config.Config, info: RunInfo) -> Iterator[None]:
    """Records whatever goes wrong inside as a failed run (`run_folder.fail`), then raises it again."""
    try:
        yield
    except loop.Interrupted:
        raise
    except Exception as error:
        run_folder.fail(folder, c, info, error)
        bucket.try_send(folder)
        raise


def _samples(c: config.Config, store: Store, params: Params) -> np.ndarray:
    if c.evaluation.samples == 0:
        return np.zeros((0, c.data.seq_len), np.int32)
    key = keys.key_for(c.train.seed, "samples")
    return sampling.sample(c, store.vocab_size, params, key, count=c.evaluation.samples)


def _write_samples(store: Store, folder: Path, samples: np.ndarray) -> None:
    if len(samples) == 0:
        return
    disk.write_array(folder / run_folder.SAMPLES, samples)
    text = "\n-----\n".join(store.decode(ids) for ids in samples) + "\n"
    disk.write(folder / run_folder.SAMPLES_TEXT, text)
    metrics.write_text(folder, "samples", f"```\n{text}```")


# --- runs that are there ------------------------------------------------------------------------


def opened(folder: Path, trust: bool = False) -> tuple[config.Config, Store]:
    """The config and the tokens of a run.

    `trust`: also if the run's objective is a Python file that this user has not trained with here.

    Raises:
      DlmError: not a run, damaged, its tokens are not there, or code that is not trusted.
    """
    from dlm.data import build

    if problem := run_folder.problem(folder):
        raise DlmError(problem)
    start = run_folder.read_start(folder)
    values = run_folder.read_json(folder / run_folder.CONFIG)
    if not trust and (file := value_at(values, "objective.file")):
        private.check_trusted(str(file), folder)  # the options are those that this file names
    try:
        c = config.from_json(values)
        place = (folder / start.corpus.path).resolve()
    except (DlmError, KeyError, TypeError, ValueError) as error:
        raise DlmError(f"{folder}: no run of this dlm: {one_line(error)}") from None
    if config.run_id(c, start.corpus.fingerprint) != start.run_id:
        raise DlmError(f"{folder}: {run_folder.CONFIG} is not that of run {start.run_id}")
    if place.exists() or bucket.place(folder) == folder.absolute():
        store = build.load(place)
    else:  # a run from a bucket: each machine builds its own store
        store = build.build(c.corpus, c.tokenizer, folder.parents[1] / "corpora")
    if store.fingerprint != start.corpus.fingerprint:
        raise DlmError(f"{folder}: was trained on other tokens than those of {store.path}")
    return c, store


def restore_best(folder: Path, trust: bool = False) -> tuple[config.Config, Store, Params]:
    """Config, tokens and best weights of a run that has a checkpoint.

    If the last checkpoint is damaged the one before it serves too, unless its best weights are not
    those that the run's result was scored with. `trust`: also if the run's objective is a Python
    file that this user has not trained with here, which is then run.

    Raises:
      DlmError: not a run, no checkpoint yet, none that can be read, or code that is not trusted.
    """
    c, store = opened(folder, trust)
    parts = step.saved_parts(c, store.vocab_size, sharding.make_mesh(c))
    run_id = config.run_id(c, store.fingerprint)
    opening = checkpoint.open_checkpoints(folder / run_folder.CHECKPOINTS, run_id)
    with opening as checkpoints:
        saved = checkpoint.restore(checkpoints, state=parts["state"], best=parts["best"])
    if saved is None:
        raise DlmError(f"{folder}: has no checkpoint yet; train it first with dlm run or dlm train")
    if run_folder.status(folder) in run_folder.DONE:
        result = run_folder.read_result(folder)
        best_step = saved["progress"]["best_step"]
        if isinstance(result, RunResult) and result.best_step != best_step:
            raise DlmError(
                f"{folder}: its last whole checkpoint has the best weights of step {best_step}, its "
                f"result was scored with those of step {result.best_step}; put the damaged "
                "checkpoint's files back"
            )
    return c, store, saved["best"]
