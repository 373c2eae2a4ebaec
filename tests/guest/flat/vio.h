/*
 * A small driver of virtio disks on the PCI bus (virtio 1.2 4.1, 5.2), with its hands on everything: rings can be laid and
 * filled in ways that no driver should.
 * Invariant: memory is identity mapped, so what the guest points at is what the device is told.
 */
#ifndef FLAT_VIO_H
#define FLAT_VIO_H

#include "rt.h"

#define VIO_ECAM 0xb0000000ul
#define VIO_MAX  128u /* descriptors of a queue here */

/* common configuration, virtio 1.2 4.1.4.3 */
enum {
	VC_DEV_SEL = 0,
	VC_DEV_FEATURES = 4,
	VC_DRV_SEL = 8,
	VC_DRV_FEATURES = 12,
	VC_CONFIG_VECTOR = 16,
	VC_NUM_QUEUES = 18,
	VC_STATUS = 20,
	VC_GENERATION = 21,
	VC_Q_SEL = 22,
	VC_Q_SIZE = 24,
	VC_Q_VECTOR = 26,
	VC_Q_ENABLE = 28,
	VC_Q_NOTIFY_OFF = 30,
	VC_Q_DESC = 32,
	VC_Q_DRIVER = 40,
	VC_Q_DEVICE = 48
};
enum { VS_ACK = 1, VS_DRIVER = 2, VS_DRIVER_OK = 4, VS_FEATURES_OK = 8, VS_NEEDS_RESET = 64, VS_RUNS = 15 };
enum { VD_NEXT = 1, VD_WRITE = 2, VD_INDIRECT = 4 };
enum { VB_IN = 0, VB_OUT = 1, VB_FLUSH = 4, VB_GET_ID = 8 };
#define VF_INDIRECT  (1ull << 28)
#define VF_EVENT_IDX (1ull << 29)
#define VF_V1        (1ull << 32)

struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
struct vused_elem {
	uint32_t id, len;
};
/* One queue's memory, as a page each. */
struct vring {
	struct vdesc desc[256] __attribute__((aligned(4096)));
	struct {
		uint16_t flags, idx, ring[2048 - 2];
	} avail __attribute__((aligned(4096)));
	struct {
		uint16_t flags, idx;
		struct vused_elem ring[511];
	} used __attribute__((aligned(4096)));
};
struct vhead {
	uint32_t type, reserved;
	uint64_t sector;
};

struct vio {
	unsigned slot, msix_cap, pci_cap; /* 0: not there */
	word common, isr, config, notify, msix, pba;
	unsigned notify_step, nqueues;
	uint64_t features; /* in force */
	volatile struct vring *r;
	unsigned size, bell; /* of queue 0; its doorbell's offset */
	uint16_t seen;       /* used elements taken */
	struct vhead *head;  /* one a chain */
	volatile uint8_t *status;
};

#define V8(a)  (*(volatile uint8_t *)(a))
#define V16(a) (*(volatile uint16_t *)(a))
#define V32(a) (*(volatile uint32_t *)(a))

/* ---- time: cycles, so only for limits that nothing should meet ---- */

#define VIO_LONG 30000000000ull

/* Waits until @cond holds; false when it never does. */
#define VIO_UNTIL(cond)                                             \
	({                                                          \
		uint64_t t0_ = rdtsc();                             \
		bool ok_;                                           \
		while (!(ok_ = (cond)) && rdtsc() - t0_ < VIO_LONG) \
			__asm__ volatile("pause" ::: "memory");     \
		ok_;                                                \
	})

/* About @us microseconds, by the ACPI PM timer. */
static inline void vio_wait(unsigned us)
{
	uint32_t t0 = inl(0x608), left = us * 358 / 100;

	while (((inl(0x608) - t0) & 0xffffff) < left)
		__asm__ volatile("pause");
}

/* ---- finding it ---- */

static inline word vio_cfg(unsigned slot, unsigned reg)
{
	return VIO_ECAM + (slot << 15) + reg;
}

static inline word vio_bar(unsigned slot, unsigned n)
{
	return V32(vio_cfg(slot, 0x10 + 4 * n)) & ~15u;
}

static inline void vio_cap(struct vio *v, unsigned at)
{
	word c = vio_cfg(v->slot, at);
	word where = vio_bar(v->slot, V8(c + 4)) + V32(c + 8);

	switch (V8(c + 3)) {
	case 1: v->common = where; break;
	case 2:
		v->notify = where;
		v->notify_step = V32(c + 16);
		break;
	case 3: v->isr = where; break;
	case 4: v->config = where; break;
	case 5: v->pci_cap = at; break;
	}
}

