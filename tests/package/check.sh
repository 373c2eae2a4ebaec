#!/bin/sh
# The Debian package: built in a chroot of Debian 12, looked at by lintian, installed in another one, used, removed.
#
# Invariant: nothing on this machine is changed but a directory of its own, which goes at the end, and the package in
# OUT (default: the current directory).  Takes minutes and the network; make check-package.
# usage: check.sh [OUT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
guestdir=$top/tests/guest
. "$top/tests/guest/lib.sh"
out=$(cd "${1:-.}" && pwd)
guest=${HVX_GUEST:-$PWD/tests/e2e/guest.bin}
[ -e "$guest" ] || die "run it from the build tree: no $guest"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/hvx-package-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"

host_proxy() { # SCHEME: what this machine's apt uses
	_p=
	eval "$(apt-config shell _p "Acquire::$1::Proxy")"
	case $1 in
	http) echo "${_p:-${http_proxy:-}}" ;;
	https) echo "${_p:-${https_proxy:-}}" ;;
	esac
}

bootstrap() { # OPTIONS...: Debian 12, thrown away after the hooks
	for scheme in http https; do
		p=$(host_proxy $scheme)
		[ -z "$p" ] || set -- "$@" --aptopt="Acquire::$scheme::Proxy \"$p\""
	done
	sh "$top/tests/guest/debian/sources.sh" >"$work/sources"
	mmdebstrap --format=null "$@" bookworm /dev/null "$work/sources"
}

# The source as it is in the tree, without what builds have left there.
mkdir "$work/hvx" "$work/debs"
if git -C "$top" rev-parse --git-dir >/dev/null 2>&1; then
	(cd "$top" && git ls-files -z | tar -c --null -T - -f -) | tar -x -C "$work/hvx" -f -
else
	(cd "$top" && tar -c --exclude=./build --exclude=./cache -f - .) | tar -x -C "$work/hvx" -f -
fi

say "building and lintian"
needs=$(sed -n '/^Build-Depends:/,/^Standards/p' "$top/debian/control" | sed '$d; s/^Build-Depends://; s/([^)]*)//g; s/debhelper-compat/debhelper/' |
	tr -d ' \n' | sed 's/,dh-sequence-installsysusers//')
cat >"$work/build.sh" <<'END'
set -eu
cd /build/hvx
export DEB_BUILD_OPTIONS="parallel=2 nocheck"
dpkg-buildpackage -b -us -uc >/build/log 2>&1 || { tail -50 /build/log; exit 1; }
cd ..
useradd -m look
chmod -R a+rX /build
su look -c 'cd /build && lintian --info --fail-on error,warning hvx_*.changes' || exit 1
END
bootstrap --variant=buildd --include="$needs,lintian,autoconf,automake" \
	--customize-hook='mkdir "$1/build"' \
	--customize-hook="copy-in $work/hvx $work/build.sh /build" \
	--customize-hook='chroot "$1" sh /build/build.sh' \
	--customize-hook="sync-out /build $work/debs" >&2
deb=$(echo "$work"/debs/hvx_*_amd64.deb)
[ -e "$deb" ] || die "no package was built"
cp "$deb" "$out/"

say "installing, using, removing"
cat >"$work/use.sh" <<'END'
set -eu
ls -R /etc /usr/lib /lib/systemd /usr/bin /usr/libexec /var/lib | grep -i hvx && exit 1
apt-get install -q -y --no-install-recommends /pkg/hvx.deb >/pkg/log 2>&1 || { cat /pkg/log; exit 1; }
hvx-monitor --version
getent passwd hvx >/dev/null
[ "$(stat -c '%U %a' /var/lib/hvx)" = "hvx 750" ]
[ "$(stat -c '%U %a' /run/hvx)" = "root 700" ]
[ -d /etc/hvx ]
systemd-analyze verify --man=no hvx@web.service hvx-metrics.socket hvx-metrics@1.service hvx-metrics-file.timer
XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no --user hvx@web.service
[ "$(printf p | hvx-monitor run --sandbox=best --kernel=/pkg/guest.bin --memory=16M | tr -d '\r')" = ready ]
hvx-monitor list --all | grep -q 'ended     status 0'
bash -c 'source /usr/share/bash-completion/completions/hvx-monitor; complete -p hvx-monitor' >/dev/null
for p in hvx-monitor.1 hvx.conf.5 hvx-internals.7 hvx-vcpu.8; do
	[ -e /usr/share/man/man${p##*.}/$p.gz ]
done
apt-get purge -q -y hvx >/pkg/log 2>&1 || { cat /pkg/log; exit 1; }
left=$(find /etc /usr /lib /var/lib -path '*/hvx*' ! -path '/var/lib/hvx' ! -path '/var/lib/dpkg/*' ! -path '*/user/*' 2>/dev/null || :)
[ -z "$left" ] || { echo "left: $left"; exit 1; }
END
cp "$deb" "$work/hvx.deb"
bootstrap --variant=minbase --include=systemd,bash \
	--customize-hook='mkdir "$1/pkg"' \
	--customize-hook="copy-in $work/hvx.deb $guest $work/use.sh /pkg" \
	--customize-hook='chroot "$1" sh -x /pkg/use.sh' >&2
echo "PASS: $(basename "$deb") builds, lintian finds nothing, it installs, runs a guest and goes"
