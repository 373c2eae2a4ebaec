/*
 * devices/device, with the disk of tests/device: activation, doorbells, resets, broken drivers, and the order of
 * hvx-internals(7), "Disks and network cards": data, look at the code bitmap, invalidation and its answer, used element.
 *
 * The device runs on a thread of its own (or in a process where it is to end); the test is its vcpu and its monitor.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "tests/device/ramdisk.h"

#define PAGES 64u
#define SIZE  16u
#define DESC  0x1000u
#define AVAIL 0x2000u
#define USED  0x3000u
#define HEADS 0x4000u /* 16 bytes a request */
#define STATS 0x5000u /* its status */
#define DATA  0x10000u
#define LIMIT 10000 /* ms that something may take */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { NEXT = 1, WRITE = 2 };

/* Shared with the device's process where it has one. */
struct world {
	struct device d;
	struct ramdisk r;
	uint64_t p2m[PAGES], dirty, code;
	struct shm_doorbells bell;
	uint8_t ram[PAGES * 4096] __attribute__((aligned(4096)));
	int vcpu, monitor, call; /* our ends */
	pthread_t thread;
	pid_t pid;
	unsigned n; /* requests made */
	uint8_t buf[IPC_MAX_DATA];
	struct ipc_frame f;
};

/* ---- both ends ---- */

static void *serve(void *ctx)
{
	struct world *w = ctx;

	device_serve(&w->d);
	return NULL;
}

static void wire(struct world *w)
{
	int ctl[2], ch[2], call[2];

	CU_ASSERT_FATAL(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ctl));
	CU_ASSERT_FATAL(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ch));
	CU_ASSERT_FATAL(!pipe2(call, O_CLOEXEC | O_NONBLOCK));
	w->monitor = ctl[0];
	w->vcpu = ch[0];
	w->call = call[0];
	w->d.control = ctl[1];
	w->d.fd[DEV_FD_CHANNEL] = ch[1];
	w->d.fd[DEV_FD_CALL] = call[1];
	w->d.fd[DEV_FD_KICK] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

/* The next frame must be of this type. */
static bool expect(struct world *w, uint16_t type)
{
	struct pollfd p = {.fd = w->vcpu, .events = POLLIN};
	bool ok = poll(&p, 1, LIMIT) == 1 && !ipc_recv_frame(w->vcpu, w->buf, &w->f) && w->f.type == type;

	CU_ASSERT_TRUE(ok);
	return ok;
}

static bool quiet(struct world *w)
{
	struct pollfd p = {.fd = w->vcpu, .events = POLLIN};

	return poll(&p, 1, 50) == 0;
}

static struct world *start(bool process)
{
	struct world *w = mmap(NULL, sizeof *w, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CU_ASSERT_FATAL(w != MAP_FAILED);
	w->d.mem = (struct gmem){.ram = w->ram,
				 .size = sizeof w->ram,
				 .low = sizeof w->ram,
				 .p2m = w->p2m,
				 .code_bm = &w->code,
				 .dirty_bm = &w->dirty};
	for (unsigned i = 0; i < PAGES; i++)
		w->p2m[i] = i * 4096;
	device_init(&w->d);
	w->d.bell = &w->bell;
	strcpy(w->d.cfg.id, "disk0");
	wire(w);
	pid_t pid = process ? fork() : 0;
	if (pid)
		w->pid = pid;
	if (process && !pid) {
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2); /* what it says when it ends */
		close(w->vcpu);
		close(w->monitor);
	}
	if (!pid) {
		w->d.loop = ipc_loop_new();
		ramdisk_init(&w->r, &w->d);
	}
	if (process && !pid)
		_exit(device_serve(&w->d));
	if (process) {
		close(w->d.control);
		close(w->d.fd[DEV_FD_CHANNEL]);
	} else {
		CU_ASSERT_FATAL(!pthread_create(&w->thread, NULL, serve, w));
	}
	expect(w, MSG_VIRTIO_OFFER);
	return w;
}

