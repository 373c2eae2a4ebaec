#!/bin/sh
# A host that refuses user namespaces: strict fails and names them, best goes on and says so.
# The refusing host is a user namespace of its own whose limit is zero.
. "$(dirname "$0")/lib.sh"
command -v unshare >/dev/null && unshare -Urm sh -c 'mount -t tmpfs none /run && echo 0 >/proc/sys/user/max_user_namespaces' 2>/dev/null ||
	skip_all "cannot make a host without user namespaces here"
vm=${prefix}b
cat >"$tmp/inside.sh" <<'SH'
mount -t tmpfs none /run
echo 0 >/proc/sys/user/max_user_namespaces
monitor=$1 guest=$2 vm=$3 tmp=$4
timeout 20 "$monitor" run --name=$vm --kernel="$guest" --memory=16M >"$tmp/strict" 2>&1 </dev/null
echo "strict $?"
{
	sleep 1
	"$monitor" status $vm >"$tmp/status" 2>&1
	printf p
	sleep 0.5
} | timeout 20 "$monitor" run --name=$vm --sandbox=best --kernel="$guest" --memory=16M >"$tmp/best" 2>&1
echo "best $?"
SH
unshare -Urm sh "$tmp/inside.sh" "$monitor" "$guest" $vm "$tmp" >"$tmp/out"
has "strict: status 4" '^strict 4$' "$tmp/out"
has "strict: names what is missing" 'the sandbox lacks user-ns' "$tmp/strict"
has "best: runs" '^best 0$' "$tmp/out"
has "best: says what is missing" 'sandbox without user-ns' "$tmp/best"
has "best: status shows it" 'missing: user-ns' "$tmp/status"
has "best: status shows the rest, as read back" '^process:  vcpu .*seccomp=filter.* no-new-privs=yes caps=none .*user-ns=shared .*net-ns=own .*root=empty' "$tmp/status"
done_testing
