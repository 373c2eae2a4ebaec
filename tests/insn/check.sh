#!/bin/sh
# make check: a fixed seed, so that it tests the same every time; make soak-insn takes others.
exec "${INSN_DIFF:-./tests/insn/insn-diff}" --lax-flags --seed=1 --cases=120000
