#!/bin/sh
# The sources of the guest's packages are the machine's own, and no file here names a host to load from.
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
failed=0 n=0

ok() { # NAME STATUS
	n=$((n + 1))
	[ "$2" -eq 0 ] && echo "ok $n - $1" && return
	echo "not ok $n - $1"
	failed=1
}

# An apt that knows what is in $tmp/knows.
cat >"$tmp/apt-get" <<EOF
#!/bin/sh
cat "$tmp/knows"
EOF
chmod 755 "$tmp/apt-get"
PATH=$tmp:$PATH

cat >"$tmp/knows" <<'EOF'
Debian bookworm http://mirror.example/debian/ main
Debian bookworm http://mirror.example/debian/ contrib
Debian bookworm-security copy:/srv/security/ main
Debian bookworm-backports http://mirror.example/debian/ main
Debian trixie http://mirror.example/debian/ main
Other bookworm http://other.example/ main
EOF
"$here/sources.sh" >"$tmp/out"
ok "apt's repositories: status" $?
printf '%s\n' 'deb copy:/srv/security/ bookworm-security main' 'deb http://mirror.example/debian/ bookworm main' | cmp -s - "$tmp/out"
ok "those of Debian 12 and no others" $?
echo 'Debian trixie http://mirror.example/debian/ main' >"$tmp/knows"
! "$here/sources.sh" >"$tmp/out" 2>"$tmp/err"
ok "none: it fails" $?
[ ! -s "$tmp/out" ] && grep -q 'apt knows no repository of Debian 12' "$tmp/err"
ok "and says what is missing" $?

# Every address in a file of ours is of one of these hosts: the licence, a name of XML's, or reserved for examples (RFC 2606, 5737).
if git -C "$top" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
	git -C "$top" grep -noIE '(https?|ftp|git|ssh)://[^] "'"'"'`)>,;$]+' >"$tmp/all"
	grep -vE '://(www\.apache\.org|www\.w3\.org/2000/svg|[a-z]+\.example|(127\.0\.0\.1|localhost|192\.0\.2\.[0-9]+)(:[0-9]+)?)(/|$)' "$tmp/all" >"$tmp/left"
	[ -s "$tmp/all" ] && [ ! -s "$tmp/left" ]
	ok "no file names a host" $?
	sed 's/^/# /' "$tmp/left"
fi
echo "1..$n"
exit $failed
