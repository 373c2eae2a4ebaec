#!/bin/sh
# Limits of a whole VM: by cgroups where this host gives them, and without; changed live; nothing left behind.
. "$(dirname "$0")/lib.sh"
vm=${prefix}l
start() { # OPTIONS...
	timeout 60 "$monitor" start --name=$vm --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err"
}
look() {
	"$monitor" status $vm >"$tmp/status" 2>&1
}
groups_of() { # of VM $1: directories there are
	find /sys/fs/cgroup -maxdepth 12 -type d -name "hvx-$(id -u)-$1" 2>/dev/null
}
# CPU time of the VM's processes, in ticks
ticks() {
	for p in $("$monitor" status $vm | sed -n 's/^process: .* pid \([0-9]*\):.*/\1/p'); do
		sed 's/.*) //' "/proc/$p/stat"
	done | awk '{ n += $12 + $13 } END { print n }'
}

# ---- refused ----
for bad in cpu-limit=0 cpu-limit=fast cpu-weight=0 memory-limit=4K pids=0 io-limit=packets=1 cpu-affinity=x; do
	start --$bad
	is "--$bad is refused" 2 $?
done
start --cpu-affinity=1023
is "CPUs that are not there: status" 4 $?
has "and it is said" 'cpu-affinity' "$tmp/err"
start --sandbox=best --cpu-limit=none
[ $? -eq 0 ]
ok "none is a limit" $?
look
lacks "which is not shown" '^limit:' "$tmp/status"
for bad in "limit $vm" "limit $vm blk0" "limit $vm cpu-limit" "limit $vm cpu-limit=x" "limit $vm speed=1" \
	"limit $vm rng cpu-limit=5"; do
	"$monitor" $bad >"$tmp/out" 2>&1
	is "$bad: status" 2 $?
done
"$monitor" kill $vm 2>/dev/null

# ---- whatever this host gives ----
cpu=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
start --cpu-limit=20 --cpu-affinity="$cpu" --io-limit=bytes=1M,ops=100
is "a start with limits: status" 0 $?
look
has "the CPU limit is shown" '^limit:    cpu-limit 20 percent, kept by (cgroup v[12]|vcpu threads)' "$tmp/status"
has "and I/O" '^limit:    io-limit-bytes 1048576 bytes/s, kept by disks' "$tmp/status"
is "on its CPU only" "$cpu" "$(taskset -cp "$(pid_of $vm vcpu)" | sed 's/.*: //')"
t0=$(ticks)
u0=$(cut -d' ' -f1 /proc/uptime)
sleep 2
t1=$(ticks)
u1=$(cut -d' ' -f1 /proc/uptime)
# at most: a busy host gives less; a tenth of a second's worth may have been saved up
awk -v t="$((t1 - t0))" -v hz="$(getconf CLK_TCK)" -v u="$u0 $u1" 'BEGIN { split(u, a, " "); exit !(t / hz <= 0.25 * (a[2] - a[1]) + 0.1) }'
ok "the guest, which never rests, gets no more ($((t1 - t0)) ticks)" $?
"$monitor" limit $vm cpu-limit=150 io-limit=none
is "changed live: status" 0 $?
look
has "and shown" '^limit:    cpu-limit 150 percent' "$tmp/status"
lacks "and I/O no more" 'io-limit' "$tmp/status"
"$monitor" status --json $vm >"$tmp/json"
has "in JSON, too" '"limits": \[\{"name": "cpu-limit", "value": 150, "unit": "percent", "keeper": "[a-z0-9 ]+"\}\]' "$tmp/json"
"$monitor" kill $vm 2>/dev/null
nothing_left $vm
ok "nothing left behind" $?
is "no cgroup either" "" "$(groups_of $vm)"

