"""The scripts of launch/: what they print in a dry run, and what they call, with fakes on the PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dlm import config
from dlm.cli import sending
from fake_command import Fakes
from places import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
HELPERS = {"common.sh", "job.sh"}
NAMES = ("gcloud", "xpk", "sky", "srun", "sbatch", "scontrol", "scancel", "ssh", "scp", "rsync")
OTHERS = ("git", "tar", "nvidia-smi", "python3")
ENVIRONMENT = {
    "TPU_ZONE": "us-west4-a", "TPU_TYPE": "v5litepod-16", "TPU_RUNTIME": "v2-alpha-tpuv5-lite",
    "WORKDIR": "gs://bucket/runs", "PAUSE": "0",
    "XPK_CLUSTER": "pool", "XPK_ZONE": "us-west4-a", "XPK_PROJECT": "lab",
}  # fmt: skip
WORDS = ["experiments/smoke.py", "--config.train.duration=2 epochs", "--config.corpus.name=it's"]
QUOTED = (
    r"""experiments/smoke.py '--config.train.duration=2 epochs' '--config.corpus.name=it'\''s'"""
)


@pytest.fixture
def fakes(tmp_path) -> Fakes:
    """Fakes, beside a copy of launch/ whose root has but two experiments, both committed."""
    shutil.copytree(LAUNCH, tmp_path / "root/launch")
    (tmp_path / "root/experiments").mkdir()
    for name in ("experiments/smoke.py", "x.py"):
        (tmp_path / "root" / name).touch()
    return Fakes(tmp_path / "fakes", *NAMES, *OTHERS)


