/*
 * Page tables for 64-bit guests (4 levels) and what an access must do to them.
 * Invariant: pt_expect is written from SDM 3A 4.6 and 4.7 alone; it is the
 * judge of every permutation test.
 */
#ifndef FLAT_PT_H
#define FLAT_PT_H

#include "rt.h"

#define P_P    1ull
#define P_W    2ull
#define P_U    4ull
#define P_A    0x20ull
#define P_D    0x40ull
#define P_PS   0x80ull
#define P_G    0x100ull
#define P_NX   0x8000000000000000ull
#define P_ADDR 0x000ffffffffff000ull

#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u

#define PT_POOL     0x1000000u /* frames for tests: 16 MiB up */
#define PT_POOL_END 0x2000000u

enum access {
	ACC_KREAD,
	ACC_KWRITE,
	ACC_KRMW,
	ACC_KEXEC,
	ACC_UREAD,
	ACC_UWRITE,
	ACC_URMW,
	ACC_UEXEC,
	ACC_KIMPL,
	ACC_UIMPL,
	ACC_COUNT
};

struct pt_case {
	bool p, u, w, nx; /* of the whole path */
	bool rsvd;        /* a reserved bit is set on it (and every level up to it is present) */
	bool wp, smep, smap, ac, nxe;
	enum access acc;
};

static inline bool acc_user(enum access a)
{
	return a >= ACC_UREAD && a <= ACC_UEXEC;
}
static inline bool acc_write(enum access a)
{
	return a == ACC_KWRITE || a == ACC_KRMW || a == ACC_UWRITE || a == ACC_URMW;
}
static inline bool acc_fetch(enum access a)
{
	return a == ACC_KEXEC || a == ACC_UEXEC;
}

/* The #PF error code of @c, or -1 when the access goes through. */
static inline int pt_expect(const struct pt_case *c)
{
	int err = (acc_write(c->acc) ? PF_W : 0) | (acc_user(c->acc) ? PF_U : 0) |
		  (acc_fetch(c->acc) && (c->nxe || c->smep) ? PF_I : 0);
	bool implicit = c->acc == ACC_KIMPL || c->acc == ACC_UIMPL;
	bool bad;

	if (!c->p)
		return err;
	if (c->rsvd || (c->nx && !c->nxe))
		return err | PF_RSVD | PF_P;
	if (acc_user(c->acc))
		bad = !c->u || (acc_write(c->acc) && !c->w) || (acc_fetch(c->acc) && c->nx);
	else if (acc_fetch(c->acc))
		bad = c->nx || (c->u && c->smep);
	else
		bad = (c->u && c->smap && (implicit || !c->ac)) || (acc_write(c->acc) && !c->w && c->wp);
	return bad ? err | (int)PF_P : -1;
}

extern uint64_t rt_pml4[512];
uint64_t pt_frame(void); /* a zeroed frame of the pool */
/* The entry for @va at @level (1 = 4K entry ... 4), tables above it made with P W U. */
uint64_t *pt_entry(uint64_t root, uint64_t va, int level);
void pt_map(uint64_t root, uint64_t va, uint64_t entry, int level);

#endif
