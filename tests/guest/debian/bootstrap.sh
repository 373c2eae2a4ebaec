# shellcheck shell=sh
# Shared by what makes a Debian system from packages: mmdebstrap as root of a tree, without being root.
#
# Invariant: packages come from where this machine's apt has them, by the proxy that it uses.
#
# Read after ../lib.sh.

# host_proxy SCHEME: the proxy that the host's apt uses.
host_proxy() {
	_p=
	eval "$(apt-config shell _p "Acquire::$1::Proxy")"
	case $1 in
	http) echo "${_p:-${http_proxy:-}}" ;;
	https) echo "${_p:-${https_proxy:-}}" ;;
	esac
}

# mode: how mmdebstrap gets to be root of the tree.
mode() {
	if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
		echo unshare
	elif unshare --map-root-user --map-auto true 2>/dev/null; then
		echo unshare
	elif command -v fakechroot >/dev/null && command -v fakeroot >/dev/null; then
		echo fakechroot
	else
		die "cannot build the image: user namespaces with /etc/subuid (package uidmap) are not usable, and fakechroot and fakeroot are not installed"
	fi
}

# debian_tar VARIANT DIR OPTION...: DIR/root.tar; $mode and $sources say how and from where.
debian_tar() {
	_variant=$1
	_dir=$2
	shift 2
	for scheme in http https; do
		p=$(host_proxy $scheme)
		[ -z "$p" ] || set -- "--aptopt=Acquire::$scheme::Proxy \"$p\"" "$@"
	done
	_valid=
	eval "$(apt-config shell _valid Acquire::Check-Valid-Until)"
	[ -z "$_valid" ] || set -- "--aptopt=Acquire::Check-Valid-Until \"$_valid\"" "$@"
	printf '%s\n' "$sources" | mmdebstrap --mode="$mode" --variant="$_variant" --format=tar "$@" \
		bookworm "$_dir/root.tar" - >"$_dir/log" 2>&1 ||
		{ tail -n 30 "$_dir/log" >&2; die "mmdebstrap failed"; }
}

# in_tree CMD...: as root of the tree; owners are kept by the same means as in $mode.
in_tree() {
	if [ "$mode" = fakechroot ]; then
		fakeroot "$@"
	elif [ "$(id -u)" = 0 ]; then
		"$@"
	else
		unshare --map-root-user --map-auto "$@"
	fi
}
