#!/bin/sh
# Build the complete Debian 12 guest; print the directory that holds it.
# usage: mkimage.sh [--kernel=cloud|generic] [--size=4G] [--guest-proxy=URL|none]
#
# Invariant: needs no root and mounts nothing on the host.  mmdebstrap works in a
# user namespace (or under fakechroot where namespaces are forbidden) and gives a
# tar; mke2fs fills the file system from its tree.  Kernel and initrd are the
# image's own: Debian's vmlinuz, and what initramfs-tools made in the image.
#
# The directory: disk.raw (ext4 without partitions), vmlinuz, initrd.img, append
# (kernel command line), key and key.pub (root's ssh key), packages (with versions).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
guestdir=$(dirname "$here")
. "$guestdir/lib.sh"

flavour=cloud
size=4G
guest_proxy=
for arg; do
	case $arg in
	--kernel=cloud | --kernel=generic) flavour=${arg#*=} ;;
	--size=*[0-9]G | --size=*[0-9]M) size=${arg#*=} ;;
	--guest-proxy=*) guest_proxy=${arg#*=} ;;
	*) die "usage: mkimage.sh [--kernel=cloud|generic] [--size=4G] [--guest-proxy=URL|none]" ;;
	esac
done
case $flavour in cloud) kernel=linux-image-cloud-amd64 ;; generic) kernel=linux-image-amd64 ;; esac
out=$HVX_CACHE/debian/$flavour
options="size=$size guest-proxy=$guest_proxy"

# host_proxy SCHEME: the proxy that the host's apt uses.
host_proxy() {
	_p=
	eval "$(apt-config shell _p "Acquire::$1::Proxy")"
	case $1 in
	http) echo "${_p:-${http_proxy:-}}" ;;
	https) echo "${_p:-${https_proxy:-}}" ;;
	esac
}

# mode: how mmdebstrap gets to be root of the tree.
mode() {
	if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
		echo unshare
	elif unshare --map-root-user --map-auto true 2>/dev/null; then
		echo unshare
	elif command -v fakechroot >/dev/null && command -v fakeroot >/dev/null; then
		echo fakechroot
	else
		die "cannot build the image: user namespaces with /etc/subuid (package uidmap) are not usable, and fakechroot and fakeroot are not installed"
	fi
}

# bootstrap: the system as a tar.
bootstrap() {
	set -- --mode="$mode" --variant=important --format=tar
	for scheme in http https; do
		p=$(host_proxy $scheme)
		[ -z "$p" ] || set -- "$@" --aptopt="Acquire::$scheme::Proxy \"$p\""
	done
	_valid=
	eval "$(apt-config shell _valid Acquire::Check-Valid-Until)"
	[ -z "$_valid" ] || set -- "$@" --aptopt="Acquire::Check-Valid-Until \"$_valid\""
	# in the guest the host's loopback is not what it was
	case $guest_proxy in
	'') ;;
	none) set -- "$@" --customize-hook='sed -i /Proxy/d "$1/etc/apt/apt.conf.d/99mmdebstrap"' ;;
	*) set -- "$@" --customize-hook="printf 'Acquire::%s::Proxy \"$guest_proxy\";\n' http https >\"\$1/etc/apt/apt.conf.d/99mmdebstrap\"" ;;
	esac
	include=$(sed 's/#.*//' "$here/packages" | xargs | tr ' ' ,)
	printf '%s\n' "$sources" | mmdebstrap "$@" --include="$kernel,$include" \
		--customize-hook='mkdir -p "$1/root/.ssh"' \
		--customize-hook="upload '$out/key.pub' /root/.ssh/authorized_keys" \
		--customize-hook="upload '$tmp/compat32' /usr/local/bin/compat32" \
		--customize-hook="upload '$tmp/pi32' /usr/local/bin/pi32" \
		--customize-hook="$(cat "$here/setup.sh")" \
		bookworm "$tmp/root.tar" - >"$tmp/log" 2>&1 ||
		{ tail -n 30 "$tmp/log" >&2; die "mmdebstrap failed"; }
}

# What runs as root of the tree: $1 is the directory with root.tar, $2 the size.
fill='set -eu
cd "$1"
mkdir root
tar -C root -x --numeric-owner --exclude="./dev/*" -f root.tar
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd.img
chmod 644 vmlinuz initrd.img
awk "/^Package: /{p=\$2} /^Architecture: /{a=\$2} /^Version: /{print p\":\"a, \$2}" root/var/lib/dpkg/status >packages
mke2fs -q -t ext4 -L hvx-root -d root disk.raw "$2"
rm -rf root'

# fill_disk: the tree into a file system; owners are kept by the same means as in mode.
fill_disk() {
	case $mode in
	fakechroot) fakeroot sh -c "$fill" sh "$tmp" "$size" ;;
	*) if [ "$(id -u)" = 0 ]; then
		sh -c "$fill" sh "$tmp" "$size"
	else
		unshare --map-root-user --map-auto sh -c "$fill" sh "$tmp" "$size"
	fi ;;
	esac
}

mkdir -p "$out"
exec 9>"$HVX_CACHE/debian/.lock"
flock 9
if fresh "$out/disk.raw" "$here/mkimage.sh" "$here/setup.sh" "$here/packages" "$here/pi32.c" "$guestdir/prog/compat32.c" &&
	[ "$(cat "$out/options" 2>/dev/null)" = "$options" ]; then
	echo "$out"
	exit 0
fi
for p in mmdebstrap mke2fs ssh-keygen apt-get; do
	PATH=$PATH:/usr/sbin:/sbin command -v $p >/dev/null || die "no $p: run tests/guest/prepare-host.sh check"
done
PATH=$PATH:/usr/sbin:/sbin
mode=$(mode)
sources=$("$here/sources.sh") || die "no source of packages"
say "building the Debian guest ($flavour kernel, mmdebstrap --mode=$mode)"
rm -rf "$out/tmp"
mkdir "$out/tmp"
tmp=$out/tmp
[ -e "$out/key" ] || ssh-keygen -q -t ed25519 -N '' -C hvx-test-guest -f "$out/key"
${CC:-gcc} -O2 -std=gnu11 -m32 -march=i686 -mfpmath=387 -ffreestanding -nostdlib -static -fno-pic -no-pie \
	-fno-stack-protector -o "$tmp/compat32" "$guestdir/prog/compat32.c"
${CC:-gcc} -O2 -std=gnu11 -Wall -Wextra -m32 -o "$tmp/pi32" "$here/pi32.c" || die "cannot link 32-bit programs: apt-get install libc6-dev-i386 lib32gcc-12-dev"
bootstrap
fill_disk >&2 || die "cannot make the file system"
echo "root=LABEL=hvx-root ro console=ttyS0" >"$tmp/append"
for f in vmlinuz initrd.img packages append disk.raw; do
	mv "$tmp/$f" "$out/$f"
done
echo "$options" >"$out/options"
rm -rf "$tmp"
echo "$out"
