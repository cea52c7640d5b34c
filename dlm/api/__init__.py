"""What `import dlm` offers, and what the command line calls: thin functions over the packages.

`runs` (load), `models` (score and sample), `training` (train, objective), `laws` (fit, critical),
`planner` (plan).
JAX is imported inside the functions that compute with a model.
"""

from dlm.api.laws import CriticalCompute, FittedLaw, critical, fit
from dlm.api.models import Model, ensemble, restore
from dlm.api.planner import plan
from dlm.api.runs import Run, Runs, load
from dlm.api.training import chosen, objective, objective_config, train
