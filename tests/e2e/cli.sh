#!/bin/sh
# What the command line refuses, with which status and which words.
. "$(dirname "$0")/lib.sh"

# try NAME STATUS PATTERN ARGUMENTS...: the pattern is looked for on stdout and stderr
try() {
	try_name=$1 try_status=$2 try_pattern=$3
	shift 3
	timeout 60 "$monitor" "$@" >"$tmp/out" 2>&1 </dev/null
	is "$try_name: status" "$try_status" $?
	has "$try_name: says so" "$try_pattern" "$tmp/out"
}

try "no command" 2 'no command'
try "unknown command" 2 "unknown command 'fly'" fly
try "unknown option" 2 "unknown option '--wings'" run --kernel="$guest" --wings
try "option without value" 2 'kernel needs a value' run --kernel
try "bad memory" 2 'memory is a number' run --kernel="$guest" --memory=lots
try "an option given twice" 2 '--append: append is given twice' run --kernel="$guest" --append=a --append=b
try "memory of another kind" 2 'such as 512M or 1.5GiB' run --kernel="$guest" --memory=1.5GB
if [ "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)" -lt $((17 << 20)) ]; then
	try "more memory than can be described" 4 'memory: 1048576M takes [0-9]+M of the host' \
		run --kernel="$guest" --memory=1T --name=${prefix}a
fi
twice=$(($(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) / 512))M
try "a guarantee that cannot be kept" 4 'memory-guarantee: [0-9]+M cannot be had: of the host' \
	run --kernel="$guest" --memory="$twice" --memory-guarantee="$twice" --name=${prefix}a
try "a guarantee beyond its memory" 3 'memory-guarantee is more than memory' \
	run --kernel="$guest" --memory=64M --memory-guarantee=65M
try "what is not done when the host is out of memory" 2 'memory-short is go-on or pause' \
	run --kernel="$guest" --memory-short=kill
try "a bad merge group" 2 'merge is no, self, or a group' run --kernel="$guest" --merge=a/b
try "a rate of nothing" 3 'merge-rate without merge' run --kernel="$guest" --merge-rate=20
try "a bad rate" 2 'merge-rate is 1 to 100' run --kernel="$guest" --merge=self --merge-rate=0
try "a bad balloon" 2 'balloon' run --kernel="$guest" --balloon=1G
try "absurd memory" 2 'memory must be' run --kernel="$guest" --memory=4000000G
try "bad console" 2 'console is stdio, pty or file' run --kernel="$guest" --console=moon
try "too many cpus" 2 'is 1 to 32' run --kernel="$guest" --cpus=33
try "cpus that do not multiply" 2 'not sockets times cores times threads' run --kernel="$guest" --cpus=6,sockets=4
try "start on stdio" 2 'cannot be stdio' start --kernel="$guest" --console=stdio
try "bad name" 2 'a name is' run --kernel="$guest" --name=../x
try "no kernel" 3 'no kernel' run
try "kernel not there" 3 'No such file' run --kernel="$tmp/none" --name=${prefix}a
try "kernel is a directory" 3 'not a regular file' run --kernel="$tmp" --name=${prefix}a
try "initrd not there" 3 'initrd .*No such file' run --kernel="$guest" --initrd="$tmp/none" --name=${prefix}a
try "config not there" 3 'No such file' run --config="$tmp/none"
try "no such VM" 1 'no VM named' status ${prefix}none
try "no such VM to stop" 1 'no VM named' stop ${prefix}none
try "help" 0 'usage: hvx-monitor' --help
sed -n '/^commands:/,/^options/s/^  \([a-z][a-z]*\) .*/\1/p' "$tmp/out" | sort >"$tmp/told"
sed -n '/^The commands are/,/^\.El/s/^\.It Cm //p' "$here/../../man/hvx-monitor.1" | tr -s ' ,' '\n\n' | sort >"$tmp/written"
is "help and the man page list commands" 17 "$(wc -l <"$tmp/told")"
is "help and the man page list the same" "$(cat "$tmp/written")" "$(cat "$tmp/told")"
try "help of a command" 0 'power button' stop --help
try "version" 0 '^hvx-monitor [0-9]' --version

