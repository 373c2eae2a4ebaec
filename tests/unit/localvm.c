/*
 * See localvm.h.  Invariant: all that a test does to a device goes through the bus and the rings, as a
 * guest's driver would do it.
 */
#include "tests/unit/localvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/chipfakes.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/kick.h"
#include "vcpu/mmu/mmu.h"

struct localvm lv;

void code_written(struct vcpu *v, uint64_t gpa, size_t len)
{
	(void)v;
	lv.ncode++;
	lv.code_gpa = gpa;
	lv.code_len = len;
}

void mmu_withdraw(struct vcpu *v, const struct frame_set *set, bool pool)
{
	(void)v, (void)set, (void)pool;
	lv.nwithdrawn++;
}

void mmu_moved(struct vcpu *v, uint64_t frame, const uint8_t *from)
{
	(void)v, (void)frame, (void)from;
}

struct vcpu *kick_this(void)
{
	return NULL;
}

static void on_stop(void *ctx)
{
	ipc_loop_stop(ctx);
}

void lv_begin(void)
{
	const struct platform_config cfg = {.ram_size = LV_PAGES * 4096,
					    .ncpus = 1,
					    .com_in = {-1, -1, -1, -1},
					    .com_out = {-1, -1, -1, -1},
					    .tsc_hz = 2000000000};

	memset(&lv, 0, sizeof lv);
	lv.mem = (struct gmem){.ram = aligned_alloc(4096, LV_PAGES * 4096),
			       .size = LV_PAGES * 4096,
			       .low = LV_PAGES * 4096,
			       .p2m = lv.p2m,
			       .code_bm = lv.code,
			       .dirty_bm = lv.dirty};
	memset(lv.mem.ram, 0, LV_PAGES * 4096);
	for (unsigned i = 0; i < LV_PAGES; i++)
		lv.p2m[i] = i * 4096;
	lv.v = fake_vcpu(0);
	lv.v->vm = &lv.vm;
	lv.vm = (struct vm){.mem = &lv.mem, .ncpus = 1, .vcpu = {lv.v}};
	lv.vm.plat = platform_create(&lv.vm, &cfg);
	lv.loop = ipc_loop_new();
	CU_ASSERT_FATAL(lv.vm.plat && lv.loop);
	lv.stop = ipc_watch_timer(lv.loop, on_stop, lv.loop);
	CU_ASSERT_EQUAL_FATAL(locals_init(&lv.locals, &lv.vm, lv.loop), 0);
}

void lv_end(void)
{
	locals_stop(&lv.locals);
	ipc_watch_free(lv.locals.post_watch);
	ipc_watch_free(lv.locals.patience);
	close(lv.locals.post_fd);
	ipc_watch_free(lv.stop);
	ipc_loop_free(lv.loop);
	platform_destroy(lv.vm.plat);
	free(lv.v);
	free(lv.mem.ram);
}

void lv_pump(unsigned ms)
{
	ipc_timer_set(lv.stop, ms);
	ipc_loop_run(lv.loop);
}

void lv_flush(void)
{
	CU_ASSERT(atomic_load(&lv.v->pending) & PEND_FLUSH);
	atomic_fetch_and(&lv.v->pending, ~PEND_FLUSH);
	lv.vm.invalidate(lv.v, lv.vm.cards);
	lv_pump(2);
}

/* ---- registers (virtio 1.2 4.1.4.3) ---- */

static void wr(struct local *d, unsigned off, uint32_t val, unsigned size)
{
	platform_mmio_write(lv.vm.plat, lv.v, d->vp.f.bar[0].mapped + off, val, size);
}

static uint32_t rd(struct local *d, unsigned off, unsigned size)
{
	return (uint32_t)platform_mmio_read(lv.vm.plat, lv.v, d->vp.f.bar[0].mapped + off, size);
}

uint8_t lv_status(struct local *d)
{
	return (uint8_t)rd(d, 20, 1);
}

void lv_set_status(struct local *d, uint8_t status)
{
	wr(d, 20, status, 1);
}

static uint64_t ring(unsigned queue)
{
	return 0x10000ull * (queue + 1);
}

void lv_start(struct local *d, uint64_t features, unsigned queues)
{
	features |= 1ull << VIRTIO_F_VERSION_1;
	lv_set_status(d, 0);
	lv_pump(2);
	CU_ASSERT_EQUAL(lv_status(d), 0);
	lv_set_status(d, 3);
	for (unsigned half = 0; half < 2; half++) {
		wr(d, 8, half, 4);
		wr(d, 12, (uint32_t)(features >> 32 * half), 4);
	}
	lv_set_status(d, 11);
	CU_ASSERT(lv_status(d) & VIRTIO_S_FEATURES_OK);
	for (unsigned q = 0; q < queues; q++) {
		memset(lv_at(ring(q)), 0, 0x4000);
		wr(d, 22, q, 2);
		wr(d, 24, LV_SIZE, 2);
		for (unsigned i = 0; i < 3; i++) {
			wr(d, 32 + 8 * i, (uint32_t)ring(q) + (i ? 0x1000 + 0x1000 * i : 0), 4);
			wr(d, 36 + 8 * i, 0, 4);
		}
		wr(d, 28, 1, 2);
	}
	lv_set_status(d, 15);
	lv_pump(2);
}

uint8_t lv_isr(struct local *d)
{
	return (uint8_t)rd(d, 0x1000, 1);
}

uint32_t lv_config(struct local *d, unsigned off, unsigned size)
{
	return rd(d, 0x2000 + off, size);
}

/* ---- rings ---- */

uint8_t *lv_at(uint64_t gpa)
{
	return lv.mem.ram + gpa;
}

void lv_put_desc(unsigned queue, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	const struct lv_desc d = {addr, len, flags, next};

	memcpy(lv_at(ring(queue) + 16 * i), &d, sizeof d);
}

void lv_offer(struct local *d, unsigned queue, uint16_t head)
{
	uint16_t *a = (uint16_t *)(void *)lv_at(ring(queue) + 0x2000);

	a[2 + a[1] % LV_SIZE] = head;
	a[1]++;
	wr(d, 0x3000 + 4 * queue, queue, 2);
	lv_pump(2);
}

uint16_t lv_used(unsigned queue)
{
	return ((uint16_t *)(void *)lv_at(ring(queue) + 0x3000))[1];
}

uint32_t lv_used_len(unsigned queue, unsigned i)
{
	return ((uint32_t *)(void *)lv_at(ring(queue) + 0x3004))[2 * i + 1];
}

uint64_t lv_counter(struct local *d, const char *name)
{
	static struct msg_counters m;
	char full[64];

	m.n = 0;
	locals_stats(d->all, &m);
	snprintf(full, sizeof full, "%s.%s", d->id, name);
	for (uint32_t i = 0; i < m.n; i++)
		if (!strcmp(m.c[i].name, full))
			return m.c[i].value;
	return UINT64_MAX;
}
