/*
 * The x87 pointers that guests can store: their own or zeros, by every instruction that stores them.
 * Invariant under test: no host address, not even the low half of one, is ever among them.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/cpu/fpu.h"

#define AT   (BTVM_CODE + 0x100)
#define AREA BTVM_DATA /* rdi: where things are stored; rsi: where from */
#define FROM (BTVM_DATA + 0x2000)

static uint8_t *area(struct vcpu *v)
{
	return gmem_ptr(v->vm->mem, AREA, 4096, GMEM_READ);
}

static struct vcpu *machine(unsigned code_size)
{
	struct vcpu *v = btvm_reset();

	btvm_mode(v, 3, code_size);
	memset(area(v), 0, 4096);
	v->regs[R_DI] = AREA;
	v->regs[R_SI] = FROM;
	v->regs[R_AX] = 7;
	return v;
}

/* Some @turns: the second time nothing is translated in between, which on some hosts loses the pointers. */
static void run(struct vcpu *v, const char *hex, unsigned turns)
{
	uint8_t code[64];
	size_t n = btvm_hex(hex, code, sizeof code);

	memcpy(code + n, "\x0f\x0b", 2);
	btvm_put(v, AT, code, n + 2);
	for (unsigned turn = 0; turn < turns; turn++) {
		v->rip = AT;
		v->exc_pending = 0;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
		CU_ASSERT_EQUAL(v->rip, AT + n);
	}
}

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* What stores pointers, where it stores FOP or FIP first, and how many bytes of them; those between are FOP's, FCS' or FDS'. */
static const struct store {
	const char *name, *hex;
	unsigned at, len;
	bool wide, only64, is_env;
} stores[] = {
	{"fxsave64", "48 0f ae 07", FX_FOP, 18, true, true, false},
	{"fxsave", "0f ae 07", FX_FOP, 18, false, false, false},
	{"xsave64", "48 0f ae 27", FX_FOP, 18, true, true, false},
	{"xsave", "0f ae 27", FX_FOP, 18, false, false, false},
	{"xsaveopt64", "48 0f ae 37", FX_FOP, 18, true, true, false},
	{"xsavec64", "48 0f c7 27", FX_FOP, 18, true, true, false},
	{"fnstenv", "d9 37", 12, 14, false, false, true},
	{"fnstenv16", "66 d9 37", 6, 8, false, false, true},
	{"fnsave", "dd 37", 12, 14, false, false, true},
	{"fnsave16", "66 dd 37", 6, 8, false, false, true},
};
#define N_STORES (sizeof stores / sizeof *stores)

static bool has(const struct vcpu *v, const struct store *s)
{
	if (!(v->cr4 & CR4_OSXSAVE) && s->name[0] == 'x')
		return false;
	if (!strcmp(s->name, "xsaveopt64"))
		return v->xsave_caps & 1;
	return strcmp(s->name, "xsavec64") || (v->xsave_caps & 2);
}

/* @before and the store; the last x87 instruction of @before had a host address and a host operand. */
static void stores_zeros(unsigned code_size, const char *before)
{
	for (unsigned i = 0; i < N_STORES; i++) {
		const struct store *s = &stores[i];
		struct vcpu *v = machine(code_size);
		char hex[128];

		if (!has(v, s) || (code_size == 4 && s->only64))
			continue;
		snprintf(hex, sizeof hex, "%s %s", before, s->hex);
		run(v, hex, 1);
		CU_ASSERT(!is_zero(area(v), 4)); /* it has stored something */
		if (is_zero(area(v) + s->at, s->len))
			continue;
		fprintf(stderr, "%s after %s:", s->name, before);
		for (unsigned k = 0; k < s->len; k++)
			fprintf(stderr, " %02x", area(v)[s->at + k]);
		fprintf(stderr, "\n");
		CU_FAIL("pointers");
	}
}

static void test_stores(void)
{
	/* a register, an operand in memory, a pending exception: zero divide, unmasked by fnstcw; and [rdi], ~4; fldcw */
	static const char fault[] = "d9 7f 40 66 83 67 40 fb d9 6f 40 d9 e8 d9 ee de f9";

	for (unsigned code_size = 4; code_size <= 8; code_size += 4) {
		stores_zeros(code_size, "d9 e8");
		stores_zeros(code_size, "dd 07");
		stores_zeros(code_size, fault);
		stores_zeros(code_size, "dd 07 dd d8"); /* and nothing left of it */
	}
}

