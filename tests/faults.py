"""A campaign of faults against `dlm run`, `dlm corpus` and everything that reads what they leave.

  python tests/faults.py --minutes 60 --out faults.json      all kinds in turn, until time is up
  python tests/faults.py --kinds flip-run --rounds 25        some kinds, 25 rounds of trials

Each trial plants one fault, drawn from `--seed` and the trial's number, and lets the same command go
on. It ends as
  same     every number has the bits of a workdir that nobody disturbed;
  refused  one line says what is wrong, and names the file or folder;
  wrong    anything else: other bits, a traceback, no end. The exit code is 1, the folder is kept.
It needs Linux; full and read-only disks need user namespaces (`unshare -Urm`).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
from dlm.runs import names
from places import TESTS

DLM = [sys.executable, "-m", "dlm"]
NO_REPORT = [sys.executable, str(TESTS / "no_report.py")]
PATIENCE = 180  # seconds without an end after which a call counts as hanging
FLIPS = 6  # trials that flip a bit for one of the others
CALLS = 6  # of the same command after a fault, within which it has to finish
STEPS = 240  # of each run; 12 checkpoints lie in it, 6 in the shortest
SHORTEST = 48
SWEEP = """
def sweep(scale="laptop"):
    for name, seed in (("masked", 0), ("ar", 0), ("masked", 1)):
        yield {{"objective.name": name, "train.seed": seed, "train.duration": "{steps} steps",
               "train.checkpoint_every": "{every} steps"}}
"""
TEXT = '''"""Is text stored whole?"""

from dlm import config


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name, c.corpus.options = "files", {{"paths": {paths!r}}}
    c.tokenizer.kind, c.tokenizer.vocab_size = "bpe", 600
    return c
'''
# Of a run's folder: views that no reader trusts, and what each call writes anew.
VIEWS = ("tensorboard", ".lock", "samples.txt", "quality.json", "error.txt")
MOUNT = """
mount -t tmpfs -o size={size} none {folder} || exit 99
{meanwhile}
{command} > {log} 2>&1
echo $? > {code}
wait
mount -o remount,rw,size=256m {folder} || exit 99
cp -r {folder}/. {copy}/
"""


class Wrong(Exception):
    """What a fault did and must not do."""


@dataclass(frozen=True)
class Campaign:
    """What all trials share: workdirs that nobody disturbed, and what their readers say."""

    root: Path
    sweep: Path  # experiment files
    text: Path
    finished: Path  # a workdir with all runs of `sweep`
    halfway: Path  # the same, its first run stopped between two checkpoints
    numbers: dict[str, Any]  # of `finished`, see `numbers_of`
    store: str  # of `text`, see `store_of`
    sent: collections.Counter  # signals, by name
    command: tuple[str, ...] = tuple(DLM)


# --- what must not change -----------------------------------------------------------------------


def numbers_of(workdir: Path) -> dict[str, Any]:
    """Run id -> everything that is no time: the result, the arrays and the curve."""
    numbers: dict[str, Any] = {}
    for path in sorted(workdir.glob("*/*/result.json")):
        folder = path.parent
        if not (folder / "metrics.jsonl").exists():
            continue  # it was taken away in the middle: such a run has to be refused
        arrays = {name: _sha(folder / f"{name}.npy") for name in ("nll", "ledger", "samples")}
        result = {k: v for k, v in tiny.result(folder).items() if k != "gaps"}
        numbers[names.run_id(folder)] = [result, arrays, tiny.evaluations(folder)]
    return numbers


def store_of(workdir: Path) -> str:
    """A digest of every token store below a workdir."""
    files = sorted(p for p in (workdir / "corpora").glob("[!.]*/**/*") if p.is_file())
    return hashlib.sha256("".join(_sha(path) for path in files).encode()).hexdigest()


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- calls --------------------------------------------------------------------------------------


def call(c: Campaign, *words: Any, **options: Any) -> subprocess.Popen:
    """`dlm` in a session of its own, its output in a pipe."""
    return subprocess.Popen(
        [*c.command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def end(process: subprocess.Popen) -> str:
    """What a call said; nothing of it may hang or end in a traceback."""
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise Wrong(f"no end after {PATIENCE} s") from None
    if "Traceback" in said:
        raise Wrong(f"a traceback: {said[-2000:]}")
    return said


def until_done(c: Campaign, *words: Any) -> str:
    """Repeats a command until it finishes; returns what it refused for on the way."""
    refusals = ""
    for _ in range(CALLS):
        process = call(c, *words)
        said = end(process)
        if process.returncode == 0:
            return refusals
        refusals = said.strip().splitlines()[-1] if said.strip() else ""
        if process.returncode == 2:
            return refusals
    raise Wrong(f"not finished after {CALLS} calls, the last with {process.returncode}: {said}")


def in_process(*words: Any) -> tuple[int, str]:
    """`dlm` in this process: its exit code, and all that it said."""
    from dlm.cli import main as cli

    text = io.StringIO()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = cli.main([str(word) for word in words])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except Exception:
        raise Wrong(f"dlm {words[0]}: {traceback.format_exc()}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, text.getvalue()


# --- signals ------------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    """The process and its children, by /proc."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")")[-1].split()[1]) in found:
                found.append(int(path.parent.name))
    return found


