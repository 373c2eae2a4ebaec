#!/bin/sh
# Build the test guest's initramfs for one kernel flavour; print its path.
# usage: mktestimage.sh cloud|generic
#
# Invariant: the results that work-* checks compare with are those of this host,
# computed natively while the image is built.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

case ${1:-} in
cloud | generic) flavour=$1 ;;
*) die "usage: mktestimage.sh cloud|generic" ;;
esac
root=$HVX_CACHE/root-test
base=$HVX_CACHE/initramfs-test-base.cpio
out=$HVX_CACHE/initramfs-test-$flavour.cpio
cflags="-O2 -std=gnu11 -Wall -Wextra -Wshadow -Wimplicit-fallthrough -Werror"

# add_programs: Debian's, with their libraries.
add_programs() {
	for p in bin/busybox usr/bin/xz usr/bin/openssl usr/bin/lua5.4 usr/bin/luajit usr/bin/tcc usr/bin/stress-ng; do
		add_program "$root" "$p"
	done
	add_program "$root" bin/gzip
	mv "$root/bin/gzip" "$root/usr/bin/gzip"
	: >"$root/usr/lib/ssl/openssl.cnf"
}

# add_compiler: what tcc needs to make a program: headers, start-up files, libc.
add_compiler() {
	libdir=usr/lib/x86_64-linux-gnu
	mkdir -p "$root/$libdir" "$root/usr/include/x86_64-linux-gnu"
	cp -RL "$HVX_CACHE/debroot/$libdir/tcc" "$root/$libdir/"
	cp "$HVX_CACHE"/debroot/usr/include/*.h "$root/usr/include/"
	for d in bits gnu sys; do
		cp -RL "$HVX_CACHE/debroot/usr/include/x86_64-linux-gnu/$d" "$root/usr/include/x86_64-linux-gnu/"
	done
	# the linker script of libc names the loader
	cp "$root/lib64/ld-linux-x86-64.so.2" "$root/lib/x86_64-linux-gnu/"
	for f in crt1.o crti.o crtn.o libc.a libc.so libc_nonshared.a; do
		add_file "$root" "$libdir/$f"
	done
}

# add_checks: our own programs, and the results that this host gives.
add_checks() {
	mkdir -p "$root/check"
	cp "$guestdir/functions" "$guestdir/hello.c" "$guestdir/vulnerabilities" "$root/check/"
	for p in signals forkexec filter gather avx512 modes movss; do
		# shellcheck disable=SC2086
		${CC:-gcc} $cflags -static -o "$root/check/$p" "$guestdir/prog/$p.c" -lm
	done
	# shellcheck disable=SC2086
	for p in compat32 code16; do
		${CC:-gcc} $cflags -m32 -march=i686 -mfpmath=387 -ffreestanding -nostdlib -static -fno-pic -no-pie \
			-fno-stack-protector -o "$root/check/$p" "$guestdir/prog/$p.c"
	done
	# shellcheck disable=SC2086
	${CC:-gcc} $cflags -fno-tree-vectorize -fno-math-errno -static -o "$root/check/work" "$top"/bench/work/*.c
	"$root/check/work" --rows=cpu,fp,memory,jit --target-ms=1 >"$root/check/results"
}

sh "$guestdir/fetch-debs.sh"
sh "$guestdir/fetch-kernel.sh" "$flavour" >/dev/null
if ! fresh "$base" "$guestdir/mktestimage.sh" "$guestdir/lib.sh" "$guestdir/init-test" "$guestdir/functions" \
	"$guestdir/hello.c" "$guestdir/vulnerabilities" "$guestdir/prog" "$top/bench/work" "$HVX_CACHE/debroot/.packages"; then
	rm -rf "$root"
	for d in proc sys dev tmp etc usr/lib/ssl sbin; do
		mkdir -p "$root/$d"
	done
	echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
	add_programs
	add_compiler
	add_checks
	cp "$guestdir/init-test" "$root/init"
	chmod 755 "$root/init"
	pack "$root" "$base"
fi
if ! fresh "$out" "$base" "$HVX_CACHE/kernel/$flavour/package"; then
	# Archives may follow one another; the kernel unpacks both.
	extra=$HVX_CACHE/root-modules-$flavour
	rm -rf "$extra"
	mkdir -p "$extra"
	cp -R "$HVX_CACHE/kernel/$flavour/modules" "$extra/modules"
	pack "$extra" "$out.modules"
	cat "$base" "$out.modules" >"$out.tmp"
	rm -f "$out.modules"
	mv "$out.tmp" "$out"
fi
echo "$out"
