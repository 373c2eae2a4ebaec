/*
 * The guest's driver of a disk under test (virtio 1.2 2.7): rings it only when asked to be rung, and asks for interrupts
 * only when it waits, so that a lost wake-up of either side shows as a request that never ends.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "tests/blk/vm.h"

#define DESC   0x1000u
#define AVAIL  0x2000u
#define USED   0x3000u
#define HEADS  0x4000u /* 16 bytes a slot */
#define STATS  0x5000u
#define TABLES 0x10000u /* indirect, a slot's 64 descriptors each */
#define TABLE  64u
#define DATA   0x100000u
#define EACH   4u /* descriptors of a slot in the ring's own table */
_Static_assert(VM_SLOTS *EACH <= VM_QUEUE && DATA + VM_SLOTS * VM_ROOM <= VM_RAM, "they fit");

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
#define F_INDIRECT  (1ull << 28)
#define F_EVENT_IDX (1ull << 29)

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static _Atomic uint16_t *word(struct vm *v, unsigned at)
{
	return (_Atomic uint16_t *)(void *)(v->mem.ram + at);
}

static struct desc *desc(struct vm *v, unsigned i)
{
	return (struct desc *)(void *)(v->mem.ram + DESC) + i;
}

uint64_t vm_sectors(const struct vm *v)
{
	uint64_t n;

	memcpy(&n, v->offer.config, 8);
	return n;
}

uint8_t *vm_data(struct vm *v, unsigned slot)
{
	return v->mem.ram + DATA + slot * VM_ROOM;
}

void vm_activate(struct vm *v, uint64_t features)
{
	struct msg_virtio_activate m = {
		.features = v->offer.features & features,
		.nqueues = 1,
		.queue = {{.size = VM_QUEUE, .desc = DESC, .driver = AVAIL, .device = USED}},
	};
	int n = pack_virtio_activate(&m, v->buf, sizeof v->buf);

	memset(v->mem.ram + AVAIL, 0, 0x2000);
	v->features = m.features;
	v->avail = v->seen = v->rung = 0;
	v->flying = 0;
	for (unsigned i = 0; i < VM_SLOTS; i++)
		v->slot[i].status = VM_FREE;
	if (ipc_send_frame(v->channel, MSG_VIRTIO_ACTIVATE, v->buf, (size_t)n, NULL, 0))
		vm_die("activation: %s", strerror(errno));
}

void vm_reset(struct vm *v)
{
	struct msg_virtio_reset m = {++v->generation};
	int n = pack_virtio_reset(&m, v->buf, sizeof v->buf);

	if (ipc_send_frame(v->channel, MSG_VIRTIO_RESET, v->buf, (size_t)n, NULL, 0))
		vm_die("reset: %s", strerror(errno));
	vm_expect(v, v->channel, MSG_VIRTIO_RESET_DONE);
}

/* ---- requests ---- */

/* The data in pieces of any size, as many as there is room for. */
static unsigned pieces(struct vm *v, struct desc *d, unsigned most, uint64_t at, uint32_t len, uint16_t flags)
{
	uint32_t largest = one_in(&v->r, 2) ? len : 1 + len / 32; /* a few, or many */
	unsigned n = 0;

	while (len) {
		uint32_t k = n + 1 < most && !one_in(&v->r, 16) ? 1 + below(&v->r, largest) : len;
		k = k < len ? k : len;
		d[n++] = (struct desc){at, k, flags, 0};
		at += k;
		len -= k;
	}
	return n;
}

void vm_put_head(struct vm *v, unsigned head)
{
	*word(v, AVAIL + 4 + v->avail % VM_QUEUE * 2) = (uint16_t)head;
	atomic_store_explicit(word(v, AVAIL + 2), ++v->avail, memory_order_release);
}

static uint32_t header(struct vm *v, unsigned slot, uint32_t type, uint64_t sector, uint32_t len)
{
	uint32_t h[4] = {type, 0, (uint32_t)sector, (uint32_t)(sector >> 32)};
	uint32_t range[4] = {h[2], h[3], len / 512, 0};

	if (type == VM_DISCARD || type == VM_ZEROES) {
		range[3] = type == VM_ZEROES && one_in(&v->r, 2);
		memcpy(vm_data(v, slot), range, 16);
		len = 16;
	}
	memcpy(v->mem.ram + HEADS + 16 * slot, h, 16);
	v->mem.ram[STATS + slot] = 0xee;
	return len;
}

