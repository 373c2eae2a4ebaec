/*
 * Code that one CPU writes and others run.  SDM 3A 8.1.3 (9.1.3 in newer ones):
 * self- and cross-modifying code; APM 2 7.6.1: asynchronous modification by
 * stores of up to an aligned quadword; 4.10.5 for pages that are exchanged.
 * Invariant: a routine returns its result in eax and changes no other register but those that run() names.
 */
#include "smp.h"

#define ALIAS 0x480000000000ull /* another address of the code */
#define PLACE 0x490000000000ull /* where code pages are exchanged */

static uint8_t code[4][4096] __attribute__((aligned(4096)));
static struct barrier at;
static word turns;
static struct {
	volatile word seq __attribute__((aligned(64))); /* what is in the code, and known to be everywhere */
	volatile bool stop;
	volatile unsigned bad, traps;
	volatile uint32_t example;
} ran;

static uint32_t run(const volatile void *p)
{
	uint32_t v;

	__asm__ volatile("call *%1"
			 : "=a"(v)
			 : "r"(p)
			 : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	return v;
}

/* mov $v, %eax; ret */
static void put_ret(uint8_t *p, uint32_t v)
{
	p[0] = 0xb8;
	memcpy(p + 1, &v, 4);
	p[5] = 0xc3;
}

static void wrong(uint32_t got)
{
	ran.example = got;
	__atomic_add_fetch(&ran.bad, 1, __ATOMIC_SEQ_CST);
}

static void core_sync(void *arg)
{
	serialise();
}

static void on_others(void (*job)(void *))
{
	ran.stop = false;
	ran.bad = 0;
	for (unsigned i = 1; i < smp_n; i++)
		smp_give(i, job, NULL);
}

static void stop_others(void)
{
	ran.stop = true;
	for (unsigned i = 1; i < smp_n; i++)
		smp_wait(i);
}

/* ---- modified while nobody runs it, then run by all: 8.1.3's first algorithm ---- */
static uint8_t *routine;

static void run_after_sync(void *arg)
{
	for (word k = 1; k <= turns; k++) {
		barrier(&at, smp_n);
		if (smp_me() == k % smp_n) /* the writer changes, too */
			put_ret(routine, (uint32_t)k * 7919);
		barrier(&at, smp_n);
		serialise();
		for (unsigned again = 0; again < 3; again++) {
			uint32_t got = run(routine);
			if (got != (uint32_t)k * 7919)
				wrong(got);
		}
	}
}

static void synchronised(void)
{
	struct batch b = {"written by one, run by all after a barrier and cpuid (8.1.3)", 0, 0};
	uint8_t *const places[] = {code[0], code[0] + 61, code[1] - 3, code[2] + 100};
	unsigned i;

	turns = TURNS(100) / smp_n;
	for (i = 0; i < 4; i++) {
		ran.bad = 0;
		routine = places[i];
		smp_each(smp_n, run_after_sync, NULL);
		batch_case(&b, !ran.bad, "place %u: %u wrong, one was %x", i, ran.bad, ran.example);
	}
	batch_end(&b);
}

/* ---- an aligned store of 1, 2, 4 or 8 bytes into code that runs: old or new, nothing between ---- */
static unsigned store_size;

/* nops up to an immediate aligned for the store; movabs $imm, %rax; ret. */
static uint8_t *put_movabs(uint8_t *p)
{
	memset(p, 0x90, 32);
	memcpy(p + 6, "\x48\xb8", 2); /* the immediate at p + 8 */
	memset(p + 8, 0, 8);
	p[16] = 0xc3;
	return p + 8;
}

static uint64_t run64(const volatile void *p)
{
	uint64_t v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(p) : "memory", "cc");
	return v;
}

/* Every byte of the value that is stored is the same: a mixture shows. */
static void run_patched(void *arg)
{
	while (!ran.stop) {
		uint64_t known = ran.seq, v = run64(routine),
			 mask = store_size == 8 ? ~0ull : (1ull << 8 * store_size) - 1;
		if ((v & mask) != ((v & 0xff) * 0x0101010101010101ull & mask) || v & ~mask)
			wrong((uint32_t)v);
		else if ((uint8_t)(v - known) > 100) /* older than what was synchronised */
			wrong((uint32_t)(v << 8 | (known & 0xff)));
	}
}

