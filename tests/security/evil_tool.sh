#!/bin/sh
# Programs that attack in the place of qemu-nbd and passt (evil_tool.c), confined by the real monitor: with every layer,
# without Landlock, and under a container's filter, where there is no namespace.  Run from the build tree.
. "$(dirname "$0")/../e2e/lib.sh"
evil=$PWD/tests/security/evil_tool filter=$PWD/tests/security/host_filter
vm=${prefix}e victim=${prefix}v
for tool in qemu-nbd passt; do
	[ -e /usr/bin/$tool ] || skip_all "$tool is not installed"
done
map=
[ "$(id -u)" = 0 ] || map=-Ur
unshare $map -m true 2>/dev/null || skip_all "cannot make a mount namespace here"

# The evil program, with the owner's directory written over the mark.
cp "$evil" "$tmp/evil"
mark=$(grep -abo HVX-EVIL-DIRECTORY "$tmp/evil" | head -1 | cut -d: -f1)
printf '%s\0' "$tmp" | dd of="$tmp/evil" bs=1 seek="$mark" conv=notrunc 2>/dev/null
chmod 755 "$tmp/evil"
echo precious >"$tmp/secret"
chmod 600 "$tmp/secret"
stat -c '%a %u %s %i' "$tmp/secret" >"$tmp/before"
qemu-img create -q -f qcow2 "$tmp/disk.qcow2" 16M
"$monitor" start --name=$victim --kernel="$guest" --memory=16M >/dev/null 2>&1 </dev/null
is "a victim runs" 0 $?
ln -s "$(runtime_dir)/$victim.sock" "$tmp/victim.sock"

cat >"$tmp/inside.sh" <<'SH'
tmp=$1
shift
for tool in qemu-nbd passt passt.avx2; do
	[ ! -e /usr/bin/$tool ] || mount --bind "$tmp/evil" /usr/bin/$tool || exit 9
done
exec timeout 20 "$@"
SH

# attack NAME TOOL COMMAND...: the one line says that nothing succeeded, and nothing came after it
attack() {
	name=$1 tool=$2
	shift 2
	unshare $map -m sh "$tmp/inside.sh" "$tmp" "$@" >"$tmp/out" 2>&1 </dev/null
	has "$name: $tool tried it all, in vain" "$tool: evil: none of [0-9]+ attempts succeeded" "$tmp/out"
	lacks "$name: $tool: and its last call killed it" 'SUCCEEDED' "$tmp/out"
}

run="$monitor run --name=$vm --kernel=$guest --memory=16M"
for tool in qemu-nbd passt; do
	with=--net=user
	[ $tool = passt ] || with=--disk=path=$tmp/disk.qcow2,readonly
	attack "every layer" $tool $run $with
	attack "without Landlock" $tool "$filter" nolandlock $run $with
	if "$evil" --landlock; then
		attack "in a container" $tool "$filter" container $run $with --sandbox=best
		has "in a container: what $tool lacks is told" "warning: .*$tool: sandbox without .*empty-root" "$tmp/out"
	else
		echo "# no Landlock on this host: nothing keeps a container's $tool from files"
	fi
done
stat -c '%a %u %s %i' "$tmp/secret" >"$tmp/after"
is "the owner's file is as it was" "$(cat "$tmp/before")" "$(cat "$tmp/after")"
is "no other file is there" "" "$(cd "$tmp" && ls | grep -E '^(new|newdir|node|elsewhere)$')"
"$monitor" status $victim >"$tmp/status" 2>&1
has "the victim runs on" '^state: +running' "$tmp/status"
"$monitor" kill $victim
is "and ends when it is told to" 0 $?
done_testing
