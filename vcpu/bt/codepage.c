/*
 * Which guest pages hold translated code, and what a store into one does.
 * Invariant: a page with a block on its list has its bit in the code bitmap and
 * no write tag in any soft TLB.
 */
#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/mmu/mmu.h"

static uint32_t hash_of(uint64_t frame)
{
	return (uint32_t)((frame * 0x9e3779b97f4a7c15ull) >> 40) & (BT_MAX_PAGES - 1);
}

#define WRITES_BEFORE_DATA 128 /* at first; doubles each time the page turns out to hold code after all */

#define WRITES_WHEN_EMPTY 32

struct codepage *codepage_get(struct bt *bt, uint64_t frame, bool create)
{
	uint32_t h = hash_of(frame), i;

	for (i = bt->page_hash[h]; i != BT_NONE; i = bt->pages[i].next)
		if (bt->pages[i].frame == frame)
			break;
	if (i != BT_NONE && (bt->pages[i].live || !create))
		return bt->pages[i].live ? &bt->pages[i] : NULL;
	if (!create)
		return NULL;
	if (i == BT_NONE) {
		i = bt->n_pages++;
		bt->pages[i] = (struct codepage){
			.frame = frame, .blocks = BT_NONE, .next = bt->page_hash[h], .limit = WRITES_BEFORE_DATA};
		bt->page_hash[h] = i;
	}
	bt->pages[i].live = 1;
	bt->pages[i].writes = 0;
	bt->pages[i].clean = 0;
	bt->pages[i].marked++;
	__atomic_fetch_or(&bt->vm->mem->code_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&bt->pages_made, 1, __ATOMIC_RELEASE);
	return &bt->pages[i];
}

/* The other CPUs whose soft TLB may have write tags for the page. */
static uint64_t writers(const struct vcpu *v, uint64_t frame)
{
	uint64_t mask = 0;

	for (int i = 0; i < v->vm->ncpus; i++)
		if (v->vm->vcpu[i] && v->vm->vcpu[i] != v && tlb_may_write(v->vm->vcpu[i], frame))
			mask |= 1ull << i;
	return mask;
}

bool codepage_mark(struct vcpu *v, uint64_t frame)
{
	struct codepage *cp = codepage_get(v->bt, frame, true);

	if (cp->clean)
		return true;
	tlb_drop_writes(v, frame);
	cp->clean = !writers(v, frame);
	return cp->clean;
}

static void drop_writes(struct vcpu *v, void *arg)
{
	tlb_drop_writes(v, *(uint64_t *)arg);
}

void codepage_clean(struct vcpu *v, uint64_t frame)
{
	uint32_t marked;
	struct codepage *cp;

	bt_lock(v);
	codepage_mark(v, frame);
	marked = codepage_get(v->bt, frame, true)->marked;
	bt_unlock(v);
	world_on(v->vm, writers(v, frame), drop_writes, &frame);
	bt_lock(v);
	cp = codepage_get(v->bt, frame, false);
	if (cp && cp->marked == marked)
		cp->clean = 1;
	bt_unlock(v);
}

uint64_t codepage_storing(const struct vcpu *v, uint64_t frame, uint64_t parts)
{
	uint64_t mask = 0;

	for (int i = 0; i < v->vm->ncpus; i++) {
		const struct vcpu *o = v->vm->vcpu[i];

		if (o && o != v && __atomic_load_n(&o->storing_frame, __ATOMIC_ACQUIRE) == frame + 1 &&
		    (o->storing_parts & parts))
			mask |= 1ull << i;
	}
	return mask;
}

static void has_stored(struct vcpu *v, void *arg)
{
	(void)arg;
	__atomic_store_n(&v->storing_frame, 0, __ATOMIC_RELEASE);
}

void codepage_wait_stores(struct vcpu *v, uint64_t cpus)
{
	world_on(v->vm, cpus, has_stored, NULL);
}

static uint64_t page_gpa(const struct block *b, int which)
{
	return which ? b->gpa2 : b->gpa & ~GUEST_PAGE_MASK;
}

void codepage_add(struct vcpu *v, uint32_t n)
{
	struct bt *bt = v->bt;
	struct block *b = &bt->blocks[n];

	for (int which = 0; which < (b->gpa2 == ~0ull ? 1 : 2); which++) {
		struct codepage *cp = codepage_get(bt, (uint64_t)gmem_frame(v->vm->mem, page_gpa(b, which)), true);

		cp->parts |= which ? b->parts2 : b->parts;
		b->page_next[which] = cp->blocks;
		cp->blocks = n;
	}
}

/* The list runs through page_next[0] of blocks that start on the page and page_next[1] of those that end there. */
static uint32_t *next_of(const struct vm *vm, struct bt *bt, uint32_t n, uint64_t frame)
{
	struct block *b = &bt->blocks[n];

	return &b->page_next[(uint64_t)gmem_frame(vm->mem, b->gpa) == frame ? 0 : 1];
}

static void list_remove(const struct vm *vm, struct bt *bt, struct codepage *cp, uint32_t n)
{
	uint32_t *p = &cp->blocks;

	while (*p != BT_NONE && *p != n)
		p = next_of(vm, bt, *p, cp->frame);
	if (*p == n)
		*p = *next_of(vm, bt, n, cp->frame);
}

void codepage_del(struct bt *bt, uint32_t n)
{
	struct block *b = &bt->blocks[n];

	for (int which = 0; which < (b->gpa2 == ~0ull ? 1 : 2); which++) {
		struct codepage *cp = codepage_get(bt, (uint64_t)gmem_frame(bt->vm->mem, page_gpa(b, which)), false);

		if (cp)
			list_remove(bt->vm, bt, cp, n);
	}
}