/* The device in @slot, when it is a modern virtio disk. */
static inline bool vio_probe(struct vio *v, unsigned slot)
{
	memset(v, 0, sizeof *v);
	v->slot = slot;
	if (V32(vio_cfg(slot, 0)) != 0x10421af4)
		return false;
	V16(vio_cfg(slot, 4)) = 6; /* memory, bus master */
	for (unsigned at = V8(vio_cfg(slot, 0x34)); at; at = V8(vio_cfg(slot, at + 1))) {
		word c = vio_cfg(slot, at);
		if (V8(c) == 0x09)
			vio_cap(v, at);
		if (V8(c) != 0x11)
			continue;
		v->msix_cap = at;
		v->msix = vio_bar(slot, V8(c + 4) & 7) + (V32(c + 4) & ~7u);
		v->pba = vio_bar(slot, V8(c + 8) & 7) + (V32(c + 8) & ~7u);
	}
	v->nqueues = V16(v->common + VC_NUM_QUEUES);
	return true;
}

/* The first @n disks of the bus; how many there are. */
static inline unsigned vio_find(struct vio *v, unsigned n)
{
	unsigned found = 0;

	for (unsigned slot = 1; slot < 31 && found < n; slot++)
		found += vio_probe(&v[found], slot);
	return found;
}

/* ---- start and reset ---- */

static inline void vio_set64(const struct vio *v, unsigned reg, uint64_t val)
{
	V32(v->common + reg) = (uint32_t)val;
	V32(v->common + reg + 4) = (uint32_t)(val >> 32);
}

/* True when the device has nothing of ours any more. */
static inline bool vio_reset(struct vio *v)
{
	V8(v->common + VC_STATUS) = 0;
	return VIO_UNTIL(!V8(v->common + VC_STATUS));
}

static inline uint64_t vio_offered(const struct vio *v)
{
	uint64_t f;

	V32(v->common + VC_DEV_SEL) = 0;
	f = V32(v->common + VC_DEV_FEATURES);
	V32(v->common + VC_DEV_SEL) = 1;
	return f | (uint64_t)V32(v->common + VC_DEV_FEATURES) << 32;
}

static inline bool vio_negotiate(struct vio *v, uint64_t features)
{
	V8(v->common + VC_STATUS) = VS_ACK;
	V8(v->common + VC_STATUS) = VS_ACK | VS_DRIVER;
	for (unsigned i = 0; i < 2; i++) {
		V32(v->common + VC_DRV_SEL) = i;
		V32(v->common + VC_DRV_FEATURES) = (uint32_t)(features >> 32 * i);
	}
	V8(v->common + VC_STATUS) = VS_ACK | VS_DRIVER | VS_FEATURES_OK;
	v->features = features;
	return V8(v->common + VC_STATUS) & VS_FEATURES_OK;
}

/* Queue @q with its memory in three places. */
static inline void vio_queue(struct vio *v, unsigned q, unsigned size, uint64_t desc, uint64_t avail, uint64_t used)
{
	V16(v->common + VC_Q_SEL) = (uint16_t)q;
	V16(v->common + VC_Q_SIZE) = (uint16_t)size;
	vio_set64(v, VC_Q_DESC, desc);
	vio_set64(v, VC_Q_DRIVER, avail);
	vio_set64(v, VC_Q_DEVICE, used);
	V16(v->common + VC_Q_ENABLE) = 1;
}

/* After a reset: negotiates @features (and version 1) and runs queue 0 on @r, of @size descriptors. */
static inline bool vio_start(struct vio *v, volatile struct vring *r, unsigned size, uint64_t features)
{
	bool ok = vio_negotiate(v, (vio_offered(v) & features) | VF_V1);

	memset((void *)r, 0, sizeof *r);
	v->r = r;
	v->size = size;
	v->seen = 0;
	vio_queue(v, 0, size, (word)r->desc, (word)&r->avail, (word)&r->used);
	v->bell = V16(v->common + VC_Q_NOTIFY_OFF) * v->notify_step;
	V8(v->common + VC_STATUS) = VS_RUNS;
	return ok && V8(v->common + VC_STATUS) == VS_RUNS;
}

