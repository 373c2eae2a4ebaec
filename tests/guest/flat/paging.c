/*
 * Paging in long mode: permissions, accessed and dirty bits, reserved bits,
 * what each kind of flush must do.  SDM 3A chapter 4.
 * Invariant: the kernel's own pages are supervisor pages in root; user code
 * runs from UTEXT, an alias of the image's .utext.
 */
#include "pt.h"

#define TEST_PA  0x2000000ull      /* 32 MiB: the page tested; the next frames belong to it */
#define UTEXT    0x600000000000ull /* user alias of the stubs */
#define USTACK   0x600000010000ull
#define VA4K     0x7000000f3000ull
#define VA2M     (0x710000000000ull + 0x40000000)
#define VA1G     0x720000000000ull
#define FREE_SEL 0x50

static uint64_t root, root_old;
static word cr4_base;

/* Stubs: rdi = address.  In a page of their own, so that ring 3 gets an alias of just them. */
__asm__(".pushsection .text.u, \"ax\"; .balign 4096; utext:\n"
	"s_read: movb (%rdi), %al; int $0x80\n"
	"s_write: movb %al, 64(%rdi); int $0x80\n"
	"s_rmw: lock orb $0, 64(%rdi); int $0x80\n"
	"s_exec: jmp *%rdi\n"
	"s_impl: movl %eax, %fs; int $0x80\n"
	".balign 4096; .popsection");
extern char utext[], s_read[], s_write[], s_rmw[], s_exec[], s_impl[];
static char *const stub[ACC_COUNT] = {s_read, s_write, s_rmw, s_exec, s_read, s_write, s_rmw, s_exec, s_impl, s_impl};

/* The trap that ended the access; reading 0x80 means it went through. */
static int access(enum access a, uint64_t va, bool ac)
{
	struct regs r;
	bool user = acc_user(a) || a == ACC_UIMPL;

	rt_regs(&r, user ? (void *)(UTEXT + (word)(stub[a] - utext)) : stub[a]);
	r.di = va;
	r.ax = 0x14; /* LDT entry 2: at offset 16 of the test page */
	if (user) {
		r.ax |= 3;
		r.cs = SEL_UCODE;
		r.ss = SEL_UDATA;
		r.sp = USTACK + 0xf00;
	}
	if (ac)
		r.flags |= FL_AC;
	return rt_run(&r);
}

static void ldt_at(uint64_t va)
{
	rt_gdt[FREE_SEL / 8] = seg_desc((uint32_t)va, 0x1f, 0x82, 0);
	rt_gdt[FREE_SEL / 8 + 1] = va >> 32;
	__asm__ volatile("lldt %w0" ::"r"(FREE_SEL));
}

static void set_cr4(word bits)
{
	wr_cr4(cr4_base | bits);
}

static void set_wp(bool on)
{
	wr_cr0(on ? rd_cr0() | CR0_WP : rd_cr0() & ~(word)CR0_WP);
}

static void set_nxe(bool on)
{
	uint64_t e = rdmsr(MSR_EFER);

	wrmsr(MSR_EFER, on ? e | EFER_NXE : e & ~(uint64_t)EFER_NXE);
}

/* A root with a supervisor identity map of the first 64 MiB, the stubs for users, and the local APIC. */
static void make_root(void)
{
	uint64_t pa;

	root = pt_frame();
	for (pa = 0; pa < 0x4000000; pa += 0x200000)
		pt_map(root, pa, pa | P_PS | P_P | P_W, 2);
	pt_map(root, UTEXT, (word)utext | P_P | P_U, 1);
	pt_map(root, USTACK, pt_frame() | P_P | P_U | P_W, 1);
	root_old = rd_cr3();
	wr_cr3(root);
}

static void fill_test_page(void)
{
	uint8_t *p = (void *)(word)TEST_PA;

	p[0] = 0xcd; /* int $0x80 */
	p[1] = 0x80;
	*(uint64_t *)(p + 16) = 0x00cff3000000ffff; /* user data, accessed */
	p[64] = 0x5a;
}

/* Is @got the error code @want?  TCG leaves P out when a reserved bit is set (SDM 3A 4.7: RSVD implies P), and
 * takes the read of a locked operation first, without W. */
static bool err_is(word got, word want, enum access a)
{
	if (cpu.tcg && (want & PF_RSVD))
		got |= PF_P;
	if (cpu.tcg && (a == ACC_KRMW || a == ACC_URMW))
		got |= PF_W;
	return got == want;
}

/* ---- permutations ---- */
struct size {
	const char *name;
	uint64_t va, leaf;
	int level;
};

struct perm { /* where the restriction sits: leaf, or one level up */
	bool leaf_p, leaf_u, leaf_w, leaf_nx, up_u, up_w, up_nx;
};

