/*
 * Paging in 32-bit mode: two levels with 4M pages, and PAE.  SDM 3A 4.3, 4.4.
 * The judge is pt_expect() of pt.h, as for the 64-bit guest.
 * Invariant: the first 64 MiB are identity mapped, supervisor, in both formats.
 */
#include "pt.h"

#define TEST_PA 0x2000000u
#define POOL    0x1000000u
#define UTEXT   0xa0000000u
#define USTACK  0xa0002000u
#define VSMALL  0xb00f3000u
#define VBIG    0xc0000000u

__asm__(".pushsection .text.u, \"ax\"; .balign 4096; utext:\n"
	"s_read: movb (%edi), %al; int $0x80\n"
	"s_write: movb %al, 64(%edi); int $0x80\n"
	"s_rmw: lock orb $0, 64(%edi); int $0x80\n"
	"s_exec: jmp *%edi\n"
	"s_impl: movl %eax, %fs; int $0x80\n"
	".balign 4096; .popsection");
extern char utext[], s_read[], s_write[], s_rmw[], s_exec[], s_impl[];
static char *const stub[ACC_COUNT] = {s_read, s_write, s_rmw, s_exec, s_read, s_write, s_rmw, s_exec, s_impl, s_impl};

static uint32_t next_frame = POOL;
static word cr4_base;
static bool pae;

static uint32_t frame(void)
{
	uint32_t f = next_frame;

	next_frame += 4096;
	memset((void *)f, 0, 4096);
	return f;
}

/* Entries are handled as 64 bits in both formats; level 1: 4K entry, 2: directory. */
static uint32_t root2, root_pae;

static void *slot(uint32_t va, int level)
{
	if (!pae) {
		uint32_t *pde = (uint32_t *)root2 + (va >> 22);
		if (level == 2)
			return pde;
		if (!(*pde & 1))
			*pde = frame() | 7;
		return (uint32_t *)(*pde & ~0xfffu) + (va >> 12 & 1023);
	}
	uint64_t *pdpte = (uint64_t *)root_pae + (va >> 30);
	uint64_t *pde = (uint64_t *)(word)(*pdpte & ~0xfffull) + (va >> 21 & 511);
	if (level == 2)
		return pde;
	if (!(*pde & 1))
		*pde = frame() | 7;
	return (uint64_t *)(word)(*pde & 0xfffff000) + (va >> 12 & 511);
}

static uint64_t get(uint32_t va, int level)
{
	return pae ? *(volatile uint64_t *)slot(va, level) : *(volatile uint32_t *)slot(va, level);
}

static void set(uint32_t va, int level, uint64_t e)
{
	if (pae)
		*(volatile uint64_t *)slot(va, level) = e;
	else
		*(volatile uint32_t *)slot(va, level) = (uint32_t)e;
}

static void make_tables(void)
{
	uint32_t pa, i;

	if (pae) {
		root_pae = frame();
		for (i = 0; i < 4; i++)
			((uint64_t *)root_pae)[i] = frame() | 1;
	} else {
		root2 = frame();
	}
	for (pa = 0; pa < 0x4000000; pa += pae ? 0x200000 : 0x400000)
		set(pa, 2, pa | P_PS | P_P | P_W);
	set(UTEXT, 1, (word)utext | P_P | P_U);
	set(USTACK, 1, frame() | P_P | P_U | P_W);
}

static int access(enum access a, uint32_t va, bool ac)
{
	static struct regs r;
	bool user = acc_user(a) || a == ACC_UIMPL;

	if (user)
		rt_user_regs(&r, (void *)(UTEXT + (word)(stub[a] - utext)));
	else
		rt_regs(&r, stub[a]);
	r.di = va;
	r.ax = 0x14 | (user ? 3 : 0);
	if (user)
		r.sp = USTACK + 0xf00;
	if (ac)
		r.flags |= FL_AC;
	return rt_run(&r);
}

