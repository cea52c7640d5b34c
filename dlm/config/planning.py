"""Plans a run: steps, tokens, parameters, FLOPs and bytes, once its corpus is known.

Runs that do not fit in memory, or whose scores take too long, are refused before anything is computed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlm.config import Config, flops, memory, method
from dlm.config.fields import MOST_STEPS, parse_duration
from dlm.config.memory import Machine, Memory, Mesh
from dlm.errors import ArgumentError, DlmError, fail
from dlm.format import number, scientific, size

MOST_EVENTS = 100_000  # evaluations of a run, and checkpoints
# Scores or samples are refused if they take more than MOST_TIMES_TRAINING times the FLOPs of training
# and more than FLOOR. The floor allows trials of two steps; it is minutes on an accelerator.
MOST_TIMES_TRAINING = 100
FLOOR = 1e17
LEAST_MC_SAMPLES = 8  # of the final score; more are added until their error is small enough
MOST_INT32 = 2**31 - 1  # what JAX counts passes with


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, once the corpus is known. Tokens are tokens of the corpus, without BOS."""

    vocab_size: int
    unique_tokens: int  # U
    windows: int  # U / L
    held_out: int  # windows of the validation split; 0: unknown
    steps: int
    tokens_per_step: int
    warmup: int  # steps
    decay: int  # steps at the end, for wsd
    checkpoint_every: int  # steps
    evaluate_every: int  # steps, at first
    evaluate_at: tuple[int, ...]  # steps, increasing; the last is `steps`
    parameters: flops.Parameters
    flops_per_pass: float  # of a score: a forward pass over one sequence, analytic, by attention
    flops_per_step: float  # forward and backward over a batch, and the products of the optimizer
    flops_6nd_per_step: float  # 6 · N · tokens, N with embeddings: the paper's count

    @property
    def epochs(self) -> float:
        return self.steps * self.tokens_per_step / self.unique_tokens


class Work(NamedTuple):
    """FLOPs of a run."""

    training: float
    tracked: float  # scores while training
    final: float  # scores of the best weights
    further: float  # the number that evaluation.final asks for
    samples: float

    @property
    def after(self) -> float:
        """FLOPs of everything except training steps."""
        return self.tracked + self.final + self.further + self.samples


def plan(
    config: Config,
    *,
    train_tokens: int,
    vocab_size: int,
    validation_tokens: int | None = None,
    document_length: int | None = None,
) -> Plan:
    """Turns durations into steps, and sizes into parameters and FLOPs, once the corpus is known.

    Without `validation_tokens` the FLOPs of scores are unknown. `document_length`: the tokens of every
    document, if all have the same number. `Store.sizes` has all four of a corpus.

    Raises:
      DlmError: more unique tokens than the corpus has, an L that does not suit its documents or splits,
        a batch larger than the subset, or more steps, evaluations or checkpoints than a run can take.
    """
    length, batch = config.data.seq_len, config.train.batch_size
    available = train_tokens // length * length
    if available == 0:
        fail("data.seq_len", length, f"at most {train_tokens}, the training tokens there are")
    if document_length and document_length % length:
        which = f"the length of each document of {config.corpus.name}"
        fail("data.seq_len", length, f"a divisor of {document_length}, {which}")
    if validation_tokens is not None and validation_tokens < length:
        right = f"at most {validation_tokens}, the validation tokens there are"
        fail("data.seq_len", length, right)
    if config.data.unique_tokens > available:
        split = f"the training split of {config.corpus.name} has {train_tokens:,} tokens"
        fail("data.unique_tokens", config.data.unique_tokens, f"at most {available:,}: {split}")
    objective = config.objective
    objective.check_vocabulary(vocab_size)
    unique = config.data.unique_tokens or available
    if batch * length > unique:
        fail("train.batch_size", batch, f"at most {unique // length}, the windows of the subset")
    model = config.model
    family = objective.family
    rows, positions = vocab_size + family.extra_tokens, length + family.extra_positions
    sizes = dict(layers=model.layers, width=model.width, ff=model.ff, rows=rows)
    count = flops.parameters(**sizes, tied=model.tied, time=model.time_conditioning == "adaln")
    forward: dict[str, Any] = sizes | dict(
        length=positions, block=objective.block_length, loops=model.loops
    )
    per_step = batch * sum(
        share * flops.training_flops(**forward, attention=kind)
        for kind, share in objective.training_attention.items()
    )
    if config.optimizer.name == "muon":
        per_step += flops.muon_flops(memory.matrices(model))
    unit: dict[str, Any] = dict(tokens=batch * length, unique=unique, flops=per_step)
    steps = to_steps("train.duration", config.train.duration, **unit)
    unit["steps"] = steps
    every = to_steps("evaluation.every", config.evaluation.every, **unit)
    save = to_steps("train.checkpoint_every", config.train.checkpoint_every, **unit)
    if steps > MOST_EVENTS * save:
        right = f"at least {steps // MOST_EVENTS} steps: {steps // save:,} checkpoints are too many"
        fail("train.checkpoint_every", config.train.checkpoint_every, right)
    decay = to_steps("optimizer.decay", config.optimizer.decay, **unit)
    if config.optimizer.schedule == "wsd" and decay > steps:
        fail("optimizer.decay", config.optimizer.decay, f"at most the {steps:,} steps of the run")
    return Plan(
        vocab_size=vocab_size,
        unique_tokens=unique,
        windows=unique // length,
        held_out=(validation_tokens or 0) // length,
        steps=steps,
        tokens_per_step=batch * length,
        warmup=to_steps("optimizer.warmup", config.optimizer.warmup, **unit),
        decay=decay,
        checkpoint_every=save,
        evaluate_every=every,
        evaluate_at=_evaluation_steps(config, steps, every),
        parameters=count,
        flops_per_pass=flops.forward_flops(**forward, attention=family.attention),
        flops_per_step=per_step,
        flops_6nd_per_step=6.0 * count.total * batch * length,
    )