static void store_all(volatile uint8_t *p, word k)
{
	uint64_t v = (k & 0xff) * 0x0101010101010101ull;

	switch (store_size) {
	case 1: *p = (uint8_t)v; break;
	case 2: *(volatile uint16_t *)p = (uint16_t)v; break;
	case 4: *(volatile uint32_t *)p = (uint32_t)v; break;
	default: *(volatile uint64_t *)p = v;
	}
}

static void aligned_patches(void)
{
	struct batch b = {"aligned stores of 1 to 8 bytes into code that runs (APM 2 7.6.1)", 0, 0};
	volatile uint8_t *imm;
	word k, n = TURNS(200);

	for (store_size = 1; store_size <= 8; store_size *= 2) {
		routine = code[0] + 256 * store_size;
		imm = put_movabs(routine);
		ran.seq = 0;
		sti();
		on_others(run_patched);
		for (k = 1; k <= n; k++) {
			store_all(imm, k);
			if (k % 4)
				continue;
			smp_call_others(core_sync, NULL);
			ran.seq = k; /* older values must not show from here on */
		}
		stop_others();
		cli();
		batch_case(&b, !ran.bad, "%u bytes: %u wrong, one was %x", store_size, ran.bad, ran.example);
	}
	batch_end(&b);
}

/* ---- jmp to nop and back: two bytes, aligned (jump labels of one store) ---- */
static void run_jump(void *arg)
{
	while (!ran.stop) {
		uint32_t v = run(routine);
		if (v != 1 && v != 2)
			wrong(v);
	}
}

static void jump_label(void)
{
	static const uint8_t text[] = {0x66, 0x90, 0xb8, 1, 0, 0, 0, 0xc3, 0xb8, 2, 0, 0, 0, 0xc3};
	word k, n = TURNS(400);
	uint16_t nop = 0x9066, jmp = 0x06eb;

	routine = code[1] + 512;
	memcpy(routine, text, sizeof text);
	sti();
	on_others(run_jump);
	for (k = 0; k < n; k++) {
		uint32_t got;
		*(volatile uint16_t *)routine = k & 1 ? nop : jmp;
		got = run(routine); /* its own writes a CPU sees at once */
		if (got != (k & 1 ? 1 : 2))
			wrong(got);
	}
	stop_others();
	cli();
	check("a jump patched in and out while others run it", !ran.bad, "%u wrong, one was %x", ran.bad, ran.example);
}

/* ---- text_poke: int3, the tail, the first byte, each followed by an interrupt to all ---- */
#define POKE_LEN 5
static uint8_t *poked;

/* At the int3: as the old instruction or as the new: both set eax to the next instruction's. */
static bool poke_hook(struct regs *r)
{
	if (r->vec != VEC_BP || r->ip != (word)poked + 1)
		return false;
	__atomic_add_fetch(&ran.traps, 1, __ATOMIC_SEQ_CST);
	r->ip = (word)poked + POKE_LEN;
	r->ax = ran.seq; /* known to be everywhere, or newer */
	return true;
}

/* nops; mov $seq, %eax at any address; ret */
static void run_poked(void *arg)
{
	smp_self()->hook = poke_hook;
	while (!ran.stop) {
		word known = ran.seq;
		uint32_t v = run(routine);
		if (v < known || v > ran.seq + 1)
			wrong(v);
	}
	smp_self()->hook = NULL;
}

static void poke(uint8_t *p, uint32_t v)
{
	uint8_t insn[POKE_LEN] = {0xb8};

	memcpy(insn + 1, &v, 4);
	*(volatile uint8_t *)p = 0xcc;
	smp_call_others(core_sync, NULL);
	for (unsigned i = 1; i < POKE_LEN; i++)
		((volatile uint8_t *)p)[i] = insn[i];
	smp_call_others(core_sync, NULL);
	*(volatile uint8_t *)p = insn[0];
	smp_call_others(core_sync, NULL);
	ran.seq = v;
}

