#!/usr/bin/env bash
# Runs Redis' own test suite (7.0.15, from Debian's source package) against the store, a unit at a time on a
# fresh server each, and prints what passed.
#
#     bash tests/redis/suite.sh [--cores N] [--engine NAME] [--server "COMMAND"] [UNIT ...]
#
# Without units, all that are expected to pass. COMMAND is how a server is started, to which the port is added;
# by default the store's, built if need be. The suite's source is kept below target/redis; it is fetched by
# apt-get (`apt-get source`), or taken from REDIS_SOURCE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

UNITS=(unit/type/string unit/type/incr unit/type/list unit/type/list-3 unit/type/set unit/type/zset unit/type/hash
    unit/keyspace unit/expire unit/scan unit/sort unit/multi unit/pubsub unit/bitops unit/bitfield unit/hyperloglog
    unit/protocol unit/quit unit/other unit/info-command unit/slowlog unit/latency-monitor unit/lazyfree unit/pause
    unit/dump unit/introspection unit/introspection-2)

cores=1 engine=auto server= units=()
while (($#)); do
    case $1 in
    --cores) cores=$2; shift 2 ;;
    --engine) engine=$2; shift 2 ;;
    --server) server=$2; shift 2 ;;
    *) units+=("$1"); shift ;;
    esac
done
((${#units[@]})) || units=("${UNITS[@]}")

target=${CARGO_TARGET_DIR:-target}
source=${REDIS_SOURCE:-$target/redis/redis-7.0.15}
if [[ ! -d $source/tests ]]; then
    mkdir -p "$target/redis"
    (cd "$target/redis" && apt-get source -qq redis=5:7.0.15*) ||
        { echo "skipped: no source of Redis 7.0.15: apt-get source needs a deb-src line" >&2; exit 2; }
fi
command -v tclsh >/dev/null || { echo "skipped: no tclsh (Debian's package tcl)" >&2; exit 2; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r "$source/tests" "$source/runtest" "$scratch/"
mkdir -p "$scratch/src" "$scratch/tests/tmp"
# The harness looks for these, and starts none of them in external mode.
ln -s "$(command -v redis-cli)" "$scratch/src/redis-cli" 2>/dev/null || true
ln -s "$(command -v redis-benchmark)" "$scratch/src/redis-benchmark" 2>/dev/null || true
ln -s /bin/true "$scratch/src/redis-server"

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Tests of a unit in the table of docs/kv-redis-suite.md: those that need what is not here, and with `alone` those that
# are run by themselves; those with `several cores` are of no matter on one. All that are known to fail are run nevertheless with ALL=1; what they leave behind may make
# others fail.
listed() {
    [[ -n ${ALL:-} ]] || awk -F' *\\| *' -v unit="$1" -v why="$2" -v cores="$cores" \
        '$2 == unit && $4 ~ why && (cores > 1 || $4 !~ /^several cores:/) { gsub(/`/, "", $3); print $3 }' docs/kv-redis-suite.md
}

# Runs a unit on a fresh server, with further words for the suite; what it says goes to $output.
run() {
    local unit=$1 port data pid
    shift
    port=$(free_port)
    data=$(mktemp -d -p "$scratch")
    # shellcheck disable=SC2086
    if [[ -n $server ]]; then
        $server "$port" >"$data/log" 2>&1 &
    else
        "$target/${PROFILE:-debug}/omniring" kv --port "$port" --cores "$cores" --engine "$engine" --dir "$data" \
            --appendfsync no --enable-debug-command yes >"$data/log" 2>&1 &
    fi
    pid=$!
    for _ in $(seq 100); do
        redis-cli -p "$port" ping >/dev/null 2>&1 && break
        sleep 0.1
    done
    (cd "$scratch" && timeout 400 ./runtest --host 127.0.0.1 --port "$port" --baseport "$((20000 + port % 20000))" \
        --durable --no-latency --timeout 120 --tags -slow --single "$unit" "$@") 2>&1 |
        sed 's/\x1b\[[0-9;]*m//g' >"$output" || true
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    rm -rf "$data"
}

passed=0 failed=0 ignored=0
printf '%-28s %7s %7s %7s\n' unit passed failed skipped
for unit in "${units[@]}"; do
    output=$scratch/output all=$scratch/all
    listed "$unit" . >"$scratch/skip"
    run "$unit" --skipfile "$scratch/skip"
    cp "$output" "$all"
    count() { grep -c "^\[$1\]" "$2" || true; }
    skip=$(($(count ignore "$all") + $(count skip "$all")))
    mapfile -t alone < <(listed "$unit" '^alone:')
    if ((${#alone[@]})); then
        only=()
        for name in "${alone[@]}"; do only+=(--only "$name"); done
        run "$unit" "${only[@]}"
        grep -v '^\[skip\]' "$output" >>"$all" || true
        skip=$((skip - ${#alone[@]}))
    fi
    ok=$(count ok "$all") err=$(count err "$all")
    grep -qiE '^\[(exception|timeout)' "$all" && err=$((err + 1))
    printf '%-28s %7d %7d %7d\n' "$unit" "$ok" "$err" "$skip"
    if ((err)) || [[ -n ${VERBOSE:-} ]]; then
        sed 's/^/    /' "$all" | grep -aiE "\[(err|exception|timeout)" -A4 | head -"${LINES_MAX:-60}" || true
    fi
    cp "$all" "$target/redis-$(basename "$unit").log" 2>/dev/null || true
    passed=$((passed + ok)) failed=$((failed + err)) ignored=$((ignored + skip))
done
echo "$passed passed, $failed failed, $ignored skipped"
((failed == 0))