def launch(
    fakes: Fakes, script: str, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v
        for k, v in os.environ.items()
        if k != "PYTHON" and not k.startswith(("TPU_", "SLURM_", "XPK_"))
    }
    return subprocess.run(
        ["bash", f"launch/{script}", *words],
        cwd=fakes.folder.parent / "root",
        env=clean | ENVIRONMENT | fakes.environment | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def nested(text: str) -> str:
    """In quotes, as the scripts write them."""
    return "'" + text.replace("'", r"'\''") + "'"


def verbs(fakes: Fakes) -> list[str]:
    """The calls of gcloud in a word each: describe, create, scp, ssh, rsync, delete."""
    return [
        call[2] if call[1] == "storage" else call[4] for call in fakes.calls() if "gcloud" in call
    ]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_syntax(path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert path.name == "common.sh" or os.access(path, os.X_OK) or path.suffix == ".sbatch"
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", path], check=True, cwd=LAUNCH.parent)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_without_arguments_a_script_shows_its_head(path, fakes) -> None:
    if path.name in HELPERS:
        return
    for words, code in (((), 2), (("--dry-run",), 2), (("--help",), 0), (("run", "-h"), 0)):
        done = launch(fakes, path.name, *words, WORKDIR="", TPU_ZONE="", XPK_ZONE="")
        assert done.returncode == code
        assert "--dry-run" in done.stderr and "source launch" not in done.stderr
    assert not [call for call in fakes.calls() if call[0] in NAMES]


PACK = ["mkdir -p build", "git archive --format=tar.gz --output=build/dlm.tar.gz HEAD"]
UV = (
    r"curl -LsSf https://astral.sh/uv/install.sh | sh && PATH=~/.local/bin:$PATH && "
    r"uv venv --quiet --allow-existing --python 3.12 .venv && uv pip install --quiet -e '\''.[{}]'\''"
)
QUEUED = "gcloud compute tpus queued-resources {} dlm --zone=us-west4-a"
HOSTS = "gcloud compute tpus tpu-vm ssh dlm --zone=us-west4-a --worker=all '--command={}'"
AGAIN = QUOTED.replace("'", r"'\''")  # quoted within quotes
CREATE = [
    QUEUED.format("create") + " --node-id=dlm --accelerator-type=v5litepod-16"
    " --runtime-version=v2-alpha-tpuv5-lite",
    QUEUED.format("describe") + " '--format=value(state.state)'",
]
INSTALL = [
    "gcloud compute tpus tpu-vm scp build/dlm.tar.gz dlm: --zone=us-west4-a --worker=all",
    HOSTS.format("mkdir -p dlm && cd dlm && tar -xzf ../dlm.tar.gz && " + UV.format("tpu,hf,gs")),
]
RUN = HOSTS.format(
    "cd dlm || exit; pkill -x dlm; while pgrep -x dlm >/dev/null; do sleep 1; done; "
    f".venv/bin/dlm run --distributed --workdir=gs://bucket/runs {AGAIN}"
)
FETCH = [
    "mkdir -p runs",
    "gcloud storage rsync --recursive '--exclude=.*/checkpoints/.*' gs://bucket/runs runs",
]
INSTALLED = UV.format("cuda,hf,gs").replace(r"'\''", "'")  # quoted once less
DETACHED = f"tar -xzf dlm.tar.gz && {INSTALLED} && .venv/bin/dlm run {QUOTED}"
FROM_HOST = [
    "mkdir -p runs",
    "rsync --archive '--exclude=/*/trunks' --exclude=checkpoints --exclude=/corpora "
    "host:dlm/runs/ runs/",
]
DELETE = QUEUED.format("delete") + " --force --quiet"
XPK = "xpk workload {} --cluster=pool --zone=us-west4-a --project=lab "
DRY = {
    "local.sh": (WORDS, ["python3 -m venv .venv", ".venv/bin/pip install --quiet -e '.[cuda,hf,gs]'",
                         f"exec .venv/bin/dlm run {QUOTED}"]),
    "gpu.sh": (["me@host", *WORDS], [
        *PACK,
        "ssh me@host 'nvidia-smi -L && mkdir -p dlm'",
        "scp build/dlm.tar.gz launch/job.sh me@host:dlm/",
        f"ssh me@host {nested('cd dlm && bash job.sh start ' + nested(DETACHED))}",
        "ssh me@host 'cd dlm && bash job.sh follow'",
        *(line.replace(" host:", " me@host:") for line in FROM_HOST),
    ]),
    "gpu.sh host": (["status"], ["ssh host 'cd dlm && bash job.sh status'"]),
    "gpu.sh host follow": ([], ["ssh host 'cd dlm && bash job.sh follow'", *FROM_HOST]),
    "gpu.sh host stop": ([], ["ssh host 'cd dlm && bash job.sh stop'"]),
    "gpu.sh host fetch": ([], FROM_HOST),
    "gpu.sh host --checkpoints fetch": ([], [
        "mkdir -p runs", "rsync --archive '--exclude=/*/trunks' host:dlm/runs/ runs/"
    ]),
    "tpu.sh all": (WORDS, [*PACK, *CREATE, *INSTALL, RUN, *FETCH, DELETE]),
    "tpu.sh create": ([], CREATE),
    "tpu.sh install": ([], [*PACK, *INSTALL]),
    "tpu.sh run": (WORDS, [RUN]),
    "tpu.sh status": ([], [QUEUED.format("describe")]),
    "tpu.sh fetch": ([], FETCH),
    "tpu.sh --checkpoints fetch": ([], [
        "mkdir -p runs", "gcloud storage rsync --recursive gs://bucket/runs runs"
    ]),
    "tpu.sh delete": ([], [DELETE]),
    "xpk.sh run": (WORDS, [
        *PACK,
        "rm -rf build/image",
        "mkdir -p build/image",
        "tar -xzf build/dlm.tar.gz -C build/image",
        XPK.format("create") + "--workload=dlm --tpu-type=v5litepod-16 "
        "--base-docker-image=python:3.12 --script-dir=build/image --max-restarts=100 "
        "--restart-on-exit-codes=75 --termination-grace-period-seconds=120 "
        r"'--command=pip install --quiet -e '\''.[tpu,hf,gs]'\'' && "
        f"exec dlm run --distributed --workdir=gs://bucket/runs {AGAIN}'",
    ]),
    "xpk.sh status": ([], [XPK.format("list") + "--filter-by-job=dlm"]),
    "xpk.sh fetch": ([], FETCH),
    "xpk.sh delete": ([], [XPK.format("delete") + "--workload=dlm"]),
    "sky.sh": (WORDS, [
        f"sky jobs launch --env 'ARGUMENTS={AGAIN}' --env WORKDIR=gs://bucket/runs "
        "launch/skypilot.yaml",
        *(LAUNCH / "skypilot.yaml").read_text().splitlines(),
    ]),
    "slurm.sbatch": (WORDS, [f"srun --wait=60 dlm run {QUOTED}"]),
}  # fmt: skip


@pytest.mark.parametrize("script", DRY)
def test_a_dry_run_prints_all_and_does_nothing(script, fakes) -> None:
    words, expected = DRY[script]
    name, *verb = script.split()
    given = [*verb, *words]
    # wherever it stands; one script speaks for all, which share the code
    for place in (0, 1, len(given)) if script == "gpu.sh" else [len(given)]:
        done = launch(fakes, name, *given[:place], "--dry-run", *given[place:])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected
    # local.sh looks for a GPU; what would be sent, and what an experiment reads, is looked at
    assert {call[0] for call in fakes.calls()} <= {"nvidia-smi", "git", "python3"}
    root = {path.name for path in (fakes.folder.parent / "root").iterdir()}
    assert root == {"launch", "experiments", "x.py"}


def test_every_script_has_a_dry_run_here() -> None:
    tested = {script.split()[0] for script in DRY}
    assert tested == {path.name for path in SCRIPTS} - HELPERS


@pytest.mark.parametrize("variable", ["TPU_ZONE", "TPU_TYPE", "TPU_RUNTIME", "WORKDIR"])
def test_what_is_missing_is_named_before_anything_is_done(variable, fakes) -> None:
    done = launch(fakes, "tpu.sh", "--dry-run", "all", *WORDS, **{variable: ""})
    assert done.returncode != 0 and f"{variable}: names" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("tpu.sh", "status", "x.py"), ("tpu.sh", "nonsense"), ("tpu.sh", "run"), ("gpu.sh", "host"),
     ("xpk.sh", "fetch", "x.py"), ("xpk.sh", "nonsense"), ("xpk.sh", "run")],
    ids=" ".join,
)  # fmt: skip
def test_words_that_a_verb_does_not_take_show_the_head(words, fakes) -> None:
    done = launch(fakes, *words)
    assert done.returncode == 2 and "--dry-run" in done.stderr and not fakes.calls()


