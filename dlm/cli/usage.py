"""What the command line takes: every verb with its examples, and its options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from importlib import metadata
from typing import NoReturn

from dlm import inputs
from dlm.cli import help_text, laws_verbs, trained
from dlm.errors import DlmError, nearest

VERBS: dict[str, tuple[str, str]] = {
    "run": (
        "train every run of an experiment, then write its table and report",
        """examples:
  dlm run experiments/quickstart.py                     all of it, a worker a core
  dlm run experiments/smoke.py --jobs 1                 one run at a time
  dlm run experiments/topics.py --config.model.layers=4  every run with four layers
  dlm run experiments/quickstart.py --dry-run           list the runs and their FLOPs
  dlm run experiments/quickstart.py --distributed       on every host of a pod: one run at a time
  dlm run experiments/quickstart.py --executor slurm --slurm time=720 --slurm gpus_per_node=1

The same command continues what was interrupted and skips what is done. Exit codes: 0 all runs
done, 1 a run failed (its error.txt says why), 2 a mistake in the input, 75 interrupted, saved.""",
    ),
    "train": (
        "train one run, in this process, or go on with a finished one",
        """examples:
  dlm train experiments/smoke.py                        the first run of its sweep
  dlm train experiments/smoke.py --run 1                the second run of its sweep
  dlm train experiments/smoke.py --config.objective.name=masked --config.train.seed=3
  dlm train --extend 0123 --config.train.duration="400 epochs"

--extend makes a new run beside a finished one, in the bits of one trained from scratch. It begins at
the last checkpoint that both share: schedules constant and wsd have one, cosine has none.""",
    ),
    "evaluate": (
        "score a run's best weights on the whole validation split, or on a text of your own",
        """examples:
  dlm evaluate runs/quickstart/0123456789
  dlm evaluate 0123                      the one run below runs/ whose id begins so
  dlm evaluate 0123456789 --passes 64    less Monte Carlo noise in a bound
  dlm evaluate 0123 --text new.txt       nats per token and bits per byte of a text file""",
    ),
    "sample": (
        "draw sequences from a run",
        """examples:
  dlm sample runs/quickstart/0123456789 --count 4
  dlm sample 0123456789 --prompt "The " --temperature 0.8 --top-p 0.95
  dlm sample 0123456789 --order confidence --steps 16
  dlm sample 0123456789 --infill "The [MASK*12] of the"

Orders: of masks, ancestral, confidence, blocks (confidence from left to right, 8 tokens at a
time), entropy (as many as stay within --budget nats) and remask; of Gaussian diffusion, ancestral
(DDPM) and ddim. In --infill, [MASK] stands for one token and [MASK*N] for N; what follows the text
is free.""",
    ),
    "quality": (
        "steps against quality of samples, judged by an autoregressive run",
        """examples:
  dlm quality 0123456789 --judge 9876543210 --steps 4 16 64""",
    ),
    "spectrum": (
        "which spatial frequencies of images are settled first, by family",
        """examples:
  dlm spectrum AR_RUN MASKED_RUN GAUSSIAN_RUN --out figures/""",
    ),
    "objectives": (
        "list the families: formula, kind of number, cost, source",
        "examples:\n  dlm objectives                                        one row for each",
    ),
    "check-objective": (
        "put an objective, of the product or of a file, to the laws that all keep",
        """examples:
  dlm check-objective experiments/own_objective.py
  dlm check-objective d3pm --config.objective.transition=absorbing""",
    ),
    "benchmark": (
        "time training, scoring and sampling on this device",
        """examples:
  dlm benchmark                                         the sizes for this device
  dlm benchmark --size 1M --config.objective.name=masked
  dlm benchmark experiments/quickstart.py               the first run of its sweep
  dlm benchmark --size 5M --compare model.scan=True model.heads=8,train.steps_per_call=1

