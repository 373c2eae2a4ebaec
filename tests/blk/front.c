/*
 * The front end by itself.  Invariant: the ring's memory belongs to the test; only front_look() takes used elements.
 */
#include "tests/blk/front.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESC  0x1000u
#define AVAIL 0x2000u
#define USED  0x3000u
#define HEADS 0x4000u /* 16 bytes a slot */
#define STATS 0x5000u
#define DATA  0x10000u
#define MORE  0x300000u /* descriptors and rings of the second queue, from here as those of the first from 0 */
#define EACH  6u        /* descriptors of a slot */
_Static_assert(FRONT_SLOTS *EACH <= FRONT_QUEUE && DATA + FRONT_SLOTS * FRONT_ROOM <= MORE, "they fit");
_Static_assert(MORE + USED + 0x1000 <= FRONT_RAM && FRONT_RINGS == 2, "they fit");

enum { NEXT = 1, WRITE = 2 };

static void must(bool ok)
{
	if (ok)
		return;
	perror("front");
	abort();
}

static unsigned of(unsigned ring, unsigned at)
{
	return (ring ? MORE : 0) + at;
}

static uint16_t load16(struct front *f, unsigned at)
{
	return __atomic_load_n((uint16_t *)(void *)(f->ram + at), __ATOMIC_ACQUIRE);
}

/* ---- the far ends ---- */

/* Nothing comes but answers to invalidations. */
static void on_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *fr)
{
	struct front *f = ctx;

	(void)c;
	(void)fr;
	f->asked++;
	f->used_then = load16(f, of(f->ring, USED) + 2);
	f->b.dev.invalidated = f->b.dev.invalidate_id;
}

static void on_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)ctx;
	(void)c;
	(void)error;
}

static uint16_t next_frame(struct front *f, int fd)
{
	if (ipc_recv_frame(fd, f->buf, &f->f))
		return 0;
	return f->f.type;
}

uint16_t front_vcpu(struct front *f)
{
	return next_frame(f, f->vcpu);
}

uint16_t front_monitor(struct front *f)
{
	return next_frame(f, f->monitor);
}

static struct ipc_conn *connection(struct front *f, int *far)
{
	static const struct ipc_handlers h = {on_frame, on_closed, NULL};
	int sv[2];

	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
	*far = sv[1];
	struct ipc_conn *c = ipc_conn_new(f->b.dev.loop, sv[0], "blk", "test", &h, f);
	must(c);
	return c;
}

/* ---- making it ---- */

static const struct device_ops ops = {
	.work = blk_work, .activate = blk_activate, .reset = blk_reset, .config_write = blk_config_write};

static void memory(struct front *f)
{
	const uint64_t pages = FRONT_RAM / 4096;

	f->ram = mmap(NULL, FRONT_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->p2m = calloc(pages, 8);
	f->code = calloc(pages / 64 + 1, 8);
	f->dirty = calloc(pages / 64 + 1, 8);
	must(f->ram != MAP_FAILED && f->p2m && f->code && f->dirty);
	for (uint64_t i = 0; i < pages; i++)
		f->p2m[i] = i * 4096;
	f->b.dev.mem = (struct gmem){.ram = f->ram,
				     .size = FRONT_RAM,
				     .low = FRONT_RAM,
				     .p2m = f->p2m,
				     .code_bm = f->code,
				     .dirty_bm = f->dirty};
}

static void stores(struct front *f, const struct front_setup *s)
{
	struct blk *b = &f->b;

	fakestore_init(&f->base, s->size, s->block ? s->block : BLK_SECTOR);
	b->base = &f->base.s;
	b->size = s->size;
	if (!s->snapshot)
		return;
	fakestore_init(&f->top, s->size, BLK_SECTOR);
	b->top = &f->top.s;
	must(!blk_overlay_init(b));
}

struct front *front_new(const struct front_setup *s)
{
	struct front *f = calloc(1, sizeof *f);
	int call[2];

	must(f && !pipe2(call, O_CLOEXEC | O_NONBLOCK));
	struct device *d = &f->b.dev;
	d->ops = &ops;
	d->loop = ipc_loop_new();
	device_init(d);
	d->bell = &f->bell;
	d->fd[DEV_FD_CALL] = call[1];
	f->call = call[0];
	d->channel = connection(f, &f->vcpu);
	d->monitor = connection(f, &f->monitor);
	d->cfg.blk = (struct msg_blk_config){.readonly = s->readonly,
					     .writeback = !s->through,
					     .pause_error = s->pause,
					     .snapshot = s->snapshot,
					     .queues = FRONT_RINGS,
					     .serial = "twenty-characters-20"};
	f->b.readonly = s->readonly;
	memory(f);
	stores(f, s);
	must(!blk_requests_init(&f->b));
	blk_offer(&f->b);
	return f;
}

void front_free(struct front *f)
{
	struct device *d = &f->b.dev;

	ipc_watch_free(f->b.timer);
	ipc_conn_free(d->channel);
	ipc_conn_free(d->monitor);
	ipc_loop_free(d->loop);
	close(f->vcpu);
	close(f->monitor);
	close(f->call);
	close(d->fd[DEV_FD_CALL]);
	if (f->b.written)
		munmap(f->b.written, (size_t)(f->b.size / BLK_SECTOR / 8 + 8));
	munmap(f->ram, FRONT_RAM);
	free(f->p2m);
	free(f->code);
	free(f->dirty);
	fakestore_free(&f->base);
	fakestore_free(&f->top);
	free(f);
}

void front_activate(struct front *f, uint64_t features)
{
	struct device *d = &f->b.dev;

	for (unsigned i = 0; i < FRONT_SLOTS; i++)
		f->status[i] = -1;
	d->v.features = features;
	d->v.broken = false;
	f->ring = 0;
	for (unsigned i = 0; i < FRONT_RINGS; i++) {
		const struct msg_virtio_queue q = {i, FRONT_QUEUE, of(i, DESC), of(i, AVAIL), of(i, USED)};
		memset(f->ram + of(i, AVAIL), 0, 0x2000);
		f->avail[i] = f->seen[i] = 0;
		must(!virtq_setup(&d->v.queue[i], &d->mem, &q, features));
	}
	d->v.active = true;
	blk_activate(d);
}

struct front *front_start(const struct front_setup *s)
{
	struct front *f = front_new(s);

	front_activate(f, FRONT_ALL);
	return f;
}

bool front_all(const uint8_t *p, size_t n, uint8_t c)
{
	while (n--)
		if (*p++ != c)
			return false;
	return true;
}

/* ---- the driver ---- */

uint8_t *front_data(struct front *f, unsigned slot)
{
	return f->ram + DATA + slot * FRONT_ROOM;
}

void front_desc(struct front *f, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, flags, next};

	memcpy(f->ram + of(f->ring, DESC) + i * 16, &d, 16);
}