static void finish(struct world *w)
{
	close(w->monitor);
	pthread_join(w->thread, NULL);
	ipc_conn_free(w->d.channel);
	ipc_conn_free(w->d.monitor);
	ipc_watch_free(w->r.timer);
	ipc_loop_free(w->d.loop);
	close(w->d.fd[DEV_FD_KICK]);
	close(w->d.fd[DEV_FD_CALL]);
	close(w->call);
	close(w->vcpu);
	munmap(w, sizeof *w);
}

/* How the device's process ended; it must. */
static int ended(struct world *w)
{
	int st = -1;

	CU_ASSERT_EQUAL(waitpid(w->pid, &st, 0), w->pid);
	close(w->monitor);
	close(w->vcpu);
	close(w->call);
	close(w->d.fd[DEV_FD_KICK]);
	close(w->d.fd[DEV_FD_CALL]);
	munmap(w, sizeof *w);
	return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static void to_device(struct world *w, uint16_t type, int len)
{
	CU_ASSERT_FATAL(len >= 0 && !ipc_send_frame(w->vcpu, type, w->buf, (size_t)len, NULL, 0));
}

static void activate(struct world *w, uint64_t desc)
{
	struct msg_virtio_activate m = {
		.features = VIRTQ_FEATURES & ~(1ull << VIRTIO_F_RING_EVENT_IDX),
		.nqueues = 1,
		.queue = {{.size = SIZE, .desc = desc, .driver = AVAIL, .device = USED}},
	};

	to_device(w, MSG_VIRTIO_ACTIVATE, pack_virtio_activate(&m, w->buf, sizeof w->buf));
}

static void reset(struct world *w, uint32_t generation)
{
	struct msg_virtio_reset m = {generation};

	to_device(w, MSG_VIRTIO_RESET, pack_virtio_reset(&m, w->buf, sizeof w->buf));
}

static void reset_answered(struct world *w, uint32_t generation)
{
	struct msg_virtio_reset m;

	if (expect(w, MSG_VIRTIO_RESET_DONE)) {
		CU_ASSERT_EQUAL(unpack_virtio_reset(w->f.data, w->f.len, &m), 0);
		CU_ASSERT_EQUAL(m.generation, generation);
	}
}

static void answer(struct world *w, uint32_t id)
{
	struct msg_virtio_invalidate m = {.id = id};

	to_device(w, MSG_VIRTIO_INVALIDATED, pack_virtio_invalidate(&m, w->buf, sizeof w->buf));
}

/* ---- the driver ---- */

static void desc(struct world *w, unsigned i, uint64_t addr, uint32_t len, uint16_t flags)
{
	struct desc d = {addr, len, flags, (uint16_t)(i + 1)};

	memcpy(w->ram + DESC + i * 16, &d, 16);
}

static uint16_t load16(struct world *w, unsigned at)
{
	return __atomic_load_n((uint16_t *)(void *)(w->ram + at), __ATOMIC_ACQUIRE);
}

static void offer(struct world *w, unsigned head)
{
	uint16_t idx = load16(w, AVAIL + 2);

	memcpy(w->ram + AVAIL + 4 + idx % SIZE * 2, &(uint16_t){(uint16_t)head}, 2);
	__atomic_store_n((uint16_t *)(void *)(w->ram + AVAIL + 2), (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

/* Makes a request available: at most five at once, three descriptors each. */
static void request(struct world *w, uint32_t type, uint64_t sector, unsigned data, uint32_t len)
{
	unsigned i = w->n++ % 5, d = 3 * i;
	uint16_t in = type == RAMDISK_OUT ? 0 : WRITE;

	memcpy(w->ram + HEADS + 16 * i, &type, 4);
	memcpy(w->ram + HEADS + 16 * i + 8, &sector, 8);
	w->ram[STATS + i] = 0xff;
	desc(w, d, HEADS + 16 * i, 16, NEXT);
	if (len)
		desc(w, d + 1, data, len, NEXT | in);
	else
		desc(w, d, HEADS + 16 * i, 16, NEXT),
			memcpy(w->ram + DESC + d * 16 + 14, &(uint16_t){(uint16_t)(d + 2)}, 2);
	desc(w, d + 2, STATS + i, 1, WRITE);
	offer(w, d);
}

static void kick(struct world *w)
{
	atomic_fetch_or(&w->bell.kicked, 1);
	if (!atomic_load(&w->bell.device_awake))
		CU_ASSERT_EQUAL(write(w->d.fd[DEV_FD_KICK], &(uint64_t){1}, 8), 8);
}

static bool used(struct world *w, uint16_t n)
{
	for (int ms = 0; ms < LIMIT; ms++) {
		if (load16(w, USED + 2) == n)
			return true;
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
	return false;
}

/* ---- tests ---- */

/* Who is told: the CPU that the page names when there is a pipe for it, else CPU 0. */
static void test_whom(void)
{
	struct world *w = start(false);
	static const uint8_t named[] = {1, 0, 2, 255, 1};
	int other[2];
	char drop[64];

	CU_ASSERT_FATAL(!pipe2(other, O_CLOEXEC | O_NONBLOCK));
	w->d.fd[DEV_FD_CALL + 1] = other[1];
	activate(w, DESC);
	for (unsigned i = 0; i < sizeof named; i++) {
		atomic_store(&w->bell.cpu[0], named[i]);
		request(w, RAMDISK_FLUSH, 0, 0, 0);
		kick(w);
		CU_ASSERT_TRUE(used(w, (uint16_t)(i + 1)));
		struct pollfd p[2] = {{.fd = w->call, .events = POLLIN}, {.fd = other[0], .events = POLLIN}};
		CU_ASSERT_EQUAL(poll(p, 2, LIMIT), 1);
		CU_ASSERT_EQUAL(!!p[1].revents, named[i] == 1);
		CU_ASSERT_EQUAL(read(p[p[1].revents != 0].fd, drop, sizeof drop), 1);
		CU_ASSERT_EQUAL(atomic_exchange(&w->bell.called, 0), 1u);
	}
	finish(w);
	close(other[0]);
	close(other[1]);
}

static void test_requests(void)
{
	struct world *w = start(false);

	activate(w, DESC);
	memset(w->ram + DATA, 0x5a, 4096);
	request(w, RAMDISK_OUT, 8, DATA, 4096);
	request(w, RAMDISK_IN, 8, DATA + 4096, 4096);
	kick(w);
	CU_ASSERT_TRUE(used(w, 2));
	CU_ASSERT_EQUAL(memcmp(w->ram + DATA, w->ram + DATA + 4096, 4096), 0);
	CU_ASSERT_EQUAL(w->ram[STATS] | w->ram[STATS + 1], 0);
	CU_ASSERT_EQUAL(atomic_load(&w->bell.called), 1u);
	CU_ASSERT_EQUAL(w->dirty, 1ull << 17 | 1ull << 5 | 1ull << 3); /* data, status, used ring; not what it read */
	char drop[64];
	CU_ASSERT_EQUAL(read(w->call, drop, sizeof drop), 1); /* one call, since nobody has looked */
	CU_ASSERT_EQUAL(read(w->call, drop, sizeof drop), -1);
	atomic_store(&w->bell.called, 0);
	w->ram[AVAIL] = 1; /* no interrupts, please */
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w);
	CU_ASSERT_TRUE(used(w, 3));
	CU_ASSERT_EQUAL(atomic_load(&w->bell.called), 0u);
	CU_ASSERT_TRUE(used(w, 3) && quiet(w));
	__atomic_store_n(&w->dirty, 0, __ATOMIC_RELEASE);
	kick(w); /* nothing there: it only asks for doorbells again */
	for (int ms = 0; !__atomic_load_n(&w->dirty, __ATOMIC_ACQUIRE) && ms < LIMIT; ms++)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	CU_ASSERT_EQUAL(__atomic_load_n(&w->dirty, __ATOMIC_ACQUIRE), 1ull << 3);
	finish(w);
}

/* What was made available before the device was told to start is found without a doorbell. */
static void test_early(void)
{
	struct world *w = start(false);

	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w); /* nobody is there yet */
	activate(w, DESC);
	CU_ASSERT_TRUE(used(w, 1));
	finish(w);
}

static void test_order(void)
{
	struct world *w = start(false);
	struct msg_virtio_invalidate m;

	activate(w, DESC);
	memset(w->ram + DATA, 0x90, 8192);
	request(w, RAMDISK_OUT, 0, DATA, 8192);
	kick(w);
	CU_ASSERT_TRUE(used(w, 1));
	atomic_store(&w->bell.called, 0);
	memset(w->ram + DATA, 0xcc, 8192);
	__atomic_store_n(&w->code, 1ull << 17,
			 __ATOMIC_RELEASE); /* the second page of the buffer holds translated code */
	request(w, RAMDISK_IN, 0, DATA, 8192);
	kick(w);
	if (expect(w, MSG_VIRTIO_INVALIDATE)) {
		CU_ASSERT_EQUAL_FATAL(unpack_virtio_invalidate(w->f.data, w->f.len, &m), 0);
		CU_ASSERT_EQUAL_FATAL(m.nranges, 1);
		CU_ASSERT_EQUAL(m.range[0].gpa, DATA + 4096);
		CU_ASSERT_EQUAL(m.range[0].len, 4096);
		CU_ASSERT_EQUAL(w->ram[DATA + 8191], 0x90); /* the data is there, */
		CU_ASSERT_EQUAL(w->ram[STATS + 1], 0);
		CU_ASSERT_TRUE(quiet(w));
		CU_ASSERT_EQUAL(load16(w, USED + 2), 1); /* but nobody is told */
		CU_ASSERT_EQUAL(atomic_load(&w->bell.called), 0u);
		answer(w, m.id);
	}
	CU_ASSERT_TRUE(used(w, 2));
	w->code = 0;
	request(w, RAMDISK_IN, 0, DATA, 8192);
	kick(w);
	CU_ASSERT_TRUE(used(w, 3)); /* no code, no question */
	CU_ASSERT_TRUE(quiet(w));
	w->code = 1ull << 16; /* a page that it only reads */
	request(w, RAMDISK_OUT, 0, DATA, 4096);
	kick(w);
	CU_ASSERT_TRUE(used(w, 4));
	CU_ASSERT_TRUE(quiet(w));
	finish(w);
}

/*
 * Both sides at once, many times: the device writes and looks at the bitmap, the vcpu sets the bit and reads.  At
 * least one of them must see the other; without the device's fence this fails within a few thousand rounds on two CPUs.
 */
static struct {
	_Atomic unsigned turn, ready;
	struct device d;
	uint64_t p2m[2], dirty, code;
	uint8_t ram[8192];
	_Atomic uint32_t cell __attribute__((aligned(64)));
} race;
#define ROUNDS 400000u

static void *race_vcpu(void *ctx)
{
	static unsigned missed;
	uint32_t *cell = (uint32_t *)(void *)race.ram;

	(void)ctx;
	missed = 0;
	for (unsigned i = 1; i <= ROUNDS; i++) {
		while (atomic_load(&race.turn) != i)
			sched_yield();
		__atomic_fetch_or(&race.code, 1, __ATOMIC_SEQ_CST);
		uint32_t seen = __atomic_load_n(cell, __ATOMIC_RELAXED);
		atomic_store(&race.cell, seen);
		atomic_store(&race.ready, i);
	}
	return &missed;
}

static void test_race(void)
{
	struct virtq_seg seg = {0, 4};
	unsigned bad = 0;
	pthread_t th;

	memset(&race, 0, sizeof race);
	race.p2m[1] = 4096;
	race.d.mem = (struct gmem){.ram = race.ram,
				   .size = 8192,
				   .low = 8192,
				   .p2m = race.p2m,
				   .code_bm = &race.code,
				   .dirty_bm = &race.dirty};
	device_init(&race.d);
	race.dirty = 1; /* or marking the page is a fence */
	CU_ASSERT_FATAL(!pthread_create(&th, NULL, race_vcpu, NULL));
	for (unsigned i = 1; i <= ROUNDS; i++) {
		uint64_t before = race.d.v.n.flushes;
		race.code = 0;
		atomic_store(&race.turn, i);
		for (unsigned k = i * 2654435761u >> 26; k; k--) /* meet it in many ways */
			__asm__ volatile("pause");
		__atomic_store_n((uint32_t *)(void *)race.ram, i, __ATOMIC_RELAXED);
		virtio_dev_wrote(&race.d.v, &seg, 1, 4);
		virtio_dev_flush(&race.d.v);
		while (atomic_load(&race.ready) != i)
			sched_yield();
		bad += race.d.v.n.flushes == before && atomic_load(&race.cell) != i;
	}
	pthread_join(th, NULL);
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_TRUE(race.d.v.n.flushes < ROUNDS); /* both orders were met */
}

/* More pages with code than a message takes, and pieces that are not whole pages. */
static void test_ranges(void)
{
	struct world *w = start(false);
	struct msg_virtio_invalidate m;

	activate(w, DESC);
	w->code = 0xffffffffffff0000; /* all of the data */
	request(w, RAMDISK_IN, 0, DATA + 100, 3 * 4096);
	kick(w);
	if (expect(w, MSG_VIRTIO_INVALIDATE)) {
		CU_ASSERT_EQUAL_FATAL(unpack_virtio_invalidate(w->f.data, w->f.len, &m), 0);
		CU_ASSERT_EQUAL_FATAL(m.nranges, 4);
		CU_ASSERT_EQUAL(m.range[0].gpa, DATA + 100);
		CU_ASSERT_EQUAL(m.range[0].len, 3996);
		CU_ASSERT_EQUAL(m.range[1].len, 4096);
		CU_ASSERT_EQUAL(m.range[3].len, 100);
		answer(w, m.id);
	}
	CU_ASSERT_TRUE(used(w, 1));
	finish(w);
}

static void test_reset(void)
{
	struct world *w = start(false);

	activate(w, DESC);
	request(w, RAMDISK_HOLD, 0, 0, 0);
	request(w, RAMDISK_IN, 0, DATA, 4096);
	request(w, RAMDISK_LATE_RESET, 100, 0, 0);
	kick(w);
	CU_ASSERT_TRUE(used(w, 2)); /* the read is held */
	memset(w->ram + DATA, 0xcc, 4096);
	reset(w, 1);
	CU_ASSERT_TRUE(quiet(w)); /* it is not answered while that is in flight */
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w);
	reset_answered(w, 1);
	CU_ASSERT_EQUAL(w->ram[DATA], 0); /* done before the answer */
	CU_ASSERT_EQUAL(load16(w, USED + 2), 3);
	kick(w);
	CU_ASSERT_TRUE(quiet(w));
	CU_ASSERT_EQUAL(load16(w, USED + 2), 3); /* nothing new was taken */
	/* again, from the start */
	memset(w->ram + AVAIL, 0, 0x2000);
	w->n = 0;
	activate(w, DESC);
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w);
	CU_ASSERT_TRUE(used(w, 1));
	reset(w, 2);
	reset(w, 3);
	reset_answered(w, 2);
	reset_answered(w, 3);
	finish(w);
}

/* Takes the next invalidation, of one range; answers it after a look at what the guest sees. */
static void answer_range(struct world *w, uint64_t gpa, uint64_t len, uint16_t used_idx, uint32_t called)
{
	struct msg_virtio_invalidate m;

	if (!expect(w, MSG_VIRTIO_INVALIDATE))
		return;
	CU_ASSERT_EQUAL_FATAL(unpack_virtio_invalidate(w->f.data, w->f.len, &m), 0);
	CU_ASSERT_EQUAL(m.nranges, 1);
	CU_ASSERT_EQUAL(m.range[0].gpa, gpa);
	CU_ASSERT_EQUAL(m.range[0].len, len);
	CU_ASSERT_TRUE(quiet(w));
	CU_ASSERT_EQUAL(load16(w, USED + 2), used_idx);
	CU_ASSERT_EQUAL(atomic_load(&w->bell.called), called);
	answer(w, m.id);
}

/* Rings are written memory, too: with translated code on their page, elements, index, and the wish for doorbells. */
static void test_ring_code(void)
{
	struct world *w = start(false);

	request(w, RAMDISK_IN, 0, DATA, 4096);
	w->code = 1ull << 3;
	activate(w, DESC);
	answer_range(w, USED + 4, 8, 0, 0); /* before the index is there, */
	answer_range(w, USED + 2, 2, 1, 0); /* and before the guest hears of it */
	answer_range(w, USED, 2, 1, 1);
	CU_ASSERT_TRUE(quiet(w));
	CU_ASSERT_EQUAL(atomic_load(&w->bell.called), 1u);
	finish(w);
}

/* A reset, and the next activation behind it, while the device waits for the answer to an invalidation. */
static void test_reset_in_flush(void)
{
	struct world *w = start(false);
	struct msg_virtio_invalidate m;

	activate(w, DESC);
	w->code = 0x3ull << 16; /* the data */
	request(w, RAMDISK_IN, 0, DATA, 4096);
	request(w, RAMDISK_IN, 0, DATA + 4096, 4096);
	kick(w);
	if (!expect(w, MSG_VIRTIO_INVALIDATE) || unpack_virtio_invalidate(w->f.data, w->f.len, &m))
		return;
	reset(w, 1);
	CU_ASSERT_TRUE(quiet(w));
	answer(w, m.id);
	reset_answered(w, 1);
	CU_ASSERT_EQUAL(load16(w, USED + 2), 1); /* the one it was at; the second was not taken */
	CU_ASSERT_EQUAL(atomic_load(&w->bell.called), 0u);
	w->code = 0;
	memset(w->ram + AVAIL, 0, 0x2000);
	activate(w, DESC);
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w);
	CU_ASSERT_TRUE(used(w, 1));
	finish(w);
}

