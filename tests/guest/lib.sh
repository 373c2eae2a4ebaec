# Shared by the guest scripts: where things are, how to say and how to fail.
#
# Invariant: everything fetched or made lies under $HVX_CACHE (default: cache/
# in the source tree, never in git) and appears there by a rename, so a script
# that was interrupted can simply be run again.
#
# Read with ". lib.sh" after $guestdir is set to this directory.

top=$(cd "$guestdir/../.." && pwd)
HVX_CACHE=${HVX_CACHE:-$top/cache}
debs=$HVX_CACHE/debs

say() { printf '%s\n' "hvx: $*" >&2; }
die() { say "$*"; exit 1; }

# as_root CMD...: run CMD as root, by sudo when need be.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		die "need root for: $* (become root or install sudo)"
	fi
}

# fresh TARGET SOURCE...: true when TARGET is there and newer than each SOURCE.
fresh() {
	_target=$1
	shift
	[ -e "$_target" ] || return 1
	for _src; do
		[ -z "$(find "$_src" -newer "$_target" -print 2>/dev/null | head -n 1)" ] || return 1
	done
}

# pack DIR OUT: DIR as an uncompressed newc archive owned by root, without root.
pack() {
	(cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$2.tmp" || die "cpio failed"
	mv "$2.tmp" "$2"
}
