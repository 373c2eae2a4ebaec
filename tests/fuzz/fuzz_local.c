/*
 * Fuzz target: the devices of vcpu/local/.  The input is what a hostile driver does, 12 bytes a deed: descriptors, chains
 * made available, registers, RAM; and in which order memsvc answers, flushes are done and the console's pipes move.
 *
 * Properties: nothing outside RAM is touched (forbidden pages on both sides); memsvc is asked for pages of RAM only, one
 * request at a time; no used index is published while a flush is outstanding; after a reset each device is quiet.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/fuzz/fuzz.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/start.h"
#include "vcpu/kick.h"
#include "vcpu/local/set.h"
#include "vcpu/mmu/mmu.h"

#define PAGES  64u
#define RAM    (PAGES * 4096u)
#define GUARD  (1u << 20)
#define RINGS  8u /* rng; balloon 5; console 2: a page each from 0 on */
#define SIZE   8u /* of a ring */
#define AVAIL  0x200u
#define USED   0x400u
#define DEED   12u
#define DEEDS  200u
#define BUFFER 0x10000u

static struct gmem mem;
static uint64_t p2m[PAGES], code[1], dirty[1];
static struct vm vm;
static struct vcpu *v;
static struct ipc_loop *loop;
static struct ipc_watch *stop;
static struct local_set set;
static int memsvc, console_in, console_out;
static uint8_t wire[IPC_MAX_DATA];
static const struct {
	uint8_t dev, queue;
} ring[RINGS] = {{0, 0}, {1, 0}, {1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 0}, {2, 1}};

void vcpu_kick(struct vcpu *c, uint32_t pend)
{
	atomic_fetch_or(&c->pending, pend);
}

void mmu_withdraw(struct vcpu *c, const struct frame_set *gone, bool pool)
{
	(void)c, (void)gone, (void)pool;
}

void mmu_moved(struct vcpu *c, uint64_t frame, const uint8_t *from)
{
	(void)c, (void)frame, (void)from;
}

struct vcpu *kick_this(void)
{
	return v;
}

void world_enter(struct vcpu *c)
{
	(void)c;
}

void world_leave(struct vcpu *c)
{
	(void)c;
}

void start_post(struct vcpu *c, int vector)
{
	FUZZ_CHECK(!c && !vector); /* nothing here sends any */
}

void code_written(struct vcpu *c, uint64_t gpa, size_t len)
{
	FUZZ_CHECK(c == v && gpa < RAM && len <= RAM - gpa);
}

static struct local *device(unsigned i)
{
	struct local *const d[] = {&set.rng.dev, &set.balloon.dev, &set.console.dev};

	return d[i % 3];
}

static void on_stop(void *ctx)
{
	ipc_loop_stop(ctx);
}

static void pump(void)
{
	for (int i = 0; i < 2; i++) {
		ipc_timer_set(stop, 0);
		ipc_loop_run(loop);
	}
}

static void wr(struct local *d, unsigned off, uint32_t val, unsigned size)
{
	platform_mmio_write(vm.plat, v, d->vp.f.bar[0].mapped + off, val, size);
}

static void make_ram(void)
{
	uint8_t *p = mmap(NULL, RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FUZZ_CHECK(p != MAP_FAILED && !mprotect(p + GUARD, RAM, PROT_READ | PROT_WRITE));
	mem = (struct gmem){.ram = p + GUARD, .size = RAM, .low = RAM, .p2m = p2m, .code_bm = code, .dirty_bm = dirty};
	for (unsigned i = 0; i < PAGES; i++)
		p2m[i] = i * 4096;
}

static void init(void)
{
	const struct platform_config cfg = {.ram_size = RAM,
					    .ncpus = 1,
					    .com_in = {-1, -1, -1, -1},
					    .com_out = {-1, -1, -1, -1},
					    .tsc_hz = 2000000000};
	const struct msg_local local = {.rng = true, .balloon = true};
	int sv[2], in[2], out[2], fd[FD_COUNT];

	FUZZ_CHECK(!posix_memalign((void **)&v, 4096, (sizeof *v + 4095) & ~4095ul));
	memset(v, 0, sizeof *v);
	make_ram();
	vm = (struct vm){.mem = &mem, .ncpus = 1, .vcpu = {v}};
	v->vm = &vm;
	vm.plat = platform_create(&vm, &cfg);
	loop = ipc_loop_new();
	stop = ipc_watch_timer(loop, on_stop, loop);
	FUZZ_CHECK(vm.plat && stop && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sv));
	FUZZ_CHECK(!pipe2(in, O_NONBLOCK) && !pipe2(out, O_NONBLOCK));
	for (int i = 0; i < FD_COUNT; i++)
		fd[i] = -1;
	memsvc = sv[1];
	fd[FD_MEMSVC] = sv[0];
	fd[FD_VCONSOLE_IN] = in[0];
	fd[FD_VCONSOLE_OUT] = out[1];
	console_in = in[1];
	console_out = out[0];
	FUZZ_CHECK(!local_set_create(&set, &vm, loop, &local, fd));
	log_set_fd(-1);
}

