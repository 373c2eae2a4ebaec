#!/bin/sh
# Hosts that lack something: each case is a short guest, or a start that fails, with its status and line.  As root for
# root and for an ordinary user; else for the user.  Run from the build tree.
. "$(dirname "$0")/../e2e/lib.sh"
filter=$PWD/tests/security/host_filter
vm=${prefix}h
map=-Urm own=
if [ "$(id -u)" = 0 ]; then
	map=-m
	own="setpriv --reuid 54321 --regid 54321 --clear-groups"
	command -v setpriv >/dev/null || own=
fi
unshare $map true 2>/dev/null || skip_all "cannot make a mount namespace here"

# An ordinary user reads neither root's home nor its build tree.
for f in hvx-monitor hvx-vcpu hvx-memsvc hvx-blk hvx-net; do
	cp "$PWD/$f" "$tmp/" || skip_all "no $f beside the monitor"
done
cp "$filter" "$guest" "$tmp/"
filter=$tmp/host_filter kernel=$tmp/$(basename "$guest")
mkdir -m 700 "$tmp/run" "$tmp/urun"
truncate -s 8M "$tmp/disk.raw"
truncate -s 8M "$tmp/udisk.raw"
tools=
if [ -x /usr/bin/qemu-nbd ] && [ -x /usr/bin/passt ]; then
	qemu-img create -q -f qcow2 "$tmp/disk.qcow2" 8M
	cp "$tmp/disk.qcow2" "$tmp/udisk.qcow2"
	tools=1
fi
[ -z "$own" ] || chown 54321:54321 "$tmp/urun" "$tmp"/udisk.*

# Who runs it; $u is in the names of what that one owns.
be_root() {
	as="env XDG_RUNTIME_DIR=$tmp/run" u='' who=root
}
be_user() {
	as="$own env XDG_RUNTIME_DIR=$tmp/urun" u=u who=user
	[ -n "$own" ] || u=
}

# vm STATUS PATTERN NAME [OPTIONS...] under $host, a command that makes the host what it is
host= options=
vm() {
	want=$1 pattern=$2 name="$who: $3"
	shift 3
	printf p | timeout 20 $host $as $inner "$tmp/hvx-monitor" run --name=$vm --kernel="$kernel" --memory=${memory:-16M} "$@" \
		>"$tmp/out" 2>&1
	is "$name: status" "$want" $?
	has "$name: says so" "$pattern" "$tmp/out"
	inner= memory=
}
inner= memory=

# In a mount namespace of its own, after the commands in $1.
mounted() {
	printf '%s\nexec "$@"\n' "$1" >"$tmp/mounted.sh"
	host="unshare $map sh $tmp/mounted.sh"
}

every_host() {
	host=
	vm 0 '^ready' "nothing lacks"
	vm 0 '^ready' "nothing lacks, best" --sandbox=best
	inner="$filter container"
	vm 4 'the sandbox lacks user-ns,mount-ns' "a container"
	inner="$filter container"
	vm 0 'vcpu: warning: sandbox without user-ns,mount-ns' "a container, best" --sandbox=best --disk=path="$tmp/${u}disk.raw"
	if [ -n "$tools" ]; then
		inner="$filter container"
		vm 0 'warning: .*qemu-nbd: sandbox without user-ns' "a container, best, every feature" --sandbox=best \
			--disk=path="$tmp/${u}disk.qcow2" --net=user --rng --balloon
		inner="$filter container"
		vm 4 'error: blk0: qemu-nbd: the sandbox lacks user-ns' "a container's qemu-nbd" --disk=path="$tmp/${u}disk.qcow2"
		inner="$filter container"
		vm 4 'error: net0: passt: the sandbox lacks .*mount-ns' "a container's passt" --net=user
		inner="$filter nomount"
		vm 0 'warning: .*passt: sandbox without empty-root' "no right to mount, best, every feature" --sandbox=best \
			--disk=path="$tmp/${u}disk.qcow2" --net=user --rng --balloon
		inner="$filter nolandlock"
		vm 0 '^ready' "no Landlock, every feature" --disk=path="$tmp/${u}disk.qcow2" --net=user
	fi
	inner="$filter nomount"
	vm 4 'the sandbox lacks empty-root \(empty root: Permission denied\)' "no right to mount"
	inner="$filter nomount"
	vm 0 'vcpu: warning: sandbox without empty-root' "no right to mount, best" --sandbox=best
	inner="$filter nolandlock"
	vm 0 '^ready' "no Landlock"
	inner="$filter nouring"
	vm 0 '^ready' "no io_uring" --disk=path="$tmp/${u}disk.raw"
	inner="$filter noseccomp"
	vm 4 'lacks seccomp \(seccomp: not in this kernel\)' "no seccomp"
	inner="$filter noseccomp"
	vm 0 'vcpu: warning: sandbox without seccomp \(seccomp: not in this kernel\)' "no seccomp, best" --sandbox=best
	host="prlimit --nofile=20"
	vm 4 'RLIMIT_NOFILE \(ulimit -n\) is 20: this VM needs [0-9]+' "few descriptors"
	host="prlimit --nofile=100"
	vm 0 '^ready' "fewer descriptors than the vcpu's limit"
	host="prlimit --fsize=51200"
	vm 4 'RLIMIT_FSIZE \(ulimit -f\) is 50 KiB: this VM needs 16 MiB' "small files"
	host="prlimit --as=209715200"
	vm 4 'RLIMIT_AS \(ulimit -v\) is 200 MiB: this VM needs' "little address space"
	host=
}

