#!/usr/bin/env bash
# Kills the server 10,000 times under load, in equal parts on uring, aio and epoll, and looks for what is lost.
#
#     bash tests/redis/kill.sh [KILLS]
#
# Prints the seed and what was acknowledged and read for each engine; exits with 0 if nothing was lost. About 0.2 s a
# kill. OMNIRING_KILL_SEED=N takes the seed of an earlier run; the moments still differ. OMNIRING_BINARY=FILE is the
# command whose server is killed: by default target/release/omniring, which is built if need be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kills=${1:-10000}
export OMNIRING_KILLS=$(((kills + 2) / 3))
if [[ -z ${OMNIRING_BINARY:-} ]]; then
    cargo build --release -p omniring-cli
    OMNIRING_BINARY=$(realpath "${CARGO_TARGET_DIR:-target}/release/omniring")
    export OMNIRING_BINARY
fi
exec cargo test -p omniring-cli --test kv_kill_nine -- --nocapture
