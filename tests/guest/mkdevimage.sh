#!/bin/sh
# Build the guest of devices.py for one kernel flavour: busybox and drivers; print its path.
# usage: mkdevimage.sh cloud|generic
#
# Invariant: the drivers are those of the very kernel that is booted.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

case ${1:-} in
cloud | generic) flavour=$1 ;;
*) die "usage: mkdevimage.sh cloud|generic" ;;
esac
out=$HVX_CACHE/initramfs-devices-$flavour.cpio
busybox=$(command -v busybox) || die "busybox is missing: apt-get install busybox-static"
sh "$guestdir/fetch-kernel.sh" "$flavour" >/dev/null
if ! fresh "$out" "$guestdir/mkdevimage.sh" "$guestdir/init-devices" "$busybox" "$HVX_CACHE/kernel/$flavour/package"; then
	root=$HVX_CACHE/root-devices-$flavour
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/dev"
	cp "$busybox" "$root/bin/busybox"
	cp -R "$HVX_CACHE/kernel/$flavour/drivers" "$root/drivers"
	cp "$guestdir/init-devices" "$root/init"
	chmod 755 "$root/init" "$root/bin/busybox"
	pack "$root" "$out"
fi
echo "$out"
