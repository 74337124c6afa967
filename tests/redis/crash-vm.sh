#!/usr/bin/env bash
# Cuts the power under `omniring kv`, again and again, and looks for what is lost.
#
#     bash tests/redis/crash-vm.sh [--rounds N] [--control N] [--engine NAME] [--cores N] [KERNEL.deb]
#
# A virtual machine (QEMU without KVM, Debian's cloud kernel, ext4 on an NVMe drive) runs the server and clients that
# report what was answered on the console. At a random moment QEMU is killed: all memory is gone, and the drive
# (tests/redis/crash_vm/drive.py) loses a random part of the 512-byte blocks that it was not told to flush. The machine
# boots from what is left, and the clients compare: nothing acknowledged may be missing, nothing half there, and nothing
# that a read has shown may be gone. 20 rounds on one drive (--rounds), then 3 control rounds on fresh drives (--control)
# with `appendfsync no`, in which something has to be lost: otherwise the 20 would prove nothing.
#
# KERNEL.deb as in tests/qemu/run.sh. Prints a line a round and exits with 0 if nothing acknowledged was lost and the
# control lost something, 1 if not, and 77 if something is missing, which it names. Some 10 s a round, after a static build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rounds=20 control=3 engine=uring cores=2 kernel_deb=
while (($#)); do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --control) control=$2; shift 2 ;;
    --engine) engine=$2; shift 2 ;;
    --cores) cores=$2; shift 2 ;;
    *) kernel_deb=$1; shift ;;
    esac
done

source tests/qemu/common.sh
for tool in mke2fs python3 rustc; do
    command -v "$tool" >/dev/null || missing "$tool"
done
if [[ -z $kernel_deb ]]; then
    fetch_kernel
    kernel_deb=$(echo "$work"/linux-image-*.deb)
fi
unpack_kernel "$kernel_deb"

# Binaries that need nothing of the machine they run on; built quickly, they are slow in there in any case.
target=target/qemu/x86_64-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" timeout 1200 cargo build --quiet --release \
    --config profile.release.lto=false --config profile.release.codegen-units=16 --config profile.release.opt-level=1 \
    --config profile.release.debug=false --target x86_64-unknown-linux-gnu --target-dir target/qemu \
    -p omniring-cli --no-default-features || { echo "FAIL: a static build"; exit 1; }
# By itself: cargo would build what all tests need.
rustc --edition 2024 -O -C target-feature=+crt-static --target x86_64-unknown-linux-gnu -o "$target/kv_crash_agent" \
    crates/cli/examples/kv_crash_agent.rs || { echo "FAIL: a static build"; exit 1; }
make_initrd tests/redis/crash_vm/init "$target/release/omniring" "$target/kv_crash_agent"

python3 tests/redis/crash_vm/rounds.py --work "$work" --kernel "$kernel" --rounds "$rounds" --control "$control" \
    --engine "$engine" --cores "$cores"
