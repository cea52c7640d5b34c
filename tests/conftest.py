"""Before any test: a CPU split into 8 devices, shapes that are checked, programs kept compiled."""

import contextlib
import functools
import gc
import hashlib
import itertools
import mmap
import os
from pathlib import Path

import jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compilation: half as much without optimisation, and a third of that with
# XLA's older code generator (BUILD_NOTES). No test is about speed. XLA ends a process that gives it
# a flag it does not know, so those that its library does not name are left out.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",  # two processes share two cores
)


def _known(flag: str) -> bool:
    """Whether XLA reads this flag: its library then holds the name as a string by itself. The name
    of a flag that was removed may stay in it as a reserved field."""
    name = b"\0" + flag.strip("-").split("=")[0].encode() + b"\0"
    for path in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with path.open() as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
            return library.find(name) >= 0
    return False


# Those of the caller stand first; a worker of pytest-xdist has its parent's environment.
CALLERS = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in FAST_COMPILATION]
os.environ["XLA_FLAGS"] = " ".join([*CALLERS, *filter(_known, FAST_COMPILATION)])

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)


def _share_contexts(programs: int = 500) -> None:
    """Lets this many programs in turn use one MLIR context. JAX makes one for each, which takes 5 to
    10 ms: a third of a small program. Contexts may be used by several threads at once."""
    with contextlib.suppress(ImportError, AttributeError):  # a JAX that has no such function
        from jax._src.interpreters import mlir

        make, count = mlir.make_ir_context, itertools.count()
        latest = functools.lru_cache(1)(lambda _: make())
        mlir.make_ir_context = lambda: latest(next(count) // programs)


_share_contexts()


def _compiled() -> Path:
    """Where programs that tests compiled are kept, for the other process and for the next run: a
    folder for each kind of CPU. XLA's flags and version are part of a program's name in it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return home / "dlm" / f"tests-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


COMPILED = _compiled()
with contextlib.suppress(OSError):  # a home that is read-only: every process compiles for itself
    COMPILED.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(COMPILED / "here"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)

# Files that take longest, first: two processes take a file each, and should end together.
HEAVY = (
    *("families", "train", "faults", "hub", "hosts", "experiments", "sweep", "checkpoint"),
    *("trained", "objectives", "model", "proofs", "executor", "continuum", "evaluate", "report"),
    *("trunks", "cli", "extension", "api", "spectrum", "benchmark", "bad_inputs"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {f"test_{name}": rank for rank, name in enumerate(HEAVY)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(HEAVY)))


# The annotations of these modules are checked at run time, here only: the library never imports
# beartype.
install_import_hook(
    [
        "dlm.model.transformer",
        "dlm.objectives",
        "dlm.training.optimizer",
        "dlm.data.windows",
        "dlm.evaluation.score",
    ],
    "beartype.beartype",
)


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests stay: a collection need not walk through them, a second each time
    gc.set_threshold(20_000, 10, 10)  # tracing makes many objects and few cycles


@pytest.fixture(scope="session")
def callers_flags() -> str:
    """XLA_FLAGS of processes that compile as a user's do: those pytest was called with, no others."""
    return " ".join(CALLERS)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """XDG_CACHE_HOME of every process that the tests start: what one compiles, the next reuses."""
    folder = tmp_path_factory.mktemp("cache")
    if COMPILED.is_dir():
        (COMPILED / "processes").mkdir(exist_ok=True)
        (folder / "dlm").mkdir()
        (folder / "dlm" / "xla").symlink_to(COMPILED / "processes")
    return folder


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """The token store of the tiny run (tests/tiny.py)."""
    import tiny

    return tiny.store(tmp_path_factory.mktemp("tiny"))
