#!/bin/sh
# A merge group whose members, and whose hvx-memsvc, are killed at random moments, while others join: who was not killed goes
# on, or ends and says why; nothing is left.  HVX_ROUNDS: rounds a part (default 6).
. "$(dirname "$0")/lib.sh"
rounds=${HVX_ROUNDS:-6}
vm=${prefix}g
group=${prefix}group

random() { # below $1
	echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

pause() { sleep "0.$(printf %03d "$(random 400)")"; }

start() { # MEMBER
	"$monitor" start --name="$vm$1" --kernel="$guest" --memory=32M --merge=$group --merge-rate=60 \
		--log="$tmp/$1.log" --pidfile="$tmp/$1.pid" </dev/null >/dev/null 2>"$tmp/$1.err"
}

member_list() { "$monitor" groups 2>/dev/null | sed -n "s/^$group .*memsvc pid [0-9]*: //p" | tr -d ,; }
keeper() { "$monitor" groups 2>/dev/null | sed -n "s/^$group .*memsvc pid \([0-9]*\):.*/\1/p"; }
members_are() { [ "$(member_list)" = "$*" ]; }
gone() { [ -z "$(processes_of "$1")" ]; }
runs() { "$monitor" status "$1" 2>/dev/null | grep -q '^state: *running'; }

find_pid() { # PROGRAM MEMBER, even before the VM answers
	if [ "$1" = hvx-monitor ]; then
		victim=$(cat "$tmp/$2.pid" 2>/dev/null)
	else
		victim=$(processes_of "$vm$2" "$1" | head -n 1)
	fi
	[ -n "$victim" ]
}

kill_some() { # PROGRAM MEMBER: waits for it and kills it after a random time
	within 10 find_pid "$1" "$2" || return 1
	pause
	kill -KILL "$victim"
}

start a && start b
ok "two VMs of a group" $?
for program in hvx-vcpu hvx-monitor; do
	bad=0
	for round in $(seq "$rounds"); do
		rm -f "$tmp/c.pid"
		start c &
		kill_some $program c || bad=$((bad + 1))
		wait $! 2>/dev/null
		within 10 gone "${vm}c" || { bad=$((bad + 1)) && echo "# left: $(processes_of "${vm}c")"; }
		within 10 members_are "${vm}a" "${vm}b" || { bad=$((bad + 1)) && echo "# members: $(member_list)"; }
		runs "${vm}a" && runs "${vm}b" || bad=$((bad + 1))
	done
	is "a member whose $program is killed $rounds times: the others go on" 0 $bad
done
"$monitor" stop "${vm}a" >/dev/null && "$monitor" stop "${vm}b" >/dev/null
is "and can be ended in order" 0 $?
within 10 gone "${vm}a" && within 10 gone "${vm}b"
within 10 members_are
ok "with the last of them the group is gone" $?

bad=0 died=0
for round in $(seq "$rounds"); do
	start a && start b || bad=$((bad + 1))
	killed=$(keeper)
	start c &
	pause
	kill -KILL "$killed" || bad=$((bad + 1))
	wait $! 2>/dev/null
	for m in a b; do
		within 20 gone "$vm$m" || { bad=$((bad + 1)) && echo "# $m goes on"; }
		grep -q "merge group $group: its hvx-memsvc died: killed by SIGKILL" "$tmp/$m.log" &&
			died=$((died + 1)) || sed 's/^/# /' "$tmp/$m.log"
	done
	# the third was a member already, was refused, or is the first of the next group
	runs "${vm}c" && "$monitor" kill "${vm}c" >/dev/null 2>&1
	within 20 gone "${vm}c" || { bad=$((bad + 1)) && echo "# left: $(processes_of "${vm}c")"; }
	within 20 members_are || { bad=$((bad + 1)) && echo "# the group is left: $(member_list)"; }
done
is "hvx-memsvc killed $rounds times: all end" 0 $bad
is "and each says why" $((2 * rounds)) $died
for m in a b c; do
	nothing_left "$vm$m"
	ok "nothing left of $m" $?
done
done_testing
