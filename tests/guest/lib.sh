# Shared by the guest scripts: where things are, how to say and how to fail.
#
# Invariant: everything fetched or made lies under $HVX_CACHE (default: cache/
# in the source tree, never in git; ~/.cache/hvx if that cannot be written) and appears there by a rename, so a script
# that was interrupted can simply be run again.
#
# Read with ". lib.sh" after $guestdir is set to this directory.

top=$(cd "$guestdir/../.." && pwd)
if [ -z "${HVX_CACHE:-}" ]; then
	HVX_CACHE=$top/cache
	# a read-only source tree, as in make distcheck
	mkdir -p "$HVX_CACHE" 2>/dev/null && [ -w "$HVX_CACHE" ] || HVX_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/hvx
fi
mkdir -p "$HVX_CACHE"
debs=$HVX_CACHE/debs
debroot=$HVX_CACHE/debroot

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

# fetch PACKAGE...: download packages into the current directory.
fetch() {
	if [ "$(id -u)" = 0 ]; then
		apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null
	else
		apt-get -q download "$@" >/dev/null
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

# add_file ROOT PATH: copy one file of the unpacked packages (in $debroot), where it has its name.
add_file() {
	[ -e "$1/$2" ] && return 0
	[ -e "$debroot/$2" ] || die "the guest's packages have no $2"
	mkdir -p "$1/$(dirname "$2")"
	cp -L "$debroot/$2" "$1/$2"
}

# add_program ROOT PATH: copy a program and the shared libraries it names, and theirs.
add_program() {
	[ -e "$1/$2" ] && return 0
	add_file "$1" "$2"
	chmod 755 "$1/$2"
	_needed=$(LC_ALL=C readelf -d "$1/$2" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
	if [ -n "$_needed" ] && [ ! -e "$1/lib64/ld-linux-x86-64.so.2" ]; then
		add_file "$1" lib64/ld-linux-x86-64.so.2
		chmod 755 "$1/lib64/ld-linux-x86-64.so.2"
	fi
	for _lib in $_needed; do
		add_library "$1" "$_lib"
	done
}

# add_library ROOT SONAME: as add_program, for a library by its name.
add_library() {
	case $1:$2 in *:ld-linux*) return 0 ;; esac
	for _dir in lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu; do
		if [ -e "$debroot/$_dir/$2" ]; then
			# One place for all: the loader's default path, whatever the package used.
			[ -e "$1/lib/x86_64-linux-gnu/$2" ] && return 0
			mkdir -p "$1/lib/x86_64-linux-gnu"
			cp -L "$debroot/$_dir/$2" "$1/lib/x86_64-linux-gnu/$2"
			for _dep in $(LC_ALL=C readelf -d "$1/lib/x86_64-linux-gnu/$2" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
				add_library "$1" "$_dep"
			done
			return 0
		fi
	done
	die "the guest's packages have no library $2"
}
