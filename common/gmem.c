/*
 * Bounds-checked access to guest RAM.
 *
 * Invariant: a pointer handed out here covers only bytes of the VM's RAM, and
 * every write through gmem_write() has its pages marked dirty before returning.
 * Copies are done without the C library so that callers need not save the
 * guest's vector registers, which libc's memcpy would clobber.
 */
#include "common/gmem.h"

#include <errno.h>
#include <stdbool.h>

/* Offset in the memfd of the RAM page that page index @frame stands for.  Without a p2m (unit tests, early start)
 * RAM is laid out in order. */
static uint64_t frame_offset(const struct gmem *g, int64_t frame)
{
	if (!g->p2m)
		return (uint64_t)frame << GMEM_PAGE_SHIFT;
	return g->p2m[frame] & ~(uint64_t)(GMEM_PAGE_SIZE - 1);
}

static bool in_ram(const struct gmem *g, uint64_t gpa, size_t len)
{
	uint64_t base, room;

	if (gpa < g->low) {
		base = 0;
		room = g->low;
	} else {
		base = GMEM_HIGH_BASE;
		room = g->size - g->low;
	}
	if (gpa < base || gpa - base >= room)
		return false;
	return len <= room - (gpa - base);
}

void *gmem_ptr(const struct gmem *g, uint64_t gpa, size_t len)
{
	uint64_t off, next, want;
	int64_t frame;

	if (!len || !in_ram(g, gpa, len))
		return NULL;
	frame = gmem_frame(g, gpa);
	off = frame_offset(g, frame);
	if (off >= g->size)
		return NULL;
	/* each further page must follow its predecessor in the memfd */
	want = off + GMEM_PAGE_SIZE;
	for (next = (gpa | (GMEM_PAGE_SIZE - 1)) + 1; next - gpa < len; next += GMEM_PAGE_SIZE) {
		if (frame_offset(g, ++frame) != want || want >= g->size)
			return NULL;
		want += GMEM_PAGE_SIZE;
	}
	return g->ram + off + (gpa & (GMEM_PAGE_SIZE - 1));
}

static void copy_bytes(void *dst, const void *src, size_t n)
{
	/* rep movsb: no vector registers, and fast on every host with ERMS */
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
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
static bool resolvable(const struct gmem *g, uint64_t gpa, size_t len)
{
	size_t n;

	if (!in_ram(g, gpa, len))
		return false;
	for (; len; gpa += n, len -= n) {
		n = page_part(gpa, len);
		if (!gmem_ptr(g, gpa, n))
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
	if (!resolvable(g, gpa, len))
		return -EFAULT;
	for (; len; gpa += n, out += n, len -= n) {
		n = page_part(gpa, len);
		copy_bytes(out, gmem_ptr(g, gpa, n), n);
	}
	return 0;
}

int gmem_write(const struct gmem *g, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *in = buf;
	size_t n;

	if (!len)
		return 0;
	if (!resolvable(g, gpa, len))
		return -EFAULT;
	for (; len; gpa += n, in += n, len -= n) {
		n = page_part(gpa, len);
		copy_bytes(gmem_ptr(g, gpa, n), in, n);
		mark_dirty(g, gpa);
	}
	return 0;
}