/* Its own memory and a start: what most guests want. */
static inline bool vio_open(struct vio *v, uint64_t features)
{
	static struct vring rings[4];
	static struct vhead heads[4][VIO_MAX];
	static uint8_t status[4][VIO_MAX];
	static unsigned n;

	if (!v->head) {
		v->r = &rings[n];
		v->head = heads[n];
		v->status = status[n++];
	}
	return vio_reset(v) && vio_start(v, v->r, VIO_MAX, features);
}

/* ---- requests ---- */

static inline void vio_desc(struct vio *v, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	v->r->desc[i].addr = addr;
	v->r->desc[i].len = len;
	v->r->desc[i].flags = (uint16_t)flags;
	v->r->desc[i].next = (uint16_t)next;
}

static inline void vio_avail(struct vio *v, unsigned head)
{
	uint16_t idx = v->r->avail.idx;

	v->r->avail.ring[idx & (v->size - 1)] = (uint16_t)head;
	__asm__ volatile("" ::: "memory");
	v->r->avail.idx = (uint16_t)(idx + 1);
}

static inline void vio_kick(const struct vio *v)
{
	__asm__ volatile("" ::: "memory");
	V16(v->notify + v->bell) = 0;
}

/* A request in descriptors 3 * @i and on, made available. */
static inline void vio_request(struct vio *v, unsigned i, uint32_t type, uint64_t sector, const void *buf, uint32_t len)
{
	unsigned d = 3 * i, in = type == VB_OUT ? 0 : VD_WRITE;

	v->head[i] = (struct vhead){type, 0, sector};
	v->status[i] = 0xff;
	vio_desc(v, d, (word)&v->head[i], sizeof(struct vhead), VD_NEXT, len ? d + 1 : d + 2);
	vio_desc(v, d + 1, (word)buf, len, VD_NEXT | in, d + 2);
	vio_desc(v, d + 2, (word)&v->status[i], 1, VD_WRITE, 0);
	vio_avail(v, d);
}

/* Waits until @n more chains are used. */
static inline bool vio_done(struct vio *v, unsigned n)
{
	v->seen = (uint16_t)(v->seen + n);
	return VIO_UNTIL(v->r->used.idx == v->seen);
}

/* One request, waited for: its status, or -1. */
static inline int vio_io(struct vio *v, uint32_t type, uint64_t sector, const void *buf, uint32_t len)
{
	vio_request(v, 0, type, sector, buf, len);
	vio_kick(v);
	return vio_done(v, 1) ? v->status[0] : -1;
}

static inline uint64_t vio_sectors(const struct vio *v)
{
	return V32(v->config) | (uint64_t)V32(v->config + 4) << 32;
}

/* Is it the disk of tests/device, that does what it should not when told to? */
static inline bool vio_is_test(struct vio *v)
{
	static char id[20];

	return vio_io(v, VB_GET_ID, 0, id, 20) == 0 && !memcmp(id, "hvx-test-ramdisk", 16);
}

/* ---- something to compare ---- */

static inline void vio_fill(void *p, unsigned n, uint32_t seed)
{
	uint32_t *w = p;

	for (unsigned i = 0; i < n / 4; i++)
		w[i] = seed * 2654435761u + i * 0x9e3779b9u;
}

static inline bool vio_filled(const void *p, unsigned n, uint32_t seed)
{
	const uint32_t *w = p;

	for (unsigned i = 0; i < n / 4; i++)
		if (w[i] != seed * 2654435761u + i * 0x9e3779b9u)
			return false;
	return true;
}

/* Writes and reads back; true when it is all there. */
static inline bool vio_works(struct vio *v, uint32_t seed)
{
	static uint8_t buf[2][4096] __attribute__((aligned(4096)));
	uint64_t at = 8 * (seed % 64);

	vio_fill(buf[0], 4096, seed);
	memset(buf[1], 0, 4096);
	return vio_io(v, VB_OUT, at, buf[0], 4096) == 0 && vio_io(v, VB_IN, at, buf[1], 4096) == 0 &&
	       vio_filled(buf[1], 4096, seed);
}

/* The interrupt vector @vec of MSI-X entry @i, to this CPU. */
static inline void vio_vector(const struct vio *v, unsigned i, unsigned vec, bool masked)
{
	V32(v->msix + 16 * i) = 0xfee00000 | (V32(0xfee00020ul) >> 24) << 12;
	V32(v->msix + 16 * i + 4) = 0;
	V32(v->msix + 16 * i + 8) = vec;
	V32(v->msix + 16 * i + 12) = masked;
}

static inline void vio_msix(const struct vio *v, bool on)
{
	V16(vio_cfg(v->slot, v->msix_cap + 2)) = on ? 0x8000 : 0;
}

#endif
