/*
 * Address strategies: how translated code gets from a guest address to the host's.  One row each, tried in order; the
 * last one takes whatever is left.
 */
#ifndef HVX_ADDR_H
#define HVX_ADDR_H

#include "vcpu/bt/tr.h"

enum addr {
	ADDR_BOUNCE, /* the operand is in a buffer in struct vcpu */
	ADDR_SEGMENT, /* a segment's base and limit, then the soft TLB: 16-bit code, and other code whose segments are not flat */
	ADDR_CHECKED, /* segments, alignment, breakpoints: every access in C */
	ADDR_GROUP,   /* one check for several accesses through one register */
	ADDR_SOFT,    /* a check in the soft TLB */
	ADDR_COUNT
};

/* One access of the current instruction: @t1 and @t2 are scratch; t2 stays in use until the access. */
struct access {
	const struct ea *ea;
	unsigned size, acc;
	uint8_t t1, t2;
};

struct addr_strategy {
	bool (*match)(struct tr *t, const struct access *a);
	struct hmem (*emit)(struct tr *t, const struct access *a); /* the check; the host operand */
	void (*cold)(struct tr *t, const struct cold *k);          /* where a check that fails leads; NULL: none */
	int (*fault)(struct vcpu *v, const struct site *s);        /* and then in C: as bt_c_mem() */
};
extern const struct addr_strategy addr_strategies[ADDR_COUNT];

/* bt/addr_soft.c: parts that others use.  t2 = soft TLB index of the address in t1; the tables' offsets in struct vcpu;
 * the operand [ea + t2], recomputing the address in t1 where it does not fit beside t2; what of an address to compare: its page,
 * and whether it is aligned. */
void addr_tlb_index(struct tr *t, uint8_t t1, uint8_t t2);
size_t addr_tag_offset(const struct tr *t, unsigned acc);
size_t addr_addend_offset(const struct tr *t, unsigned acc);
struct hmem addr_operand(struct tr *t, const struct ea *e, uint8_t t1, uint8_t t2);
int32_t addr_align_mask(unsigned size);
struct hmem addr_soft_emit(struct tr *t, const struct access *a);
void addr_soft_cold(struct tr *t, const struct cold *k);

/* bt/addr_checked.c */
bool addr_checked_match(struct tr *t, const struct access *a);
struct hmem addr_checked_emit(struct tr *t, const struct access *a);

/* bt/addr_segment.c */
bool addr_segment_match(struct tr *t, const struct access *a);
struct hmem addr_segment_emit(struct tr *t, const struct access *a);
void addr_segment_cold(struct tr *t, const struct cold *k);

/* bt/addr_group.c */
bool addr_group_match(struct tr *t, const struct access *a);
struct hmem addr_group_emit(struct tr *t, const struct access *a);
void addr_group_cold(struct tr *t, const struct cold *k);

/* bt/access.c: the fault column; the access of @s is at v->mem_gva. */
int access_checked_fault(struct vcpu *v, const struct site *s);
int access_segment_fault(struct vcpu *v, const struct site *s);
int access_group_fault(struct vcpu *v, const struct site *s);
int access_soft_fault(struct vcpu *v, const struct site *s);

#endif