static void one_access(struct batch *b, const struct size *s, const struct perm *m, struct pt_case *c, uint64_t ad)
{
	uint64_t *leaf = pt_entry(root, s->va, s->level), *up = pt_entry(root, s->va, s->level + 1);
	uint64_t va = s->va + (s->level == 1 ? 0 : s->level == 2 ? TEST_PA & 0x1fffff : TEST_PA), after, up_after;
	int want, vec;
	bool ok, wr = acc_write(c->acc);

	*leaf = s->leaf | ad | (m->leaf_p ? P_P : 0) | (m->leaf_u ? P_U : 0) | (m->leaf_w ? P_W : 0) |
		(m->leaf_nx ? P_NX : 0);
	*up = (*up & P_ADDR) | P_P | (m->up_u ? P_U : 0) | (m->up_w ? P_W : 0) | (m->up_nx ? P_NX : 0);
	invlpg((void *)va);
	c->p = m->leaf_p;
	c->u = m->leaf_u && m->up_u;
	c->w = m->leaf_w && m->up_w;
	c->nx = m->leaf_nx || m->up_nx;
	c->rsvd = false;
	if (m->up_nx && !c->nxe) /* a reserved bit one level up is seen before P of the leaf */
		c->p = true;
	want = pt_expect(c);
	vec = access(c->acc, va, c->ac);
	after = *leaf;
	up_after = *up;
	if (want < 0)
		ok = vec == VEC_END && (after & (P_A | P_D)) == (ad | P_A | (wr ? P_D : 0)) && (up_after & P_A);
	else
		ok = vec == VEC_PF && err_is(rt_last.err, (word)want, c->acc) && (after & P_D) == (ad & P_D) &&
		     rt_last.cr2 == va + (wr                    ? 64
					  : c->acc >= ACC_KIMPL ? 16
								: 0);
	batch_case(b, ok,
		   "access %d p%d u%d w%d nx%d (leaf u%d w%d nx%d) wp%d smep%d smap%d ac%d nxe%d ad%#llx: vector %d "
		   "error %#lx cr2 %#lx leaf %#llx up %#llx, want error %d",
		   c->acc, c->p, c->u, c->w, c->nx, m->leaf_u, m->leaf_w, m->leaf_nx, c->wp, c->smep, c->smap, c->ac,
		   c->nxe, (long long)ad, vec, rt_last.err, rt_last.cr2, (long long)after, (long long)up_after, want);
}

static void all_perms(struct batch *b, const struct size *s, struct pt_case *c)
{
	static const uint64_t ads[] = {0, P_A, P_A | P_D};
	unsigned bits, ad, a;

	ldt_at(s->va + (s->level == 1 ? 0 : s->level == 2 ? TEST_PA & 0x1fffff : TEST_PA));
	for (bits = 0; bits < 128; bits++) {
		struct perm m = {bits & 1,      bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1,
				 bits >> 4 & 1, bits >> 5 & 1, bits >> 6 & 1};
		if (!m.leaf_p && (bits & 0x7e) != 0x36)
			continue;
		for (a = 0; a < ACC_COUNT; a++) {
			if (cpu.tcg && a == ACC_KIMPL && c->ac)
				continue; /* TCG lets AC open implicit accesses too (SDM 3A 4.6.1: it does not) */
			c->acc = a;
			ad = (bits + a) % 3;
			one_access(b, s, &m, c, ads[ad]);
			if (m.up_u && m.up_w && !m.up_nx) {
				one_access(b, s, &m, c, ads[(ad + 1) % 3]);
				one_access(b, s, &m, c, ads[(ad + 2) % 3]);
			}
		}
	}
}

static void permutations(void)
{
	static const struct size sizes[] = {{"permissions of 4K pages", VA4K, TEST_PA, 1},
					    {"permissions of 2M pages", VA2M, (TEST_PA & ~0x1fffffull) | P_PS, 2},
					    {"permissions of 1G pages", VA1G, P_PS, 3}};
	unsigned i, ctl;

	for (i = 0; i < 3; i++) {
		struct batch b = {sizes[i].name, 0, 0};
		if (i == 2 && !cpu.page1g) {
			skip(b.name, "no 1G pages");
			continue;
		}
		for (ctl = 0; ctl < 32; ctl++) {
			struct pt_case c = {.wp = ctl & 1,
					    .smep = ctl >> 1 & 1,
					    .smap = ctl >> 2 & 1,
					    .ac = ctl >> 3 & 1,
					    .nxe = ctl >> 4 & 1};
			if ((c.smep && !cpu.smep) || (c.smap && !cpu.smap) || (c.nxe && !cpu.nx))
				continue;
			set_nxe(c.nxe);
			set_wp(c.wp);
			set_cr4((c.smep ? CR4_SMEP : 0) | (c.smap ? CR4_SMAP : 0));
			all_perms(&b, &sizes[i], &c);
		}
		batch_end(&b);
	}
	set_cr4(0);
	set_wp(true);
	set_nxe(cpu.nx);
	__asm__ volatile("lldt %w0" ::"r"(0));
	*pt_entry(root, VA2M, 3) |= P_U | P_W | P_P;
	*pt_entry(root, VA2M, 3) &= ~P_NX;
	*pt_entry(root, VA4K, 2) |= P_U | P_W | P_P;
	*pt_entry(root, VA4K, 2) &= ~P_NX;
	*pt_entry(root, VA1G, 4) |= P_U | P_W | P_P;
	*pt_entry(root, VA1G, 4) &= ~P_NX;
}

