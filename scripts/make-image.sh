#!/bin/sh
# Writes the root file system of a small image (one static busybox) to standard output, for `docker import`: no registry
# is needed. Installs busybox-static where it is missing.
set -eu
if ! ldd "$(command -v busybox || echo /nonexistent)" 2>&1 | grep -q "not a dynamic"; then
    apt-get install --yes --quiet busybox-static >&2
fi
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/tmp" "$tree/var" "$tree/www"
cp "$(command -v busybox)" "$tree/bin/busybox"
for applet in $("$tree/bin/busybox" --list | grep -vx busybox); do
    ln -sf busybox "$tree/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$tree/etc/group"
tar -C "$tree" -c .
