"""One run from config to result: train, score the best weights on everything held out, write it all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from dlm import config, disk, private
from dlm.data.store import Store
from dlm.errors import DlmError, one_line
from dlm.evaluation import sampling, score
from dlm.model import keys, sharding
from dlm.runs import bucket
from dlm.training import checkpoint, distributed, loop, metrics, prepare, record, step

WRITTEN_INTO = (".lock", "metrics.jsonl", "tensorboard", "checkpoints")


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether this process alone may work in a run's folder. The lock goes with the process.

    Raises:
      DlmError: the folder, or a thing in it that is written into, is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent, folder, *(folder / name for name in WRITTEN_INTO)):
        disk.refuse_link(path)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def run(
    c: config.Config,
    store: Store,
    folder: Path,
    about: dict[str, Any],
    *,
    trunk: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Trains and scores one run; returns its result, which is also in result.json.

    `about` holds experiment, run, label, overrides and question. The caller holds the claim. Of
    several processes the primary writes.

    Raises:
      train.Interrupted: asked to stop, a checkpoint is saved.
      DlmError, or any exception of the training: `recorded` writes it down.
    """
    prepared = prepare.prepare(c, store)
    plan = prepared.plan
    if distributed.primary():
        record.start(folder, prepared, about)
    outcome = loop.train(prepared, folder, trunk=trunk, stop=stop, report=report)
    progress = outcome.progress
    warnings = [*progress.warnings, *progress.gaps]
    if progress.mfu is None:
        warnings.append(
            f"MFU is unknown: training ran faster than the peak of {record.device()}, a reading "
            "that other programs lower; no other number depends on it"
        )
    steps, best = progress.step, progress.best_step
    tokens = steps * plan.tokens_per_step
    result = record.identity(c, about) | dict(
        status="diverged" if progress.reason else "finished",
        reason=progress.reason or None,
        fingerprint=store.fingerprint,
        vocab_size=store.vocab_size,
        bytes_per_token=store.bytes_per_token,
        entropy=store.manifest.entropy,
        seq_len=c.data.seq_len,
        unique_tokens=plan.unique_tokens,
        epochs=tokens / plan.unique_tokens,
        steps=steps,
        tokens=tokens,
        batch_size=c.train.batch_size,
        params=plan.parameters.total,
        params_non_embedding=plan.parameters.non_embedding,
        flops=steps * plan.flops_per_step,
        flops_6nd=steps * plan.flops_6nd_per_step,
        shared_steps=progress.shared_steps,
        best_step=best,
        best_epoch=best * plan.tokens_per_step / plan.unique_tokens,
        best_flops=best * plan.flops_per_step,
        last_validation_loss=progress.last_loss,
        passes=c.evaluation.final_mc_samples,
        seconds=progress.seconds,
        tokens_per_second=progress.tokens_per_second,
        mfu=progress.mfu,
        device=record.device(),
        versions=record.versions(),
        gaps=progress.gaps,  # what the curve lacks; in the warnings too
        warnings=warnings,  # what went wrong and cost no number
    )
    scored = dict.fromkeys(
        ("validation_loss", "validation_stderr", "validation_tokens", "bits_per_byte")
        + ("train_loss", "train_stderr")
    )
    if not progress.reason:
        report({"phase": "final evaluation"})
        validation, train = prepare.score(prepared, outcome.best, final=True)
        val_estimate, train_estimate = validation.estimate, train.estimate
        if distributed.primary():
            documents = prepared.all_windows.validation.documents
            disk.write_array(folder / "nll.npy", validation.nats)
            disk.write_array(folder / "nll_documents.npy", documents)
        with _warned("no samples", warnings):
            samples = _samples(c, store, outcome.best)
            if distributed.primary():
                _write_samples(store, folder, samples)
        scored = dict(
            validation_loss=val_estimate.value,
            validation_stderr=val_estimate.stderr,
            validation_tokens=val_estimate.tokens,
            bits_per_byte=score.bits_per_byte(val_estimate, store.bytes_per_token),
            train_loss=train_estimate.value,
            train_stderr=train_estimate.stderr,
        )
    if distributed.primary():
        disk.write_array(folder / "ledger.npy", outcome.ledger)
        record.finish(folder, result | scored)
        if problem := bucket.try_send(folder):
            warnings.append(f"{problem}; the next call sends it")
            record.finish(folder, result | scored)
    return result | scored


