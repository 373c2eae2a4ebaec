/*
 * Bounds-checked access to guest RAM.
 *
 * Invariant: a pointer handed out here covers only bytes of the VM's RAM, whatever the p2m says, and
 * every write through gmem_write() has its pages marked dirty before returning.
 * Copies are done without the C library so that callers need not save the
 * guest's vector registers, which libc's memcpy would clobber.
 */
#include "common/gmem.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <time.h>

int gmem_join(const struct gmem *g)
{
	for (unsigned i = SHM_SLOT_DEVICE; g->epochs && i < SHM_SLOTS; i++)
		if (!atomic_exchange(&g->epochs->slot[i].taken, 1))
			return (int)i;
	return g->epochs ? -ENOSPC : (int)SHM_SLOT_DEVICE;
}

int64_t gmem_rom_frame(const struct gmem *g, uint64_t gpa)
{
	uint64_t page = (gpa - GMEM_SHADOW_BASE) >> GMEM_PAGE_SHIFT;

	if (page < GMEM_SHADOW_PAGES) {
		if (g->rom->shadow[page] & GMEM_SHADOW_READ)
			return (int64_t)(gpa >> GMEM_PAGE_SHIFT);
		if (page < GMEM_SHADOW_PAGES / 2) /* no expansion ROM is wired here */
			return -1;
		gpa += GMEM_HIGH_BASE - 0x100000; /* the ROM's last 128 KiB */
	}
	if (gpa < g->rom->base + g->rom->chip || gpa >= GMEM_HIGH_BASE)
		return -1;
	return (int64_t)((gpa - g->rom->base + g->size) >> GMEM_PAGE_SHIFT);
}

bool gmem_write_protected(const struct gmem *g, uint64_t frame)
{
	uint64_t page = frame - (GMEM_SHADOW_BASE >> GMEM_PAGE_SHIFT);

	if (page < GMEM_SHADOW_PAGES)
		return g->rom->shadow[page] != (GMEM_SHADOW_READ | GMEM_SHADOW_WRITE);
	return frame >= g->size >> GMEM_PAGE_SHIFT;
}

static void copy_bytes(void *dst, const void *src, size_t n)
{
	/* rep movsb: no vector registers, and fast on every host with ERMS */
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/* ---- pages that are merged ---- */

#define PATIENCE_S 5 /* for BUSY, which an honest process leaves after microseconds */

static time_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* The entry when it is no longer BUSY; or it is still, after a time in which nobody is at work. */
static uint64_t settled(const uint64_t *entry)
{
	time_t end = seconds() + PATIENCE_S;
	uint64_t e;

	while ((e = __atomic_load_n(entry, __ATOMIC_ACQUIRE)) & SHM_P2M_BUSY && seconds() < end)
		sched_yield();
	return e;
}

static bool exchange(uint64_t *entry, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(entry, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Out of the pool, into its own place; false: somebody else was faster. */
static bool unmerge(const struct gmem *g, uint64_t frame, uint64_t e)
{
	const uint64_t own = frame << GMEM_PAGE_SHIFT, from = e & ~SHM_P2M_FLAGS;

	if (e & SHM_P2M_KEPT) {
		if (!exchange(&g->p2m[frame], e, own))
			return false;
	} else {
		if (!exchange(&g->p2m[frame], e, e | SHM_P2M_BUSY))
			return false;
		if (from) /* page 0 is that of zeros, and so is what is punched */
			copy_bytes(g->ram + own, g->pool + from, GMEM_PAGE_SIZE);
		__atomic_store_n(&g->p2m[frame], own, __ATOMIC_SEQ_CST);
	}
	if (g->moved)
		g->moved(g->moved_ctx, frame, g->pool + from);
	return true;
}

uint8_t *gmem_own(const struct gmem *g, uint64_t frame)
{
	for (;;) {
		uint64_t e = settled(&g->p2m[frame]), off = e & ~SHM_P2M_FLAGS;
		if (e & SHM_P2M_BUSY)
			return NULL;
		if (!(e & SHM_P2M_ASK))
			return off < g->size + g->rom_size ? g->ram + off : NULL;
		if (e & SHM_P2M_SHARED ? off >= g->pool_size : off >= g->size + g->rom_size)
			return NULL;
		if (!(e & SHM_P2M_SHARED))
			exchange(&g->p2m[frame], e, e & ~SHM_P2M_WATCHED);
		else
			unmerge(g, frame, e);
	}
}

void *gmem_run(const struct gmem *g, uint64_t gpa, size_t *len, unsigned intent)
{
	int64_t first = *len && gmem_is_ram(g, gpa, *len) ? gmem_frame(g, gpa) : -1;
	uint8_t *p = first < 0 ? NULL : gmem_frame_ptr(g, (uint64_t)first, intent), *next = p;
	uint64_t done;

	if (!p)
		return NULL;
	/* each further page must follow its predecessor */
	for (done = GMEM_PAGE_SIZE - (gpa & (GMEM_PAGE_SIZE - 1)); done < *len; done += GMEM_PAGE_SIZE) {
		int64_t frame = gmem_frame(g, gpa + done);

		next += GMEM_PAGE_SIZE;
		if (frame < 0 || gmem_frame_ptr(g, (uint64_t)frame, intent) != next)
			break;
	}
	if (done < *len)
		*len = done;
	return p + (gpa & (GMEM_PAGE_SIZE - 1));
}

static void mark_dirty(const struct gmem *g, uint64_t gpa)
{
	if (g->dirty_bm)
		gmem_mark_dirty(g, (uint64_t)gmem_frame(g, gpa));
}

static size_t page_part(uint64_t gpa, size_t len)
{
	size_t room = GMEM_PAGE_SIZE - (gpa & (GMEM_PAGE_SIZE - 1));

	return len < room ? len : room;
}

/* True when every page of the range resolves, so that a copy can be all or nothing. */
static bool resolvable(const struct gmem *g, uint64_t gpa, size_t len, unsigned intent)
{
	size_t n;

	if (!gmem_is_ram(g, gpa, len))
		return false;
	for (; len; gpa += n, len -= n) {
		n = page_part(gpa, len);
		if (!gmem_ptr(g, gpa, n, intent))
			return false;
	}
	return true;
}

int gmem_read(const struct gmem *g, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *out = buf;
	size_t n;

	if (!len)
		return 0;
	if (!resolvable(g, gpa, len, GMEM_READ))
		return -EFAULT;
	for (; len; gpa += n, out += n, len -= n) {
		n = page_part(gpa, len);
		copy_bytes(out, gmem_ptr(g, gpa, n, GMEM_READ), n);
	}
	return 0;
}

int gmem_write(const struct gmem *g, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *in = buf;
	size_t n;

	if (!len)
		return 0;
	if (!resolvable(g, gpa, len, GMEM_WRITE))
		return -EFAULT;
	for (; len; gpa += n, in += n, len -= n) {
		n = page_part(gpa, len);
		copy_bytes(gmem_ptr(g, gpa, n, GMEM_WRITE), in, n);
		mark_dirty(g, gpa);
	}
	return 0;
}
