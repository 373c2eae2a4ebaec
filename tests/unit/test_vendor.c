/*
 * Where AMD's CPUs and Intel's differ: the engine as either, on any host, against what CPUs did (tests/insn/vendor.txt).
 * Invariant: a line of the file is run once with each vendor forced; nothing of the outcome is computed here.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/cpu/feature.h"
#include "vcpu/mmu/mmu.h"

#define AT  (BTVM_CODE + 0x100)
#define D   BTVM_DATA
#define XMM 160
#define YMM 576

static const char map[] = "ww.wrw";

struct line {
	const char *what, *bits, *bytes, *in, *out[2]; /* Intel's, AMD's */
};

static uint8_t *ram(struct vcpu *v, uint64_t gpa, unsigned len)
{
	return gmem_ptr(v->vm->mem, gpa, len, GMEM_READ | GMEM_WRITE);
}

static uint64_t number(const char *s)
{
	return s[0] == 'D' ? D + strtoull(s + 2, NULL, 16) : strtoull(s, NULL, 16);
}

/* Up to 32 digits as 16 bytes, the lowest first. */
static void wide(const char *s, uint8_t out[16])
{
	size_t n = strlen(s);

	memset(out, 0, 16);
	for (size_t i = 0; i < n && i < 32; i++) {
		char digit[2] = {s[n - 1 - i], 0};

		out[i / 2] |= (uint8_t)(strtoul(digit, NULL, 16) << (i % 2 * 4));
	}
}

static int gpr(const char *name)
{
	static const char *const names[] = {"rax=", "rcx=", "rdx=", "rbx=", "rsp=", "rbp=", "rsi=", "rdi="};

	for (int i = 0; i < 8; i++)
		if (!strncmp(name, names[i], 4))
			return i;
	return -1;
}

static uint8_t *vector_place(struct vcpu *v, const char *token)
{
	bool high = !strncmp(token, "ymmh", 4);

	return v->fpu_area + (high ? YMM : XMM) + 16 * strtoul(token + (high ? 4 : 3), NULL, 10);
}

/* "m4:D+100=v": the place, its size and the value. */
static uint8_t *memory_place(struct vcpu *v, const char *token, unsigned *size, uint64_t *value)
{
	char *end;
	const char *eq = strchr(token, '=');

	*size = (unsigned)strtoul(token + 1, &end, 10);
	*value = number(eq + 1);
	return ram(v, number(end + 1), *size);
}

static void set(struct vcpu *v, const char *token)
{
	const char *eq = strchr(token, '=');
	unsigned size = 0;
	uint64_t value = 0;
	uint8_t *p;

	if (!strcmp(token, "ac")) {
		vcpu_set_rflags(v, RFL_FIX | RFL_AC);
	} else if (gpr(token) >= 0) {
		v->regs[gpr(token)] = number(eq + 1);
	} else if (token[0] == 'm') {
		p = memory_place(v, token, &size, &value);
		memcpy(p, &value, size);
	} else if (!strncmp(token, "top=", 4)) {
		v->fpu_area[3] = (uint8_t)(number(eq + 1) << 3);
	} else {
		wide(eq + 1, vector_place(v, token));
	}
}

static bool holds(struct vcpu *v, const char *token)
{
	const char *eq = strchr(token, '='), *at = strchr(token, '@');
	uint8_t want[16];
	unsigned size = 0;
	uint64_t value = 0;

	if (!strcmp(token, "stop"))
		return v->exc_vector == EXC_UD && v->rip != AT;
	if (token[0] == '#')
		return v->rip == AT && v->exc_vector == strtoul(token + 1, NULL, 10) &&
		       (!at || v->exc_cr2 == number(at + 1));
	if (gpr(token) >= 0)
		return v->regs[gpr(token)] == number(eq + 1);
	if (token[0] == 'm') {
		const uint8_t *p = memory_place(v, token, &size, &value);

		return !memcmp(p, &value, size);
	}
	if (!strncmp(token, "top=", 4))
		return (v->fpu_area[3] >> 3 & 7) == number(eq + 1);
	if (!strncmp(token, "flags=", 6))
		return (vcpu_rflags(v) & 0x8d5) == number(eq + 1);
	wide(eq + 1, want);
	return !memcmp(vector_place(v, token), want, 16);
}

static struct vcpu *machine(const struct line *l, bool amd)
{
	struct vcpu *v = btvm_reset();
	unsigned k = 0;

