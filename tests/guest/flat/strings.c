/*
 * String instructions against faults: exact rcx, rsi, rdi and memory at a fault
 * half way, both directions, resumption.  SDM 1 7.3.9.3, SDM 2 REP.
 * Invariant: the window WIN..WIN+WIN_PAGES is mapped page by page onto frames
 * that check() can also see through the identity map.
 */
#include "pt.h"

#define WIN       0x500000000000ull
#define WIN32     0xd0000000ull /* for address size 32; not RAM in the identity map */
#define WIN_PAGES 8

static uint64_t frame[WIN_PAGES], root;
static uint8_t code[64] __attribute__((aligned(64)));
static unsigned resumed;

static void map_page(unsigned i, bool present, bool writable)
{
	uint64_t e = present ? frame[i] | P_P | P_U | (writable ? P_W : 0) : 0;

	pt_map(root, WIN + i * 4096, e, 1);
	pt_map(root, WIN32 + i * 4096, e, 1);
}

static void map_all(void)
{
	unsigned i;

	for (i = 0; i < WIN_PAGES; i++)
		map_page(i, true, true);
}

static void fill(void)
{
	unsigned i, k;

	for (i = 0; i < WIN_PAGES; i++)
		for (k = 0; k < 4096; k++)
			((uint8_t *)frame[i])[k] = (uint8_t)(k * 7 + i * 31 + (k >> 8));
}

static uint8_t at(uint64_t off)
{
	return ((uint8_t *)frame[off >> 12])[off & 4095];
}

/* The window as bytes, before an instruction, changed by the model. */
static uint8_t model[WIN_PAGES * 4096];

static void model_copy(void)
{
	unsigned i;

	for (i = 0; i < WIN_PAGES; i++)
		memcpy(model + i * 4096, (void *)frame[i], 4096);
}

static bool model_matches(unsigned *where)
{
	unsigned i;

	for (i = 0; i < sizeof(model); i++)
		if (model[i] != at(i)) {
			*where = i;
			return false;
		}
	return true;
}

enum op { MOVS, STOS, LODS, SCAS, CMPS };
static const char *const op_name[] = {"movs", "stos", "lods", "scas", "cmps"};

static void emit(enum op op, unsigned size, unsigned rep, bool a32)
{
	static const uint8_t opc[] = {0xa4, 0xaa, 0xac, 0xae, 0xa6};
	uint8_t *p = code;

	if (a32)
		*p++ = 0x67;
	if (rep)
		*p++ = (uint8_t)rep;
	if (size == 2)
		*p++ = 0x66;
	if (size == 8)
		*p++ = 0x48;
	*p++ = opc[op] | (size > 1);
	*p++ = 0xcd;
	*p = 0x80;
}

struct run {
	enum op op;
	unsigned size, rep;
	bool down, a32, user;
	uint64_t si, di, count; /* offsets in the window */
};

/* What must have happened after @n elements. */
static void model_run(const struct run *t, uint64_t n)
{
	uint64_t i, si = t->si, di = t->di;
	unsigned k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < t->size; k++) {
			if (t->op == MOVS) { /* an element is read whole, then written */
				uint8_t e[8];
				memcpy(e, model + si, t->size);
				memcpy(model + di, e, t->size);
				break;
			}
			if (t->op == STOS)
				model[di + k] = (uint8_t)(0x8877665544332211ull >> (8 * k));
		}
		si += t->down ? -(uint64_t)t->size : t->size;
		di += t->down ? -(uint64_t)t->size : t->size;
	}
}

static int run(const struct run *t)
{
	struct regs r;
	uint64_t win = t->a32 ? WIN32 : WIN;

	emit(t->op, t->size, t->rep, t->a32);
	(t->user ? rt_user_regs : rt_regs)(&r, code);
	r.si = win + t->si;
	r.di = win + t->di;
	r.cx = t->count;
	r.ax = 0x8877665544332211ull;
	if (t->a32) { /* upper halves must be ignored, then zeroed by the update */
		r.si |= 0x1234ull << 48;
		r.di |= 0x4321ull << 48;
		r.cx |= 0x5678ull << 32;
	}
	if (t->down)
		r.flags |= FL_DF;
	return rt_run(&r);
}

