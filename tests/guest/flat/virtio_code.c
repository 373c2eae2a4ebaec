/*
 * A disk that overwrites code (hvx-internals(7), "Disks and network cards"): the guest runs code on a page, lets
 * the disk read other code into it, and runs it again as soon as the used ring says so.  It must never see the old code.
 *
 * That these checks can fail was seen by hand: with virtio_dev_wrote() (devices/virtio_dev.c) returning at once, each of the
 * first four fails in most of its rounds; tests/unit/test_device.c looks at the order of the single steps.
 * Invariant: every piece of code returns the number of the disk block it came from.
 */
#include "vio.h"

#define PAGE   4096u
#define BLOCKS 200u
#define ROUNDS 4000u

static struct vio disk;
static uint8_t code[2][PAGE] __attribute__((aligned(4096)));
static uint8_t image[PAGE] __attribute__((aligned(4096)));

/* mov eax, @n; ret */
static void put_code(uint8_t *p, uint32_t n)
{
	p[0] = 0xb8;
	memcpy(p + 1, &n, 4);
	p[5] = 0xc3;
}

static uint32_t run(const uint8_t *p)
{
	uint32_t (*volatile fn)(void) = (uint32_t(*)(void))(word)p;

	return fn();
}

/* Block @n of the disk: code at the begin of each sector, and across the middle of it. */
static bool make_disk(void)
{
	bool ok = true;

	for (uint32_t n = 0; n < BLOCKS; n++) {
		memset(image, 0xcc, PAGE);
		for (unsigned s = 0; s < PAGE; s += 512) {
			put_code(image + s, n);
			put_code(image + s + 256 - 3, n);
		}
		ok &= vio_io(&disk, VB_OUT, 8 * n, image, PAGE) == 0;
	}
	return ok;
}

static uint32_t rng = 12345;

static uint32_t pick(uint32_t n)
{
	rng = rng * 1664525u + 1013904223u;
	return (rng >> 8) % n;
}

static void whole_pages(void)
{
	struct batch b = {.name = "a page of code, read anew"};

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t n = pick(BLOCKS);
		bool io = vio_io(&disk, VB_IN, 8 * n, code[0], PAGE) == 0;
		uint32_t got = run(code[0]), again = run(code[0] + 1024);
		batch_case(&b, io && got == n && again == n, "round %u: %u and %u instead of %u", i, got, again, n);
	}
	batch_end(&b);
}

/* A sector of the page: the code beside it stays as it was. */
static void parts(void)
{
	struct batch b = {.name = "a sector of a page of code"};
	uint32_t want[8];

	for (unsigned s = 0; s < 8; s++)
		want[s] = 0;
	vio_io(&disk, VB_IN, 0, code[0], PAGE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t n = pick(BLOCKS), s = pick(8);
		bool ok = vio_io(&disk, VB_IN, 8 * n + s, code[0] + 512 * s, 512) == 0;
		want[s] = n;
		for (unsigned k = 0; k < 8; k++)
			ok &= run(code[0] + 512 * k) == want[k] && run(code[0] + 512 * k + 253) == want[k];
		batch_case(&b, ok, "round %u: sector %u", i, s);
	}
	batch_end(&b);
}

/* An instruction that begins on one page and ends on the other; the disk writes the second only. */
static void across(void)
{
	struct batch b = {.name = "code across two pages"};
	uint8_t *p = code[1] - 3; /* b8 and two bytes of the number | the rest of it, c3 */
	unsigned at = 8 * BLOCKS;
	bool ok = true;

	for (unsigned i = 0; i < 64; i++) {
		memset(image, 0xcc, 512);
		image[0] = (uint8_t)i;
		image[1] = 0;
		image[2] = 0xc3;
		ok &= vio_io(&disk, VB_OUT, at + i, image, 512) == 0;
	}
	batch_case(&b, ok, "cannot write");
	put_code(p, 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t n = pick(64);
		bool io = vio_io(&disk, VB_IN, at + n, code[1], 512) == 0;
		uint32_t got = run(p);
		batch_case(&b, io && got == n << 16, "round %u: %#x instead of %#x", i, got, n << 16);
	}
	batch_end(&b);
}

/*
 * The loop that waits for the used ring is code of the same page, and jumps straight into the new code:
 * 1: movzx eax, word [rdi]; cmp ax, si; jne 1b; jmp page + 2048
 */
static void beside(void)
{
	static const uint8_t wait[] = {0x0f, 0xb7, 0x07, 0x66, 0x39, 0xf0, 0x75, 0xf8, 0xe9};
	struct batch b = {.name = "the loop that waits beside the code"};
	int32_t to = 2048 - 256 - (int)sizeof wait - 4;

	vio_io(&disk, VB_IN, 0, code[0], PAGE);
	memcpy(code[0] + 256, wait, sizeof wait);
	memcpy(code[0] + 256 + sizeof wait, &to, 4);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t n = pick(BLOCKS), got = ~0u;
		word used = (word)&disk.r->used.idx, idx = (uint16_t)(disk.seen + 1);
		vio_request(&disk, 0, VB_IN, 8 * n + 4, code[0] + 2048, 512);
		vio_kick(&disk);
		__asm__ volatile("call *%3" : "=a"(got) : "D"(used), "S"(idx), "r"(code[0] + 256) : "memory", "cc");
		disk.seen++;
		batch_case(&b, got == n, "round %u: %u instead of %u", i, got, n);
	}
	batch_end(&b);
}

/* The code runs, and is translated again and again, while the disk writes: whatever it was then, once done it is the new. */
static void during(void)
{
	struct batch b = {.name = "code that runs while it is read"};
	unsigned runs = 0;

	vio_io(&disk, VB_IN, 0, code[0], PAGE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t n = pick(BLOCKS), turn = 0;
		uint16_t idx = (uint16_t)++disk.seen;
		vio_request(&disk, 0, VB_IN, 8 * n, code[0], PAGE);
		vio_kick(&disk);
		for (; disk.r->used.idx != idx; runs++)
			run(code[0] + turn++ % 8 * 512);
		uint32_t got = run(code[0] + i % 8 * 512);
		batch_case(&b, got == n, "round %u: %u instead of %u", i, got, n);
	}
	batch_end(&b);
	check("it did run", runs > ROUNDS, "%u times", runs);
}

/* What the order costs: reads of a page into code that has run since, and into memory that never held any. */
static void cost(void)
{
	static uint8_t data[PAGE] __attribute__((aligned(4096)));
	uint64_t sum[2] = {0, 0};
	uint32_t khz, b, c, d;

	cpuid(0x40000010, 0, &khz, &b, &c, &d);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t t0 = rdtsc();
		vio_io(&disk, VB_IN, 8 * pick(BLOCKS), i & 1 ? data : code[0], PAGE);
		sum[i & 1] += rdtsc() - t0;
		run(code[0]);
	}
	print("# a read of a page into code: %u us, into data: %u us on the average\n", (unsigned)(sum[0] / khz),
	      (unsigned)(sum[1] / khz));
}

void flat_main(void)
{
	if (!vio_find(&disk, 1)) {
		skip("virtio_code", "no disk");
		return;
	}
	check("opens", vio_open(&disk, ~0ull), "status %#x", V8(disk.common + VC_STATUS));
	check("the disk is full of code", make_disk(), "a write failed");
	whole_pages();
	parts();
	across();
	beside();
	during();
	if (cpu.hvx)
		cost();
}
