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
. "$here/bootstrap.sh"

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

# bootstrap: the system as a tar.
bootstrap() {
	set --
	# in the guest the host's loopback is not what it was
	case $guest_proxy in
	'') ;;
	none) set -- "$@" --customize-hook='sed -i /Proxy/d "$1/etc/apt/apt.conf.d/99mmdebstrap"' ;;
	*) set -- "$@" --customize-hook="printf 'Acquire::%s::Proxy \"$guest_proxy\";\n' http https >\"\$1/etc/apt/apt.conf.d/99mmdebstrap\"" ;;
	esac
	include=$(sed 's/#.*//' "$here/packages" | xargs | tr ' ' ,)
	debian_tar important "$tmp" "$@" --include="$kernel,$include" \
		--customize-hook='mkdir -p "$1/root/.ssh"' \
		--customize-hook="upload '$out/key.pub' /root/.ssh/authorized_keys" \
		--customize-hook="upload '$tmp/compat32' /usr/local/bin/compat32" \
		--customize-hook="upload '$tmp/pi32' /usr/local/bin/pi32" \
		--customize-hook="$(cat "$here/setup.sh")"
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

mkdir -p "$out"
exec 9>"$HVX_CACHE/debian/.lock"
flock 9
if fresh "$out/disk.raw" "$here/mkimage.sh" "$here/bootstrap.sh" "$here/setup.sh" "$here/packages" "$here/pi32.c" "$guestdir/prog/compat32.c" &&
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
in_tree sh -c "$fill" sh "$tmp" "$size" >&2 || die "cannot make the file system"
echo "root=LABEL=hvx-root ro console=ttyS0" >"$tmp/append"
for f in vmlinuz initrd.img packages append disk.raw; do
	mv "$tmp/$f" "$out/$f"
done
echo "$options" >"$out/options"
rm -rf "$tmp"
echo "$out"
