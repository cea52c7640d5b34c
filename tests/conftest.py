"""Before any test: a CPU split into 8 devices, strict shapes, no silent rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "warn")

# The annotations of these modules are checked at run time, here only: the library never imports
# beartype.
install_import_hook(
    ["dlm.model", "dlm.objectives", "dlm.optim", "dlm.data", "dlm.evaluate"], "beartype.beartype"
)