# ---- cgroups ----
start --cpu-limit=30 --memory-limit=512M --pids=64 --cpu-weight=50
if [ $? -eq 0 ] && look && grep -q 'pids 64 count, kept by cgroup' "$tmp/status"; then
	ok "all four are kept by cgroups" "$(grep -c '^limit:.*kept by cgroup' "$tmp/status" | sed 's/^4$/0/')"
	dir=$(groups_of $vm | head -1)
	grep -rqx "$(pid_of $vm vcpu)" $(groups_of $vm | sed 's,$,/cgroup.procs,')
	ok "the vcpu is in one" $?
	"$monitor" limit $vm memory-limit=400M pids=none
	is "changed live: status" 0 $?
	cat $(groups_of $vm | sed 's,$,/memory.limit_in_bytes,; p; s,limit_in_bytes,max,') >"$tmp/max" 2>/dev/null
	has "in the kernel, too" '^419430400$' "$tmp/max"
	kill -9 "$(pid_of $vm monitor)"
	within 10 sh -c '[ -z "$(cat $1 2>/dev/null)" ]' sh "$dir/cgroup.procs"
	"$monitor" list >"$tmp/list" # or another test's, meanwhile
	is "what a killed monitor leaves is removed by list" "" "$(groups_of $vm)"
	is "and its record" "" "$(ls "$(runtime_dir)" | grep "^$vm")"
	start --cpu-limit=30
	kill -9 "$(pid_of $vm monitor)"
	sleep 0.3
	start --cpu-limit=40
	is "so does a start of the same name: status" 0 $?
	"$monitor" kill $vm 2>/dev/null
	nothing_left $vm
	is "nothing is left then" "" "$(groups_of $vm)"
	start --memory-limit=4M
	is "a VM that its memory limit kills: status" 6 $?
	has "and memory is said to be the cause" 'out of memory: the limit of its memory cgroup is 4 MiB' "$tmp/err"
	start --pids=1 2>/dev/null
	[ $? -ne 0 ] && [ -z "$(groups_of $vm)" ]
	ok "a VM that cannot start leaves no group" $?
else
	echo "# no cgroups to be had here"
	has "refused with a reason" 'no cgroup can be had here' "$tmp/err"
fi

# ---- none to be had: a mount namespace that shows none ----
if unshare -m true 2>/dev/null; then
	none() {
		unshare -m sh -c 'umount -lR /sys/fs/cgroup; exec "$@"' sh "$@"
	}
	nstart() {
		none timeout 60 "$monitor" start --name=$vm --kernel="$guest" --memory=16M "$@" >"$tmp/out" 2>"$tmp/err"
	}
	nstart --pids=50
	is "pids takes a cgroup: status" 4 $?
	has "and that is said" 'pids: it takes a cgroup, and none can be had here' "$tmp/err"
	nstart --memory-limit=100M
	is "memory that rlimits cannot keep: status" 4 $?
	has "and that is said" 'memory-limit: no cgroup can be had here .*needs [0-9]+M' "$tmp/err"
	nstart --memory-limit="$(sed -n 's/.*needs \([0-9]*M\)$/\1/p' "$tmp/err")" --cpu-limit=10 --cpu-weight=50 --debug --log="$tmp/log"
	is "what they can keep: status" 0 $?
	look
	has "rlimits" 'memory-limit [0-9]+ bytes, kept by rlimits' "$tmp/status"
	has "nice" 'cpu-weight 50 weight, kept by nice' "$tmp/status"
	has "the vcpu itself" 'cpu-limit 10 percent, kept by vcpu threads' "$tmp/status"
	is "its data is limited" 335544320 "$(awk '/^Max data size/ { print $5 }' "/proc/$(pid_of $vm vcpu)/limits")"
	is "the priority is lower" $(($(ps -o ni= -p $$) + 3)) "$(ps -o ni= -p "$(pid_of $vm vcpu)" | tr -d ' ')"
	t0=$(ticks)
	u0=$(cut -d' ' -f1 /proc/uptime)
	sleep 2
	t1=$(ticks)
	u1=$(cut -d' ' -f1 /proc/uptime)
	awk -v t="$((t1 - t0))" -v hz="$(getconf CLK_TCK)" -v u="$u0 $u1" 'BEGIN { split(u, a, " "); exit !(t / hz <= 0.15 * (a[2] - a[1]) + 0.1) }'
	ok "the guest gets no more ($((t1 - t0)) ticks)" $?
	# the limit, and what other processes have used of it
	[ "$(grep -c "^$vm: debug: monitor -> vcpu: VCPU_COMMAND" "$tmp/log")" -ge 2 ]
	ok "it is told what others use" $?
	"$monitor" limit $vm memory-limit=1G 2>"$tmp/err"
	is "memory cannot be changed: status" 1 $?
	has "and it is said why" 'memory-limit: no cgroup can be had here' "$tmp/err"
	"$monitor" pause $vm && "$monitor" resume $vm
	is "pause and resume go through it: status" 0 $?
	"$monitor" limit $vm cpu-limit=none
	is "the CPU limit goes away: status" 0 $?
	"$monitor" stop --timeout=20 $vm 2>/dev/null
	is "and it stops: status" 0 $?
	nothing_left $vm
	ok "nothing left behind" $?
fi
done_testing