def strike(c: Campaign, process: subprocess.Popen, rng: random.Random, latest: float) -> None:
    """Sends up to three signals, to the call or to a child of it, at random times."""
    for _ in range(rng.randint(1, 3)):
        time.sleep(rng.uniform(0.1, latest))
        if process.poll() is not None:
            break
        victim = rng.choice(descendants(process.pid))
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, number)
            c.sent[number.name] += 1
            if number == signal.SIGSTOP:
                time.sleep(rng.uniform(0.1, 2))
                os.kill(victim, signal.SIGCONT)


def signals_to_a_sweep(c: Campaign, rng: random.Random, place: Path) -> str:
    words = ("run", c.sweep, "--workdir", place / "runs", "--jobs", rng.choice((1, 2)))
    for _ in range(rng.randint(1, 4)):
        process = call(c, *words)
        strike(c, process, rng, latest=6)
        end(process)
    return _same(c, place / "runs", until_done(c, *words))


def kills_in_a_row(c: Campaign, rng: random.Random, place: Path) -> str:
    """Kills one run ten times, anywhere between its start and its end."""
    words = ("train", c.sweep, "--workdir", place / "runs", "--run", 0)
    for _ in range(10):
        process = call(c, *words)
        time.sleep(rng.uniform(1.5, 5))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            c.sent["SIGKILL"] += 1
        end(process)
    refusal = until_done(c, *words)
    numbers = numbers_of(place / "runs")
    if refusal or any(c.numbers[name] != value for name, value in numbers.items()):
        raise Wrong(f"other numbers, or a refusal: {refusal}")
    return "same" if len(numbers) == 1 else "refused"


def signals_to_a_build(c: Campaign, rng: random.Random, place: Path) -> str:
    words = ("corpus", c.text, "--workdir", place / "runs")
    for _ in range(rng.randint(1, 4)):
        process = call(c, *words)
        strike(c, process, rng, latest=1.5)
        end(process)
    until_done(c, *words)
    if store_of(place / "runs") != c.store:
        raise Wrong("the token store has other bytes")
    return "same"


def several_sweeps(c: Campaign, rng: random.Random, place: Path) -> str:
    words = ("run", c.sweep, "--workdir", place / "runs", "--jobs", 1)
    processes = []
    for _ in range(rng.randint(2, 3)):
        processes.append(call(c, *words))
        time.sleep(rng.uniform(0, 3))
    strike(c, processes[0], rng, latest=4)
    for process in processes:
        end(process)
    return _same(c, place / "runs", until_done(c, *words))


def folder_taken_away(c: Campaign, rng: random.Random, place: Path) -> str:
    words = ("run", c.sweep, "--workdir", place / "runs", "--jobs", 2)
    process = call(c, *words)
    time.sleep(rng.uniform(1, 8))
    folders = [p for p in (place / "runs").rglob("*") if p.is_dir()]
    if folders:
        shutil.rmtree(rng.choice(folders), ignore_errors=True)
    end(process)
    return _same(c, place / "runs", until_done(c, *words))