/* ---- the other processes ---- */

/* One request at most is under way, with what a reset adds to it. */
static void answer(void)
{
	struct msg_mem_changed done;
	static struct msg_mem_change m;
	struct ipc_frame f;

	if (ipc_recv_frame(memsvc, wire, &f))
		return;
	FUZZ_CHECK(f.type == MSG_MEM_CHANGE && !unpack_mem_change(f.data, f.len, &m));
	for (uint32_t i = 0; i < m.nranges; i++)
		FUZZ_CHECK(m.range[i].first < PAGES && m.range[i].count <= PAGES - m.range[i].first);
	done.id = m.id;
	int n = pack_mem_changed(&done, wire, sizeof wire);
	FUZZ_CHECK(!ipc_send_frame(memsvc, MSG_MEM_CHANGED, wire, (size_t)n, NULL, 0));
}

static void flush(void)
{
	if (atomic_fetch_and(&v->pending, ~PEND_FLUSH) & PEND_FLUSH)
		vm.invalidate(v, vm.cards);
}

static void terminal(uint8_t n)
{
	uint8_t buf[256] = {0};

	if (write(console_in, buf, n) < 0)
		return; /* it is full */
	while (n % 2 && read(console_out, buf, sizeof buf) > 0)
		;
}

/* ---- the driver ---- */

static void start(struct local *d)
{
	wr(d, 20, 0, 1);
	for (int i = 0; i < 8 && platform_mmio_read(vm.plat, v, d->vp.f.bar[0].mapped + 20, 1); i++) {
		pump();
		answer();
	}
	pump();
	FUZZ_CHECK(!platform_mmio_read(vm.plat, v, d->vp.f.bar[0].mapped + 20, 1));
	FUZZ_CHECK(!d->v.active && !d->v.resetting);
	wr(d, 20, 3, 1);
	wr(d, 8, 0, 4), wr(d, 12, (uint32_t)d->vp.offer.features & ~(1u << VIRTIO_F_RING_EVENT_IDX), 4);
	wr(d, 8, 1, 4), wr(d, 12, 1, 4);
	wr(d, 20, 11, 1);
	for (unsigned r = 0; r < RINGS; r++) {
		if (device(ring[r].dev) != d)
			continue;
		wr(d, 22, ring[r].queue, 2), wr(d, 24, SIZE, 2);
		wr(d, 32, r * 4096, 4), wr(d, 40, r * 4096 + AVAIL, 4), wr(d, 48, r * 4096 + USED, 4);
		wr(d, 28, 1, 2);
	}
	wr(d, 20, 15, 1);
}

struct deed {
	uint8_t what, a, b, c;
	uint32_t d, e;
};

static void put_desc(const struct deed *x)
{
	const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc = {x->d % (RAM + 4096), x->e % 0x9000, x->c & 7, x->c >> 4};

	memcpy(mem.ram + x->a % RINGS * 4096 + x->b % (2 * SIZE) * 16, &desc, sizeof desc);
}

static void offer(const struct deed *x)
{
	unsigned r = x->a % RINGS;
	uint16_t *avail = (uint16_t *)(void *)(mem.ram + r * 4096 + AVAIL);

	avail[2 + avail[1] % SIZE] = x->b % (2 * SIZE);
	avail[1]++;
	wr(device(ring[r].dev), 0x3000 + 4 * ring[r].queue, ring[r].queue, 2);
}

static void monitor(const struct deed *x)
{
	const struct msg_dev_limits limit = {.bytes = x->d, .bytes_burst = x->e};

	switch (x->a % 4) {
	case 0: locals_refresh(&set.locals, on_stop, loop); break;
	case 3: rng_limit(&set.rng, &limit); break;
	case 1: balloon_target(&set.balloon, x->d % (2 * RAM)); break;
	default: vconsole_size(&set.console, (uint16_t)x->d, (uint16_t)x->e); break;
	}
}

