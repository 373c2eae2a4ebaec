#!/bin/sh
# devices.py with both kernels.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"
if ! command -v python3 >/dev/null; then
	echo "1..0 # SKIP python3 is missing"
	exit 77
fi
export HVX_CACHE
status=0
for flavour in ${HVX_FLAVOURS:-cloud generic}; do
	python3 "$guestdir/devices.py" "$flavour" "$@" || status=1
done
exit $status
