#!/usr/bin/env bash
# Runs an experiment on the TPUs of a GKE cluster by xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   launch/xpk.sh run experiments/quickstart.py [options of dlm run]
#   launch/xpk.sh status | fetch | delete
#   launch/xpk.sh --checkpoints fetch     also the weights
#   launch/xpk.sh --dry-run VERB ...     prints the commands, runs nothing
#
# What is committed is laid over a Python image and installed on every host. Where hosts are taken away
# GKE starts the workload again, which goes on from the bucket. From the environment:
#
#   XPK_CLUSTER=my-cluster XPK_ZONE=us-west4-a XPK_PROJECT=my-project TPU_TYPE=v5litepod-16
#   WORKDIR=gs://BUCKET/FOLDER     where all hosts keep the runs
#   XPK_WORKLOAD=dlm               may be left out
cd "$(dirname "$0")/.." || exit
takes_checkpoints=1
source launch/common.sh
: "${XPK_CLUSTER:?names the GKE cluster}" "${XPK_ZONE:?names its zone}" "${XPK_PROJECT:?names its project}"
: "${WORKDIR:?names the folder of runs, such as gs://BUCKET/FOLDER}"

workload() {
  do_ xpk workload "$1" --cluster="$XPK_CLUSTER" --zone="$XPK_ZONE" --project="$XPK_PROJECT" "${@:2}"
}

run() {
  pack
  do_ rm -rf build/image
  do_ mkdir -p build/image
  do_ tar -xzf build/dlm.tar.gz -C build/image
  workload create --workload="${XPK_WORKLOAD:-dlm}" \
    --tpu-type="${TPU_TYPE:?names the TPU, such as v5litepod-16}" \
    --base-docker-image=python:3.12 --script-dir=build/image \
    --max-restarts=100 --restart-on-exit-codes=75 --termination-grace-period-seconds=120 \
    --command="pip install --quiet -e '.[$(extras tpu)]' &&\
 exec dlm run --distributed $(quoted --workdir="$WORKDIR" "$@")"
}

verb=$1
shift
case "$verb" in
  run)
    [[ $# -ge 1 ]] || usage
    check_experiment commit "$@"
    ;;
  status | fetch | delete) [[ $# -eq 0 ]] || usage ;;
esac
case "$verb" in
  run) run "$@" ;;
  status) workload list --filter-by-job="${XPK_WORKLOAD:-dlm}" ;;
  fetch) fetch_bucket ;;
  delete) workload delete --workload="${XPK_WORKLOAD:-dlm}" ;;
  *) usage ;;
esac
