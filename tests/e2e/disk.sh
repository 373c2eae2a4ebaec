#!/bin/sh
# Disks and network cards that cannot be had: one clear line, the documented status, nothing left.
. "$(dirname "$0")/lib.sh"
vm=${prefix}d

try() { # NAME STATUS PATTERN OPTIONS...
	try_name=$1 try_status=$2 try_pattern=$3
	shift 3
	timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M "$@" </dev/null >"$tmp/out" 2>"$tmp/err"
	is "$try_name: status" "$try_status" $?
	has "$try_name: says why" "$try_pattern" "$tmp/err"
	is "$try_name: in one line" 1 "$(wc -l <"$tmp/err")"
}

truncate -s 1M "$tmp/a.raw" "$tmp/plain"
printf 'QFI\373\0\0\0\003' >"$tmp/cow.raw"
truncate -s 1M "$tmp/cow.raw"

try "no file" 3 'none.raw: No such file' --disk=path="$tmp/none.raw"
try "a directory" 3 'directory|neither a file' --disk=path="$tmp",format=raw
try "nobody says it is raw" 3 'say format=raw' --disk=path="$tmp/plain"
try "raw by name, qcow2 by content" 3 'begins like qcow2' --disk=path="$tmp/cow.raw"
try "another format than said" 3 'does not begin like' --disk=path="$tmp/a.raw",format=vdi
try "the same image twice" 3 'in use by .*process' --disk=path="$tmp/a.raw" --disk=path="$tmp/a.raw"
try "written and read" 3 'in use by .*process' --disk=path="$tmp/a.raw",readonly --disk=path="$tmp/a.raw"
try "a path without path=" 2 'path=FILE' --disk="$tmp/a.raw"
try "a comma in the path" 2 'comma within a value is written twice' --disk=path="$tmp/a,b.raw"
try "no path" 2 'needs path' --disk=readonly
try "unknown key" 2 "unknown option: 'colour'" --disk=path="$tmp/a.raw",colour=red
try "one id for two" 2 'two devices with this id' --disk=path="$tmp/a.raw",id=x --net=user,id=x
try "two back ends" 2 'one of user' --net=user,tap=tap0
try "a bad forward" 2 'forward is tcp' --net=user,forward=tcp:22
try "no switch" 4 'switch .*: (No such file|no hvx-switch)' --net=switch="$tmp/none"
is "the images are as they were" "1048576 1048576" "$(stat -c %s "$tmp/a.raw") $(stat -c %s "$tmp/plain")"

