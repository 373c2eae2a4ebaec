#!/bin/sh
# A guest that hangs with interrupts off, and the watchdog it has started before.
. "$(dirname "$0")/lib.sh"
vm=${prefix}w

hang() { # ACTION OPTIONS...: the guest's letters are those on stdin
	action=$1
	shift
	timeout 30 "$monitor" run --name=$vm --kernel="$guest" --memory=16M --watchdog=$action "$@" >"$tmp/out" 2>"$tmp/err"
}

{ sleep 1; printf w; sleep 2; printf p; sleep 1; } | hang reset --cpus=4
is "reset: the guest starts again and powers off" 0 $?
is "reset: it started twice" 2 "$(grep -c ready "$tmp/out")"
has "reset: said" 'the watchdog has run out: the VM restarts' "$tmp/err"

{ sleep 1; printf w; sleep 2; } | hang reset --no-reboot
is "reset with --no-reboot ends" 0 $?
is "reset with --no-reboot: it started once" 1 "$(grep -c ready "$tmp/out")"

{ sleep 1; printf w; sleep 2; } | hang poweroff
is "poweroff ends" 0 $?
has "poweroff: said" 'the watchdog has run out: the VM ends' "$tmp/err"

said() {
	grep -q 'nothing is done' "$tmp/err"
}
{ sleep 1; printf w; sleep 3; } | hang none &
within 10 said
ok "none: said" $?
"$monitor" status $vm >"$tmp/status"
has "none: the VM runs on" '^state: +running' "$tmp/status"
"$monitor" kill $vm
wait

paused() {
	"$monitor" status $vm 2>/dev/null | grep -q '^state: *paused (watchdog)'
}
{ sleep 1; printf w; sleep 4; } | hang pause --cpus=3 &
within 10 paused
ok "pause: status says why" $?
"$monitor" resume $vm
is "pause: resume" 0 $?
"$monitor" status $vm >"$tmp/status"
has "pause: the VM runs on" '^state: +running' "$tmp/status"
is "pause: it ran out once" 1 "$("$monitor" stats $vm | awk '$1 == "watchdog.timeouts" { print $2 }')"
"$monitor" kill $vm
wait
nothing_left $vm || within 3 nothing_left $vm
ok "nothing left behind" $?
done_testing
