#!/bin/sh
# The lives of VMs: foreground and background, console, restart, stop, kill, statuses.
. "$(dirname "$0")/lib.sh"
vm=${prefix}v

# ---- run, with pipes ----
seen_ready() { # at least $1 times
	[ "$(grep -sc ready "$tmp/out")" -ge "$1" ]
}
run() { # "INPUT INPUT..." OPTIONS...: one after the other; output in $tmp/out, messages in $tmp/err
	run_input=$1
	shift
	: >"$tmp/out"
	run_n=0
	for run_word in $run_input; do
		run_n=$((run_n + 1))
		within 10 seen_ready $run_n || [ $run_n -gt 1 ]
		sleep 0.2
		printf %s "$run_word"
	done | timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err"
}
run "abcp"
is "power-off: status" 0 $?
has "the console works both ways" '^abc' "$tmp/out"
run "r p"
is "restart, then power-off: status" 0 $?
is "the guest started twice" 2 "$(grep -c ready "$tmp/out")"
run "r" --no-reboot
is "restart with --no-reboot ends: status" 0 $?
is "the guest started once" 1 "$(grep -c ready "$tmp/out")"
run "t p"
is "triple fault restarts" 2 "$(grep -c ready "$tmp/out")"
run "t" --no-reboot
is "triple fault with --no-reboot: status" 5 $?
has "and it is said" 'triple fault' "$tmp/err"
run "t t t t t p"
is "a guest that only crashes: status" 5 $?
is "five starts, no more" 5 "$(grep -c ready "$tmp/out")"
has "and it is said" '5 triple faults in a row' "$tmp/err"
run "t t t t r t p"
is "a restart between the crashes: it goes on" 7 "$(grep -c ready "$tmp/out")"
run "x" --debug-exit
is "debug exit 5: status" 11 $?
timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M <"$here/lib.sh" >"$tmp/out" 2>"$tmp/err"
has "stdin may be a file" '^ready' "$tmp/out"
nothing_left $vm
ok "nothing left behind" $?

# End of file on stdin leaves the guest running.
rm -f "$tmp/out"
timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M </dev/null >"$tmp/out" 2>"$tmp/err" &
within 10 grep -sq ready "$tmp/out"
ok "runs with stdin at its end" $?
sleep 0.3
"$monitor" list >"$tmp/list"
has "and goes on" "^$vm +running" "$tmp/list"
"$monitor" stop $vm
is "stop: status" 0 $?
wait $!
is "the stopped VM's status" 0 $?
has "the guest saw the button" button "$tmp/out"

# Signals end it in order.
for sig in TERM INT HUP; do
	rm -f "$tmp/out"
	"$monitor" run --name=$vm --kernel="$guest" --memory=16M --pidfile="$tmp/pid" </dev/null >"$tmp/out" 2>"$tmp/err" &
	within 10 grep -sq ready "$tmp/out"
	kill -$sig "$(cat "$tmp/pid")"
	wait $!
	is "SIG$sig: status" 8 $?
	nothing_left $vm && [ ! -e "$tmp/pid" ]
	ok "SIG$sig: nothing left behind" $?
done

# ---- start ----
"$monitor" start --name=$vm --kernel="$guest" --memory=16M --cpus=6,sockets=3 --pidfile="$tmp/pid" >"$tmp/out" 2>"$tmp/err" </dev/null
is "start: status" 0 $?
is "start names the VM" $vm "$(cat "$tmp/out")"
has "start names the pty" 'console on pty /dev/pts/' "$tmp/err"
is "pidfile" "$(pid_of $vm monitor)" "$(cat "$tmp/pid")"
"$monitor" run --name=$vm --kernel="$guest" >"$tmp/out" 2>&1 </dev/null
is "the same name again: status" 3 $?
has "the same name again: says so" 'already running' "$tmp/out"
"$monitor" status $vm >"$tmp/out"
has "status: state" '^state: +running' "$tmp/out"
has "status: memory" '^memory: +16M' "$tmp/out"
has "status: CPUs" '^cpus: +6 \(sockets 3, cores 2, threads 1\)$' "$tmp/out"
for p in memsvc vcpu; do
	has "status: $p is confined" "^process:  $p .*seccomp=filter\(2\) no-new-privs=yes caps=none .*user-ns=own mnt-ns=own pid-ns=own net-ns=own ipc-ns=own uts-ns=own root=empty,read-only" "$tmp/out"