def _same(c: Campaign, workdir: Path, refusal: str) -> str:
    numbers = numbers_of(workdir)
    if other := [name for name, value in numbers.items() if c.numbers[name] != value]:
        raise Wrong(f"other numbers in {other}")
    if numbers.keys() == c.numbers.keys():
        return "same"
    if str(workdir) in refusal:
        return "refused"
    raise Wrong(f"{len(numbers)} of {len(c.numbers)} runs, and no reason: {refusal}")


# --- disks --------------------------------------------------------------------------------------


def full_disk(c: Campaign, rng: random.Random, place: Path) -> str:
    return _disk(c, place, f"{rng.randint(16, 1200)}k", "")


def read_only_disk(c: Campaign, rng: random.Random, place: Path) -> str:
    remount = f"(sleep {rng.uniform(0, 8):.1f}; mount -o remount,ro {{folder}}) &"
    return _disk(c, place, "256m", remount)


def _disk(c: Campaign, place: Path, size: str, meanwhile: str) -> str:
    """Runs the sweep on a small disk of its own, then goes on with what it left on a large one."""
    disk, log, code = place / "disk", place / "log", place / "code"
    (place / "runs").mkdir()
    disk.mkdir()
    words = ("run", str(c.sweep), "--workdir", str(disk), "--jobs", "1")
    script = MOUNT.format(
        size=size,
        folder=disk,
        meanwhile=meanwhile.format(folder=disk),
        command=" ".join([*c.command, *words]),
        log=log,
        code=code,
        copy=place / "runs",
    )
    command = ["unshare", "-Urm", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode == 99 or not log.exists():
        return f"skipped: {done.stderr.strip()}"
    if "Traceback" in log.read_text():
        raise Wrong(f"a traceback: {log.read_text()[-2000:]}")
    if drafts := [p for p in (place / "runs").rglob(".draft-*")]:
        raise Wrong(f"drafts stay: {drafts}")
    words = ("run", c.sweep, "--workdir", place / "runs", "--jobs", 1)
    return _same(c, place / "runs", until_done(c, *words))


# --- bits ---------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    at = rng.randrange(8 * len(content))
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)
    return f"bit {at} of {path}"


def flip_in_a_finished_run(c: Campaign, rng: random.Random, place: Path) -> str:
    workdir = place / "runs"
    shutil.copytree(c.finished, workdir)
    folder = rng.choice(sorted(p.parent for p in workdir.glob("*/*/result.json")))
    where = flip(rng.choice(_files(folder)), rng)
    with _telling(where):
        outcomes = [_evaluated(c, folder, where), _reported(c, workdir, folder)]
        code, said = in_process("run", c.sweep, "--workdir", workdir, "--dry-run")
        if code not in (0, 1) or (code == 1 and "unreadable: " not in said):
            raise Wrong(f"dlm run --dry-run: {code}: {said}")
    return min(outcomes)  # "refused" if either is


def flip_in_a_store(c: Campaign, rng: random.Random, place: Path) -> str:
    workdir = place / "runs"
    shutil.copytree(c.finished, workdir)
    folder = rng.choice(sorted(p.parent for p in workdir.glob("*/*/result.json")))
    (store,) = (workdir / "corpora").glob("[!.]*")
    where = flip(rng.choice(_files(store)), rng)
    with _telling(where):
        return _evaluated(c, folder, where)


def flip_in_an_unfinished_run(c: Campaign, rng: random.Random, place: Path) -> str:
    workdir = place / "runs"
    shutil.copytree(c.halfway, workdir)
    folder = next(p.parent for p in workdir.glob("*/*/run.json"))
    where = flip(rng.choice(_files(folder)), rng)
    with _telling(where):
        code, said = in_process("train", c.sweep, "--workdir", workdir)
        if code in (1, 2):
            return _refused(said, folder)
        result, arrays, curve = numbers_of(workdir)[names.run_id(folder)]
        wanted = c.numbers[names.run_id(folder)]
        if (result, arrays) != (wanted[0], wanted[1]):
            parts = [(k, result[k], v) for k, v in wanted[0].items() if result.get(k) != v]
            raise Wrong(f"another result: {parts or arrays}: {said}")
        if curve == wanted[2]:
            return "same"
        if "metrics.jsonl" not in said:
            raise Wrong(f"another curve, and no word about it: {said}")
        return "refused"