static bool uses_si(enum op op)
{
	return op == MOVS || op == LODS || op == CMPS;
}
static bool uses_di(enum op op)
{
	return op != LODS;
}

/* Registers after @done elements. */
static bool regs_are(const struct run *t, uint64_t done)
{
	uint64_t step = done * t->size, win = t->a32 ? WIN32 : WIN, mask = t->a32 ? 0xffffffffu : ~0ull;
	uint64_t si = win + t->si, di = win + t->di, cx = t->count - (t->rep ? done : 0);

	if (t->down)
		step = -step;
	if (uses_si(t->op))
		si += step;
	if (uses_di(t->op))
		di += step;
	return (rt_last.r.si & mask) == si && (rt_last.r.di & mask) == di && (rt_last.r.cx & mask) == cx;
}

/* Distance from @off to the edge where a missing page begins, in whole elements. */
static void partial_one(struct batch *b, struct run *t, bool src_fault)
{
	/* page 3 (up) or page 2 (down) is missing for the faulting side */
	uint64_t left = 5 * t->size + (t->size > 1 && !t->a32 ? 1 : 0); /* bytes before the edge; unaligned when > 1 */
	uint64_t done = left / t->size, base = t->down ? 3 * 4096 + left - t->size : 3 * 4096 - left;
	uint64_t other = 6 * 4096 + 512, cr2;
	unsigned where = 0;
	int vec;
	bool write = !src_fault && (t->op == MOVS || t->op == STOS), split = left % t->size;

	t->si = src_fault ? base : other;
	t->di = src_fault ? other : base;
	t->count = 20;
	map_all();
	fill();
	if (t->op == SCAS)
		for (where = 0; where < 4096; where++)
			((uint8_t *)frame[2])[where] = ((uint8_t *)frame[3])[where] = 0x99;
	if (t->op == CMPS) { /* equal everywhere: repe goes on */
		unsigned i;
		for (i = 0; i < WIN_PAGES; i++)
			memset((void *)frame[i], 0x42, 4096);
	}
	model_copy();
	map_page(t->down ? 2 : 3, false, false);
	vec = run(t);
	model_run(t, done);
	/* an element across the edge: up, the missing page is its second one; down, its first */
	cr2 = t->down ? base - done * t->size : split ? 3 * 4096 : base + done * t->size;
	cr2 += t->a32 ? WIN32 : WIN;
	batch_case(
		b,
		vec == VEC_PF && rt_last.err == ((write ? PF_W : 0u) | (t->user ? PF_U : 0u)) && rt_last.cr2 == cr2 &&
			rt_last.r.ip == (word)code && regs_are(t, done) && model_matches(&where),
		"rep %s%u %s%s%s fault at %s: vector %d err %#lx cr2 %#lx (want %#lx) si %#lx di %#lx cx %#lx, %u done, mem %#x",
		op_name[t->op], t->size * 8, t->down ? "down" : "up", t->a32 ? " a32" : "", t->user ? " ring 3" : "",
		src_fault ? "source" : "destination", vec, rt_last.err, rt_last.cr2, cr2, (word)rt_last.r.si,
		(word)rt_last.r.di, (word)rt_last.r.cx, (unsigned)done, where);
}

static void partial(void)
{
	static const unsigned sizes[] = {1, 2, 4, 8};
	unsigned op, s, v;

	for (op = MOVS; op <= CMPS; op++) {
		struct batch b = {op_name[op], 0, 0};
		for (s = 0; s < 4; s++)
			for (v = 0; v < 8; v++) {
				struct run t = {.op = op,
						.size = sizes[s],
						.down = v & 1,
						.a32 = v >> 1 & 1,
						.user = v >> 2 & 1,
						.rep = op == SCAS ? 0xf2 : 0xf3};
				if (uses_si(op))
					partial_one(&b, &t, true);
				if (uses_di(op))
					partial_one(&b, &t, false);
			}
		batch_end(&b);
	}
}

