#!/usr/bin/env bash
# Runs an experiment as a managed job of SkyPilot, as launch/skypilot.yaml says.
#
#   WORKDIR=gs://BUCKET/FOLDER launch/sky.sh experiments/quickstart.py [options of dlm run]
#   launch/sky.sh --dry-run experiments/quickstart.py     prints the command and the job, runs nothing
#
# SkyPilot sends this folder, without what .gitignore names.
# sky jobs queue, sky jobs logs and sky jobs cancel show, follow and end it; the results are in WORKDIR.
cd "$(dirname "$0")/.." || exit
source launch/common.sh
: "${WORKDIR:?names the folder of runs, such as gs://BUCKET/FOLDER}"
check_experiment folder "$@"

do_ sky jobs launch --env "ARGUMENTS=$(quoted "$@")" --env "WORKDIR=$WORKDIR" launch/skypilot.yaml
if [[ -n "$dry" ]]; then
  cat launch/skypilot.yaml
fi
