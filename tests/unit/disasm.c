/*
 * Host code to text.  Invariant: no address of this process and no number that
 * depends on earlier translations gets into the text.
 */
#include "disasm.h"

#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>

#include "vcpu/bt/tr.h"

#define MAX_LABELS 256

static const char reg_names[16][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

#define FIELD(f)                                                            \
	{                                                                   \
#f, offsetof(struct vcpu, f), sizeof(((struct vcpu *)0)->f) \
	}
static const struct {
	const char *name;
	size_t off, size;
} fields[] = {FIELD(host_regs),    FIELD(rip),         FIELD(ip_page),     FIELD(engine_sp),
	      FIELD(self),         FIELD(scratch),     FIELD(seg_base),    FIELD(mem_gva),
	      FIELD(mem_addend),   FIELD(resume),      FIELD(tsc_offset),  FIELD(pext_mask),
	      FIELD(site),         FIELD(flags),       FIELD(df),          FIELD(iflag),
	      FIELD(pending),      FIELD(kick),        FIELD(in_code),     FIELD(host_flags),
	      FIELD(gather.index), FIELD(gather.mask), FIELD(gather.dst),  FIELD(bounce_stack),
	      FIELD(bounce),       FIELD(combo),       FIELD(exit),        FIELD(sysflags),
	      FIELD(cpl),          FIELD(int_shadow),  FIELD(seg[0].base), FIELD(seg[1].base),
	      FIELD(seg[2].base),  FIELD(seg[3].base), FIELD(seg[4].base), FIELD(seg[5].base),
	      FIELD(cr0),          FIELD(cr2),         FIELD(cr3),         FIELD(cr4),
	      FIELD(seg_top[0]),   FIELD(seg_top[1]),  FIELD(code_key),    FIELD(kernel_gs_base),
	      FIELD(tsc_aux),      FIELD(mode),        FIELD(stats),       FIELD(cells)};

static bool tlb_field(char *buf, size_t size, size_t off)
{
	static const char *const kinds[] = {"user", "kern", "kern_ac"};
	static const char *const jc_kinds[] = {"user", "kern", "kern_ac", "user32", "code16"};
	static const char *const tlb_arrays[] = {"rtag", "wtag", "radd", "wadd"};
	static const char *const jc_arrays[] = {"tag", "host"};

	for (size_t k = 0; k < TLB_COUNT; k++) {
		size_t t = off - (VOFF(tlb) + k * sizeof(struct soft_tlb));

		if (t < 4 * TLB_SIZE * 8 && t % (TLB_SIZE * 8) == 0) {
			snprintf(buf, size, "tlb.%s.%s", kinds[k], tlb_arrays[t / (TLB_SIZE * 8)]);
			return true;
		}
	}
	for (size_t k = 0; k < JC_COUNT; k++) {
		size_t j = off - (VOFF(jc) + k * sizeof(struct jump_cache));

		if (j < 16) {
			snprintf(buf, size, "jc.%s%s.%s", jc_kinds[k % JC_NOFPU], k < JC_NOFPU ? "" : "_nofpu",
				 jc_arrays[j / 8]);
			return true;
		}
	}
	return false;
}

static void field_name(char *buf, size_t size, size_t off)
{
	size_t r = off - VOFF(regs);

	if (r < sizeof(((struct vcpu *)0)->regs)) {
		snprintf(buf, size, r % 8 ? "guest.%s+%zu" : "guest.%s", reg_names[r / 8], r % 8);
		return;
	}
	if (tlb_field(buf, size, off))
		return;
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (off >= fields[i].off && off - fields[i].off < fields[i].size) {
			size_t at = off - fields[i].off;

			if (fields[i].off == VOFF(cells))
				snprintf(buf, size, "cell%zu", at / 8);
			else
				snprintf(buf, size, at ? "%s+%zu" : "%s", fields[i].name, at);
			return;
		}
	snprintf(buf, size, "vcpu+0x%zx", off);
}

static bool decode(const uint8_t *p, size_t len, ZydisMachineMode mode, ZydisDecodedInstruction *z,
		   ZydisDecodedOperand *op)
{
	ZydisDecoder d;

	ZydisDecoderInit(&d, mode,
			 mode == ZYDIS_MACHINE_MODE_LONG_64          ? ZYDIS_STACK_WIDTH_64
			 : mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_32 ? ZYDIS_STACK_WIDTH_32
								     : ZYDIS_STACK_WIDTH_16);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, len, z, op));
}

static void format(char *buf, size_t size, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, uint64_t at)
{
	ZydisFormatter f;

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE, 0);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_DISP_PADDING, 0);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_IMM_PADDING, 0);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_FORCE_SEGMENT, ZYAN_FALSE);
	ZydisFormatterFormatInstruction(&f, z, op, z->operand_count_visible, buf, size, at, NULL);
}

/* Replaces [from, to) of @buf by @with. */
static void replace(char *buf, size_t size, char *from, const char *to, const char *with)
{
	char tail[128];

	snprintf(tail, sizeof tail, "%s", to);
	snprintf(from, size - (size_t)(from - buf), "%s%s", with, tail);
}

