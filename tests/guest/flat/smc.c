/*
 * Code that changes: ahead in the block, the next instruction, across pages,
 * through aliases, data beside code, pages remapped under the same address.
 * SDM 3A 8.1.3, 4.10.4.  On one CPU a jump or a serialising instruction is not
 * needed: stores are seen by later fetches (P6 family and everything since).
 * Invariant: every generated routine returns its result in eax.
 */
#include "pt.h"

#define ALIAS 0x480000000000ull /* another address of the code page */
#define PLACE 0x490000000000ull /* where pages are exchanged */

static uint8_t page[8192] __attribute__((aligned(4096)));
static uint64_t root;

static unsigned call(const void *p)
{
	unsigned v;

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

/* ---- a routine rewritten between calls ---- */
static void rewritten(void)
{
	struct batch b = {"routine rewritten between calls", 0, 0};
	unsigned i, off;

	for (off = 0; off < 4; off++)
		for (i = 0; i < 300; i++) {
			put_ret(page + off * 1365, i * 7919);
			batch_case(&b, call(page + off * 1365) == i * 7919, "turn %u", i);
			if (i % 3 == 0)
				batch_case(&b, call(page + off * 1365) == i * 7919, "turn %u again", i);
		}
	batch_end(&b);
}

/* One byte, two, four, eight, sixteen and rep stores into an immediate. */
static void store_kinds(void)
{
	struct batch b = {"every kind of store into code", 0, 0};
	uint8_t *p = page + 512, *src, *dst;
	uint32_t i;
	word q, n;

	for (i = 1; i < 60; i++) {
		put_ret(p, 0);
		call(p);
		p[1] = (uint8_t)i;
		batch_case(&b, call(p) == i, "byte");
		*(volatile uint16_t *)(p + 2) = (uint16_t)i;
		batch_case(&b, call(p) == (i | i << 8), "word, unaligned");
		*(volatile uint32_t *)(p + 1) = i * 0x01010101;
		batch_case(&b, call(p) == i * 0x01010101, "dword");
		q = 0xc300000000b8ul | (word)(i * 3) << 8;
		*(volatile uint64_t *)p = q;
		batch_case(&b, call(p) == i * 3, "qword");
		__asm__ volatile("lock addl %1, %0" : "+m"(*(uint32_t *)(p + 1)) : "r"(i));
		batch_case(&b, call(p) == i * 4, "locked add");
		__asm__ volatile("xchgl %1, %0" : "+m"(*(uint32_t *)(p + 1)), "+r"((uint32_t){i * 5}));
		batch_case(&b, call(p) == i * 5, "xchg");
		put_ret(page + 2048, i * 11);
		__asm__ volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" ::"r"(page + 2048), "r"(p) : "memory");
		batch_case(&b, call(p) == i * 11, "16 bytes");
		put_ret(page + 2048, i * 13);
		src = page + 2048;
		dst = p;
		n = 6;
		__asm__ volatile("rep movsb" : "+S"(src), "+D"(dst), "+c"(n) : : "memory");
		batch_case(&b, call(p) == i * 13, "rep movsb");
		dst = p + 1;
		__asm__ volatile("stosl" : "+D"(dst) : "a"(i * 17) : "memory");
		batch_case(&b, call(p) == i * 17, "stosl");
		__asm__ volatile(
			"pushq %%rax; mov %%rsp, %%rax; mov %0, %%rsp; pushq %1; mov %%rax, %%rsp; popq %%rax" ::"r"(p +
														     8),
			"r"(0xc300000000b8ul | (word)(i * 19) << 8)
			: "memory", "rax");
		batch_case(&b, call(p) == i * 19, "push");
	}
	batch_end(&b);
}

/* ---- the running block changes itself ---- */
/* movb %sil, imm of a later mov; the store and the target in one straight line, at every distance. */
static void ahead(void)
{
	struct batch b = {"store ahead in the same line", 0, 0};
	unsigned gap, i;

	for (gap = 0; gap < 200; gap += gap < 20 ? 1 : 13) {
		uint8_t *p = page + 100;
		unsigned n = 0;
		/* lea imm(%rip) is simpler by absolute address in rdi: mov %sil, (%rdi) */
		memcpy(p + n, "\x40\x88\x37", 3);
		n += 3;
		memset(p + n, 0x90, gap);
		n += gap;
		put_ret(p + n, 0);
		for (i = 0; i < 5; i++) {
			unsigned v;
			__asm__ volatile("call *%1" : "=a"(v) : "r"(p), "S"(i + gap), "D"(p + n + 1) : "memory");
			batch_case(&b, v == ((i + gap) & 255), "gap %u: got %u want %u", gap, v, (i + gap) & 255);
		}
	}
	batch_end(&b);
}

/* The store replaces the very next instruction (nop -> inc eax), and itself on the second round. */
static void next_instruction(void)
{
	struct batch b = {"store over the next instruction", 0, 0};
	unsigned i, v;

	for (i = 0; i < 50; i++) {
		/* xor %eax,%eax; movw %si,(%rdi); nop; nop; ret */
		memcpy(page, "\x31\xc0\x66\x89\x37\x90\x90\xc3", 8);
		__asm__ volatile("call *%1"
				 : "=a"(v)
				 : "r"(page), "S"(i & 1 ? 0xc0ff : 0x9090), "D"(page + 5)
				 : "memory");
		batch_case(&b, v == (i & 1), "turn %u: %u", i, v);
	}
	batch_end(&b);
}

/* A loop that rewrites an instruction of its own body each time round. */
static void loop_rewrites(void)
{
	struct batch b = {"loop that rewrites its body", 0, 0};
	unsigned n, rounds;
	uint64_t sum;
	/* xor eax,eax; mov $0,%edx [imm at 3]; add %rdx,%rax; incb (%rdi); dec %ecx; jnz -(to mov); ret */
	static const uint8_t body[] = {0x31, 0xc0, 0xba, 0,    0,    0,    0,    0x48, 0x01,
				       0xd0, 0xfe, 0x07, 0xff, 0xc9, 0x75, 0xf2, 0xc3};

	for (n = 1; n < 256; n += 9) {
		memcpy(page + 1000, body, sizeof(body));
		rounds = n;
		__asm__ volatile("call *%2"
				 : "=a"(sum), "+c"(rounds)
				 : "r"(page + 1000), "D"(page + 1003)
				 : "memory", "rdx");
		batch_case(&b, sum == (uint64_t)n * (n - 1) / 2, "%u rounds: %lu", n, (word)sum);
	}
	batch_end(&b);
}

static void big_loop(void)
{
	unsigned i, bad = 0;

	for (i = 0; i < 20000; i++) {
		put_ret(page + (i % 37) * 8, i);
		bad += call(page + (i % 37) * 8) != i;
	}
	check("twenty thousand rewrites", bad == 0, "%u stale", bad);
	/* two routines in one page: one changes, the other is called all the time */
	put_ret(page, 1);
	for (i = bad = 0; i < 20000; i++) {
		put_ret(page + 2048, i);
		bad += call(page) != 1;
		if (i % 16 == 0)
			bad += call(page + 2048) != i;
	}
	check("a neighbour of changing code", bad == 0, "%u wrong", bad);
}

/* ---- data beside code ---- */
static void data_beside(void)
{
	struct batch b = {"data in the code's page", 0, 0};
	/* incl 64-7(%rip)... : mov counter(%rip),%eax; inc %eax; mov %eax,counter(%rip); ret */
	static const uint8_t counter[] = {0x8b, 0x05, 0x3a, 0, 0, 0, 0xff, 0xc0, 0x89, 0x05, 0x32, 0, 0, 0, 0xc3};
	unsigned i, k;
	static const unsigned where[] = {0, 1000, 4096 - 70};

	for (k = 0; k < 3; k++) {
		uint8_t *p = page + where[k];
		memcpy(p, counter, sizeof(counter));
		*(uint32_t *)(p + 64) = 100;
		for (i = 1; i <= 3000; i++) {
			unsigned v = call(p);
			if (i % 50 == 0)
				batch_case(&b, v == 100 + i, "at %u, call %u: %u", where[k], i, v);
		}
		batch_case(&b, *(uint32_t *)(p + 64) == 3100, "counter %u", *(uint32_t *)(p + 64));
	}
	batch_end(&b);
}

/* The stack in the code's page: call and push next to the code. */
static void stack_beside(void)
{
	unsigned i, bad = 0;

	put_ret(page + 3000, 77);
	for (i = 0; i < 1000; i++) {
		unsigned v;
		word sp = (word)page + 2900;
		__asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; call *%2; push %%rax; pop %%rcx; mov %%rbx, %%rsp"
				 : "=a"(v)
				 : "r"(sp), "r"(page + 3000)
				 : "rbx", "rcx", "memory");
		bad += v != 77;
	}
	check("stack in the code's page", bad == 0, "%u wrong", bad);
}