static void text_poke(const char *name, uint8_t *base, unsigned off, uint8_t *write_at)
{
	word k, n = TURNS(40);

	routine = base;
	memset(write_at, 0x90, off);
	poked = base + off;
	put_ret(write_at + off, 0);
	ran.seq = 0;
	ran.traps = 0;
	sti();
	on_others(run_poked);
	for (k = 1; k <= n; k++)
		poke(write_at + off, (uint32_t)k);
	stop_others();
	cli();
	check(name, !ran.bad && run(routine) == n, "%u wrong, one was %x; at last %x", ran.bad, ran.example,
	      run(routine));
	print("# %u int3\n", ran.traps);
}

static void pokes(void)
{
	unsigned i;

	text_poke("text_poke: within a line", code[0] + 1024, 7, code[0] + 1024);
	text_poke("text_poke: across lines", code[0] + 1024 + 64 - 10, 8, code[0] + 1024 + 64 - 10);
	text_poke("text_poke: across pages", code[1] - 10, 8, code[1] - 10);
	for (i = 0; i < 4; i++)
		pt_map((word)rt_pml4, ALIAS + i * 4096, (word)code[i] | P_P | P_W, 1);
	text_poke("text_poke: through another mapping (text_poke_mm)", code[2] + 64, 9,
		  (uint8_t *)ALIAS + 2 * 4096 + 64);
}

/* ---- calls whose target moves (static calls): call rel32, poked ---- */
static bool call_hook(struct regs *r)
{
	if (r->vec != VEC_BP || r->ip != (word)poked + 1)
		return false;
	__atomic_add_fetch(&ran.traps, 1, __ATOMIC_SEQ_CST);
	r->ip = (word)poked + POKE_LEN;
	r->ax = 100;
	return true;
}

static void run_call(void *arg)
{
	smp_self()->hook = call_hook;
	while (!ran.stop) {
		uint32_t v = run(routine);
		if (v < 100 || v > 103)
			wrong(v);
	}
	smp_self()->hook = NULL;
}

static void static_call(void)
{
	uint8_t *site = code[3] + 3, insn[5] = {0xe8};
	word k, n = TURNS(40);
	unsigned i;
	int32_t rel;

	for (i = 0; i < 4; i++)
		put_ret(code[2] + 2048 + 32 * i, 100 + i);
	routine = site;
	poked = site;
	rel = (int32_t)(code[2] + 2048 - (site + 5));
	memcpy(insn + 1, &rel, 4);
	memcpy(site, insn, 5);
	site[5] = 0xc3;
	ran.traps = 0;
	sti();
	on_others(run_call);
	for (k = 1; k <= n; k++) {
		rel = (int32_t)(code[2] + 2048 + 32 * (k % 4) - (site + 5));
		*(volatile uint8_t *)site = 0xcc;
		smp_call_others(core_sync, NULL);
		for (i = 0; i < 4; i++)
			((volatile uint8_t *)site)[1 + i] = (uint8_t)(rel >> 8 * i);
		smp_call_others(core_sync, NULL);
		*(volatile uint8_t *)site = 0xe8;
		smp_call_others(core_sync, NULL);
		uint32_t got = run(routine);
		if (got != 100 + k % 4)
			wrong(got);
	}
	stop_others();
	cli();
	check("static call: its target poked while others call", !ran.bad, "%u wrong, one was %x", ran.bad,
	      ran.example);
	print("# %u int3\n", ran.traps);
}

/* ---- data beside code that others run ---- */
static void run_beside(void *arg)
{
	volatile word *own = (word *)(code[1] + 2048) + smp_me();

	while (!ran.stop) {
		uint32_t v = run(code[1]);
		if (v != 4711)
			wrong(v);
		(*own)++;
		__atomic_add_fetch((word *)(code[1] + 3072), 1, __ATOMIC_SEQ_CST);
	}
}

static void data_beside_code(void)
{
	volatile word *own = (word *)(code[1] + 2048);
	word sum = 0, k, n = TURNS(1000);
	unsigned i;

	memset(code[1], 0x90, 4096);
	put_ret(code[1] + 100, 4711);
	memset(code[1] + 2048, 0, 2048);
	sti();
	on_others(run_beside);
	for (k = 0; k < n; k++) {
		own[0]++;
		__atomic_add_fetch((word *)(code[1] + 3072), 1, __ATOMIC_SEQ_CST);
	}
	stop_others();
	cli();
	for (i = 0; i < smp_n; i++)
		sum += own[i];
	check("data beside code: every store counts", !ran.bad && own[0] == n && sum == *(word *)(code[1] + 3072),
	      "%u wrong, %lu of %lu, %lu and %lu", ran.bad, own[0], n, sum, *(word *)(code[1] + 3072));
}

