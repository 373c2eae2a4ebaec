#!/bin/sh
# A short run of every fuzz target, the same inputs each time.
# FUZZ_SECONDS=N: a new seed, and N seconds for each target.
set -eu
dir=$(dirname "$0")
build=${FUZZ_BUILD:-tests/fuzz}
found=$(mktemp -d) # libFuzzer puts what it finds interesting in the first directory it is given
trap 'rm -rf "$found"' EXIT
for t in pack boot config decode translate chips virtio_pci virtq blk ahci net local image; do
	case $t in
	boot | translate) runs=10000 ;;
	decode) runs=30000 ;;
	*) runs=100000 ;;
	esac
	if [ -n "${FUZZ_SECONDS:-}" ]; then
		how="-seed=$(date +%s) -max_total_time=$FUZZ_SECONDS"
	else
		how="-seed=1 -runs=$runs"
	fi
	mkdir "$found/$t"
	set -- "$found/$t"
	if [ -d "$dir/corpus/$t" ]; then set -- "$@" "$dir/corpus/$t"; fi
	"$build/fuzz_$t" $how -max_len=16384 "$@"
done