Each of --compare is one variant: fields and values, with commas. Variants are timed in turn, and
the ratio is of training tokens per second over the config as it is. Tokens are random.""",
    ),
    "runs": (
        "list the runs below a folder and write runs.csv and runs.parquet there, or compare two",
        """examples:
  dlm runs runs/
  dlm runs runs/quickstart
  dlm runs --diff 0123 9876              the settings in which two runs differ, and their results""",
    ),
    "report": (
        "write report.html, figures and tables from the runs below a folder (no JAX needed)",
        """examples:
  dlm report runs/quickstart
  dlm report runs/continuum --reference block         differences to block diffusion
  dlm report runs/quickstart --width 3.25 --figure frontier     for a column of a paper
  dlm report runs.csv --columns loss=val_nll                    laws of a table""",
    ),
    "corpus": (
        "build an experiment's token stores and describe them",
        """examples:
  dlm corpus experiments/quickstart.py
  dlm corpus experiments/smoke.py --config.corpus.name=files \\
      --config.corpus.options.paths='data/*.jsonl.gz' --config.tokenizer.kind=bpe \\
      --config.tokenizer.vocab_size=4096""",
    ),
    "tensorboard": (
        "open TensorBoard on a folder of runs",
        "examples:\n  dlm tensorboard runs/quickstart --port 6006",
    ),
    **laws_verbs.VERBS,
}


JOBS = 1024  # worker processes of one sweep


class Parser(argparse.ArgumentParser):
    """Raises DlmError for a mistake, which says what would be right."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.fullmatch(r"argument (\S+): (=.*)", message, re.DOTALL):  # inputs.refusal
            message = f"{wrong[1]}{wrong[2]}"
        elif wrong := re.match(r"argument VERB: invalid choice: '(.*?)'", message):
            message = f"{wrong[1] or repr('')}: no such verb{nearest(wrong[1], VERBS)}"
        elif wrong := re.match(
            r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message
        ):
            choices = wrong[3].replace("'", "").replace(", ", " or ")
            message = f"{wrong[1]}={wrong[2]}: must be {choices}"
        elif wrong := re.fullmatch(r"argument (\S+): expected (.*)", message):
            message = f"{wrong[1]}: takes {wrong[2]}"
        elif wrong := re.fullmatch(r"the following arguments are required: (.*)", message):
            names = wrong[1].split(", ")
            message = f"needs {', '.join(n if n[0] == '-' else n.upper() for n in names)}"
        raise DlmError(f"{self.prog}: {message}; {self.prog} --help shows examples")


