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
printf 'QFI\373\0\0\0\003\0\0\0\0\0\0\002\0' >"$tmp/backed"
truncate -s 1M "$tmp/cow.raw" "$tmp/backed"

try "no file" 3 'none.raw: No such file' --disk=path="$tmp/none.raw"
try "a directory" 3 'directory|neither a file' --disk=path="$tmp",format=raw
try "nobody says it is raw" 3 'say format=raw' --disk=path="$tmp/plain"
try "raw by name, qcow2 by content" 3 'begins like qcow2' --disk=path="$tmp/cow.raw"
try "another format than said" 3 'does not begin like' --disk=path="$tmp/a.raw",format=vdi
try "a backing file" 3 'backing file' --disk=path="$tmp/backed"
try "the same image twice" 3 'in use by .*process' --disk=path="$tmp/a.raw" --disk=path="$tmp/a.raw"
try "written and read" 3 'in use by .*process' --disk=path="$tmp/a.raw",readonly --disk=path="$tmp/a.raw"
try "no path" 2 'needs path' --disk=readonly
try "unknown key" 2 "unknown option: 'colour'" --disk=path="$tmp/a.raw",colour=red
try "one id for two" 2 'two devices with this id' --disk=path="$tmp/a.raw",id=x --net=user,id=x
try "two back ends" 2 'one of user' --net=user,tap=tap0
try "a bad forward" 2 'forward is tcp' --net=user,forward=tcp:22
try "no switch" 4 'switch .*: (No such file|no hvx-switch)' --net=switch="$tmp/none"
is "the images are as they were" "1048576 1048576" "$(stat -c %s "$tmp/a.raw") $(stat -c %s "$tmp/plain")"

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
is "each has its counters" 24 "$(grep -c '\.limit_bytes_burst .*1073741824$' "$tmp/out")"
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
has "and it holds" '^rng.limit_bytes +3072$' "$tmp/out"
has "what was not named stays" '^rng.limit_bytes_burst +0$' "$tmp/out"
"$monitor" limit $vm rng bytes=4K bytes-burst=9 && "$monitor" limit $vm rng bytes=none
"$monitor" stats $vm >"$tmp/out"
has "none is none" '^rng.limit_bytes +0$' "$tmp/out"
has "the burst stays" '^rng.limit_bytes_burst +9$' "$tmp/out"
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
