/*
 * RFLAGS in pieces: see struct vcpu's flags, df, iflag and sysflags.
 */
#ifndef HVX_CPU_FLAGS_H
#define HVX_CPU_FLAGS_H

#include "vcpu/vcpu.h"

#define RFL_SYS (RFL_TF | RFL_IOPL | RFL_NT | RFL_RF | RFL_VM | RFL_AC | RFL_VIF | RFL_VIP | RFL_ID)
#define RFL_ALL (RFL_ARITH | RFL_DF | RFL_IF | RFL_SYS)

/* vcpu_set_rflags() without the vcpu_update_mode(): for callers that change more before they call it. */
static inline void flags_put(struct vcpu *v, uint64_t r)
{
	v->flags = (uint16_t)(((r & 0xd5) | RFL_FIX) << 8 | ((r >> 11) & 1));
	v->df = (r >> 10) & 1;
	v->iflag = (r >> 9) & 1;
	v->sysflags = (uint32_t)r & RFL_SYS;
}

static inline unsigned flags_iopl(const struct vcpu *v)
{
	return (v->sysflags >> 12) & 3;
}

/*
 * What a 16-bit popf or iret does to IF where VIF stands for it (SDM 2B POPF, 2A IRET with CR4.VME): @fl, about to be loaded
 * under @mask, gets VIF for IF.  0, or -1 after raising #GP(0): TF, or IF while an interrupt waits.
 */
int flags_virtual_if(struct vcpu *v, uint64_t *fl, uint64_t *mask);

/* Replaces the arithmetic flags in @mask by those of @val (RFL_* bits). */
void flags_set_arith(struct vcpu *v, uint32_t mask, uint32_t val);

#endif