/* ---- the handler maps the page and the instruction goes on ---- */
static bool hook_map(struct regs *r)
{
	uint64_t va = rd_cr2() & ~4095ull, win = va >= WIN ? WIN : WIN32;

	if (r->vec != VEC_PF || va < win || va >= win + sizeof(model))
		return false;
	map_page((unsigned)((va - win) >> 12), true, true);
	resumed++;
	return true;
}

static void resume_one(struct batch *b, struct run *t)
{
	unsigned where = 0, i;
	int vec;

	map_all();
	fill();
	if (t->op == CMPS || t->op == SCAS)
		for (i = 0; i < WIN_PAGES; i++)
			memset((void *)frame[i], 0x42, 4096);
	model_copy();
	for (i = 0; i < WIN_PAGES; i++)
		map_page(i, false, false);
	resumed = 0;
	rt_hook = hook_map;
	vec = run(t);
	rt_hook = NULL;
	model_run(t, t->count);
	batch_case(b, vec == VEC_END && resumed >= 2 && regs_are(t, t->count) && model_matches(&where),
		   "rep %s%u %s%s count %u: vector %d cr2 %#lx, %u faults, si %#lx di %#lx cx %#lx, mem %#x",
		   op_name[t->op], t->size * 8, t->down ? "down" : "up", t->a32 ? " a32" : "", (unsigned)t->count, vec,
		   rt_last.cr2, resumed, (word)rt_last.r.si, (word)rt_last.r.di, (word)rt_last.r.cx, where);
}

static void resume(void)
{
	struct batch b = {"resumed after the handler maps the page", 0, 0};
	static const unsigned sizes[] = {1, 2, 4, 8};
	unsigned op, s, v;

	for (op = MOVS; op <= CMPS; op++)
		for (s = 0; s < 4; s++)
			for (v = 0; v < 8; v++) {
				struct run t = {.op = op,
						.size = sizes[s],
						.down = v & 1,
						.a32 = v >> 1 & 1,
						.user = v >> 2 & 1,
						.rep = op == SCAS ? 0xf2 : 0xf3,
						.count = 9000 / sizes[s],
						.si = 77,
						.di = 4 * 4096 - 1000 + 3};
				if (t.down) {
					t.si += 9000;
					t.di += 9000;
				}
				resume_one(&b, &t);
			}
	batch_end(&b);
}

/* ---- overlap: byte by byte semantics must be kept ---- */
static void overlap(void)
{
	struct batch b = {"overlapping rep movs", 0, 0};
	static const int dist[] = {1,    2,    3,  4,  5,  7,  8,  9,  15, 16,  31,  33,  63,    64,    65,   4095,
				   4096, 4097, -1, -2, -3, -4, -7, -8, -9, -16, -33, -64, -4095, -4096, -4097};
	static const unsigned sizes[] = {1, 2, 4, 8};
	unsigned i, s, d, where = 0;

	map_all();
	for (i = 0; i < sizeof(dist) / sizeof(dist[0]); i++)
		for (s = 0; s < 4; s++)
			for (d = 0; d < 2; d++) {
				struct run t = {.op = MOVS,
						.size = sizes[s],
						.down = d,
						.rep = 0xf3,
						.count = 6000 / sizes[s],
						.si = 5000 + (d ? 7000 : 0)};
				int vec;
				t.di = t.si + (uint64_t)(int64_t)dist[i];
				fill();
				model_copy();
				vec = run(&t);
				model_run(&t, t.count);
				batch_case(&b, vec == VEC_END && regs_are(&t, t.count) && model_matches(&where),
					   "movs%u %s distance %d: vector %d mem %#x", t.size * 8, d ? "down" : "up",
					   dist[i], vec, where);
			}
	batch_end(&b);
}

