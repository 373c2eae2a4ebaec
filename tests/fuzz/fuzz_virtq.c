/*
 * Fuzz target: a split virtqueue.  Bytes 0 to 3 choose its size, the features and where guest pages lie on the host; then
 * comes a run of what driver and device do: the driver writes bytes anywhere in its memory, the device gets and puts back.
 *
 * Properties: a chain's pieces lie in RAM, with forbidden pages on both sides of it, and add up; a head that is in flight is
 * not given again; after a refusal nothing has changed but the reason; copies stay within the pieces.
 */
#include <string.h>
#include <sys/mman.h>

#include "devices/virtq.h"
#include "tests/fuzz/fuzz.h"

#define PAGES 16u
#define RAM   (PAGES * 4096u)
#define GUARD (1u << 20)
#define HEAD  4u
#define DESC  0x1000u
#define AVAIL 0x2000u
#define USED  0x3000u

static struct gmem mem;
static uint64_t p2m[PAGES];
static struct virtq q;
static struct virtq_chain chain;
static uint16_t flying[MSG_QUEUE_SIZE_MAX];
static unsigned nflying;
static bool dead;

static void init(void)
{
	uint8_t *p = mmap(NULL, RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FUZZ_CHECK(p != MAP_FAILED && !mprotect(p + GUARD, RAM, PROT_READ | PROT_WRITE));
	mem = (struct gmem){.ram = p + GUARD, .size = RAM, .p2m = p2m};
}

/* Some RAM above 4 GiB, pages in order or turned round from page @how / 16 on (the rings lie below). */
static void make_memory(uint8_t how)
{
	unsigned turned = how >> 4 < 5 ? PAGES : how >> 4;

	memset(mem.ram, 0, RAM);
	mem.low = how & 1 ? RAM - 4 * 4096 : RAM;
	for (unsigned i = 0; i < PAGES; i++)
		p2m[i] = (i < turned ? i : PAGES - 1 - (i - turned)) * 4096u;
	if (how & 2)
		p2m[PAGES - 1] = 1ull << 40; /* out of the file: as a taken-over memsvc might say */
}

static void check_chain(void)
{
	uint64_t sum[2] = {0, 0};

	FUZZ_CHECK(chain.head < q.size && chain.nout + chain.nin >= 1 && chain.nout + chain.nin <= VIRTQ_SEGS_MAX);
	for (unsigned i = 0; i < chain.nout + chain.nin; i++) {
		const struct virtq_seg *s = &chain.seg[i];
		FUZZ_CHECK(s->len && gmem_is_ram(&mem, s->gpa, s->len));
		FUZZ_CHECK(gmem_frame(&mem, s->gpa) >= 0);
		sum[i >= chain.nout] += s->len;
	}
	FUZZ_CHECK(sum[0] == chain.out_len && sum[1] == chain.in_len);
	for (unsigned i = 0; i < nflying; i++)
		FUZZ_CHECK(flying[i] != chain.head);
}

static void get(void)
{
	struct virtq before = q;
	int rc = virtq_get(&q, &chain);

	FUZZ_CHECK(rc == 1 || rc == 0 || rc == -71 /* EPROTO */);
	if (rc == 1) {
		check_chain();
		flying[nflying++] = chain.head;
	} else {
		before.why = q.why;
		FUZZ_CHECK(!memcmp(&before, &q, sizeof q));
		dead = rc < 0; /* as devices take it */
	}
	FUZZ_CHECK(q.inflight == nflying && nflying <= q.size);
}

static void put_one(unsigned which)
{
	if (!nflying)
		return;
	which %= nflying;
	virtq_put(&q, flying[which], which);
	flying[which] = flying[--nflying];
}

static void copy(unsigned off, unsigned len)
{
	static uint8_t buf[65536];

	if (!nflying || flying[nflying - 1] != chain.head)
		return;
	FUZZ_CHECK(virtq_read(&chain, off, buf, len) == (off >= chain.out_len        ? 0
							 : chain.out_len - off < len ? chain.out_len - off
										     : len));
	FUZZ_CHECK(virtq_write(&chain, off, buf, len) == (off >= chain.in_len        ? 0
							  : chain.in_len - off < len ? chain.in_len - off
										     : len));
}

/* One step of driver or device; how many bytes of input it took. */
static size_t step(const uint8_t *p, size_t len)
{
	unsigned off = (unsigned)p[1] | (unsigned)p[2] << 8;

	switch (p[0] & 7) {
	case 0:
	case 1: {
		size_t n = p[0] >> 3 < len - 3 ? p[0] >> 3 : len - 3;
		if (n > RAM - off)
			n = RAM - off;
		memcpy(mem.ram + off, p + 3, n);
		return 3 + n;
	}
	case 2:
		if (nflying && chain.head == flying[nflying - 1] && !dead) {
			virtq_unget(&q, &chain);
			nflying--;
		}
		return 1;
	case 3: put_one(p[1]); return 2;
	case 4: virtq_publish(&q); return 1;
	case 5: virtq_quiet(&q), virtq_listen(&q); return 1;
	case 6: copy(off, 1000); return 3;
	default:
		if (!dead)
			get();
		return 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct msg_virtio_queue m = {.desc = DESC, .driver = AVAIL, .device = USED};

	if (len < HEAD)
		return 0;
	if (!mem.ram)
		init();
	make_memory(data[0]);
	m.size = data[1] & 0x80 ? data[1] & 0x7f : 1u << (data[1] & 7);
	if (data[3])
		m.desc = (uint64_t)data[3] << 12 | (data[1] & 0x70);
	nflying = 0;
	dead = virtq_setup(&q, &mem, &m, (uint64_t)(data[2] & 3) << 28) != 0;
	if (dead) {
		FUZZ_CHECK(q.why && !q.enabled);
		return 0;
	}
	for (size_t i = HEAD; i + 3 <= len;)
		i += step(data + i, len - i);
	return 0;
}

/* ---- seeds ---- */
static size_t at;

static void write_at(uint8_t *buf, unsigned off, const void *p, size_t n)
{
	buf[at] = (uint8_t)(n << 3);
	buf[at + 1] = (uint8_t)off, buf[at + 2] = (uint8_t)(off >> 8);
	memcpy(buf + at + 3, p, n);
	at += 3 + n;
}

static void desc(uint8_t *buf, unsigned table, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, flags, next};

	write_at(buf, table + 16 * i, &d, sizeof d);
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const uint16_t avail[] = {0, 2, 0, 3};

	if (i > 3)
		return 0;
	at = HEAD;
	buf[0] = i == 1 ? 0xa1 : 0, buf[1] = 3, buf[2] = i >= 2 ? 3 : 0;
	desc(buf, DESC, 0, 0x8000, 16, 1, 1);
	desc(buf, DESC, 1, i == 1 ? 0x9800 : 0x8800, 0x1800, 3, 2);
	desc(buf, DESC, 2, 0xf000, 1, 2, 0);
	if (i == 2)
		desc(buf, DESC, 3, 0x5000, 32, 4, 0);
	else
		desc(buf, DESC, 3, 0x6000, 512, 2, 0);
	desc(buf, 0x5000, 0, 0x7000, 100, 1, 1);
	desc(buf, 0x5000, 1, 0x100000000, 100, 2, 0);
	write_at(buf, AVAIL, avail, sizeof avail);
	buf[at++] = 7;
	buf[at++] = 6, buf[at++] = 4, buf[at++] = 0;
	if (i == 3)
		buf[at++] = 2;
	buf[at++] = 7, buf[at++] = 3, buf[at++] = 0, buf[at++] = 3, buf[at++] = 0, buf[at++] = 4, buf[at++] = 5,
	buf[at++] = 7;
	return at;
}
