#!/bin/sh
# Device processes that are slow, die or talk nonsense, under the real monitor and vcpu.
. "$(dirname "$0")/../e2e/lib.sh"
vm=${prefix}d
flat=${HVX_FLAT:-$PWD/tests/guest/flat/virtio_proto.flat}
fake=${HVX_FAKE:-$PWD/tests/device/hvx-blk}
mkdir "$tmp/bin"
for program in hvx-monitor hvx-memsvc hvx-vcpu; do
	cp "$(dirname "$monitor")/$program" "$tmp/bin" || exit 99
done
cp "$fake" "$tmp/bin/hvx-blk" || exit 99
monitor=$tmp/bin/hvx-monitor

# Part $1 of the guest: its status in $status, its console in out, the monitor's words in err.
boot() {
	truncate -s 1M "$tmp/a.raw" "$tmp/b.raw"
	timeout 60 "$monitor" run --name=$vm --kernel="$flat" --memory=64M --debug-exit --append="part=$1" \
		--disk=path="$tmp/a.raw" --disk=path="$tmp/b.raw" --console=file:"$tmp/out" </dev/null 2>"$tmp/err"
	status=$?
}

# A part in which the VM goes on to its end.
where=
part() {
	: >"$tmp/out"
	boot "$1"
	is "$where$1: the guest is content" 1 $status
	has "$where$1: all of it ran" '^# [1-9][0-9]* ok, 0 not ok, 0 skipped' "$tmp/out"
	[ $status -eq 1 ] || sed 's/^/# /' "$tmp/out" "$tmp/err"
	nothing_left $vm
	ok "$where$1: nothing left" $?
}

part queues
part reset
part restart
lacks "a well-behaved device is not hung up on" 'hung up' "$tmp/err"
part config
part calls
for what in frame range config reset; do
	part "bad$what"
	is "bad$what: told once" 1 "$(grep -c 'blk0 sent a malformed message .*: hung up' "$tmp/err")"
done

: >"$tmp/out"
boot die
is "a device that ends: status" 6 $status
has "a device that ends: cause" 'blk0 died: exited with status 77' "$tmp/err"
nothing_left $vm
ok "a device that ends: nothing left" $?

boot work &
within 10 grep -q '^# at work' "$tmp/out"
kill -KILL "$(processes_of $vm hvx-blk | tail -n 1)"
wait $! 2>/dev/null
has "a device that is killed: cause" 'blk[01] died: killed by SIGKILL' "$tmp/err"
nothing_left $vm
ok "a device that is killed: nothing left" $?

# Both disks flood the monitor, and end: at most 50 lines of each in any second, and nothing but printable ASCII.
cp "${HVX_FLOOD:-$PWD/tests/device/flood}" "$tmp/bin/hvx-blk" || exit 99
began=$(date +%s)
boot work
took=$(($(date +%s) - began))
is "a flood: status" 6 $status
has "a flood: the cause is told" 'blk[01] died: exited with status' "$tmp/err"
has "a flood: so is what is missing" 'warning: [0-9]+ lines of blk0 were dropped' "$tmp/err"
n=$(wc -l <"$tmp/err")
[ "$n" -le $((102 * (took + 2) + 10)) ]
ok "a flood: $n lines in $took s" $?
is "a flood: every line is clean" 0 "$(LC_ALL=C grep -c '[^ -~]' "$tmp/err")"
has "a flood: controls are shown as what they are" 'blk[01]: \\xc2\\x9b31mX ' "$tmp/err"
"$monitor" start --name=$vm --kernel="$flat" --memory=64M --debug-exit --append="part=work" \
	--disk=path="$tmp/a.raw",on-error=pause --disk=path="$tmp/b.raw",on-error=pause --console=file:"$tmp/out" \
	>/dev/null 2>"$tmp/err" </dev/null
has_reason() { "$monitor" status $vm 2>/dev/null | grep -Eq '^state: *paused \(blk[01]: A{399}\)$'; }
within 20 has_reason
ok "the reason of a pause is told at full length" $?
"$monitor" kill $vm
nothing_left $vm
ok "and the VM can be ended" $?
cp "$fake" "$tmp/bin/hvx-blk" || exit 99

# Where pipes do not signal the main thread takes the calls.
where="without signals: "
mv "$tmp/bin/hvx-vcpu" "$tmp/bin/hvx-vcpu.real"
cp "${HVX_NOSIGIO:-$PWD/tests/device/nosigio}" "$tmp/bin/hvx-vcpu" || exit 99
part queues
part reset
part restart
part config
part calls
part badframe
: >"$tmp/out"
boot die
is "${where}a device that ends: status" 6 $status
nothing_left $vm
ok "${where}a device that ends: nothing left" $?
done_testing