def to_steps(name: str, text: str, *, tokens: int, unique: int, flops: float, steps=0) -> int:
    """Converts a duration such as "60 epochs" to steps, rounded to the nearest, at least 1.

    Units: steps, tokens, epochs (of `unique` tokens), flops, and percent (of `steps`, if not 0).
    """
    unit, amount = parse_duration(text)
    if unit == "percent" and not steps:
        fail(name, text, "in steps, tokens, epochs or flops")
    scale = {
        "steps": 1.0,
        "tokens": 1 / tokens,
        "epochs": unique / tokens,
        "flops": 1 / flops,
        "percent": steps / 100,
    }[unit]
    count = amount * scale
    if count > MOST_STEPS:
        fail(name, text, f"at most {MOST_STEPS:,} steps, and comes to {scientific(count)}")
    return max(1, round(count))


def _evaluation_steps(c: Config, steps: int, every: int) -> tuple[int, ...]:
    """Lists the steps of evaluations: dense early, where AR has its best, and sparse late."""
    at, step = [], every
    while step < steps:
        at.append(step)
        step = max(step + every, round(step * c.evaluation.interval_growth))
        if len(at) > MOST_EVENTS:
            right = f"rarer: the {steps:,} steps would hold more than {MOST_EVENTS:,} evaluations"
            right += f", with interval_growth={c.evaluation.interval_growth:g}"
            fail("evaluation.every", c.evaluation.every, right)
    return (*at, steps)


def work(c: Config, p: Plan) -> Work:
    """Counts the FLOPs of a run. Each score takes the held-out windows and as many training windows."""
    forward, e = p.flops_per_pass, c.evaluation
    exact = c.objective.family.exact
    tracked = min(e.sequences or p.held_out, p.held_out)

    def scores(held_out: int, passes: int) -> float:
        return forward * (held_out + min(held_out, p.windows)) * (1 if exact else passes)

    return Work(
        training=p.steps * p.flops_per_step,
        tracked=len(p.evaluate_at) * scores(tracked, e.mc_samples),
        final=scores(p.held_out, LEAST_MC_SAMPLES),
        further=_further(c, p),
        samples=e.samples * forward * c.objective.sampler_passes(c.data.seq_len),
    )


def _further(c: Config, p: Plan) -> float:
    """FLOPs of the number that evaluation.final asks for."""
    if not c.evaluation.final or c.objective.family.exact:
        return 0.0
    how = method.parse(c.evaluation.final)
    windows, length = min(how.windows or p.held_out, p.held_out), c.data.seq_len
    blocks = c.objective.block_length if c.objective.family.attention == "block" else length
    part = 1 if c.objective.family.attention == "causal" else blocks
    return p.flops_per_pass * windows * how.calls(part)


def mesh(c: Config, devices: int) -> Mesh:
    """Returns the devices along each axis.

    Raises:
      DlmError: the axes do not multiply to the devices there are, or do not divide the batch.
    """
    m = c.mesh
    data = m.data or devices // (m.fsdp * m.tensor)
    if data * m.fsdp * m.tensor != devices:
        raise DlmError(
            f"config.mesh: data={m.data} x fsdp={m.fsdp} x tensor={m.tensor} must come to {devices}, "
            "the devices there are (data=0 is what the other two leave)"
        )
    share = data * m.fsdp
    parts = c.train.microbatches or 1
    for name, batch, multiple, of in (
        ("train", c.train.batch_size, share * parts, " x train.microbatches" * (parts > 1)),
        ("evaluation", c.evaluation.batch_size, share, ""),
    ):
        if batch % multiple:
            right = f"a multiple of {multiple}, mesh.data x mesh.fsdp{of}"
            fail(f"{name}.batch_size", batch, right)
    return Mesh(data, m.fsdp, m.tensor)


def fewest_devices(c: Config) -> int:
    return max(c.mesh.data, 1) * c.mesh.fsdp * c.mesh.tensor


