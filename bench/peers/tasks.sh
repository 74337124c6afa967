#!/bin/sh
# Builds the rivals, optimised, and compares what tasks cost: instructions (needs valgrind), bytes
# and nanoseconds. Arguments go to `peers tasks`, as in: tasks.sh --only spawn,timer --no-time
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# Into the package's own target directory, whatever the caller set.
unset CARGO_TARGET_DIR
(cd "$here" && cargo build --release)
exec "$here/target/release/peers" tasks "$@"