/* ---- reserved bits, addresses ---- */
static void rsvd_case(struct batch *b, const char *what, uint64_t va, int level, uint64_t bits)
{
	uint64_t *e = pt_entry(root, va, level), old = *e;
	int vec;

	*e |= bits;
	invlpg((void *)va);
	vec = access(ACC_KREAD, va, true);
	batch_case(b, vec == VEC_PF && err_is(rt_last.err, PF_RSVD | PF_P, ACC_KREAD) && rt_last.cr2 == va,
		   "%s bits %#llx: vector %d error %#lx", what, (long long)bits, vec, rt_last.err);
	*e = old;
	invlpg((void *)va);
}

static void reserved_bits(void)
{
	struct batch b = {"reserved bits in entries", 0, 0};
	unsigned bit, level;

	pt_map(root, VA4K, TEST_PA | P_P | P_W, 1);
	pt_map(root, VA2M, TEST_PA | P_PS | P_P | P_W, 2);
	for (level = 1; level <= 4; level++)
		for (bit = cpu.maxphys; bit < 52; bit++)
			rsvd_case(&b, "above MAXPHYADDR", VA4K, level, 1ull << bit);
	for (bit = 13; bit < 21; bit++)
		rsvd_case(&b, "2M page", VA2M, 2, 1ull << bit);
	rsvd_case(&b, "PML4E.PS", VA4K, 4, P_PS);
	if (cpu.page1g) {
		pt_map(root, VA1G, P_PS | P_P | P_W, 3);
		for (bit = 13; bit < 30; bit++)
			rsvd_case(&b, "1G page", VA1G, 3, 1ull << bit);
	} else {
		rsvd_case(&b, "PDPTE.PS", VA4K, 3, P_PS);
	}
	batch_end(&b);
}

static void not_present_levels(void)
{
	struct batch b = {"not present at each level, reserved bits ignored", 0, 0};
	int level, vec;

	pt_map(root, VA4K, TEST_PA | P_P | P_W, 1);
	for (level = 1; level <= 4; level++) {
		uint64_t *e = pt_entry(root, VA4K, level), old = *e;
		*e = ~P_P;
		invlpg((void *)VA4K);
		vec = access(ACC_UWRITE, VA4K, true);
		batch_case(&b, vec == VEC_PF && rt_last.err == (PF_U | PF_W) && rt_last.cr2 == VA4K + 64,
			   "level %d: vector %d error %#lx cr2 %#lx", level, vec, rt_last.err, rt_last.cr2);
		batch_case(&b, *e == ~P_P, "level %d: entry changed to %#llx", level, (long long)*e);
		*e = old;
		invlpg((void *)VA4K);
	}
	batch_end(&b);
}

static void addresses(void)
{
	uint64_t *e = pt_entry(root, VA4K, 1);

	check_trap("non-canonical read", access(ACC_KREAD, 0x800000000000ull, false), VEC_GP, 0);
	check_trap("non-canonical write from ring 3", access(ACC_UWRITE, 0xffff7fffffffff00ull, false), VEC_GP, 0);
	check_trap("non-canonical high", access(ACC_KREAD, 0x1122334455667788ull, false), VEC_GP, 0);
	/* an access that straddles the end of the lower half */
	SKIP_TCG("straddling into the hole", "looks at the first page only")
	check_trap("straddling into the hole",
		   TRY(__asm__ volatile("movl (%0), %%eax" ::"r"(0x7ffffffffffeull)
					: "eax", "memory")),
		   VEC_GP, 0);
	check_trap("top of the address space",
		   TRY(__asm__ volatile("movb (%0), %%al" ::"r"(~0ull)
					: "eax", "memory")),
		   VEC_PF, 0);
	check_eq("top of the address space: CR2", rt_last.cr2, ~0ull);
	/* two pages: the second is missing */
	*e = TEST_PA | P_P | P_W;
	*pt_entry(root, VA4K + 4096, 1) = 0;
	invlpg((void *)VA4K);
	invlpg((void *)(VA4K + 4096));
	check_trap("page-crossing write", TRY(*(volatile uint32_t *)(VA4K + 4094) = 0x11223344), VEC_PF, PF_W);
	check_eq("page-crossing write: CR2 is in the second page", rt_last.cr2, VA4K + 4096);
	*(volatile uint16_t *)(TEST_PA + 4094) = 0x5555;
	(void)TRY(*(volatile uint32_t *)(VA4K + 4094) = 0x11223344);
	check_eq("page-crossing write: first page untouched", *(volatile uint16_t *)(TEST_PA + 4094), 0x5555);
	pt_map(root, VA4K + 4096, (TEST_PA + 0x2000) | P_P | P_W, 1);
	*(volatile uint32_t *)(VA4K + 4094) = 0x11223344;
	check_eq("page-crossing write lands in both pages",
		 *(volatile uint16_t *)(TEST_PA + 4094) | *(volatile uint16_t *)(TEST_PA + 0x2000) << 16, 0x11223344);
	*e = 0;
	invlpg((void *)VA4K);
	check_trap("page-crossing read, first page missing",
		   TRY(__asm__ volatile("movl (%0), %%eax" ::"r"(VA4K + 4094)
					: "eax", "memory")),
		   VEC_PF, 0);
	check_eq("page-crossing read: CR2 is the operand's address", rt_last.cr2, VA4K + 4094);
}