/* One window page mapped twice: source and destination overlap physically only. */
static void alias_overlap(void)
{
	struct run t = {.op = MOVS, .size = 1, .rep = 0xf3, .count = 2000, .si = 100, .di = 4096 + 101};
	unsigned i;
	bool ok = true;

	map_all();
	fill();
	pt_map(root, WIN + 4096, frame[0] | P_P | P_W | P_U, 1);
	i = at(100);
	run(&t);
	for (unsigned k = 100; k <= 2100; k++)
		ok = ok && at(k) == i;
	check("rep movs overlapping through an alias", ok, "bytes differ");
	map_all();
}

/* ---- counts, ends of comparisons ---- */
static void zero_count(void)
{
	struct batch b = {"a count of zero touches nothing", 0, 0};
	unsigned op;
	static const uint8_t pre[] = {0xf2, 0xf3};

	for (op = MOVS; op <= CMPS; op++) {
		unsigned p;
		for (p = 0; p < 4; p++) {
			struct run t = {.op = op,
					.size = 4,
					.rep = pre[p & 1],
					.a32 = p >> 1,
					.count = 0,
					.si = (uint64_t)-0x1000000,
					.di = (uint64_t)-0x1000000};
			int vec = run(&t);
			batch_case(&b, vec == VEC_END && regs_are(&t, 0), "%s prefix %x: vector %d", op_name[op],
				   pre[p & 1], vec);
		}
	}
	batch_end(&b);
}

static void compare_ends(void)
{
	struct batch b = {"repe/repne stop where they must", 0, 0};
	unsigned n, i;

	map_all();
	for (n = 0; n < 40; n++) {
		struct run t = {.op = CMPS, .size = 1, .rep = 0xf3, .count = 5000, .si = 4000, .di = 3 * 4096 + 10};
		uint64_t where = n * 120;
		for (i = 0; i < WIN_PAGES; i++)
			memset((void *)frame[i], 0x42, 4096);
		((uint8_t *)frame[(t.si + where) >> 12])[(t.si + where) & 4095] = 0x41;
		run(&t);
		batch_case(&b, regs_are(&t, where + 1) && (rt_last.r.flags & (FL_ZF | FL_CF)) == FL_CF,
			   "repe cmpsb, difference at %u: cx %#lx flags %#lx", (unsigned)where, (word)rt_last.r.cx,
			   (word)rt_last.r.flags);
		t.op = SCAS;
		t.rep = 0xf2;
		t.di = t.si;
		((uint8_t *)frame[(t.si + where) >> 12])[(t.si + where) & 4095] = 0x11;
		run(&t);
		batch_case(&b, regs_are(&t, where + 1) && (rt_last.r.flags & FL_ZF),
			   "repne scasb at %u: cx %#lx flags %#lx", (unsigned)where, (word)rt_last.r.cx,
			   (word)rt_last.r.flags);
	}
	batch_end(&b);
}

/* Registers that 32-bit addressing writes lose their upper halves. */
static void address32(void)
{
	struct run t = {.op = MOVS, .size = 4, .rep = 0xf3, .a32 = true, .count = 3, .si = 0, .di = 4096};

	map_all();
	run(&t);
	check("rep movs a32: upper halves cleared",
	      rt_last.r.cx == 0 && rt_last.r.si == WIN32 + 12 && rt_last.r.di == WIN32 + 4096 + 12,
	      "cx %#lx si %#lx di %#lx", (word)rt_last.r.cx, (word)rt_last.r.si, (word)rt_last.r.di);
}

