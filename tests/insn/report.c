/*
 * Prints a case: code, input, both results, a mark at every difference.
 *
 * Invariant: nothing here changes the batch.
 */
#include "report.h"

#include <Zydis/Zydis.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "isa.h"

static const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					 "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const outcome_name[] = {"died", "stop", "fault", "timeout", "odd"};

static unsigned disasm_at(const struct batch *b, const struct test *t, uint64_t addr, char *buf, unsigned size)
{
	ZydisDisassembledInstruction d;
	uint8_t bytes[16] = {0};
	ZydisMachineMode m = t->flags & TEST_32BIT ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64;
	uint64_t off = addr - CODE_BASE;

	memcpy(bytes, b->code + off, CODE_SIZE - off < 15 ? CODE_SIZE - off : 15);
	if (!ZYAN_SUCCESS(ZydisDisassembleIntel(m, addr, bytes, 15, &d))) {
		snprintf(buf, size, "(bad) %02x", bytes[0]);
		return 1;
	}
	snprintf(buf, size, "%s", d.text);
	return d.info.length;
}

void report_insn(const struct batch *b, const struct test *t, uint64_t addr, char *buf, unsigned size)
{
	disasm_at(b, t, addr - CODE_BASE < CODE_SIZE ? addr : t->start, buf, size);
}

static void print_range(const struct batch *b, const struct test *t, uint64_t from, uint64_t to)
{
	char text[128];

	for (uint64_t a = from; a < to && a < CODE_BASE + CODE_SIZE;) {
		unsigned n = disasm_at(b, t, a, text, sizeof text);

		if (b->code[a - CODE_BASE] == FILL_BYTE) {
			a++;
			continue;
		}
		printf("  %8llx ", (unsigned long long)a);
		for (unsigned i = 0; i < n && a + i < CODE_BASE + CODE_SIZE; i++)
			printf("%02x", b->code[a + i - CODE_BASE]);
		printf("  %s\n", text);
		a += n;
	}
}

static void print_code(const struct batch *b, const struct test *t)
{
	print_range(b, t, t->start, t->start + t->len);
	if (t->far_len)
		print_range(b, t, t->far, t->far + t->far_len);
	printf("  stop at %llx\n", (unsigned long long)t->stop);
}

static void print_pair(const char *name, uint64_t in, uint64_t n, uint64_t e)
{
	printf("  %-8s %016llx  %016llx  %016llx%s\n", name, (unsigned long long)in, (unsigned long long)n,
	       (unsigned long long)e, n != e ? "  <<<" : "");
}

static void print_bytes(const char *name, int idx, const uint8_t *in, const uint8_t *n, const uint8_t *e, int len)
{
	const uint8_t *who[3] = {in, n, e};
	static const char *const label[3] = {"in", "native", "engine"};

	if (!memcmp(n, e, len))
		return;
	for (int k = 0; k < 3; k++) {
		printf("  %s%d %-7s", name, idx, label[k]);
		for (int i = len - 1; i >= 0; i--)
			printf("%02x", who[k][i]);
		printf("%s\n", k == 2 ? "  <<<" : "");
	}
}