@pytest.mark.parametrize(
    "workdir, store", [("gs://b/f", ",gs"), ("s3://b/f", ",s3"), ("/shared/runs", "")]
)
def test_what_a_workdir_needs_is_installed(workdir, store, fakes, tmp_path) -> None:
    for words in (("tpu.sh", "all"), ("xpk.sh", "run")):
        done = launch(fakes, *words, "--dry-run", "x.py", WORKDIR=workdir)
        assert f"[tpu,hf{store}]" in done.stdout and f"--workdir={workdir} x.py" in done.stdout
    Fakes(tmp_path / "installers", "curl")
    uv = tmp_path / ".local/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(0o755)
    environment = os.environ | fakes.environment | {"WORKDIR": workdir, "HOME": str(tmp_path)}
    path = f"{tmp_path / 'installers/bin'}:{environment['PATH']}"
    setup = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())["setup"]
    done = subprocess.run(
        ["bash", "-c", setup], env=environment | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"-e .[cuda,hf{store}]")


@pytest.mark.parametrize("script", ["tpu.sh", "xpk.sh"])
def test_a_workdir_with_a_space_is_quoted(script, fakes) -> None:
    done = launch(fakes, script, "--dry-run", "run", "x.py", WORKDIR="gs://a bucket/runs")
    (line,) = [line for line in done.stdout.splitlines() if "dlm run" in line]
    remote = shlex.split(line)[-1].removeprefix("--command=")
    assert shlex.split(remote)[-2:] == ["--workdir=gs://a bucket/runs", "x.py"]


