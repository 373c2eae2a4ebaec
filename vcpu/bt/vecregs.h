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

/* The standard XSAVE format (SDM 1 13.4): where vector registers and the header are. */
#define AREA_XMM    160
#define AREA_BV     512
#define AREA_YMM_HI 576
#define BV_SSE_AVX  6u

static inline void vecregs_open(struct vcpu *v)
{
	uint64_t bv;

	vcpu_fpu_in(v);
	__asm__ volatile("xsave64 %0" : "+m"(v->fpu_area) : "a"(BV_SSE_AVX), "d"(0) : "memory");
	v->fpu_saved = 1;
	memcpy(&bv, v->fpu_area + AREA_BV, sizeof bv);
	bv |= BV_SSE_AVX;
	memcpy(v->fpu_area + AREA_BV, &bv, sizeof bv);
}

static inline void vecregs_close(struct vcpu *v)
{
	__asm__ volatile("xrstor64 %0" : : "m"(v->fpu_area), "a"(BV_SSE_AVX), "d"(0) : "memory");
	v->fpu_saved = 0;
}

/* The low 16 or 32 bytes of vector register @reg, which is in the host's. */
static inline void vecregs_peek(unsigned reg, uint8_t *buf, bool wide)
{
#define PEEK(n)                                                                                   \
	case n:                                                                                   \
		if (wide)                                                                         \
			__asm__ volatile("vmovups %%ymm" #n ", %0" : "=m"(*(uint8_t(*)[32])buf)); \
		else                                                                              \
			__asm__ volatile("movups %%xmm" #n ", %0" : "=m"(*(uint8_t(*)[16])buf));  \
		break
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
	}
#undef PEEK
}

/* Byte @off, below 32, of vector register @reg. */
static inline uint8_t *vecregs_byte(struct vcpu *v, unsigned reg, unsigned off)
{
	return v->fpu_area + (off < 16 ? AREA_XMM + reg * 16 + off : AREA_YMM_HI + reg * 16 + off - 16);
}

#endif
