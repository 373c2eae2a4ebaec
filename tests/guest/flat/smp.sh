#!/bin/sh
# Guests with several CPUs, on more CPUs than most hosts have cores: 2, 4 and one of them 32.
#
#   smp.sh [OPTION-OF-RUN.SH...]           what make check runs
#   smp.sh --times=250 --timeout=3600      a million turns of each litmus test, the rest in proportion (make soak-smp)
set -u
here=$(cd "$(dirname "$0")" && pwd)
images=$(ls tests/guest/flat/smp_*.flat)
failed=0
# shellcheck disable=SC2086
for cpus in 2 4; do
	sh "$here/run.sh" --cpus=$cpus "$@" $images || failed=1
done
sh "$here/run.sh" --cpus=32 "$@" tests/guest/flat/smp_start.flat tests/guest/flat/smp_ipi.flat || failed=1
exit $failed
