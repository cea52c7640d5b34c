#!/usr/bin/env bash
# Runs an experiment on a GPU machine that ssh reaches, and brings the results here.
#
#   launch/gpu.sh HOST experiments/quickstart.py [options of dlm run]
#   launch/gpu.sh --dry-run HOST experiments/quickstart.py     prints the commands, runs nothing
#
# What is committed goes to ~/dlm there and is installed with the CUDA build of JAX; runs are kept in
# ~/dlm/runs there and copied to runs/ here, without checkpoints. A worker has one GPU, or as many as
# its mesh. The same call continues what was interrupted. On the machine itself, launch/local.sh does
# it.
cd "$(dirname "$0")/.." || exit
source launch/common.sh
[[ $# -ge 2 ]] || usage
host=$1
shift

pack
do_ ssh "$host" "nvidia-smi -L && mkdir -p dlm"
do_ scp build/dlm.tar.gz "$host:dlm/"
do_ ssh "$host" "cd dlm && tar -xzf dlm.tar.gz && $(install_line cuda)"
code=0
do_ ssh "$host" "cd dlm && .venv/bin/dlm run $(quoted "$@")" || code=$?
do_ mkdir -p runs
do_ rsync --archive --exclude=checkpoints "$host:dlm/runs/" runs/
exit "$code"
