#!/bin/sh
# Make the small initramfs (busybox and a shell), print its path.
#
# Invariant: needs neither root nor device nodes: the kernel's built-in archive
# holds /dev/console and devtmpfs brings the rest.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

out=$HVX_CACHE/initramfs-shell.cpio
busybox=$(command -v busybox) || die "busybox is missing: apt-get install busybox-static"
if ! fresh "$out" "$guestdir/init-shell" "$guestdir/mkinitramfs.sh" "$busybox"; then
	root=$HVX_CACHE/root-shell
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/dev"
	cp "$busybox" "$root/bin/busybox"
	cp "$guestdir/init-shell" "$root/init"
	chmod 755 "$root/init" "$root/bin/busybox"
	pack "$root" "$out"
fi
echo "$out"