def test_uncommitted_changes_are_not_sent(fakes) -> None:
    fakes.answer(("git diff", "", 1))
    done = launch(fakes, "tpu.sh", "install")
    assert done.returncode == 2 and "uncommitted" in done.stderr
    assert [call[0] for call in fakes.calls()] == ["git"]


# --- a TPU ----------------------------------------------------------------------------------------

STATE, RUNNING = "--format=value(state.state)", "dlm run"


def test_a_tpu_is_created_used_and_deleted(fakes) -> None:
    states = ["", "WAITING_FOR_RESOURCES", "ACTIVE"]
    fakes.answer(*((STATE, state, 0) for state in states))
    done = launch(fakes, "tpu.sh", "all", *WORDS, TPU_SPOT="1")
    assert done.returncode == 0, done.stderr
    assert verbs(fakes) == [
        *("describe", "create", "describe", "describe"), "scp", "ssh", "ssh", "rsync", "delete"
    ]  # fmt: skip
    (create,) = [call for call in fakes.calls() if "create" in call]
    assert "--spot" in create
    (remote,) = [call[-1] for call in fakes.calls() if RUNNING in call[-1]]
    assert shlex.split(remote.removeprefix("--command="))[-3:] == WORDS


def test_a_tpu_that_was_preempted_is_made_again_and_the_run_goes_on(fakes) -> None:
    fakes.answer(
        (STATE, "ACTIVE", 0),
        (RUNNING, "", 255),  # ssh lost the hosts
        (STATE, "SUSPENDING", 0),
        (STATE, "SUSPENDING", 0),
        (STATE, "SUSPENDED", 0),
        (STATE, "", 0),
        (STATE, "ACTIVE", 0),
        (RUNNING, "", 75),  # told to stop, all is saved
        *[(STATE, "ACTIVE", 0)] * 2,
    )
    done = launch(fakes, "tpu.sh", "all", *WORDS)
    assert done.returncode == 0, done.stderr
    assert verbs(fakes) == [
        *("describe", "scp", "ssh", "ssh", "describe"),
        *("describe", "describe", "delete", "describe", "create", "describe"),
        *("scp", "ssh", "ssh", "describe"),
        *("describe", "scp", "ssh", "ssh", "rsync", "delete"),
    ]
    remote = [call[-1] for call in fakes.calls() if RUNNING in call[-1]]
    assert len(remote) == 3 and len(set(remote)) == 1


def test_a_run_that_failed_is_not_tried_again_and_its_tpu_is_deleted(fakes) -> None:
    fakes.answer((STATE, "ACTIVE", 0), (RUNNING, "", 1), (STATE, "ACTIVE", 0))
    done = launch(fakes, "tpu.sh", "all", *WORDS)
    assert done.returncode == 1
    assert verbs(fakes)[-4:] == ["ssh", "describe", "rsync", "delete"]


def test_a_tpu_that_cannot_be_had_or_reached_ends_it(fakes) -> None:
    fakes.answer((STATE, "FAILED", 0), ("describe dlm --zone=us-west4-a", "no such type", 0))
    done = launch(fakes, "tpu.sh", "all", *WORDS)
    assert done.returncode == 1 and "no such type" in done.stdout
    assert verbs(fakes) == ["describe", "describe", "delete"]
    fakes.answer(*[(STATE, "ACTIVE", 0)] * 20, *[("mkdir -p dlm", "", 255)] * 10)
    done = launch(fakes, "tpu.sh", "all", *WORDS)
    assert done.returncode == 255 and verbs(fakes)[-1] == "delete"


# --- the others -----------------------------------------------------------------------------------