	v->amd = amd;
	v->features = ~0ull & ~FEAT(AMD);
	v->cr0 |= CR0_AM;
	for (const char *p = map; *p; p++, k++) {
		memset(ram(v, D + k * 4096, 4096), 0, 4096);
		*btvm_pte(D + k * 4096) &= *p == '.' ? 0 : *p == 'r' ? ~2ull : ~0ull;
	}
	*btvm_pte(0) = 0; /* what runs past 4 GiB goes on there */
	memcpy(v->fpu_area, "\x7f\x03", 2);
	memset(v->fpu_area + XMM, 0, 256);
	memset(v->fpu_area + YMM, 0, 256);
	v->fpu_area[512] = 7;
	btvm_mode(v, 3, l->bits[0] == '6' ? 8 : 4);
	vcpu_set_rflags(v, RFL_FIX);
	return v;
}

static void each(struct vcpu *v, const char *tokens, const struct line *l,
		 void (*fn)(struct vcpu *, const char *, const struct line *))
{
	char buf[256], *save, *t;

	snprintf(buf, sizeof buf, "%s", tokens);
	for (t = strtok_r(buf, " ", &save); t; t = strtok_r(NULL, " ", &save))
		fn(v, t, l);
}

static void do_set(struct vcpu *v, const char *token, const struct line *l)
{
	(void)l;
	set(v, token);
}

static void do_check(struct vcpu *v, const char *token, const struct line *l)
{
	if (holds(v, token))
		return;
	fprintf(stderr, "%s, as %s: not %s but #%u@%llx rip %llx\n", l->what, v->amd ? "AMD" : "Intel", token,
		v->exc_vector, (unsigned long long)v->exc_cr2, (unsigned long long)v->rip);
	CU_FAIL("outcome");
}

static void run_line(const struct line *l, bool amd)
{
	struct vcpu *v = machine(l, amd);
	uint8_t code[32];
	size_t n = btvm_hex(l->bytes, code, sizeof code);

	memcpy(code + n, "\x0f\x0b", 2);
	btvm_put(v, AT, code, n + 2);
	each(v, l->in, l, do_set);
	v->rip = AT;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	vcpu_fpu_out(v);
	each(v, l->out[amd], l, do_check);
}

/* Does this host have what the line runs? */
static bool can_run(const struct line *l)
{
	struct vcpu *v = btvm_reset();

	if (!strncmp(l->bytes, "0f38c", 5))
		return v->features & FEAT(SHA);
	if (!strncmp(l->bytes, "c5", 2) || !strncmp(l->bytes, "c4", 2))
		return (v->features & FEAT(AVX2)) && (v->features & FEAT(F16C));
	return (v->cr4 & CR4_OSXSAVE) || strcmp(l->bytes, "480fae27");
}

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && (end[-1] == ' ' || end[-1] == '\n'))
		*--end = 0;
	return s + strspn(s, " ");
}

static void test_lines(void)
{
	FILE *f = fopen(VENDOR_FILE, "r");
	char buf[512], *field[6], *save;
	unsigned lines = 0, ran = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	while (fgets(buf, sizeof buf, f)) {
		struct line l;
		int n = 0;

		if (buf[0] == '#')
			continue;
		for (char *t = strtok_r(buf, "|", &save); t && n < 6; t = strtok_r(NULL, "|", &save))
			field[n++] = trim(t);
		CU_ASSERT_EQUAL_FATAL(n, 6);
		l = (struct line){field[0], field[1], field[2], field[3], {field[4], field[5]}};
		lines++;
		if (!can_run(&l))
			continue;
		ran++;
		run_line(&l, false);
		run_line(&l, true);
	}
	fclose(f);
	btvm_reset();
	fprintf(stderr, "%u of %u lines, as Intel and as AMD ", ran, lines);
	CU_ASSERT(lines > 25 && ran > 15);
}

/* Where the pages on both sides of 4 GiB are there, an access over it is whole on Intel's CPUs: xchg [edi], eax. */
static void test_wrap(void)
{
	struct line l = {.bits = "32"};
	struct vcpu *v = machine(&l, false);
	uint32_t low = 0x44332211;

	*btvm_pte(0xfffff000) = *btvm_pte(D);
	*btvm_pte(0) = *btvm_pte(D + 4096);
	memcpy(ram(v, D + 4094, 2), &low, 2);
	memcpy(ram(v, D + 4096, 2), (uint8_t *)&low + 2, 2);
	btvm_put(v, AT, (const uint8_t *)"\x87\x07\x0f\x0b", 4);
	v->regs[R_DI] = 0xfffffffe;
	v->regs[R_AX] = 0x88776655;
	v->rip = AT;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], low);
	CU_ASSERT(!memcmp(ram(v, D + 4094, 2), "\x55\x66", 2));
	CU_ASSERT(!memcmp(ram(v, D + 4096, 2), "\x77\x88", 2));
	btvm_reset();
}

CU_ErrorCode suite_vendor(void);
CU_ErrorCode suite_vendor(void)
{
	CU_pSuite s = CU_add_suite("vendor", NULL, NULL);

	CU_add_test(s, "native outcomes of both", test_lines);
	CU_add_test(s, "over 4 GiB as Intel's", test_wrap);
	return CU_get_error();
}