done
has "status: the monitor can start and open nothing any more" '^process:  monitor .*seccomp=filter\([0-9]*\) no-new-privs=yes' "$tmp/out"
"$monitor" stats $vm >"$tmp/out"
has "stats: engine" '^blocks +[1-9][0-9]* count$' "$tmp/out"
has "stats: memory" '^ram_pages +4096 pages$' "$tmp/out"
has "stats: bytes" '^ram_host_bytes +[0-9]+ bytes$' "$tmp/out"
has "stats: of each CPU" '^cpu5\.kicks +[0-9]+ count$' "$tmp/out"
is "stats: every line has its unit" "" "$(grep -Ev '^[a-z0-9_.]+ +[0-9]+ (count|pages|bytes)$' "$tmp/out")"
if command -v python3 >/dev/null; then
	"$monitor" stats $vm --json | python3 -c 'import json,sys; d = json.load(sys.stdin); assert d["ram_pages"] == 4096 and len(d["cpus"]) == 6 and sum(c["cr3_loads"] for c in d["cpus"]) == d["cr3_loads"]'
	ok "stats --json is JSON" $?
	"$monitor" status --json $vm >"$tmp/out"
	python3 -m json.tool "$tmp/out" >/dev/null && python3 - "$tmp/out" $vm <<-'PY'
		import json, sys
		s = json.load(open(sys.argv[1]))
		assert s["name"] == sys.argv[2] and s["state"] == "running" and s["reason"] is None and s["boots"] == 1, s
		assert s["memory_bytes"] == 16 << 20 and (s["cpus"], s["sockets"], s["cores"], s["threads"]) == (6, 3, 2, 1) and s["second_console"] is None, s
		p = {p["name"]: p for p in s["processes"]}
		assert set(p) == {"monitor", "memsvc", "vcpu"} and all(x["pid"] > 0 and x["answers"] is True for x in p.values()), p
		assert "seccomp" in p["vcpu"]["layers"] or "seccomp" in p["vcpu"]["missing"], p
		assert p["vcpu"]["confinement"].startswith("seccomp="), p
	PY
	ok "status --json says what status says" $?
	"$monitor" list --json >"$tmp/out"
	python3 -m json.tool "$tmp/out" >/dev/null && python3 - "$tmp/out" $vm <<-'PY'
		import json, sys
		mine = [v for v in json.load(open(sys.argv[1])) if v["name"] == sys.argv[2]]
		assert len(mine) == 1 and mine[0]["state"] == "running" and mine[0]["memory_bytes"] == 16 << 20, mine
	PY
	ok "list --json says what list says" $?
fi
{ sleep 0.2; printf 'abc'; sleep 0.7; } | timeout 2 "$monitor" console $vm >"$tmp/out" 2>/dev/null
has "console shows what was before" '^ready' "$tmp/out"
has "console works both ways" abc "$tmp/out"
"$monitor" pause $vm
is "pause: status" 0 $?
"$monitor" status $vm >"$tmp/out"
has "paused" '^state: +paused' "$tmp/out"
{ printf 'QUIET'; sleep 1; } | timeout 2 "$monitor" console $vm >"$tmp/out" 2>/dev/null
lacks "a paused guest does not run" QUIET "$tmp/out"
"$monitor" stop $vm >"$tmp/out" 2>&1
is "stop while paused: status" 1 $?
"$monitor" resume $vm
is "resume: status" 0 $?
timeout 2 "$monitor" console $vm </dev/null >"$tmp/out" 2>/dev/null
has "what was typed meanwhile arrives" QUIET "$tmp/out"
timeout 20 "$monitor" console $vm </dev/null >"$tmp/out" 2>/dev/null &
sleep 0.3
"$monitor" console $vm </dev/null >"$tmp/out2" 2>&1
is "a second one cannot attach: status" 1 $?
has "and is told" 'somebody else' "$tmp/out2"
"$monitor" stop $vm
is "stop: status" 0 $?
wait $!
is "an attached console ends with the VM" 0 $?
nothing_left $vm && [ ! -e "$tmp/pid" ]
ok "nothing left behind" $?

