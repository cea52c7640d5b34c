"""A training step of dlm against the same model and step in PyTorch, in turn in one process.

  pip install torch && taskset -c 0 python tests/against_torch.py --size 0.2M 1M 5M

Llama shape, tied embeddings, float32, autoregressive, AdamW with clipping, equal shapes; torch eager
and torch.compile. Prints tokens per second and dlm's ratio over each, medians over rounds; --json
prints them for a machine to read. --side-by-side has two processes train at once, a core each, two of
dlm and two of torch.compile in turn, all with the huge pages that dlm's workers have. Not a test:
nothing here judges a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import torch
import torch.nn.functional as F

from dlm import config
from dlm.config import experiment
from dlm.sweep.machine import HUGE_PAGES
from dlm.training import benchmark

CORES = len(os.sched_getaffinity(0))


class Norm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale


class Block(torch.nn.Module):
    def __init__(self, c: config.Model):
        super().__init__()
        self.heads, self.ff = c.heads, c.ff
        linear = torch.nn.Linear
        self.norm, self.norm_ff = Norm(c.width), Norm(c.width)
        self.qkv = linear(c.width, 3 * c.width, bias=False)
        self.out = linear(c.width, c.width, bias=False)
        self.gate_up = linear(c.width, 2 * c.ff, bias=False)
        self.down = linear(c.ff, c.width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1).unbind(2)
        q, k = (rotate(y.transpose(1, 2), cos, sin) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.norm_ff(x)).split(self.ff, -1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Model(torch.nn.Module):
    def __init__(self, c: config.Model, rows: int, length: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(rows, c.width)
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = Norm(c.width)
        head = c.width // c.heads
        frequency = 1e4 ** (-torch.arange(0, head, 2) / head)
        angle = torch.arange(length)[:, None] * frequency
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, inputs, targets):
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.norm(x) @ self.embedding.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Torch:
    def __init__(self, c: config.Config, vocab_size: int, compiled: bool):
        torch.manual_seed(0)
        self.c, self.vocab_size = c, vocab_size
        model = Model(c.model, vocab_size + 1, c.data.seq_len)
        self.parameters = list(model.parameters())
        o = c.optimizer
        self.optimizer = torch.optim.AdamW(
            self.parameters, o.lr, (o.b1, o.b2), o.eps, o.weight_decay, fused=True
        )
        self.model = torch.compile(model) if compiled else model

    def call(self) -> float:
        began = time.perf_counter()
        shape = (self.c.train.batch_size, self.c.data.seq_len)
        for _ in range(self.c.train.steps_per_call):
            tokens = torch.randint(0, self.vocab_size, shape)
            loss = self.model(F.pad(tokens[:, :-1], (1, 0), value=self.vocab_size), tokens)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.c.optimizer.grad_clip_norm)
            self.optimizer.step()
        return time.perf_counter() - began


def answer(size: str, name: str, seconds: float) -> None:
    """For each line that comes in, trains for so many seconds and prints tokens per second."""
    base, vocab_size = benchmark.sized(size)
    c = experiment.edited(base, [])
    ours = benchmark.Bench(size, c, vocab_size)
    call = (lambda: ours.call()[0]) if name == "dlm" else Torch(c, vocab_size, True).call
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        spent, calls = 0.0, 0
        while spent < seconds:
            spent, calls = spent + call(), calls + 1
        print(calls * ours.tokens() / spent, flush=True)


def side_by_side(size: str, seconds: float, rounds: int = 5) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    env = dict(os.environ, GLIBC_TUNABLES=HUGE_PAGES)
    pairs: dict[str, list[subprocess.Popen[str]]] = {}
    for name in ("dlm", "torch.compile"):
        words = [__file__, "--size", size, "--answer", name, "--seconds", str(seconds)]
        pairs[name] = [
            subprocess.Popen(
                ["taskset", "-c", str(core), sys.executable, *words],
                env=env,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for core in cores
        ]
        for child in pairs[name]:
            assert child.stdout and child.stdout.readline() == "ready\n"
    found: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(rounds):
        for name, pair in pairs.items():
            for child in pair:
                print("go", file=child.stdin, flush=True)
            found[name].append(
                sum(float(child.stdout.readline()) for child in pair if child.stdout)
            )
    for child in (child for pair in pairs.values() for child in pair):
        child.communicate()
    speeds = ", ".join(f"{name} {np.median(rates):,.0f}" for name, rates in found.items())
    ratio = np.median(np.divide(found["dlm"], found["torch.compile"]))
    print(f"{size}, two processes side by side, tokens/s of both: {speeds}; ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="+", default=["0.2M", "1M", "5M"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--config", nargs="*", default=[], metavar="FIELD=VALUE", help="of dlm's")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side-by-side", action="store_true")
    parser.add_argument("--answer", choices=["dlm", "torch.compile"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(CORES)
    if a.answer:
        return answer(a.size[0], a.answer, a.seconds)
    if a.side_by_side and (a.config or a.json):
        parser.error("--side-by-side takes neither --config nor --json")
    if a.side_by_side:
        for size in a.size:
            side_by_side(size, a.seconds)
        return
    edits = [experiment.parse_override(f"--config.{word}") for word in a.config]
    for size in a.size:
        base, vocab_size = benchmark.sized(size)
        plain = experiment.edited(base, [])
        ours = benchmark.Bench(size, experiment.edited(base, edits), vocab_size)
        calls = {
            "dlm": lambda ours=ours: ours.call()[0],
            "torch eager": Torch(plain, vocab_size, compiled=False).call,
            "torch.compile": Torch(plain, vocab_size, compiled=True).call,
        }
        for call in calls.values():
            call()
        rounds, began = [], time.perf_counter()
        while len(rounds) < 5 or time.perf_counter() - began < 3 * a.seconds:
            rounds.append([call() for call in calls.values()])
        rates = ours.tokens() / np.array(rounds)
        found = {
            "size": size,
            "cores": CORES,
            **dict(zip(calls, np.median(rates, axis=0).tolist(), strict=True)),
            "over eager": float(np.median(rates[:, 0] / rates[:, 1])),
            "over compile": float(np.median(rates[:, 0] / rates[:, 2])),
        }
        if a.json:
            print(json.dumps(found), flush=True)
        else:
            speeds = ", ".join(f"{name} {found[name]:,.0f}" for name in calls)
            over = (
                f"{found['over eager']:.2f} of eager, {found['over compile']:.2f} of torch.compile"
            )
            print(f"{size} on {CORES} core(s), tokens/s: {speeds}; dlm is {over}", flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