static void ldt_at(uint32_t va)
{
	rt_gdt[SEL_FREE / 8] = seg_desc(va, 0x1f, 0x82, 0);
	__asm__ volatile("lldt %w0" ::"r"(SEL_FREE));
}

static bool err_is(word got, word want, enum access a) /* as in paging.c */
{
	if (cpu.tcg && (want & PF_RSVD))
		got |= PF_P;
	if (cpu.tcg && (a == ACC_KRMW || a == ACC_URMW))
		got |= PF_W;
	return got == want;
}

struct size {
	const char *name;
	uint32_t va, off;
	uint64_t leaf;
	int level;
};

static void one_access(struct batch *b, const struct size *s, struct pt_case *c, unsigned bits)
{
	bool lu = bits >> 1 & 1, lw = bits >> 2 & 1, lnx = bits >> 3 & 1, uu = bits >> 4 & 1, uw = bits >> 5 & 1,
	     unx = bits >> 6 & 1;
	static const uint64_t ads[] = {0, P_A, P_A | P_D};
	uint64_t ad = ads[(bits + c->acc) % 3], after;
	uint32_t va = s->va + s->off, cr2;
	bool ok, wr = acc_write(c->acc);
	int want, vec;

	if (!pae)
		lnx = unx = false;
	if (s->level == 2) {
		uu = uw = true;
		unx = false;
	} else {
		set(s->va, 2, (get(s->va, 2) & 0xfffff000) | P_P | (uu ? P_U : 0) | (uw ? P_W : 0) | (unx ? P_NX : 0));
	}
	set(s->va, s->level, s->leaf | ad | (bits & 1) | (lu ? P_U : 0) | (lw ? P_W : 0) | (lnx ? P_NX : 0));
	invlpg((void *)va);
	c->p = bits & 1;
	c->u = lu && uu;
	c->w = lw && uw;
	c->nx = lnx || unx;
	if (unx && !c->nxe)
		c->p = true;
	want = pt_expect(c);
	vec = access(c->acc, va, c->ac);
	after = get(s->va, s->level);
	cr2 = va + (wr ? 64 : c->acc >= ACC_KIMPL ? 16 : 0);
	if (want < 0)
		ok = vec == VEC_END && (after & (P_A | P_D)) == (ad | P_A | (wr ? P_D : 0));
	else
		ok = vec == VEC_PF && err_is(rt_last.err, (word)want, c->acc) && (after & P_D) == (ad & P_D) &&
		     rt_last.cr2 == cr2;
	batch_case(
		b, ok,
		"access %d bits %#x wp%d smep%d smap%d ac%d nxe%d: vector %d error %#lx cr2 %#lx leaf %#llx, want error %d",
		c->acc, bits, c->wp, c->smep, c->smap, c->ac, c->nxe, vec, rt_last.err, rt_last.cr2, (long long)after,
		want);
}

static void permutations(const struct size *s)
{
	struct batch b = {s->name, 0, 0};
	unsigned ctl, bits, a;
	word cr0 = rd_cr0();
	uint64_t efer = rdmsr(MSR_EFER);

	for (ctl = 0; ctl < 32; ctl++) {
		struct pt_case c = {.wp = ctl & 1,
				    .smep = ctl >> 1 & 1,
				    .smap = ctl >> 2 & 1,
				    .ac = ctl >> 3 & 1,
				    .nxe = ctl >> 4 & 1};
		if ((c.smep && !cpu.smep) || (c.smap && !cpu.smap) || (c.nxe && (!cpu.nx || !pae)))
			continue;
		wrmsr(MSR_EFER, c.nxe ? efer | EFER_NXE : efer & ~(uint64_t)EFER_NXE);
		wr_cr0(c.wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
		wr_cr4(cr4_base | (c.smep ? CR4_SMEP : 0) | (c.smap ? CR4_SMAP : 0));
		ldt_at(s->va + s->off);
		for (bits = 0; bits < 128; bits++)
			for (a = 0; a < ACC_COUNT; a++) {
				if (cpu.tcg && a == ACC_KIMPL && c.ac)
					continue; /* as in paging.c */
				if (!(bits & 1) && bits != 0x36)
					continue;
				c.acc = a;
				one_access(&b, s, &c, bits);
			}
	}
	wr_cr4(cr4_base);
	wr_cr0(cr0);
	wrmsr(MSR_EFER, efer);
	__asm__ volatile("lldt %w0" ::"r"(0));
	batch_end(&b);
}

static uint8_t peek(uint32_t va)
{
	uint8_t v;

	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(va) : "memory");
	return v;
}

