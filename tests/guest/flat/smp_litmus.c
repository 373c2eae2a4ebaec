/*
 * What order other CPUs may see: SB, MP, LB, 2+2W and IRIW, plain, with fences
 * and with locked operations.  SDM 3A 8.2.2, 8.2.3.2 to 8.2.3.9 (9.2 in newer ones).
 * Invariant: a turn's variables have cache lines of their own and are 0 before it.
 *
 * Nobody waits long for the others before a turn: with fewer host cores than CPUs they run one after the other then,
 * which is allowed.  How many turns were close is what SB's weak outcome tells.
 */
#include "smp.h"

#define BATCH 2048u /* turns between two barriers */

struct line {
	volatile uint64_t v;
	uint64_t pad[7];
};
static struct line x[BATCH] __attribute__((aligned(4096))), y[BATCH] __attribute__((aligned(4096)));
static uint64_t out[4][BATCH][2]; /* what CPU n read in turn k */

static const struct test {
	const char *name;
	unsigned cpus;
	void (*turn)(unsigned who, unsigned k);
	bool (*forbidden)(unsigned k);
	bool (*weak)(unsigned k); /* allowed, and only seen when CPUs are really apart */
} * test;
static struct {
	volatile unsigned at __attribute__((aligned(64)));
} pace[4];
static struct barrier at;
static unsigned batches, n_forbidden, n_weak;

#define LOAD(p)                                                             \
	({                                                                  \
		uint64_t v_;                                                \
		__asm__ volatile("movq %1, %0" : "=r"(v_) : "m"((p)[k].v)); \
		v_;                                                         \
	})
#define STORE(p, val) __asm__ volatile("movq %1, %0" : "=m"((p)[k].v) : "r"((uint64_t)(val)))
#define XCHG(p, val)                                                                   \
	({                                                                             \
		uint64_t v_ = (val);                                                   \
		__asm__ volatile("xchgq %1, %0" : "+m"((p)[k].v), "+r"(v_)::"memory"); \
	})
#define MFENCE __asm__ volatile("mfence" ::: "memory")
#define LOCKED __asm__ volatile("lock addl $0, (%%rsp)" ::: "memory", "cc")
#define GOT    out[who][k]

/* ---- SB: two CPUs store, then each loads the other's (8.2.3.4: both may see 0; with a fence between, not) ---- */
#define SB(name, store, between)                   \
	static void name(unsigned who, unsigned k) \
	{                                          \
		if (who == 0) {                    \
			store(x, 1);               \
			between;                   \
			GOT[0] = LOAD(y);          \
		} else {                           \
			store(y, 1);               \
			between;                   \
			GOT[0] = LOAD(x);          \
		}                                  \
	}
SB(sb, STORE, )
SB(sb_mfence, STORE, MFENCE)
SB(sb_locked, STORE, LOCKED)
SB(sb_xchg, XCHG, )
/* Serialising instructions (8.3). */
SB(sb_cpuid, STORE, serialise())
SB(sb_wrmsr, STORE, wrmsr(0xc0000102, 0))
SB(sb_cr3, STORE, __asm__ volatile("movq %%cr3, %%rax; movq %%rax, %%cr3" ::: "rax", "memory"))
SB(sb_invlpg, STORE, invlpg(out))
SB(sb_iret, STORE,
   __asm__ volatile(
	   "movq %%ss, %%rax; movq %%rsp, %%rcx; pushq %%rax; pushq %%rcx; pushfq; movq %%cs, %%rax; pushq %%rax;"
	   "leaq 1f(%%rip), %%rax; pushq %%rax; iretq; 1:" ::
		   : "rax", "rcx", "memory"))

static bool both_0(unsigned k)
{
	return !out[0][k][0] && !out[1][k][0];
}

/* A CPU sees its own store before others do, and no older value (8.2.3.5). */
static void sb_forward(unsigned who, unsigned k)
{
	if (who == 0) {
		STORE(x, 1);
		GOT[1] = LOAD(x);
		GOT[0] = LOAD(y);
	} else {
		STORE(y, 1);
		GOT[1] = LOAD(y);
		GOT[0] = LOAD(x);
	}
}

