# What the scripts of this folder share. Sourced, from the root of the repository, it takes --dry-run
# off the arguments of the script, and shows the head of the script where none are left.
# shellcheck shell=bash
set -euo pipefail

dry=""
if [[ "${1:-}" == "--dry-run" ]]; then
  dry=1
  shift
fi

usage() {
  sed -n '2,${/^#[^ ]/q;/^[^#]/q;/^$/q;s/^# \{0,1\}//p;}' "$0" >&2
  exit 2
}
if [[ $# -eq 0 ]]; then
  usage
fi

# Runs a command; in a dry run, prints it as a shell takes it.
do_() {
  if [[ -n "$dry" ]]; then
    quoted "$@"
  else
    "$@"
  fi
}

# The words on one line, with quotes where a shell needs them.
quoted() {
  local word line="" quote="'\\''"
  for word in "$@"; do
    if [[ ! "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      word="'${word//\'/$quote}'"
    fi
    line+=" $word"
  done
  echo "${line# }"
}

# build/dlm.tar.gz of what is committed: results name a commit, so nothing else is sent away.
pack() {
  if [[ -z "$dry" ]] && ! git diff --quiet HEAD; then
    echo "there are uncommitted changes; commit them, as only commits are sent" >&2
    exit 2
  fi
  do_ mkdir -p build
  do_ git archive --format=tar.gz --output=build/dlm.tar.gz HEAD
}

# The command line that installs dlm with an extra where it was unpacked, whatever Python is there.
install_line() {
  echo "curl -LsSf https://astral.sh/uv/install.sh | sh && PATH=~/.local/bin:\$PATH &&" \
    "uv venv --quiet --allow-existing --python 3.12 .venv && uv pip install --quiet -e '.[$1]'"
}
