#!/bin/sh
# The short form of the system test, for make check.
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
if ! "$monitor" --help 2>/dev/null | grep -q -e '--disk='; then
	echo "1..0 # SKIP $monitor has no --disk"
	exit 77
fi
for program in hvx-blk hvx-net; do
	if [ ! -x "$(dirname "$monitor")/$program" ]; then
		echo "1..0 # SKIP no $program beside $monitor"
		exit 77
	fi
done
exec python3 -B "$(dirname "$0")/system.py" --monitor="$monitor" --short
