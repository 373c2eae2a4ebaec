#!/bin/sh
# Build a disk that firmware starts from, BIOS and UEFI alike: GPT, GRUB for both, Debian's kernel; print its path.
# usage: mkbootdisk.sh short|debian
#   short   a kernel and an init that says what started it, 48 MiB: boots in seconds
#   debian  the complete guest of debian/mkimage.sh behind the same GRUB
#
# Invariant: nothing needs root and no loop device: each partition is made as a file and copied to its place.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"
. "$guestdir/grub.sh"
PATH=$PATH:/usr/sbin:/sbin

case ${1:-} in
short | debian) kind=$1 ;;
*) die "usage: mkbootdisk.sh short|debian" ;;
esac
for p in grub-mkimage mformat mcopy sfdisk mke2fs; do
	command -v $p >/dev/null || die "no $p: run tests/guest/prepare-host.sh check"
done
grub_there || die "no GRUB modules: run tests/guest/prepare-host.sh check"
out=$HVX_CACHE/bootdisk-$kind.raw
kernel=$(sh "$guestdir/fetch-kernel.sh" cloud)
if [ $kind = debian ]; then
	debian=$("$guestdir/debian/mkimage.sh")
	set -- "$debian/disk.raw"
else
	sh "$guestdir/fetch-debs.sh"
	set -- "$kernel" "$HVX_CACHE/debroot/.packages" "$guestdir/init-boot"
fi
exec 9>"$HVX_CACHE/.bootdisk.lock"
flock 9
if fresh "$out" "$guestdir/mkbootdisk.sh" "$guestdir/grub.sh" "$@"; then
	echo "$out"
	exit 0
fi
say "building the boot disk ($kind)"
tmp=$out.tmp
rm -rf "$tmp"
mkdir "$tmp"

# short_initrd: busybox and an init.
short_initrd() {
	mkdir -p "$tmp/root/bin" "$tmp/root/proc" "$tmp/root/sys" "$tmp/root/dev"
	add_program "$tmp/root" bin/busybox
	cp "$guestdir/init-boot" "$tmp/root/init"
	chmod 755 "$tmp/root/init"
	pack "$tmp/root" "$tmp/initrd"
}

# grub_config ROOT: the menu, the same for both GRUBs.
grub_config() {
	cat <<-EOF
	serial --unit=0 --speed=115200
	terminal_input serial console
	terminal_output serial console
	set timeout=0
	$1
	EOF
}

# Sectors: BIOS boot partition (GRUB's core), EFI partition, root.
core_at=2048
esp_at=4096
esp_sectors=$((44 * 2048))
root_at=$((esp_at + esp_sectors))

if [ $kind = short ]; then
	short_initrd
	cp "$kernel" "$tmp/vmlinuz"
	grub_config "linux /vmlinuz console=ttyS0 panic=-1
	initrd /initrd
	boot" >"$tmp/grub.cfg"
	size=$((48 * 2048))
else
	grub_config "search --label --set=root hvx-root
	linux /vmlinuz root=LABEL=hvx-root ro console=ttyS0
	initrd /initrd.img
	boot" >"$tmp/grub.cfg"
	root_sectors=$(($(stat -c %s "$debian/disk.raw") / 512))
	size=$((root_at + root_sectors + 2048))
fi

printf 'search --file --set=root /grub.cfg\nset prefix=($root)/\nnormal ($root)/grub.cfg\n' >"$tmp/early.cfg"
grub_core i386-pc "$tmp/early.cfg" "$tmp/core.img" biosdisk
grub_core x86_64-efi "$tmp/early.cfg" "$tmp/bootx64.efi" efi_gop
truncate -s $((esp_sectors * 512)) "$tmp/esp"
mformat -i "$tmp/esp" -T $esp_sectors -h 1 -s 1 -v HVXESP ::
mmd -i "$tmp/esp" ::/EFI ::/EFI/BOOT
mcopy -i "$tmp/esp" "$tmp/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$tmp/esp" "$tmp/grub.cfg" ::/grub.cfg
[ $kind != short ] || mcopy -i "$tmp/esp" "$tmp/vmlinuz" "$tmp/initrd" ::/

truncate -s $((size * 512)) "$tmp/disk"
{
	echo "label: gpt"
	echo "start=$core_at, size=$((esp_at - core_at)), type=21686148-6449-6E6F-744E-656564454649"
	echo "start=$esp_at, size=$esp_sectors, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	[ $kind = short ] || echo "start=$root_at, size=$root_sectors, type=L"
} | sfdisk -q "$tmp/disk"
grub_boot_sector "$tmp/disk" "$tmp/core.img" $core_at
dd if="$tmp/esp" of="$tmp/disk" bs=1M seek=$((esp_at / 2048)) conv=notrunc,sparse 2>/dev/null
[ $kind = short ] || dd if="$debian/disk.raw" of="$tmp/disk" bs=1M seek=$((root_at / 2048)) conv=notrunc,sparse 2>/dev/null
mv "$tmp/disk" "$out"
rm -rf "$tmp"
echo "$out"
