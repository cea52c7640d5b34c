"""What a newcomer types: each mistake is one line that says what would be right, and exits with 2."""

from __future__ import annotations

from pathlib import Path

import pytest

import fake_runs
import tiny
from dlm.cli import main, parser

RUN = ("run", "tiny_experiment.py")
FILES = (*RUN, "--config.corpus.name=files")
ABSENT = "9999"
FIT = ("fit", "good.csv")
# The words of a command, and what the line says.
MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((), "dlm: needs VERB; dlm --help shows examples"),
    (("",), "no such verb"),
    (("rum",), "rum: no such verb; did you mean run?"),
    # an experiment
    (("run",), "dlm run: needs EXPERIMENT; dlm run --help shows examples"),
    (("run", ""), "'': no such experiment file"),
    (("run", "tiny_experiment"), "did you mean tiny_experiment.py?"),
    (("run", "topics"), "topics: no such experiment file; did you mean experiments/topics.py?"),
    (("run", "experiments"), "experiments: is a folder; name a file of it: topics.py"),
    (("run", "folder.py"), "folder.py: is a folder"),
    (("run", "good.csv"), "good.csv: not a Python file"),
    (("run", "binary.py"), "binary.py: SyntaxError"),
    (("run", "empty.py"), "empty.py: has no get_config(scale)"),
    (("run", "silent.py"), "silent.py:2: ValueError: no message, at `raise ValueError`"),
    (("run", "unclosed.py"), "unclosed.py:1: SyntaxError: '(' was never closed"),
    (("run", "leaves.py"), "leaves.py:1: SystemExit: no message, at `raise SystemExit`"),
    (("run", "no_sweep.py"), "no_sweep.py: sweep must yield a dict of overrides"),
    (("train",), "dlm train: needs EXPERIMENT"),
    (("train", RUN[1], "--run", "x"), "dlm train: --run=x: must be a whole number"),
    (("train", RUN[1], "--run", "2"), "--run=2: must be 0 to 1"),
    (("corpus", "nothing.py"), "nothing.py: no such experiment file"),
    # options
    ((*RUN, "extra"), "'extra': one word more than it takes"),
    ((*RUN, "--scale", ""), "--scale=: must be one of laptop, smoke, gpu, paper"),
    ((*RUN, "--workdir", ""), "--workdir='': must be a folder"),
    ((*RUN, "--workdir", "good.csv"), "--workdir=good.csv: is a file; must be a folder"),
    ((*RUN, "--jobs", "2.5"), "--jobs=2.5: must be a whole number"),
    ((*RUN, "--executor", "pbs"), "--executor=pbs: must be local or slurm"),
    ((*RUN, "--executor"), "--executor: takes one argument"),
    ((*RUN, "--distibuted"), "--distibuted: no such option; did you mean --distributed?"),
    # overrides
    ((*RUN, "--layers=3"), "--layers=3: no such option; did you mean --config.model.layers?"),
    ((*RUN, "--config", "model.layers=3"), "an override is one word, --config.GROUP.FIELD=VALUE"),
    ((*RUN, "--config.model.layers"), "an override reads --config.GROUP.FIELD=VALUE"),
    ((*RUN, "--config.model.layers="), "config.model.layers='': must be an integer"),
    ((*RUN, "--config.=3"), "--config.=3: an override reads"),
    ((*RUN, "--config..layers=3"), "config..layers: no such key; did you mean model.layers?"),
    ((*RUN, "--config.model.layers.x=3"), "model.layers has no parts"),
    ((*RUN, "--config.train.duration=5"), "must be a text such as '60 epochs'"),
    ((*RUN, "--config.corpus.name="), "config.corpus.name='': must be one of"),
    ((*RUN, "--config.objective.name="), "config.objective.name='': must be one of"),
    ((*RUN, "--config.objective.file=none.py"), "config.objective.file='none.py': no such file"),
    ((*RUN, "--config.objective.file=folder.py"), "must be a Python file with FAMILY and make"),
    ((*RUN, "--config.objective.file=empty.py"), "a file that defines FAMILY and make"),
    (FILES, "config.corpus.options.paths: missing; files needs it"),
    ((*FILES, "--config.corpus.options.paths="), "must be a glob"),
    ((*FILES, "--config.corpus.options.paths=none/*.txt"), "'none/*.txt': no file matches"),
    ((*FILES, "--config.corpus.options.path=x"), "did you mean paths?"),
    # a run
    (("evaluate",), "dlm evaluate: needs RUN"),
    (("evaluate", ""), "'': no run; give its folder, its id or a beginning of that"),
    (("evaluate", ABSENT), f"{ABSENT}: no such run; looked for its folder"),
    (("evaluate", "runs/quickstart/"), "may be any of 2 runs"),
    (("evaluate", "good.csv"), "good.csv: no such run"),
    (("evaluate", ABSENT, "--orders", "1"), "--orders=1: must be 2 to "),
    (("evaluate", ABSENT, "--config.model.layers=3"), "takes no overrides of a config"),
    (("sample", ABSENT, "--count", "0"), "--count=0: must be 1 to 1,000,000"),
    (("sample", ABSENT, "--seed", "-1"), "--seed=-1: must be 0 to 4,294,967,295"),
    (("sample", ABSENT, "--temperature", "hot"), "--temperature=hot: must be a number"),
    (("quality", ABSENT), "dlm quality: needs --reference-model"),
    (("quality", ABSENT, "--reference-model", "x", "--steps", "0"), "--steps=0: must be 1 or more"),
    (("spectrum",), "dlm spectrum: needs RUN"),
    (("spectrum", ""), "'': no run"),
    # a folder of runs
    (("runs", ""), "leave it out for the workdir"),
    (("runs", "quickstrat"), "quickstrat: no such folder of runs; did you mean quickstart?"),
    (("runs", "experiments"), "experiments: no run lies there; dlm run makes some"),
    (("runs", "good.csv"), "good.csv"),
    (("runs", "--workdir", "nowhere"), "nowhere: no such folder of runs"),
    (("report", "nothing"), "nothing: no such folder of runs; below runs there are quickstart"),
    (("tensorboard", "good.csv"), "good.csv: is a file; name a folder of runs"),
    (("tensorboard", "--port", "-1"), "--port=-1: must be 0 to 65,535"),
    # objectives
    (("objectives", "ar"), "'ar': one word more than it takes"),
    (("check-objective",), "dlm check-objective: needs OBJECTIVE"),
    (("check-objective", ""), "'': must be a Python file or an objective's name"),
    (("check-objective", "maskd"), "did you mean masked?"),
    (("check-objective", "none.py"), "no such file"),
    (("check-objective", "folder.py"), "must be a Python file with FAMILY and make"),
    (("check-objective", "binary.py"), "binary.py: SyntaxError"),
    # a benchmark
    (("benchmark", "--size"), "--size: takes at least one argument"),
    (("benchmark", "--size", "3X"), "--size 3X: must be one of"),
    (("benchmark", "--seconds", "0"), "--seconds=0: must be above 0"),
    (("benchmark", "--compare", "x"), "an override reads"),
    (("benchmark", RUN[1], "--run", "9"), "--run=9: must be 0 to 1"),
    # a table
    (("fit",), "dlm fit: needs TABLE"),
    (("fit", "none.csv"), "none.csv: no such table"),
    (("fit", "empty.py"), "empty.py"),
    ((*FIT, "--law", "chinchila"), "did you mean chinchilla?"),
    ((*FIT, "--resamples", "many"), "--resamples=many: must be a whole number"),
    (("critical",), "no table"),
    (("critical", "--laws", "none.json"), "none.json"),
    (("figures",), "nothing to draw"),
    # an option that nothing reads beside another
    (
        (*FIT, "--robust-loss", "lad", "--delta", "0.1"),
        "--delta: only with --robust-loss huber, not",
    ),
    ((*FIT, "--resamples", "0", "--seed", "3"), "--seed: goes without --resamples 0"),
    (
        ("critical", "good.csv", "--laws", "x.json", "--law", "chinchilla"),
        "--law: goes without --l",
    ),
    (
        ("figures", "--laws", "x.json", "--columns", "loss=x"),
        "--columns: only with a table of runs",
    ),
    (
        ("sample", ABSENT, "--entropy-budget", "0.3"),
        "--entropy-budget: only with --sampler entropy",
    ),
    (("train", RUN[1], "--trust"), "--trust: only with --extend"),
    (("train", "--extend", ABSENT, "--scale", "smoke"), "--scale: goes without --extend"),
    (("benchmark", "--run", "1"), "--run: only with an experiment"),
    (("report", "--law", "chinchilla"), "--law: only with a table"),
    (("optimum", "paper", "--flops", "1e20", "--points", "last"), "--points: only of a table"),
    # a plan
    (("plan",), "dlm plan: needs --unique-tokens"),
    (("plan", "--unique-tokens", "1e8"), "give one of --hours"),
    (("plan", "--unique-tokens", "100", "--flops", "1e20"), "write 1e+08 for 100 million"),
    (("plan", "--unique-tokens", "1e8", "--hours", "9", "--device", "h10"), "did you mean h100?"),
    (("plan", RUN[1], "--hours", "9"), "--hours: goes without EXPERIMENT"),
    (("plan", "topics"), "did you mean experiments/topics.py?"),
    (("optimum", "paper"), "dlm optimum: needs --flops"),
    (("optimum", "pape", "--flops", "1e20"), "did you mean paper?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a newcomer stands: experiments, a table, two runs, and files that are none of these."""
    folder = tmp_path_factory.mktemp("newcomer")
    tiny.experiment_file(folder)
    (folder / "experiments").mkdir()
    (folder / "folder.py").mkdir()
    for name, text in {
        "experiments/topics.py": "",
        "empty.py": "",
        "silent.py": "def get_config(scale):\n    raise ValueError\n",
        "unclosed.py": "def get_config(\n",
        "leaves.py": "raise SystemExit\n",
        "no_sweep.py": "def get_config(scale):\n    pass\ndef sweep(scale):\n    yield 3\n",
        "good.csv": "params,tokens,unique_tokens,loss\n1e6,1e7,1e7,3.5\n2e6,1e7,1e7,3.4\n",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.py").write_bytes(b"\xff\xfe\x00")
    for seed in (0, 1):
        fake_runs.write_run(folder / "runs", fake_runs.diffusion(1e12, 2.0), seed=seed)
    return folder


@pytest.mark.parametrize("words, told", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_that_says_what_is_right(
    words, told, folder, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(main.os, "execv", lambda *_: pytest.fail("starts another program"))
    before = sorted(folder.rglob("*.csv"))
    try:
        code = main.main(list(words))
    except SystemExit as left:
        code = left.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and told in err, err
    assert sorted(folder.rglob("*.csv")) == before  # nothing is written


def test_every_verb_has_mistakes_here() -> None:
    assert {words[0] for words, _ in MISTAKES if words} >= set(parser.VERBS)
