/*
 * See verify.h.  This file: every byte decodes, tables point at instructions, each instruction is on the list.
 * Invariant: the lists here say what may be; nothing is taken from the translator's own decoder.
 */
#include "tests/fuzz/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool verify_fail(struct verify *f, uint32_t off, const char *what)
{
	char hex[3 * 15 + 1] = "", text[96] = "";
	int i = off - f->b->host_start < f->b->host_end - f->b->host_start ? f->at[off - f->b->host_start] : -1;
	ZydisFormatter fmt;

	for (unsigned k = 0; k < 15 && off + k < f->b->host_end && (i < 0 || k < f->in[i].z.length); k++)
		snprintf(hex + 3 * k, 4, "%02x ", f->bt->rw[off + k]);
	if (i >= 0) {
		ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
		ZydisFormatterFormatInstruction(&fmt, &f->in[i].z, f->in[i].op, f->in[i].z.operand_count_visible, text,
						sizeof text, off, NULL);
	}
	snprintf(f->why, f->size, "mode 0x%x, gpa 0x%llx, host +0x%x: %s%s: %s", f->b->mode,
		 (unsigned long long)f->b->gpa, off - f->b->host_start, hex, text, what);
	return false;
}

int verify_index(const struct verify *f, uint64_t host)
{
	uint64_t off = host - (uint64_t)(uintptr_t)f->bt->rx - f->b->host_start;

	return off < f->b->host_end - f->b->host_start ? f->at[off] : -1;
}

int verify_gpr(ZydisRegister r)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(whole) : -1;
}

static bool decode_all(struct verify *f)
{
	const struct block *b = f->b;
	ZydisDecoder d;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (uint32_t off = b->host_start; off < b->host_end; off += f->in[f->n++].z.length) {
		struct verify_insn *in = &f->in[f->n];

		if (f->n == VERIFY_MAX)
			return verify_fail(f, off, "too many instructions");
		in->off = off;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, f->bt->rw + off, b->host_end - off, &in->z, in->op)))
			return verify_fail(f, off, "does not decode");
		f->at[off - b->host_start] = (int32_t)f->n;
	}
	return true;
}

static bool starts(struct verify *f, uint32_t off, const char *what)
{
	return off - f->b->host_start < f->b->host_end - f->b->host_start && f->at[off - f->b->host_start] >= 0
		       ? true
		       : verify_fail(f, off, what);
}

/* Whatever names a place in the code names the start of an instruction. */
static bool check_tables(struct verify *f)
{
	const struct block *b = f->b;

	for (int k = 0; k < 4; k++)
		if (!starts(f, block_entry(b, k & 1, k & 2), "entry within an instruction"))
			return false;
	for (uint32_t i = b->site; i < b->site + b->n_sites; i++) {
		const struct site *s = &f->bt->sites[i];

		if (s->host_off != b->host_end && !starts(f, s->host_off, "site within an instruction"))
			return false;
		if (s->resume_off && !starts(f, s->resume_off, "resumes within an instruction"))
			return false;
		if (s->kind == SITE_MEM && site_is_store(s) && site_store_end(s) != b->host_end &&
		    !starts(f, site_store_end(s), "store ends within an instruction"))
			return false;
	}
	for (uint32_t i = b->exit; i < b->exit + b->n_exits; i++)
		if (!starts(f, f->bt->exits[i].stub_off, "exit stub within an instruction"))
			return false;
	return b->ind_jmp == BT_NONE || (starts(f, b->ind_jmp, "indirect jump within an instruction") &&
					 starts(f, b->ind_cold, "its way out within an instruction"));
}

/* Kinds of instructions all of which are harmless but for their operands. */
static bool category_listed(ZydisInstructionCategory c)
{
	switch (c) {
	case ZYDIS_CATEGORY_ADOX_ADCX:
	case ZYDIS_CATEGORY_AES:
	case ZYDIS_CATEGORY_AVX:
	case ZYDIS_CATEGORY_AVX2:
	case ZYDIS_CATEGORY_AVX512:
	case ZYDIS_CATEGORY_AVX512_BITALG:
	case ZYDIS_CATEGORY_AVX512_VBMI:
	case ZYDIS_CATEGORY_AVX512_VP2INTERSECT:
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_BLEND:
	case ZYDIS_CATEGORY_BMI1:
	case ZYDIS_CATEGORY_BMI2:
	case ZYDIS_CATEGORY_BROADCAST:
	case ZYDIS_CATEGORY_CLFLUSHOPT:
	case ZYDIS_CATEGORY_CLWB:
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_COMPRESS:
	case ZYDIS_CATEGORY_CONFLICT:
	case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_EXPAND:
	case ZYDIS_CATEGORY_FCMOV:
	case ZYDIS_CATEGORY_GFNI:
	case ZYDIS_CATEGORY_IFMA:
	case ZYDIS_CATEGORY_KMASK:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_LZCNT:
	case ZYDIS_CATEGORY_MMX:
	case ZYDIS_CATEGORY_PCLMULQDQ:
	case ZYDIS_CATEGORY_RDRAND:
	case ZYDIS_CATEGORY_RDSEED:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_SEMAPHORE:
	case ZYDIS_CATEGORY_SETCC:
	case ZYDIS_CATEGORY_SHA:
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_SSE:
	case ZYDIS_CATEGORY_STTNI:
	case ZYDIS_CATEGORY_VAES:
	case ZYDIS_CATEGORY_VBMI2:
	case ZYDIS_CATEGORY_VFMA:
	case ZYDIS_CATEGORY_VPCLMULQDQ:
	case ZYDIS_CATEGORY_X87_ALU: return true;
	default: return false;
	}
}