void vm_put(struct vm *v, unsigned slot, uint32_t type, uint64_t sector, uint32_t len)
{
	bool table = (v->features & F_INDIRECT) && one_in(&v->r, 2);
	struct desc *d =
		table ? (struct desc *)(void *)(v->mem.ram + TABLES + slot * TABLE * 16) : desc(v, slot * EACH);
	unsigned base = table ? 0 : slot * EACH, most = table ? 1 + below(&v->r, TABLE - 2) : EACH - 2, n = 1;

	v->slot[slot] = (struct vm_slot){type, len, sector, VM_FLYING};
	v->flying++;
	len = header(v, slot, type, sector, len);
	d[0] = (struct desc){HEADS + 16 * slot, 16, 0, 0};
	n += pieces(v, d + 1, most, DATA + slot * VM_ROOM, len, type == VM_IN || type == VM_GET_ID ? WRITE : 0);
	d[n++] = (struct desc){STATS + slot, 1, WRITE, 0};
	for (unsigned i = 0; i + 1 < n; i++) {
		d[i].flags |= NEXT;
		d[i].next = (uint16_t)(base + i + 1);
	}
	if (table)
		*desc(v, slot * EACH) = (struct desc){TABLES + slot * TABLE * 16, n * 16, INDIRECT, 0};
	vm_put_head(v, slot * EACH);
}

void vm_ring(struct vm *v)
{
	bool wanted;

	atomic_thread_fence(memory_order_seq_cst);
	if (v->features & F_EVENT_IDX) {
		uint16_t event = *word(v, USED + 4 + 8 * VM_QUEUE);
		wanted = (uint16_t)(v->avail - event - 1) < (uint16_t)(v->avail - v->rung);
	} else {
		wanted = !(*word(v, USED) & 1);
	}
	v->rung = v->avail;
	if (!wanted)
		return;
	atomic_fetch_or(&v->bell->kicked, 1);
	if (!atomic_load(&v->bell->device_awake) && write(v->kick, &(uint64_t){1}, 8) < 0 && errno != EAGAIN)
		vm_die("doorbell: %s", strerror(errno));
}

bool vm_look(struct vm *v)
{
	uint16_t idx = atomic_load_explicit(word(v, USED + 2), memory_order_acquire), from = v->seen;
	uint32_t e[2];

	for (; v->seen != idx; v->seen++) {
		memcpy(e, v->mem.ram + USED + 4 + v->seen % VM_QUEUE * 8, 8);
		unsigned s = e[0] / EACH;
		if (e[0] % EACH || s >= VM_SLOTS || v->slot[s].status != VM_FLYING)
			vm_die("used element %u: %u is not in flight", v->seen, e[0]);
		v->slot[s].status = v->mem.ram[STATS + s];
		v->flying--;
	}
	return v->seen != from;
}

void vm_wait(struct vm *v)
{
	struct pollfd p = {.fd = v->call, .events = POLLIN};
	char drop[256];

	for (;;) {
		*word(v, AVAIL + 4 + 2 * VM_QUEUE) = v->seen; /* used_event: the next one */
		atomic_store(&v->bell->called, 0);
		atomic_thread_fence(memory_order_seq_cst);
		if (vm_look(v))
			return;
		int rc = poll(&p, 1, VM_LIMIT);
		if (rc < 0 && errno != EINTR)
			vm_die("poll: %s", strerror(errno));
		if (!rc)
			vm_die("%u requests are in flight and none is done", v->flying);
		if (read(v->call, drop, sizeof drop) == 0)
			vm_die("hvx-blk is gone");
	}
}

int vm_do(struct vm *v, uint32_t type, uint64_t sector, uint32_t len)
{
	vm_put(v, 0, type, sector, len);
	vm_ring(v);
	while (v->slot[0].status == VM_FLYING)
		vm_wait(v);
	return v->slot[0].status;
}
