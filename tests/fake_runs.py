"""Writes run directories in the format of the contract, with planted curves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlm import config as cfg
from dlm import sealed
from dlm.runs import folder as run_folder
from dlm.runs import schema

FLOPS_PER_EPOCH = 1e10
Law = Callable[[np.ndarray], np.ndarray]  # compute in FLOPs -> nats per token


def diffusion(crossing: float, plateau: float, exponent: float = 0.06) -> Law:
    """A power law that meets `plateau` at `crossing` FLOPs."""
    return lambda c: plateau * (c / crossing) ** -exponent


def autoregressive(plateau: float, best: float) -> Law:
    """Falls to `plateau` at `best` FLOPs exactly, then over-fits."""
    return lambda c: plateau * (1 + 0.02 * np.log(c / best) ** 2)


def write_run(
    workdir: Path,
    law: Law,
    *,
    experiment: str = "quickstart",
    objective: str = "ar",
    seed: int = 0,
    lr: float = 2e-3,
    epochs: int = 200,
    corpus: str = "digits",
    fingerprint: str = "f" * 64,
    unique_tokens: int = 6400,
    shift: float = 0.0,
    status: str | None = "finished",
    windows: int = 50,
    samples: str = "a <b> sample\n",
    final: float | None = None,
    note: str = "",
    params: int = 400_000,
) -> Path:
    """One run folder; `status=None` leaves it unfinished. Evaluations at 1, 1.15, ... epochs."""
    settings = cfg.Config(
        corpus=cfg.Corpus(name=corpus),
        data=cfg.Data(seq_len=64, unique_tokens=unique_tokens),
        objective=cfg.FAMILIES.get(objective, cfg.FAMILIES["ar"]).options(name=objective),
        optimizer=cfg.Optimizer(lr=lr),
        train=cfg.Train(duration=f"{epochs} epochs", seed=seed),
    )
    config = cfg.to_json(settings)
    text = json.dumps([config, fingerprint, experiment, params])
    run = hashlib.sha256(text.encode()).hexdigest()[:10]
    folder = workdir / experiment / run
    folder.mkdir(parents=True)
    steps_per_epoch = unique_tokens // (16 * 64)
    at = np.unique(np.round(np.geomspace(1, epochs, 40) * steps_per_epoch)).astype(int)
    epoch = at / steps_per_epoch
    flops = epoch * FLOPS_PER_EPOCH
    loss = law(flops) + shift
    lines: list[dict[str, Any]] = []
    for k, step in enumerate(at):
        common = {"step": int(step), "tokens": int(step) * 1024, "epoch": float(epoch[k])}
        common |= {"flops": float(flops[k]), "seconds": float(epoch[k])}
        lines.append(common | {"loss": float(loss[k]), "grad_norm": 1.0, "lr": lr, "mfu": 0.3})
        row = {"validation_loss": float(loss[k]), "validation_stderr": 0.01, "bits_per_byte": None}
        row |= {"train_eval_loss": float(loss[0] - 0.3 * np.log(epoch[k])), "kind": "x"}
        lines.append(common | row)
    versions = {"dlm": "0.1", "jax": "0.10.2", "python": "3.11.7"}
    info = schema.RunInfo(
        experiment=experiment,
        run_id=run,
        label=f"{corpus} {objective} lr={lr}{note} seed={seed}",
        overrides={"optimizer.lr": lr, "train.seed": seed},
        question="Does diffusion pass AR <on> digits?",
    )
    start = schema.RunStart(
        **vars(info),
        plan=schema.PlanNumbers(
            steps=int(at[-1]), epochs=float(epochs), unique_tokens=unique_tokens,
            tokens_per_step=1024, params=params, flops=float(flops[-1]),
        ),
        corpus=schema.CorpusInfo(
            path="x", name=corpus, fingerprint=fingerprint, vocab_size=17, bytes_per_token=None,
            python="3.11.7", notes=[],
        ),
        versions=versions,
        device="cpu",
    )  # fmt: skip
    sealed.write(folder / "config.json", config)
    sealed.write(folder / "run.json", schema.to_json(start), ["config.json"])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status is None:
        return folder
    best = int(loss.argmin())
    value = float(loss[best]) if final is None else final
    rng = np.random.default_rng(7)  # the same windows for every run
    noise = rng.normal(0, 0.2, windows)
    own = np.random.default_rng(len(objective)).normal(0, 0.02, windows)
    nll = 64 * (value + noise + own)
    np.save(folder / "nll.npy", nll + 64 * (value - nll.mean() / 64))
    ids_drawn = np.random.default_rng(seed).integers(0, 17, (4, 64))
    np.save(folder / "samples.npy", ids_drawn)
    (folder / "samples.txt").write_text(samples + "-----\n" + "another\n")
    identity = run_folder.identity(settings, info)
    reason = None if status == "finished" else "loss above 3 log V"
    result = schema.RunResult(
        **identity, status=status, reason=reason, fingerprint=fingerprint, vocab_size=17,
        bytes_per_token=None, entropy=None, seq_len=64, unique_tokens=unique_tokens,
        epochs=float(epoch[-1]), steps=int(at[-1]), tokens=int(at[-1]) * 1024, batch_size=16,
        params=params, params_non_embedding=params - 10_000, flops=float(flops[-1]),
        flops_6nd=float(flops[-1]) * 0.9, shared_steps=0, best_step=int(at[best]),
        best_epoch=float(epoch[best]), best_flops=float(flops[best]),
        last_validation_loss=float(loss[-1]), mc_samples=8, seconds=60.0, tokens_per_second=4e4,
        mfu=0.3, device="cpu", versions=versions, gaps=[], warnings=[], validation_loss=value,
        validation_stderr=0.02, validation_mc_stderr=0.0, validation_tokens=64 * windows,
        bits_per_byte=None, train_loss=1.1, train_stderr=0.01,
    )  # fmt: skip
    if status == "failed":
        failure = schema.RunFailure(**identity, status=status, reason=reason)
        sealed.write(folder / "result.json", schema.to_json(failure))
    else:
        run_folder.finish(folder, result)
    return folder


def bare_result(
    c: cfg.Config, info: schema.RunInfo, status: str = "finished", reason: str | None = None
) -> schema.RunResult:
    """A result of which every number is 1, every text empty; status may also be failed."""
    values: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(schema.RunResult)}
    values |= dict(fingerprint="", device="", versions={}, gaps=[], warnings=[])
    values |= run_folder.identity(c, info) | dict(status=status, reason=reason)
    return schema.RunResult(**values)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes one of the JSON files of a run, whose digests are written anew."""
    value = sealed.read(path)
    change(value)
    sealed.write(path, value, value.get(sealed.FILES, ()))
    for name in ("run.json", "result.json"):  # these hold the digest of others
        above = path.with_name(name)
        if path.name in ("config.json", "run.json") and name != path.name and above.is_file():
            tree = sealed.read(above)
            sealed.write(above, tree, tree.get(sealed.FILES, ()))


def quickstart(workdir: Path, seeds: int = 3) -> Path:
    """Two data sets: digits, which cross at 1.2e12 FLOPs, and stdlib, which would at 4e12."""
    rng = np.random.default_rng(1)
    for corpus, crossing, plateau in (("digits", 1.2e12, 1.59), ("stdlib", 4e12, 2.03)):
        common = dict(corpus=corpus, fingerprint=corpus[0] * 64)
        for lr, worse in ((1e-3, 0.03), (2e-3, 0.0), (4e-3, 0.02)):
            for seed in range(seeds if lr == 2e-3 else 1):
                shift = worse + rng.normal(0, 0.002)
                law = autoregressive(plateau, 1.5e11)
                write_run(workdir, law, lr=lr, seed=seed, epochs=50, shift=shift, **common)
        for seed in range(seeds):
            law = diffusion(crossing, plateau)
            shift = rng.normal(0, 0.003)
            write_run(workdir, law, objective="masked", seed=seed, shift=shift, **common)
    return workdir / "quickstart"