static bool not_own(unsigned k)
{
	return !out[0][k][1] || !out[1][k][1];
}

/* ---- MP: the second store seen, the first not (8.2.3.2: never) ---- */
#define MP(name, store, load)                      \
	static void name(unsigned who, unsigned k) \
	{                                          \
		if (who == 0) {                    \
			store(x, 1);               \
			store(y, 1);               \
		} else {                           \
			GOT[0] = load(y);          \
			GOT[1] = load(x);          \
		}                                  \
	}
MP(mp, STORE, LOAD)
MP(mp_xchg, XCHG, LOAD)

/* The same by string instructions and by 16 bytes at once: parts in any order, the flag behind them. */
static void mp_rep(unsigned who, unsigned k)
{
	void *to = (void *)&x[k].v;
	word n = 8;

	if (who == 0) {
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(1) : "memory");
		STORE(y, 1);
	} else {
		GOT[0] = LOAD(y);
		GOT[1] = LOAD(x) == 0x0101010101010101;
	}
}

static bool flag_without_data(unsigned k)
{
	return out[1][k][0] && !out[1][k][1];
}

/* ---- LB: each loads, then stores what the other loads (8.2.3.3: never both 1) ---- */
static void lb(unsigned who, unsigned k)
{
	if (who == 0) {
		GOT[0] = LOAD(x);
		STORE(y, 1);
	} else {
		GOT[0] = LOAD(y);
		STORE(x, 1);
	}
}

static bool both_1(unsigned k)
{
	return out[0][k][0] && out[1][k][0];
}

/* ---- 2+2W: two CPUs store to both in opposite order (8.2.2: stores are seen in one order; never both first values) ---- */
#define W22(name, store)                           \
	static void name(unsigned who, unsigned k) \
	{                                          \
		if (who == 0) {                    \
			store(x, 1);               \
			store(y, 2);               \
		} else {                           \
			store(y, 1);               \
			store(x, 2);               \
		}                                  \
	}
W22(w22, STORE)
W22(w22_xchg, XCHG)

static bool both_first(unsigned k)
{
	return x[k].v == 1 && y[k].v == 1;
}

/* ---- IRIW: two CPUs store, two others must agree on the order (8.2.3.7) ---- */
#define IRIW(name, store)                                    \
	static void name(unsigned who, unsigned k)           \
	{                                                    \
		switch (who) {                               \
		case 0: store(x, 1); break;                  \
		case 1: store(y, 1); break;                  \
		case 2:                                      \
			GOT[0] = LOAD(x);                    \
			GOT[1] = LOAD(y);                    \
			break;                               \
		default: GOT[0] = LOAD(y); GOT[1] = LOAD(x); \
		}                                            \
	}
IRIW(iriw, STORE)
IRIW(iriw_xchg, XCHG)

static bool disagree(unsigned k)
{
	return out[2][k][0] && !out[2][k][1] && out[3][k][0] && !out[3][k][1];
}

/* ---- WRC: a store seen by one is seen by whoever sees what that one does next (8.2.3.6) ---- */
static void wrc(unsigned who, unsigned k)
{
	switch (who) {
	case 0: STORE(x, 1); break;
	case 1:
		GOT[0] = LOAD(x);
		STORE(y, GOT[0]);
		break;
	default: GOT[0] = LOAD(y); GOT[1] = LOAD(x);
	}
}

static bool not_transitive(unsigned k)
{
	return out[2][k][0] && !out[2][k][1];
}

/* ---- an aligned load of 2 to 8 bytes sees all of a store or nothing (8.1.1), also across a line on its own side ---- */
static void torn(unsigned who, unsigned k)
{
	uint8_t *p = (uint8_t *)x[k].pad;

	if (who == 0) {
		*(volatile uint64_t *)p = ~0ull;
	} else {
		uint64_t v = *(volatile uint64_t *)p;
		GOT[0] = v && v != ~0ull;
		*(volatile uint64_t *)p = 0;
	}
}

