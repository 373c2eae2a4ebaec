/*
 * Memory that CPUs share: locked operations of every size on every kind of
 * operand, shootdowns, accessed and dirty bits.  SDM 3A 8.1.2 (locks: atomic
 * whatever the alignment; 9.1.2 in newer ones), 4.8 (A and D), 4.10.5 (propagation of changes).
 * Invariant: sums are exact; nothing is judged by how long it took.
 */
#include "smp.h"

#define ALIAS 0x480000000000ull /* frames in another order */
#define SHOT  0x490000000000ull /* what is shot down */
#define MMIO  0x4a0000000000ull /* a frame, and an address without memory behind it */

static struct barrier at;
static word turns;

/* ---- locked operations, by all CPUs on one operand ---- */
static uint8_t frames[3][4096] __attribute__((aligned(4096)));
static uint8_t *operand;

#define LOCKED(name, type, text)                                                     \
	static void name(volatile type *p, word k)                                   \
	{                                                                            \
		type one = 1;                                                        \
		__asm__ volatile(text : "+m"(*p), "+r"(one)::"memory", "cc", "rax"); \
	}
LOCKED(inc8, uint8_t, "lock incb %0")
LOCKED(add16, uint16_t, "lock addw %1, %0")
LOCKED(xadd32, uint32_t, "lock xaddl %1, %0")
LOCKED(xadd64, uint64_t, "lock xaddq %1, %0")
LOCKED(sub32, uint32_t, "lock subl $-1, %0")
LOCKED(adc64, uint64_t, "stc; lock adcq $0, %0")
LOCKED(sbb64, uint64_t, "clc; lock sbbq $-1, %0")
LOCKED(inc64, uint64_t, "lock incq %0")

static void cmpxchg32(volatile uint32_t *p, word k)
{
	uint32_t old = *p;

	__asm__ volatile("1: leal 1(%%rax), %%ecx; lock cmpxchgl %%ecx, %1; jne 1b"
			 : "+a"(old), "+m"(*p)::"rcx", "memory", "cc");
}

static void cmpxchg8b(volatile uint64_t *p, word k)
{
	uint32_t lo = (uint32_t)*p, hi = (uint32_t)(*p >> 32);

	__asm__ volatile(
		"1: movl %%eax, %%ebx; movl %%edx, %%ecx; addl $1, %%ebx; adcl $0, %%ecx; lock cmpxchg8b %2; jne 1b"
		: "+a"(lo), "+d"(hi), "+m"(*p)::"rbx", "rcx", "memory", "cc");
}

static void cmpxchg16b(volatile uint64_t *p, word k)
{
	uint64_t lo = p[0], hi = p[1];

	__asm__ volatile("1: leaq 1(%%rax), %%rbx; leaq 3(%%rdx), %%rcx; lock cmpxchg16b %2; jne 1b"
			 : "+a"(lo), "+d"(hi), "+m"(*p)::"rbx", "rcx", "memory", "cc");
}

/* A lock of one bit, by bts and btr, around a sum that is not locked. */
static void bit_lock(volatile uint32_t *p, word k)
{
	uint32_t v;

	__asm__ volatile("1: lock btsl $31, %0; jnc 2f; pause; jmp 1b; 2:"
			 : "+m"(*p)::"memory", "cc"); /* for ever if btr is lost */
	v = (*p & 0x7fffffff) + 1;
	*p = v | 0x80000000u;
	__asm__ volatile("lock btrl $31, %0" : "+m"(*p)::"memory", "cc");
}

/* xchg takes a number out and brings it back. */
static void xchg_lock(volatile uint32_t *p, word k)
{
	uint32_t v = 0x80000000, spin;

	for (spin = 1; spin; spin++) {
		__asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(*p)::"memory");
		if (v != 0x80000000)
			break;
		pause();
	}
	if (!spin)
		smp_stuck("a number that xchg has lost");
	v++;
	__asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(*p)::"memory");
}

/* Each CPU flips a bit of its own: an even number of times in all, and reads it back each time. */
static volatile unsigned flips_lost;

