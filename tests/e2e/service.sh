#!/bin/sh
# As a service: what the manager hears, its watchdog, and the units.
. "$(dirname "$0")/lib.sh"
vm=${prefix}s
command -v python3 >/dev/null || skip_all "no python3"

# A manager: listens at $1, writes each datagram as a line.
cat >"$tmp/manager.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\0" + sys.argv[1][1:] if sys.argv[1][0] == "@" else sys.argv[1])
print("listening", flush=True)
while True:
    print(s.recv(4096).decode().replace("\n", " "), flush=True)
END
manager() { # SOCKET
	: >"$tmp/heard" # before anybody looks: the last manager's is not this one's
	python3 "$tmp/manager.py" "$1" >"$tmp/heard" &
	manager_pid=$!
	within 20 grep -q listening "$tmp/heard"
}
service() { # SOCKET ENVIRONMENT...
	socket=$1
	shift
	env NOTIFY_SOCKET="$socket" "$@" "$monitor" run --name=$vm --kernel="$guest" --memory=16M </dev/null >"$tmp/out" 2>"$tmp/err" &
	service_pid=$!
}

for socket in "$tmp/notify" "@hvx-e2e-$$"; do
	manager "$socket"
	service "$socket"
	within 60 grep -q 'READY=1 STATUS=the guest runs' "$tmp/heard"
	ok "ready, by ${socket%%[a-z]*}..." $?
	"$monitor" pause $vm
	"$monitor" resume $vm
	within 20 grep -q 'STATUS=paused' "$tmp/heard"
	ok "paused" $?
	"$monitor" stop --timeout=60 $vm
	is "stop: status" 0 $?
	wait $service_pid
	is "the service's status" 0 $?
	within 20 grep -q 'STOPPING=1' "$tmp/heard"
	ok "stopping" $?
	lacks "no watchdog that was not asked for" WATCHDOG "$tmp/heard"
	lacks "the console is not on standard output" ready "$tmp/out"
	kill $manager_pid
	wait $manager_pid 2>/dev/null
done

# Fed while the vcpu answers; a stopped one starves it.
manager "$tmp/dog"
service "$tmp/dog" WATCHDOG_USEC=600000
within 60 grep -q 'WATCHDOG=1' "$tmp/heard"
ok "the watchdog is fed" $?
within 60 grep -q 'READY=1' "$tmp/heard"
vcpu=$(pid_of $vm vcpu)
kill -STOP "$vcpu"
sleep 2
n=$(grep -c WATCHDOG "$tmp/heard")
sleep 1.5
is "not while the vcpu's process is stopped" "$n" "$(grep -c WATCHDOG "$tmp/heard")"
kill -CONT "$vcpu"
within 60 sh -c '[ $(grep -c WATCHDOG "$1") -gt $2 ]' sh "$tmp/heard" "$n"
ok "and again when it goes on" $?
"$monitor" kill $vm 2>/dev/null
wait $service_pid
kill $manager_pid
wait $manager_pid 2>/dev/null
service "$tmp/dog" WATCHDOG_USEC=600000
within 60 sh -c "'$monitor' list | grep -q '^$vm .*running'"
ok "a manager that is gone: it runs all the same" $?
"$monitor" kill $vm 2>/dev/null
wait $service_pid
service "tcp:80"
wait $service_pid
is "what is no socket's name: status" 3 $?
nothing_left $vm
ok "nothing left behind" $?

# ---- units ----
top=$(cd "$here/../.." && pwd)
if command -v systemd-analyze >/dev/null; then
	mkdir "$tmp/units"
	for u in system/hvx@.service system/hvx-metrics@.service system/hvx-metrics.socket system/hvx-metrics-file.service \
		system/hvx-metrics-file.timer user/hvx@.service; do
		d=$tmp/units/${u%/*}
		mkdir -p "$d"
		sed "s,[@]bindir@,$(dirname "$monitor"),g" "$top/dist/$u.in" >"$d/${u#*/}"
	done
	for u in "$tmp"/units/system/*; do
		n=${u##*/}
		case $n in *@.*) n=${n%@.*}@web.${n##*.} ;; esac
		systemd-analyze verify --man=no "${u%/*}/$n" >"$tmp/verify" 2>&1
		is "systemd-analyze verify ${u##*/}: status" 0 $?
		is "and no word" "" "$(cat "$tmp/verify")"
	done
	XDG_RUNTIME_DIR=$tmp systemd-analyze verify --user --man=no "$tmp/units/user/hvx@web.service" >"$tmp/verify" 2>&1
	is "the user's unit" "" "$(cat "$tmp/verify")"
else
	echo "# no systemd-analyze here"
fi
done_testing