/* ---- control registers ---- */
static void control_registers(void)
{
	word cr0 = rd_cr0(), cr3 = rd_cr3();

	SKIP_TCG("invalid control register values", "takes most of them")
	{
		check_trap("CR0.PG off in 64-bit code", TRY(wr_cr0(cr0 & ~(word)CR0_PG)), VEC_GP, 0);
		check_trap("CR0.PG without PE", TRY(wr_cr0(cr0 & ~1ul)), VEC_GP, 0);
		check_trap("CR0.NW without CD", TRY(wr_cr0((cr0 | 0x20000000) & ~0x40000000ul)), VEC_GP, 0);
		check_trap("CR0 upper half", TRY(wr_cr0(cr0 | 1ul << 32)), VEC_GP, 0);
		check_trap("CR4.PAE off in long mode", TRY(wr_cr4(rd_cr4() & ~(word)CR4_PAE)), VEC_GP, 0);
		check_trap("CR4 reserved bit 31", TRY(wr_cr4(rd_cr4() | 1ul << 31)), VEC_GP, 0);
		check_trap("CR3 reserved bits", TRY(wr_cr3(cr3 | 1ul << cpu.maxphys)), VEC_GP, 0);
		check_trap("EFER.LME off while paging", TRY(wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~0x100ull)), VEC_GP, 0);
		check_trap("EFER reserved bit", TRY(wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1ull << 40)), VEC_GP, 0);
	}
	if (!cpu.smep)
		check_trap("CR4.SMEP unsupported", TRY(wr_cr4(rd_cr4() | CR4_SMEP)), VEC_GP, 0);
	if (!cpu.pcid && !cpu.tcg)
		check_trap("CR4.PCIDE unsupported", TRY(wr_cr4(rd_cr4() | CR4_PCIDE)), VEC_GP, 0);
	if (!cpu.la57)
		check_trap("CR4.LA57 unsupported", TRY(wr_cr4(rd_cr4() | 1ul << 12)), VEC_GP, 0);
	check_eq("CR0 unchanged", rd_cr0(), cr0);
	wr_cr2(0x123456789abcdef0);
	check_eq("CR2 holds 64 bits", rd_cr2(), 0x123456789abcdef0);
}

/* ---- flushing ---- */
static uint8_t peek(uint64_t va)
{
	uint8_t v;

	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(va) : "memory");
	return v;
}

static void poke(uint64_t va, uint8_t v)
{
	__asm__ volatile("movb %0, (%1)" ::"q"(v), "r"(va) : "memory");
}

static void permissive(void)
{
	struct batch b = {"more permissive entries need no flush", 0, 0};
	uint64_t *e = pt_entry(root, VA4K, 1);
	int i;

	for (i = 0; i < 50; i++) {
		*e = 0;
		invlpg((void *)VA4K);
		batch_case(&b, access(ACC_UREAD, VA4K, false) == VEC_PF, "not present");
		*e = TEST_PA | P_P | P_U | (cpu.nx ? P_NX : 0);
		batch_case(&b, access(ACC_UREAD, VA4K, false) == VEC_END, "made present");
		batch_case(&b, access(ACC_UWRITE, VA4K, false) == VEC_PF, "read only");
		*e |= P_W;
		batch_case(&b, access(ACC_UWRITE, VA4K, false) == VEC_END, "made writable");
		if (cpu.nx) {
			batch_case(&b, access(ACC_UEXEC, VA4K, false) == VEC_PF, "no execute");
			*e &= ~P_NX;
		}
		batch_case(&b, access(ACC_UEXEC, VA4K, false) == VEC_END, "made executable");
		*e = TEST_PA | P_P | P_W;
		invlpg((void *)VA4K);
		batch_case(&b, access(ACC_KREAD, VA4K, false) == VEC_END, "supervisor reads it");
		batch_case(&b, access(ACC_UREAD, VA4K, false) == VEC_PF, "supervisor only");
		*e |= P_U;
		batch_case(&b, access(ACC_UREAD, VA4K, false) == VEC_END, "made user");
	}
	batch_end(&b);
}