# ---- a process that does not answer ----
"$monitor" start --name=$vm --kernel="$guest" --memory=16M >/dev/null 2>&1 </dev/null
kill -STOP "$(pid_of $vm vcpu)"
"$monitor" stats $vm >"$tmp/out" 2>&1 &
stats=$!
"$monitor" pause $vm >"$tmp/out2" 2>&1
is "pause of a stopped vcpu: status" 1 $?
has "pause of a stopped vcpu: says so" "$vm: not answering: vcpu; it obeys when it runs again" "$tmp/out2"
wait $stats
is "stats of a stopped vcpu: status" 1 $?
has "stats of a stopped vcpu: says so" "$vm: not answering: vcpu\$" "$tmp/out"
"$monitor" status $vm >"$tmp/out"
has "status says so" '^state: +running, not answering: vcpu$' "$tmp/out"
has "and of which process" '^process:  vcpu pid [0-9]+: NOT ANSWERING' "$tmp/out"
lacks "and of no other" '^process:  memsvc pid [0-9]+: NOT' "$tmp/out"
kill -CONT "$(pid_of $vm vcpu)"
paused() { "$monitor" status $vm | grep -q '^state: *paused$'; }
within 20 paused
ok "it obeys when it goes on, and answers" $?
"$monitor" stats $vm >"$tmp/out" 2>&1
is "so do stats: status" 0 $?
"$monitor" kill $vm

# ---- a guest that does not listen ----
"$monitor" start --name=$vm --kernel="$guest" --memory=16M --console=file:"$tmp/con" >/dev/null 2>&1 </dev/null
{ printf d; sleep 0.5; } | timeout 1 "$monitor" console $vm >/dev/null 2>&1
"$monitor" stop --timeout=1 $vm >"$tmp/out" 2>&1
is "stop of a deaf guest: status" 1 $?
has "stop of a deaf guest: says so" 'did not react to the power button within 1 seconds' "$tmp/out"
has "console file" deaf "$tmp/con"
"$monitor" kill $vm
is "kill: status" 0 $?
nothing_left $vm
ok "nothing left behind" $?

# ---- configuration file, trace ----
printf '# a test\nname = %s\nkernel = %s\nmemory = 32M\nno-reboot = yes\n' $vm "$guest" >"$tmp/conf"
{ sleep 1; printf r; sleep 1; } | timeout 30 "$monitor" run --config="$tmp/conf" --trace=pio,exec \
	--trace-file="$tmp/trace" >"$tmp/out" 2>"$tmp/err"
is "config file: status" 0 $?
is "config file: no-reboot" 1 "$(grep -c ready "$tmp/out")"
[ -s "$tmp/trace" ]
ok "the trace has lines" $?

