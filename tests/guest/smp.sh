#!/bin/sh
# smp.py, for make check.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"
if ! command -v python3 >/dev/null; then
	echo "1..0 # SKIP python3 is missing"
	exit 77
fi
export HVX_CACHE
exec python3 "$guestdir/smp.py" "$@"