/* ---- across pages ---- */
static void across_pages(void)
{
	struct batch b = {"instruction across two pages rewritten", 0, 0};
	unsigned cut, i;

	for (cut = 1; cut < 6; cut++) {
		uint8_t *p = page + 4096 - cut;
		put_ret(p, 1);
		batch_case(&b, call(p) == 1, "cut %u", cut);
		for (i = 0; i < 20; i++) {
			uint32_t want = 1;
			memset(p + 1, 0, 4);
			p[1 + i % 4] = (uint8_t)(i + 2);
			want = (uint32_t)(i + 2) << (8 * (i % 4));
			batch_case(&b, call(p) == want, "cut %u turn %u: %#x want %#x", cut, i, call(p), want);
		}
	}
	batch_end(&b);
}

static void straight_into_next_page(void)
{
	unsigned i, bad = 0;

	memset(page + 4000, 0x90, 96);
	for (i = 0; i < 200; i++) {
		put_ret(page + 4096, i);
		bad += call(page + 4000) != i;
	}
	check("code running on into a changing page", bad == 0, "%u stale", bad);
}

/* ---- aliases ---- */
static void aliases(void)
{
	struct batch b = {"written through one address, run at another", 0, 0};
	volatile uint8_t *a = (void *)ALIAS;
	unsigned i;

	pt_map(root, ALIAS, (word)page | P_P | P_W | P_U, 1);
	pt_map(root, ALIAS + 4096, (word)page | P_P | P_W | P_U, 1);
	put_ret(page + 40, 5);
	for (i = 0; i < 300; i++) {
		a[41] = (uint8_t)i;
		batch_case(&b, call(page + 40) == (i & 255), "write at the alias, turn %u", i);
		page[42] = (uint8_t)(i >> 4);
		batch_case(&b, call((void *)(ALIAS + 40)) == ((i & 255) | (i >> 4 & 255) << 8),
			   "write at home, turn %u", i);
		a[4096 + 42] = 0;
		batch_case(&b, call((void *)(ALIAS + 40)) == (i & 255), "write at the second alias, turn %u", i);
	}
	/* position matters: rip-relative code gives another result at each address */
	memcpy(page + 200, "\x48\x8d\x05\x00\x00\x00\x00\xc3", 8); /* lea 0(%rip), %rax; ret */
	for (i = 0; i < 10; i++) {
		word v;
		__asm__ volatile("call *%1" : "=a"(v) : "r"((void *)(ALIAS + 200)));
		batch_case(&b, v == ALIAS + 207, "rip at the alias: %#lx", v);
		__asm__ volatile("call *%1" : "=a"(v) : "r"((void *)(ALIAS + 4096 + 200)));
		batch_case(&b, v == ALIAS + 4096 + 207, "rip at the second alias: %#lx", v);
		__asm__ volatile("call *%1" : "=a"(v) : "r"(page + 200));
		batch_case(&b, v == (word)page + 207, "rip at home: %#lx", v);
	}
	batch_end(&b);
}

