# Sourced by the end-to-end tests: TAP, VM names that are ours alone, and the
# check that nothing is left behind.  Run from the build tree.
# HVX_MONITOR names the monitor; HVX_GUEST the guest of tests/e2e/guest.S.
set -u
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
guest=${HVX_GUEST:-$PWD/tests/e2e/guest.bin}
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d) || exit 99
chmod 755 "$tmp"
tests=0 failed=0
prefix=e2e$$

finish() {
	for vm in $("$monitor" list 2>/dev/null | awk -v p="^$prefix" '$1 ~ p { print $1 }'); do
		"$monitor" kill "$vm" >/dev/null 2>&1
	done
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

ok() { # ok NAME STATUS
	tests=$((tests + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $tests - $1"
	else
		echo "not ok $tests - $1"
		failed=$((failed + 1))
	fi
}

# is NAME WANT GOT
is() {
	[ "$2" = "$3" ]
	ok "$1" $?
	[ "$2" = "$3" ] || printf '# wanted: %s\n# got:    %s\n' "$2" "$3"
}

# has NAME PATTERN FILE: an extended regular expression
has() {
	grep -Eq -- "$2" "$3"
	ok "$1" $?
	grep -Eq -- "$2" "$3" || { echo "# no /$2/ in:"; sed 's/^/# /' "$3" | head -20; }
}

lacks() {
	! grep -Eq -- "$2" "$3"
	ok "$1" $?
}

# within SECONDS COMMAND...: true as soon as the command is
within() {
	within_n=$(($1 * 20))
	shift
	while ! "$@"; do
		within_n=$((within_n - 1))
		[ $within_n -gt 0 ] || return 1
		sleep 0.05
	done
}

# Live processes (no zombies) of VM $1: everything with its --name; only those of program $2 if given.
processes_of() {
	for p in $(grep -slzx -e "--name=$1" /proc/[0-9]*/cmdline); do
		p=${p%/cmdline}
		[ -z "${2:-}" ] || grep -sqzx -e "$2" "$p/cmdline" || continue
		grep -sq '^State:[[:space:]]*[^ZX[:space:]]' "$p/status" && echo "${p#/proc/}"
	done
}

runtime_dir() {
	if [ "$(id -u)" = 0 ]; then
		echo /run/hvx
	elif [ -n "${XDG_RUNTIME_DIR:-}" ] && [ -O "$XDG_RUNTIME_DIR" ]; then
		echo "$XDG_RUNTIME_DIR/hvx"
	else
		echo "/tmp/hvx-$(id -u)"
	fi
}

# A command is answered before the monitor has exited: its last milliseconds are waited for.
nothing_left() { # of VM $1
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -z "$(processes_of "$1")" ] && [ ! -e "$(runtime_dir)/$1.sock" ] &&
			[ ! -e "$(runtime_dir)/$1.lock" ] && return 0
		sleep 0.1
	done
	return 1
}

# Children of VM $1 as "name pid" lines, from status.
children_of() {
	"$monitor" status "$1" 2>/dev/null | sed -n 's/^process:  \([a-z]*\) pid \([0-9]*\):.*/\1 \2/p'
}

pid_of() { # VM PROCESS
	children_of "$1" | sed -n "s/^$2 //p"
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 77
}

done_testing() {
	echo "1..$tests"
	[ $failed -eq 0 ] || echo "# $failed of $tests failed"
	[ $failed -eq 0 ]
	exit $?
}