# ---- formats: what is known is named, whatever the file is called; what cannot be used says why ----
image() { # NAME QEMU-IMG-OPTIONS...: a small image of 1 MiB
	image_name=$1
	shift
	rm -f "$tmp/$image_name"
	qemu-img create -q "$@" "$tmp/$image_name" 1M >/dev/null
}
runs() { # NAME OPTIONS...: a machine with this disk ends as the guest asks
	runs_name=$1
	shift
	printf p | timeout 60 "$monitor" run --name=$vm --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err"
	is "$runs_name: runs" 0 $?
}
poke() { # FILE OFFSET BYTES
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
magic() { # FILE BYTES: 1 MiB that begin so
	rm -f "$1"
	truncate -s 1M "$1"
	poke "$1" 0 "$2"
}

for k in 'qcow\tQFI\373\0\0\0\001' 'QED\tQED\0' 'LUKS\tLUKS\272\276\0\002' 'Parallels\tWithoutFreeSpace' 'gzip\t\037\213\010\0' \
	'xz\t\3757zXZ\0' 'zstd\t\050\265\057\375' 'bzip2\tBZh91AY&SY' 'Bochs\tBochs Virtual HD Image'; do
	magic "$tmp/x.img" "${k#*\\t}"
	try "${k%%\\t*}" 3 "begins like [an ]*${k%%\\t*}.*not supported.*format=raw" --disk=path="$tmp/x.img"
done
magic "$tmp/x.img" 'LUKS\272\276\0\002'
runs "LUKS that is said to be raw" --disk=path="$tmp/x.img",format=raw
truncate -s 0 "$tmp/empty.raw"
runs "an empty raw image" --disk=path="$tmp/empty.raw"
has "an empty raw image: is said" 'empty.raw: the image is empty' "$tmp/err"

if command -v qemu-img >/dev/null; then
	image f.vhd -f vpc
	cp "$tmp/f.vhd" "$tmp/f.img"
	cp "$tmp/f.vhd" "$tmp/f.bin"
	runs "a dynamic VHD" --disk=path="$tmp/f.vhd"
	runs "a dynamic VHD by its contents" --disk=path="$tmp/f.bin"
	try "a dynamic VHD named like a raw image" 3 'begins like vpc' --disk=path="$tmp/f.img"
	runs "and said to be one" --disk=path="$tmp/f.img",format=vpc
	poke "$tmp/f.bin" 60 '\0\0\0\004'
	try "a differencing VHD" 3 'differencing VHD' --disk=path="$tmp/f.bin"
	image fixed.img -f vpc -o subformat=fixed
	try "a fixed VHD named like a raw image" 3 'ends like vpc' --disk=path="$tmp/fixed.img"
	mv "$tmp/fixed.img" "$tmp/fixed.vhd"
	runs "a fixed VHD" --disk=path="$tmp/fixed.vhd",snapshot
	poke "$tmp/fixed.vhd" 0 'QFI\373\0\0\0\003'
	try "a fixed VHD whose guest wrote a header" 3 'begins like one format and ends like another' \
		--disk=path="$tmp/fixed.vhd"

	image so.vmdk -f vmdk -o subformat=streamOptimized
	try "a streamOptimized vmdk to be written" 3 'streamOptimized.*snapshot or readonly' --disk=path="$tmp/so.vmdk"
	runs "and read" --disk=path="$tmp/so.vmdk",readonly
	runs "and with a snapshot" --disk=path="$tmp/so.vmdk",snapshot

	image q.qcow2 -f qcow2
	poke "$tmp/q.qcow2" 79 '\002'
	try "a corrupt qcow2" 3 'marked as corrupt.*readonly' --disk=path="$tmp/q.qcow2"
	runs "and only read" --disk=path="$tmp/q.qcow2",readonly
	poke "$tmp/q.qcow2" 79 '\200'
	try "a qcow2 with an unknown feature" 3 'incompatible bits 0x80' --disk=path="$tmp/q.qcow2",readonly
	# what only qemu-nbd finds: its reason in our line, before the machine runs
	image l.qcow2 -f qcow2
	poke "$tmp/l.qcow2" 36 '\377\377\377\377'
	try "a qcow2 whose tables are wrong" 3 "disk $tmp/l.qcow2: qemu-nbd: .*L1 table" --disk=path="$tmp/l.qcow2"
	image v.vdi -f vdi
	poke "$tmp/v.vdi" 68 '\9\9\9\9'
	try "a vdi of no known version" 3 "disk $tmp/v.vdi: qemu-nbd: .*version" --disk=path="$tmp/v.vdi",readonly
	image e.qcow2 -f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s
	try "an encrypted qcow2" 3 'encrypted' --disk=path="$tmp/e.qcow2"

	# files that images name: below their folder and nowhere else
	mkdir "$tmp/in" "$tmp/in/bases" "$tmp/else"
	image in/bases/g.raw -f raw
	image else/o.raw -f raw
	image in/bases/m.qcow2 -f qcow2 -b g.raw -F raw
	image in/a.qcow2 -f qcow2 -b bases/m.qcow2 -F qcow2
	image in/b.qcow2 -f qcow2 -b "$tmp/in/bases/m.qcow2" -F qcow2
	image in/c.qcow2 -f qcow2 -b "$tmp/else/o.raw" -F raw
	image in/d.qcow2 -f qcow2 -o data_file="$tmp/in/d.data"
	image in/e.vmdk -f vmdk -o subformat=twoGbMaxExtentSparse
	image in/f.vmdk -f vmdk -o subformat=monolithicFlat
	bases=$(cat "$tmp/in/bases/"* | cksum)
	runs "backing files, and two disks on one base" --disk=path="$tmp/in/a.qcow2" --disk=path="$tmp/in/b.qcow2"
	runs "with a snapshot on top" --disk=path="$tmp/in/a.qcow2",snapshot
	runs "a data file" --disk=path="$tmp/in/d.qcow2"
	runs "extents" --disk=path="$tmp/in/e.vmdk" --disk=path="$tmp/in/f.vmdk",readonly
	is "the bases are as they were" "$bases" "$(cat "$tmp/in/bases/"* | cksum)"
	try "a base in another folder" 3 "c.qcow2: backing file 1, $tmp/else/o.raw: not below $tmp/in; --allow-path" \
		--disk=path="$tmp/in/c.qcow2"
	runs "that is allowed" --allow-path="$tmp/else" --disk=path="$tmp/in/c.qcow2"
	try "a folder that is none" 3 'allow-path /none: No such' --allow-path=/none --disk=path="$tmp/in/c.qcow2"
	try "a base that another disk writes" 3 'backing file 1, bases/m.qcow2: in use by' \
		--disk=path="$tmp/in/bases/m.qcow2" --disk=path="$tmp/in/a.qcow2"
	mkfifo "$tmp/in/fifo"
	ln -s /etc/shadow "$tmp/in/link"
	names() { # NAME PATTERN BACKING-FILE
		image in/h.qcow2 -f qcow2
		qemu-img rebase -q -u -F raw -b "$3" "$tmp/in/h.qcow2"
		try "$1" 3 "disk [^ ]*/h.qcow2: backing file 1, .*$2" --disk=path="$tmp/in/h.qcow2",readonly
	}
	names "/etc/shadow for a base" 'not below' /etc/shadow
	names "a way out" 'not below' ../../../../../../../../../../etc/shadow
	names "a link that leads out" 'not below' link
	names "a fifo" 'not a regular file' fifo
	names "itself" 'part of this disk already' h.qcow2
	names "nothing" 'No such file' gone.raw
	names "json" 'protocol' 'json:{"driver":"file","filename":"/etc/shadow"}'
	names "a server" 'protocol' nbd://127.0.0.1/x
	n=0
	while [ $n -lt 40 ]; do
		image in/n$n -f qcow2
		qemu-img rebase -q -u -F qcow2 -b n$((n + 1)) "$tmp/in/n$n"
		n=$((n + 1))
	done
	try "a chain without end" 3 'backing file 32, n32: a disk is made of 32 files' --disk=path="$tmp/in/n0"
fi

# cloud-init's seed: made of what is given, gone with the machine
printf '#cloud-config\n{}\n' >"$tmp/user"
echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOl8C1H7LuJxG7EyXq3YQvJ9xw953 me' >"$tmp/key.pub"
echo 'packages: [a]' >"$tmp/nodata"
if command -v genisoimage >/dev/null; then
	mkdir "$tmp/t"
	TMPDIR="$tmp/t" "$monitor" start --name=$vm --kernel="$guest" --memory=16M --cloud-init="$tmp/user" --ssh-key="$tmp/key.pub" \
		>"$tmp/out" 2>"$tmp/err" </dev/null
	is "a seed: status" 0 $?
	"$monitor" stats $vm >"$tmp/out"
	has "it is a disk" '^cidata.reads ' "$tmp/out"
	pid=$("$monitor" status $vm | sed -n 's/^process: *cidata pid \([0-9]*\):.*/\1/p')
	for fd in /proc/$pid/fd/*; do
		case $(readlink "$fd") in
		*memfd:seed*) cp "$fd" "$tmp/seed.iso" ;;
		esac
	done
	is "labelled CIDATA" CIDATA "$(dd if="$tmp/seed.iso" bs=1 skip=32808 count=6 status=none)"
	has "with the key" 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOl8C1H7LuJxG7EyXq3YQvJ9xw953 me' "$tmp/seed.iso"
	"$monitor" kill $vm
	nothing_left $vm
	is "and no file of it" '' "$(ls "$tmp/t")"
fi
try "user-data that is none" 3 'cloud-init: .*/nodata: begins like no user-data' --cloud-init="$tmp/nodata"
try "a key that is none" 3 'not a public key' --ssh-key="$tmp/user"
try "too many texts" 2 'USER-DATA' --cloud-init=a,b,c,d

# AHCI: found and reset; what it cannot be
runs "a SATA disk and a CD" --disk=path="$tmp/a.raw",bus=ahci --cdrom="$tmp/plain"
try "a SATA disk that is read-only" 2 'use snapshot' --disk=path="$tmp/a.raw",bus=ahci,readonly
try "another bus" 2 'virtio or ahci' --disk=path="$tmp/a.raw",bus=scsi

again=
for _ in 1 2 3 4 5; do
	printf p | timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M --disk=path="$tmp/a.raw" >"$tmp/out" 2>&1
	again=$again$?
done
is "a disk is free as soon as its machine has ended" 00000 $again

# As many as there may be: each has its process, its place and its counters.
set -- --rng --balloon --watchdog=none --virtio-console=file:"$tmp/second"
"${HVX_SWITCH:-$(dirname "$monitor")/hvx-switch}" "$tmp/lan" 2>/dev/null &
switch_pid=$!
within 10 test -S "$tmp/lan"
for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
	truncate -s 1M "$tmp/$i.raw"
	set -- "$@" --disk=path="$tmp/$i.raw",ops=1M,ops-burst=1M,bytes=1G,bytes-burst=1G,id=a-name-as-long-as-a-name-can-$i
	[ $i -ge 8 ] || set -- "$@" --net=switch="$tmp/lan",packets=1M,packets-burst=1M,bytes=1G,bytes-burst=1G
done
"$monitor" start --name=$vm --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
is "16 disks and 8 cards: status" 0 $?
"$monitor" status $vm >"$tmp/out"
is "each is a process" 27 "$(grep -c '^process:' "$tmp/out")"
"$monitor" stats $vm >"$tmp/out"
is "each has its counters" 24 "$(grep -c '\.limit_bytes_burst .*1073741824 bytes$' "$tmp/out")"
"$monitor" kill $vm
nothing_left $vm
kill $switch_pid
wait $switch_pid
try "another disk" 2 'more than 16 disks' "$@" --disk=path="$tmp/a.raw"
try "another card" 2 'more than 8 network cards' "$@" --net=user

# The rng has limits like theirs.
"$monitor" start --name=$vm --kernel="$guest" --memory=16M --rng --disk=path="$tmp/a.raw" >"$tmp/out" 2>"$tmp/err" </dev/null
"$monitor" limit $vm rng bytes=3K
is "limit of the rng: status" 0 $?
"$monitor" stats $vm >"$tmp/out"
has "and it holds" '^rng.limit_bytes +3072 bytes/s$' "$tmp/out"
has "what was not named stays" '^rng.limit_bytes_burst +0 bytes$' "$tmp/out"
"$monitor" limit $vm rng bytes=4K bytes-burst=9 && "$monitor" limit $vm rng bytes=none
"$monitor" stats $vm >"$tmp/out"
has "none is none" '^rng.limit_bytes +0 bytes/s$' "$tmp/out"
has "the burst stays" '^rng.limit_bytes_burst +9 bytes$' "$tmp/out"
"$monitor" limit $vm rng ops=5 2>"$tmp/err"
is "it has no other: status" 2 $?
has "and it says so" 'bytes and bytes-burst' "$tmp/err"
"$monitor" limit $vm blk0 ops=5
is "the disk has: status" 0 $?
"$monitor" kill $vm
nothing_left $vm
"$monitor" start --name=$vm --kernel="$guest" --memory=16M >"$tmp/out" 2>"$tmp/err" </dev/null
"$monitor" limit $vm rng bytes=3K 2>"$tmp/err"
is "limit of an rng that is not there: status" 1 $?
"$monitor" kill $vm
nothing_left $vm

"$monitor" limit nosuch blk0 ops=1 2>"$tmp/err"
is "limit: no such VM" 1 $?
"$monitor" limit $vm blk0 ops=many 2>"$tmp/err"
is "limit: bad number" 2 $?
"$monitor" link $vm net0 2>"$tmp/err"
is "link: words missing" 2 $?
"$monitor" link $vm net0 sideways 2>"$tmp/err"
is "link: neither up nor down" 2 $?
nothing_left $vm
ok "nothing left behind" $?
done_testing
