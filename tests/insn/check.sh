#!/bin/sh
# make check: fixed seeds, so that it tests the same every time; make soak-insn takes others.  Once with flags exact at
# every fault, once as guests run by default, and both through a window as well.  Before that, instructions that were wrong
# once and are rare in random runs.
diff=${INSN_DIFF:-./tests/insn/insn-diff}

# kinds (1: 64-bit code, 4: 32-bit code) and bytes
while read -r kinds bytes what; do
	"$diff" --seed=4 --kinds="$kinds" --bytes="$bytes" --show=3 >insn-fixed.log 2>&1 && continue
	echo "$bytes ($what):"
	cat insn-fixed.log
	exit 1
done <<'END'
1 f2e12b loope with the other's prefix
4 f3e02b loopne with the other's prefix
4 66f2e12b the same, 16-bit target
1 67f2e12b the same, counting in ecx
1 64f066f24d810f6105c22f fifteen bytes when its operand is in a buffer
1 ff13 call [rbx]: push, then target
1 3667f247ff53f0 call [r11d - 16] with prefixes that say nothing
1 67660ff7f3 maskmovdqu
4 660ff7f3 maskmovdqu
1 40668903 mov [rbx], ax behind a REX that is none
1 4f4848010b two of them
1 4c65f0490fc103 lock xadd behind one and gs
1 664164480ff7f3 maskmovdqu with one between its prefixes
1 0ff7f3 maskmovq
4 c4c10f2ad8 vcvtsi2sd xmm3, xmm1, eax with VEX.B, which 32-bit code lacks
4 c4c1797ed3 vmovd ebx, xmm2 with it
1 0fc76513 xsavec [rbp + 19]: alignment, then the address
1 0fae6d13 xrstor
4 0fc76513 xsavec that ends in a bad page
1 36f3a4 rep movsb with ss, which says nothing in 64-bit code
1 6436ac lodsb with fs and ss
1 0fc723 xsavec [rbx]
1 0fae2b xrstor [rbx]
1 62f3354d420380 vdbpsadbw zmm0 {k5}, zmm9, [rbx], 80h: all of its operand counts
1 62f3b549ce0321 vgf2p8affineqb likewise
1 62f23749720b vcvtne2ps2bf16 likewise
1 62f23759720b the same with a broadcast
1 62f235498f23 vpshufbitqmb k4 {k1}, zmm9, [rbx]: each byte by itself
1 62f27d4a8a4b01 vcompressps [rbx + 4] {k2}, zmm1
1 62f27dca624b01 vpexpandb zmm1 {k2}{z}, [rbx + 1]
1 62f2fd4a194b01 vbroadcastsd zmm1 {k2}, [rbx + 8]
1 62f27d4a1a4b01 vbroadcastf32x4 zmm1 {k2}, [rbx + 16]: four elements, four times
1 62f17d4a7f4b01 vmovdqa32 [rbx + 64] {k2}, zmm1
1 62f27e4a104b01 vpmovuswb [rbx + 32] {k2}, zmm1
1 62f27d0990444810 vpgatherdd xmm0 {k1}, [rax + xmm1*2 + 64]
1 62f27d2991444810 vpgatherqd xmm0 {k1}, [rax + ymm1*2 + 64]
1 62f2fd49a0444808 vpscatterdq [rax + ymm1*2 + 64] {k1}, zmm0
1 62f37d49194b0102 vextractf32x4 [rbx + 16] {k1}, zmm1, 2
1 62f3fd493b4b0101 vextracti64x4 [rbx + 32] {k1}, zmm1, 1
1 c4e1f8914b08 kmovq [rbx + 8], k1
1 c4e26990444810 vpgatherdd xmm0, [rax + xmm1*2 + 16], xmm2: what AVX-512 has above them, when it faults
1 c4e26d8c03 vpmaskmovd ymm0, ymm2, [rbx] likewise
1 62e1fe487f4b01 vmovdqu64 [rbx + 64], zmm17
1 62f1745b585301 vaddps zmm2 {k3}, zmm1, [rbx + 4] {1to16}
END
rm -f insn-fixed.log
"$diff" --seed=1 --cases=40000 && "$diff" --window --seed=5 --cases=40000 &&
	"$diff" --lax-flags --window --seed=78 --cases=20000 && exec "$diff" --lax-flags --seed=77 --cases=40000
