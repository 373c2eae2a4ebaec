/*
 * Segment registers, descriptors and transfers through them.
 */
#ifndef HVX_CPU_SEGMENT_H
#define HVX_CPU_SEGMENT_H

#include "vcpu/cpu/operand.h"

/* Descriptor types: system (S = 0) and bits of code and data. */
enum {
	DT_TSS16 = 1,
	DT_LDT = 2,
	DT_TSS16_BUSY = 3,
	DT_CALL16 = 4,
	DT_TASK = 5,
	DT_INT16 = 6,
	DT_TRAP16 = 7,
	DT_TSS32 = 9,
	DT_TSS32_BUSY = 11,
	DT_CALL32 = 12,
	DT_INT32 = 14,
	DT_TRAP32 = 15
};
#define SEG_T_CODE  8u
#define SEG_T_CONF  4u /* code: conforming */
#define SEG_T_RW    2u /* code: readable; data: writable */
#define SEG_T_ACC   1u
#define SEG_TYPE(a) ((a)&15u)

struct desc {
	uint32_t lo, hi;
	uint32_t base_hi, hi2; /* second half of a 16-byte descriptor */
	uint64_t gva;          /* of the descriptor itself */
	bool wide;             /* the second half was read */
};

static inline uint32_t desc_attr(const struct desc *d)
{
	return (d->hi >> 8) & 0xf0ff;
}

/* Attributes of the flat segments that syscall and friends load, without DPL. */
#define SEG_FLAT_CODE64 (SEG_A_P | SEG_A_S | SEG_A_L | SEG_A_G | 0xb)
#define SEG_FLAT_CODE32 (SEG_A_P | SEG_A_S | SEG_A_DB | SEG_A_G | 0xb)
#define SEG_FLAT_DATA   (SEG_A_P | SEG_A_S | SEG_A_DB | SEG_A_G | 0x3)

/*
 * Reads the descriptor of @sel.  A selector outside its table raises @vector
 * with error code sel | @ext.  Errors of the read itself are raised as they
 * come.  0 or -1.
 */
int desc_fetch(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d);
/* The second half of a system descriptor in long mode. */
int desc_fetch_wide(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d);
/* Like desc_fetch without raising: false when the selector is outside its table; -1 in *fault when raised. */
bool desc_try(struct vcpu *v, uint16_t sel, struct desc *d, int *fault);
/* Sets the accessed (or with @bit = 2 the busy) bit in memory. */
int desc_mark(struct vcpu *v, struct desc *d, uint32_t bit);
void seg_from_desc(struct seg *s, uint16_t sel, const struct desc *d);
void seg_set_null(struct seg *s, uint16_t sel);

/* Loads ES, SS, DS, FS or GS with all checks; 0 or -1. */
int seg_load(struct vcpu *v, unsigned seg, uint16_t sel);
/* The checks of seg_load for SS at privilege @cpl into @out; errors as @vector (#GP, or #TS from a TSS) with @ext. */
int seg_check_ss(struct vcpu *v, uint16_t sel, unsigned cpl, unsigned vector, uint32_t ext, struct seg *out);
/* The same for ES, DS, FS and GS at the current privilege; null is good. */
int seg_check_data(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct seg *out);
/* What virtual-8086 mode has in a segment register: base 16 * @sel, 64 KiB, ring 3 (SDM 3A 20.2.1). */
void seg_set_v86(struct seg *s, uint16_t sel);
int seg_load_ldt(struct vcpu *v, uint16_t sel);
int seg_load_tr(struct vcpu *v, uint16_t sel);

/* Stack of ring @cpl from the TSS, in the TSS's own format; in long mode only *sp.  #TS on failure. */
int tss_stack(struct vcpu *v, unsigned cpl, uint32_t ext, uint16_t *ss, uint64_t *sp);
int tss_ist(struct vcpu *v, unsigned ist, uint32_t ext, uint64_t *sp);

/*
 * Far transfers (cpu/far.c).  @opsize in bytes, @next the return address.  On
 * success v->rip, CS (SS, rsp) and CPL are the target's.  Where they switch tasks, v->rip may be the new task's
 * when they raise.
 */
int far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next);
int far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next);
int far_return(struct vcpu *v, unsigned opsize, unsigned pop);
int far_iret(struct vcpu *v, unsigned opsize, uint64_t next);

#endif
