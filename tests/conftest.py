"""Before any test: a CPU split into 8 devices, and shapes that are checked."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compilation: half as much without optimisation (70 s for 128 s of CPU in
# test_objectives.py). No test is about speed.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILATION}".strip()

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)

# The annotations of these modules are checked at run time, here only: the library never imports
# beartype.
install_import_hook(
    ["dlm.model", "dlm.objectives", "dlm.optim", "dlm.data", "dlm.evaluate"], "beartype.beartype"
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """XDG_CACHE_HOME of every process that the tests start: what one compiles, the next reuses."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """The token store of the tiny run (tests/tiny.py)."""
    import tiny

    return tiny.store(tmp_path_factory.mktemp("tiny"))