# Without --trace-file it is a file of ours in the current directory, and nothing that only bears the name.
trace() {
	(cd "$tmp/dir" && exec timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M --trace=pio \
		</dev/null >/dev/null 2>"$tmp/err")
}
mkdir "$tmp/dir"
echo precious >"$tmp/victim"
ln -s "$tmp/victim" "$tmp/dir/hvx-$vm.trace"
trace
is "the trace's name is a symbolic link: status" 3 $?
has "the trace's name is a symbolic link: says so" "hvx-$vm.trace: a symbolic link" "$tmp/err"
rm "$tmp/dir/hvx-$vm.trace"
ln "$tmp/victim" "$tmp/dir/hvx-$vm.trace"
trace
is "the trace's name is another name of a file: status" 3 $?
is "nothing was written there" precious "$(cat "$tmp/victim")"
rm "$tmp/dir/hvx-$vm.trace"
{ within 20 [ -s "$tmp/ready" ] && printf p; } | (cd "$tmp/dir" && exec timeout 60 "$monitor" run --name=$vm \
	--kernel="$guest" --memory=16M --trace=pio,exec >"$tmp/ready" 2>"$tmp/err")
is "the trace's name is free: status" 0 $?
[ -s "$tmp/dir/hvx-$vm.trace" ]
ok "the trace has lines" $?

# ---- a console file that cannot be written for a while ----
if command -v prlimit >/dev/null; then
	limit=$((256 << 20))
	for end in again kill; do
		truncate -s $((limit - 50)) "$tmp/full"
		: >"$tmp/log"
		prlimit --fsize=$limit "$monitor" start --name=$vm --kernel="$guest" --memory=16M --console=file:"$tmp/full" \
			--log="$tmp/log" >/dev/null 2>"$tmp/err" </dev/null
		is "console file, $end: start" 0 $?
		{ printf '%0100d' 0; within 20 grep -q 'File too large' "$tmp/log"; printf THEEND; } |
			timeout 60 "$monitor" console $vm >"$tmp/out" 2>/dev/null &
		within 20 grep -q THEEND "$tmp/out"
		ok "console file, $end: the guest runs on" $?
		kill $! 2>/dev/null
		wait $!
		is "console file, $end: said once" 1 "$(grep -c 'File too large: output is kept' "$tmp/log")"
		if [ $end = again ]; then
			truncate -s 0 "$tmp/full"
			within 20 grep -q '0000THEEND' "$tmp/full"
			ok "console file: what was kept is written when it can be" $?
			within 20 grep -q 'written again, 0 bytes of output were lost' "$tmp/log"
			ok "console file: and that is said" $?
		fi
		"$monitor" kill $vm
		nothing_left $vm
		ok "console file, $end: nothing left" $?
	done
	within 20 grep -Eq 'the last [1-9][0-9]* bytes of output are lost' "$tmp/log"
	ok "console file: so is what never could be written" $?
	rm "$tmp/full"
fi

# ---- a umask that takes our own rights ----
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	mkdir "$tmp/xdg"
	chown 54321 "$tmp/xdg"
	(umask 0777; setpriv --reuid 54321 --regid 54321 --clear-groups env XDG_RUNTIME_DIR="$tmp/xdg" "$monitor" list) 2>"$tmp/err"
	is "umask 0777: status" 0 $?
	is "umask 0777: the directory can be used" 700 "$(stat -c %a "$tmp/xdg/hvx")"
	chmod 300 "$tmp/xdg/hvx"
	setpriv --reuid 54321 --regid 54321 --clear-groups env XDG_RUNTIME_DIR="$tmp/xdg" "$monitor" list 2>"$tmp/err"
	is "a runtime directory we cannot use: status" 4 $?
	has "a runtime directory we cannot use: says so" 'its mode is 300, not 700' "$tmp/err"
fi

# ---- one VM: its name need not be given ----
if [ "$("$monitor" list | wc -l)" = 0 ]; then
	"$monitor" start --name=$vm --kernel="$guest" --memory=16M >/dev/null 2>&1 </dev/null
	"$monitor" status >"$tmp/out"
	has "the only VM needs no name" "^name: +$vm" "$tmp/out"
	"$monitor" kill
	"$monitor" status >"$tmp/out" 2>&1
	is "without any VM: status" 1 $?
fi
done_testing
