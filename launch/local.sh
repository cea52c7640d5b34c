#!/usr/bin/env bash
# Runs an experiment on this machine: its cores, or its GPUs where there are some.
#
#   launch/local.sh experiments/quickstart.py [options of dlm run]
#   launch/local.sh --dry-run experiments/quickstart.py     prints the commands, runs nothing
#
# The first call makes a virtual environment in .venv and installs dlm there, with the CUDA build of
# JAX where nvidia-smi finds a GPU. The same call continues what was interrupted.
cd "$(dirname "$0")/.." || exit
source launch/common.sh
check_experiment here "$@"

extra=""
if nvidia-smi -L >/dev/null 2>&1; then
  extra="[$(extras cuda)]"
fi
if [[ ! -x .venv/bin/dlm ]]; then
  do_ "${PYTHON:-python3}" -m venv .venv
  do_ .venv/bin/pip install --quiet -e ".$extra"
fi
do_ exec .venv/bin/dlm run "$@"
