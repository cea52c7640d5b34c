"""The scripts of launch/: what they print in a dry run, and what they call, with fakes on the PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from fake_command import Fakes

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
NAMES = ("gcloud", "xpk", "sky", "srun", "sbatch", "scontrol", "scancel", "ssh", "scp", "rsync")
OTHERS = ("git", "tar", "nvidia-smi")
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
    """Fakes, beside a copy of launch/ whose root is empty."""
    shutil.copytree(LAUNCH, tmp_path / "root/launch")
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
    if path.name == "common.sh":
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
DELETE = QUEUED.format("delete") + " --force --quiet"
XPK = "xpk workload {} --cluster=pool --zone=us-west4-a --project=lab "
DRY = {
    "local.sh": (WORDS, ["python3 -m venv .venv", ".venv/bin/pip install --quiet -e '.[cuda,hf,gs]'",
                         f"exec .venv/bin/dlm run {QUOTED}"]),
    "gpu.sh": (["me@host", *WORDS], [
        *PACK,
        "ssh me@host 'nvidia-smi -L && mkdir -p dlm'",
        "scp build/dlm.tar.gz me@host:dlm/",
        f"ssh me@host 'cd dlm && tar -xzf dlm.tar.gz && {UV.format('cuda,hf,gs')}'",
        f"ssh me@host 'cd dlm && .venv/bin/dlm run {AGAIN}'",
        "mkdir -p runs",
        "rsync --archive --exclude=checkpoints me@host:dlm/runs/ runs/",
    ]),
    "tpu.sh all": (WORDS, [*PACK, *CREATE, *INSTALL, RUN, *FETCH, DELETE]),
    "tpu.sh create": ([], CREATE),
    "tpu.sh install": ([], [*PACK, *INSTALL]),
    "tpu.sh run": (WORDS, [RUN]),
    "tpu.sh status": ([], [QUEUED.format("describe")]),
    "tpu.sh fetch": ([], FETCH),
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
    for place in (0, 1, len(given)):  # wherever it stands
        done = launch(fakes, name, *given[:place], "--dry-run", *given[place:])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected
    assert {call[0] for call in fakes.calls()} <= {"nvidia-smi"}  # local.sh looks for a GPU
    assert [path.name for path in (fakes.folder.parent / "root").iterdir()] == ["launch"]


def test_every_script_has_a_dry_run_here() -> None:
    tested = {script.split()[0] for script in DRY}
    assert tested == {path.name for path in SCRIPTS} - {"common.sh"}


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
    fakes.answer(("dlm run", "", 1))
    done = launch(fakes, "gpu.sh", "me@host", *WORDS)
    assert done.returncode == 1
    sent = [call[0] for call in fakes.calls()]
    assert sent == ["git", "git", "ssh", "scp", "ssh", "ssh", "rsync"]
    run = fakes.calls()[-2]
    assert shlex.split(run[-1])[-3:] == WORDS


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
    (call,) = fakes.calls()
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
