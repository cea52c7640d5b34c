#!/usr/bin/env bash
# Runs one command line at a time, detached: it goes on when the connection that started it ends.
# launch/gpu.sh copies this file to a machine and calls it there, in ~/dlm.
#
#   job.sh start 'COMMAND LINE'    starts it, unless it is running; refuses while another one is
#   job.sh status                  what is running, or how the last one ended
#   job.sh follow                  shows its output until it ends, and exits as it did
#   job.sh stop                    tells it to save and to end, and waits for that
#
# job/ holds its command, pid, log and, at the end, exit code; whoever holds job/lock is running.
set -euo pipefail

running() {
  ! flock --nonblock job/lock true
}

start() {
  if running; then
    if [[ "$(cat job/command)" == "$1" ]]; then
      echo "it is running already, with the code that it started with"
      return
    fi
    echo "error: something else is running here: $(cat job/command)" >&2
    exit 2
  fi
  rm -f job/pid job/code
  printf '%s\n' "$1" >job/command
  # The shell outlives the signal that stop sends to all of them, to write the exit code.
  # shellcheck disable=SC2016
  setsid bash -c 'exec 9>job/lock && flock --nonblock 9 || exit
    trap : TERM INT
    echo $$ >job/pid
    eval "$1"
    echo $? >job/code' job "$1" >job/log 2>&1 </dev/null &
  for _ in {1..100}; do
    [[ ! -e job/pid ]] || return 0
    sleep 0.1
  done
  echo "error: it did not start; see job/log" >&2
  exit 2
}

status() {
  if running; then
    echo "running: $(cat job/command)"
  elif [[ -e job/code ]]; then
    echo "ended with exit code $(cat job/code): $(cat job/command)"
  elif [[ -e job/command ]]; then
    echo "gone without an exit code (killed, or the machine was restarted): $(cat job/command)"
  else
    echo "nothing was started here"
  fi
}

follow() {
  if running; then
    tail --lines=100 --follow --sleep-interval=0.5 --pid="$(cat job/pid)" job/log
    flock job/lock true
  elif [[ -e job/log ]]; then
    tail --lines=100 job/log
  fi
  if [[ ! -e job/code ]]; then
    status >&2
    exit 1
  fi
  exit "$(cat job/code)"
}

stop() {
  if running; then
    kill -TERM -- "-$(cat job/pid)"
    flock job/lock true
  fi
  status
}

if ! command -v flock >/dev/null || ! command -v setsid >/dev/null; then
  echo "error: needs flock and setsid of util-linux" >&2
  exit 2
fi
mkdir -p job
verb=${1:-}
case "$verb $#" in
  "start 2") start "$2" ;;
  "status 1" | "follow 1" | "stop 1") "$verb" ;;
  *)
    sed -n '2,${/^#[^ ]/q;/^[^#]/q;s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