static void test_broken(void)
{
	struct world *w = start(false);
	struct msg_virtio_broken m;

	activate(w, DESC);
	desc(w, 0, HEADS, 0, 0); /* a buffer of no bytes */
	offer(w, 0);
	offer(w, SIZE);
	kick(w);
	if (expect(w, MSG_VIRTIO_BROKEN)) {
		CU_ASSERT_EQUAL(unpack_virtio_broken(w->f.data, w->f.len, &m), 0);
		CU_ASSERT_STRING_EQUAL(m.reason, "a buffer of no bytes");
	}
	kick(w);
	CU_ASSERT_TRUE(quiet(w)); /* told once */
	CU_ASSERT_EQUAL(load16(w, USED + 2), 0);
	reset(w, 1);
	reset_answered(w, 1);
	memset(w->ram + AVAIL, 0, 0x2000);
	activate(w, PAGES * 4096 - 16); /* descriptors run out of RAM */
	expect(w, MSG_VIRTIO_BROKEN);
	reset(w, 2);
	reset_answered(w, 2);
	activate(w, DESC);
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	kick(w);
	CU_ASSERT_TRUE(used(w, 1));
	CU_ASSERT_EQUAL(w->d.v.n.broken, 2);
	finish(w);
}

/* A guest that rings without end does not keep the device from its messages. */
static void *ring_on(void *ctx)
{
	struct world *w = ctx;

	while (!atomic_load(&w->bell.called)) {
		atomic_fetch_or(&w->bell.kicked, 1);
		if (write(w->d.fd[DEV_FD_KICK], &(uint64_t){1}, 8) != 8)
			break;
	}
	return NULL;
}

