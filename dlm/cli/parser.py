"""Reads the words of a command: which verb, its options, and the overrides of a config."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterable
from typing import NoReturn, Protocol, cast

from dlm.cli import help_text
from dlm.cli.options import Overrides
from dlm.errors import DlmError, nearest
from dlm.training import environment


class Verb(Protocol):
    """What the file of a verb defines."""

    @property
    def SUMMARY(self) -> str: ...  # noqa: N802 (one line, as `dlm --help` lists it)
    @property
    def EXAMPLES(self) -> str: ...  # noqa: N802 (the end of `dlm VERB --help`)
    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None: ...
    @staticmethod
    def execute(a: argparse.Namespace, overrides: Overrides) -> int:
        """Does the work; returns the exit code. JAX is imported here, if at all."""
        ...


NAMES = """
run train evaluate sample quality spectrum objectives check-objective benchmark runs report corpus
tensorboard fit critical plan optimum figures
"""
VERBS: dict[str, Verb] = {  # the file of a verb has its name
    name: cast(Verb, importlib.import_module(f"dlm.cli.{name.replace('-', '_')}"))
    for name in NAMES.split()
}


def parse(argv: list[str]) -> tuple[argparse.Namespace, Overrides]:
    """The arguments of a command, and its `--config.` overrides.

    Raises:
      DlmError: an unknown verb or option, or a value that an option does not take.
    """
    parser = Parser(
        prog="dlm",
        description="Scaling-law experiments for data-constrained language modelling.",
        epilog="dlm VERB --help shows examples.",
        formatter_class=help_text.Formatter,
    )
    parser.add_argument("--version", action="version", version=f"dlm {environment.version('dlm')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parsers = {name: _add_verb(verbs, name, verb) for name, verb in VERBS.items()}
    # argparse would take an override with a space in it for a positional argument.
    words = [word for word in argv if word.startswith("--config.")]
    arguments, rest = parser.parse_known_args([w for w in argv if not w.startswith("--config.")])
    chosen, takes_config = parsers[arguments.verb], getattr(arguments, "takes_config", False)
    if wrong := rest if takes_config else [*rest, *words]:
        chosen.error(_unknown(wrong[0], chosen._option_string_actions, takes_config))
    if not arguments.workdir:
        chosen.error("--workdir='': must be a folder, or its address in a bucket")
    from dlm.config import experiment

    return arguments, [experiment.parse_override(word) for word in words]


def _add_verb(verbs: argparse._SubParsersAction, name: str, verb: Verb) -> argparse.ArgumentParser:
    summary = verb.SUMMARY
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=verb.EXAMPLES,
        formatter_class=help_text.Formatter,
    )
    words = "where runs are kept, also gs:// or s3:// (default: runs)"
    parser.add_argument("--workdir", default="runs", help=words)
    verb.add_arguments(parser)
    return parser


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
