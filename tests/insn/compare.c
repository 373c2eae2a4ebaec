/*
 * Comparison of results.  Only what the architecture leaves undefined is left
 * out: the flags an instruction leaves undefined, the x87 instruction and data
 * pointers (they name the code that really ran), RF, and the present bit of a
 * page fault above the user half, which Linux hides from programs.
 *
 * Invariant: a case that faulted compares all its flags, defined or not, unless
 * it ran code that it had written at random.
 */
#include "compare.h"

#include <stdio.h>
#include <string.h>

#include "isa.h"

static int has_error_code(uint32_t vec)
{
	return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17;
}

/* Of two things that are wrong with an operand of many pieces (alignment, contents, a page of it), CPUs report either: Zen 1
 * finds xrstor's bad MXCSR before the missing page of its AVX part, Zen 3 after it. */
static int is_operand_fault(uint32_t vec)
{
	return vec == 13 || vec == 14 || vec == 17;
}

/* Intel's CPUs report the second page of an xsave area whose first one is bad too, now and then; AMD's and the engine the
 * first. */
static int same_page(uint64_t a, uint64_t b)
{
	uint64_t apart = a / PG > b / PG ? a / PG - b / PG : b / PG - a / PG;

	return apart <= (isa_host_is_amd() ? 0u : 1u);
}

static int fault_differs(const struct testcase *tc, const struct result *n, const struct result *e)
{
	uint32_t mask = ~0u;

	/* cmps: Zen 1 and 3 look at es:rdi first, as the engine does, Zen 5 at rsi */
	if (tc->either && is_operand_fault(n->vector) && is_operand_fault(e->vector))
		return 0;
	if (n->vector != e->vector)
		return !(tc->pieces && is_operand_fault(n->vector) && is_operand_fault(e->vector));
	if (n->vector == 14 && (tc->pieces ? !same_page(n->cr2, e->cr2) : n->cr2 != e->cr2))
		return 1;
	if (n->vector == 14 && n->cr2 >= 0x7ffffffff000ull)
		mask = ~1u;
	return has_error_code(n->vector) && ((n->error ^ e->error) & mask);
}

static uint32_t diff_gprs(const struct test *t, const struct cpu_state *n, const struct cpu_state *e)
{
	int count = t->flags & TEST_32BIT ? 8 : 16;
	uint64_t mask = t->flags & TEST_32BIT ? 0xffffffffull : ~0ull;
	uint32_t d = 0;

	for (int i = 0; i < count; i++)
		if ((n->gpr[i] ^ e->gpr[i]) & mask)
			d |= DIFF_GPR;
	if ((n->rip ^ e->rip) & mask)
		d |= DIFF_RIP;
	if (isa_null_clears_base() && (((n->fsbase ^ e->fsbase) | (n->gsbase ^ e->gsbase)) & mask))
		d |= DIFF_BASE;
	return d;
}

static uint32_t diff_xs(const struct test *t, const uint8_t *n, const uint8_t *e)
{
	int vec = t->flags & TEST_32BIT ? 8 * 16 : 16 * 16;
	uint32_t d = 0;

	if (memcmp(n, e, XS_FOP) || memcmp(n + XS_ST, e + XS_ST, XS_XMM - XS_ST))
		d |= DIFF_X87;
	if (memcmp(n + XS_MXCSR, e + XS_MXCSR, 4))
		d |= DIFF_MXCSR;
	if (memcmp(n + XS_XMM, e + XS_XMM, vec) || memcmp(n + XS_YMMH, e + XS_YMMH, vec))
		d |= DIFF_VEC;
	if (!isa_has_avx512())
		return d;
	if (memcmp(n + isa_xs_off(XS_MASKS), e + isa_xs_off(XS_MASKS), 64) ||
	    memcmp(n + isa_xs_off(XS_ZMM_HI), e + isa_xs_off(XS_ZMM_HI), 2 * vec))
		d |= DIFF_VEC;
	if (!(t->flags & TEST_32BIT) && memcmp(n + isa_xs_off(XS_ZMM_16), e + isa_xs_off(XS_ZMM_16), 1024))
		d |= DIFF_VEC;
	return d;
}

static void zero_masked(const struct testcase *tc, uint8_t *image)
{
	for (uint64_t a = tc->mask_addr; a < tc->mask_addr + tc->mask_len; a++)
		for (int i = 0; i < WR_PAGES; i++)
			if (a - wr_page[i] < PG)
				image[(uint64_t)i * PG + (a - wr_page[i])] = 0;
}

void compare_image(const struct batch *b, const struct worker_out *w, uint32_t k, uint8_t *image)
{
	const struct result *r = &w->out[k];

	memcpy(image, b->image, IMG_SIZE);
	memcpy(image + IMG_SIZE, b->code, CODE_SIZE);
	for (uint32_t i = r->line0; i < r->line0 + r->lines; i++)
		memcpy(image + w->log[i].off, w->log[i].data, LINE);
	zero_masked(&b->tc[k], image);
}

