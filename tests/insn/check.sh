#!/bin/sh
# make check: fixed seeds, so that it tests the same every time; make soak-insn takes others.  Once with flags exact at
# every fault, once as guests run by default.
diff=${INSN_DIFF:-./tests/insn/insn-diff}
"$diff" --seed=1 --cases=60000 && exec "$diff" --lax-flags --seed=77 --cases=60000