static void own_bit(volatile uint32_t *p, word k)
{
	uint32_t bit = smp_me(), was;

	__asm__ volatile("lock btcl %2, %0; sbbl %1, %1" : "+m"(*p), "=r"(was) : "r"(bit & 31) : "memory", "cc");
	if ((was & 1) != (k & 1))
		__atomic_add_fetch(&flips_lost, 1, __ATOMIC_SEQ_CST);
}

static void and_or_xor(volatile uint32_t *p, word k)
{
	uint32_t bit = 1u << (smp_me() & 31);

	switch (k & 3) {
	case 0: __asm__ volatile("lock orl %1, %0" : "+m"(*p) : "r"(bit) : "memory", "cc"); break;
	case 1: __asm__ volatile("lock andl %1, %0" : "+m"(*p) : "r"(~bit) : "memory", "cc"); break;
	default: __asm__ volatile("lock xorl %1, %0" : "+m"(*p) : "r"(bit) : "memory", "cc"); break;
	}
	if ((*p & bit) != ((k & 3) == 0 || (k & 3) == 2 ? bit : 0))
		__atomic_add_fetch(&flips_lost, 1, __ATOMIC_SEQ_CST);
}

/* Each undoes itself, whoever did it before. */
static void neg_neg(volatile uint64_t *p, word k)
{
	__asm__ volatile("lock negq %0" : "+m"(*p)::"memory", "cc");
}

static void not_not(volatile uint64_t *p, word k)
{
	__asm__ volatile("lock notq %0" : "+m"(*p)::"memory", "cc");
}

static const struct op {
	const char *name;
	void (*fn)(volatile void *p, word k);
	unsigned size;
	bool counts; /* the operand becomes the number of operations; otherwise 0 */
} ops[] = {
#define OP(f, size, counts)                                          \
	{                                                            \
#f, (void (*)(volatile void *, word))f, size, counts \
	}
	OP(inc8, 1, true),        OP(add16, 2, true),       OP(xadd32, 4, true),   OP(xadd64, 8, true),
	OP(sub32, 4, true),       OP(adc64, 8, true),       OP(sbb64, 8, true),    OP(inc64, 8, true),
	OP(cmpxchg32, 4, true),   OP(cmpxchg8b, 8, true),   OP(bit_lock, 4, true), OP(xchg_lock, 4, true),
	OP(own_bit, 4, false),    OP(and_or_xor, 4, false), OP(neg_neg, 8, false), OP(not_not, 8, false),
	OP(cmpxchg16b, 16, true),
};
static const struct op *op;

static void operate(void *arg)
{
	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++) {
		op->fn(operand, k);
		smp_got_on();
	}
}

static uint64_t value(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size > 8 ? 8 : size);
	return v;
}

/* All operations on an operand at @p; @split: half of it lies before. */
static void sums(const char *name, uint8_t *p, bool split)
{
	struct batch b = {name, 0, 0};
	uint64_t want, v;
	unsigned i;

	for (i = 0; i < sizeof ops / sizeof *ops; i++) {
		op = &ops[i];
		operand = p - (split ? op->size / 2 : 0);
		if ((split && op->size == 1) ||
		    (op->size == 16 && (word)operand & 15)) /* cmpxchg16b has to be aligned */
			continue;
		memset(operand, 0, op->size);
		flips_lost = 0;
		smp_each(smp_n, operate, NULL);
		want = op->counts ? turns * smp_n : 0;
		if (op->size < 8)
			want &= (1ull << 8 * op->size) - 1;
		v = value(operand, op->size);
		batch_case(&b, v == want && !flips_lost, "%s: %lx want %lx, %u lost", op->name, (word)v, (word)want,
			   flips_lost);
		if (op->size == 16)
			batch_case(&b, value(operand + 8, 8) == 3 * want, "%s: upper half %lx", op->name,
				   (word)value(operand + 8, 8));
	}
	batch_end(&b);
}

static void locked(void)
{
	word i;

	turns = TURNS(800) / smp_n & ~3ull;
	sums("locked sums: aligned (8.1.2)", frames[0] + 64, false);
	sums("locked sums: odd, within a line", frames[0] + 129, false);
	turns = TURNS(160) / smp_n & ~3ull;
	sums("locked sums: across cache lines", frames[0] + 256, true);
	sums("locked sums: across pages", frames[1], true);
	for (i = 0; i < 3; i++) /* 2, 1, 0: neighbours are not neighbours */
		pt_map((word)rt_pml4, ALIAS + i * 4096, (word)frames[2 - i] | P_P | P_W, 1);
	sums("locked sums: across pages that are apart", (uint8_t *)ALIAS + 4096, true);
}