#define FRAME_A (TEST_PA + 0x10000)
#define FRAME_B (TEST_PA + 0x11000)

static void flushes(void)
{
	struct batch b = {pae ? "PAE: remaps and flushes" : "two levels: remaps and flushes", 0, 0};
	unsigned i, k;

	memset((void *)FRAME_A, 'A', 4096);
	memset((void *)FRAME_B, 'B', 4096);
	set(VSMALL, 2, (get(VSMALL, 2) & 0xfffff000) | 7);
	for (i = 0; i < 60; i++) {
		set(VSMALL, 1, (i & 1 ? FRAME_B : FRAME_A) | P_P | P_W | (i & 4 ? P_G : 0));
		if (i & 2)
			invlpg((void *)(VSMALL + i));
		else {
			wr_cr3(rd_cr3());
			if (i & 4)
				invlpg((void *)VSMALL);
		}
		batch_case(&b, peek(VSMALL + 0x100) == (i & 1 ? 'B' : 'A'), "turn %u", i);
	}
	for (i = 0; i < 10; i++) { /* more permissive: no flush */
		set(VSMALL, 1, 0);
		invlpg((void *)VSMALL);
		batch_case(&b, access(ACC_UREAD, VSMALL, false) == VEC_PF, "absent");
		set(VSMALL, 1, TEST_PA | P_P | P_U);
		batch_case(&b, access(ACC_UREAD, VSMALL, false) == VEC_END, "made present");
		batch_case(&b, access(ACC_UWRITE, VSMALL, false) == VEC_PF, "read only");
		set(VSMALL, 1, TEST_PA | P_P | P_U | P_W);
		batch_case(&b, access(ACC_UWRITE, VSMALL, false) == VEC_END, "made writable");
	}
	for (k = 0; k < 4; k++) { /* one invlpg drops a whole large page */
		uint32_t pt = frame();
		set(VBIG, 2, TEST_PA | P_PS | P_P | P_W);
		wr_cr3(rd_cr3());
		for (i = 0; i < 16; i++) {
			*(uint8_t *)(TEST_PA + 0x20100 + i * 4096) = 'C';
			batch_case(&b, peek(VBIG + 0x20100 + i * 4096) == 'C', "large, page %u", i);
		}
		for (i = 0; i < (pae ? 512 : 1024); i++) {
			if (pae)
				((uint64_t *)pt)[i] = FRAME_B | P_P | P_W;
			else
				((uint32_t *)pt)[i] = FRAME_B | 3;
		}
		set(VBIG, 2, pt | 7);
		invlpg((void *)(VBIG + k * 0x31000));
		for (i = 0; i < 16; i++)
			batch_case(&b, peek(VBIG + 0x20100 + i * 4096) == 'B', "split, page %u", i);
	}
	batch_end(&b);
}

