/*
 * A stub's mappings: a TLB of its vcpu's.  Pages come by faults and stay across flushes as long as the guest's tables say the same.
 *
 * Invariant, whenever guest code goes on: an entry that is mapped is what a walk as ring 3 gives now, with A set, and D where it may be
 * written; its frame is plain RAM in its own place; who may write it has the dirty bit set, and the frame neither translated code
 * nor an entry that runs it; what is run was looked through by scan_clean() and has not been written since, for its page counts as
 * one with translated code from before that on.
 */
#include "vcpu/direct/pages.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "vcpu/bt/bt.h"
#include "vcpu/direct/scan.h"
#include "vcpu/mmu/mmu.h"

#define PAGE      (GUEST_PAGE_MASK + 1)
#define SLOTS     16384u
#define ENTRIES   8192u      /* half of them; runs of a stub stay far below the host's 65,530 */
#define AROUND    16u        /* pages that a fault looks at */
#define LOWEST    0x10000ull /* what a host lets nobody map (vm.mmap_min_addr) */
#define P_WRITE   1ull
#define P_EXEC    2ull
#define COUNT_MAX 255

static uint64_t entry_gva(const struct page_entry *e)
{
	return e->gva & ~GUEST_PAGE_MASK;
}

static unsigned slot_of(uint64_t gva)
{
	return (unsigned)((gva >> GUEST_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 50) & (SLOTS - 1);
}

static struct page_entry *find(const struct pages *p, uint64_t gva)
{
	for (unsigned i = slot_of(gva); p->entry[i].gva; i = (i + 1) & (SLOTS - 1))
		if (entry_gva(&p->entry[i]) == gva)
			return &p->entry[i];
	return NULL;
}

int pages_init(struct pages *p, struct stub *s, const struct vcpu *v)
{
	uint64_t frames = v->vm->mem->size / PAGE;

	p->stub = s;
	p->entry = memory_anon(SLOTS * sizeof *p->entry);
	p->writers = memory_anon(2 * frames);
	if (!p->entry || !p->writers)
		return -ENOMEM;
	p->runners = p->writers + frames;
	return 0;
}

/* Counts stay where they are once they are full: then what they forbid stays forbidden. */
static void count(struct pages *p, const struct page_entry *e, int by)
{
	uint8_t *n[2] = {e->gva & P_WRITE ? &p->writers[e->frame] : NULL,
			 e->gva & P_EXEC ? &p->runners[e->frame] : NULL};

	for (int i = 0; i < 2; i++)
		if (n[i] && *n[i] != COUNT_MAX)
			*n[i] = (uint8_t)(*n[i] + by);
}

/* Takes it out, and closes the gap. */
static void forget(struct pages *p, struct page_entry *e)
{
	unsigned hole = (unsigned)(e - p->entry), i = hole;

	count(p, e, -1);
	for (;;) {
		i = (i + 1) & (SLOTS - 1);
		if (!p->entry[i].gva)
			break;
		if (((i - slot_of(entry_gva(&p->entry[i]))) & (SLOTS - 1)) < ((i - hole) & (SLOTS - 1)))
			continue;
		p->entry[hole] = p->entry[i];
		hole = i;
	}
	p->entry[hole].gva = 0;
	p->n--;
}

static void note(struct pages *p, uint64_t gva, uint64_t rights, uint64_t frame)
{
	unsigned i = slot_of(gva);

	while (p->entry[i].gva)
		i = (i + 1) & (SLOTS - 1);
	p->entry[i] = (struct page_entry){gva | rights, frame};
	count(p, &p->entry[i], 1);
	p->n++;
}

static uint64_t flushes(const struct vcpu *v)
{
	return v->stats.tlb_flushes + v->stats.tlb_page_flushes;
}

/* Stores into pages with translated code, by this CPU or by devices. */
static uint64_t stores(const struct vcpu *v)
{
	return v->stats.smc_writes + v->stats.device_flushes;
}

static void see(struct pages *p, const struct vcpu *v)
{
	p->flushes = flushes(v);
	p->stores = stores(v);
	p->made = __atomic_load_n(&v->bt->pages_made, __ATOMIC_ACQUIRE);
	p->retired = __atomic_load_n(&v->bt->pages_retired, __ATOMIC_ACQUIRE);
}

static bool seen(const struct pages *p, const struct vcpu *v)
{
	return p->flushes == flushes(v) && p->stores == stores(v) &&
	       p->made == __atomic_load_n(&v->bt->pages_made, __ATOMIC_ACQUIRE) &&
	       p->retired == __atomic_load_n(&v->bt->pages_retired, __ATOMIC_ACQUIRE);
}

bool pages_clear(struct pages *p, const struct vcpu *v)
{
	const uint64_t area = p->stub->area, end = area + STUB_PAGES * STUB_PAGE;

	memset(p->entry, 0, SLOTS * sizeof *p->entry);
	memset(p->writers, 0, 2 * (v->vm->mem->size / PAGE));
	p->n = 0;
	see(p, v);
	p->stub->o->order[0] = (struct stub_order){SYS_munmap, {0, area, 0, 0, 0, 0}};
	p->stub->o->order[1] = (struct stub_order){SYS_munmap, {end, STUB_TASK_END - end, 0, 0, 0, 0}};
	return stub_order(p->stub, 2);
}

/* ---- what may stay ---- */

static bool may_stay(struct pages *p, struct vcpu *v, const struct page_entry *e)
{
	unsigned acc = ACC_USER | ACC_R | (e->gva & P_WRITE ? ACC_W : 0) | (e->gva & P_EXEC ? ACC_X : 0);
	struct walk w;

	if (mmu_probe(v, entry_gva(e), acc & ~(unsigned)ACC_X, &w))
		return false;
	if ((int64_t)e->frame != gmem_frame(v->vm->mem, w.gpa) || !w.accessed)
		return false;
	if ((e->gva & P_WRITE) && (!w.dirty || codepage_has(v, e->frame)))
		return false;
	return !(e->gva & P_EXEC) || (!w.nx && codepage_has(v, e->frame) && p->stores == stores(v) &&
				      p->retired == __atomic_load_n(&v->bt->pages_retired, __ATOMIC_ACQUIRE));
}

bool pages_check(struct pages *p, struct vcpu *v)
{
	struct stub_order *o = p->stub->o->order;
	unsigned n = 0;

	if (seen(p, v))
		return true;
	for (unsigned i = 0; i < SLOTS; i++)
		while (p->entry[i].gva && !may_stay(p, v, &p->entry[i])) {
			o[n++] = (struct stub_order){SYS_munmap, {entry_gva(&p->entry[i]), PAGE, 0, 0, 0, 0}};
			forget(p, &p->entry[i]); /* another may have moved here */
			if (n == STUB_ORDERS) {
				if (!stub_order(p->stub, n))
					return false;
				n = 0;
			}
		}
	see(p, v);
	return !n || stub_order(p->stub, n);
}

/* ---- faults ---- */

/* A page that is to be mapped. */
struct want {
	uint64_t gva, rights, frame;
};

static bool in_reach(const struct pages *p, uint64_t gva)
{
	return gva >= LOWEST && gva < STUB_TASK_END &&
	       gva - (p->stub->area & ~GUEST_PAGE_MASK) >= STUB_PAGES * STUB_PAGE;
}

/* From here on a store to the page is told, by whomever. */
static bool may_run(struct vcpu *v, uint64_t frame, const uint8_t *host)
{
	bool marked;

	if (!scan_clean(host))
		return false;
	bt_lock(v);
	marked = v->bt->n_pages + 2 < BT_MAX_PAGES && codepage_mark(v, frame);
	bt_unlock(v);
	return marked && scan_clean(host);
}

/* What @w, which allows the access, lets @gva have; false: nothing that would do for @acc. */
static bool rights_of(struct pages *p, struct vcpu *v, const struct walk *w, unsigned acc, struct want *t)
{
	const struct gmem *g = v->vm->mem;
	int64_t frame = gmem_frame(g, w->gpa);
	const struct page_entry *old = find(p, t->gva);
	uint8_t *host;

	if (frame < 0 || (uint64_t)frame >= g->size / PAGE || !w->accessed)
		return false;
	host = gmem_frame_ptr(g, (uint64_t)frame, GMEM_READ);
	if (host != g->ram + (uint64_t)frame * PAGE)
		return false;
	t->frame = (uint64_t)frame;
	t->rights = 0;
	if (acc & ACC_X) {
		/* nobody writes what is run, but by this very entry, which then no longer does */
		if (p->writers[frame] > (old && (old->gva & P_WRITE) && old->frame == (uint64_t)frame))
			return false;
		if (!may_run(v, (uint64_t)frame, host))
			return false;
		t->rights = P_EXEC;
	} else if (w->writable && w->dirty && gmem_writable(g, (uint64_t)frame) && !codepage_has(v, (uint64_t)frame) &&
		   !p->runners[frame]) {
		t->rights = P_WRITE;
	}
	return t->rights || !(acc & ACC_W);
}

static int prot_of(uint64_t rights)
{
	return PROT_READ | (rights & P_WRITE ? PROT_WRITE : 0) | (rights & P_EXEC ? PROT_EXEC : 0);
}

static bool map(struct pages *p, struct vcpu *v, const struct want *t, unsigned n)
{
	struct stub_order *o = p->stub->o->order;
	unsigned orders = 0;

	for (unsigned i = 0; i < n; i++) {
		struct page_entry *old = find(p, t[i].gva);

		if (i && t[i].gva == t[i - 1].gva + PAGE && t[i].frame == t[i - 1].frame + 1 &&
		    t[i].rights == t[i - 1].rights)
			o[orders - 1].arg[1] += PAGE;
		else
			o[orders++] = (struct stub_order){SYS_mmap,
							  {t[i].gva, PAGE, (uint64_t)prot_of(t[i].rights),
							   MAP_SHARED | MAP_FIXED, STUB_FD_RAM, t[i].frame * PAGE}};
		if (old)
			forget(p, old);
		if (t[i].rights & P_WRITE)
			gmem_mark_dirty(v->vm->mem, t[i].frame);
		note(p, t[i].gva, t[i].rights, t[i].frame);
	}
	v->stats.direct_maps += n;
	if (stub_order(p->stub, orders))
		return true;
	pages_clear(p, v); /* what of it is there is not known */
	return false;
}

bool pages_fault(struct pages *p, struct vcpu *v, uint64_t gva, uint32_t error)
{
	unsigned acc = error & 2 ? ACC_W : error & 16 ? ACC_X : ACC_R, n = 0;
	struct want t[AROUND];
	struct walk w;

	gva &= ~GUEST_PAGE_MASK;
	if (!in_reach(p, gva) || mmu_probe(v, gva, acc | ACC_USER, &w) || mmu_walk(v, gva, acc | ACC_USER, &w))
		return false;
	t[0].gva = gva;
	if (!rights_of(p, v, &w, acc, &t[0]))
		return false;
	for (n = 1; n < AROUND; n++) {
		t[n].gva = gva + n * PAGE;
		if (!in_reach(p, t[n].gva) || find(p, t[n].gva) ||
		    mmu_probe(v, t[n].gva, (acc & ACC_X ? ACC_X : ACC_R) | ACC_USER, &w) ||
		    !rights_of(p, v, &w, acc & ACC_X, &t[n]))
			break;
	}
	if (p->n + n > ENTRIES && !pages_clear(p, v))
		return false;
	return map(p, v, t, n);
}

int pages_byte(const struct pages *p, const struct vcpu *v, uint64_t gva)
{
	const struct page_entry *e = find(p, gva & ~GUEST_PAGE_MASK);

	return e ? v->vm->mem->ram[e->frame * PAGE + (gva & GUEST_PAGE_MASK)] : -1;
}
