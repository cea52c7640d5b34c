#!/usr/bin/env bash
# Runs an experiment on a GPU machine that ssh reaches, and brings the results here.
#
#   launch/gpu.sh HOST experiments/quickstart.py [options of dlm run]
#   launch/gpu.sh HOST status | follow | stop | fetch
#   launch/gpu.sh --checkpoints HOST fetch     also the weights and tokens, as dlm sample needs them
#   launch/gpu.sh --dry-run HOST ...     prints the commands, runs nothing
#
# What is committed goes to ~/dlm there, is installed with the CUDA build of JAX and runs detached: it
# goes on when this machine sleeps or the connection is lost. The same call, or follow, shows it again,
# and copies runs/ from there to here when it ends; stop lets it save, and the same call continues. A
# worker has one GPU, or as many as its mesh. On the machine itself, launch/local.sh does it.
cd "$(dirname "$0")/.." || exit
takes_checkpoints=1
source launch/common.sh
[[ $# -ge 2 ]] || usage
host=$1
shift

job() {
  do_ ssh "$host" "cd dlm && bash job.sh $(quoted "$@")"
}

fetch() {
  local skipped=(--exclude='/*/trunks')
  [[ -n "$checkpoints" ]] || skipped+=(--exclude=checkpoints --exclude=/corpora)
  do_ mkdir -p runs
  do_ rsync --archive "${skipped[@]}" "$host:dlm/runs/" runs/
}

follow() {
  local code=0 hint="launch/gpu.sh $host status | follow | stop | fetch"
  trap 'echo "it goes on on $host: $hint" >&2; exit 130' INT
  job follow || code=$?
  if [[ $code -eq 255 ]]; then
    echo "the connection to $host is lost; it goes on there: $hint" >&2
    exit 255
  fi
  fetch
  exit "$code"
}

case "$1" in
  status | follow | stop | fetch) [[ $# -eq 1 ]] || usage ;;
esac
case "$1" in
  status | stop) job "$1" ;;
  follow | fetch) "$1" ;;
  *)
    check_experiment commit "$@"
    pack
    do_ ssh "$host" "nvidia-smi -L && mkdir -p dlm"
    do_ scp build/dlm.tar.gz launch/job.sh "$host:dlm/"
    job start "tar -xzf dlm.tar.gz && $(install_line cuda) && .venv/bin/dlm run $(quoted "$@")"
    follow
    ;;
esac
