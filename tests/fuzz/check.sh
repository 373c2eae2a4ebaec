#!/bin/sh
# A short run of every fuzz target, the same inputs each time.
# FUZZ_SECONDS=N: a new seed, and N seconds for each target.
set -eu
dir=$(dirname "$0")
build=${FUZZ_BUILD:-tests/fuzz}
for t in pack boot config decode; do
	corpus=
	if [ -d "$dir/corpus/$t" ]; then corpus=$dir/corpus/$t; fi
	case $t in
	boot) runs=10000 ;;
	decode) runs=30000 ;;
	*) runs=100000 ;;
	esac
	if [ -n "${FUZZ_SECONDS:-}" ]; then
		"$build/fuzz_$t" -seed="$(date +%s)" -max_total_time="$FUZZ_SECONDS" $corpus
	else
		"$build/fuzz_$t" -seed=1 -runs=$runs $corpus
	fi
done