/* Through two mappings at once: half of the CPUs each. */
static void two_ways(void *arg)
{
	volatile uint64_t *one = (void *)(frames[1] + 512), *other = (void *)(ALIAS + 4096 + 512);

	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++)
		xadd64(smp_me() & 1 ? one : other, k);
}

static void aliases(void)
{
	volatile uint64_t *p = (void *)(frames[1] + 512);

	turns = TURNS(6000) / smp_n;
	*p = 0;
	smp_each(smp_n, two_ways, NULL);
	check_eq("locked sums through two mappings", *p, turns * smp_n);
}

/* Bytes, words and dwords of one qword that others take as a whole (8.1.2.2: all sizes exclude each other). */
static void mixed_sizes(void *arg)
{
	volatile uint64_t *q = arg;
	volatile uint8_t *bytes = (volatile uint8_t *)arg;
	uint64_t v;

	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++)
		switch (smp_me() & 3) {
		case 0: __asm__ volatile("lock addb $1, %0" : "+m"(bytes[1])::"memory", "cc"); break;
		case 1:
			__asm__ volatile("lock addw $1, %0" : "+m"(*(volatile uint16_t *)(bytes + 2))::"memory", "cc");
			break;
		case 2:
			__asm__ volatile("lock addl $1, %0" : "+m"(*(volatile uint32_t *)(bytes + 4))::"memory", "cc");
			break;
		default:
			v = *q;
			while (!__atomic_compare_exchange_n(q, &v, v ^ 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
				;
		}
}

/* Plain stores of one byte beside others' bytes: stores write what they say and nothing beside it. */
static void own_byte(void *arg)
{
	volatile uint8_t *p = (volatile uint8_t *)arg + smp_me();

	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++)
		*p = (uint8_t)(*p + 1);
}

static void neighbours(void)
{
	struct batch b = {"operands of several sizes in one qword", 0, 0},
		     o = {"bytes side by side, stores not locked", 0, 0};
	uint8_t *p = frames[0] + 1024;
	unsigned i, kinds[4] = {0, 0, 0, 0};

	turns = TURNS(6000) / smp_n;
	memset(p, 0, 64);
	smp_each(smp_n, mixed_sizes, p);
	for (i = 0; i < smp_n; i++)
		kinds[i & 3]++;
	batch_case(&b, p[1] == (uint8_t)(kinds[0] * turns), "byte %x", p[1]);
	batch_case(&b, *(uint16_t *)(p + 2) == (uint16_t)(kinds[1] * turns), "word %x", *(uint16_t *)(p + 2));
	batch_case(&b, *(uint32_t *)(p + 4) == (uint32_t)(kinds[2] * turns), "dword %x", *(uint32_t *)(p + 4));
	batch_case(&b, p[0] == (kinds[3] * turns & 1), "bit %x", p[0]);
	batch_end(&b);
	memset(p, 0, 64);
	smp_each(smp_n, own_byte, p);
	for (i = 0; i < smp_n; i++)
		batch_case(&o, p[i] == (uint8_t)turns, "CPU %u: %x", i, p[i]);
	batch_end(&o);
}

/* ---- locked operations on device registers, and on memory whose neighbour is a device ---- */
static void mmio_add(void *arg)
{
	volatile uint32_t *sel = (void *)IOAPIC;

	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++)
		xadd32(sel, k);
}

static void beside_mmio(void *arg)
{
	volatile uint64_t *last = (void *)(MMIO + 4096 - 8);

	barrier(&at, smp_n);
	for (word k = 0; k < turns; k++) {
		xadd64(last, k);
		if (k % 16 == 0)
			(void)*(volatile uint32_t *)(MMIO + 4096); /* the device itself */
	}
}