/* Fewer rights after a flush must be seen, whatever was cached: read, write, exec at both levels. */
static void restrictive(void)
{
	struct batch b = {"less permissive entries after invlpg", 0, 0};
	uint64_t *e = pt_entry(root, VA4K, 1);
	static const struct {
		uint64_t drop, set;
		enum access acc;
		unsigned err;
	} t[] = {{P_P, 0, ACC_KREAD, 0},
		 {P_P, 0, ACC_UREAD, PF_U},
		 {P_P, 0, ACC_KEXEC, PF_I},
		 {P_P, 0, ACC_UEXEC, PF_U | PF_I},
		 {P_W, 0, ACC_KWRITE, PF_P | PF_W},
		 {P_W, 0, ACC_UWRITE, PF_P | PF_W | PF_U},
		 {P_U, 0, ACC_UREAD, PF_P | PF_U},
		 {P_U, 0, ACC_UEXEC, PF_P | PF_U | PF_I},
		 {P_U, 0, ACC_UWRITE, PF_P | PF_W | PF_U},
		 {0, P_NX, ACC_KEXEC, PF_P | PF_I},
		 {0, P_NX, ACC_UEXEC, PF_P | PF_U | PF_I}};
	unsigned i, turn;

	for (turn = 0; turn < 2; turn++) /* by invlpg, by CR3 */
		for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
			int vec;
			if (!cpu.nx && (t[i].set || (t[i].err & PF_I)))
				continue;
			*e = TEST_PA | P_P | P_U | P_W;
			invlpg((void *)VA4K);
			vec = access(t[i].acc, VA4K, false);
			batch_case(&b, vec == VEC_END, "case %u: vector %d before", i, vec);
			vec = access(t[i].acc, VA4K, false);
			*e = (*e & ~t[i].drop) | t[i].set;
			if (turn)
				wr_cr3(root);
			else
				invlpg((void *)VA4K);
			vec = access(t[i].acc, VA4K, false);
			batch_case(&b, vec == VEC_PF && rt_last.err == t[i].err,
				   "case %u: vector %d error %#lx want %#x", i, vec, rt_last.err, t[i].err);
		}
	batch_end(&b);
}

/* A write to a page whose D was cleared and flushed sets D again; likewise A. */
static void ad_again(void)
{
	struct batch b = {"A and D set again after being cleared", 0, 0};
	uint64_t *e = pt_entry(root, VA4K, 1);
	int i;

	*e = TEST_PA | P_P | P_U | P_W;
	for (i = 0; i < 20; i++) {
		*e &= ~(P_A | P_D);
		invlpg((void *)VA4K);
		peek(VA4K);
		batch_case(&b, (*e & (P_A | P_D)) == P_A, "read: entry %#llx", (long long)*e);
		poke(VA4K + 80, 1);
		batch_case(&b, (*e & (P_A | P_D)) == (P_A | P_D), "write after read: entry %#llx", (long long)*e);
		*e &= ~P_D;
		invlpg((void *)VA4K);
		poke(VA4K + 80, 2);
		batch_case(&b, *e & P_D, "write: entry %#llx", (long long)*e);
		*e &= ~P_A;
		wr_cr3(root);
		peek(VA4K);
		batch_case(&b, *e & P_A, "read after CR3: entry %#llx", (long long)*e);
	}
	batch_end(&b);
}

/* Frames A, B hold 'A', 'B' at offset 0x100. */
#define FRAME_A (TEST_PA + 0x10000)
#define FRAME_B (TEST_PA + 0x11000)

static void remaps(void)
{
	uint64_t *e = pt_entry(root, VA4K, 1), v2 = VA4K + 0x7000;
	struct batch b = {"remap and invlpg", 0, 0}, al = {"aliases of one frame", 0, 0};
	int i;

	memset((void *)FRAME_A, 'A', 4096);
	memset((void *)FRAME_B, 'B', 4096);
	for (i = 0; i < 100; i++) {
		*e = (i & 1 ? FRAME_B : FRAME_A) | P_P | P_W | (i & 2 ? P_G : 0);
		invlpg((void *)(VA4K + i * 8));
		batch_case(&b, peek(VA4K + 0x100) == (i & 1 ? 'B' : 'A'), "turn %d reads %c", i, peek(VA4K + 0x100));
	}
	batch_end(&b);
	pt_map(root, VA4K, FRAME_A | P_P | P_W, 1);
	pt_map(root, v2, FRAME_A | P_P | P_W, 1);
	for (i = 0; i < 100; i++) {
		*(volatile uint8_t *)(VA4K + i) = (uint8_t)(i ^ 0x33);
		batch_case(&al, peek(v2 + i) == (i ^ 0x33), "byte %d", i);
		*(volatile uint8_t *)(v2 + i) = (uint8_t)i;
		batch_case(&al, peek(FRAME_A + i) == i && peek(VA4K + i) == i, "byte %d back", i);
	}
	batch_end(&al);
}