static void specials(void)
{
	uint64_t old = get(VSMALL, 1);
	unsigned bit;

	if (!pae) {
		set(VBIG, 2, TEST_PA | P_PS | P_P | P_W | 1u << 21);
		invlpg((void *)VBIG);
		check_trap("4M page: reserved bit 21", access(ACC_KREAD, VBIG, false), VEC_PF, cpu.tcg ? 8 : 9);
		set(VBIG, 2, 0);
		invlpg((void *)VBIG);
		return;
	}
	struct batch b = {"PAE: reserved bits", 0, 0};
	for (bit = cpu.maxphys; bit < 63; bit++) {
		set(VSMALL, 1, TEST_PA | P_P | P_W | 1ull << bit);
		invlpg((void *)VSMALL);
		int vec = access(ACC_KREAD, VSMALL, false);
		batch_case(&b, vec == VEC_PF && (rt_last.err | (cpu.tcg ? 1 : 0)) == 9, "bit %u: vector %d error %#lx",
			   bit, vec, rt_last.err);
	}
	set(VSMALL, 1, old);
	set(VBIG, 2, TEST_PA | P_PS | P_P | P_W | 1u << 13);
	invlpg((void *)VBIG);
	batch_case(&b, access(ACC_KREAD, VBIG, false) == VEC_PF, "2M page, bit 13");
	set(VBIG, 2, 0);
	invlpg((void *)VBIG);
	batch_end(&b);
	/* the four PDPTEs are read when CR3 is loaded, not when they are used */
	uint64_t *pdpte = (uint64_t *)root_pae + (VBIG >> 30), keep = *pdpte;
	set(VBIG, 2, TEST_PA | P_PS | P_P | P_W);
	*pdpte = 0;
	invlpg((void *)VBIG);
	SKIP_TCG("PDPTEs are kept from the CR3 load", "reads them each time")
	check_trap("PDPTEs are kept from the CR3 load", access(ACC_KREAD, VBIG, false), VEC_END, 0);
	wr_cr3(rd_cr3());
	check_trap("PDPTE not present", access(ACC_KREAD, VBIG, false), VEC_PF, 0);
	*pdpte = keep | 2; /* bit 1 is reserved */
	SKIP_TCG("PDPTE reserved bits", "does not check them")
	check_trap("PDPTE reserved bits: CR3 load", TRY(wr_cr3(rd_cr3())), VEC_GP, 0);
	*pdpte = keep;
	wr_cr3(rd_cr3());
	check_trap("PDPTE present again", access(ACC_KREAD, VBIG, false), VEC_END, 0);
}

static void fill_test_page(void)
{
	uint8_t *p = (void *)TEST_PA;

	p[0] = 0xcd;
	p[1] = 0x80;
	*(uint64_t *)(p + 16) = 0x00cff3000000ffff;
	p[64] = 0x5a;
}

static void two_levels(void)
{
	static const struct size small = {"two levels: permissions of 4K pages", VSMALL, 0, TEST_PA, 1},
				 big = {"two levels: permissions of 4M pages", VBIG, TEST_PA & 0x3fffff,
					(TEST_PA & ~0x3fffffu) | P_PS, 2};

	pae = false;
	make_tables();
	wr_cr4(cr4_base = rd_cr4() | CR4_PSE);
	wr_cr3(root2);
	wr_cr0(rd_cr0() | CR0_PG | CR0_WP);
	check("two levels: on", rd_cr0() & CR0_PG, "CR0 %#lx", rd_cr0());
	permutations(&small);
	permutations(&big);
	flushes();
	specials();
	wr_cr0(rd_cr0() & ~CR0_PG);
	check("paging off again", !(rd_cr0() & CR0_PG) && *(volatile uint8_t *)TEST_PA == 0xcd, "CR0 %#lx", rd_cr0());
}

static void pae_levels(void)
{
	static const struct size small = {"PAE: permissions of 4K pages", VSMALL, 0, TEST_PA, 1},
				 big = {"PAE: permissions of 2M pages", VBIG, TEST_PA & 0x1fffff,
					(TEST_PA & ~0x1fffffu) | P_PS, 2};

	pae = true;
	make_tables();
	wr_cr4(cr4_base = rd_cr4() | CR4_PAE);
	wr_cr3(root_pae);
	wr_cr0(rd_cr0() | CR0_PG | CR0_WP);
	permutations(&small);
	permutations(&big);
	flushes();
	specials();
	wr_cr0(rd_cr0() & ~CR0_PG);
}

void flat_main(void)
{
	fill_test_page();
	two_levels();
	pae_levels();
}