static int mem_differs(const struct batch *b, uint32_t k)
{
	static uint8_t in[IMG_SIZE + CODE_SIZE], ie[IMG_SIZE + CODE_SIZE];
	const struct result *n = &b->native.out[k], *e = &b->engine.out[k];

	if (n->lines == e->lines &&
	    !memcmp(b->native.log + n->line0, b->engine.log + e->line0, n->lines * sizeof(struct mem_line)))
		return 0;
	compare_image(b, &b->native, k, in);
	compare_image(b, &b->engine, k, ie);
	return memcmp(in, ie, sizeof in) != 0;
}

/* Flags that are undefined where a sequence faulted: by the instruction before it; by any where it had gone astray. */
static uint32_t undef_at(const struct test *t, uint64_t rip)
{
	uint32_t best = 0, flags = 0;

	if (rip - CODE_BASE >= CODE_SIZE) {
		for (uint32_t i = 0; i < t->n_undef; i++)
			flags |= t->undef[i].flags;
		return flags;
	}
	for (uint32_t i = 0; i < t->n_undef; i++)
		if (t->undef[i].at <= rip && t->undef[i].at >= best) {
			flags = t->undef[i].flags | (t->undef[i].at == best ? flags : 0);
			best = t->undef[i].at;
		}
	return flags;
}

static int wrote_code(const struct worker_out *w, const struct result *r)
{
	for (uint32_t i = r->line0; i < r->line0 + r->lines; i++)
		if (w->log[i].off >= IMG_SIZE)
			return 1;
	return 0;
}

/* A string instruction that overwrites itself: Intel's CPUs notice between two rounds, or between the pieces of fast strings,
 * and go on with the new bytes; AMD's finish it, as the engine does. */
static int overwrote_itself(const struct batch *b, const struct test *t, const struct result *n)
{
	if (isa_host_is_amd() || !(t->flags & TEST_STRING))
		return 0;
	for (uint32_t i = n->line0; i < n->line0 + n->lines; i++)
		for (uint64_t k = 0; k < LINE; k++) {
			uint64_t at = b->native.log[i].off - (uint64_t)IMG_SIZE + k; /* in the code */

			if (at - (t->start - CODE_BASE) < t->len && b->native.log[i].data[k] != b->code[at])
				return 1;
		}
	return 0;
}

/* Without AC only a host that forbids locked accesses across cache lines raises #AC. */
static int traps_split_locks(const struct result *n)
{
	return n->outcome == OUT_FAULT && n->vector == 17 && !(n->st.rflags & 0x40000);
}

uint32_t compare_case(const struct batch *b, uint32_t k, int lax)
{
	const struct result *n = &b->native.out[k], *e = &b->engine.out[k];
	const struct test *t = &b->test[b->tc[k].test];
	uint32_t d = 0, fl = FLAGS_SEEN;

	if (n->outcome == OUT_NONE || n->outcome == OUT_ODD || n->overflow || e->overflow)
		return DIFF_SKIP;
	if (traps_split_locks(n) || overwrote_itself(b, t, n))
		return DIFF_SKIP;
	if (n->outcome == OUT_TIMEOUT)
		return e->outcome == OUT_TIMEOUT ? DIFF_SKIP : DIFF_OUTCOME;
	if (n->outcome != e->outcome)
		return DIFF_OUTCOME;
	if (n->outcome == OUT_FAULT && t->flags & TEST_SEQ)
		fl &= ~undef_at(t, n->st.rip);
	if (lax && n->outcome == OUT_FAULT && t->flags & TEST_SEQ)
		fl &= ~0x8d5u;
	if (n->outcome == OUT_FAULT && !(t->flags & TEST_SEQ) && n->st.rip != t->start && wrote_code(&b->native, n))
		fl &= ~0x8d5u; /* it went on in the data it had stored there: who knows what that leaves undefined */
	if (n->outcome == OUT_STOP)
		fl &= ~t->undef_flags;
	else if (fault_differs(&b->tc[k], n, e))
		d |= DIFF_FAULT;
	if ((n->st.rflags ^ e->st.rflags) & fl)
		d |= DIFF_FLAGS;
	d |= diff_gprs(t, &n->st, &e->st) | diff_xs(t, n->st.xs, e->st.xs);
	return mem_differs(b, k) ? d | DIFF_MEM : d;
}

void compare_names(uint32_t diff, char *buf, unsigned size)
{
	static const char *const names[] = {"outcome", "fault", "rip",   "gpr", "flags",
					    "x87",     "vec",   "mxcsr", "mem", "base"};
	unsigned n = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (diff & (1u << i) && n < size)
			n += (unsigned)snprintf(buf + n, size - n, "%s%s", n ? "," : "", names[i]);
}