/* A page-table entry changed through an alias mapping of the table itself. */
static void table_alias(void)
{
	struct batch b = {"entries written through an alias", 0, 0};
	uint64_t table = *pt_entry(root, VA4K, 2) & P_ADDR, idx = VA4K >> 12 & 511;
	volatile uint64_t *e = (void *)(VA2M + 0x200000ull);
	int i;

	memset((void *)FRAME_A, 'A', 4096);
	pt_map(root, (word)e, (table & ~0x1fffffull) | P_PS | P_P | P_W, 2);
	e += (table & 0x1fffff) / 8 + idx;
	for (i = 0; i < 20; i++) {
		*e = (i & 1 ? FRAME_B : FRAME_A) | P_P | P_W;
		invlpg((void *)VA4K);
		batch_case(&b, peek(VA4K + 0x100) == (i & 1 ? 'B' : 'A'), "turn %d reads %c", i, peek(VA4K + 0x100));
		poke(VA4K, 1);
		batch_case(&b, (*e & (P_A | P_D)) == (P_A | P_D), "turn %d: entry %#lx", i, (word)*e);
	}
	batch_end(&b);
}

static void cr3_loads(void)
{
	uint64_t *e = pt_entry(root, VA4K, 1);
	struct batch b = {"CR3 load flushes", 0, 0}, g = {"CR4.PGE toggle flushes global pages", 0, 0},
		     d = {"directory entry changed and CR3 loaded", 0, 0};
	uint64_t pt2 = pt_frame(), *pde = pt_entry(root, VA4K, 2), old;
	int i;

	memset((void *)FRAME_A, 'A', 4096);
	for (i = 0; i < 20; i++) {
		*e = (i & 1 ? FRAME_B : FRAME_A) | P_P | P_W;
		wr_cr3(root);
		batch_case(&b, peek(VA4K + 0x100) == (i & 1 ? 'B' : 'A'), "turn %d", i);
	}
	batch_end(&b);
	set_cr4(CR4_PGE);
	for (i = 0; i < 20; i++) {
		*e = (i & 1 ? FRAME_B : FRAME_A) | P_P | P_W | P_G;
		set_cr4(i & 2 ? CR4_PGE : 0);
		set_cr4(i & 2 ? 0 : CR4_PGE);
		batch_case(&g, peek(VA4K + 0x100) == (i & 1 ? 'B' : 'A'), "turn %d", i);
	}
	set_cr4(CR4_PGE);
	*e = FRAME_A | P_P | P_W; /* no longer global once flushed */
	invlpg((void *)VA4K);
	peek(VA4K);
	*e = FRAME_B | P_P | P_W;
	wr_cr3(root);
	batch_case(&g, peek(VA4K + 0x100) == 'B', "page made non-global");
	batch_end(&g);
	set_cr4(0);
	((uint64_t *)pt2)[VA4K >> 12 & 511] = FRAME_B | P_P | P_W;
	old = *pde;
	*e = FRAME_A | P_P | P_W;
	for (i = 0; i < 20; i++) {
		*pde = i & 1 ? pt2 | P_P | P_W | P_U : old;
		wr_cr3(root);
		batch_case(&d, peek(VA4K + 0x100) == (i & 1 ? 'B' : 'A'), "turn %d", i);
	}
	*pde = old;
	invlpg((void *)VA4K);
	batch_end(&d);
}

/* One invlpg anywhere in a large page drops all of it. */
static void large_invlpg(void)
{
	struct batch b = {"invlpg of a large page drops all of it", 0, 0};
	uint64_t *pde = pt_entry(root, VA2M, 2), pt = pt_frame(), i, turn;

	for (i = 0; i < 512; i++)
		((uint64_t *)pt)[i] = FRAME_B | P_P | P_W;
	memset((void *)TEST_PA, 'A', 4096);
	for (i = 0; i < 32; i++)
		memset((void *)(TEST_PA + 0x20000 + i * 4096), 'A', 4096);
	for (turn = 0; turn < 6; turn++) {
		*pde = TEST_PA | P_PS | P_P | P_W | (turn & 1 ? P_G : 0);
		wr_cr3(root); /* it was 4K pages until now */
		for (i = 0; i < 32; i++)
			batch_case(&b, peek(VA2M + 0x20100 + i * 4096) == 'A', "large: page %d", (int)i);
		*pde = pt | P_P | P_W | P_U;
		invlpg((void *)(VA2M + turn * 0x21000));
		for (i = 0; i < 32; i++)
			batch_case(&b, peek(VA2M + 0x20100 + i * 4096) == 'B', "split: page %d", (int)i);
	}
	*pde = 0;
	invlpg((void *)VA2M);
	batch_end(&b);
	fill_test_page();
}

