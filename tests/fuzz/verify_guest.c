/*
 * See verify.h.  This file: each guest instruction that computes is in the host's code, as the same operation on the same
 * registers, sizes and immediates, whatever the prefixes say in either mode.
 * Invariant: what is left out here has code of its own making (stack, branches, helpers), which verify_flow.c looks at.
 */
#include <stdio.h>
#include <string.h>

#include "common/gmem.h"
#include "tests/fuzz/verify.h"
#include "vcpu/cpu/mode.h"

static bool computes(const ZydisDecodedInstruction *z)
{
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_NOP:
	case ZYDIS_CATEGORY_WIDENOP:
	case ZYDIS_CATEGORY_PREFETCH:
	case ZYDIS_CATEGORY_PREFETCHWT1:
	case ZYDIS_CATEGORY_CET: /* these, MPX and CLDEMOTE: NOPs where they are not offered */
	case ZYDIS_CATEGORY_MPX:
	case ZYDIS_CATEGORY_CLDEMOTE:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_SMAP: return false;
	default: break;
	}
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_PAUSE:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2: return false;
	default: return true;
	}
}

static bool same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b, bool any_register)
{
	if (a->type != b->type || a->size != b->size)
		return false;
	switch (a->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER: return any_register || a->reg.value == b->reg.value;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE: return a->imm.value.u == b->imm.value.u;
	default: return true;
	}
}

static bool same(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, const struct verify_insn *in)
{
	bool bits = z->meta.category == ZYDIS_CATEGORY_BITBYTE && op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (z->mnemonic != in->z.mnemonic || z->operand_count_visible != in->z.operand_count_visible ||
	    (z->attributes ^ in->z.attributes) & ZYDIS_ATTRIB_HAS_LOCK)
		return false;
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (!same_operand(&op[i], &in->op[i], bits))
			return false;
	return true;
}

/* Guest bytes of the block from @goff on; their number. */
static unsigned guest_bytes(const struct verify *f, unsigned goff, uint8_t *buf)
{
	unsigned n = 0;

	for (; n < 15 && goff + n < f->b->len; n++) {
		uint64_t off = (f->b->gpa & GUEST_PAGE_MASK) + goff + n;
		uint64_t gpa =
			off < GMEM_PAGE_SIZE ? (f->b->gpa & ~GUEST_PAGE_MASK) + off : f->b->gpa2 + off - GMEM_PAGE_SIZE;
		const uint8_t *p = gmem_ptr(f->v->vm->mem, gpa, 1, GMEM_READ);

		if (!p)
			break;
		buf[n] = *p;
	}
	return n;
}

/* Is the guest instruction @z at @goff done by a helper, or by itself? */
static bool is_done(const struct verify *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
		    unsigned goff)
{
	for (uint32_t i = f->b->site; i < f->b->site + f->b->n_sites; i++) {
		const struct site *s = &f->bt->sites[i];

		if (s->goff != goff || s->host_off >= f->b->host_end)
			continue;
		if (s->kind == SITE_SYS || s->kind == SITE_STRING)
			return true;
		if (s->kind == SITE_INSN && same(z, op, &f->in[f->at[s->host_off - f->b->host_start]]))
			return true;
	}
	return false;
}

bool verify_guest(struct verify *f)
{
	unsigned size = mode_code_size(f->b->mode);
	ZydisDecoder d;

	ZydisDecoderInit(&d,
			 size == 8   ? ZYDIS_MACHINE_MODE_LONG_64
			 : size == 4 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
				     : ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
			 size == 8   ? ZYDIS_STACK_WIDTH_64
			 : size == 4 ? ZYDIS_STACK_WIDTH_32
				     : ZYDIS_STACK_WIDTH_16);
	for (unsigned goff = 0; goff < f->b->len;) {
		ZydisDecodedInstruction z;
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		uint8_t buf[15];
		unsigned n = guest_bytes(f, goff, buf);

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, buf, n, &z, op)))
			return true; /* #UD and the block's end */
		if (computes(&z) && !is_done(f, &z, op, goff)) {
			char what[64 + 3 * 15] = "guest instruction is not what runs: ";
			unsigned at = (unsigned)strlen(what);

			for (unsigned k = 0; k < z.length; k++)
				at += (unsigned)snprintf(what + at, sizeof what - at, "%02x ", buf[k]);
			return verify_fail(f, f->b->host_start, what);
		}
		goff += z.length;
	}
	return true;
}