static void mmio(void)
{
	word root = (word)rt_pml4;

	turns = TURNS(160) / smp_n;
	*(volatile uint32_t *)IOAPIC = 0;
	smp_each(smp_n, mmio_add, NULL);
	check_eq("lock xadd on a device's register (IOREGSEL)", *(volatile uint32_t *)IOAPIC & 0xff,
		 turns * smp_n & 0xff);
	pt_map(root, MMIO, (word)frames[0] | P_P | P_W, 1);
	pt_map(root, MMIO + 4096, IOAPIC | P_P | P_W, 1);
	memset(frames[0] + 4096 - 8, 0, 8);
	smp_each(smp_n, beside_mmio, NULL);
	check_eq("lock xadd on the last bytes before a device", *(uint64_t *)(frames[0] + 4096 - 8), turns * smp_n);
}

/* ---- shootdowns ---- */
#define FRAMES 16
static struct {
	volatile word stamp __attribute__((aligned(64))); /* generation that is mapped and known to be everywhere */
	volatile bool stop;
	volatile unsigned stale, faults;
	uint64_t frame[FRAMES];
	word flush; /* 0 invlpg, 1 CR3, 2 CR4.PGE, 3 both twice */
} shot;

struct shot_frame { /* what a frame holds */
	volatile word stamp;
	volatile word slot[SMP_MAX];
};

static void flush_here(void *arg)
{
	switch (shot.flush) {
	case 0: invlpg((void *)SHOT); break;
	case 1: wr_cr3(rd_cr3()); break;
	default:
		if (cpu.pge) {
			wr_cr4(rd_cr4() ^ CR4_PGE);
			wr_cr4(rd_cr4() ^ CR4_PGE);
		} else {
			wr_cr3(rd_cr3());
		}
	}
}

/* A page that is away or read only: try again. */
static bool shot_fault(struct regs *r)
{
	if (r->vec != VEC_PF || (rd_cr2() & ~4095ull) != SHOT)
		return false;
	__atomic_add_fetch(&shot.faults, 1, __ATOMIC_SEQ_CST);
	sti();
	pause();
	cli();
	return true;
}

static void shot_reader(void *arg)
{
	struct shot_frame *f = (void *)SHOT;
	unsigned me = smp_me();

	smp_self()->hook = shot_fault;
	while (!shot.stop) {
		word known = shot.stamp, seen = f->stamp;
		if (seen < known)
			shot.stale++;
		if (me & 1)
			f->slot[me]++;
	}
	smp_self()->hook = NULL;
}

/* The next frame at SHOT, the old one away everywhere; then the old one must keep still. */
static bool shoot(word generation, uint64_t flags)
{
	static uint64_t last_pa;
	uint64_t pa = shot.frame[generation % FRAMES], *e = pt_entry((word)rt_pml4, SHOT, 1);
	struct shot_frame *f = (void *)(word)pa, *old = (void *)(word)last_pa;
	word sum = 0, again = 0;
	unsigned i, k;

	f->stamp = generation;
	if (generation % 5 == 0) { /* away for a while */
		__atomic_exchange_n(e, 0, __ATOMIC_SEQ_CST);
		flush_here(NULL);
		smp_call_others(flush_here, NULL);
	}
	__atomic_exchange_n(e, pa | P_P | P_W | flags, __ATOMIC_SEQ_CST);
	flush_here(NULL);
	smp_call_others(flush_here, NULL);
	shot.stamp = generation;
	last_pa = pa;
	if (!old)
		return true;
	for (i = 0; i < SMP_MAX; i++)
		sum += old->slot[i];
	for (k = 0; k < 3; k++)
		smp_icr(0, ICR_SELF | ICR_ASSERT | V_WAKE);
	for (i = 0; i < SMP_MAX; i++)
		again += old->slot[i];
	return sum == again;
}

static void shootdowns(void)
{
	static const char *const names[] = {"shootdown storm: invlpg", "shootdown storm: CR3",
					    "shootdown storm: CR4.PGE, global pages"};
	word n = TURNS(100), generation = 1, k;
	unsigned i;

	for (i = 0; i < FRAMES; i++)
		shot.frame[i] = pt_frame();
	for (i = 0; i < 3; i++) {
		struct batch b = {names[i], 0, 0};
		shot.flush = i;
		shot.stale = 0;
		shot.stop = false;
		sti();
		shoot(generation++, i == 2 && cpu.pge ? P_G : 0);
		for (k = 1; k < smp_n; k++)
			smp_give((unsigned)k, shot_reader, NULL);
		for (k = 0; k < n; k++)
			batch_case(&b, shoot(generation + k, i == 2 && cpu.pge ? P_G : 0),
				   "generation %lu: written after the flush", generation + k);
		generation += n;
		shot.stop = true;
		for (k = 1; k < smp_n; k++)
			smp_wait((unsigned)k);
		cli();
		batch_case(&b, !shot.stale, "%u reads of a page that was gone", shot.stale);
		batch_end(&b);
	}
	print("# %u faults on pages that were away\n", shot.faults);
}

