#!/bin/sh
# Builds omniring's HTTP server and hyper on tokio, both optimised, and compares them (needs wrk).
# Arguments go to `peers hello`, as in: hello.sh --rounds 30 --engines epoll
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# Each package builds into its own target directory, whatever the caller set.
unset CARGO_TARGET_DIR
(cd "$root" && cargo build --release -p omniring-adapters --features hyper --example hello_http)
(cd "$here" && cargo build --release)
exec "$here/target/release/peers" hello "$@"