gzip -c "$guest" >"$tmp/guest.gz"
try "gzip'd kernel" 3 'compressed as a whole; unpack it first: gunzip' run --kernel="$tmp/guest.gz" --name=${prefix}a
set -- a b c d e f g h i
try "nine initrds" 2 '8 initrds at most' run --kernel="$guest" $(printf -- '--initrd=%s ' "$@")
try "second initrd not there" 3 'initrd .*none: No such file' run --kernel="$guest" --initrd="$guest" --initrd="$tmp/none,args=x" --name=${prefix}a
try "initrd with arguments and no file" 2 'FILE\[,args=TEXT\]' run --kernel="$guest" --initrd=,args=x
echo "this is no kernel" >"$tmp/junk"
head -c 65536 /dev/zero >"$tmp/rom"
try "not a kernel" 3 'kernel' run --kernel="$tmp/junk" --name=${prefix}a
: >"$tmp/empty"
try "empty kernel" 3 'kernel' run --kernel="$tmp/empty" --name=${prefix}a
head -c 200000000 /dev/zero >"$tmp/big"
try "initrd that does not fit" 3 'initrd' run --kernel="$guest" --initrd="$tmp/big" --memory=64M --name=${prefix}a
rm -f "$tmp/big"


try "firmware not there" 3 'firmware .*none: No such file' run --firmware="$tmp/none" --name=${prefix}a
try "firmware is too small" 3 'firmware .*junk: 18 bytes; .* at least 64 KiB' run --firmware="$tmp/junk" --name=${prefix}a
head -c 20971520 /dev/zero >"$tmp/big"
try "firmware is too big" 3 'more than 16 MiB' run --firmware="$tmp/big" --name=${prefix}a
head -c 65537 /dev/zero >"$tmp/big"
try "firmware of odd size" 3 'whole pages of 4 KiB' run --firmware="$tmp/big" --name=${prefix}a
try "nvram without template" 3 'nvram .*none: No such file' run --firmware="$tmp/rom" --nvram="$tmp/none" --name=${prefix}a
try "nvram of a directory" 3 'nvram' run --firmware="$tmp/rom" --nvram="$tmp" --name=${prefix}a
try "a BIOS keeps nothing" 3 'needs --firmware=uefi' run --firmware=bios --nvram="$tmp/x" --name=${prefix}a
try "a kernel and a BIOS" 3 'a kernel starts by itself' run --kernel="$guest" --firmware=bios --name=${prefix}a
try "boot from what is not there" 3 'boot=blk7: no disk' run --firmware=bios --boot=blk7 --name=${prefix}a
try "boot from no network" 3 'without a network card' run --boot=net --name=${prefix}a
rm -f "$tmp/big"

printf 'kernel = %s\nmemory = 16M\ncolour = blue\n' "$guest" >"$tmp/conf"
try "bad config" 3 "conf:3: unknown setting 'colour'" run --config="$tmp/conf"
printf 'kernel = %s\nmemory = 16M\n# again\nmemory = 32M\n' "$guest" >"$tmp/conf"
try "a setting that comes twice" 3 'conf:4: memory is given twice' run --config="$tmp/conf"
try "a tap that is not there" 4 'tap hvxnone: no such interface; make it .*, or add the key create' \
	run --kernel="$guest" --net=tap=hvxnone --name=${prefix}a
try "create is for taps" 2 'create is for tap' run --kernel="$guest" --net=user,create --name=${prefix}a
try "config without kernel" 3 'no kernel' run --config=/dev/null
try "console file cannot be made" 3 'console .*No such' run --kernel="$guest" --console=file:"$tmp/no/dir" --name=${prefix}a
try "pidfile cannot be made" 3 'pidfile .*No such' run --kernel="$guest" --pidfile="$tmp/no/dir" --name=${prefix}a

for program in hvx-vcpu hvx-memsvc hvx-stub; do
	path=$(dirname "$monitor")/$program
	[ -x "$path" ] || path=$(dirname "$monitor")/../libexec/hvx/$program
	"$path" --help >"$tmp/out" 2>&1
	is "$program --help" 0 $?
	has "$program --help: usage" "usage: $program" "$tmp/out"
	"$path" --version >"$tmp/out" 2>&1
	has "$program --version" "^$program [0-9]" "$tmp/out"
	"$path" >"$tmp/out" 2>&1 </dev/null
	is "$program by hand" 2 $?
	has "$program by hand: says so" 'not started by hvx-monitor' "$tmp/out"
	"$path" --frobnicate >"$tmp/out" 2>&1 </dev/null
	is "$program with a bad argument" 2 $?
done
nothing_left ${prefix}a
ok "nothing left behind" $?
done_testing
