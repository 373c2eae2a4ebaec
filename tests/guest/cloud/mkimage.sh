#!/bin/sh
# Build a cloud image of Debian 12, such as Debian's own are; print the directory that holds it.
# usage: mkimage.sh
#
# GPT with the root last (1), a BIOS boot partition (14) and an EFI one (15); GRUB for both, the kernel and its initrd in
# /boot, cloud-init, no user, no password, no key.  The directory: disk.raw, and packages (with versions).
#
# Invariant: needs no root, no loop device and no mount: mmdebstrap makes the system, mke2fs and mtools the file systems,
# grub-mkimage what starts it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
guestdir=$(dirname "$here")
. "$guestdir/lib.sh"
. "$guestdir/debian/bootstrap.sh"
. "$guestdir/grub.sh"
PATH=$PATH:/usr/sbin:/sbin
[ $# -eq 0 ] || die "usage: mkimage.sh"
out=$HVX_CACHE/cloud
mkdir -p "$out"
exec 9>"$HVX_CACHE/.cloud.lock"
flock 9
if fresh "$out/disk.raw" "$here/mkimage.sh" "$here/setup.sh" "$here/packages" "$guestdir/debian/bootstrap.sh" "$guestdir/grub.sh"; then
	echo "$out"
	exit 0
fi
for p in mmdebstrap mke2fs grub-mkimage mformat mcopy sfdisk apt-get; do
	command -v $p >/dev/null || die "no $p: run tests/guest/prepare-host.sh check"
done
grub_there || die "no GRUB modules: run tests/guest/prepare-host.sh check"
mode=$(mode)
sources=$("$guestdir/debian/sources.sh") || die "no source of packages"
say "building the cloud image (mmdebstrap --mode=$mode)"
tmp=$out/tmp
rm -rf "$tmp"
mkdir "$tmp"

# Sectors, as in Debian's images: BIOS boot, EFI, root up to the last MiB.
core_at=2048 core_sectors_max=6144
esp_at=8192 esp_sectors=253952
root_at=262144 root_sectors=$((2560 * 2048))

# What runs as root of the tree: $1 is the directory with root.tar, $2 the sectors of the root.
fill='set -eu
cd "$1"
mkdir root
tar -C root -x --numeric-owner --exclude="./dev/*" -f root.tar
awk "/^Package: /{p=\$2} /^Architecture: /{a=\$2} /^Version: /{print p\":\"a, \$2}" root/var/lib/dpkg/status >packages
mke2fs -q -t ext4 -L cloudimg-rootfs -d root rootfs "$(($2 / 2))k"
rm -rf root root.tar'

debian_tar important "$tmp" --include="$(sed 's/#.*//' "$here/packages" | xargs | tr ' ' ,)" \
	--customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
	--customize-hook="$(cat "$here/setup.sh")"
in_tree sh -c "$fill" sh "$tmp" $root_sectors >&2 || die "cannot make the file system"

# GRUB looks for the menu where the system keeps it.
cat >"$tmp/early.cfg" <<END
search --label --set=root cloudimg-rootfs
set prefix=(\$root)/boot/grub
configfile (\$root)/boot/grub/grub.cfg
END
grub_core i386-pc "$tmp/early.cfg" "$tmp/core.img" biosdisk
grub_core x86_64-efi "$tmp/early.cfg" "$tmp/bootx64.efi" efi_gop
truncate -s $((esp_sectors * 512)) "$tmp/esp"
mformat -i "$tmp/esp" -T $esp_sectors -h 1 -s 1 -v EFI ::
mmd -i "$tmp/esp" ::/EFI ::/EFI/BOOT
mcopy -i "$tmp/esp" "$tmp/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI

truncate -s $(((root_at + root_sectors + 2048) * 512)) "$tmp/disk"
sfdisk -q "$tmp/disk" <<END
label: gpt
1: start=$root_at, size=$root_sectors, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
14: start=$core_at, size=$core_sectors_max, type=21686148-6449-6E6F-744E-656564454649
15: start=$esp_at, size=$esp_sectors, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
END
grub_boot_sector "$tmp/disk" "$tmp/core.img" $core_at
dd if="$tmp/esp" of="$tmp/disk" bs=1M seek=$((esp_at / 2048)) conv=notrunc,sparse 2>/dev/null
dd if="$tmp/rootfs" of="$tmp/disk" bs=1M seek=$((root_at / 2048)) conv=notrunc,sparse 2>/dev/null
mv "$tmp/packages" "$out/packages"
mv "$tmp/disk" "$out/disk.raw"
rm -rf "$tmp"
echo "$out"