/* Does the store meet bytes of the block on this page?  Bytes it only looked ahead at count by their part. */
static bool overlaps(const struct block *b, bool first, unsigned off, unsigned len)
{
	unsigned at = (unsigned)(b->gpa & GUEST_PAGE_MASK), end = at + b->len;
	uint64_t own, parts = codepage_parts(off, len);

	if (!first)
		return off < end - (GUEST_PAGE_MASK + 1);
	if (off < end && at < off + len)
		return true;
	if (end > GUEST_PAGE_MASK + 1)
		end = GUEST_PAGE_MASK + 1;
	own = codepage_parts(at, end - at);
	return b->parts & ~own & parts;
}

static void unlink_cells(struct vcpu *v, const struct codepage *cp)
{
	struct bt *bt = v->bt;

	for (uint32_t n = cp->blocks; n != BT_NONE; n = *next_of(v->vm, bt, n, cp->frame)) {
		const struct block *b = &bt->blocks[n];

		for (uint32_t x = b->exit; x < b->exit + b->n_exits; x++)
			if (bt->exits[x].cell != BT_NONE)
				unlink_exit(v, x);
	}
}

void codepage_put(struct vcpu *v, uint32_t cp, uint64_t page, bool aliased)
{
	world_assert_mine(v);
	v->place[cp] = (struct code_place){page, v->cell_epoch, aliased};
	v->placed[v->n_placed++] = cp;
}

void codepage_place(struct vcpu *v, uint64_t frame, uint64_t page)
{
	struct codepage *cp;
	uint32_t i;

	bt_lock(v);
	cp = codepage_get(v->bt, frame, false);
	i = (uint32_t)(cp - v->bt->pages);
	if (cp && v->place[i].epoch != v->cell_epoch) {
		codepage_put(v, i, page, false);
	} else if (cp && v->place[i].at != page && !v->place[i].aliased) {
		v->place[i].aliased = true;
		unlink_cells(v, cp);
	}
	bt_unlock(v);
}

/* No translation is left: stores may go straight to it again. */
static void retire(struct vcpu *v, struct codepage *cp)
{
	__atomic_fetch_and(&v->vm->mem->code_bm[cp->frame / 64], ~(1ull << (cp->frame % 64)), __ATOMIC_SEQ_CST);
	cp->live = 0;
	cp->parts = 0;
	__atomic_fetch_add(&v->bt->pages_retired, 1, __ATOMIC_RELEASE);
}

/* Stores keep coming that hit no code: what stands here is most likely left over from an earlier use of the page. */
static void turn_into_data(struct vcpu *v, struct codepage *cp)
{
	while (cp->blocks != BT_NONE)
		block_invalidate(v, cp->blocks);
	if (cp->parts && cp->limit < 1u << 20)
		cp->limit *= 2;
	if (cp->live)
		retire(v, cp);
}

/* Drops the blocks that the store meets; is there any? */
static int drop_blocks(struct vcpu *v, struct codepage *cp, unsigned off, unsigned len)
{
	struct bt *bt = v->bt;
	uint64_t left = 0;
	uint32_t n, next;
	int hit = 0;

	for (n = cp->blocks; n != BT_NONE; n = next) {
		struct block *b = &bt->blocks[n];
		bool first = (uint64_t)gmem_frame(v->vm->mem, b->gpa) == cp->frame;

		next = *next_of(v->vm, bt, n, cp->frame);
		if (overlaps(b, first, off, len)) {
			block_invalidate(v, n);
			hit = 1;
		} else {
			left |= first ? b->parts : b->parts2;
		}
	}
	cp->parts = left;
	if (cp->blocks == BT_NONE)
		cp->writes = 0; /* new code may come here soon: retired after some more stores */
	return hit;
}

static int store(struct vcpu *v, struct codepage *cp, unsigned off, unsigned len)
{
	uint64_t parts = codepage_parts(off, len);

	v->stats.smc_writes++;
	v->storing_parts = parts;
	__atomic_store_n(&v->storing_frame, cp->frame + 1, __ATOMIC_RELEASE);
	if (cp->parts & parts)
		return drop_blocks(v, cp, off, len);
	if (++cp->writes < (cp->blocks == BT_NONE ? WRITES_WHEN_EMPTY : cp->limit))
		return 0;
	turn_into_data(v, cp);
	return 1;
}

int codepage_store(struct vcpu *v, uint64_t frame, unsigned off, unsigned len)
{
	struct codepage *cp;
	int hit = 0;

	if (!codepage_has(v, frame))
		return 0;
	bt_lock(v);
	cp = codepage_get(v->bt, frame, false);
	if (cp)
		hit = store(v, cp, off, len);
	bt_unlock(v);
	return hit;
}

bool codepage_met(struct vcpu *v, uint64_t frame)
{
	struct codepage *cp;
	bool data = true;

	bt_lock(v);
	cp = codepage_get(v->bt, frame, false);
	if (cp) {
		cp->writes += WRITES_WHEN_EMPTY;
		data = cp->writes >= (cp->blocks == BT_NONE ? WRITES_WHEN_EMPTY : cp->limit);
	}
	if (cp && data)
		turn_into_data(v, cp);
	bt_unlock(v);
	return data;
}

int codepage_stored(struct vcpu *v, uint64_t frame, unsigned off, unsigned len)
{
	if (!codepage_has(v, frame))
		return STORED_DATA;
	return len && codepage_store(v, frame, off, len) ? STORED_CODE : STORED_BESIDE;
}