static bool mnemonic_listed(const struct verify *f, ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CMC:
	case ZYDIS_MNEMONIC_LAHF:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_NOP: /* in front of a jmp that was a jne; xchg eax, eax */
	case ZYDIS_MNEMONIC_PAUSE:
	case ZYDIS_MNEMONIC_SAHF:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_STD: return true;
	case ZYDIS_MNEMONIC_RDTSC: return mode_long(f->b->mode) && !(f->b->mode & MODE_TSD);
	default: return false;
	}
}

/* Whose registers and operands verify_flow.c looks at. */
static bool is_string(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ: return true;
	default: return false;
	}
}

static bool is_jump(ZydisInstructionCategory c, ZydisMnemonic m)
{
	return c == ZYDIS_CATEGORY_COND_BR || (c == ZYDIS_CATEGORY_UNCOND_BR && m == ZYDIS_MNEMONIC_JMP);
}

/* Registers that hold the guest's values, and no segment, control, debug... register. */
static bool register_listed(ZydisRegister r, bool jump)
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
	case ZYDIS_REGCLASS_FLAGS: return true;
	case ZYDIS_REGCLASS_IP: return jump;
	default:
		return r == ZYDIS_REGISTER_MXCSR || r == ZYDIS_REGISTER_X87CONTROL || r == ZYDIS_REGISTER_X87STATUS ||
		       r == ZYDIS_REGISTER_X87TAG;
	}
}

/* Legacy, VEX, and of EVEX what guests are offered. */
static bool encoding_listed(const ZydisDecodedInstruction *z)
{
	static const char *const others[] = {"AVX512ER", "AVX512PF", "AVX512_4", "AVX512_FP16"};
	const char *set = ZydisISASetGetString(z->meta.isa_set);

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return true;
	for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++)
		if (!strncmp(set, others[i], strlen(others[i])))
			return false;
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && !strncmp(set, "AVX512", 6);
}

static bool check_insn(struct verify *f, const struct verify_insn *in)
{
	bool jump = is_jump(in->z.meta.category, in->z.mnemonic);

	if (in->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return verify_fail(f, in->off, "privileged");
	if (!encoding_listed(&in->z))
		return verify_fail(f, in->off, "of an encoding that guests are not offered");
	if (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		return is_string(in->z.mnemonic) || verify_fail(f, in->off, "not on the list");
	if (!jump && !category_listed(in->z.meta.category) && !mnemonic_listed(f, in->z.mnemonic))
		return verify_fail(f, in->off, "not on the list");
	if (jump && in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return verify_fail(f, in->off, "far jump");
	for (unsigned i = 0; i < in->z.operand_count; i++)
		if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !register_listed(in->op[i].reg.value, jump) &&
		    in->z.mnemonic != ZYDIS_MNEMONIC_RDTSC)
			return verify_fail(f, in->off, "a register that is not the guest's");
	return true;
}

const char *verify_block(const struct vcpu *v, const struct block *b, char *why, size_t size)
{
	static struct verify_insn in[VERIFY_MAX];
	static int32_t at[1 << 18];
	struct verify f = {.v = v, .bt = v->bt, .b = b, .in = in, .at = at, .why = why, .size = size};
	uint32_t len = b->host_end - b->host_start;

	if (len > sizeof at / sizeof at[0])
		return "too long";
	memset(at, 0xff, len * sizeof at[0]);
	if (!decode_all(&f) || !check_tables(&f))
		return why;
	for (unsigned i = 0; i < f.n; i++)
		if (!check_insn(&f, &in[i]))
			return why;
	return verify_flow(&f) && verify_guest(&f) ? NULL : why;
}