/* ---- pages exchanged under one address ---- */
static void exchanged(void)
{
	struct batch b = {"page exchanged under the same address", 0, 0};
	uint64_t f[3];
	unsigned i;

	for (i = 0; i < 3; i++) {
		f[i] = pt_frame();
		put_ret((uint8_t *)f[i] + 16, 1000 + i);
		put_ret((uint8_t *)f[i] + 600, 2000 + i);
	}
	for (i = 0; i < 400; i++) {
		pt_map(root, PLACE, f[i % 3] | P_P | P_W | (i & 1 ? P_G : 0), 1);
		batch_case(&b, call((void *)(PLACE + 16)) == 1000 + i % 3, "turn %u", i);
		batch_case(&b, call((void *)(PLACE + 600)) == 2000 + i % 3, "turn %u, second", i);
	}
	for (i = 0; i < 100; i++) { /* and written through the identity map while mapped */
		pt_map(root, PLACE, f[i % 3] | P_P | P_W, 1);
		put_ret((uint8_t *)f[i % 3] + 16, i);
		batch_case(&b, call((void *)(PLACE + 16)) == i, "rewritten, turn %u", i);
	}
	batch_end(&b);
}

/* The same with CR3: two roots that differ in one page. */
static void two_roots(void)
{
	struct batch b = {"page exchanged by CR3", 0, 0};
	uint64_t root2 = pt_frame(), f1 = pt_frame(), f2 = pt_frame();
	unsigned i;

	memcpy((void *)root2, (void *)root, 4096);
	((uint64_t *)root2)[PLACE >> 39 & 511] = 0;
	put_ret((uint8_t *)f1 + 32, 11);
	put_ret((uint8_t *)f2 + 32, 22);
	pt_map(root, PLACE, f1 | P_P | P_W, 1);
	pt_map(root2, PLACE, f2 | P_P | P_W, 1);
	for (i = 0; i < 300; i++) {
		wr_cr3(i & 1 ? root2 : root);
		batch_case(&b, call((void *)(PLACE + 32)) == (i & 1 ? 22 : 11), "turn %u", i);
	}
	wr_cr3(root);
	batch_end(&b);
}

