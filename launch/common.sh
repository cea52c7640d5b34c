# What the scripts of this folder share. Sourced, from the root of the repository, it takes --dry-run
# off the arguments of the script, wherever it stands, and shows the head of the script for --help or
# where no arguments are left.
# shellcheck shell=bash
set -euo pipefail

usage() {
  sed -n '2,${/^#[^ ]/q;/^[^#]/q;/^$/q;s/^# \{0,1\}//p;}' "$0" >&2
  exit "${1:-2}"
}

dry=""
arguments=()
for word in "$@"; do
  case "$word" in
    --dry-run) dry=1 ;;
    -h | --help) usage 0 ;;
    *) arguments+=("$word") ;;
  esac
done
[[ ${#arguments[@]} -gt 0 ]] || usage
set -- "${arguments[@]}"

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

# The extras of a run elsewhere: an accelerator's, the Hub's and, for a bucket, those of its store.
extras() {
  case "${WORKDIR:-}" in
    gs://*) echo "$1,hf,gs" ;;
    s3://*) echo "$1,hf,s3" ;;
    *) echo "$1,hf" ;;
  esac
}

# The command line that installs dlm for an accelerator where it was unpacked, whatever Python is there.
install_line() {
  echo "curl -LsSf https://astral.sh/uv/install.sh | sh && PATH=~/.local/bin:\$PATH &&" \
    "uv venv --quiet --allow-existing --python 3.12 .venv &&" \
    "uv pip install --quiet -e '.[$(extras "$1")]'"
}
