#!/bin/sh
# Build the guest of smp.py; print the directory that holds its tree.
#
# Invariant: the native run uses this very tree (by chroot), so the guest and the host run the same bytes.
set -eu
smpdir=$(cd "$(dirname "$0")" && pwd)
guestdir=$smpdir/../../tests/guest
. "$guestdir/lib.sh"

root=$HVX_CACHE/root-bench-smp
out=$HVX_CACHE/initramfs-bench-smp.cpio
sh "$guestdir/fetch-debs.sh"
sh "$guestdir/fetch-debs.sh" "$smpdir/packages" "$HVX_CACHE/debroot-smp"
if ! fresh "$out" "$smpdir" "$guestdir/lib.sh" "$HVX_CACHE/debroot-smp/.packages"; then
	rm -rf "$root" "$out"
	mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/bench" "$root/etc" "$root/usr/lib/ssl"
	for p in bin/busybox usr/bin/xz usr/lib/gcc/x86_64-linux-gnu/12/cc1; do
		add_program "$root" "$p"
	done
	debroot=$HVX_CACHE/debroot-smp
	for p in sysbench pigz zstd hackbench; do
		add_program "$root" usr/bin/$p
	done
	for a in sh ls xargs; do
		ln -s busybox "$root/bin/$a"
	done
	: >"$root/usr/lib/ssl/openssl.cnf"
	echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
	${CC:-gcc} -O2 -std=gnu11 -Wall -Wextra -Wshadow -Werror -static -pthread -o "$root/bench/smp" "$smpdir/smp.c"
	cp "$smpdir/init" "$root/init"
	chmod 755 "$root/init"
	pack "$root" "$out"
fi
echo "$root"