@contextlib.contextmanager
def _telling(where: str):
    try:
        yield
    except Wrong as wrong:
        raise Wrong(f"{where}: {wrong}") from None


def _files(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    return [p for p in files if not set(p.relative_to(folder).parts) & set(VIEWS)]


def _refused(said: str, folder: Path) -> str:
    """One line that names a file of the run, or of its tokens."""
    lines = [line for line in said.splitlines() if line.startswith(("error:", "failed:"))]
    if len(lines) != 1 or not {folder.name, "corpora"} & set(Path(lines[0].split(": ")[1]).parts):
        raise Wrong(f"no line that names the file: {said}")
    return "refused"


def _evaluated(c: Campaign, folder: Path, where: str) -> str:
    code, said = in_process("evaluate", folder)
    if code:
        return _refused(said, folder)
    loss = c.numbers[names.run_id(folder)][0]["validation_loss"]
    if f"validation: {loss:.4f} " not in said:
        raise Wrong(f"dlm evaluate says another loss than {loss:.4f}: {said}")
    return "same"


def _reported(c: Campaign, workdir: Path, folder: Path) -> str:
    """The rows of the table: all others as they were, that of the damaged run too or with a reason."""
    import pyarrow.parquet as pq

    code, said = in_process("runs", folder.parent)
    if code:
        raise Wrong(f"dlm runs: {code}: {said}")
    rows = {row["run"]: row for row in pq.read_table(folder.parent / "runs.parquet").to_pylist()}
    wanted = pq.read_table(c.finished / folder.parent.name / "runs.parquet").to_pylist()
    for row in wanted:
        found = rows.pop(row["run"], None)
        if found == row:
            continue
        if row["run"] != names.run_id(folder):
            raise Wrong(f"another row of {row['run']}: {found}")
        if found is None or found["status"] == "finished" or not found["reason"]:
            raise Wrong(f"the row of the damaged run: {found}, it was {row}")
        return "refused"
    return "same"


# --- the campaign -------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Campaign, random.Random, Path], str]] = {
    "signals-sweep": signals_to_a_sweep,
    "kills": kills_in_a_row,
    "signals-build": signals_to_a_build,
    "several-sweeps": several_sweeps,
    "folder-away": folder_taken_away,
    "full-disk": full_disk,
    "read-only": read_only_disk,
    "flip-run": flip_in_a_finished_run,
    "flip-store": flip_in_a_store,
    "flip-halfway": flip_in_an_unfinished_run,
}


def prepare(root: Path, steps: int, report: bool = True) -> Campaign:
    """Trains and builds once, undisturbed. `report`: `dlm run` writes its report, here and later."""
    from dlm.sweep import worker
    from dlm.sweep.jobs import plan_jobs

    if not report:
        importlib.import_module(Path(NO_REPORT[1]).stem)  # it leaves the report out in this process
    worker.prepare_jax()
    head = tiny.EXPERIMENT.split("def sweep")[0].format(tests=str(TESTS))
    sweep = root / "tiny_experiment.py"
    sweep.write_text(head + SWEEP.format(steps=steps, every=max(steps // 12, SHORTEST // 6)))
    code, said = in_process("run", sweep, "--workdir", root / "finished", "--jobs", 1)
    if code:
        raise Wrong(f"the sweep without a fault: {said}")
    in_process("runs", root / "finished" / sweep.stem)
    shutil.copytree(root / "finished" / "corpora", root / "halfway" / "corpora")
    job = plan_jobs(str(sweep), "laptop", [], root / "halfway")[0]
    _stop_halfway(job, steps * 13 // 24)
    documents = root / "text"
    documents.mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(3000)]
    for i in range(40):
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=80))}) for _ in range(60)]
        (documents / f"{i}.jsonl").write_text("\n".join(lines))
    text = root / "text_experiment.py"
    text.write_text(TEXT.format(paths=str(documents / "*.jsonl")))
    code, said = in_process("corpus", text, "--workdir", root / "built")
    if code:
        raise Wrong(f"the corpus without a fault: {said}")
    return Campaign(
        root=root,
        sweep=sweep,
        text=text,
        finished=root / "finished",
        halfway=root / "halfway",
        numbers=numbers_of(root / "finished"),
        store=store_of(root / "built"),
        sent=collections.Counter(),
        command=tuple(DLM if report else NO_REPORT),
    )