/* A direct jump between pages whose target page is exchanged. */
static void linked_across(void)
{
	struct batch b = {"direct jump into an exchanged page", 0, 0};
	uint64_t f[2], src = pt_frame();
	uint8_t *p = (void *)src;
	unsigned i;

	f[0] = pt_frame();
	f[1] = pt_frame();
	put_ret((uint8_t *)f[0] + 64, 333);
	put_ret((uint8_t *)f[1] + 64, 444);
	pt_map(root, PLACE, src | P_P | P_W, 1);
	p[0] = 0xe9; /* jmp PLACE + 4096 + 64 */
	*(uint32_t *)(p + 1) = 4096 + 64 - 5;
	for (i = 0; i < 300; i++) {
		pt_map(root, PLACE + 4096, f[i & 1] | P_P | P_W, 1);
		batch_case(&b, call((void *)PLACE) == (i & 1 ? 444 : 333), "turn %u", i);
		batch_case(&b, call((void *)PLACE) == (i & 1 ? 444 : 333), "turn %u again", i);
	}
	*pt_entry(root, PLACE + 4096, 1) = 0;
	invlpg((void *)(PLACE + 4096));
	batch_case(&b, TRY(call((void *)PLACE)) == VEC_PF && rt_last.r.ip == PLACE + 4096 + 64, "target gone");
	batch_end(&b);
}