void front_avail(struct front *f, unsigned first)
{
	uint8_t *ring = f->ram + of(f->ring, AVAIL);
	uint16_t *avail = &f->avail[f->ring];

	memcpy(ring + 4 + *avail % FRONT_QUEUE * 2, &(uint16_t){(uint16_t)first}, 2);
	__atomic_store_n((uint16_t *)(void *)(ring + 2), ++*avail, __ATOMIC_RELEASE);
}

/* One or two descriptors. */
static unsigned add(struct front *f, unsigned i, uint64_t addr, uint32_t len, uint32_t cut, uint16_t flags)
{
	if (!len)
		return i;
	if (cut && cut < len) {
		front_desc(f, i, addr, cut, (uint16_t)(NEXT | flags), (uint16_t)(i + 1));
		i++;
		addr += cut;
		len -= cut;
	}
	front_desc(f, i, addr, len, (uint16_t)(NEXT | flags), (uint16_t)(i + 1));
	return i + 1;
}

void front_put(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t out, uint32_t in, uint32_t cut)
{
	uint32_t head[4] = {type, 0, (uint32_t)sector, (uint32_t)(sector >> 32)};
	uint64_t data = DATA + slot * FRONT_ROOM;
	unsigned i = slot * EACH;

	memcpy(f->ram + HEADS + 16 * slot, head, 16);
	f->ram[STATS + slot] = 0xee;
	f->status[slot] = -1;
	i = add(f, i, HEADS + 16 * slot, 16, cut % 16, 0);
	i = add(f, i, data, out, cut, 0);
	if (!out)
		i = add(f, i, data, in, cut, WRITE);
	front_desc(f, i, STATS + slot, 1, WRITE, 0);
	front_avail(f, slot * EACH);
}

static void look(struct front *f, unsigned ring)
{
	unsigned used = of(ring, USED);
	uint16_t *seen = &f->seen[ring];

	for (uint16_t idx = load16(f, used + 2); *seen != idx; ++*seen) {
		uint32_t id;
		memcpy(&id, f->ram + used + 4 + *seen % FRONT_QUEUE * 8, 4);
		if (id < FRONT_SLOTS * EACH)
			f->status[id / EACH] = f->ram[STATS + id / EACH];
	}
}

void front_look(struct front *f)
{
	for (unsigned i = 0; i < FRONT_RINGS; i++)
		look(f, i);
}

void front_ring(struct front *f)
{
	if (virtio_dev_ready(&f->b.dev.v, f->ring))
		blk_work(&f->b.dev, f->ring);
	front_look(f);
}

int front_do(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t out, uint32_t in)
{
	front_put(f, slot, type, sector, out, in, 0);
	front_ring(f);
	return f->status[slot];
}

int front_range(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	uint32_t r[4] = {(uint32_t)sector, (uint32_t)(sector >> 32), sectors, flags};

	memcpy(front_data(f, slot), r, 16);
	return front_do(f, slot, type, 0, 16, 0);
}

bool front_reset(struct front *f)
{
	f->b.dev.v.active = false;
	f->b.dev.generation++;
	f->b.dev.v.resetting = true;
	blk_reset(&f->b.dev);
	return !f->b.dev.v.resetting;
}

static void stop(void *ctx)
{
	ipc_loop_stop(ctx);
}

void front_wait(struct front *f, unsigned ms)
{
	struct ipc_watch *t = ipc_watch_timer(f->b.dev.loop, stop, f->b.dev.loop);

	must(t);
	ipc_timer_set(t, ms);
	ipc_loop_run(f->b.dev.loop);
	ipc_watch_free(t);
}
