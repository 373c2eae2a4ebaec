#!/bin/sh
# Each process killed at random moments: the cause is told, the rest ends, nothing is left.
# HVX_ROUNDS: rounds a process (default 6).
. "$(dirname "$0")/lib.sh"
rounds=${HVX_ROUNDS:-6}
vm=${prefix}k

random() { # below $1
	echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

monitor_pid() {
	cat "$tmp/pid" 2>/dev/null
}

find_pid() { # of program $1, even before the VM answers
	if [ "$1" = hvx-monitor ]; then
		pid=$(monitor_pid)
	else
		pid=$(processes_of $vm "$1" | head -n 1)
	fi
	[ -n "$pid" ]
}

kill_one() { # PROGRAM: waits for it and kills it after a random time
	within 5 find_pid "$1" || return 1
	sleep "0.$(printf %03d "$(random 250)")"
	kill -KILL "$pid"
}

clean() {
	[ -z "$(processes_of $vm)" ]
}

for program in hvx-vcpu hvx-memsvc hvx-monitor; do
	bad=0 statuses=
	for round in $(seq "$rounds"); do
		rm -f "$tmp/pid"
		"$monitor" run --name=$vm --kernel="$guest" --memory=64M --pidfile="$tmp/pid" \
			--rng --balloon --watchdog=reset --virtio-console=file:"$tmp/second" </dev/null \
			>"$tmp/out" 2>"$tmp/err" &
		kill_one $program || bad=$((bad + 1))
		wait $! 2>/dev/null
		status=$?
		statuses="$statuses $status"
		within 5 clean || { bad=$((bad + 1)); echo "# left: $(processes_of $vm)"; }
		if [ $program != hvx-monitor ]; then
			[ $status = 6 ] || bad=$((bad + 1))
			grep -q "${program#hvx-} died: killed by SIGKILL" "$tmp/err" || bad=$((bad + 1))
			nothing_left $vm || bad=$((bad + 1))
			[ ! -e "$tmp/pid" ] || bad=$((bad + 1))
		fi
	done
	is "$program killed $rounds times (statuses:$statuses)" 0 $bad
done
"$monitor" list >"$tmp/out"
lacks "leftovers of a killed monitor are not listed" "$vm" "$tmp/out"
timeout 30 "$monitor" run --name=$vm --kernel="$tmp/none" >/dev/null 2>&1 </dev/null
{ sleep 1; printf p; sleep 1; } | timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M >"$tmp/out" 2>&1
is "the name can be used again" 0 $?
nothing_left $vm
ok "nothing left behind" $?

# A child that stops answering does not hold up the end.
"$monitor" start --name=$vm --kernel="$guest" --memory=16M >/dev/null 2>&1 </dev/null
kill -STOP "$(pid_of $vm vcpu)"
timeout 20 "$monitor" kill $vm
is "a stopped vcpu is ended too" 0 $?
nothing_left $vm
ok "nothing left behind" $?
done_testing