/* All CPUs shoot down pages of their own at the same time. */
static void flush_at(void *arg)
{
	invlpg(arg);
}

static void shoot_own(void *arg)
{
	struct batch *b = arg;
	unsigned me = smp_me();
	word va = SHOT + (me + 1) * 0x10000ull, k;
	uint64_t *e = pt_entry((word)rt_pml4, va, 1);

	for (k = 0; k < turns; k++) {
		uint64_t pa = shot.frame[(me * 2 + k) % FRAMES];
		__atomic_exchange_n(e, pa | P_P | P_W, __ATOMIC_SEQ_CST);
		invlpg((void *)va);
		smp_call_others(flush_at, (void *)va);
		if (*(volatile word *)va != *(volatile word *)(word)pa)
			__atomic_add_fetch(&b->bad, 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&b->cases, 1, __ATOMIC_SEQ_CST);
	}
}

static void shoot_all(void)
{
	struct batch b = {"shootdowns by all CPUs at once", 0, 0};
	unsigned i;

	for (i = 0; i < smp_n; i++) /* tables made before: pt_frame is for one CPU */
		pt_entry((word)rt_pml4, SHOT + (i + 1) * 0x10000ull, 1);
	for (i = 0; i < FRAMES; i++)
		*(volatile word *)(word)shot.frame[i] = i * 77 + 5;
	turns = TURNS(100) / smp_n;
	smp_each(smp_n, shoot_own, &b);
	batch_end(&b);
}

/* ---- accessed and dirty bits ---- */
static struct {
	volatile word *page; /* the frame, by its identity mapping */
	uint64_t *entry;
	volatile bool stop;
	volatile unsigned lost, flips;
} ad;

static void ad_writer(void *arg)
{
	volatile word *p = (void *)SHOT;
	unsigned me = smp_me();

	smp_self()->hook = shot_fault;
	while (!ad.stop) {
		p[me * 8]++;
		if (me & 2)
			invlpg((void *)SHOT); /* walks, not hits */
	}
	smp_self()->hook = NULL;
}

/* Flips a bit that is software's own: walks by others must not undo it (SDM 3A 4.8: locked). */
static void ad_flipper(void *arg)
{
	uint64_t have, bit = 1ull << (9 + smp_me() % 3);

	have = *(volatile uint64_t *)ad.entry & bit;
	while (!ad.stop) {
		__atomic_xor_fetch(ad.entry, bit, __ATOMIC_SEQ_CST);
		have ^= bit;
		for (unsigned spin = 0; spin < 20; spin++)
			if ((*(volatile uint64_t *)ad.entry & bit) != have) {
				ad.lost++;
				have ^= bit;
			}
		ad.flips++;
	}
}

static word ad_sum(void)
{
	word sum = 0;

	for (unsigned i = 0; i < smp_n; i++)
		sum += ad.page[i * 8];
	return sum;
}

