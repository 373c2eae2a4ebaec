/*
 * What a guest's own JIT compiler does: code written, run, rewritten and run again.
 *
 * Invariant: no fences and no cpuid: x86 lets code be rewritten by its own thread
 * and run after a jump, and that is what is measured.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "work.h"

#define EACH(n) for (uint64_t each_ = 0; each_ < (n); each_++)
#define PAGE    4096
#define RWX     (PROT_READ | PROT_WRITE | PROT_EXEC)

typedef uint64_t (*code_fn)(uint64_t);

static uint8_t *arena, *writable;

static void *map(size_t bytes, int prot)
{
	void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	work_check(p != MAP_FAILED, "mmap");
	return p;
}

static void setup_rwx(void)
{
	arena = writable = map(256 * PAGE, RWX);
}

/* One memory file at two addresses: one to write by, one to run at. */
static void setup_alias(void)
{
	int fd = memfd_create("jit", 0);

	work_check(fd >= 0 && !ftruncate(fd, PAGE), "memfd");
	writable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	arena = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	work_check(writable != MAP_FAILED && arena != MAP_FAILED, "mmap");
}

static uint8_t *put(uint8_t *p, const void *bytes, size_t len)
{
	memcpy(p, bytes, len);
	return p + len;
}

/* lea rax, [rdi + imm32]; ret */
static uint8_t *put_add(uint8_t *p, uint32_t imm)
{
	p = put(p, "\x48\x8d\x87", 3);
	p = put(p, &imm, 4);
	return put(p, "\xc3", 1);
}

/* mov ecx, times; 1: imul rax, rdi, imm; add rdi, rax; dec ecx; jnz 1b; lea rax, [rdi]; ret */
static uint8_t *put_loop(uint8_t *p, uint32_t times, uint32_t imm)
{
	p = put(p, "\xb9", 1);
	p = put(p, &times, 4);
	p = put(p, "\x48\x69\xc7", 3);
	p = put(p, &imm, 4);
	return put(p, "\x48\x01\xc7\xff\xc9\x75\xf2\x48\x8d\x07\xc3", 11);
}

static uint64_t run(uint8_t *at, uint64_t arg)
{
	code_fn f = (code_fn)(uintptr_t)at;

	TOUCH();
	return f(arg);
}

/* One short function rewritten and called, over and over. */
static uint64_t run_rewrite(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 0;
		for (int i = 0; i < 8; i++) {
			put_add(writable, i * 3);
			v = run(arena, v);
		}
	}
	return v;
}

/* As rewrite, but what was written then loops 500 times. */
static uint64_t run_rewrite_loop(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 1;
		for (int i = 0; i < 4; i++) {
			put_loop(writable, 500, i + 3);
			v = run(arena, v);
		}
	}
	return v;
}

/* Only the immediate of an instruction in a longer function changes (an inline cache). */
static uint64_t run_patch(uint64_t n)
{
	uint64_t v = 0;
	uint32_t imm;

	for (int k = 0; k < 16; k++)
		put_add(writable + k * 16, k);
	EACH(n)
	{
		v = 0;
		for (uint32_t i = 0; i < 8; i++) {
			imm = i * 5;
			memcpy(writable + 3, &imm, 4);
			for (int k = 0; k < 16; k++)
				v = run(arena + k * 16, v);
		}
	}
	return v;
}

/* The running code counts in a word of its own page: inc qword [rip + 2041]; mov rax, [rip + ...]; ret */
static uint64_t run_same_page(uint64_t n)
{
	uint64_t v = 0;

	put(writable, "\x48\xff\x05\xf9\x07\x00\x00\x48\x8b\x05\xf2\x07\x00\x00\xc3", 15);
	EACH(n)
	{
		memset(writable + 2048, 0, 8);
		for (int i = 0; i < 100; i++)
			v = run(arena, 0);
	}
	return v;
}

/* Data next to the code (the next line of the same page) written by the caller. */
static uint64_t run_near_data(uint64_t n)
{
	volatile uint64_t *data = (uint64_t *)(writable + 64);
	uint64_t v = 0;

	put_add(writable, 1);
	EACH(n)
	{
		v = 0;
		for (int i = 0; i < 100; i++) {
			data[i & 7] = v;
			v = run(arena, data[i & 7]);
		}
	}
	return v;
}

/* New pages each time: map, fill with functions, call each once, unmap. */
static uint64_t run_fresh(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		uint8_t *p = map(4 * PAGE, RWX);

		v = 0;
		for (int i = 0; i < 32; i++)
			put_add(p + i * 512, i);
		for (int i = 0; i < 32; i++)
			v = run(p + i * 512, v);
		munmap(p, 4 * PAGE);
	}
	return v;
}

/* The same pages refilled with other functions, as a code cache that is recycled. */
static uint64_t run_refill(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 0;
		for (int round = 0; round < 2; round++) {
			uint8_t *p = writable;

			for (int i = 0; i < 64; i++)
				p = put_add(p, i + round);
			for (int i = 0; i < 64; i++)
				v = run(arena + i * 8, v);
		}
	}
	return v;
}

/* Never both writable and executable: mprotect between writing and running. */
static uint64_t run_flip(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 0;
		for (int i = 0; i < 4; i++) {
			mprotect(arena, PAGE, PROT_READ | PROT_WRITE);
			put_loop(arena, 50, i + 7);
			mprotect(arena, PAGE, PROT_READ | PROT_EXEC);
			v = run(arena, v + 1);
		}
	}
	return v;
}

/* A compiler of straight-line expressions: 200 functions emitted, each run 20 times. */
static uint64_t run_compile(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		uint64_t seed = 3;

		v = 0;
		for (int f = 0; f < 20; f++) {
			uint8_t *start = writable + f * 512, *p = put(start, "\x48\x89\xf8", 3); /* mov rax, rdi */

			for (int i = 0; i < 30; i++) {
				uint32_t r = rnd_next(&seed), imm = r >> 8;

				p = put(p, &"\x48\x05\x48\x35\x48\x2d"[r % 3 * 2], 2); /* add, xor, sub rax, imm */
				p = put(p, &imm, 4);
			}
			put(p, "\xc3", 1);
			for (int i = 0; i < 20; i++)
				v = run(arena + (start - writable), v);
		}
	}
	return v;
}

const struct row jit_rows[] = {
	{"jit", "rewrite", setup_rwx, run_rewrite, NULL},
	{"jit", "rewrite-loop", setup_rwx, run_rewrite_loop, NULL},
	{"jit", "patch", setup_rwx, run_patch, NULL},
	{"jit", "alias", setup_alias, run_rewrite, NULL},
	{"jit", "same-page", setup_rwx, run_same_page, NULL},
	{"jit", "near-data", setup_rwx, run_near_data, NULL},
	{"jit", "fresh", setup_rwx, run_fresh, NULL},
	{"jit", "refill", setup_rwx, run_refill, NULL},
	{"jit", "flip", setup_rwx, run_flip, NULL},
	{"jit", "compile", setup_rwx, run_compile, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};