user_only() {
	inner="prlimit --nproc=1"
	vm 4 'RLIMIT_NPROC \(ulimit -u\) is 1' "no processes"
	inner="prlimit --nproc=40"
	vm 0 '^ready' "fewer processes than the disk's limit" --disk=path="$tmp/${u}disk.raw"
	inner="prlimit --nproc=40"
	vm 0 '^ready' "fewer processes, best" --disk=path="$tmp/${u}disk.raw" --sandbox=best
}

# Root of a container that may make user namespaces.
root_only() {
	[ -n "$tools" ] || return
	inner="setpriv --bounding-set -sys_admin"
	vm 0 '^ready' "no CAP_SYS_ADMIN, every feature" --disk=path="$tmp/disk.qcow2" --net=user
}

mounts() {
	mounted 'umount -l /proc 2>/dev/null || mount -t tmpfs none /proc'
	vm 4 '/proc is not mounted here' "no /proc"
	vm 4 '/proc is not mounted here' "no /proc, best" --sandbox=best
	mounted 'mount -t tmpfs none /dev'
	vm 4 '/dev/null: No such file' "an empty /dev"
	if [ "$map" = -m ]; then
		mounted 'mount -t proc -o hidepid=2 proc /proc'
		vm 0 '^ready' "hidepid"
	fi
	host=
}

# A group below our own of controller $1, with $3 in its file $2 (of version 1, of version 2).
group=
make_group() {
	for dir in /sys/fs/cgroup/$1$(sed -n "s/^[0-9]*:\([^:]*,\)*$1\(,[^:]*\)*://p" /proc/self/cgroup) \
		/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup); do
		[ -d "$dir" ] && mkdir "$dir/$vm" 2>/dev/null || continue
		group=$dir/$vm
		for file in $2; do
			[ ! -e "$group/$file" ] || { echo "$3" >"$group/$file"; } 2>/dev/null || continue
			[ ! -e "$group/$file" ] || return 0
		done
		rmdir "$group"
	done
	group=
	return 1
}

in_group() {
	host="sh $tmp/group.sh $group/cgroup.procs"
	printf 'echo $$ >"$1" || exit 9\nshift\nexec "$@"\n' >"$tmp/group.sh"
}

end_group() {
	within 5 rmdir "$group"
	host= group=
}

groups() {
	if make_group memory "memory.limit_in_bytes memory.max" 50331648; then
		in_group
		truncate -s 200M "$tmp/initrd"
		memory=512M
		vm 6 'vcpu died: killed by SIGKILL: out of memory: the limit of its memory cgroup is 48 MiB' "little memory" \
			--initrd="$tmp/initrd"
		end_group
	else
		echo "# skipped: no memory cgroup can be had here"
	fi
	if make_group pids "pids.max" 3; then
		in_group
		vm 4 "the cgroup's pids.max is 3" "few processes in the cgroup"
		end_group
	else
		echo "# skipped: no pids cgroup can be had here"
	fi
}

if [ "$(id -u)" = 0 ]; then
	be_root
	every_host
	root_only
	mounts
	groups
fi
if [ "$(id -u)" != 0 ] || [ -n "$own" ]; then
	be_user
	every_host
	user_only
	mounts
fi
done_testing
