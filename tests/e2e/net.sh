#!/bin/sh
# Network cards of a running VM: their processes, the switch, passt's end, link and limit.
. "$(dirname "$0")/lib.sh"
vm=${prefix}n
lan=$tmp/lan
switch=${HVX_SWITCH:-$(dirname "$monitor")/hvx-switch}

start() { # VM OPTIONS...
	start_vm=$1
	shift
	"$monitor" start --name="$start_vm" --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
}
pid_in() { # VM PROCESS: any name
	"$monitor" status "$1" 2>/dev/null | sed -n "s/^process:  $2 pid \([0-9]*\):.*/\1/p"
}
stat_is() { # VM COUNTER VALUE
	[ "$("$monitor" stats "$1" | awk -v c="$2" '$1 == c { print $2 }')" = "$3" ]
}

# ---- the switch ----
"$switch" --strict "$lan" >/dev/null 2>"$tmp/switch.err" &
switch_pid=$!
within 10 test -S "$lan"
ok "the switch listens" $?
is "its socket is private" 600 "$(stat -c %a "$lan")"
"$switch" "$lan" 2>"$tmp/err"
is "a second switch at the place: status" 3 $?
has "and it says why" 'already' "$tmp/err"
"$switch" 2>"$tmp/err"
is "no socket: status" 2 $?
"$switch" --ageing=0 "$lan" 2>"$tmp/err"
is "bad ageing: status" 2 $?
"$switch" "$tmp/no/where" 2>"$tmp/err"
is "no such directory: status" 3 $?
start $vm --net=switch="$lan",mac=52:54:00:00:00:01
is "a VM joins: status" 0 $?
start ${vm}2 --net=switch="$lan",mac=52:54:00:00:00:01
is "another with the same mac: status" 4 $?
has "and it says why" 'another port has this mac' "$tmp/err"
start ${vm}2 --net=switch="$lan"
is "another with its own: status" 0 $?

pid=$(pid_in $vm net0)
[ -n "$pid" ]
ok "hvx-net runs" $?
for fd in "/proc/$pid/fd/"*; do
	readlink "$fd"
done | grep -Ev '^(/dev/null|pipe:|socket:|anon_inode:\[event(poll|fd)\])' >"$tmp/beyond"
is "hvx-net: no descriptor beyond the list" "" "$(cat "$tmp/beyond")"
is "hvx-net: its root is empty" "" "$(ls -A "/proc/$pid/root/")"
is "hvx-net: no interface but a loopback that is down" "lo" "$(sed -n '3,$s/ *\([^:]*\):.*/\1/p' "/proc/$pid/net/dev")"
for task in "/proc/$pid/task/"*; do
	sed -n 's/^Seccomp:[[:space:]]*//p;s/^Seccomp_filters:[[:space:]]*//p' "$task/status" | tr '\n' ' '
done >"$tmp/seccomp"
is "hvx-net: both filters" "" "$(sed 's/2 2 //g' "$tmp/seccomp")"
worker=$(cat "/proc/$switch_pid/task/$switch_pid/children")
worker=${worker% }
is "the switch: its root is empty" "" "$(ls -A "/proc/$worker/root/")"
has "the switch: filters and no privileges" '^NoNewPrivs:[[:space:]]*1' "/proc/$worker/status"
has "the switch: sealed" '^Seccomp:[[:space:]]*2' "/proc/$worker/status"

stat_is $vm net0.link 1
ok "the link is up" $?
"$monitor" link $vm net0 down
is "link down: status" 0 $?
within 5 stat_is $vm net0.link 0
ok "the cable is pulled" $?
"$monitor" link $vm net0 up
within 5 stat_is $vm net0.link 1
ok "and put back" $?
"$monitor" limit $vm net0 packets=10 bytes=1M
is "limit: status" 0 $?
"$monitor" link $vm net1 up 2>"$tmp/err"
is "link: no such card" 1 $?

kill -USR1 $switch_pid
within 5 grep -q 'port 1: .* sent 0' "$tmp/switch.err"
ok "the switch reports" $?
kill $switch_pid
wait $switch_pid
is "the switch ends: status" 0 $?
[ ! -e "$lan" ]
ok "and its socket has gone" $?
within 5 stat_is $vm net0.link 0
ok "the guest's cable is pulled" $?
"$monitor" link $vm net0 up
sleep 0.2
stat_is $vm net0.link 0
ok "and cannot be put back" $?
"$monitor" list >"$tmp/list"
has "the VM runs on" "^$vm +running" "$tmp/list"
kill -9 "$(pid_in $vm net0)"
within 5 nothing_left $vm
ok "when hvx-net is killed the VM ends" $?
"$monitor" kill ${vm}2

