/*
 * The guest's vector registers as bytes, for instructions that are done element
 * by element in C.
 * Invariant: between vecregs_open() and vecregs_close() vcpu.fpu_area is the
 * truth and nobody saves over it.
 */
#ifndef HVX_VECREGS_H
#define HVX_VECREGS_H

#include <stdbool.h>
#include <string.h>

#include "vcpu/vcpu.h"

/* The standard XSAVE format (SDM 1 13.4): where vector registers and the header are.  The rest is in vcpu.xs. */
#define AREA_XMM    160
#define AREA_BV     512
#define AREA_YMM_HI 576
enum { XS_MASKS = 5, XS_ZMM_HI, XS_ZMM_16 };

/* Of XCR0: all vector registers that the guest has. */
static inline uint32_t vecregs_parts(const struct vcpu *v)
{
	return (uint32_t)v->xcr0_mask & XCR0_AVX512;
}

static inline void vecregs_open(struct vcpu *v)
{
	uint64_t bv;

	vcpu_fpu_in(v);
	__asm__ volatile("xsave64 %0" : "+m"(v->fpu_area) : "a"(vecregs_parts(v)), "d"(0) : "memory");
	v->fpu_saved = 1;
	memcpy(&bv, v->fpu_area + AREA_BV, sizeof bv);
	bv |= vecregs_parts(v);
	memcpy(v->fpu_area + AREA_BV, &bv, sizeof bv);
}

static inline void vecregs_close(struct vcpu *v)
{
	__asm__ volatile("xrstor64 %0" : : "m"(v->fpu_area), "a"(vecregs_parts(v)), "d"(0) : "memory");
	v->fpu_saved = 0;
}

/* The low 16, 32 or 64 bytes of vector register @reg, which is in the host's; AVX-512's registers where there are such. */
static inline void vecregs_peek(unsigned reg, uint8_t *buf, unsigned bytes)
{
#define STORE(insn, n, size) __asm__ volatile(insn #n ", %0" : "=m"(*(uint8_t(*)[size])buf))
#define PEEK(n)                                        \
	case n:                                        \
		if (bytes > 32)                        \
			STORE("vmovups %%zmm", n, 64); \
		else if (bytes > 16)                   \
			STORE("vmovups %%ymm", n, 32); \
		else                                   \
			STORE("movups %%xmm", n, 16);  \
		break
#define PEEK_HIGH(n) \
	case n: STORE("vmovups %%zmm", n, 64); break
	switch (reg) {
		PEEK(0);
		PEEK(1);
		PEEK(2);
		PEEK(3);
		PEEK(4);
		PEEK(5);
		PEEK(6);
		PEEK(7);
		PEEK(8);
		PEEK(9);
		PEEK(10);
		PEEK(11);
		PEEK(12);
		PEEK(13);
		PEEK(14);
		PEEK(15);
		PEEK_HIGH(16);
		PEEK_HIGH(17);
		PEEK_HIGH(18);
		PEEK_HIGH(19);
		PEEK_HIGH(20);
		PEEK_HIGH(21);
		PEEK_HIGH(22);
		PEEK_HIGH(23);
		PEEK_HIGH(24);
		PEEK_HIGH(25);
		PEEK_HIGH(26);
		PEEK_HIGH(27);
		PEEK_HIGH(28);
		PEEK_HIGH(29);
		PEEK_HIGH(30);
		PEEK_HIGH(31);
	}
#undef PEEK_HIGH
#undef PEEK
#undef STORE
}

/* Bytes of a vector register. */
static inline unsigned vecregs_size(const struct vcpu *v)
{
	return v->xcr0_mask & XCR0_AVX512_ONLY ? 64 : 32;
}

/* Byte @off, below vecregs_size(), of vector register @reg. */
static inline uint8_t *vecregs_byte(struct vcpu *v, unsigned reg, unsigned off)
{
	if (reg > 15)
		return v->fpu_area + v->xs.off[XS_ZMM_16] + (reg - 16) * 64 + off;
	if (off > 31)
		return v->fpu_area + v->xs.off[XS_ZMM_HI] + reg * 32 + off - 32;
	return v->fpu_area + (off < 16 ? AREA_XMM + reg * 16 + off : AREA_YMM_HI + reg * 16 + off - 16);
}

/* Mask register @k, between vecregs_open() and vecregs_close(). */
static inline uint64_t vecregs_mask(const struct vcpu *v, unsigned k)
{
	uint64_t mask;

	memcpy(&mask, v->fpu_area + v->xs.off[XS_MASKS] + k * 8u, sizeof mask);
	return mask;
}

static inline void vecregs_set_mask(struct vcpu *v, unsigned k, uint64_t mask)
{
	memcpy(v->fpu_area + v->xs.off[XS_MASKS] + k * 8u, &mask, sizeof mask);
}

#endif
