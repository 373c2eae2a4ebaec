#!/bin/sh
# Install the Debian packages that building and testing HVX needs.
#
# Invariant: asks apt only for what dpkg does not report as installed, so a
# second run does nothing and needs neither root nor the network.
# usage: prepare-host.sh [build|check|bench]   (each includes the ones before)
set -eu
guestdir=$(cd "$(dirname "$0")" && pwd)
. "$guestdir/lib.sh"

build="autoconf automake make gcc libc6-dev binutils pkg-config libevent-dev libprotobuf-c-dev
	protobuf-c-compiler libseccomp-dev liburing-dev libnbd-dev libzydis-dev libcunit1-dev acpica-tools cpio busybox-static ca-certificates"
check="mandoc clang libclang-rt-dev python3 xz-utils util-linux procps
	seabios ovmf ipxe-qemu grub-common grub-pc-bin grub-efi-amd64-bin mtools fdisk
	mmdebstrap e2fsprogs qemu-utils genisoimage uidmap passt openssh-client libc6-dev-i386 lib32gcc-12-dev"
bench="qemu-system-x86 fio iperf3 iputils-ping"

case ${1:-build} in
build) want=$build ;;
check) want="$build $check" ;;
bench) want="$build $check $bench" ;;
*) die "usage: prepare-host.sh [build|check|bench]" ;;
esac

missing=
for p in $want; do
	case $(dpkg-query -W -f='${Status}' "$p" 2>/dev/null) in
	"install ok installed") ;;
	*) missing="$missing $p" ;;
	esac
done
[ -z "$missing" ] && exit 0

say "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -q </dev/null >&2
# shellcheck disable=SC2086
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing </dev/null >&2