# ---- passt ----
if [ -x /usr/bin/passt ]; then
	"$monitor" run --name=$vm --kernel="$guest" --memory=16M --net=user,forward=tcp:127.0.0.1:0 \
		</dev/null >"$tmp/out" 2>"$tmp/err"
	is "user: a bad forward: status" 2 $?
	"$monitor" run --name=$vm --kernel="$guest" --memory=16M --net=user,mtu=9000 </dev/null >"$tmp/out" 2>"$tmp/err" &
	within 10 grep -sq ready "$tmp/out"
	ok "user: the VM runs" $?
	passt=$("$monitor" status $vm | sed -n 's/^process:  passt pid \([0-9]*\):.*/\1/p')
	kill "$passt"
	within 5 stat_is $vm net0.link 0
	ok "user: passt dies, the cable is pulled" $?
	has "and the monitor says so" 'net0: link lost: passt has ended' "$tmp/err"
	"$monitor" link $vm net0 up 2>"$tmp/err"
	is "user: link up after that: status" 1 $?
	has "and it says why not" 'net0: the link stays down: passt ' "$tmp/err"
	"$monitor" kill $vm
	wait

	# ---- forwards: all of them, or no VM ----
	port=$((20000 + $$ % 20000))
	listeners() { # of TCP, at 127.0.0.1, from $port to $port + 4
		for i in 0 1 2 3 4; do
			printf '0100007F:%04X 00000000:0000 0A\n' $((port + i))
		done >"$tmp/ports"
		grep -cFf "$tmp/ports" /proc/net/tcp
	}
	start $vm --net=user,forward=tcp:localhost:$port-$((port + 4)):80,forward=udp:127.0.0.1:$port:53
	is "forwards: status" 0 $?
	is "a range: all its ports are there" 5 "$(listeners)"
	stat_is $vm net0.link 1
	ok "the link is up" $?
	refused() { # NAME STATUS PATTERN OPTIONS
		refused_name=$1 refused_status=$2 refused_pattern=$3
		shift 3
		start ${vm}2 "$@"
		is "$refused_name: status" "$refused_status" $?
		has "$refused_name: says why" "$refused_pattern" "$tmp/err"
		is "$refused_name: in one line" 1 "$(wc -l <"$tmp/err")"
		nothing_left ${vm}2
		ok "$refused_name: nothing left" $?
	}
	refused "a port that is taken" 3 "net0: forward: tcp port $port of 127.0.0.1: taken" \
		--net=user,forward=tcp:127.0.0.1:$port:22
	refused "one of a range" 3 "tcp port $((port + 4)): taken" --net=user,forward=tcp::$((port + 4))-$((port + 6)):22
	refused "of every address" 3 "udp port $port: taken" --net=user,forward=udp::$port:22
	refused "a UDP port that another VM has" 3 "udp port $port of 127.0.0.1: taken" \
		--net=user,forward=udp:127.0.0.1:$port:22
	refused "an address of another host" 3 "tcp port $port of 192.0.2.77: " --net=user,forward=tcp:192.0.2.77:$port:22
	refused "one port twice" 2 'forwarded twice' \
		--net=user,forward=tcp:127.0.0.1:$((port + 5)):22,forward=tcp:127.0.0.1:$((port + 5)):23
	refused "one port on two cards" 2 'another card forwards' \
		--net=user,forward=tcp:127.0.0.1:$((port + 5)):22 --net=user,forward=tcp::$((port + 5)):22
	refused "no port" 2 "no port, .*: '70000'" --net=user,forward=tcp:127.0.0.1:70000:22
	stat_is $vm net0.link 1
	ok "the VM that has them was not disturbed" $?
	"$monitor" kill $vm
	nothing_left $vm
	start $vm --net=user,forward=udp:127.0.0.1:$port:22,forward=tcp:127.0.0.1:$port:22
	is "they are free when it has ended: status" 0 $?
	"$monitor" kill $vm

	# passt finds no network: it dies after the ports were found free, and no VM runs.
	if unshare -n true 2>/dev/null; then
		unshare -n "$monitor" start --name=${vm}2 --kernel="$guest" --memory=16M --net=user >"$tmp/out" 2>"$tmp/err" \
			</dev/null
		is "passt cannot serve: status" 4 $?
		has "passt cannot serve: says why" 'net0: passt: .*[Ii]nterface' "$tmp/err"
		is "passt cannot serve: in one line" 1 "$(wc -l <"$tmp/err")"
		nothing_left ${vm}2
		ok "passt cannot serve: nothing left" $?
	fi
fi
nothing_left $vm && nothing_left ${vm}2
ok "nothing left behind" $?
done_testing
