#!/bin/sh
# Starts a disk by BIOS and by UEFI: firmware, GRUB, Debian's kernel, an init.  In TAP.
# usage: firmware.sh [--all]    UEFI's restarts too
#
# Invariant: a guest has all the time it needs; only what it says decides.
# HVX_MONITOR names the hvx-monitor to use.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
[ -x "$monitor" ] || monitor=$top/build/hvx-monitor
tmp=$(mktemp -d)
name=firmware$$
trap '"$monitor" kill $name >/dev/null 2>&1 || :; "$monitor" kill $name-restart >/dev/null 2>&1 || :; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
disk=$(sh "$guestdir/mkbootdisk.sh" short) || { echo "1..0 # SKIP no disk to start from"; exit 77; }
cp --sparse=always "$disk" "$tmp/disk.raw"
number=0 failed=0 bus=virtio

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

# run OPTIONS...: to the end
run() {
	status=0
	"$monitor" run --name=$name --no-reboot --disk="path=$tmp/disk.raw,format=raw,bus=$bus" "$@" </dev/null >"$tmp/log" 2>&1 || status=$?
}

# told: the guest knows the machine as the tables tell it
told() {
	has '^BOOT: vendor HVX' && has '^BOOT: tables .*APIC.*DSDT.*FACP.*FACS.*MCFG' && has "^BOOT: name $name" &&
		has '^BOOT: pci 0000:00:01.0 0x1af4 0x1042' && has '^BOOT: end'
}

run --debugcon="$tmp/says"
[ $status = 0 ] && has '^BOOT: by bios' && told && result 0 "BIOS, GRUB, kernel" || result 1 "BIOS, GRUB, kernel"
has 'SeaBIOS \(version' && result 0 "SeaBIOS is on the serial port" || result 1 "SeaBIOS is on the serial port"
grep -q 'Found QEMU fw_cfg' "$tmp/says" && result 0 "its log" || result 1 "its log"

run --firmware=uefi --nvram="$tmp/nvram"
[ $status = 0 ] && has '^BOOT: by uefi' && told && result 0 "UEFI, GRUB, kernel" || result 1 "UEFI, GRUB, kernel"
# the firmware has written where it starts from, and reads it again
cmp -s "$tmp/nvram" /usr/share/OVMF/OVMF_VARS_4M.fd && result 1 "UEFI keeps variables" || result 0 "UEFI keeps variables"
run --firmware=uefi --nvram="$tmp/nvram"
[ $status = 0 ] && has '^BOOT: by uefi' && result 0 "UEFI with its variables" || result 1 "UEFI with its variables"

# a SATA disk, by the drivers of both firmwares and GRUB
bus=ahci
run
[ $status = 0 ] && has '^BOOT: by bios' && has '^BOOT: pci .* 0x8086 0x2922' && result 0 "BIOS, SATA disk" || result 1 "BIOS, SATA disk"
run --firmware=uefi --nvram="$tmp/nvram"
[ $status = 0 ] && has '^BOOT: by uefi' && has '^BOOT: pci .* 0x8086 0x2922' && result 0 "UEFI, SATA disk" || result 1 "UEFI, SATA disk"
bus=virtio

"$monitor" run --name=$name-restart --firmware=uefi --nvram="$tmp/nvram" --boot=menu </dev/null >"$tmp/holder" 2>&1 &
pid=$!
until "$monitor" status $name-restart 2>/dev/null | grep -q '^state: *running' || ! kill -0 $pid 2>/dev/null; do sleep 1; done
run --firmware=uefi --nvram="$tmp/nvram"
[ $status = 3 ] && has 'nvram .*: in use by hvx-monitor.*VM .*-restart' && result 0 "nvram is locked" || result 1 "nvram is locked"
"$monitor" kill $name-restart >/dev/null 2>&1 || :
wait $pid || :
head -c 65536 /dev/zero >"$tmp/other"
run --firmware=uefi --nvram="$tmp/other"
[ $status = 3 ] && has 'it belongs to another one' && result 0 "nvram of another size" || result 1 "nvram of another size"

# the display of a BIOS that finds nothing
truncate -s 1M "$tmp/nothing.raw"
"$monitor" run --name=$name-restart --disk="path=$tmp/nothing.raw,format=raw" </dev/null >"$tmp/log" 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null; do
	"$monitor" screen $name-restart >"$tmp/screen" 2>/dev/null || :
	! grep -q 'No bootable device' "$tmp/screen" || break
	sleep 1
done
grep -q '^SeaBIOS (version' "$tmp/screen" && result 0 "the display" || result 1 "the display"
"$monitor" kill $name-restart >/dev/null 2>&1 || :
wait $pid || :

# iPXE is given an address, by a card of virtio's
"$monitor" run --name=$name-restart --net=user --boot=net </dev/null >"$tmp/log" 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null && ! has 'No more network devices'; do sleep 1; done
has 'net0: [0-9.]*/[0-9.]* gw' && has 'virtio-net on' && result 0 "BIOS, network" || result 1 "BIOS, network"
"$monitor" kill $name-restart >/dev/null 2>&1 || :
wait $pid || :

# a guest that restarts goes through firmware again
for firmware in bios ${1:+uefi}; do
	"$monitor" run --name=$name-restart --firmware=$firmware --disk="path=$tmp/disk.raw,format=raw" </dev/null >"$tmp/log" 2>&1 &
	pid=$!
	while kill -0 $pid 2>/dev/null && [ "$(grep -ac 'BOOT: name' "$tmp/log")" -lt 2 ]; do
		sleep 1
	done
	"$monitor" kill $name-restart >/dev/null 2>&1 || :
	wait $pid || :
	[ "$(grep -ac 'BOOT: name' "$tmp/log")" -ge 2 ] && result 0 "$firmware: restarts" || result 1 "$firmware: restarts"
done
echo "1..$number"
exit $((failed != 0))
