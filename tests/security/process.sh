#!/bin/sh
# A running VM seen from outside: descriptors, mappings, root and limits of each
# child, and who may talk to its monitor.
. "$(dirname "$0")/../e2e/lib.sh"
vm=${prefix}s

"$monitor" start --name=$vm --kernel="$guest" --memory=16M --trace=sys --trace-file="$tmp/trace" \
	--rng --balloon --virtio-console=pty --watchdog=none >/dev/null 2>"$tmp/err" </dev/null
is "start: status" 0 $?

# What each descriptor may be.
allowed_memsvc='^(/dev/null|pipe:|socket:|anon_inode:\[event(poll|fd)\]|/memfd:hvx-(ram|control) )'
allowed_vcpu="$allowed_memsvc|^/memfd:[a-z-]*code|^$(readlink -f "$guest")\$|^$(readlink -f "$tmp")/trace\$"
for name in memsvc vcpu; do
	pid=$(pid_of $vm $name)
	[ -n "$pid" ]
	ok "$name runs" $?
	for fd in "/proc/$pid/fd/"*; do
		echo "$(basename "$fd") $(readlink "$fd")"
	done >"$tmp/fds"
	eval "pattern=\$allowed_$name"
	cut -d' ' -f2- "$tmp/fds" | grep -Ev "$pattern" >"$tmp/beyond"
	is "$name: no descriptor beyond the list" "" "$(cat "$tmp/beyond")"
	is "$name: no descriptor of a directory" "" "$(cut -d' ' -f2- "$tmp/fds" | while read -r f; do [ -d "$f" ] && echo "$f"; done)"
	is "$name: 0 is /dev/null" /dev/null "$(sed -n 's/^0 //p' "$tmp/fds")"
	grep -Eq '^[0-9a-f]+-[0-9a-f]+ .wx' "/proc/$pid/maps"
	is "$name: no writable and executable mapping" 1 $?
	is "$name: its root is empty" "" "$(ls -A "/proc/$pid/root/")"
	touch "/proc/$pid/root/x" 2>/dev/null
	is "$name: nobody can make a file there" "" "$(ls -A "/proc/$pid/root/")"
	is "$name: no child" "" "$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)"
	has "$name: no core dumps" '^Max core file size +0 +0' "/proc/$pid/limits"
	has "$name: its memory has an end" '^Max address space +[0-9]+ +[0-9]+ ' "/proc/$pid/limits"
	has "$name: its own memory has an end" '^Max data size +[0-9]+ +[0-9]+ ' "/proc/$pid/limits"
	has "$name: no more processes" '^Max processes +0 +0' "/proc/$pid/limits"
	has "$name: nothing inheritable" '^CapBnd:[[:space:]]*0+$' "/proc/$pid/status"
	for task in "/proc/$pid/task/"*; do
		sed -n 's/^Seccomp:[[:space:]]*//p;s/^Seccomp_filters:[[:space:]]*//p' "$task/status" | tr '\n' ' '
	done >"$tmp/seccomp"
	is "$name: every thread has both filters" "" "$(sed 's/2 2 //g' "$tmp/seccomp")"
	tr '\0' '\n' <"/proc/$pid/environ" >"$tmp/env"
	is "$name: empty environment" "" "$(cat "$tmp/env")"
done

dir=$(runtime_dir)
is "the runtime directory is private" 700 "$(stat -c %a "$dir")"
is "the socket is private" 600 "$(stat -c %a "$dir/$vm.sock")"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	# Another user, past the directory's mode: the peer's credentials decide.
	"$monitor" kill $vm
	chmod 755 "$tmp"
	other="setpriv --reuid 54321 --regid 54321 --clear-groups"
	cp "$monitor" "$(dirname "$monitor")/hvx-vcpu" "$(dirname "$monitor")/hvx-memsvc" "$guest" "$tmp/" 2>/dev/null
	if [ -x "$tmp/hvx-vcpu" ] && $other test -x "$tmp/hvx-monitor"; then
		$other env -u XDG_RUNTIME_DIR "$tmp/hvx-monitor" start --name=$vm --kernel="$tmp/$(basename "$guest")" \
			--memory=16M >/dev/null 2>"$tmp/err" </dev/null
		is "an ordinary user starts a VM: status" 0 $?
		$other env -u XDG_RUNTIME_DIR "$tmp/hvx-monitor" status $vm >"$tmp/out"
		for name in memsvc vcpu; do
			has "an ordinary user sees $name's layers" "^process:  $name .*seccomp=filter\(2\) no-new-privs=yes caps=none .*user-ns=own mnt-ns=own pid-ns=own net-ns=own ipc-ns=own uts-ns=own root=empty,read-only" "$tmp/out"
		done
		chmod 755 /tmp/hvx-54321 && chmod 666 /tmp/hvx-54321/$vm.sock
		setpriv --reuid 54322 --regid 54322 --clear-groups python3 - /tmp/hvx-54321/$vm.sock >"$tmp/out" 2>&1 <<'PY'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
try:
    s.send(struct.pack("<IHHI", 0x46585648, 48, 0, 4) + b"\x08\x01\x10\x06")
    print("answer:", s.recv(1000))
except OSError as e:
    print("refused", e)
PY
		lacks "another user gets no answer" 'answer: b.HVXF' "$tmp/out"
		chmod 700 /tmp/hvx-54321
		$other env -u XDG_RUNTIME_DIR "$tmp/hvx-monitor" status $vm >"$tmp/out" 2>&1
		has "and the VM runs on" '^state: +running' "$tmp/out"
		$other env -u XDG_RUNTIME_DIR "$tmp/hvx-monitor" kill $vm
		is "its owner ends it" 0 $?
		rmdir /tmp/hvx-54321
	fi
else
	"$monitor" kill $vm
fi
nothing_left $vm
ok "nothing left behind" $?
done_testing
