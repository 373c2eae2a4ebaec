#!/bin/sh
# Runs flat guests, one after the other, on HVX or on QEMU, and reports in TAP.
# A guest passes when it leaves through the exit port with value 0 (status 1);
# the one named poweroff, when it has switched the machine off (status 0).
#
#   run.sh [--qemu] [--cpus=N] [--times=N] [--timeout=SECONDS] [--verbose] [IMAGE...]
#
# Without images: those of the build tree it is called from, but not smp_*: these
# need --cpus above 1 (smp.sh).  --times: so many times the turns that they take in check.
#
# HVX_MONITOR names the monitor (default: hvx-monitor of the build tree the
# script was called from).
set -u
qemu=no verbose=no limit=120 cpus=1 times=1
while [ $# -gt 0 ]; do
	case $1 in
	--qemu) qemu=yes ;;
	--verbose) verbose=yes ;;
	--cpus=*) cpus=${1#*=} ;;
	--times=*) times=${1#*=} ;;
	--timeout=*) limit=${1#*=} ;;
	-*) echo "run.sh: unknown option $1" >&2; exit 2 ;;
	*) break ;;
	esac
	shift
done
[ $# -gt 0 ] || set -- $(ls tests/guest/flat/*.flat | grep -v /smp_)
monitor=${HVX_MONITOR:-./hvx-monitor}
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# Guests of disks have two, which nobody has used before.
disks_of() {
	case $1 in
	virtio*)
		truncate -s 4M "$dir/$1-a.raw" "$dir/$1-b.raw"
		echo "--disk=path=$dir/$1-a.raw --disk=path=$dir/$1-b.raw"
		;;
	esac
}

# One guest; console lines in $dir/out, everything else in $dir/err; the status.
run_one() {
	if [ $qemu = yes ]; then
		timeout "$limit" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -smp "$cpus" -cpu max -m 64 -display none -monitor none \
			-serial "file:$dir/out" -device isa-debug-exit,iobase=0xf4,iosize=4 \
			-debugcon null -kernel "$1" -append "cpus=$cpus times=$times" >"$dir/err" 2>&1 </dev/null
	else
		timeout "$limit" "$monitor" run --kernel="$1" --memory=64M --cpus="$cpus" --debug-exit \
			--append="cpus=$cpus times=$times" \
			--console="file:$dir/out" $(disks_of "$name") ${HVX_FLAGS-} >"$dir/err" 2>&1 </dev/null
	fi
}

echo "1..$#"
n=0 failed=0
for image; do
	n=$((n + 1))
	name=$(basename "$image" .flat)
	: >"$dir/out"
	run_one "$image"
	status=$?
	good=1
	[ "$name" != poweroff ] || good=0
	if [ $status -eq $good ] && tail -n 1 "$dir/out" | grep -q '^# .* 0 not ok'; then
		echo "ok $n $name $(tail -n 1 "$dir/out")"
		[ $verbose = no ] || sed 's/^/    /' "$dir/out"
		continue
	fi
	failed=$((failed + 1))
	echo "not ok $n $name: status $status$([ $status -eq 124 ] && echo ' (timeout)')"
	if [ $verbose = yes ]; then
		sed 's/^/    /' "$dir/out"
	else
		grep -a -e '^not ok' -e '^# ' "$dir/out" | tail -n 60 | sed 's/^/    /'
	fi
	tail -n 20 "$dir/err" | sed 's/^/    ! /'
done
exit $((failed > 0))
