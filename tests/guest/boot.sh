#!/bin/sh
# Boot a Debian kernel to init and run the checks inside; one line a check, in TAP.
#
# Invariant: passes only if every check that init-test names was seen to pass, the
# guest powered off by itself, and the VMM ended with status 0.
# usage: boot.sh cloud|generic [--vmm=hvx|tcg] [--only=GLOB] [--limit=SECONDS] [--keep=LOGFILE]
# HVX_MONITOR names the hvx-monitor to use (default: that of the build tree it is called from).
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

vmm=hvx
only='*'
limit=1100
log=
flavour=${1:-}
[ $# -gt 0 ] && shift
for arg; do
	case $arg in
	--vmm=*) vmm=${arg#*=} ;;
	--only=*) only=${arg#*=} ;;
	--limit=*) limit=${arg#*=} ;;
	--keep=*) log=${arg#*=} ;;
	*) die "no such option: $arg" ;;
	esac
done
case $flavour in cloud | generic) ;; *) die "usage: boot.sh cloud|generic [--vmm=hvx|tcg] [--only=GLOB]" ;; esac

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
log=${log:-$tmp/log}
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
[ -x "$monitor" ] || monitor=$top/build/hvx-monitor

# Builds share one cache: prepare under a lock.
kernel=$(flock "$HVX_CACHE/.lock" sh "$guestdir/fetch-kernel.sh" "$flavour")
initrd=$(flock "$HVX_CACHE/.lock" sh "$guestdir/mktestimage.sh" "$flavour")

# is_v4: the host's CPU has all that x86-64-v4 asks for.
is_v4() {
	for flag in avx512f avx512bw avx512cd avx512dq avx512vl; do
		grep -qw "$flag" /proc/cpuinfo || return 1
	done
}

# start_guest: the VMM with the console on its output; its status is the function's.
start_guest() {
	append="console=ttyS0 panic=-1 only=$only"
	case $vmm in
	hvx)
		if is_v4; then append="$append v4=yes"; fi
		timeout -k 10 "$limit" "$monitor" run --kernel="$kernel" --initrd="$initrd" \
			--memory=512M --append="$append" --no-reboot
		;;
	tcg)
		timeout -k 10 "$limit" qemu-system-x86_64 -accel tcg,thread=single -cpu max -m 512 -smp 1 -nodefaults \
			-no-user-config -display none -serial stdio -no-reboot -kernel "$kernel" -initrd "$initrd" \
			-append "$append emulator=tcg"
		;;
	*) die "no such vmm: $vmm" ;;
	esac
}

status=0
start_guest </dev/null >"$log" 2>&1 || status=$?

number=0
failed=0
# result PASSED NAME TEXT: one TAP line.
result() {
	number=$((number + 1))
	if [ "$1" = yes ]; then
		echo "ok $number - $flavour: $2 $3"
	else
		failed=$((failed + 1))
		echo "not ok $number - $flavour: $2 $3"
	fi
}
# has PATTERN: the console shows a line that matches.
has() { tr -d '\r' <"$log" | grep -qE "$1"; }

has '^MARK init' && result yes reaches-init "$(tr -d '\r' <"$log" | sed -n 's/^MARK init/Linux/p')" || result no reaches-init ''
for name in $(sed -n 's/^check \([^ ]*\).*/\1/p' "$guestdir/init-test"); do
	# shellcheck disable=SC2254
	case $name in $only) ;; *) continue ;; esac
	line=$(tr -d '\r' <"$log" | sed -n "s/^CHECK ok $name //p")
	if [ -n "$line" ]; then
		result yes "$name" "$line"
	else
		result no "$name" "$(tr -d '\r' <"$log" | sed -n "s/^CHECK FAILED $name//p")"
		tr -d '\r' <"$log" | sed -n "/^CHECK FAILED $name:/,/^\(CHECK\|MARK\)/p" | grep '^  # ' || true
	fi
done
[ "$vmm" = tcg ] || if has 'unknown MSR'; then
	result no knows-the-msrs "$(tr -d '\r' <"$log" | sed -n 's/.*unknown MSR \([^:]*\):.*/\1/p' | xargs)"
else
	result yes knows-the-msrs ''
fi
if has 'reboot: Power down' && [ "$status" = 0 ]; then
	result yes powers-off ''
else
	result no powers-off "status $status; the console's last lines:"
	tail -n 25 "$log" | tr -d '\r' | sed 's/^/  # /'
fi
echo "1..$number"
[ "$failed" = 0 ]