static void ad_races(void)
{
	struct batch b = {"A and D: set again after they were cleared and flushed (4.8)", 0, 0};
	word n = TURNS(150), k, sum, dirty = 0;
	uint64_t e;
	unsigned i, flipper = smp_n > 2 ? smp_n - 1 : 0;

	ad.page = (void *)(word)pt_frame();
	ad.entry = pt_entry((word)rt_pml4, SHOT, 1);
	*ad.entry = (word)ad.page | P_P | P_W;
	ad.stop = false;
	ad.lost = ad.flips = 0;
	shot.flush = 0;
	flush_here(NULL);
	sti();
	smp_call_others(flush_here, NULL);
	for (i = 1; i < smp_n; i++)
		smp_give(i, i == flipper ? ad_flipper : ad_writer, NULL);
	for (k = 0; k < n; k++) {
		e = *(volatile uint64_t *)ad.entry;
		while (!__atomic_compare_exchange_n(ad.entry, &e, e & ~(P_A | P_D), false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
		smp_call_others(flush_here, NULL);
		sum = ad_sum();
		/* a store that came after: D was set before it */
		for (i = 0; i < 50 && ad_sum() == sum; i++)
			pause();
		if (ad_sum() == sum)
			continue;
		e = *(volatile uint64_t *)ad.entry;
		dirty++;
		batch_case(&b, (e & (P_A | P_D)) == (P_A | P_D), "turn %lu: entry %lx, written all the same", k,
			   (word)e);
	}
	ad.stop = true;
	for (i = 1; i < smp_n; i++)
		smp_wait(i);
	cli();
	print("# %lu of %lu turns saw a write, %u flips\n", dirty, n, ad.flips);
	batch_case(&b, !ad.lost, "%u flips of software's bits undone by a walk", ad.lost);
	batch_end(&b);
}

/* An entry taken away by xchg while others write: D in what was taken tells whether the page was written,
 * and after the shootdown it is not. */
static void ad_take(void)
{
	struct batch b = {"an entry taken away by xchg: D tells of every write", 0, 0};
	word n = TURNS(100), k, sum, was;
	uint64_t e;
	unsigned i;

	ad.stop = false;
	__atomic_store_n(ad.entry, (word)ad.page | P_P | P_W, __ATOMIC_SEQ_CST);
	sti();
	smp_call_others(flush_here, NULL);
	for (i = 1; i < smp_n; i++)
		smp_give(i, ad_writer, NULL);
	for (k = 0; k < n; k++) {
		__atomic_exchange_n(ad.entry, 0, __ATOMIC_SEQ_CST);
		smp_call_others(flush_here, NULL);
		was = ad_sum();
		__atomic_store_n(ad.entry, (word)ad.page | P_P | P_W, __ATOMIC_SEQ_CST); /* clean, not accessed */
		for (i = smp_random(&smp[0]) & 63; i; i--)
			pause();
		e = __atomic_exchange_n(ad.entry, 0, __ATOMIC_SEQ_CST);
		smp_call_others(flush_here, NULL);
		sum = ad_sum();
		batch_case(&b, e & P_D || sum == was, "turn %lu: entry %lx, %lu writes", k, (word)e, sum - was);
		for (i = 0; i < 20; i++)
			pause();
		batch_case(&b, sum == ad_sum(), "turn %lu: written without an entry", k);
	}
	__atomic_store_n(ad.entry, (word)ad.page | P_P | P_W, __ATOMIC_SEQ_CST);
	ad.stop = true;
	for (i = 1; i < smp_n; i++)
		smp_wait(i);
	cli();
	batch_end(&b);
}

/* Two CPUs set A and D of one entry, others of its neighbours in the same table: none is lost. */
static void ad_touch(void *arg)
{
	word base = SHOT + 0x200000, i;

	barrier(&at, smp_n);
	for (i = 0; i < 512; i++)
		if (i % smp_n == smp_me())
			*(volatile word *)(base + i * 4096 + 8) = i;
		else
			(void)*(volatile word *)(base + i * 4096);
	barrier(&at, smp_n);
	wr_cr3(rd_cr3());
}

static void ad_table(void)
{
	struct batch b = {"A and D of a whole table, touched by all at once", 0, 0};
	uint64_t *e = pt_entry((word)rt_pml4, SHOT + 0x200000, 1);
	word turn, i, frame = (word)ad.page;

	for (turn = 0; turn < TURNS(2); turn++) {
		for (i = 0; i < 512; i++)
			e[i] = frame | P_P | P_W;
		smp_each(smp_n, ad_touch, NULL);
		for (i = 0; i < 512; i++)
			batch_case(&b, (e[i] & (P_A | P_D)) == (P_A | P_D) && (e[i] & P_ADDR) == frame,
				   "entry %lu: %lx", i, (word)e[i]);
	}
	batch_end(&b);
}

void flat_main(void)
{
	if (!smp_init())
		return;
	smp_start_all();
	locked();
	aliases();
	neighbours();
	mmio();
	shootdowns();
	shoot_all();
	ad_races();
	ad_take();
	ad_table();
}