static bool is_torn(unsigned k)
{
	return out[1][k][0];
}

static const struct test tests[] = {
	{"SB", 2, sb, NULL, both_0},
	{"SB, own stores", 2, sb_forward, not_own, both_0},
	{"SB with mfence", 2, sb_mfence, both_0, NULL},
	{"SB with a locked add between", 2, sb_locked, both_0, NULL},
	{"SB with xchg for the stores", 2, sb_xchg, both_0, NULL},
	{"SB with cpuid between", 2, sb_cpuid, both_0, NULL},
	{"SB with wrmsr between", 2, sb_wrmsr, both_0, NULL},
	{"SB with mov cr3 between", 2, sb_cr3, both_0, NULL},
	{"SB with invlpg between", 2, sb_invlpg, both_0, NULL},
	{"SB with iret between", 2, sb_iret, both_0, NULL},
	{"MP", 2, mp, flag_without_data, NULL},
	{"MP with xchg for the stores", 2, mp_xchg, flag_without_data, NULL},
	{"MP, the data by rep stosb", 2, mp_rep, flag_without_data, NULL},
	{"LB", 2, lb, both_1, NULL},
	{"2+2W", 2, w22, both_first, NULL},
	{"2+2W with xchg", 2, w22_xchg, both_first, NULL},
	{"whole quadwords", 2, torn, is_torn, NULL},
	{"WRC", 3, wrc, not_transitive, NULL},
	{"IRIW", 4, iriw, disagree, NULL},
	{"IRIW with xchg for the stores", 4, iriw_xchg, disagree, NULL},
};

/* A short wait until all are at turn @k. */
static void draw_near(unsigned who, unsigned k)
{
	unsigned spin = 300, i;

	pace[who].at = k;
	for (i = 0; i < test->cpus; i++)
		while (pace[i].at < k && spin)
			spin--;
}

static void judge(void)
{
	for (unsigned k = 0; k < BATCH; k++) {
		n_forbidden += test->forbidden && test->forbidden(k);
		n_weak += test->weak && test->weak(k);
		x[k].v = y[k].v = x[k].pad[0] = 0;
	}
	memset(out, 0, sizeof out);
	memset(pace, 0, sizeof pace);
}

static void take_part(void *arg)
{
	unsigned who = smp_me();

	for (unsigned b = 0; b < batches; b++) {
		barrier(&at, test->cpus);
		for (unsigned k = 0; k < BATCH; k++) {
			draw_near(who, k + 1);
			for (unsigned d = smp_random(smp_self()) & 7; d; d--)
				__asm__ volatile("");
			test->turn(who, k);
		}
		barrier(&at, test->cpus);
		if (who == 0)
			judge();
	}
}

static void run_test(const struct test *t)
{
	test = t;
	n_forbidden = n_weak = 0;
	judge();
	n_forbidden = n_weak = 0;
	smp_each(t->cpus, take_part, NULL);
	check(t->name, !n_forbidden, "%u of %u turns gave what x86 forbids", n_forbidden, batches * BATCH);
	if (!t->weak)
		return;
	if (n_weak)
		check("SB: stores were seen late, as they may", true, "-");
	else
		skip("SB: stores were seen late, as they may", "not once: the host gave no two CPUs at a time");
	print("# %u of %u turns\n", n_weak, batches * BATCH);
}

static bool serialises(const struct test *t)
{
	return t->turn == sb_cpuid || t->turn == sb_wrmsr || t->turn == sb_cr3 || t->turn == sb_invlpg ||
	       t->turn == sb_iret;
}

void flat_main(void)
{
	if (!smp_init())
		return;
	smp_start_all();
	batches = (unsigned)(TURNS(49152) / BATCH); /* times=21: a million */
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
		if (tests[i].cpus > smp_n)
			skip(tests[i].name, "takes more CPUs");
		else if (cpu.tcg && serialises(&tests[i]))
			skip(tests[i].name, "TCG: no fence in it");
		else
			run_test(&tests[i]);
}
