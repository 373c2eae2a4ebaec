/*
 * What a ring costs the device for each request: devices/virtq.c as it is, and a packed ring (virtio 1.2 2.8) as far as
 * it has to go to be compared: descriptors, checks of addresses, lengths and order, used elements.  The driver's side is
 * on another CPU, so that cache lines travel as they do from a vcpu; a second figure has both on one.
 *
 * The best of many short turns counts: the host may be busy.
 *
 * Usage: virtq [turns]
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/memory.h"
#include "devices/virtq.h"
#include "memsvc/ram.h"

#define SIZE   256u
#define PARTS  3u /* header, data, status: what a disk's request has */
#define RAM    (4u << 20)
#define DESC   0x0000u
#define AVAIL  0x2000u
#define USED   0x3000u
#define TABLES 0x10000u /* indirect ones */
#define DATA   0x100000u
#define BATCH  32u /* in flight */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
struct packed {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	_Atomic uint16_t flags;
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, P_AVAIL = 1 << 7, P_USED = 1 << 15 };

static struct ram ram;
static struct gmem mem;
static const uint64_t requests = 6400; /* a turn: shorter than what the host's scheduler gives */
static bool indirect;

static void *at(uint64_t gpa)
{
	return mem.ram + gpa;
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void parts(struct desc *d, unsigned slot, unsigned first)
{
	static const uint32_t len[PARTS] = {16, 4096, 1};

	for (unsigned i = 0; i < PARTS; i++)
		d[i] = (struct desc){DATA + slot * 0x2000u + (i ? i * 0x1000u - (i > 1) * 8 : 0), len[i],
				     (uint16_t)((i ? WRITE : 0) | (i + 1 < PARTS ? NEXT : 0)),
				     (uint16_t)(first + i + 1)};
}

/* ---- split ---- */

static struct {
	uint16_t avail, used;
} drv;

static void split_offer(uint64_t n)
{
	uint16_t *ring = at(AVAIL);
	unsigned slot = n % BATCH, head = slot * PARTS;
	struct desc *d = at(DESC);

	if (indirect) {
		parts(at(TABLES + slot * 64), slot, 0);
		d[head] = (struct desc){TABLES + slot * 64, 16 * PARTS, INDIRECT, 0};
	} else {
		parts(d + head, slot, head);
	}
	ring[2 + drv.avail % SIZE] = (uint16_t)head;
	atomic_store_explicit((_Atomic uint16_t *)&ring[1], ++drv.avail, memory_order_release);
}

static unsigned split_collect(void)
{
	uint16_t idx = atomic_load_explicit((_Atomic uint16_t *)at(USED + 2), memory_order_acquire);
	unsigned n = (uint16_t)(idx - drv.used);
	volatile uint32_t *ring = at(USED + 4);

	for (unsigned i = 0; i < n; i++)
		(void)ring[2 * ((drv.used + i) % SIZE)];
	drv.used = idx;
	return n;
}

static struct virtq q;
static struct virtq_chain chain;

static unsigned split_serve(void)
{
	unsigned n = 0;

	while (n < BATCH && virtq_get(&q, &chain) == 1) {
		virtq_put(&q, chain.head, 4097);
		n++;
	}
	if (n)
		virtq_publish(&q);
	return n;
}

/* ---- packed ---- */

static struct {
	unsigned next, used;
	bool wrap, used_wrap;
} pdrv, pdev;

static void packed_put_flags(struct packed *p, unsigned flags, bool wrap)
{
	atomic_store_explicit(&p->flags, (uint16_t)(flags | (wrap ? P_AVAIL : P_USED)), memory_order_release);
}

static void packed_offer(uint64_t n)
{
	struct desc d[PARTS];
	struct packed *ring = at(DESC), *first = &ring[pdrv.next];
	bool wrap = pdrv.wrap;
	unsigned slot = n % BATCH, count = indirect ? 1 : PARTS, flags = 0;

	parts(d, slot, 0);
	if (indirect) {
		struct packed *t = at(TABLES + slot * 64);
		for (unsigned i = 0; i < PARTS; i++) {
			t[i].addr = d[i].addr;
			t[i].len = d[i].len;
			t[i].flags = d[i].flags & WRITE;
		}
		d[0] = (struct desc){TABLES + slot * 64, 16 * PARTS, INDIRECT, 0};
	}
	for (unsigned i = 0; i < count; i++) {
		struct packed *p = &ring[pdrv.next];
		p->addr = d[i].addr;
		p->len = d[i].len;
		p->id = (uint16_t)slot;
		if (i)
			packed_put_flags(p, d[i].flags, pdrv.wrap);
		else
			flags = d[i].flags;
		if (++pdrv.next == SIZE) {
			pdrv.next = 0;
			pdrv.wrap = !pdrv.wrap;
		}
	}
	packed_put_flags(first, flags, wrap);
}

static unsigned packed_collect(void)
{
	struct packed *ring = at(DESC);
	unsigned n = 0;

	for (;;) {
		uint16_t f = atomic_load_explicit(&ring[pdrv.used].flags, memory_order_acquire);
		if (!!(f & P_AVAIL) != pdrv.used_wrap || !!(f & P_USED) != pdrv.used_wrap)
			return n;
		pdrv.used += indirect ? 1 : PARTS;
		if (pdrv.used >= SIZE) {
			pdrv.used -= SIZE;
			pdrv.used_wrap = !pdrv.used_wrap;
		}
		n++;
	}
}

static bool packed_add(struct virtq_chain *c, uint64_t addr, uint32_t len, bool write)
{
	uint8_t *p = gmem_ptr(&mem, addr, len, GMEM_READ);
	unsigned n = c->nout + c->nin;

	if (!len || !p || n == VIRTQ_SEGS_MAX || (!write && c->nin) || c->out_len + c->in_len + len > UINT32_MAX)
		return false;
	c->seg[n] = (struct virtq_seg){addr, len};
	if (write) {
		c->nin++;
		c->in_len += len;
	} else {
		c->nout++;
		c->out_len += len;
	}
	return true;
}

/* 0: none there; else how many places it takes. */
static unsigned packed_get(struct virtq_chain *c, uint16_t *id)
{
	volatile struct packed *ring = at(DESC);
	unsigned i = pdev.next, n = 0;
	bool wrap = pdev.wrap;
	uint16_t f = atomic_load_explicit(&((struct packed *)at(DESC))[i].flags, memory_order_acquire);

	if (!!(f & P_AVAIL) != wrap || !!(f & P_USED) == wrap)
		return 0;
	c->nout = c->nin = 0;
	c->out_len = c->in_len = 0;
	do {
		uint64_t addr = ring[i].addr;
		uint32_t len = ring[i].len;
		f = ring[i].flags;
		*id = ring[i].id;
		if (f & INDIRECT) {
			volatile struct packed *t = len && len % 16 == 0 ? gmem_ptr(&mem, addr, len, GMEM_READ) : NULL;
			for (unsigned k = 0; k < len / 16; k++)
				if (!t || !packed_add(c, t[k].addr, t[k].len, t[k].flags & WRITE))
					exit(1);
		} else if (!packed_add(c, addr, len, f & WRITE)) {
			exit(1);
		}
		n++;
		if (++i == SIZE) {
			i = 0;
			wrap = !wrap;
		}
	} while ((f & NEXT) && n < SIZE);
	pdev.next = i;
	pdev.wrap = wrap;
	return n;
}

static unsigned packed_serve(void)
{
	struct packed *ring = at(DESC);
	unsigned n = 0, places;
	uint16_t id;

	while (n < BATCH && (places = packed_get(&chain, &id))) {
		struct packed *p = &ring[pdev.used];
		p->id = id;
		p->len = 4097;
		atomic_store_explicit(&p->flags, (uint16_t)(WRITE | (pdev.used_wrap ? P_AVAIL | P_USED : 0)),
				      memory_order_release);
		pdev.used += places;
		if (pdev.used >= SIZE) {
			pdev.used -= SIZE;
			pdev.used_wrap = !pdev.used_wrap;
		}
		n++;
	}
	if (n)
		atomic_thread_fence(memory_order_seq_cst);
	return n;
}

/* ---- turns ---- */

struct ring {
	const char *name;
	void (*offer)(uint64_t n);
	unsigned (*collect)(void);
	unsigned (*serve)(void);
};
static const struct ring rings[] = {{"split", split_offer, split_collect, split_serve},
				    {"packed", packed_offer, packed_collect, packed_serve}};

static void fresh(void)
{
	const struct msg_virtio_queue m = {.size = SIZE, .desc = DESC, .driver = AVAIL, .device = USED};
	const uint64_t features = VIRTQ_FEATURES;

	memset(mem.ram, 0, DATA);
	memset(&drv, 0, sizeof drv);
	memset(&pdrv, 0, sizeof pdrv);
	pdrv.wrap = pdrv.used_wrap = true;
	pdev = pdrv;
	if (virtq_setup(&q, &mem, &m, features))
		exit(1);
}

/* ns of the device's side a request, the driver on this CPU too: its side is taken off. */
static double alone(const struct ring *r)
{
	uint64_t spent = 0;

	fresh();
	for (uint64_t n = 0; n < requests;) {
		for (unsigned i = 0; i < BATCH; i++)
			r->offer(n + i);
		uint64_t t = now();
		unsigned k = r->serve();
		spent += now() - t;
		if (k != BATCH || r->collect() != BATCH)
			exit(1);
		n += BATCH;
	}
	return (double)spent / (double)requests;
}

static void *driver(void *ctx)
{
	const struct ring *r = ctx;
	unsigned flying = 0;

	for (uint64_t n = 0, done = 0; done < requests;) {
		while (flying < BATCH && n < requests) {
			r->offer(n++);
			flying++;
		}
		unsigned k = r->collect();
		flying -= k;
		done += k;
		if (!k)
			__builtin_ia32_pause();
	}
	return NULL;
}

/* ns a request of both sides at work on two CPUs. */
static double together(const struct ring *r)
{
	pthread_t t;

	fresh();
	uint64_t from = now();
	if (pthread_create(&t, NULL, driver, (void *)(uintptr_t)r))
		exit(1);
	for (uint64_t n = 0; n < requests;) {
		unsigned k = r->serve();
		n += k;
		if (!k)
			__builtin_ia32_pause();
	}
	pthread_join(t, NULL);
	return (double)(now() - from) / (double)requests;
}

static double best(double (*turn)(const struct ring *r), const struct ring *r, unsigned turns)
{
	double least = turn(r);

	while (--turns) {
		double t = turn(r);
		least = t < least ? t : least;
	}
	return least;
}

int main(int argc, char **argv)
{
	unsigned turns = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 50;

	if (!turns || ram_create(&ram, RAM) || memory_map(&mem, ram.ram_fd, ram.control_fd, -1, RAM))
		return 1;
	for (int i = 0; i < 2; i++) {
		indirect = i;
		for (size_t k = 0; k < 2; k++)
			printf("%-6s %-8s  device %6.1f ns a request, with the driver on another CPU %6.1f\n",
			       rings[k].name, i ? "indirect" : "chains", best(alone, &rings[k], turns),
			       best(together, &rings[k], turns));
	}
	return 0;
}
