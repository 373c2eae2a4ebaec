# shellcheck shell=sh
# Shared by what makes disks that firmware starts from: GRUB for BIOS and for UEFI, without root and without a device.
#
# Read with ". grub.sh".

grub_bios=/usr/lib/grub/i386-pc
grub_efi=/usr/lib/grub/x86_64-efi

grub_there() { [ -e $grub_bios/boot.img ] && [ -e $grub_efi/linux.mod ]; }

# grub_core FORMAT EARLY OUT MODULE...: GRUB as one file that runs the configuration EARLY.
grub_core() {
	_format=$1
	_early=$2
	_out=$3
	shift 3
	grub-mkimage -O "$_format" -c "$_early" -p / -o "$_out" normal search search_fs_file search_label \
		part_gpt fat ext2 linux echo sleep serial terminal configfile test reboot halt minicmd "$@"
}

# word OFFSET SIZE VALUE FILE: a little-endian number into a file.
word() {
	_i=0
	_v=$3
	while [ $_i -lt "$2" ]; do
		printf "\\$(printf %o $((_v & 255)))" | dd of="$4" bs=1 seek=$(($1 + _i)) conv=notrunc 2>/dev/null
		_v=$((_v >> 8))
		_i=$((_i + 1))
	done
}

# grub_boot_sector DISK CORE SECTOR: CORE at SECTOR of DISK, and the boot sector (all but the partition table) that loads
# it; where each finds the next is in GRUB's boot.S and diskboot.S.
grub_boot_sector() {
	cp $grub_bios/boot.img "$2.boot"
	word 92 8 "$3" "$2.boot"
	dd if="$2.boot" of="$1" bs=1 count=440 conv=notrunc 2>/dev/null
	_sectors=$((($(stat -c %s "$2") + 511) / 512))
	word 500 8 $(($3 + 1)) "$2"
	word 508 2 $((_sectors - 1)) "$2"
	dd if="$2" of="$1" bs=512 seek="$3" conv=notrunc 2>/dev/null
	rm -f "$2.boot"
}
