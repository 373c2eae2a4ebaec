/*
 * Guest bytes to struct insn.  Invariant: no Zydis type or number leaves this
 * file and decode_evex.c but insn.mnemonic, which only traces use.
 */
#include "vcpu/bt/decode.h"

#include <Zydis/Zydis.h>
#include <stdbool.h>

#include "vcpu/bt/decode_evex.h"
#include "vcpu/bt/offered.h"
#include "vcpu/cpu/feature.h"

/*
 * The decoder for a CPU with @features.  What extensions made of older instructions stays the older instruction where they are
 * not offered: the NOPs of 0F 1A, 1B (MPX), 1C (cldemote) and 1E (CET's rdssp and endbr), bsf and bsr with an idle F3.
 * Near branches of AMD's obey 66h in 64-bit code, Intel's do not (APM 3 1.2.3, SDM 2 CALL, JMP).
 */
static void decoder_init(ZydisDecoder *d, unsigned code_size, uint64_t features)
{
	ZydisDecoderInit(d,
			 code_size == 8   ? ZYDIS_MACHINE_MODE_LONG_64
			 : code_size == 4 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
					  : ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
			 code_size == 8   ? ZYDIS_STACK_WIDTH_64
			 : code_size == 4 ? ZYDIS_STACK_WIDTH_32
					  : ZYDIS_STACK_WIDTH_16);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, false);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, false);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, false);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, !!(features & FEAT(BMI1)));
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, !!(features & FEAT(ABM)));
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES, code_size == 8 && (features & FEAT(AMD)));
}

/* GPR number of any register naming a GPR, else R_NONE. */
static uint8_t gpr_of(ZydisRegister r)
{
	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return R_RIP;
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (uint8_t)(r - ZYDIS_REGISTER_AH);
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: {
		ZydisRegister w = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
		return (uint8_t)(w - ZYDIS_REGISTER_RAX);
	}
	default: return R_NONE;
	}
}

static uint8_t seg_of(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (uint8_t)(r - ZYDIS_REGISTER_ES) : SEG_DS;
}

static uint8_t flags_of(ZydisAccessedFlagsMask m)
{
	uint8_t f = 0;

	f |= m & ZYDIS_CPUFLAG_CF ? FL_CF : 0;
	f |= m & ZYDIS_CPUFLAG_PF ? FL_PF : 0;
	f |= m & ZYDIS_CPUFLAG_AF ? FL_AF : 0;
	f |= m & ZYDIS_CPUFLAG_ZF ? FL_ZF : 0;
	f |= m & ZYDIS_CPUFLAG_SF ? FL_SF : 0;
	f |= m & ZYDIS_CPUFLAG_OF ? FL_OF : 0;
	f |= m & ZYDIS_CPUFLAG_DF ? FL_DF : 0;
	return f;
}

/* A shift or rotate whose count may be zero leaves the flags alone then. */
static bool flags_conditional(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_ROTATE:
		for (int i = 1; i < z->operand_count_visible; i++)
			if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && op[i].reg.value == ZYDIS_REGISTER_CL)
				return true;
			else if (op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
				 (op[i].imm.value.u & (z->operand_width == 64 ? 63 : 31)) == 0)
				return true;
		return false;
	case ZYDIS_CATEGORY_STRINGOP: return true;
	default: return z->mnemonic == ZYDIS_MNEMONIC_RCL || z->mnemonic == ZYDIS_MNEMONIC_RCR;
	}
}

static void fill_flags(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	const ZydisAccessedFlags *f = z->cpu_flags;

	if (!f)
		return;
	in->fl_read = flags_of(f->tested);
	in->fl_write = flags_of(f->modified | f->set_0 | f->set_1 | f->undefined);
	in->fl_kill = flags_conditional(z, op) ? 0 : in->fl_write;
}

