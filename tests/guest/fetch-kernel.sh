#!/bin/sh
# Fetch a Debian kernel package, unpack it (never install it), print the path of its vmlinuz.
#
# Invariant: $HVX_CACHE/kernel/FLAVOUR/vmlinuz is byte for byte the file in the
# package; its checksum is compared with the package's own list.
# usage: fetch-kernel.sh cloud|generic
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

case ${1:-} in
cloud) meta=linux-image-cloud-amd64 ;;
generic) meta=linux-image-amd64 ;;
*) die "usage: fetch-kernel.sh cloud|generic" ;;
esac
dir=$HVX_CACHE/kernel/$1

# keep_modules ROOT DIR: a few modules that guests load in tests, with the order to load them in.
keep_modules() {
	release=$(ls "$1/lib/modules")
	mkdir -p "$2/$release"
	for m in crc32c_generic libcrc32c crc16 mbcache jbd2 ext4 loop; do
		found=$(find "$1/lib/modules" -name "$m.ko")
		if [ -n "$found" ]; then
			cp "$found" "$2/$release/"
			echo "$m.ko" >>"$2/$release/order"
		fi
	done
}

# Drivers of the devices that devices.py looks at, in the order to load them in; a kernel need not have all.
drivers="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio-rng virtio_balloon
	virtio_console watchdog i6300esb virtio_blk failover net_failover virtio_net
	scsi_common scsi_mod libata libahci ahci crct10dif_common crct10dif_generic crc-t10dif crc64 crc64-rocksoft_generic
	crc64-rocksoft t10-pi sd_mod cdrom sr_mod isofs"

# keep_drivers ROOT DIR
keep_drivers() {
	mkdir -p "$2"
	echo "$drivers" >"$2/asked"
	for m in $drivers; do
		found=$(find "$1/lib/modules" -name "$m.ko")
		if [ -n "$found" ]; then
			cp "$found" "$2/"
			echo "$m.ko" >>"$2/order"
		fi
	done
}

if [ ! -e "$dir/vmlinuz" ] || [ "$(cat "$dir/drivers/asked" 2>/dev/null)" != "$drivers" ]; then
	# On a fresh system apt has no lists yet.
	apt-cache show "$meta" >/dev/null 2>&1 || as_root apt-get update -q >&2
	pkg=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$pkg" ] || die "apt does not know $meta"
	say "fetching $pkg"
	tmp=$dir.tmp
	rm -rf "$tmp"
	mkdir -p "$tmp"
	(cd "$tmp" && fetch "$pkg") || die "cannot download $pkg"
	dpkg-deb -R "$tmp"/*.deb "$tmp/root"
	(cd "$tmp/root" && grep ' boot/vmlinuz-' DEBIAN/md5sums | md5sum -c --quiet >&2) || die "$pkg: vmlinuz does not match its checksum"
	mv "$tmp"/root/boot/vmlinuz-* "$tmp/vmlinuz"
	keep_modules "$tmp/root" "$tmp/modules"
	keep_drivers "$tmp/root" "$tmp/drivers"
	echo "$pkg" >"$tmp/package"
	rm -rf "$tmp/root" "$tmp"/*.deb
	rm -rf "$dir"
	mv "$tmp" "$dir"
fi
echo "$dir/vmlinuz"
