#!/bin/sh
# Builds omniring's examples and the rivals, both optimised, and compares them.
# Arguments go to `peers compare`, as in: compare.sh --only read --rounds 3
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# Each package builds into its own target directory, whatever the caller set.
unset CARGO_TARGET_DIR
(cd "$root" && cargo build --release -p omniring --examples)
(cd "$here" && cargo build --release)
exec "$here/target/release/peers" compare "$@"
