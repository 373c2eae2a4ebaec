#!/bin/sh
# make check: a fixed seed, so that it tests the same every time, and one of the day's own.
set -e
"${0%/*}/insn-diff" --help >/dev/null 2>&1 && diff=${0%/*}/insn-diff || diff=./tests/insn/insn-diff
"$diff" --lax-flags --seed=1 --cases=140000
exec "$diff" --lax-flags --seed="$(date +%Y%m%d)" --cases=20000
