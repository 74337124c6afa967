#!/bin/sh
# Soaks every engine in random work and random cancels, and fails if anything is left behind: ten
# minutes in all, unless --seconds gives each engine another time. Prints the seed of its choices;
# `tests/soak.sh --help` has the options.
set -eu
cd "$(dirname "$0")/.."
cargo build --quiet --release -p omniring --example soak
# It ends by itself; this is for when it does not.
exec timeout --kill-after=10s 86400s "${CARGO_TARGET_DIR:-target}/release/examples/soak" "$@"
