#!/bin/sh
# Build the workloads and the bench guest's initramfs; print the directory that holds its tree.
#
# Invariant: the native run uses this very tree (by chroot), so the guest and the
# host run the same bytes.
set -eu
benchdir=$(cd "$(dirname "$0")" && pwd)
guestdir=$benchdir/../tests/guest
. "$guestdir/lib.sh"

root=$HVX_CACHE/root-bench
out=$HVX_CACHE/initramfs-bench.cpio
cflags="-O2 -std=gnu11 -Wall -Wextra -Wshadow -Wimplicit-fallthrough -Werror -fno-tree-vectorize -fno-math-errno"
python_modules="encodings codecs.py io.py abc.py os.py stat.py posixpath.py genericpath.py _collections_abc.py"

# build_work DIR: compile the workloads into DIR.
build_work() {
	mkdir -p "$1"
	# shellcheck disable=SC2086
	${CC:-gcc} $cflags -static -o "$1/work" "$benchdir"/work/*.c
	for s in "$benchdir"/work/script.*; do
		cp "$s" "$1/"
	done
}

sh "$guestdir/fetch-debs.sh"
if ! fresh "$out" "$benchdir/work" "$benchdir/init-bench" "$benchdir/mkimage.sh" "$guestdir/lib.sh" \
	"$HVX_CACHE/debroot/.packages"; then
	rm -rf "$root" "$out"
	build_work "$root/bench"
	mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/root"
	for p in bin/busybox bin/bash bin/gzip usr/bin/xz usr/bin/openssl usr/bin/sqlite3 usr/bin/lua5.4 usr/bin/luajit \
		usr/bin/tcc usr/lib/gcc/x86_64-linux-gnu/12/cc1 usr/bin/python3.11; do
		add_program "$root" "$p"
	done
	# merged /usr, so that both names of a program work
	mv "$root/bin/gzip" "$root/usr/bin/gzip"
	mkdir -p "$root/usr/lib/python3.11/lib-dynload"
	for m in $python_modules; do
		cp -RL "$HVX_CACHE/debroot/usr/lib/python3.11/$m" "$root/usr/lib/python3.11/"
	done
	mkdir -p "$root/usr/lib/ssl" "$root/etc"
	: >"$root/usr/lib/ssl/openssl.cnf"
	echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
	cp "$benchdir/init-bench" "$root/init"
	chmod 755 "$root/init"
	pack "$root" "$out"
fi
echo "$root"