def _unknown(word: str, options: Iterable[str], takes_config: bool) -> str:
    """What is wrong with a word that a verb does not take."""
    name = word.split("=")[0]
    if not word.startswith("-"):
        return f"{word!r}: one word more than it takes"
    if name == "--config" or name.startswith("--config."):
        right = "an override is one word, --config.GROUP.FIELD=VALUE"
        return f"{word}: {right if takes_config else 'takes no overrides of a config'}"
    keys = []
    if takes_config:
        from dlm import config
        from dlm.config import experiment

        keys = [f"--config.{key}" for key in experiment.keys(config.base())]
    same = next((key for key in keys if key.rsplit(".", 1)[-1] == name.strip("-")), "")
    near = f"; did you mean {same}?" if same else nearest(name, [*options, *keys])
    return f"{word}: no such option{near}"


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the words that are `--config.` overrides.

    Raises:
      DlmError: an unknown verb or option, or a value that an option does not take.
    """
    parser = Parser(
        prog="dlm",
        description="Scaling-law experiments for data-constrained language modelling.",
        epilog="dlm VERB --help shows examples.",
        formatter_class=help_text.Formatter,
    )
    parser.add_argument("--version", action="version", version=f"dlm {metadata.version('dlm')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parsers = {}
    for name, (summary, examples) in VERBS.items():
        parsers[name] = verb = verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=examples,
            formatter_class=help_text.Formatter,
        )
        verb.add_argument(
            "--workdir",
            default="runs",
            help="where runs are kept, also gs:// or s3:// (default: runs)",
        )
    for name in ("run", "train", "corpus"):
        parsers[name].add_argument(
            "experiment",
            nargs="?" if name == "train" else None,
            help="a Python file with get_config(scale)",
        )
        parsers[name].add_argument("--scale", default="laptop", help="laptop, smoke, gpu or paper")
        parsers[name].usage = f"dlm {name} EXPERIMENT [options] [--config.GROUP.FIELD=VALUE ...]"
    run = parsers["run"]
    run.add_argument(
        "--jobs",
        type=inputs.whole(0, JOBS),
        default=0,
        help="worker processes (default: a core each)",
    )
    for name in ("run", "train"):
        parsers[name].add_argument(
            "--distributed", action="store_true", help="with the same command in other processes"
        )
    benchmark = parsers["benchmark"]
    benchmark.add_argument("experiment", nargs="?", help="a Python file with get_config(scale)")
    benchmark.add_argument("--scale", default="laptop", help="laptop, smoke, gpu or paper")
    which = {"type": inputs.whole(), "help": "which run of the sweep, from 0"}
    benchmark.add_argument("--run", default=0, **which)
    benchmark.add_argument(
        "--size", nargs="+", action="extend", default=[], help="non-embedding parameters"
    )
    benchmark.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE[,...]",
        help="variants, timed in turn",
    )
    benchmark.add_argument(
        "--seconds", type=inputs.above_zero(), default=10.0, help="of timing, each variant"
    )
    benchmark.add_argument(
        "--training-only", action="store_true", help="time neither scoring nor sampling"
    )
    benchmark.add_argument("--out", type=inputs.path, help="a JSON file for what was found")
    run.add_argument("--dry-run", action="store_true", help="list the runs, train nothing")
    run.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="here, or a job for each run",
    )
    run.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for sbatch; time in minutes",
    )
    parsers["train"].add_argument("--run", **which)
    parsers["train"].add_argument(
        "--extend", metavar="RUN", help="a finished run, to go on with for a longer duration"
    )
    parsers["train"].add_argument(
        "--trust", action="store_true", help="of --extend: run the objective file that it names"
    )
    trained.arguments(parsers)
    for name in ("runs", "report", "tensorboard"):
        parsers[name].add_argument(
            "folder",
            nargs="?",
            help="path, address, or name below the workdir (default: all of it)",
        )
    parsers["runs"].add_argument(
        "--diff", nargs=2, metavar="RUN", help="show in what two runs differ, and their results"
    )
    laws_verbs.law_argument(parsers["report"], "of a table of runs")
    laws_verbs.columns_argument(parsers["report"])
    laws_verbs.choice(parsers["report"])
    parsers["report"].add_argument(
        "--reference",
        default="",
        metavar="FAMILY",
        help="compare all others with this family, or with one of its settings: "
        "'ar optimizer.lr=0.002' (default: ar)",
    )
    parsers["tensorboard"].add_argument(
        "--port", type=inputs.whole(0, 2**16 - 1), default=6006, help="(default: 6006)"
    )
    laws_verbs.arguments(parsers)

    # argparse would take an override with a space in it for a positional argument.
    overrides = [word for word in argv if word.startswith("--config.")]
    arguments, rest = parser.parse_known_args([w for w in argv if not w.startswith("--config.")])
    rest += overrides
    takes_config = arguments.verb in ("run", "train", "corpus", "benchmark", "check-objective")
    verb = parsers[arguments.verb]
    if wrong := [word for word in rest if not (takes_config and word.startswith("--config."))]:
        options = verb._option_string_actions
        verb.error(_unknown(wrong[0], options, takes_config))
    if not arguments.workdir:
        verb.error("--workdir='': must be a folder, or its address in a bucket")
    return arguments, rest