/* WP, SMEP, SMAP and NXE changes work at once on cached translations. */
static void control_changes(void)
{
	struct batch b = {"control bits act on cached translations", 0, 0};
	uint64_t *e = pt_entry(root, VA4K, 1);
	int i;

	for (i = 0; i < 10; i++) {
		*e = TEST_PA | P_P | P_U;
		invlpg((void *)VA4K);
		set_wp(false);
		batch_case(&b, access(ACC_KWRITE, VA4K, false) == VEC_END, "WP off");
		set_wp(true);
		batch_case(&b, access(ACC_KWRITE, VA4K, false) == VEC_PF, "WP on");
		if (cpu.smep) {
			batch_case(&b, access(ACC_KEXEC, VA4K, false) == VEC_END, "SMEP off");
			set_cr4(CR4_SMEP);
			batch_case(&b, access(ACC_KEXEC, VA4K, false) == VEC_PF, "SMEP on");
			batch_case(&b, access(ACC_UEXEC, VA4K, false) == VEC_END, "SMEP on, ring 3");
			set_cr4(0);
		}
		if (cpu.smap) {
			batch_case(&b, access(ACC_KREAD, VA4K, false) == VEC_END, "SMAP off");
			set_cr4(CR4_SMAP);
			batch_case(&b, access(ACC_KREAD, VA4K, false) == VEC_PF, "SMAP on");
			batch_case(&b, access(ACC_KREAD, VA4K, true) == VEC_END, "SMAP on, AC");
			batch_case(&b, access(ACC_KREAD, VA4K, false) == VEC_PF, "SMAP on, AC off again");
			batch_case(&b, access(ACC_UREAD, VA4K, false) == VEC_END, "SMAP on, ring 3");
			batch_case(&b,
				   TRY(__asm__ volatile("stac; movb (%0), %%al; clac" ::"r"(VA4K)
							: "eax")) == -1,
				   "stac");
			batch_case(&b,
				   TRY(__asm__ volatile("stac; movb (%0), %%al; clac; movb (%0), %%al" ::"r"(VA4K)
							: "eax")) == VEC_PF,
				   "clac");
			set_cr4(0);
		}
		if (cpu.nx) {
			*e = TEST_PA | P_P | P_U | P_NX;
			invlpg((void *)VA4K);
			batch_case(&b, access(ACC_KREAD, VA4K, false) == VEC_END, "NXE on");
			batch_case(&b, access(ACC_KEXEC, VA4K, false) == VEC_PF && rt_last.err == (PF_I | PF_P),
				   "NXE on, execute");
			set_nxe(false);
			invlpg((void *)VA4K);
			batch_case(&b,
				   access(ACC_KREAD, VA4K, false) == VEC_PF &&
					   err_is(rt_last.err, PF_RSVD | PF_P, ACC_KREAD),
				   "NXE off");
			set_nxe(true);
			invlpg((void *)VA4K);
		}
	}
	batch_end(&b);
}

