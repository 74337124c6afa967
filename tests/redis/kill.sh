#!/usr/bin/env bash
# Kills the server 10,000 times under load, in equal parts on uring, aio and epoll, and looks for what is lost.
#
#     bash tests/redis/kill.sh [KILLS]
#
# Prints the seed and what was acknowledged and read for each engine; exits with 0 if nothing was lost. About 0.5 s a
# kill. OMNIRING_KILL_SEED=N takes the seed of an earlier run; the moments still differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kills=${1:-10000}
export OMNIRING_KILLS=$(((kills + 2) / 3))
exec cargo test -p omniring-cli --test kv_kill_nine -- --nocapture --test-threads=1
