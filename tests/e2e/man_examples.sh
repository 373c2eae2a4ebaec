#!/bin/sh
# Runs the worked examples of the man pages, as they stand there, in an empty
# directory with a kernel and an initrd in it; and lints the pages.
. "$(dirname "$0")/lib.sh"
man=$here/../../man
mkdir "$tmp/bin" "$tmp/rt"
ln -s "$monitor" "$tmp/bin/hvx-monitor"
ln -s "$(dirname "$monitor")/hvx-switch" "$tmp/bin/hvx-switch"
PATH=$tmp/bin:$PATH
export PATH

# Blocks marked `.\" example KIND [NAME]': "run" to run.sh, "file NAME" to NAME, in $2.
extract() { # PAGE DIRECTORY
	awk -v dir="$2" '
		/^\.\\" example run/ { out = dir "/run.sh"; next }
		/^\.\\" example file / { out = dir "/" $4; next }
		/^\.Bd/ && out { inside = 1; next }
		/^\.Ed/ { inside = 0; out = ""; next }
		inside { gsub(/\\e/, "\\"); if (out ~ /run\.sh$/) sub(/^\$ /, ""); print > out }
	' "$1"
}

for page in "$man"/*.[1-8]; do
	name=$(basename "$page")
	grep -q "man/$name" "$here/../../Makefile.am"
	ok "$name: is installed" $?
	if command -v mandoc >/dev/null; then
		mandoc -T lint -W warning "$page" >"$tmp/lint" 2>&1
		is "$name: mandoc finds nothing" "" "$(grep -v 'referenced manual not found' "$tmp/lint")"
	fi
	# Debian's generic kernel is refused below 80 MiB
	small=$(grep -o 'memory=[0-9]*M' "$page" | tr -dc '0-9\n' | awk '$1 < 128')
	is "$name: its VMs have room for Debian's kernels" "" "$small"
	grep -q '^\.\\" example run' "$page" || continue
	dir=$tmp/${name%.*}
	mkdir "$dir"
	cp "$guest" "$dir/vmlinuz"
	head -c 65536 /dev/zero >"$dir/initrd.img"
	extract "$page" "$dir"
	(cd "$dir" && timeout 60 sh -ex ./run.sh) >"$tmp/out" 2>&1 </dev/null
	status=$?
	is "$name: its examples work" 0 $status
	[ $status = 0 ] || for vm in web build test; do "$monitor" kill $vm 2>/dev/null; done
	[ $failed = 0 ] || sed 's/^/# /' "$tmp/out" | tail -20
done
for vm in web lean build test; do
	nothing_left $vm
	ok "the examples' $vm has gone" $?
done
done_testing