def check_before(c: Config, machine: Machine | None) -> None:
    """Refuses a run that no corpus would make possible, before its corpus is built.

    Assumes the smallest vocabulary and validation split. If the config leaves the
    unique tokens to the corpus, or counts its duration in FLOPs, only the mesh is checked.

    Raises:
      DlmError: names the field, its value, what it takes, and what would fit.
    """
    if machine is not None:
        _mesh_on(c, machine)
    if c.data.unique_tokens and parse_duration(c.train.duration)[0] != "flops":
        tokens = dict(train_tokens=c.data.unique_tokens, validation_tokens=c.data.seq_len)
        check(c, plan(c, **tokens, vocab_size=c.objective.least_vocabulary), machine)


def _mesh_on(c: Config, machine: Machine) -> Mesh:
    fewest = fewest_devices(c)
    if machine.devices and machine.whole:
        return mesh(c, machine.devices)
    return mesh(c, min(fewest, machine.devices or fewest))


def bytes_on_device(c: Config, p: Plan, machine: Machine, least: bool = False) -> Memory:
    """Counts the bytes on each device; raises DlmError if the machine lacks devices of the mesh."""
    on = _mesh_on(c, machine)
    return memory.memory(c, p.parameters, p.vocab_size, on, machine.cpu, least)


def check(c: Config, p: Plan, machine: Machine | None) -> None:
    """Refuses a run that does not fit on a machine (None: unknown) or whose scores take too long.

    Raises:
      DlmError: names the field, its value, what it takes, and what would fit.
    """
    _check_end(c, p)
    if machine is not None:
        _check_memory(c, p, machine)


def check_sampling(c: Config, p: Plan, machine: Machine, count: int) -> None:
    """Refuses to draw more sequences than a device holds at once, beside the weights.

    Raises:
      ArgumentError: names `count`, what fits, and the memory there is.
    """
    one = dataclasses.replace(c, evaluation=dataclasses.replace(c.evaluation, samples=1))
    b = bytes_on_device(one, p, machine, least=True)
    left = machine.memory - b.parameters
    if count * b.samples > left:
        fits = f"at most {max(int(left / b.samples), 0):,}, as {size(left)} of memory are left"
        raise ArgumentError("count", f"={count}: must be {fits}")


def _check_end(c: Config, p: Plan) -> None:
    w, e = work(c, p), c.evaluation
    most = max(MOST_TIMES_TRAINING * w.training, FLOOR)
    if (final := w.final + w.further) > most:
        times = f"{number(final / w.training, 2)} times the training itself"
        right = f"of fewer orders or windows: it needs {scientific(final)} FLOPs or more, {times}"
        fail("evaluation.final", c.evaluation.final, right)
    for field, value, cost in (
        ("mc_samples", e.mc_samples, w.tracked),
        ("samples", e.samples, w.samples),
    ):
        if cost > most:
            times = f"{number(cost / w.training, 2)} times the training itself"
            needs = f"it needs {scientific(cost)} FLOPs or more, {times}"
            fail(f"evaluation.{field}", value, f"at most {int(value * most / cost):,}: {needs}")
        if value > MOST_INT32 and (field == "samples" or not c.objective.family.exact):
            fail(f"evaluation.{field}", value, f"at most {MOST_INT32:,}, as far as JAX counts")


def _check_memory(c: Config, p: Plan, machine: Machine) -> None:
    """Refuses a run whose least memory exceeds that of a device."""
    b, most = bytes_on_device(c, p, machine, least=True), machine.memory
    state = b.state + b.gradients
    if state > most:
        field, value = ("size", c.model.size) if c.model.size else ("width", c.model.width)
        has = "are free here" if machine.cpu else "are what a device has"
        fits = f"{int(p.parameters.total * most / state):,} parameters fit, {size(most)} {has}"
        takes = f"its {p.parameters.total:,} take {size(state)} with gradients, moments and copies"
        fail(f"model.{field}", value, f"smaller: {takes}; {fits}")
    left = most - b.state
    t, e = c.train, c.evaluation
    for field, value, held in (
        ("train.steps_per_call", t.steps_per_call, b.batch),
        ("evaluation.batch_size", e.batch_size, b.scoring),
        ("evaluation.samples", e.samples, b.samples),
        ("train.microbatches", t.microbatches, b.activations + b.logits),
    ):
        if held <= left:
            continue
        fits = int(value * left / held)
        right = f"at most {fits:,}"
        if field == "train.microbatches":
            fits = t.batch_size // value - 1 if value else 0  # 0: a sequence at a time already
            right = f"at least {math.ceil(value * held / left):,}"
        if fits < 1 and field != "evaluation.samples":
            field, value, right = "data.seq_len", c.data.seq_len, "shorter"
        takes = f"takes at least {size(held)} beside the weights, which leave {size(left)}"
        fail(field, value, f"{right}: it {takes}")
