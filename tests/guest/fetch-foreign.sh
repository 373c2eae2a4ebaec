#!/bin/sh
# Fetch what foreign.sh boots: a 32-bit Debian kernel, Xen, memtest86+, iPXE.  Prints the directory.
#
# Invariant: the machine's package system is only read: lists of the other architecture go to an apt root of our own.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

dir=$HVX_CACHE/foreign
root=$dir.apt
if [ ! -e "$dir/complete" ]; then
	rm -rf "$dir" "$dir.tmp" "$root"
	mkdir -p "$dir.tmp" "$root/state/lists/partial" "$root/cache/archives/partial"
	: >"$root/status"
	apt() {
		_tool=$1
		shift
		"apt-$_tool" -q -o APT::Sandbox::User=root -o Dir::State="$root/state" -o Dir::State::status="$root/status" \
			-o Dir::Cache="$root/cache" -o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
			-o APT::Architectures::=i386 "$@"
	}
	apt get update >&2 || say "some lists of packages are missing"
	pae=$(apt cache depends linux-image-686-pae:i386 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$pae" ] || die "apt does not know linux-image-686-pae"
	say "fetching $pae, Xen, memtest86+ and iPXE"
	(cd "$dir.tmp" && apt get download "$pae" xen-hypervisor-4.17-amd64 memtest86+ ipxe >/dev/null) || die "cannot download"
	for deb in "$dir.tmp"/*.deb; do
		dpkg-deb -x "$deb" "$dir.tmp/root"
	done
	mv "$dir.tmp"/root/boot/vmlinuz-*-686-pae "$dir.tmp/vmlinuz-pae"
	gunzip -c "$dir.tmp"/root/boot/xen-4.17-amd64.gz >"$dir.tmp/xen"
	mv "$dir.tmp"/root/boot/memtest86+*.bin "$dir.tmp/root/boot/ipxe.lkrn" "$dir.tmp"
	rm -rf "$dir.tmp/root" "$dir.tmp"/*.deb "$root"
	: >"$dir.tmp/complete"
	mv "$dir.tmp" "$dir"
fi
echo "$dir"