static void fill_reg_use(struct insn *in, const ZydisDecodedOperand *o)
{
	uint8_t r = gpr_of(o->reg.value);
	uint16_t bit;

	if (r > 15)
		return;
	if (o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH)
		in->high8 = 1;
	bit = (uint16_t)(1u << r);
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		in->gpr_read |= bit;
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
		in->gpr_write |= bit;
		if (o->size < 32 || (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
			in->gpr_read |= bit; /* the rest of it survives */
	}
}

static void fill_mem_regs(struct insn *in, const ZydisDecodedOperand *o)
{
	uint8_t b = gpr_of(o->mem.base), x = gpr_of(o->mem.index);

	if (o->mem.base != ZYDIS_REGISTER_NONE && b < 16)
		in->gpr_read |= (uint16_t)(1u << b);
	if (o->mem.index != ZYDIS_REGISTER_NONE && x < 16)
		in->gpr_read |= (uint16_t)(1u << x);
}

static void fill_explicit_mem(struct insn *in, const ZydisDecodedOperand *o)
{
	in->has_mem = 1;
	in->mem.base = o->mem.base == ZYDIS_REGISTER_NONE ? R_NONE : gpr_of(o->mem.base);
	in->mem.index = o->mem.index == ZYDIS_REGISTER_NONE ? R_NONE : gpr_of(o->mem.index);
	in->mem.scale = o->mem.scale ? o->mem.scale : 1;
	in->mem.seg = seg_of(o->mem.segment);
	in->mem.size = (uint16_t)(o->size / 8);
	in->mem.disp = (int32_t)o->mem.disp.value;
	in->mem_read = !!(o->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
	in->mem_write = !!(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	if (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
		in->mem_read = 1;
}

/* Moves that leave elements of their operand alone. */
static bool is_masked_move(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VMASKMOVPD || m == ZYDIS_MNEMONIC_VPMASKMOVD ||
	       m == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

/* fisttp came with SSE3, but belongs here. */
static bool is_x87(const ZydisDecodedInstruction *z)
{
	return z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->mnemonic == ZYDIS_MNEMONIC_FISTTP;
}

/* Does it look for a pending x87 exception before anything else?  (SDM 1 8.6, 9.5.1) */
static bool waits(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	if (is_x87(z))
		return z->mnemonic != ZYDIS_MNEMONIC_FNSTCW && z->mnemonic != ZYDIS_MNEMONIC_FNSTSW;
	for (int i = 0; i < z->operand_count; i++)
		if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(op[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/* The decoder takes [disp32 + index] with REX.B for [r13 + index] when the address size is 32 bits: there is no base. */
static void fix_no_base(struct insn *in, const ZydisDecodedInstruction *z)
{
	if (!(z->attributes & ZYDIS_ATTRIB_HAS_SIB) || z->raw.modrm.mod || z->raw.sib.base != 5)
		return;
	in->mem.base = R_NONE;
	in->mem.disp = (int32_t)z->raw.disp.value;
}

/* Segment and size of the implicit operand of xlat and maskmov. */
static void fill_implicit_mem(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		in->mem.seg = seg_of(o->mem.segment);
		in->mem.size = (uint16_t)(o->size / 8);
		return;
	default: return;
	}
}

static void fill_operands(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	for (int i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *o = &op[i];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			fill_reg_use(in, o);
		} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			fill_mem_regs(in, o);
			if (o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT && !in->has_mem) {
				fill_explicit_mem(in, o);
				fix_no_base(in, z);
			} else if (!in->has_mem) {
				fill_implicit_mem(in, z, o);
			}
			if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
				in->imm = o->mem.disp.value; /* moffs */
		} else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && i < z->operand_count_visible) {
			if (in->imm_size && in->off_imm == z->raw.imm[0].offset && !in->imm2 && i > 0 &&
			    op[i - 1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
				in->imm2 = (int32_t)o->imm.value.s;
			else
				in->imm = o->imm.value.s;
		} else if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
			in->imm = o->ptr.offset;
			in->imm2 = o->ptr.segment;
		}
	}
	in->masked = in->has_mem && is_masked_move(z->mnemonic);
	if (in->has_mem && in->enc == ENC_EVEX)
		decode_evex_mask(in, z, op);
	in->waits = waits(z, op);
	if (in->mem_write && is_x87(z))
		in->mem_read = 1; /* an unmasked exception leaves memory alone */
	if (z->mnemonic == ZYDIS_MNEMONIC_CLFLUSH || z->mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT ||
	    z->mnemonic == ZYDIS_MNEMONIC_CLWB)
		in->mem.size = 1; /* a line, wherever in it the address points */
	if (z->mnemonic == ZYDIS_MNEMONIC_BSF || z->mnemonic == ZYDIS_MNEMONIC_BSR)
		in->gpr_read |= in->gpr_write; /* a zero source leaves the destination alone */
	in->gpr_kill = in->gpr_write & (uint16_t)~in->gpr_read;
}

static bool is_rex(uint8_t b)
{
	return (b & 0xf0) == 0x40;
}

static bool is_legacy_prefix(uint8_t b)
{
	switch (b) {
	case 0x66:
	case 0x67:
	case 0xf2:
	case 0xf3:
	case 0xf0:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x26:
	case 0x64:
	case 0x65: return true;
	default: return false;
	}
}

/* A REX that is not the last prefix is none: the CPU ignores it (SDM 2A 2.2.1).  Kept, it would hide the one we need. */
static bool is_idle_rex(const struct insn *in, unsigned i, unsigned code_size)
{
	return code_size == 8 && is_rex(in->raw[i]) && i + 1 < in->len &&
	       (is_legacy_prefix(in->raw[i + 1]) || is_rex(in->raw[i + 1]));
}

static void fill_layout(struct insn *in, const ZydisDecodedInstruction *z, unsigned code_size)
{
	unsigned i = 0;

	while (i < in->len && (is_legacy_prefix(in->raw[i]) || is_idle_rex(in, i, code_size))) {
		if (in->raw[i] == 0xf2 || in->raw[i] == 0xf3)
			in->rep = in->raw[i];
		if (in->raw[i] == 0xf0)
			in->lock = 1;
		i++;
	}
	in->off_prefix_end = (uint8_t)i;
	switch (z->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		in->enc = in->raw[i] == 0xc5 ? ENC_VEX2 : ENC_VEX3;
		in->rex_w = z->raw.vex.W;
		in->off_opcode = (uint8_t)(i + (in->enc == ENC_VEX2 ? 2 : 3));
		break;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		in->enc = ENC_EVEX;
		in->rex_w = z->raw.evex.W;
		in->off_opcode = (uint8_t)(i + 4);
		break;
	case ZYDIS_INSTRUCTION_ENCODING_XOP: in->enc = ENC_XOP; break;
	default:
		in->enc = ENC_LEGACY;
		in->rex_w = code_size == 8 && (z->attributes & ZYDIS_ATTRIB_HAS_REX) && z->raw.rex.W;
		if (code_size == 8 && is_rex(in->raw[i]))
			i++;
		in->off_opcode = (uint8_t)i;
	}
	in->opcode_map = (uint8_t)z->opcode_map;
	in->opcode = z->opcode;
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		in->has_modrm = 1;
		in->off_modrm = z->raw.modrm.offset;
		in->reg = z->raw.modrm.reg;
		if (in->enc == ENC_LEGACY && (z->attributes & ZYDIS_ATTRIB_HAS_REX))
			in->reg |= (uint8_t)(z->raw.rex.R << 3);
	}
	if (z->raw.disp.size) {
		in->off_disp = z->raw.disp.offset;
		in->disp_size = z->raw.disp.size / 8;
	}
	if (z->raw.imm[0].size) {
		in->off_imm = z->raw.imm[0].offset;
		in->imm_size = z->raw.imm[0].size / 8;
	}
}

/* Does VEX.W choose between 32-bit and 64-bit general registers here? */
static bool vex_w_is_gpr(const struct insn *in)
{
	switch (in->opcode_map) {
	case ZYDIS_OPCODE_MAP_0F:
		return (in->opcode >= 0x2a && in->opcode <= 0x2d) || in->opcode == 0x6e || in->opcode == 0x7e ||
		       (in->opcode & 0xfe) == 0x92; /* kmovd */
	case ZYDIS_OPCODE_MAP_0F38: return in->opcode >= 0xf2 && in->opcode <= 0xf7;
	default: /* rorx, pextr, pinsr, pcmpestri and pcmpestrm */
		return in->opcode == 0xf0 || in->opcode == 0x16 || in->opcode == 0x22 || in->opcode == 0x60 ||
		       in->opcode == 0x61;
	}
}

/* VEX bits that a CPU ignores outside 64-bit code, but that our 64-bit copy would obey: B, vvvv's and is4's top bit, and
 * W where it is a general register's size.  (SDM 2A 2.3.5) */
static void clear_ignored(struct insn *in)
{
	if (in->enc == ENC_VEX3) {
		uint8_t *p1 = &in->raw[in->off_prefix_end + 1], *p2 = p1 + 1;

		*p1 |= 0x20;
		*p2 |= 0x40;
		if (vex_w_is_gpr(in) && in->rex_w) {
			*p2 &= 0x7f;
			in->rex_w = 0;
		}
	}
	if (in->enc == ENC_VEX3 && in->opcode_map == ZYDIS_OPCODE_MAP_0F3A && in->opcode >= 0x4a && in->opcode <= 0x4c)
		in->raw[in->off_imm] &= 0x7f;
}

#define M(x) ZYDIS_MNEMONIC_##x

/* Mnemonics with semantics in C, whatever their operands. */
static enum sysop sysop_of(ZydisMnemonic m)
{
	switch (m) {
	case M(CLI): return SYS_CLI;
	case M(STI): return SYS_STI;
	case M(PUSHF):
	case M(PUSHFD):
	case M(PUSHFQ): return SYS_PUSHF;
	case M(POPF):
	case M(POPFD):
	case M(POPFQ): return SYS_POPF;
	case M(HLT): return SYS_HLT;
	case M(INT): return SYS_INT;
	case M(INT1): return SYS_INT1;
	case M(INT3): return SYS_INT3;
	case M(INTO): return SYS_INTO;
	case M(IRET):
	case M(IRETD):
	case M(IRETQ): return SYS_IRET;
	case M(SYSCALL): return SYS_SYSCALL;
	case M(SYSRET): return SYS_SYSRET;
	case M(SYSENTER): return SYS_SYSENTER;
	case M(SYSEXIT): return SYS_SYSEXIT;
	case M(CLTS): return SYS_CLTS;
	case M(LMSW): return SYS_LMSW;
	case M(SMSW): return SYS_SMSW;
	case M(INVLPG): return SYS_INVLPG;
	case M(INVPCID): return SYS_INVPCID;
	case M(INVD): return SYS_INVD;
	case M(WBINVD): return SYS_WBINVD;
	case M(LGDT): return SYS_LGDT;
	case M(LIDT): return SYS_LIDT;
	case M(SGDT): return SYS_SGDT;
	case M(SIDT): return SYS_SIDT;
	case M(LLDT): return SYS_LLDT;
	case M(LTR): return SYS_LTR;
	case M(SLDT): return SYS_SLDT;
	case M(STR): return SYS_STR;
	case M(LAR): return SYS_LAR;
	case M(LSL): return SYS_LSL;
	case M(VERR): return SYS_VERR;
	case M(VERW): return SYS_VERW;
	case M(ARPL): return SYS_ARPL;
	case M(LES):
	case M(LDS):
	case M(LSS):
	case M(LFS):
	case M(LGS): return SYS_LOAD_FAR_PTR;
	case M(SWAPGS): return SYS_SWAPGS;
	case M(RDFSBASE): return SYS_RDFSBASE;
	case M(RDGSBASE): return SYS_RDGSBASE;
	case M(WRFSBASE): return SYS_WRFSBASE;
	case M(WRGSBASE): return SYS_WRGSBASE;
	case M(CLAC): return SYS_CLAC;
	case M(STAC): return SYS_STAC;
	case M(RDMSR): return SYS_RDMSR;
	case M(WRMSR): return SYS_WRMSR;
	case M(CPUID): return SYS_CPUID;
	case M(RDTSC): return SYS_RDTSC;
	case M(RDTSCP): return SYS_RDTSCP;
	case M(RDPMC): return SYS_RDPMC;
	case M(RDPID): return SYS_RDPID;
	case M(XGETBV): return SYS_XGETBV;
	case M(XSETBV): return SYS_XSETBV;
	case M(XSAVE):
	case M(XSAVE64): return SYS_XSAVE;
	case M(XSAVEOPT):
	case M(XSAVEOPT64): return SYS_XSAVEOPT;
	case M(XSAVEC):
	case M(XSAVEC64): return SYS_XSAVEC;
	case M(XRSTOR):
	case M(XRSTOR64): return SYS_XRSTOR;
	case M(FXSAVE):
	case M(FXSAVE64): return SYS_FXSAVE;
	case M(FXRSTOR):
	case M(FXRSTOR64): return SYS_FXRSTOR;
	case M(FNSAVE): return SYS_FNSAVE;
	case M(FRSTOR): return SYS_FRSTOR;
	case M(FNSTENV): return SYS_FNSTENV;
	case M(FLDENV): return SYS_FLDENV;
	case M(IN): return SYS_IN;
	case M(OUT): return SYS_OUT;
	case M(INSB):
	case M(INSW):
	case M(INSD): return SYS_INS;
	case M(OUTSB):
	case M(OUTSW):
	case M(OUTSD): return SYS_OUTS;
	case M(AAA): return SYS_AAA;
	case M(AAS): return SYS_AAS;
	case M(AAD): return SYS_AAD;
	case M(AAM): return SYS_AAM;
	case M(DAA): return SYS_DAA;
	case M(DAS): return SYS_DAS;
	case M(PUSHA):
	case M(PUSHAD): return SYS_PUSHA;
	case M(POPA):
	case M(POPAD): return SYS_POPA;
	case M(BOUND): return SYS_BOUND;
	case M(SALC): return SYS_SALC;
	case M(ENTER): return SYS_ENTER;
	case M(UD0):
	case M(UD1):
	case M(UD2): return SYS_UD;
	default: return SYS_NONE;
	}
}

static void set_sys(struct insn *in, enum sysop op)
{
	in->cls = CLS_SYS;
	in->sysop = op;
}

/* A second set of operand facts that only some sysops carry. */
static void sys_details(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (in->sysop) {
	case SYS_LOAD_FAR_PTR:
		in->seg2 = z->mnemonic == M(LES)   ? SEG_ES
			   : z->mnemonic == M(LDS) ? SEG_DS
			   : z->mnemonic == M(LSS) ? SEG_SS
			   : z->mnemonic == M(LFS) ? SEG_FS
						   : SEG_GS;
		break;
	case SYS_IN:
	case SYS_OUT:
		in->opsize = in->opcode & 1 ? (z->operand_width == 16 ? 2 : 4) : 1;
		in->imm_port = in->opcode < 0xe8;
		break;
	case SYS_INS:
	case SYS_OUTS: in->opsize = in->opcode & 1 ? (z->operand_width == 16 ? 2 : 4) : 1; break;
	case SYS_RDFSBASE:
	case SYS_RDGSBASE:
	case SYS_WRFSBASE:
	case SYS_WRGSBASE: in->opsize = in->rex_w ? 8 : 4; break; /* 66h does not count */
	case SYS_PUSH_SEG:
	case SYS_POP_SEG:
	case SYS_MOV_TO_SEG: in->reg = seg_of(op[0].reg.value); break; /* REX.R does not count */
	case SYS_MOV_FROM_SEG: in->reg = seg_of(op[1].reg.value); break;
	default: break;
	}
}

static bool is_seg(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value >= ZYDIS_REGISTER_ES &&
	       o->reg.value <= ZYDIS_REGISTER_GS;
}

static bool reg_class(const ZydisDecodedOperand *o, ZydisRegisterClass c)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == c;
}

static bool classify_moves(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	if (z->mnemonic == M(MOV)) {
		if (is_seg(&op[0]))
			set_sys(in, SYS_MOV_TO_SEG);
		else if (is_seg(&op[1]))
			set_sys(in, SYS_MOV_FROM_SEG);
		else if (reg_class(&op[0], ZYDIS_REGCLASS_CONTROL))
			set_sys(in, SYS_MOV_TO_CR);
		else if (reg_class(&op[1], ZYDIS_REGCLASS_CONTROL))
			set_sys(in, SYS_MOV_FROM_CR);
		else if (reg_class(&op[0], ZYDIS_REGCLASS_DEBUG))
			set_sys(in, SYS_MOV_TO_DR);
		else if (reg_class(&op[1], ZYDIS_REGCLASS_DEBUG))
			set_sys(in, SYS_MOV_FROM_DR);
		return in->cls == CLS_SYS;
	}
	if (z->mnemonic == M(PUSH) && is_seg(&op[0]))
		set_sys(in, SYS_PUSH_SEG);
	else if (z->mnemonic == M(POP) && is_seg(&op[0]))
		set_sys(in, SYS_POP_SEG);
	return in->cls == CLS_SYS;
}

/* A near branch with 16-bit operands outside 16-bit code.  The decoder knows AMD's only by their shorter immediates. */
static bool is_near16(const struct insn *in, const ZydisDecodedInstruction *z, bool amd)
{
	bool near = z->meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT || z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;

	if (!near || in->code_size != 8)
		return near && in->code_size == 4 && z->operand_width == 16;
	return amd && !in->rex_w && (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
}

static bool classify_branch(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	bool far = z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	bool imm = op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	switch (z->mnemonic) {
	case M(JMP):
		if (far)
			set_sys(in, SYS_FAR_JMP);
		else
			in->cls = imm ? CLS_JMP : CLS_JMP_IND;
		return true;
	case M(CALL):
		if (far)
			set_sys(in, SYS_FAR_CALL);
		else
			in->cls = imm ? CLS_CALL : CLS_CALL_IND;
		return true;
	case M(RET):
		if (far)
			set_sys(in, SYS_FAR_RET);
		else
			in->cls = CLS_RET;
		in->imm = z->operand_count_visible ? (int64_t)(uint16_t)op[0].imm.value.u : 0;
		return true;
	case M(LOOP):
	case M(LOOPE):
	case M(LOOPNE):
	case M(JCXZ):
	case M(JECXZ):
	case M(JRCXZ): in->cls = CLS_LOOP; return true;
	default:
		if (z->meta.category == ZYDIS_CATEGORY_COND_BR) {
			in->cls = CLS_JCC;
			return true;
		}
		return false;
	}
}

static bool classify_special(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (z->mnemonic) {
	case M(PUSH): in->cls = CLS_PUSH; return true;
	case M(POP): in->cls = CLS_POP; return true;
	case M(LEAVE): in->cls = CLS_LEAVE; return true;
	case M(LEA): in->cls = CLS_LEA; return true;
	case M(XLAT): in->cls = CLS_XLAT; return true;
	case M(MASKMOVDQU):
	case M(MASKMOVQ):
	case M(VMASKMOVDQU): in->cls = CLS_MASKMOV; return true;
	case M(BT):
	case M(BTS):
	case M(BTR):
	case M(BTC):
		if (in->has_mem && op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			in->cls = CLS_BT;
			return true;
		}
		return false;
	case M(MOVSB):
	case M(MOVSW):
	case M(MOVSQ):
	case M(STOSB):
	case M(STOSW):
	case M(STOSD):
	case M(STOSQ):
	case M(LODSB):
	case M(LODSW):
	case M(LODSD):
	case M(LODSQ):
	case M(SCASB):
	case M(SCASW):
	case M(SCASD):
	case M(SCASQ):
	case M(CMPSB):
	case M(CMPSW):
	case M(CMPSQ): in->cls = CLS_STRING; return true;
	case M(MOVSD):
	case M(CMPSD):
		if (z->meta.category != ZYDIS_CATEGORY_STRINGOP)
			return false;
		in->cls = CLS_STRING;
		return true;
	default: break;
	}
	if (z->meta.category == ZYDIS_CATEGORY_PREFETCH || z->meta.category == ZYDIS_CATEGORY_NOP ||
	    z->meta.category == ZYDIS_CATEGORY_WIDENOP || z->meta.category == ZYDIS_CATEGORY_CLDEMOTE ||
	    z->meta.category == ZYDIS_CATEGORY_PREFETCHWT1) {
		in->cls = CLS_NOP;
		return true;
	}
	return false;
}

static uint8_t isa_of(const ZydisDecodedInstruction *z)
{
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return ISA_AVX512;
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_X87: return ISA_X87;
	case ZYDIS_ISA_EXT_MMX: return ISA_MMX;
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
		switch (z->mnemonic) { /* no vector state involved */
		case M(PREFETCHT0):
		case M(PREFETCHT1):
		case M(PREFETCHT2):
		case M(PREFETCHNTA):
		case M(SFENCE):
		case M(LFENCE):
		case M(MFENCE):
		case M(MOVNTI):
		case M(CLFLUSH):
		case M(CRC32):
		case M(POPCNT):
		case M(PAUSE): return ISA_GPR;
		case M(FISTTP): return ISA_X87;
		default: return ISA_SSE;
		}
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVX2GATHER:
	case ZYDIS_ISA_EXT_FMA:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_VAES:
	case ZYDIS_ISA_EXT_AVX_VNNI:
	case ZYDIS_ISA_EXT_VPCLMULQDQ: return ISA_AVX;
	case ZYDIS_ISA_EXT_AVX512VEX: /* of masks */
	case ZYDIS_ISA_EXT_AVX512EVEX: return ISA_AVX512;
	case ZYDIS_ISA_EXT_GFNI: return z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? ISA_AVX : ISA_SSE;
	default: return ISA_GPR;
	}
}

/* Gathers and scatters. */
static bool is_gather(const ZydisDecodedOperand *op)
{
	for (unsigned i = 0; i < 3; i++)
		if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return op[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
	return false;
}

static void classify(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, bool amd)
{
	enum sysop s = sysop_of(z->mnemonic);

	in->isa = isa_of(z);
	if (s != SYS_NONE) {
		set_sys(in, s);
	} else if (!classify_moves(in, z, op) && !classify_branch(in, z, op) && !classify_special(in, z, op)) {
		in->cls = in->has_mem ? CLS_MEM : CLS_REG;
		if (in->has_mem && is_gather(op))
			in->cls = CLS_GATHER;
	}
	if (is_near16(in, z, amd))
		set_sys(in, SYS_NEAR16);
	if (in->cls == CLS_SYS)
		sys_details(in, z, op);
	if (z->mnemonic == M(PAUSE) && (z->attributes & ZYDIS_ATTRIB_HAS_REX) && z->raw.rex.B) { /* xchg r8, rax */
		in->gpr_read |= 1u << R_AX | 1u << R_8;
		in->gpr_write |= 1u << R_AX | 1u << R_8;
	} else {
		in->pause = z->mnemonic == M(PAUSE);
	}
}

static void ud(struct insn *in, uint8_t len)
{
	in->len = len ? len : 1;
	set_sys(in, SYS_UD);
}

/* Alignment the explicit memory operand must have: exception types 1, 2 and 4 of legacy SSE, type 1 of VEX (SDM 2A 2.4). */
static uint8_t align_of(const struct insn *in, const ZydisDecodedInstruction *z, bool amd)
{
	switch (z->mnemonic) {
	case M(MOVUPS):
	case M(MOVUPD):
	case M(MOVDQU):
	case M(LDDQU):
	case M(PCMPESTRI):
	case M(PCMPESTRM):
	case M(PCMPISTRI):
	case M(PCMPISTRM): return 0;
	case M(SHA1MSG1):
	case M(SHA1MSG2):
	case M(SHA1NEXTE):
	case M(SHA1RNDS4):
	case M(SHA256MSG1):
	case M(SHA256MSG2):
	case M(SHA256RNDS2): return amd ? 0 : 16; /* AMD looks at the page first: left to the host */
	case M(MASKMOVDQU):
	case M(VMASKMOVDQU): return 1;
	case M(VCVTPH2PS):
	case M(VCVTPS2PH): return amd || in->mem.size != 8 ? 0 : ALIGN_ANY;
	case M(CMPXCHG16B):
	case M(CVTPD2PI):
	case M(CVTTPD2PI): return 16;
	default: break;
	}
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4: return in->mem.size == 16 ? 16 : 0;
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_AVX1: return (uint8_t)in->mem.size;
	default: return 0;
	}
}

/* Registers that are the guest's own, in the host's registers of the same names. */
static bool is_guest_reg(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
	case ZYDIS_REGCLASS_MASK:
	case ZYDIS_REGCLASS_FLAGS:
	case ZYDIS_REGCLASS_IP: return true;
	default:
		return r == ZYDIS_REGISTER_X87CONTROL || r == ZYDIS_REGISTER_X87STATUS || r == ZYDIS_REGISTER_X87TAG ||
		       r == ZYDIS_REGISTER_MXCSR;
	}
}

/* The operand in memory that the class says is there, and the rewriter moves? */
static bool is_shown(const struct insn *in, const ZydisDecodedOperand *o)
{
	switch (in->cls) {
	case CLS_LEA: return o->mem.type == ZYDIS_MEMOP_TYPE_AGEN;
	case CLS_XLAT:
	case CLS_MASKMOV: return in->mem.size && o->mem.type == ZYDIS_MEMOP_TYPE_MEM;
	case CLS_GATHER:
		return in->mem.size && o->mem.type == ZYDIS_MEMOP_TYPE_VSIB &&
		       o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
	case CLS_MEM:
	case CLS_BT:
		return in->mem.size && o->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
		       o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
	default: return false;
	}
}

/*
 * May an instruction of a class whose bytes reach the host's CPU do so?  It touches no state but the guest's own, and no memory
 * but the one operand that the rewriter moves, whose size is known.
 */
static bool may_run(const struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	unsigned mems = 0;

	if ((z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || z->meta.category == ZYDIS_CATEGORY_SYSTEM)
		return false;
	for (unsigned i = 0; i < z->operand_count; i++) {
		if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !is_guest_reg(op[i].reg.value))
			return false;
		if (op[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (++mems > 1 || !is_shown(in, &op[i]))
			return false;
	}
	return mems == (in->cls != CLS_REG);
}

/* Do the instruction's own bytes, or most of them, run on the host's CPU? */
static bool runs_on_host(const struct insn *in)
{
	switch (in->cls) {
	case CLS_REG:
	case CLS_MEM:
	case CLS_LEA:
	case CLS_BT:
	case CLS_XLAT:
	case CLS_MASKMOV:
	case CLS_GATHER: return true;
	default: return false; /* written anew, or done in C */
	}
}

/* bsf and bsr whose F3 says nothing to the guest's CPU must not be tzcnt and lzcnt on the host's. */
static void drop_idle_rep(struct insn *in, const ZydisDecodedInstruction *z)
{
	if (z->mnemonic != M(BSF) && z->mnemonic != M(BSR))
		return;
	for (unsigned i = 0; i < in->off_prefix_end; i++)
		if (in->raw[i] == 0xf3)
			in->raw[i] = 0x3e;
}

/* 0F 0D is a prefetch; with a register AMD's CPUs refuse it and Intel's do nothing. */
static bool is_bad_prefetch(const struct insn *in, const ZydisDecodedInstruction *z, uint64_t features)
{
	return z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d && in->enc == ENC_LEGACY && !in->has_mem &&
	       (features & FEAT(AMD));
}

static void decide(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, uint64_t features)
{
	if (!offered(features, z->meta.isa_set, z->mnemonic) || is_bad_prefetch(in, z, features)) {
		ud(in, z->length);
		in->imm = 0;
		return;
	}
	classify(in, z, op, !!(features & FEAT(AMD)));
	if (runs_on_host(in) && !may_run(in, z, op)) {
		ud(in, z->length);
		in->imm = 0;
	}
}

int decode_insn(struct insn *in, const uint8_t *bytes, size_t len, unsigned code_size, uint64_t features)
{
	ZydisDecoder d;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus st;

	decoder_init(&d, code_size, features);
	st = ZydisDecoderDecodeFull(&d, bytes, len < 15 ? len : 15, &z, op);
	*in = (struct insn){.mem = {.base = R_NONE, .index = R_NONE}, .code_size = (uint8_t)code_size, .rm = R_NONE};
	if (ZYAN_FAILED(st)) {
		if (st == ZYDIS_STATUS_NO_MORE_DATA && len < 15)
			return DECODE_SHORT;
		in->mnemonic = 0;
		for (unsigned i = 0; i < len && i < 15; i++)
			in->raw[i] = bytes[i];
		ud(in, 1);
		in->imm = st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? 13 : 0; /* #GP, not #UD */
		return DECODE_OK;
	}
	in->len = z.length;
	for (unsigned i = 0; i < z.length; i++)
		in->raw[i] = bytes[i];
	in->mnemonic = (uint16_t)z.mnemonic;
	in->opsize = z.operand_width / 8;
	in->addrsize = z.address_width / 8;
	fill_layout(in, &z, code_size);
	if (code_size != 8)
		clear_ignored(in);
	if (code_size != 8 && in->enc == ENC_EVEX)
		decode_evex_narrow(in, &z);
	fill_operands(in, &z, op);
	fill_flags(in, &z, op);
	if (z.mnemonic == M(MOVSXD) && in->opsize == 2 && in->has_mem && !(features & FEAT(AMD)))
		in->mem.size = 2; /* AMD's read four bytes (SDM 2, APM 3 MOVSXD) */
	if (in->mem.size)
		in->align = align_of(in, &z, !!(features & FEAT(AMD)));
	if (in->has_modrm && !in->has_mem) {
		in->rm = z.raw.modrm.rm;
		if (in->enc == ENC_LEGACY && (z.attributes & ZYDIS_ATTRIB_HAS_REX))
			in->rm |= (uint8_t)(z.raw.rex.B << 3);
	}
	drop_idle_rep(in, &z);
	decide(in, &z, op, features);
	return DECODE_OK;
}