/* ---- PCID ---- */
static int invpcid(uint64_t type, uint64_t pcid, uint64_t va)
{
	uint64_t d[2] = {pcid, va};

	return TRY(__asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory"));
}

/* Two address spaces differ at VA4K only; entries tagged by PCID must never be mixed. */
static void pcid_spaces(uint64_t root2)
{
	struct batch b = {"PCID: two spaces", 0, 0};
	int i;

	for (i = 0; i < 40; i++) {
		uint64_t keep = i < 4 ? 0 : 1ull << 63;
		wr_cr3(root | 1 | keep);
		batch_case(&b, peek(VA4K + 0x100) == 'A', "turn %d: first space reads %c", i, peek(VA4K + 0x100));
		wr_cr3(root2 | 2 | keep);
		batch_case(&b, peek(VA4K + 0x100) == 'B', "turn %d: second space reads %c", i, peek(VA4K + 0x100));
	}
	batch_case(&b, rd_cr3() == (root2 | 2), "CR3 reads %#lx", rd_cr3());
	batch_end(&b);
}

static void pcid_flushes(uint64_t root2)
{
	struct batch b = {"PCID: INVPCID and CR3 flush what they name", 0, 0};
	uint64_t *e = pt_entry(root, VA4K, 1), *e2 = pt_entry(root2, VA4K, 1);
	unsigned how;

	for (how = 0; how < 6; how++) {
		*e = FRAME_A | P_P | P_W | (how == 2 ? P_G : 0);
		*e2 = FRAME_B | P_P | P_W;
		wr_cr3(root | 1);
		peek(VA4K);
		wr_cr3(root2 | 2 | 1ull << 63);
		peek(VA4K);
		*e = FRAME_B | P_P | P_W;
		switch (how) {
		case 0: invpcid(0, 1, VA4K); break;
		case 1: invpcid(1, 1, 0); break;
		case 2: invpcid(2, 0, 0); break;
		case 3: invpcid(3, 0, 0); break;
		case 4: break;
		case 5:
			set_cr4(CR4_PCIDE | CR4_PGE);
			set_cr4(CR4_PCIDE);
			break;
		}
		wr_cr3(root | 1 | (how == 4 ? 0 : 1ull << 63));
		batch_case(&b, peek(VA4K + 0x100) == 'B', "way %u: stale entry used", how);
	}
	batch_end(&b);
}

/*
 * Code that runs on into a page that differs by space: what is kept of a space must not lead into the other one's page,
 * nor let it write to a page that has become code meanwhile.
 *   first page, its end:  jmp next page      second page:  mov eax, N; ret
 */
#define CODE_VA 0x7300000f2000ull
static void pcid_code(uint64_t root2)
{
	struct batch b = {"PCID: code that differs", 0, 0};
	int (*go)(void) = (int (*)(void))(CODE_VA + 0xff0);
	uint64_t first = pt_frame(), second[2] = {pt_frame(), pt_frame()};
	static const uint8_t jmp[] = {0xe9, 0x0b, 0, 0, 0}, ret[] = {0xb8, 0, 0, 0, 0, 0xc3};
	int i, got;

	((uint64_t *)root2)[CODE_VA >> 39 & 511] = 0;
	memcpy((void *)(first + 0xff0), jmp, sizeof jmp);
	for (i = 0; i < 2; i++) {
		uint64_t r = i ? root2 : root;
		memcpy((void *)second[i], ret, sizeof ret);
		((uint8_t *)second[i])[1] = (uint8_t)(i + 1);
		pt_map(r, CODE_VA, first | P_P | P_W, 1);
		pt_map(r, CODE_VA + 4096, second[i] | P_P | P_W, 1);
	}
	*pt_entry(root, VA4K, 1) = second[1] | P_P | P_W; /* the first space writes what the second one runs */
	wr_cr3(root | 1);
	wr_cr3(root2 | 2);
	for (i = 0; i < 40; i++) {
		wr_cr3(root | 1 | 1ull << 63);
		got = go();
		batch_case(&b, got == 1, "turn %d: the first space runs %d", i, got);
		poke(VA4K + 1, (uint8_t)(i + 3)); /* the first time, it is no code yet */
		wr_cr3(root2 | 2 | 1ull << 63);
		got = go();
		batch_case(&b, got == i + 3, "turn %d: the second space runs %d", i, got);
	}
	batch_end(&b);
	*pt_entry(root, VA4K, 1) = FRAME_A | P_P | P_W;
	wr_cr3(root | 1);
}

static void pcid(void)
{
	uint64_t root2;

	if (!cpu.pcid) {
		skip("PCID", "not supported");
		return;
	}
	check_trap("CR3 bit 63 without PCIDE", TRY(wr_cr3(root | 1ull << 63)), VEC_GP, 0);
	wr_cr3(root | 8); /* PWT */
	check_trap("PCIDE with a PCID in CR3", TRY(set_cr4(CR4_PCIDE)), VEC_GP, 0);
	wr_cr3(root);
	set_cr4(CR4_PCIDE);
	root2 = pt_frame();
	memcpy((void *)root2, (void *)root, 4096);
	((uint64_t *)root2)[VA4K >> 39 & 511] = 0;
	pt_map(root2, VA4K, FRAME_B | P_P | P_W, 1);
	pt_map(root, VA4K, FRAME_A | P_P | P_W, 1);
	memset((void *)FRAME_A, 'A', 4096);
	memset((void *)FRAME_B, 'B', 4096);
	pcid_spaces(root2);
	pcid_code(root2);
	if (cpu.invpcid)
		pcid_flushes(root2);
	else
		skip("INVPCID flushes", "not supported");
	wr_cr3(root | 5);
	set_cr4(0); /* PCIDE may be cleared with any PCID */
	check_eq("PCIDE off keeps CR3", rd_cr3(), root | 5);
	wr_cr3(root);
}

static void invpcid_checks(void)
{
	if (!cpu.invpcid) {
		skip("INVPCID", "not supported");
		return;
	}
	check_trap("INVPCID type 4", invpcid(4, 0, 0), VEC_GP, 0);
	check_trap("INVPCID reserved bits", invpcid(0, 1 << 12, 0), VEC_GP, 0);
	check_trap("INVPCID non-canonical", invpcid(0, 0, 1ull << 60), VEC_GP, 0);
	check_trap("INVPCID PCID without PCIDE", invpcid(1, 3, 0), VEC_GP, 0);
	check_trap("INVPCID all", invpcid(2, 0, 0), -1, 0);
}

void flat_main(void)
{
	cr4_base = rd_cr4();
	if (cpu.nx)
		set_nxe(true);
	make_root();
	fill_test_page();
	permutations();
	reserved_bits();
	not_present_levels();
	addresses();
	control_registers();
	permissive();
	if (cpu.nx)
		restrictive();
	ad_again();
	remaps();
	table_alias();
	cr3_loads();
	large_invlpg();
	control_changes();
	invpcid_checks();
	pcid();
	wr_cr3(root_old);
}
