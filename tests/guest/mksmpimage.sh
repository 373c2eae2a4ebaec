#!/bin/sh
# Build the guest of smp.py: the test guest's tree, init-smp, and the kernel with a small archive to kexec into; print its path.
# usage: mksmpimage.sh [perf]      perf: another, with perf
#
# Invariant: the archive follows that of mktestimage.sh and replaces its /init.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

test_image=$(sh "$guestdir/mktestimage.sh" cloud)
kernel=$(sh "$guestdir/fetch-kernel.sh" cloud)
out=$HVX_CACHE/initramfs-smp.cpio
busybox=$HVX_CACHE/debroot/bin/busybox
if ! fresh "$out" "$test_image" "$kernel" "$guestdir/mksmpimage.sh" "$guestdir/init-smp" "$guestdir/functions-smp" \
	"$guestdir/prog/kexec.c"; then
	root=$HVX_CACHE/root-smp
	rm -rf "$root"
	mkdir -p "$root/second/bin" "$root/second/dev" "$root/second/check" "$root/first/check" "$root/first/kexec"
	cp "$busybox" "$root/second/bin/busybox"
	for r in first second; do
		cp "$guestdir/init-smp" "$root/$r/init"
		cp "$guestdir/functions" "$guestdir/functions-smp" "$root/$r/check/"
		chmod 755 "$root/$r/init"
	done
	pack "$root/second" "$root/first/kexec/initrd"
	cp "$kernel" "$root/first/kexec/vmlinuz"
	${CC:-gcc} -O2 -std=gnu11 -Wall -Wextra -Werror -static -o "$root/first/check/kexec" "$guestdir/prog/kexec.c"
	pack "$root/first" "$out.extra"
	cat "$test_image" "$out.extra" >"$out.tmp"
	rm -f "$out.extra"
	mv "$out.tmp" "$out"
fi
if [ "${1:-}" = perf ]; then
	plain=$out
	out=$HVX_CACHE/initramfs-smp-perf.cpio
	debroot=$HVX_CACHE/debroot-perf
	sh "$guestdir/fetch-debs.sh" "$guestdir/perf-packages" "$debroot"
	if ! fresh "$out" "$plain" "$debroot/.packages" "$guestdir/mksmpimage.sh" "$guestdir/lib.sh"; then
		root=$HVX_CACHE/root-smp-perf
		rm -rf "$root"
		mkdir -p "$root"
		add_program "$root" usr/bin/perf
		pack "$root" "$out.extra"
		cat "$plain" "$out.extra" >"$out.tmp"
		rm -f "$out.extra"
		mv "$out.tmp" "$out"
	fi
fi
echo "$out"
