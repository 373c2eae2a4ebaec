#!/bin/sh
# Guests with several CPUs: 2 and 4; at length, with 32, too.  A guest ends itself when something is lost (WAIT in smp.h);
# the time-out is for one whose CPUs all sleep.
#
#   smp.sh [OPTION-OF-RUN.SH...]           what make check runs
#   smp.sh --times=21 --timeout=7200       a million turns of each litmus test, the rest in proportion (make soak-smp)
set -u
here=$(cd "$(dirname "$0")" && pwd)
images=$(ls tests/guest/flat/smp_*.flat)
failed=0
# shellcheck disable=SC2086
if [ $# -eq 0 ]; then
	sh "$here/run.sh" --timeout=1800 --cpus=2 $images || failed=1
	sh "$here/run.sh" --timeout=1800 --cpus=4 tests/guest/flat/smp_start.flat tests/guest/flat/smp_ipi.flat || failed=1
	exit $failed
fi
for cpus in 2 4; do
	sh "$here/run.sh" --cpus=$cpus "$@" $images || failed=1
done
sh "$here/run.sh" --cpus=32 "$@" tests/guest/flat/smp_start.flat tests/guest/flat/smp_ipi.flat || failed=1
exit $failed
