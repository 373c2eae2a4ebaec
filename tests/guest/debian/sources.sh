#!/bin/sh
# Print where Debian 12 comes from, as this machine's apt knows it: one line of sources.list for each repository.
#
# Invariant: names no host by itself; a machine whose apt knows no Debian 12 has to be told.
set -eu
found=$(apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
	sed -n 's,^Debian \(bookworm[^ ]*\) \([a-z+]*:[^ ]*\) main$,deb \2 \1 main,p' | grep -v backports | LC_ALL=C sort -u)
case $found in
*" bookworm main"*) printf '%s\n' "$found" ;;
*)
	echo "sources.sh: apt knows no repository of Debian 12 (bookworm) main: add one to /etc/apt/sources.list.d and run apt-get update" >&2
	exit 1
	;;
esac