/* ---- all CPUs run new code of one page at once: translated by several ---- */
static void run_many(void *arg)
{
	for (word k = 1; k <= turns; k++) {
		barrier(&at, smp_n);
		if (smp_me() == 0)
			for (unsigned i = 0; i < 64; i++)
				put_ret(code[3] + 64 * i, (uint32_t)(k * 1000 + i));
		barrier(&at, smp_n);
		serialise();
		for (unsigned i = 0; i < 64; i++) {
			unsigned which = (i + smp_me() * 3) % 64;
			uint32_t v = run(code[3] + 64 * which);
			if (v != k * 1000 + which)
				wrong(v);
		}
	}
}

static void many(void)
{
	turns = TURNS(40) / smp_n + 1;
	ran.bad = 0;
	smp_each(smp_n, run_many, NULL);
	check("new code of one page, first run by all at once", !ran.bad, "%u wrong, one was %x", ran.bad, ran.example);
}

/* ---- a code page exchanged under its address, and shot down ---- */
static uint64_t place_frame[8];

static void run_place(void *arg)
{
	while (!ran.stop) {
		word known = ran.seq;
		uint32_t v = run((void *)PLACE);
		if (v < known)
			wrong(v);
	}
}

static void flush_place(void *arg)
{
	invlpg((void *)PLACE);
}

static void exchanged(void)
{
	word k, n = TURNS(80);
	uint64_t *e;
	unsigned i;

	for (i = 0; i < 8; i++)
		place_frame[i] = pt_frame();
	e = pt_entry((word)rt_pml4, PLACE, 1);
	put_ret((void *)(word)place_frame[0], 0);
	*e = place_frame[0] | P_P;
	ran.seq = 0;
	sti();
	on_others(run_place);
	for (k = 1; k <= n; k++) {
		put_ret((void *)(word)place_frame[k % 8], (uint32_t)k); /* nobody runs there: it was shot down */
		__atomic_exchange_n(e, place_frame[k % 8] | P_P, __ATOMIC_SEQ_CST);
		invlpg((void *)PLACE);
		smp_call_others(flush_place, NULL);
		ran.seq = k;
	}
	stop_others();
	cli();
	check("a code page exchanged and shot down while others run it", !ran.bad, "%u wrong, one was %x", ran.bad,
	      ran.example);
}

/* ---- each CPU writes and runs its own code, much of it: memory for translations comes and goes under all ---- */
#define CHURN_BASE  0x2000000u /* 1 MiB each, from 32 MiB up */
#define CHURN_PAGES 64u

static void run_churn(void *arg)
{
	uint8_t *mine = (uint8_t *)(word)(CHURN_BASE + smp_me() * CHURN_PAGES * 4096);

	for (word k = 1; k <= turns; k++)
		for (unsigned i = 0; i < CHURN_PAGES * 64; i++) {
			uint32_t v = (uint32_t)(k * 31337 + i);
			put_ret(mine + 64 * i, v);
			uint32_t got = run(mine + 64 * i);
			if (got != v)
				wrong(got);
		}
}

static void churn(void)
{
	turns = TURNS(4) / smp_n + 1;
	ran.bad = 0;
	smp_each(smp_n, run_churn, NULL);
	check("each CPU writes code and runs it", !ran.bad, "%u wrong, one was %x", ran.bad, ran.example);
}

/* TCG translates from bytes that another CPU changes at the same time, and keeps what it made. */
static void while_it_runs(void)
{
	aligned_patches();
	jump_label();
	pokes();
	static_call();
}

void flat_main(void)
{
	if (!smp_init())
		return;
	smp_start_all();
	synchronised();
	SKIP_TCG("code patched while others run it", "stale translations")
	while_it_runs();
	data_beside_code();
	many();
	exchanged();
	churn();
}