def test_a_gpu_machine_sends_its_results_also_after_a_failure(fakes) -> None:
    fakes.answer(("job.sh follow", "", 1))
    done = launch(fakes, "gpu.sh", "me@host", *WORDS)
    assert done.returncode == 1
    sent = [call[0] for call in fakes.calls()]
    assert [name for name in sent if name not in OTHERS] == ["ssh", "scp", "ssh", "ssh", "rsync"]
    start, follow = fakes.calls()[-3:-1]
    assert shlex.split(shlex.split(start[-1])[-1])[-3:] == WORDS
    assert shlex.split(follow[-1])[-1] == "follow"


JOB = {"SLURM_JOB_ID": "14"}
ARRAY = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize(
    "environment, verb, name",
    [
        (JOB, ["run"], "14"),
        (JOB | {"SLURM_JOB_NUM_NODES": "2"}, ["run", "--distributed"], "14"),
        (ARRAY, ["train", "--run", "3"], "12_3"),  # 12 alone would be the whole array
    ],
)
def test_a_slurm_job_is_queued_again_after_75_only(environment, verb, name, fakes) -> None:
    srun = ["srun", "--wait=60", "dlm", *verb, *WORDS]
    for code in (75, 1, 0):
        fakes.answer(("srun", "", code))
        assert launch(fakes, "slurm.sbatch", *WORDS, **environment).returncode == code
    assert fakes.calls() == [srun, ["scontrol", "requeue", name], srun, srun]


def test_the_job_of_skypilot(fakes, tmp_path) -> None:
    """Its parts are run as SkyPilot does, by bash, with the values that sky.sh gives."""
    assert launch(fakes, "sky.sh", *WORDS).returncode == 0
    (call,) = [call for call in fakes.calls() if call[0] == "sky"]
    given = dict(word.split("=", 1) for word in call[4:7:2])
    job = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert call[-1] == "launch/skypilot.yaml" and given.keys() == job["envs"].keys()
    assert job["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    subprocess.run(["bash", "-n"], input=job["setup"], text=True, check=True)
    program = tmp_path / "root/.venv/bin/dlm"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" "$JAX_COORDINATOR_ADDRESS $JAX_PROCESS_ID"\n'
    )
    program.chmod(0o755)
    for nodes, extra in (("1", [" "]), ("2", ["--distributed", "10.0.0.1:8476 1"])):
        node = {
            "SKYPILOT_NUM_NODES": nodes,
            "SKYPILOT_NODE_RANK": "1",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        }
        done = subprocess.run(
            ["bash", "-c", job["run"]],
            cwd=tmp_path / "root", env=os.environ | given | node, capture_output=True, text=True,
        )  # fmt: skip
        expected = ["run", "--workdir=gs://bucket/runs", *WORDS, *extra]
        assert done.stdout.splitlines() == expected


# --- what is sent ---------------------------------------------------------------------------------

SENDING = {"gpu.sh": ["host"], "tpu.sh": ["all"], "xpk.sh": ["run"], "sky.sh": []}
OWN = """
from pathlib import Path
from dlm import config


def get_config(scale):
    c = config.base()
    c.corpus.name = "files"
    c.corpus.options.paths = ["data/*.txt", "sent.txt"]
    return c
"""


@pytest.fixture
def repository(tmp_path) -> Fakes:
    """Fakes beside a real repository: launch/ and two experiments are committed, and what they read
    but data/, which .gitignore names."""
    root = tmp_path / "root"
    shutil.copytree(LAUNCH, root / "launch")
    for name in ("experiments", "data"):
        (root / name).mkdir()
    for name in ("x.py", "own.py"):
        (root / "experiments" / name).write_text(OWN)
    for name in ("data/a.txt", "sent.txt"):
        (root / name).write_text("some text")
    (root / ".gitignore").write_text("data/\nlocal.py\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message=all")
    fakes = Fakes(tmp_path / "fakes", *NAMES, "nvidia-smi", "tar")
    python = fakes.folder / "bin/python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={LAUNCH.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return fakes


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=root, check=True)