/* Does this host's xrstor load the pointers, and xsave store them, without an exception? */
static bool host_keeps_pointers(void)
{
	static uint8_t x[4096] __attribute__((aligned(64)));
	uint64_t ip = 0x1234, got;

	memset(x, 0, sizeof x);
	memcpy(x, "\x7e\x03", 2);
	memcpy(x + 24, "\x80\x1f", 2);
	memcpy(x + FX_FIP, &ip, 8);
	x[512] = 3;
	__asm__ volatile("xrstor64 (%0); xsave64 (%0); fninit" : : "r"(x), "a"(3), "d"(0) : "memory");
	memcpy(&got, x + FX_FIP, 8);
	return got == ip;
}

/* Marks of the guest's own come back from each store after each load, or zeros where the host's CPU forgets them. */
static void load_and_store(const char *load, const struct store *s)
{
	struct vcpu *v = machine(8);
	bool env = load[0] == 'd';
	uint8_t from[1024] = {0x7e, 0x03, 0, 0, 0, 0}, *fx = from;
	uint64_t ip = 0x11223344, dp = 0x55667788;
	uint32_t tags = 0xffff;
	char hex[64];

	if (env) {
		memcpy(from + 8, &tags, 4);
		memcpy(from + 12, &ip, 4);
		memcpy(from + 20, &dp, 4);
	} else {
		memcpy(fx + 24, "\x80\x1f", 2);
		memcpy(fx + FX_FIP, &ip, 8);
		memcpy(fx + FX_FDP, &dp, 8);
		from[512] = 3;
	}
	btvm_put(v, FROM, from, sizeof from);
	snprintf(hex, sizeof hex, "%s db e2 d9 7f 40 %s", load, s->hex); /* fnclex and fnstcw change no pointers */
	memset(area(v), 0xee, 512);
	run(v, hex, 2);
	if (s->is_env) {
		uint32_t got[7];

		if (s->at == 6)
			return; /* fewer bits: see the zeros above */
		memcpy(got, area(v), sizeof got);
		CU_ASSERT(got[3] == ip || (got[3] == 0 && !host_keeps_pointers()));
		CU_ASSERT(got[5] == dp || (got[5] == 0 && !host_keeps_pointers()));
	} else {
		uint64_t got_ip, got_dp;

		memcpy(&got_ip, area(v) + FX_FIP, 8);
		memcpy(&got_dp, area(v) + FX_FDP, 8);
		if (got_ip == 0xeeeeeeeeeeeeeeee && v->amd)
			return; /* AMD's leave the place alone */
		CU_ASSERT(got_ip == ip || (got_ip == 0 && !host_keeps_pointers()));
		CU_ASSERT(got_dp == dp || (got_dp == 0 && !host_keeps_pointers()));
	}
}

static void test_round_trips(void)
{
	static const char *const loads[] = {"48 0f ae 0e", "0f ae 0e", "48 0f ae 2e", "d9 26", "dd 26"};

	for (unsigned l = 0; l < sizeof loads / sizeof *loads; l++)
		for (unsigned i = 0; i < N_STORES; i++)
			if (has(machine(8), &stores[i]))
				load_and_store(loads[l], &stores[i]);
}

/* What the guest has loaded is gone with its next x87 instruction, and with fninit. */
static void test_forgotten(void)
{
	struct vcpu *v = machine(8);
	uint32_t env[7] = {0x37e, 0, 0xffff, 0x1234, 0x5678, 0x9abc, 0}, got[7];

	btvm_put(v, FROM, env, sizeof env);
	run(v, "d9 26 d9 37", 2); /* fldenv [rsi]; fnstenv [rdi] */
	memcpy(got, area(v), sizeof got);
	CU_ASSERT_EQUAL(got[3], 0x1234);
	CU_ASSERT_EQUAL(got[4] & 0xffff, 0x5678);
	CU_ASSERT_EQUAL(got[5], 0x9abc);
	run(v, "d9 26 d9 e8 d9 37", 2); /* fld1 between */
	CU_ASSERT(is_zero(area(v) + 12, 14));
	run(v, "66 d9 26 66 d9 37", 2); /* the 16-bit forms */
	memcpy(got, area(v), sizeof got);
	CU_ASSERT_EQUAL(memcmp(area(v) + 6, gmem_ptr(v->vm->mem, FROM + 6, 8, GMEM_READ), 8), 0);
}

CU_ErrorCode suite_x87ptr(void);
CU_ErrorCode suite_x87ptr(void)
{
	CU_pSuite s = CU_add_suite("x87ptr", NULL, NULL);

	CU_add_test(s, "no host address is stored", test_stores);
	CU_add_test(s, "what the guest loads comes back", test_round_trips);
	CU_add_test(s, "until its next x87 instruction", test_forgotten);
	return CU_get_error();
}
