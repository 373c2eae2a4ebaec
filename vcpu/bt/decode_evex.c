/*
 * EVEX: which elements of an operand in memory a mask register chooses.
 * Invariant: insn.k is set where the CPU suppresses faults of what is not chosen or leaves it as it is; elsewhere the whole operand
 * is accessed.
 */
#include "vcpu/bt/decode_evex.h"

#include <stdbool.h>

#include "vcpu/bt/evex.h"

/* Exception types without fault suppression (SDM 2A 2.8), and instructions that the decoder has in the wrong one. */
static bool suppresses(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_VDBPSADBW:
	case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB: return false;
	default: break;
	}
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E2:
	case ZYDIS_EXCEPTION_CLASS_E3:
	case ZYDIS_EXCEPTION_CLASS_E4:
	case ZYDIS_EXCEPTION_CLASS_E5:
	case ZYDIS_EXCEPTION_CLASS_E6:
	case ZYDIS_EXCEPTION_CLASS_E10:
	case ZYDIS_EXCEPTION_CLASS_E11: return true;
	default: return false;
	}
}

static const ZydisDecodedOperand *memory(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &op[i];
	return NULL;
}

static bool is_vector(const ZydisDecodedOperand *o)
{
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM: return true;
	default: return false;
	}
}

/* Elements that are computed: as many as the widest of them fit into the vector; those in memory when each makes a mask's bit. */
static unsigned lanes(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, const ZydisDecodedOperand *mem)
{
	unsigned widest = mem->element_size, n;

	if (ZydisRegisterGetClass(op[0].reg.value) == ZYDIS_REGCLASS_MASK && op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return z->avx.vector_length / widest;
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (is_vector(&op[i]) && op[i].element_size > widest)
			widest = op[i].element_size;
	n = z->avx.vector_length / (widest ? widest : 1);
	return (mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && mem->element_count < n ? mem->element_count : n;
}

static bool is_scalar(const ZydisDecodedInstruction *z)
{
	return z->meta.isa_set == ZYDIS_ISA_SET_AVX512F_SCALAR || z->meta.isa_set == ZYDIS_ISA_SET_AVX512DQ_SCALAR;
}

void decode_evex_mask(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	const ZydisDecodedOperand *mem = memory(z, op);
	unsigned k = z->raw.evex.aaa, n;
	bool store;

	if (!k || !mem || mem->mem.type != ZYDIS_MEMOP_TYPE_MEM || !mem->element_size)
		return;
	store = mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	if (!suppresses(z) && !store)
		return;
	n = is_scalar(z) ? 1 : lanes(z, op, mem);
	if (!n || n > 64)
		return;
	in->k_bits = (uint8_t)n;
	in->k_size = (uint8_t)(in->mem.size / n);
	in->k_way = suppresses(z) ? K_EACH : K_WHOLE;
	if (mem->element_count == 1) {
		in->k_way = K_ANY;
	} else if (z->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
		in->k_way = K_TUPLE;
	} else if (z->meta.category == ZYDIS_CATEGORY_COMPRESS || z->meta.category == ZYDIS_CATEGORY_EXPAND) {
		in->k_way = K_PACKED;
	} else if (in->k_size * 8 < mem->element_size) {
		return; /* a count, or a part of a vector */
	}
	if (in->k_way == K_TUPLE || in->k_way == K_ANY)
		in->k_size = (uint8_t)(mem->element_size / 8);
	in->k = (uint8_t)k;
	in->masked = 1;
	in->mem_read = !!(mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
}

/* Does W choose between general registers of 32 and 64 bits? */
static bool w_is_gpr(const struct insn *in, unsigned pp)
{
	switch (in->opcode_map) {
	case ZYDIS_OPCODE_MAP_0F:
		return (in->opcode >= 0x2a && in->opcode <= 0x2d) || in->opcode == 0x6e ||
		       (in->opcode == 0x7e && pp == 1) ||
		       ((in->opcode & 0xfc) == 0x78 && pp >= 2 && in->opcode != 0x7a);
	case ZYDIS_OPCODE_MAP_0F38: return in->opcode == 0x7c;
	case ZYDIS_OPCODE_MAP_0F3A: return in->opcode == 0x16 || in->opcode == 0x22;
	default: return false;
	}
}

void decode_evex_narrow(struct insn *in, const ZydisDecodedInstruction *z)
{
	uint8_t *p = in->raw + in->off_prefix_end;

	p[1] |= 0xf0;
	p[2] |= 0x40;
	p[3] |= 0x08;
	if (in->rex_w && w_is_gpr(in, z->raw.evex.pp)) {
		p[2] &= 0x7f;
		in->rex_w = 0;
	}
}
