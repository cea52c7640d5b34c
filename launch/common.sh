# What the scripts of this folder share. Sourced, from the root of the repository, it takes --dry-run
# and, for scripts that set takes_checkpoints, --checkpoints off the arguments of the script, wherever
# they stand, and shows the head of the script for --help or where no arguments are left.
# shellcheck shell=bash
set -euo pipefail

usage() {
  sed -n '2,${/^#[^ ]/q;/^[^#]/q;/^$/q;s/^# \{0,1\}//p;}' "$0" >&2
  exit "${1:-2}"
}

dry=""
checkpoints=""
arguments=()
for word in "$@"; do
  case "$word" in
    --dry-run) dry=1 ;;
    --checkpoints) checkpoints=${takes_checkpoints:?no results are fetched by this script} ;;
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

refuse() {
  echo "error: $*" >&2
  exit 2
}

# Refuses, before anything is made or sent, an experiment that is missing, wrong, or not sent, and says
# which of the files that it reads are not sent.
#
#   check_experiment commit|folder|here EXPERIMENT [options of dlm run]
#
# commit: what is committed is sent. folder: all but what .gitignore names. here: nothing is sent.
check_experiment() {
  local sent=$1 file=$2 python=python3 output="" code=0 field path
  shift
  [[ "$file" != -* ]] || refuse "$file: the experiment comes before its options"
  [[ -f "$file" ]] || refuse "$file: no such experiment file below $PWD; $(experiments)"
  [[ "$sent" != here ]] || return 0
  [[ "$file" != /* && "$file" != *..* ]] ||
    refuse "$file: must be a path below $PWD, such as experiments/quickstart.py, as that is sent"
  if [[ "$sent" == commit ]]; then
    git ls-files --error-unmatch -- "$file" >/dev/null 2>&1 && git diff --quiet HEAD -- "$file" ||
      refuse "$file: is not committed as it stands; commit it, as only commits are sent"
    check_committed
    output=$(git ls-files --others --exclude-standard | head -n 5 | paste -s -d ' ' -)
    [[ -z "$output" ]] || echo "not sent, as git does not track it: $output" >&2
  else
    is_sent "$sent" "$file" || refuse "$file: .gitignore names it, so it is not sent"
  fi
  [[ ! -x .venv/bin/python ]] || python=.venv/bin/python
  output=$("$python" -m dlm.cli.sending "$@" 2>&1) || code=$?
  if [[ $code -eq 2 ]]; then
    echo "$output" >&2
    exit 2
  elif [[ $code -ne 0 ]]; then
    echo "dlm does not start here, so what the experiment reads is not checked; it is not sent," \
      "unless it lies in the repository" >&2
    return 0
  fi
  while IFS=$'\t' read -r field path; do
    [[ -z "$path" ]] || is_sent "$sent" "$path" || case "$field" in
      objective.file) refuse "config.$field=$path: is not sent; commit it below $PWD" ;;
      *) echo "not sent: $path (config.$field); it must lie at that place there" >&2 ;;
    esac
  done <<<"$output"
}

# Whether a file, or files of a pattern, in the repository go along.
is_sent() {
  [[ "$2" != /* && "$2" != ..* ]] || return 1
  if [[ "$1" == commit ]]; then
    [[ -n "$(git ls-files -- "$2")" ]]
  else
    [[ -z "$(git ls-files --others --ignored --exclude-standard -- "$2")" ]]
  fi
}

experiments() {
  local names
  names=$(cd experiments 2>/dev/null && ls -- *.py 2>/dev/null | paste -s -d ' ' -) || true
  echo "experiments/ has ${names:-none}"
}

check_committed() {
  git diff --quiet HEAD || refuse "there are uncommitted changes; commit them, as only commits are sent"
}

# build/dlm.tar.gz of what is committed: results name a commit, so nothing else is sent away.
pack() {
  check_committed
  do_ mkdir -p build
  do_ git archive --format=tar.gz --output=build/dlm.tar.gz HEAD
}

# Copies the runs from the bucket to runs/ here.
fetch_bucket() {
  local skipped=()
  [[ -n "$checkpoints" ]] || skipped=(--exclude='.*/checkpoints/.*')
  do_ mkdir -p runs
  do_ gcloud storage rsync --recursive ${skipped[@]+"${skipped[@]}"} "$WORKDIR" runs
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