static void act(const struct deed *x)
{
	switch (x->what % 10) {
	case 0: memcpy(mem.ram + x->d % (RAM - 4), &x->e, 4); break;
	case 1:
	case 2: put_desc(x); break;
	case 3:
	case 4: offer(x); break;
	case 5: wr(device(x->a), x->d % 0x4000 & ~3u, x->e, 1u << x->b % 3); break;
	case 6: flush(); break;
	case 7: answer(); break;
	case 8: terminal(x->a); break;
	default:
		monitor(x);
		code[0] = x->a % 3 == 0 ? x->d : 0;
		break;
	}
}

/* What was written while translations are outstanding is not published. */
static void pump_and_look(void)
{
	struct {
		bool held;
		uint16_t published;
		uint64_t resets;
	} before[RINGS];

	for (unsigned r = 0; r < RINGS; r++) {
		const struct local *d = device(ring[r].dev);
		before[r].held = d->flush == LOCAL_FLUSH_ASKED;
		before[r].published = d->v.queue[ring[r].queue].published;
		before[r].resets = d->v.n.resets;
	}
	pump();
	for (unsigned r = 0; r < RINGS; r++) {
		const struct local *d = device(ring[r].dev);
		FUZZ_CHECK(!before[r].held || d->flush == LOCAL_FLUSH_ASKED);
		FUZZ_CHECK(!before[r].held || d->v.n.resets != before[r].resets ||
			   d->v.queue[ring[r].queue].published == before[r].published);
		FUZZ_CHECK(d->v.nranges <= LOCAL_RANGES && !(d->v.unpublished && !d->v.active));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct deed x;

	if (!v)
		init();
	memset(mem.ram, 0, RAM);
	code[0] = 0;
	flush();
	for (unsigned i = 0; i < 3; i++)
		start(device(i));
	pump();
	for (size_t i = 0; i < DEEDS && (i + 1) * DEED <= len; i++) {
		memcpy(&x, data + i * DEED, sizeof x);
		act(&x);
		pump_and_look();
	}
	return 0;
}

/* ---- seeds: what a good driver does ---- */

static void deed(uint8_t **p, uint8_t what, uint8_t a, uint8_t b, uint8_t c, uint32_t d, uint32_t e)
{
	const struct deed x = {what, a, b, c, d, e};

	memcpy(*p, &x, sizeof x);
	*p += sizeof x;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	uint8_t *p = buf;

	switch (i) {
	case 0: /* random numbers, over code */
		deed(&p, 9, 3, 0, 0, 0xffffffff, 0);
		deed(&p, 1, 0, 0, 2, BUFFER, 64);
		deed(&p, 3, 0, 0, 0, 0, 0);
		deed(&p, 6, 0, 0, 0, 0, 0);
		break;
	case 1: /* inflate two pages, deflate */
		deed(&p, 0, 0, 0, 0, BUFFER, 20);
		deed(&p, 0, 0, 0, 0, BUFFER + 4, 21);
		deed(&p, 1, 1, 0, 0, BUFFER, 8);
		deed(&p, 3, 1, 0, 0, 0, 0);
		deed(&p, 7, 0, 0, 0, 0, 0);
		deed(&p, 1, 2, 0, 0, BUFFER, 8);
		deed(&p, 3, 2, 0, 0, 0, 0);
		deed(&p, 7, 0, 0, 0, 0, 0);
		break;
	case 2: /* statistics, a report */
		deed(&p, 0, 0, 0, 0, BUFFER, 5);
		deed(&p, 1, 3, 0, 0, BUFFER, 20);
		deed(&p, 3, 3, 0, 0, 0, 0);
		deed(&p, 9, 0, 0, 0, 0, 0);
		deed(&p, 1, 4, 0, 2, BUFFER, 0x4000);
		deed(&p, 3, 4, 0, 0, 0, 0);
		deed(&p, 7, 0, 0, 0, 0, 0);
		break;
	case 3: /* the console, both ways, and a reset in between */
		deed(&p, 1, 6, 0, 2, BUFFER, 64);
		deed(&p, 3, 6, 0, 0, 0, 0);
		deed(&p, 8, 9, 0, 0, 0, 0);
		deed(&p, 1, 7, 0, 1, BUFFER, 0x8000);
		deed(&p, 3, 7, 0, 0, 0, 0);
		deed(&p, 5, 2, 0, 0, 20, 0);
		deed(&p, 9, 2, 0, 0, 80, 25);
		break;
	default: return 0;
	}
	return (size_t)(p - buf);
}
