#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU, one host or a pod, and goes on after it was preempted.
#
#   launch/tpu.sh all experiments/quickstart.py [options of dlm run]
#   launch/tpu.sh create | install | run EXPERIMENT [options] | status | fetch | delete
#   launch/tpu.sh --checkpoints fetch     also the weights
#   launch/tpu.sh --dry-run VERB ...     prints the commands, runs nothing
#
# `all` creates a queued resource, waits for it, installs what is committed on all hosts, runs, copies
# the results to runs/ without checkpoints, and deletes the TPU, also after a failure or ctrl-C. Where
# Spot takes the TPU away it creates another and goes on; the same call does so too, at any time. From
# the environment:
#
#   TPU_ZONE=us-west4-a TPU_TYPE=v5litepod-16 TPU_RUNTIME=v2-alpha-tpuv5-lite
#   WORKDIR=gs://BUCKET/FOLDER     where all hosts keep the runs
#   TPU_NAME=dlm TPU_SPOT=1        may be left out
cd "$(dirname "$0")/.." || exit
takes_checkpoints=1
source launch/common.sh
: "${TPU_ZONE:?names the zone, such as us-west4-a}"
name=${TPU_NAME:-dlm}
pause=${PAUSE:-30} # seconds between two looks

queued() {
  do_ gcloud compute tpus queued-resources "$1" "$name" --zone="$TPU_ZONE" "${@:2}"
}

on_all_hosts() {
  do_ gcloud compute tpus tpu-vm ssh "$name" --zone="$TPU_ZONE" --worker=all --command="$1"
}

# ACTIVE, SUSPENDED, ...; nothing where there is no such TPU.
state() {
  queued describe --format='value(state.state)' 2>/dev/null || true
}

request() {
  queued create --node-id="$name" \
    --accelerator-type="${TPU_TYPE:?names the TPU, such as v5litepod-16}" \
    --runtime-version="${TPU_RUNTIME:?names its software, such as v2-alpha-tpuv5-lite}" \
    ${TPU_SPOT:+--spot}
}

# Waits for the TPU; requests it where there is none, or no longer.
create() {
  if [[ -n "$dry" ]]; then
    request
    state
    return
  fi
  local now
  while now=$(state); [[ "$now" != ACTIVE ]]; do
    case "$now" in
      "") request || return ;;
      SUSPENDED) queued delete --force --quiet || return ;; # preempted
      FAILED)
        queued describe
        return 1
        ;;
    esac
    sleep "$pause"
  done
}

install() {
  do_ gcloud compute tpus tpu-vm scp build/dlm.tar.gz "$name:" --zone="$TPU_ZONE" --worker=all &&
    on_all_hosts "mkdir -p dlm && cd dlm && tar -xzf ../dlm.tar.gz && $(install_line tpu)"
}

# What a lost connection left behind has to save and go before a TPU is free.
run() {
  on_all_hosts "cd dlm || exit; pkill -x dlm; while pgrep -x dlm >/dev/null; do sleep 1; done;\
 .venv/bin/dlm run --distributed $(quoted --workdir="$WORKDIR" "$@")"
}

delete() {
  queued delete --force --quiet
}

# Exit code 75 is dlm's: told to stop, and saved. 255 is ssh's: a host is gone, or not reached.
all() {
  local code lost=0
  pack
  trap delete EXIT
  while :; do
    code=0
    create
    { install && run "$@"; } || code=$?
    if [[ -n "$dry" || $code -eq 0 ]]; then
      break
    fi
    sleep "$pause"
    if [[ $(state) == ACTIVE && $code -ne 75 ]]; then
      [[ $code -eq 255 && $((++lost)) -lt 5 ]] || break
    fi
  done
  fetch_bucket
  exit "$code"
}

verb=$1
shift
case "$verb" in
  all | run | fetch) : "${WORKDIR:?names the folder of runs, such as gs://BUCKET/FOLDER}" ;;
esac
case "$verb" in
  all | run)
    [[ $# -ge 1 ]] || usage
    check_experiment commit "$@"
    ;;
  create | install | status | fetch | delete) [[ $# -eq 0 ]] || usage ;;
  *) usage ;;
esac
case "$verb" in
  install) pack && install ;;
  status) queued describe ;;
  fetch) fetch_bucket ;;
  *) $verb "$@" ;;
esac