@pytest.mark.parametrize("script", [*SENDING, "tpu.sh run", "local.sh", "slurm.sbatch"])
def test_an_experiment_that_does_not_exist_is_refused_before_anything(script, fakes) -> None:
    name, *verb = script.split()
    for dry in ([], ["--dry-run"]):
        done = launch(fakes, name, *(verb or SENDING.get(name, [])), "experiments/smoek.py", *dry)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: experiments/smoek.py: no such experiment file below")
        assert done.stderr.endswith("experiments/ has smoke.py\n") and fakes.calls() == []


def test_what_is_not_committed_is_refused_before_any_machine_is_made(repository) -> None:
    root = repository.folder.parent / "root"
    (root / "experiments/new.py").write_text(OWN)
    (root / "experiments/staged.py").write_text(OWN)
    (root / "local.py").write_text(OWN)
    git(root, "add", "experiments/staged.py")

    def refused(script: str, path: str, *words: str) -> str:
        done = launch(repository, script, *SENDING[script], path, "--dry-run", *words)
        assert done.returncode == 2 and done.stdout == "" and repository.calls() == []
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        return done.stderr

    for script in ("gpu.sh", "tpu.sh", "xpk.sh"):
        assert "experiments/new.py: is not committed" in refused(script, "experiments/new.py")
    assert "staged.py: is not committed as" in refused("gpu.sh", "experiments/staged.py")
    assert "must be a path below" in refused("gpu.sh", str(root / "experiments/x.py"))
    assert "must be a path below" in refused("sky.sh", "experiments/../experiments/x.py")
    assert "local.py: .gitignore names it" in refused("sky.sh", "local.py")
    assert "--scale: the experiment comes before" in refused("gpu.sh", "--scale", "gpu", "x.py")
    assert "there are uncommitted changes" in refused("gpu.sh", "experiments/x.py")
    git(root, "reset", "--quiet")
    (root / "experiments/x.py").write_text(OWN + "\n")
    assert "x.py: is not committed as it stands" in refused("gpu.sh", "experiments/x.py")


def test_what_an_experiment_reads_and_is_not_sent_is_told(repository) -> None:
    root = repository.folder.parent / "root"
    told = "not sent: data/*.txt (config.corpus.options.paths); it must lie at that place there\n"
    done = launch(repository, "sky.sh", "experiments/x.py", "--dry-run")
    assert done.returncode == 0 and done.stderr == told
    (root / "mine.py").write_text("FAMILY = make = None")
    words = ["gpu.sh", "host", "experiments/x.py", "--dry-run"]
    done = launch(repository, *words)
    assert done.returncode == 0 and "bash job.sh follow" in done.stdout
    assert done.stderr == f"not sent, as git does not track it: mine.py\n{told}"
    done = launch(repository, *words, "--config.corpus.nam=digits")
    assert done.returncode == 2 and done.stdout == ""
    assert "config.corpus.nam: no such key; did you mean corpus.name?" in done.stderr
    (repository.folder / "bin/python3").write_text("#!/bin/sh\nexit 1\n")
    done = launch(repository, *words)
    assert done.returncode == 0 and "dlm does not start here" in done.stderr


def test_an_objective_of_ones_own_that_is_not_sent_is_refused(fakes) -> None:
    answer = ("dlm.cli.sending", "objective.file\tmine.py", 0)
    fakes.answer(answer)
    done = launch(fakes, "gpu.sh", "host", "x.py")
    assert done.returncode == 2 and "config.objective.file=mine.py: is not sent" in done.stderr
    assert {call[0] for call in fakes.calls()} == {"git", "python3"}
    fakes.answer(answer, ("ls-files -- mine.py", "mine.py", 0))
    assert launch(fakes, "gpu.sh", "host", "x.py").returncode == 0


