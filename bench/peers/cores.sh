#!/bin/sh
# Builds omniring's echo server and the load, optimised, and compares one core with several.
# Arguments go to `peers cores`, as in: cores.sh --cores 4 --engines epoll
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# Each package builds into its own target directory, whatever the caller set.
unset CARGO_TARGET_DIR
(cd "$root" && cargo build --release -p omniring --example echo)
(cd "$here" && cargo build --release)
exec "$here/target/release/peers" cores "$@"
