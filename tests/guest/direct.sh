#!/bin/sh
# Ring 3 run as it is (--direct): tests/guest/ring3.c, which tries all that a program can, prints the same in each mode, and what a
# hostile one prints is no different; a guest that is being run in stubs does go through them.
#
# usage: direct.sh [MODE...]     default: always auto
# HVX_MONITOR names the hvx-monitor to use (default: that of the build tree it is called from).
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

[ $# -gt 0 ] || set -- always auto
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
kernel=$(flock "$HVX_CACHE/.lock" sh "$guestdir/fetch-kernel.sh" cloud)

mkdir -p "$tmp/root/proc" "$tmp/root/dev" "$tmp/root/sys"
${CC:-gcc} -O1 -mno-red-zone -mavx2 -static -o "$tmp/root/ring3" "$guestdir/ring3.c"
cp "$(command -v busybox)" "$tmp/root/busybox"
cat >"$tmp/root/init" <<'END'
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
echo 0 >/proc/sys/kernel/randomize_va_space
echo 0 >/proc/sys/debug/exception-trace
echo MARK ready
read -r line
echo MARK begin
/busybox timeout -s KILL 200 /ring3
echo MARK end
# stays until it is asked how it was run
read -r line
/busybox poweroff -f
END
chmod +x "$tmp/root/init"
(cd "$tmp/root" && find . | cpio -o -H newc -R 0:0 2>/dev/null) >"$tmp/initrd"

stubs() { "$monitor" status "$name" 2>/dev/null | sed -n 's/^process:  stub[0-9] pid \([0-9]*\):.*/\1/p'; }

wait_for() { while ! grep -q "^MARK $1" "$tmp/$2.log" && kill -0 $! 2>/dev/null; do sleep 0.3; done; }
answer() { (trap "" PIPE && echo >&3) 2>/dev/null || true; } # it may have ended

# run_in MODE [COMMAND]: what the program prints, in $tmp/MODE; the counters, in $tmp/MODE.stats; COMMAND, while the guest sleeps
run_in() {
	name=direct-$$-$1
	mkfifo "$tmp/$1.in"
	timeout -k 10 400 "$monitor" run --name="$name" --kernel="$kernel" --initrd="$tmp/initrd" --memory=256M --direct="$1" \
		--append="console=ttyS0 panic=-1 quiet vsyscall=emulate" --no-reboot <"$tmp/$1.in" >"$tmp/$1.log" 2>&1 &
	exec 3>"$tmp/$1.in"
	wait_for ready "$1"
	[ $# = 1 ] || $2
	answer
	wait_for end "$1"
	"$monitor" stats "$name" >"$tmp/$1.stats" 2>&1 || true
	"$monitor" status "$name" >"$tmp/$1.status" 2>&1 || true
	answer
	exec 3>&-
	status=0
	wait $! || status=$?
	tr -d '\r' <"$tmp/$1.log" | sed -n '/^MARK begin/,/^MARK end/p' | grep -v "^$name" >"$tmp/$1"
}

number=0 failed=0
# ok STATUS TEXT
ok() {
	number=$((number + 1))
	[ "$1" = 0 ] && echo "ok $number - $2" && return
	failed=$((failed + 1))
	echo "not ok $number - $2"
}
counter() { awk -v n="$1" '$1 == n { print $2 }' "$2"; }

run_in never
grep -q '^ring3: end' "$tmp/never" && [ $status = 0 ]
ok $? "translated, the program comes to its end"
[ "$(counter direct_runs "$tmp/never.stats")" = 0 ]
ok $? "and no stub had a part in it"
for mode; do
	rm -f "$tmp/$mode.in"
	run_in "$mode"
	[ $status = 0 ]
	ok $? "$mode: the guest powers off"
	diff "$tmp/never" "$tmp/$mode" >"$tmp/diff" && same=0 || same=$?
	ok $same "$mode: every line is the same"
	[ $same = 0 ] || sed 's/^/  # /' "$tmp/diff" | head -n 40
	[ "$(counter direct_runs "$tmp/$mode.stats" || echo 0)" -gt 0 ] 2>/dev/null
	ok $? "$mode: run in stubs $(counter direct_runs "$tmp/$mode.stats") times, $(counter direct_maps "$tmp/$mode.stats") pages, $(counter direct_faults "$tmp/$mode.stats") faults"
	[ "$(grep -c '^process:  stub.*seccomp=filter(3) no-new-privs=yes caps=none uid=[1-9]' "$tmp/$mode.status")" = 4 ]
	ok $? "$mode: four stubs are sealed, and live"
done
# No guest program is in one of them, so nothing of it is lost.
kill_stubs() {
	# shellcheck disable=SC2046
	kill -KILL $(stubs)
}
rm -f "$tmp/always.in"
run_in always kill_stubs
[ $status = 0 ] && grep -q 'stub[0-3] died: killed by SIGKILL' "$tmp/always.log"
ok $? "all stubs killed: said, and the guest powers off"
cmp -s "$tmp/never" "$tmp/always" && [ "$(counter direct_refused "$tmp/always.stats")" -gt 0 ]
ok $? "all stubs killed: every line is the same, translated"
echo "1..$number"
[ $failed = 0 ]
