#!/bin/sh
# A cloud image by BIOS and by UEFI, unchanged, with --cloud-init and --ssh-key: its root grows, its user has the key, it
# is reached by ssh; a second start is the same machine.  In TAP; make check-cloud.
#
# Invariant: a guest has all the time it needs; only what it says decides.  The image itself is never written: each guest
# has a qcow2 file that lies on it.
# usage: cloud.sh [bios|uefi]
# HVX_MONITOR names the hvx-monitor to use.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
guestdir=$(dirname "$here")
. "$guestdir/lib.sh"
monitor=${HVX_MONITOR:-$PWD/hvx-monitor}
[ -x "$monitor" ] || monitor=$top/build/hvx-monitor
tmp=$(mktemp -d)
name=cloud$$
trap '"$monitor" kill $name >/dev/null 2>&1 || :; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
image=$("$here/mkimage.sh")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
: >"$tmp/said"
number=0 failed=0

# result STATUS TEXT
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		failed=$((failed + 1))
		echo "not ok $number - $2"
		sed 's/^/# guest: /' "$tmp/said"
		tail -n 20 "$tmp/log" | tr -d '\r' | tr '\033' '^' | sed 's/^/# /'
	fi
}

# check TEXT COMMAND: what the guest's shell says of COMMAND
check() { in_guest "$2" && result 0 "$firmware: $1" || result 1 "$firmware: $1"; }

in_guest() {
	timeout 300 ssh -F /dev/null -i "$tmp/key" -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 -p "$port" debian@127.0.0.1 "$1" </dev/null >"$tmp/said" 2>&1
}

# start: the guest, until it answers or ends
start() {
	"$monitor" run --name=$name --firmware=$firmware --memory=1G --disk="path=$tmp/disk.qcow2" --allow-path="$image" \
		--net=user,forward=tcp:127.0.0.1:"$port":22 --ssh-key="$tmp/key.pub" --cloud-init="$tmp/user-data" \
		</dev/null >"$tmp/log" 2>&1 &
	pid=$!
	until in_guest true; do
		kill -0 $pid 2>/dev/null || return 1
		sleep 2
	done
}

# stop: by the button; status 0 when the system went down by itself
stop() {
	"$monitor" stop $name --timeout=600 >/dev/null 2>&1 || :
	wait $pid
}

ssh-keygen -q -t ed25519 -N '' -f "$tmp/key"
cat >"$tmp/user-data" <<'END'
#cloud-config
write_files:
  - path: /etc/written
    content: by cloud-init
runcmd:
  - echo once >>/var/lib/ran
END

for firmware in ${1:-bios uefi}; do
	rm -f "$tmp/disk.qcow2"
	qemu-img create -q -f qcow2 -b "$image/disk.raw" -F raw "$tmp/disk.qcow2" 5G
	start && result 0 "$firmware: reached by ssh with the key" || result 1 "$firmware: reached by ssh with the key"
	case $firmware in uefi) by='test -d /sys/firmware/efi' ;; bios) by='! test -d /sys/firmware/efi' ;; esac
	check "started so" "$by"
	check "cloud-init is done, without an error" 'sudo cloud-init status --wait --long; grep -q "\"errors\": \[\]" /run/cloud-init/result.json'
	check "its data source" 'grep -q "DataSourceNoCloud \[seed=/dev/vdb\]" /run/cloud-init/result.json'
	check "the root has grown" 'test $(df --output=size -k / | tail -n 1) -gt 4500000'
	check "the host's name" "test \$(hostname) = $name"
	check "user-data" 'grep -qx "by cloud-init" /etc/written && test $(cat /var/lib/ran) = once'
	in_guest 'cat /etc/ssh/ssh_host_ed25519_key.pub' && cp "$tmp/said" "$tmp/host"
	stop && result 0 "$firmware: ends by the button" || result 1 "$firmware: ends by the button"
	start && result 0 "$firmware: starts again" || result 1 "$firmware: starts again"
	in_guest 'cat /etc/ssh/ssh_host_ed25519_key.pub' && cmp -s "$tmp/said" "$tmp/host" && result 0 "$firmware: as the same machine" ||
		result 1 "$firmware: as the same machine"
	check "nothing of the first time was done again" 'sudo cloud-init status --wait >/dev/null; test $(cat /var/lib/ran) = once'
	stop && result 0 "$firmware: ends again" || result 1 "$firmware: ends again"
done
echo "1..$number"
exit $((failed != 0))
