#!/usr/bin/env bash
# Proves polled I/O on a device that has polled queues, an NVMe drive of QEMU's, and the choice of an
# engine on kernels that this machine does not run.
#
#     bash tests/qemu/run.sh [KERNEL.deb ...]
#
# KERNEL.deb is a Debian kernel with NVMe built in (linux-image-*-cloud-amd64, 5.10 or later; since 7
# the image is in linux-binary-*), as `apt-get download` brings it; without one the newest of the configured package sources is fetched.
# Each boots within seconds, without KVM, and runs the example `polled_read` on /dev/nvme0n1:
#
#   uring                       verified data, and interrupts of the polled queues' device
#   uring-iopoll                verified data without a single interrupt of the drive's queues,
#   ... --hybrid                by sleeping before polling (Linux 6.13; refused by name before),
#   ... --thread                by a kernel thread that submits and polls
#   aio                         verified data through native AIO
#   auto                        what runs on this kernel, and why
#
# Prints PASS, FAIL or SKIP for each and exits with 0 if nothing failed, 1 if something did, and 77 if
# something is missing, which it names: qemu-system-x86_64, a static busybox, dpkg, cpio, a kernel.
# Nothing is installed; everything happens in a directory that goes at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

source tests/qemu/common.sh

kernels=("$@")
if [[ ${#kernels[@]} == 0 ]]; then
    fetch_kernel
    kernels=("$work"/linux-image-*.deb)
fi

# A binary that needs nothing of the machine it runs on.
target=target/qemu
timeout 900 env RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --release \
    --target x86_64-unknown-linux-gnu --target-dir "$target" -p omniring --example polled_read ||
    { echo "FAIL: a static build"; exit 1; }
program=$target/x86_64-unknown-linux-gnu/release/examples/polled_read

make_initrd tests/qemu/init "$program"

failed=0
for deb in "${kernels[@]}"; do
    unpack_kernel "$deb"
    echo "== $(basename "$deb")"
    truncate -s 16M "$work/nvme.img"
    # Stock kernels are started without KVM, which they may not boot with; -cx16 for the same reason.
    timeout --kill-after=5 "${OMNIRING_QEMU_TIME_MAX:-120}" qemu-system-x86_64 -accel tcg -machine q35 \
        -cpu max,-cx16 -smp 2 -m 512 -kernel "$kernel" -initrd "$work/initrd" \
        -append "console=ttyS0 panic=-1 quiet nvme.poll_queues=1" \
        -drive "file=$work/nvme.img,if=none,id=n0,format=raw" -device nvme,serial=x1,drive=n0 \
        -nodefaults -nographic -serial stdio -no-reboot </dev/null >"$work/console" 2>&1 ||
        echo "FAIL: QEMU ended with status $?" >>"$work/console"
    tr -d '\r' <"$work/console" | grep -aE '^(PASS|FAIL|SKIP|INFO|DONE)' || true
    grep -aq '^DONE' "$work/console" || { echo "FAIL: the run did not end:"; tail -n 15 "$work/console"; }
    if grep -aq '^FAIL' "$work/console" || ! grep -aq '^DONE' "$work/console"; then failed=1; fi
done
exit "$failed"