/* ---- ring 3, and jumps patched like a kernel does ---- */
static void ring3(void)
{
	struct batch b = {"ring 3 code rewritten by ring 0", 0, 0};
	struct regs r;
	unsigned i;

	for (i = 0; i < 200; i++) {
		put_ret(page + 300, i);
		memcpy(page + 305, "\xcd\x80", 2);
		rt_user_regs(&r, page + 300);
		batch_case(&b, rt_run(&r) == VEC_END && rt_last.r.ax == i, "turn %u: %u", i, (unsigned)rt_last.r.ax);
	}
	batch_end(&b);
}

static void jump_label(void)
{
	struct batch b = {"nop and jump exchanged", 0, 0};
	/* mov $1,%eax; 5-byte nop or jmp +5; mov $2,%eax; ret */
	static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0, 0}, jmp5[] = {0xe9, 5, 0, 0, 0};
	uint8_t *p = page + 1500;
	unsigned i;

	put_ret(p, 1);
	memcpy(p + 5, nop5, 5);
	put_ret(p + 10, 2);
	for (i = 0; i < 300; i++) {
		p[5] = 0xcc; /* text_poke: int3, tail, first byte */
		memcpy(p + 6, (i & 1 ? jmp5 : nop5) + 1, 4);
		p[5] = (i & 1 ? jmp5 : nop5)[0];
		p[15] = 0xc3;
		batch_case(&b, call(p) == (i & 1 ? 1 : 2), "turn %u: %u", i, call(p));
	}
	batch_end(&b);
}

/* int3 put over an instruction and taken away in the handler, as uprobes and debuggers do. */
static uint8_t *probe;
static unsigned hits;

static bool hook_probe(struct regs *r)
{
	if (r->vec != VEC_BP || r->ip != (word)probe + 1)
		return false;
	hits++;
	*probe = 0xb8;
	r->ip--;
	return true;
}

static void breakpoint(void)
{
	unsigned i, bad = 0;

	probe = page + 2500;
	put_ret(probe, 9);
	hits = 0;
	rt_hook = hook_probe;
	for (i = 0; i < 500; i++) {
		*probe = 0xcc;
		bad += call(probe) != 9;
		bad += call(probe) != 9;
	}
	rt_hook = NULL;
	check("int3 planted and removed", bad == 0 && hits == 500, "%u wrong, %u hits", bad, hits);
}

/* Code made in fresh pages, run once, page after page (a guest JIT's life). */
static void fresh_pages(void)
{
	struct batch b = {"fresh code pages, reused", 0, 0};
	uint8_t *area = (void *)PT_POOL_END;
	unsigned turn, i;

	for (turn = 0; turn < 4; turn++)
		for (i = 0; i < 512; i++) {
			uint8_t *p = area + i * 4096 + turn * 64;
			memset(p, 0x90, 10);
			put_ret(p + 10, turn * 1000 + i);
			batch_case(&b, call(p) == turn * 1000 + i, "page %u turn %u", i, turn);
		}
	batch_end(&b);
}

/* ---- code placed by a device-like store: rep stos over code that has run ---- */
static void erased(void)
{
	unsigned i, bad = 0;

	for (i = 0; i < 50; i++) {
		put_ret(page + 16, 3);
		bad += call(page + 16) != 3;
		uint8_t *dst = page;
		word n = 4096;
		__asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(0xcc) : "memory");
		bad += TRY(call(page + 16)) != VEC_BP;
	}
	check("code erased by rep stosb", bad == 0, "%u wrong", bad);
}

void flat_main(void)
{
	root = rd_cr3() & P_ADDR;
	rewritten();
	store_kinds();
	ahead();
	next_instruction();
	loop_rewrites();
	big_loop();
	data_beside();
	stack_beside();
	across_pages();
	straight_into_next_page();
	aliases();
	exchanged();
	two_roots();
	linked_across();
	ring3();
	jump_label();
	breakpoint();
	fresh_pages();
	erased();
}
