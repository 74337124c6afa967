# What the scripts that boot a kernel in QEMU share: sourced, from the root of the repository. Ends with 77 where
# something is missing, and names it. Gives $work, a directory that goes at the end, and $busybox.

missing() {
    echo "SKIP: missing: $1"
    exit 77
}

for tool in qemu-system-x86_64 dpkg gzip cargo; do
    command -v "$tool" >/dev/null || missing "$tool"
done
[[ $(uname -m) == x86_64 ]] || missing "an x86-64 machine"
busybox=$(command -v busybox) || missing "busybox (Debian: busybox-static)"
grep -qx cpio < <("$busybox" --list) || missing "a busybox with cpio"
grep -q INTERP < <(readelf -lW "$busybox" 2>/dev/null) && missing "a static busybox (busybox-static)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Puts the newest kernel package of the configured sources in $work.
fetch_kernel() {
    command -v apt-get >/dev/null || missing "a kernel: give a linux-image-*-cloud-amd64.deb"
    local name
    name=$(apt-cache search --names-only '^linux-image-[0-9.]+.*-cloud-amd64$' | cut -d' ' -f1 |
        sort -V | tail -n 1)
    [[ -n $name ]] || missing "a kernel: the package sources have no linux-image-*-cloud-amd64"
    (cd "$work" && timeout 120 apt-get download "$name" >/dev/null 2>&1) ||
        missing "a kernel: $name cannot be downloaded"
}

# unpack_kernel DEB: sets $kernel to the image in a package.
unpack_kernel() {
    [[ -r $1 ]] || missing "the kernel package $1"
    rm -rf "$work/kernel"
    dpkg -x "$1" "$work/kernel"
    kernel=$(find "$work/kernel" -name 'vmlinuz*' -type f | head -n 1)
    [[ -n $kernel ]] || missing "a kernel image in $1"
}

# make_initrd INIT PROGRAM...: packs $work/initrd, of busybox, static programs and the first process's script.
make_initrd() {
    local root=$work/root
    mkdir -p "$root"/{bin,proc,sys,dev,data}
    cp "$busybox" "$root/bin/busybox"
    cp "$1" "$root/init"
    shift
    cp "$@" "$root/bin/"
    chmod +x "$root/init" "$root"/bin/*
    (cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"
}
