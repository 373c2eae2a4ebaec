/*
 * Accesses of translated code that lie in two pages of ordinary RAM, done
 * without leaving it for the run loop: a load's bytes are put together in the
 * bounce buffer, a plain store is done here.
 * Invariant: false means that nothing has happened that counts; the slow ways
 * (a bounced instruction, a helper) then find out what is in the way.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/vecregs.h"
#include "vcpu/mmu/mmu.h"

#define HALF (sizeof((struct vcpu *)0)->bounce / 2) /* the largest operand */

static unsigned bytes_left(uint64_t lin)
{
	return (unsigned)(GUEST_PAGE_MASK + 1 - (lin & GUEST_PAGE_MASK));
}

/* Where the next page begins; false when an access must not go there from the page of @lin. */
static bool next_page(const struct vcpu *v, uint64_t lin, uint64_t *next)
{
	*next = (lin | GUEST_PAGE_MASK) + 1;
	return mode_long(v->mode) || *next <= UINT32_MAX;
}

/* Host address of @lin, good for the whole page, when that page is RAM that may be read. */
static const uint8_t *ram_to_read(struct vcpu *v, uint64_t lin)
{
	if (!tlb_hit(v, lin, ACC_R) && tlb_fill(v, lin, 1, ACC_R) != TLB_FILLED_IN) {
		v->exc_pending = 0;
		return NULL;
	}
	return tlb_hit(v, lin, ACC_R);
}

/* Would a store at @lin go to RAM and have no other effect?  Looks without changing anything. */
static bool may_write(struct vcpu *v, uint64_t lin)
{
	struct walk w;
	int64_t frame;

	if (tlb_hit(v, lin, ACC_W))
		return true;
	if (mmu_probe(v, lin, mmu_acc(v, ACC_W), &w))
		return false;
	frame = gmem_frame(v->vm->mem, w.gpa);
	return frame >= 0 && !codepage_has(v, (uint64_t)frame);
}

/* Host address of @lin for writing, after may_write(). */
static uint8_t *ram_to_write(struct vcpu *v, uint64_t lin)
{
	if (!tlb_hit(v, lin, ACC_W) && tlb_fill(v, lin, 1, ACC_W) != TLB_FILLED_IN)
		v->exc_pending = 0;
	return tlb_hit(v, lin, ACC_W);
}

bool cross_read(struct vcpu *v, uint64_t lin, void *buf, unsigned len)
{
	unsigned first = bytes_left(lin);
	const uint8_t *p = ram_to_read(v, lin), *q;
	uint64_t next;

	if (!p)
		return false;
	if (len > first) {
		if (!next_page(v, lin, &next) || !(q = ram_to_read(v, next)))
			return false;
		for (unsigned k = 0; k < len; k++)
			((uint8_t *)buf)[k] = k < first ? p[k] : q[k - first];
	} else if (len == 8) {
		memcpy(buf, p, 8);
	} else {
		memcpy(buf, p, 4);
	}
	return true;
}

/* @len bytes, rounded up to words. */
static void copy_words(uint8_t *to, const uint8_t *from, unsigned len)
{
	for (unsigned k = 0; k < len; k += 8)
		memcpy(to + k, from + k, 8);
}

/*
 * The end of the one page and the beginning of the other meet in the middle of the buffer, by whole words:
 *            bounce        HALF
 *   | ... |  ....  operand | operand ...
 */
bool cross_load(struct vcpu *v, const struct site *s, uint64_t gva)
{
	unsigned first = bytes_left(gva), words = (s->size + 7u) & ~7u;
	const uint8_t *p, *q;
	uint64_t next;

	if (words > HALF || !next_page(v, gva, &next) || !(p = ram_to_read(v, gva)) || !(q = ram_to_read(v, next)))
		return false;
	copy_words(v->bounce + HALF - words, p + first - words, words);
	copy_words(v->bounce + HALF, q, words);
	v->mem_addend = (uint64_t)(uintptr_t)v->bounce + HALF - first - gva;
	return true;
}

/* What the instruction at @s stores, as site_store() told. */
static bool source(const struct vcpu *v, const struct site *s, uint8_t *buf)
{
	unsigned r = site_store_reg(s);

	if (!site_stores_vector(s)) {
		memcpy(buf, s->spill >> r & 1 ? &v->regs[r] : &v->host_regs[r], 8);
		return s->size <= 8;
	}
	if (v->fpu_saved || s->size > 64)
		return false;
	vecregs_peek(r, buf, s->size);
	return true;
}

/* No word where bytes are asked for: the neighbours may be another CPU's. */
static void copy_bytes(uint8_t *to, const uint8_t *from, unsigned len)
{
	for (; len >= 8; len -= 8, to += 8, from += 8)
		memcpy(to, from, 8);
	if (len & 4) {
		memcpy(to, from, 4);
		to += 4;
		from += 4;
	}
	if (len & 2) {
		memcpy(to, from, 2);
		to += 2;
		from += 2;
	}
	if (len & 1)
		*to = *from;
}

bool cross_store(struct vcpu *v, const struct site *s, uint64_t gva)
{
	unsigned first = bytes_left(gva);
	uint8_t buf[64] __attribute__((aligned(64)));
	uint64_t next;
	uint8_t *p, *q;

	if (!next_page(v, gva, &next) || !source(v, s, buf) || !may_write(v, gva) || !may_write(v, next) ||
	    !(p = ram_to_write(v, gva)) || !(q = ram_to_write(v, next)) || v->moved)
		return false;
	copy_bytes(p, buf, first);
	copy_bytes(q, buf + first, s->size - first);
	return true;
}