def _stop_halfway(job: Any, at: int) -> None:
    """Trains a run to a step between two checkpoints, and keeps those up to there."""
    from dlm.data import build
    from dlm.runs import folder as run_folder
    from dlm.training import loop, run

    steps = [0]
    with run_folder.claim(job.folder), contextlib.suppress(loop.Interrupted):
        run.train_and_score(
            job.config,
            build.load(job.store),
            job.folder,
            job.info,
            stop=lambda: steps[-1] >= at,
            report=lambda row: steps.append(row.get("step", 0)),
        )


def campaign(
    kinds: list[str],
    minutes: float,
    rounds: int,
    seed: int,
    root: Path,
    steps: int = STEPS,
    report: bool = True,
) -> dict[str, Any]:
    """Runs trials in turn until time is up, or for some rounds; returns what came of them.

    A round is one trial of each kind, and FLIPS of those that flip a bit: they start no process.
    """
    c = prepare(root, steps, report)
    start = time.monotonic()
    counts: dict[str, collections.Counter] = {kind: collections.Counter() for kind in kinds}
    wrong: list[dict[str, Any]] = []
    turn = [k for kind in kinds for k in [kind] * (FLIPS if kind.startswith("flip") else 1)]
    for number in itertools.count():
        if number == rounds * len(turn) if rounds else time.monotonic() - start > 60 * minutes:
            break
        kind = turn[number % len(turn)]
        place = root / f"{kind}-{number}"
        try:
            outcome = trial(c, kind, seed, number, place)
        except Wrong as error:
            outcome = "wrong"
            wrong.append({"kind": kind, "trial": number, "what": str(error), "place": str(place)})
            print(f"{kind} {number}: wrong: {error}", flush=True)
        counts[kind][outcome.split(":")[0]] += 1
        if outcome != "wrong":
            shutil.rmtree(place)
    return {
        "seed": seed,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "signals": dict(c.sent),
        "kinds": {kind: dict(count) for kind, count in counts.items()},
        "wrong": wrong,
    }


def trial(c: Campaign, kind: str, seed: int, number: int, place: Path) -> str:
    """One fault in a new folder; returns same, refused, or skipped and why.

    Raises:
      Wrong: what it did and must not do.
    """
    place.mkdir()
    return KINDS[kind](c, random.Random(f"{kind} {seed} {number}"), place)


def table(found: dict[str, Any]) -> str:
    outcomes = ("same", "refused", "wrong", "skipped")
    lines = [f"{'':16}{'tried':>8}" + "".join(f"{name:>9}" for name in outcomes)]
    for kind, count in found["kinds"].items():
        cells = "".join(f"{count.get(name, 0):>9}" for name in outcomes)
        lines.append(f"{kind:16}{sum(count.values()):>8}{cells}")
    sent = ", ".join(f"{count} {name}" for name, count in found["signals"].items())
    return "\n".join([*lines, f"signals: {sent or 'none'}; minutes: {found['minutes']}"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=0, help="of each kind, in place of --minutes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run, a multiple of 48")
    parser.add_argument("--no-report", action="store_true", help="dlm run writes no report")
    parser.add_argument("--out", type=Path, help="a JSON file")
    a = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    found = campaign(a.kinds, a.minutes, a.rounds, a.seed, root, a.steps, not a.no_report)
    print(table(found))
    if a.out:
        a.out.write_text(json.dumps(found, indent=1) + "\n")
    if found["wrong"]:
        print(f"kept: {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