static uint64_t get(const uint8_t *p, int len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static void print_xs(const uint8_t *in, const uint8_t *n, const uint8_t *e)
{
	print_pair("fcw", get(in + XS_FCW, 2), get(n + XS_FCW, 2), get(e + XS_FCW, 2));
	print_pair("fsw", get(in + XS_FSW, 2), get(n + XS_FSW, 2), get(e + XS_FSW, 2));
	print_pair("ftw", get(in + XS_FTW, 2), get(n + XS_FTW, 2), get(e + XS_FTW, 2));
	print_pair("mxcsr", get(in + XS_MXCSR, 4), get(n + XS_MXCSR, 4), get(e + XS_MXCSR, 4));
	for (int i = 0; i < 8; i++)
		print_bytes("st", i, in + XS_ST + 16 * i, n + XS_ST + 16 * i, e + XS_ST + 16 * i, 10);
	for (int i = 0; i < 16; i++) {
		print_bytes("xmm", i, in + XS_XMM + 16 * i, n + XS_XMM + 16 * i, e + XS_XMM + 16 * i, 16);
		print_bytes("ymmh", i, in + XS_YMMH + 16 * i, n + XS_YMMH + 16 * i, e + XS_YMMH + 16 * i, 16);
	}
	for (int i = 0; isa_has_avx512() && i < 16; i++) {
		unsigned hi = isa_xs_off(XS_ZMM_HI) + 32 * i, up = isa_xs_off(XS_ZMM_16) + 64 * i;

		print_bytes("zmmh", i, in + hi, n + hi, e + hi, 32);
		print_bytes("zmm", 16 + i, in + up, n + up, e + up, 64);
	}
	for (int i = 0; isa_has_avx512() && i < 8; i++) {
		unsigned k = isa_xs_off(XS_MASKS) + 8 * i;

		printf("  k%d       %016llx  %016llx  %016llx%s\n", i, (unsigned long long)get(in + k, 8),
		       (unsigned long long)get(n + k, 8), (unsigned long long)get(e + k, 8),
		       memcmp(n + k, e + k, 8) ? "  <<<" : "");
	}
}

static uint64_t img_to_addr(uint32_t off)
{
	if (off >= IMG_SIZE)
		return CODE_BASE + (off - IMG_SIZE);
	return off / PG == WR_PAGES ? RO_PAGE + off % PG : wr_page[off / PG] + off % PG;
}

static void print_mem(const struct batch *b, uint32_t k)
{
	static uint8_t n[IMG_SIZE + CODE_SIZE], e[IMG_SIZE + CODE_SIZE];
	int left = 24;

	compare_image(b, &b->native, k, n);
	compare_image(b, &b->engine, k, e);
	for (uint32_t i = 0; i < sizeof n && left; i += 8) {
		const uint8_t *in = i < IMG_SIZE ? b->image + i : b->code + (i - IMG_SIZE);

		if (!memcmp(n + i, e + i, 8))
			continue;
		printf("  [%08llx] %016llx  %016llx  %016llx  <<<\n", (unsigned long long)img_to_addr(i),
		       (unsigned long long)get(in, 8), (unsigned long long)get(n + i, 8),
		       (unsigned long long)get(e + i, 8));
		left--;
	}
}

void report_case(const struct batch *b, uint32_t k, uint32_t diff)
{
	const struct testcase *tc = &b->tc[k];
	const struct result *n = &b->native.out[k], *e = &b->engine.out[k];

	print_code(b, &b->test[tc->test]);
	for (int i = 0; i < tc->npokes; i++)
		printf("  preset [%llx] = %llx\n", (unsigned long long)tc->poke[i].addr,
		       (unsigned long long)tc->poke[i].val);
	printf("  native: %s vector %u error %x cr2 %llx\n", outcome_name[n->outcome], n->vector, n->error,
	       (unsigned long long)n->cr2);
	printf("  engine: %s vector %u error %x cr2 %llx\n", outcome_name[e->outcome], e->vector, e->error,
	       (unsigned long long)e->cr2);
	printf("  %-8s %-16s  %-16s  %-16s\n", "", "in", "native", "engine");
	print_pair("rip", tc->in.rip, n->st.rip, e->st.rip);
	print_pair("rflags", tc->in.rflags, n->st.rflags & ~0x10000ull, e->st.rflags & ~0x10000ull);
	for (int i = 0; i < 16; i++)
		print_pair(gpr_name[i], tc->in.gpr[i], n->st.gpr[i], e->st.gpr[i]);
	print_pair("fsbase", tc->in.fsbase, n->st.fsbase, e->st.fsbase);
	print_pair("gsbase", tc->in.gsbase, n->st.gsbase, e->st.gsbase);
	if (diff & (DIFF_X87 | DIFF_VEC | DIFF_MXCSR))
		print_xs(tc->in.xs, n->st.xs, e->st.xs);
	if (diff & DIFF_MEM)
		print_mem(b, k);
}
