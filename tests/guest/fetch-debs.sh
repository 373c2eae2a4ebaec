#!/bin/sh
# Fetch and unpack the Debian packages whose programs run inside test and bench guests.
# usage: fetch-debs.sh [LIST DIR]      (default: guest-packages, into $HVX_CACHE/debroot)
#
# Invariant: DIR is a plain unpacking of the packages named in
# LIST; nothing is installed on the host and no package script runs.
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

list=$(sed 's/#.*//' "${1:-$guestdir/guest-packages}" | xargs)
dir=${2:-$HVX_CACHE/debroot}
[ "$(cat "$dir/.packages" 2>/dev/null)" = "$list" ] && exit 0

apt-cache show stress-ng >/dev/null 2>&1 || as_root apt-get update -q >&2
say "fetching the guest's programs"
rm -rf "$dir" "$dir.tmp" "$debs.tmp"
mkdir -p "$dir.tmp" "$debs.tmp"
# shellcheck disable=SC2086
(cd "$debs.tmp" && fetch $list) || die "cannot download the guest's packages"
for d in "$debs.tmp"/*.deb; do
	dpkg-deb -x "$d" "$dir.tmp"
done
rm -rf "$debs.tmp"
echo "$list" >"$dir.tmp/.packages"
mv "$dir.tmp" "$dir"