def test_what_an_experiment_reads_here(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "mine.py", "tokenizer.json"):
        Path(name).touch()
    elsewhere = str(Path(tmp_path.parent, "b.txt"))
    Path(elsewhere).touch()
    c = config.Config(
        corpus=config.Corpus(
            name="files", options={"paths": ["*.txt", elsewhere, "none/*"], "n": 3}
        ),
        tokenizer=config.Tokenizer(kind="hf", path="tokenizer.json"),
        objective=config.Objective(name="mine", file=str(tmp_path / "mine.py")),
    )
    assert list(sending.read_here(c)) == [
        ("objective.file", "mine.py"),
        ("tokenizer.path", "tokenizer.json"),
        ("corpus.options.paths", "*.txt"),
        ("corpus.options.paths", elsewhere),
    ]
    own = LAUNCH.parent / "experiments/own_objective.py"
    assert sending.main([str(own)]) == 0 and capsys.readouterr().out == ""  # itself is sent
    assert sending.main(["none.py"]) == 2 and "no such experiment" in capsys.readouterr().err


# --- a detached job -------------------------------------------------------------------------------

# Ends with 3 when it may; told to stop, it saves, and leaves with 75.
TRAINS = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.2)
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("trains", sys.argv[1:], flush=True)
while not pathlib.Path("end").exists():
    time.sleep(0.02)
sys.exit(3)
"""


@pytest.fixture
def machine(tmp_path):
    """Calls job.sh in a folder of its own; whatever it started is told to stop at the end."""
    (tmp_path / "trains.py").write_text(TRAINS)

    def call(*words: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(LAUNCH / "job.sh"), *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, **options,
        )  # fmt: skip

    yield call
    call("stop")


needs_flock = pytest.mark.skipif(
    not all(map(shutil.which, ("flock", "setsid"))), reason="needs flock and setsid of util-linux"
)


@needs_flock
def test_a_job_outlives_the_call_that_started_it_and_is_followed_and_stopped(
    machine, tmp_path
) -> None:
    command = f"true && {shlex.quote(sys.executable)} trains.py 'two words'"
    assert "nothing was started here" in machine("status").stdout
    assert machine("start", command, start_new_session=True).returncode == 0
    again = machine("start", command)
    assert again.returncode == 0 and "running already" in again.stdout
    other = machine("start", "true")
    assert other.returncode == 2 and f"something else is running here: {command}" in other.stderr
    assert machine("status").stdout == f"running: {command}\n"
    for _ in range(600):  # before that nothing would be saved
        if "trains" in (tmp_path / "job" / "log").read_text():
            break
        time.sleep(0.05)
    assert machine("stop").stdout == f"ended with exit code 75: {command}\n"
    followed = machine("follow")
    assert followed.returncode == 75
    assert followed.stdout == "trains ['two words']\nsaved\n"
    assert machine("start", command).returncode == 0  # the same call continues
    (tmp_path / "end").touch()
    followed = machine("follow")
    assert followed.returncode == 3 and followed.stdout == "trains ['two words']\n"
    (tmp_path / "job/code").unlink()
    gone = machine("follow")
    assert gone.returncode == 1 and "gone without an exit code" in gone.stderr


@needs_flock
def test_what_fails_before_the_command_ends_the_job_with_its_code(machine) -> None:
    assert machine("start", "echo installs && (exit 4) && echo never").returncode == 0
    followed = machine("follow")
    assert followed.returncode == 4 and followed.stdout == "installs\n"
    assert machine("nonsense").returncode == 2


def test_a_connection_that_is_lost_leaves_the_run_going(fakes) -> None:
    fakes.answer(("job.sh follow", "", 255))
    done = launch(fakes, "gpu.sh", "host", "follow")
    assert done.returncode == 255 and "lost; it goes on there" in done.stderr
    assert "launch/gpu.sh host status | follow | stop | fetch" in done.stderr
    assert [call[0] for call in fakes.calls()] == ["ssh"]
