#!/bin/sh
# Boots what others boot otherwise: a 32-bit Debian kernel with two initrds, memtest86+ for both architectures, Xen with
# Debian's kernel as dom0; and what needs 16-bit code is refused in words.  In TAP; make check-foreign.
#
# Invariant: a guest has all the time it needs; only what it says decides.
# HVX_MONITOR names the hvx-monitor to use.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
[ -x "$monitor" ] || monitor=$top/build/hvx-monitor
tmp=$(mktemp -d)
name=foreign$$
trap '"$monitor" kill $name >/dev/null 2>&1 || :; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
dir=$(flock "$HVX_CACHE/.lock" sh "$guestdir/fetch-foreign.sh")
shell=$(flock "$HVX_CACHE/.lock" sh "$guestdir/mkinitramfs.sh")
number=0 failed=0

# result STATUS TEXT
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		failed=$((failed + 1))
		echo "not ok $number - $2"
		tail -n 12 "$tmp/log" | tr -d '\r' | tr '\033' '^' | sed 's/^/# /'
	fi
}

has() { tr -d '\r' <"$tmp/log" | grep -qE "$1"; }

# until_seen PATTERN OPTIONS...: runs the guest until its console shows the pattern, or it ends; then ends it.
until_seen() {
	pattern=$1
	shift
	"$monitor" run --name=$name --no-reboot "$@" </dev/null >"$tmp/log" 2>&1 &
	pid=$!
	n=0
	while kill -0 $pid 2>/dev/null && ! has "$pattern" && [ $n -lt 600 ]; do
		sleep 1
		n=$((n + 1))
	done
	"$monitor" kill $name >/dev/null 2>&1 || :
	wait $pid || :
	has "$pattern"
}

# ---- 32-bit Linux ----
mkdir "$tmp/a" "$tmp/b"
mkdir "$tmp/a/dev"
${CC:-gcc} -O2 -m32 -march=i686 -ffreestanding -nostdlib -static -fno-pic -no-pie -fno-stack-protector -o "$tmp/a/init" \
	"$guestdir/prog/init32.c"
echo "behind the first" >"$tmp/b/second"
pack "$tmp/a" "$tmp/a.cpio"
pack "$tmp/b" "$tmp/b.cpio"
truncate -s -3 "$tmp/a.cpio" # padding: the second must be found at a multiple of four bytes all the same
status=0
"$monitor" run --name=$name --no-reboot --kernel="$dir/vmlinuz-pae" --memory=256M --append="console=ttyS0 panic=-1" \
	--initrd="$tmp/a.cpio" --initrd="$tmp/b.cpio" </dev/null >"$tmp/log" 2>&1 || status=$?
has '^MARK init32' && [ $status = 0 ] && result 0 "686-pae: a 32-bit kernel, to its init and off" || result 1 "686-pae"
has '^MARK second initrd: behind the first' && result 0 "two initrds" || result 1 "two initrds"

# ---- memtest86+ ----
for arch in x64 ia32; do
	until_seen 'Status: Testing' --kernel="$dir/memtest86+$arch.bin" --memory=64M --append=console=ttyS0,115200 &&
		result 0 "memtest86+ $arch" || result 1 "memtest86+ $arch"
done

# ---- Xen: the kernel and its initrd are modules ----
kernel=$(flock "$HVX_CACHE/.lock" sh "$guestdir/fetch-kernel.sh" generic)
until_seen 'hvx guest: Linux' --kernel="$dir/xen" --memory=1G --append="no-real-mode com1=115200,8n1 console=com1 noreboot" \
	--initrd="$kernel,args=console=hvc0" --initrd="$shell" && result 0 "Xen with a dom0" || result 1 "Xen with a dom0"

# ---- 16-bit code: not yet ----
status=0
"$monitor" run --name=$name --kernel="$dir/ipxe.lkrn" --memory=64M </dev/null >"$tmp/log" 2>&1 || status=$?
has 'starts in 16-bit code' && [ $status = 3 ] && result 0 "iPXE: refused in words" || result 1 "iPXE: refused in words"
echo "1..$number"
[ "$failed" = 0 ]
