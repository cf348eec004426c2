# What the scripts in dev/ share: places, versions, messages, timing. Sourced, never run.
# shellcheck shell=bash

set -euo pipefail

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Pinned, and the key of each place in the cache: another version is another place.
VERSITYGW_VERSION=v1.8.0
GO_VERSION=1.26.8
MOTO_VERSION=5.2.5
CARGO_DENY_VERSION=0.20.2
SECANTUS_VERSION=0.7.0b3

# All that is fetched or built outside the checkout, except what apt installs.
CACHE="$HOME/.cache/tidekeeper"
VERSITYGW="$CACHE/bin/versitygw-$VERSITYGW_VERSION/versitygw"
VENV="$CACHE/venv"
CARGO_DENY="$CACHE/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny"
SECANTUS="$CACHE/secantusdb-$SECANTUS_VERSION"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CACHE/target}"
mkdir -p "$CACHE" "$CARGO_TARGET_DIR"

if [[ -t 1 ]]; then BOLD=$'\e[1m' PLAIN=$'\e[0m'; else BOLD='' PLAIN=''; fi

say() { printf '%s\n' "$@"; }
complain() { say "$@" >&2; }
fail() {
    complain "$@"
    exit 1
}

# step NAME COMMAND...: runs the command and remembers how long it took; what fails is remembered as under way.
STEPS=()
UNDER_WAY=''
step() {
    local began=$EPOCHREALTIME
    UNDER_WAY=$1
    shift
    say "${BOLD}== $UNDER_WAY${PLAIN}"
    "$@"
    STEPS+=("$(seconds_since "$began") $UNDER_WAY")
    UNDER_WAY=''
}

# seconds_since START: with one decimal; START is a value of EPOCHREALTIME.
seconds_since() { LC_ALL=C awk -v a="${1/,/.}" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f", b - a }'; }

# The steps so far, with what each took.
say_steps() {
    local line
    for line in "${STEPS[@]}"; do printf '  %7s s  %s\n' "${line%% *}" "${line#* }"; done
    [[ -z $UNDER_WAY ]] || printf '   FAILED    %s\n' "$UNDER_WAY"
}

# locked NAME COMMAND...: one at a time on this machine, whichever checkout it is called from. The lock is the
# descriptor's: a process that dies gives it back, and its children do not inherit it.
locked() {
    local name=$1
    shift
    (
        if ! flock --nonblock 9; then
            say "another process holds $name; waiting for it"
            flock 9
        fi
        "$@" 9>&-
    ) 9>"$CACHE/$name.lock"
}