/* gs:[rdx*8+0x1240] -> gs:[rdx*8+tlb.user.rtag] */
static void name_gs(char *buf, size_t size)
{
	char *open = strstr(buf, "gs:["), *close, *num, name[64];

	if (!open || !(close = strchr(open, ']')))
		return;
	for (num = close; num > open && *num != '+' && *num != '['; num--)
		;
	num++;
	if (strncmp(num, "0x", 2) != 0)
		return;
	field_name(name, sizeof name, (size_t)strtoull(num, NULL, 16));
	replace(buf, size, num, close, name);
}

static void glue_name(char *buf, size_t size, uint64_t addr)
{
	static const struct {
		const uint8_t *at;
		const char *name;
	} glue[] = {{glue_mem, "glue_mem"},
		    {glue_mem_checked, "glue_mem_checked"},
		    {glue_exit, "glue_exit"},
		    {glue_sys, "glue_sys"},
		    {glue_gather, "glue_gather"}};

	snprintf(buf, size, "elsewhere");
	for (size_t i = 0; i < sizeof glue / sizeof glue[0]; i++)
		if (addr == (uint64_t)(uintptr_t)glue[i].at)
			snprintf(buf, size, "%s", glue[i].name);
}

struct labels {
	uint64_t at[MAX_LABELS];
	unsigned n;
};

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The address a branch or rip-relative operand names; 0: none. */
static uint64_t target_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, uint64_t at)
{
	uint64_t to;

	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if ((op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[i].imm.is_relative) ||
		    (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && op[i].mem.base == ZYDIS_REGISTER_RIP))
			if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(z, &op[i], at, &to)))
				return to;
	return 0;
}

static void find_labels(struct labels *l, const struct bt *bt, const struct block *b)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t rx = (uint64_t)(uintptr_t)bt->rx, lo = rx + b->host_start, hi = rx + b->host_end;
	unsigned n = 0;

	for (uint32_t off = b->host_start; off < b->host_end; off += z.length) {
		uint64_t to;

		if (!decode(bt->rw + off, b->host_end - off, ZYDIS_MACHINE_MODE_LONG_64, &z, op))
			break;
		to = target_of(&z, op, rx + off);
		if (to >= lo && to <= hi && l->n < MAX_LABELS)
			l->at[l->n++] = to;
	}
	qsort(l->at, l->n, sizeof l->at[0], by_value);
	for (unsigned i = 0; i < l->n; i++)
		if (!n || l->at[n - 1] != l->at[i])
			l->at[n++] = l->at[i];
	l->n = n;
}

static unsigned label_of(const struct labels *l, uint64_t at)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->at[i] == at)
			return i + 1;
	return 0;
}

static void name_target(char *buf, size_t size, const struct labels *l, uint64_t to)
{
	char hex[32], name[32], *p;
	unsigned n = label_of(l, to);

	if (n)
		snprintf(name, sizeof name, "L%u", n);
	else
		glue_name(name, sizeof name, to);
	snprintf(hex, sizeof hex, "0x%llx", (unsigned long long)to);
	p = strstr(buf, hex);
	if (p)
		replace(buf, size, p, p + strlen(hex), name);
}

/* mov dword gs:[site], n: n counts from the block's first. */
static void name_site(char *buf, size_t size, const struct block *b, const ZydisDecodedOperand *op)
{
	char *comma = strchr(buf, ','), name[32];

	if (!strstr(buf, "gs:[site]") || !comma || op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return;
	snprintf(name, sizeof name, ", site%llu", (unsigned long long)op[1].imm.value.u - b->site);
	replace(buf, size, comma, comma + strlen(comma), name);
}

void disasm_host(FILE *f, const struct bt *bt, const struct block *b, uint32_t from, uint32_t to)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	struct labels l = {.n = 0};
	char buf[256];

	find_labels(&l, bt, b);
	for (uint32_t off = from; off < to; off += z.length) {
		uint64_t at = (uint64_t)(uintptr_t)bt->rx + off, target;

		if (label_of(&l, at))
			fprintf(f, "  L%u:\n", label_of(&l, at));
		if (!decode(bt->rw + off, to - off, ZYDIS_MACHINE_MODE_LONG_64, &z, op)) {
			fprintf(f, "\t(undecodable)\n");
			return;
		}
		format(buf, sizeof buf, &z, op, at);
		target = target_of(&z, op, at);
		name_gs(buf, sizeof buf);
		if (target)
			name_target(buf, sizeof buf, &l, target);
		name_site(buf, sizeof buf, b, op);
		fprintf(f, "\t%s\n", buf);
	}
}

unsigned disasm_guest(char *buf, size_t size, const uint8_t *bytes, size_t len, unsigned code_size, uint64_t gva)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	if (!decode(bytes, len,
		    code_size == 8   ? ZYDIS_MACHINE_MODE_LONG_64
		    : code_size == 4 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
				     : ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
		    &z, op)) {
		snprintf(buf, size, "(undefined)");
		return 0;
	}
	format(buf, size, &z, op, gva);
	return z.length;
}