/* ---- ins, outs ---- */
static void ins_outs(void)
{
	struct regs r;

	map_all();
	fill();
	/* CMOS index/data: outs writes the index, ins reads the same byte over and over */
	outb(0x70, 0x8f);
	memcpy(code, "\xf3\x6c\xcd\x80", 4); /* rep insb */
	rt_regs(&r, code);
	r.dx = 0x71;
	r.di = WIN + 4096 - 3;
	r.cx = 10;
	map_page(1, false, false);
	check_trap("rep insb into a missing page", rt_run(&r), VEC_PF, PF_W);
	check("rep insb: three done", rt_last.r.cx == 7 && rt_last.r.di == WIN + 4096, "cx %#lx di %#lx",
	      (word)rt_last.r.cx, (word)rt_last.r.di);
	memcpy(code, "\xf3\x6e\xcd\x80", 4); /* rep outsb */
	r.dx = 0x80;
	r.si = WIN + 4096 - 5;
	check_trap("rep outsb from a missing page", rt_run(&r), VEC_PF, 0);
	check("rep outsb: five done", rt_last.r.cx == 5 && rt_last.r.si == WIN + 4096, "cx %#lx si %#lx",
	      (word)rt_last.r.cx, (word)rt_last.r.si);
	map_all();
	check_trap("rep outsb", rt_run(&r), VEC_END, 0);
	r.flags |= FL_DF;
	r.si = WIN + 4096 + 4;
	check_trap("rep outsb down", rt_run(&r), VEC_END, 0);
	check_eq("rep outsb down: rsi", rt_last.r.si, WIN + 4096 - 6);
	memcpy(code, "\x66\x6d\xcd\x80", 4); /* insw, no rep */
	rt_regs(&r, code);
	r.dx = 0x80;
	r.di = WIN;
	r.cx = 5;
	rt_run(&r);
	check("insw without rep", rt_last.r.cx == 5 && rt_last.r.di == WIN + 2, "cx %#lx di %#lx", (word)rt_last.r.cx,
	      (word)rt_last.r.di);
	rt_user_regs(&r, code);
	check_trap("ins in ring 3", rt_run(&r), VEC_GP, 0);
	(void)inb(0x71);
}

/* Segment override on the source, none on the destination. */
static void segments(void)
{
	struct regs r;

	map_all();
	fill();
	wrmsr(0xc0000100, WIN + 4096);
	memcpy(code, "\x64\xa4\x64\x67\xac\xcd\x80", 7); /* fs movsb; fs lodsb (esi) */
	rt_regs(&r, code);
	r.si = 5;
	r.di = WIN + 100;
	check_trap("fs-relative source", rt_run(&r), VEC_END, 0);
	check("fs-relative source: bytes", at(100) == at(4096 + 5) && (uint8_t)rt_last.r.ax == at(4096 + 6), "%x %x",
	      at(100), (uint8_t)rt_last.r.ax);
	wrmsr(0xc0000100, 0);
	/* rep with a non-canonical destination after some elements */
	memcpy(code, "\xf3\xaa\xcd\x80", 4);
	pt_map(root, 0x7ffffffff000ull, frame[0] | P_P | P_W, 1);
	rt_regs(&r, code);
	r.di = 0x7ffffffffff8ull;
	r.cx = 20;
	check_trap("rep stosb into the canonical hole", rt_run(&r), VEC_GP, 0);
	check("rep stosb into the hole: eight done", rt_last.r.cx == 12 && rt_last.r.di == 0x800000000000ull,
	      "cx %#lx di %#lx", (word)rt_last.r.cx, (word)rt_last.r.di);
	pt_map(root, 0x7ffffffff000ull, 0, 1);
}

void flat_main(void)
{
	unsigned i;

	root = rd_cr3() & P_ADDR;
	/* WIN32 lies in the boot identity map's 2M pages: make its directory entry a table */
	*pt_entry(root, WIN32, 2) = pt_frame() | P_P | P_W | P_U;
	wr_cr3(root);
	for (i = 0; i < WIN_PAGES; i++)
		frame[i] = pt_frame();
	partial();
	resume();
	overlap();
	alias_overlap();
	zero_count();
	compare_ends();
	address32();
	ins_outs();
	segments();
}