static void test_ringing(void)
{
	struct world *w = start(false);
	pthread_t th;

	activate(w, DESC);
	CU_ASSERT_FATAL(!pthread_create(&th, NULL, ring_on, w));
	for (uint32_t i = 1; i <= 20; i++) {
		reset(w, i);
		reset_answered(w, i);
		activate(w, DESC);
	}
	request(w, RAMDISK_FLUSH, 0, 0, 0);
	CU_ASSERT_TRUE(used(w, 1));
	pthread_join(th, NULL);
	finish(w);
}

/* The vcpu ends while it owes an answer: nobody runs the old code any more, the work is finished. */
static void test_vcpu_gone(void)
{
	struct world *w = start(false);

	activate(w, DESC);
	w->code = ~0ull;
	request(w, RAMDISK_IN, 0, DATA, 4096);
	kick(w);
	expect(w, MSG_VIRTIO_INVALIDATE);
	shutdown(w->vcpu, SHUT_RDWR);
	CU_ASSERT_TRUE(used(w, 1));
	finish(w); /* and it lives until the monitor hangs up */
}

/* What the vcpu may not say ends the device. */
static void test_nonsense(void)
{
	struct msg_virtio_invalidate inv = {.id = 7};
	struct msg_virtio_activate act = {.nqueues = 1, .queue = {{.index = 2, .size = SIZE}}};
	struct world *w = start(true);

	to_device(w, MSG_VIRTIO_OFFER, 0);
	CU_ASSERT_EQUAL(ended(w), HVX_EXIT_FAIL);
	w = start(true);
	memset(w->buf, 0xff, 16);
	to_device(w, MSG_VIRTIO_ACTIVATE, 16);
	CU_ASSERT_EQUAL(ended(w), HVX_EXIT_FAIL);
	w = start(true);
	to_device(w, MSG_VIRTIO_INVALIDATED,
		  pack_virtio_invalidate(&inv, w->buf, sizeof w->buf)); /* it asked nothing */
	CU_ASSERT_EQUAL(ended(w), HVX_EXIT_FAIL);
	w = start(true);
	to_device(w, MSG_VIRTIO_ACTIVATE, pack_virtio_activate(&act, w->buf, sizeof w->buf)); /* a queue it has not */
	CU_ASSERT_EQUAL(ended(w), HVX_EXIT_FAIL);
	w = start(true);
	activate(w, DESC);
	activate(w, DESC); /* twice */
	CU_ASSERT_EQUAL(ended(w), HVX_EXIT_FAIL);
	w = start(true);
	shutdown(w->monitor, SHUT_RDWR);
	CU_ASSERT_EQUAL(ended(w), 0);
}

CU_ErrorCode suite_device(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"requests", test_requests},
		{"whom a call tells", test_whom},
		{"available before the start", test_early},
		{"data, invalidation, used element", test_order},
		{"the bitmap and the data, both at once", test_race},
		{"ranges", test_ranges},
		{"code on the page of a ring", test_ring_code},
		{"reset with work in flight", test_reset},
		{"reset within an invalidation", test_reset_in_flush},
		{"broken drivers", test_broken},
		{"ringing without end", test_ringing},
		{"the vcpu goes", test_vcpu_gone},
		{"nonsense from the vcpu", test_nonsense},
	};
	CU_pSuite s = CU_add_suite("device", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}