@contextlib.contextmanager
def _warned(what: str, warnings: list[str]) -> Iterator[None]:
    """Notes whatever goes wrong inside; the scores that were made before it stay."""
    try:
        yield
    except Exception as error:
        warnings.append(f"{what}: {one_line(error)}")


@contextlib.contextmanager
def recorded(folder: Path, c: config.Config, about: dict[str, Any]) -> Iterator[None]:
    """Records in the run's folder whatever goes wrong inside (`record.fail`), then raises it on."""
    try:
        yield
    except loop.Interrupted:
        raise
    except Exception as error:
        record.fail(folder, c, about, error)
        bucket.try_send(folder)
        raise


def final(c: config.Config, store: Store, params: Any) -> tuple[prepare.Scored, prepare.Scored]:
    """The final scores of a config's weights: see `dlm.training.prepare.score`."""
    return prepare.score(prepare.prepare(c, store), params, final=True)


def opened(folder: Path, trust: bool = False) -> tuple[config.Config, Store]:
    """The config and the tokens of a run. `trust`: also if the run's objective is a Python file that
    this user has not trained with here.

    Raises:
      DlmError: not a run, damaged, its tokens are not there, or code that is not trusted.
    """
    from dlm.data import build

    if problem := record.problem(folder):
        raise DlmError(problem)
    about, values = (record.read_json(folder / name) for name in ("run.json", "config.json"))
    try:
        c = config.from_json(values)
        place = (folder / about["corpus"]["path"]).resolve()
        run_id, fingerprint = about["run"], about["corpus"]["fingerprint"]
    except (DlmError, KeyError, TypeError) as error:
        raise DlmError(f"{folder}: no run of this dlm: {one_line(error)}") from None
    if config.run_id(c, fingerprint) != run_id:
        raise DlmError(f"{folder}: config.json is not that of run {run_id}")
    if c.objective.file and not trust:
        private.check_trusted(c.objective.file, folder)
    if place.exists() or bucket.place(folder) == folder.absolute():
        store = build.load(place)
    else:  # of a run from a bucket: each machine builds its own
        store = build.build(c.corpus, c.tokenizer, folder.parents[1] / "corpora")
    if store.fingerprint != fingerprint:
        raise DlmError(f"{folder}: was trained on other tokens than those of {store.path}")
    return c, store


def restore_best(folder: Path, trust: bool = False) -> tuple[config.Config, Store, Any]:
    """Config, tokens and best weights of a run that has a checkpoint.

    If the last checkpoint is damaged the one before it serves too, unless its best weights are
    others than those that the run's result was scored with. `trust`: also if the run's objective is
    a Python file that this user has not trained with here, which is then run.

    Raises:
      DlmError: not a run, no checkpoint yet, none that can be read, or code that is not trusted.
    """
    c, store = opened(folder, trust)
    mesh = sharding.make_mesh(c)
    parts = step.saved_parts(c, store.vocab_size, mesh)
    run_id = config.run_id(c, store.fingerprint)
    with checkpoint.open_checkpoints(folder / "checkpoints", run_id) as checkpoints:
        saved = checkpoint.restore(checkpoints, state=parts["state"], best=parts["best"])
    if saved is None:
        raise DlmError(f"{folder}: has no checkpoint yet; train it first with dlm run or dlm train")
    if record.status(folder) in record.DONE:
        best, scored = (
            values["best_step"]
            for values in (saved["progress"], record.read_json(folder / "result.json"))
        )
        if best != scored:
            raise DlmError(
                f"{folder}: its last whole checkpoint has the best weights of step {best}, its result "
                f"was scored with those of step {scored}; put the damaged checkpoint's files back"
            )
    return c, store, saved["best"]


def _samples(c: config.Config, store: Store, params: Any) -> np.ndarray:
    if c.evaluation.samples == 0:
        return np.zeros((0, c.data.seq_len), np.int32)
    key = keys.key_for(c.train.seed, "samples")
    return sampling.sample(c, store.vocab_size, params, key, count=c.evaluation.samples)


def _write_samples(store: Store, folder: Path, drawn: np.ndarray) -> None:
    if len(drawn) == 0:
        return
    disk.write_array(folder / "samples.npy", drawn)
    text = "\n-----\n".join(store.decode(x) for x in drawn) + "\n"
    disk.write(folder / "samples.txt", text)
    metrics.write_text(folder, "samples", f"```\n{text}```")
