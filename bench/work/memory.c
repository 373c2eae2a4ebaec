/*
 * Memory: sequential, random, strided, dependent, and the library's copies.
 *
 * Invariant: an iteration touches the same addresses in the same order each time.
 */
#include <string.h>

#include "work.h"

#define EACH(n) for (uint64_t each_ = 0; each_ < (n); each_++)
#define BIG     (32u << 20)

static uint64_t *big, *other;

static void setup_big(void)
{
	uint64_t seed = 13;

	big = work_pages(BIG);
	other = work_pages(BIG);
	for (size_t i = 0; i < BIG / 8; i++)
		big[i] = rnd_next(&seed);
}

/* 256 KiB of a large array copied by plain 8-byte loads and stores; another part each time round. */
static uint64_t run_copy(uint64_t n)
{
	EACH(n)
	{
		size_t at = (each_ & 63) * 32768;

		for (size_t i = 0; i < 32768; i++) {
			other[at + i] = big[at + i];
			TOUCH();
		}
	}
	return mix(other[0], big[0]);
}

static uint64_t run_sum(uint64_t n)
{
	uint64_t s = 0;

	EACH(n)
	{
		s = 0;
		for (size_t i = 0; i < 32768; i++)
			s += big[i];
	}
	return s;
}

static uint64_t run_triad(uint64_t n)
{
	EACH(n)
	{
		for (size_t i = 0; i < 16384; i++)
			other[i] = big[i] * 3 + big[i + 16384];
		TOUCH();
	}
	return mix(other[0], other[16383]);
}

static uint64_t run_random_read(uint64_t n)
{
	uint64_t s = 0;

	EACH(n)
	{
		uint64_t at = 12345;

		s = 0;
		for (int i = 0; i < 2000; i++) {
			at = at * 6364136223846793005ull + 1442695040888963407ull;
			s += big[at >> 42];
		}
	}
	return s;
}

static uint64_t run_random_write(uint64_t n)
{
	uint64_t at = 0;

	EACH(n)
	{
		at = 54321;
		for (int i = 0; i < 2000; i++) {
			at = at * 6364136223846793005ull + 1442695040888963407ull;
			other[at >> 42] = at;
		}
	}
	return other[at >> 42];
}

static uint64_t stride(uint64_t n, size_t step, int count)
{
	uint64_t s = 0;

	EACH(n)
	{
		s = 0;
		for (int i = 0; i < count; i++)
			s += big[i * step];
	}
	return s;
}

static uint64_t run_stride_line(uint64_t n)
{
	return stride(n, 8, 4096);
}
static uint64_t run_stride_page(uint64_t n)
{
	return stride(n, 512 + 8, 4000);
}

/* A cycle through `count` lines of big in random order (Sattolo), one pointer a line. */
static void make_chain(size_t count)
{
	uint64_t seed = 9;
	size_t i, j, t, *order;

	big = work_pages(BIG);
	order = work_pages(count * sizeof(*order));
	for (i = 0; i < count; i++)
		order[i] = i;
	for (i = count - 1; i > 0; i--) {
		j = rnd_next(&seed) % i;
		t = order[i];
		order[i] = order[j];
		order[j] = t;
	}
	for (i = 0; i < count; i++)
		big[order[i] * 8] = order[(i + 1) % count] * 8;
}

static void setup_chain_l1(void)
{
	make_chain(256);
}
static void setup_chain_l2(void)
{
	make_chain(4096);
}
static void setup_chain_ram(void)
{
	make_chain(BIG / 64);
}

static uint64_t run_chase(uint64_t n)
{
	uint64_t at = 0;

	EACH(n)
	{
		at = 0;
		for (int i = 0; i < 1000; i++)
			at = big[at];
	}
	return at;
}

/* As run_chase, but goes on where it was, so that a long chain is really walked through. */
static uint64_t run_chase_on(uint64_t n)
{
	uint64_t at = 0, first = 0;

	EACH(n)
	{
		for (int i = 0; i < 1000; i++)
			at = big[at];
		first = each_ ? first : at;
	}
	OPAQUE(at);
	return first;
}

static uint64_t copies(uint64_t n, size_t bytes, int times)
{
	EACH(n)
	{
		for (int i = 0; i < times; i++) {
			memcpy((char *)other + i * 64, (char *)big + i * 128, bytes);
			TOUCH();
		}
	}
	return mix(other[0], other[bytes / 8 - 1]);
}

static uint64_t run_memcpy_64(uint64_t n)
{
	return copies(n, 64, 500);
}
static uint64_t run_memcpy_4k(uint64_t n)
{
	return copies(n, 4096, 50);
}
static uint64_t run_memcpy_1m(uint64_t n)
{
	return copies(n, 1 << 20, 1);
}

static uint64_t fills(uint64_t n, size_t bytes, int times)
{
	EACH(n)
	{
		for (int i = 0; i < times; i++) {
			memset((char *)other + i * 64, 0x5a, bytes);
			TOUCH();
		}
	}
	return mix(other[0], other[bytes / 8 - 1]);
}

static uint64_t run_memset_256(uint64_t n)
{
	return fills(n, 256, 500);
}
static uint64_t run_memset_1m(uint64_t n)
{
	return fills(n, 1 << 20, 1);
}

static uint64_t run_rep_movs(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 50; i++) {
			void *d = other, *s = big + i;
			size_t c = 4096;

			__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c)::"memory");
		}
	}
	return mix(other[0], other[511]);
}

static uint64_t run_rep_stos(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 50; i++) {
			void *d = other + i;
			size_t c = 512;

			__asm__ volatile("rep stosq" : "+D"(d), "+c"(c) : "a"(0x1122334455667788ull) : "memory");
		}
	}
	return mix(other[0], other[511]);
}

static void setup_string(void)
{
	other = work_pages(BIG);
	memset(other, 'x', 65536);
	((char *)other)[40000] = 0;
}

static uint64_t run_strlen(uint64_t n)
{
	uint64_t s = 0;

	EACH(n)
	{
		s = 0;
		for (int i = 0; i < 8; i++) {
			const char *p = (char *)other + i * 1000;

			OPAQUE(p);
			s += strlen(p) + ((char *)memchr(p, 0, 65000) - p);
		}
	}
	return s;
}

static uint64_t run_histogram(uint64_t n)
{
	static uint32_t count[256];

	EACH(n)
	{
		memset(count, 0, sizeof(count));
		for (int i = 0; i < 32768; i++)
			count[((uint8_t *)big)[i]]++;
	}
	return mix(count[0], count[255]);
}

static uint64_t run_hashtable(uint64_t n)
{
	uint64_t found = 0;

	EACH(n)
	{
		memset(other, 0, 65536);
		found = 0;
		for (int i = 0; i < 2000; i++) {
			uint64_t key = big[i % 1500] | 1, h = key * 0x9e3779b97f4a7c15ull >> 51;

			while (other[h] && other[h] != key)
				h = (h + 1) & 8191;
			found += other[h] == key;
			other[h] = key;
		}
	}
	return found;
}

/* Loads and stores that straddle lines and pages. */
static uint64_t run_unaligned(uint64_t n)
{
	uint64_t s = 0, v;

	EACH(n)
	{
		s = 0;
		for (int i = 1; i < 1000; i++) {
			char *p = (char *)big + i * 64 - 3;

			memcpy(&v, p, 8);
			s += v;
			memcpy((char *)other + i * 4096 - 5, &s, 8);
			TOUCH();
		}
	}
	return s;
}

const struct row memory_rows[] = {
	{"memory", "copy", setup_big, run_copy, NULL},
	{"memory", "sum", setup_big, run_sum, NULL},
	{"memory", "triad", setup_big, run_triad, NULL},
	{"memory", "random-read", setup_big, run_random_read, NULL},
	{"memory", "random-write", setup_big, run_random_write, NULL},
	{"memory", "stride-line", setup_big, run_stride_line, NULL},
	{"memory", "stride-page", setup_big, run_stride_page, NULL},
	{"memory", "chase-l1", setup_chain_l1, run_chase, NULL},
	{"memory", "chase-l2", setup_chain_l2, run_chase_on, NULL},
	{"memory", "chase-ram", setup_chain_ram, run_chase_on, NULL},
	{"memory", "memcpy-64", setup_big, run_memcpy_64, NULL},
	{"memory", "memcpy-4k", setup_big, run_memcpy_4k, NULL},
	{"memory", "memcpy-1m", setup_big, run_memcpy_1m, NULL},
	{"memory", "memset-256", setup_big, run_memset_256, NULL},
	{"memory", "memset-1m", setup_big, run_memset_1m, NULL},
	{"memory", "rep-movs", setup_big, run_rep_movs, NULL},
	{"memory", "rep-stos", setup_big, run_rep_stos, NULL},
	{"memory", "strlen", setup_string, run_strlen, NULL},
	{"memory", "histogram", setup_big, run_histogram, NULL},
	{"memory", "hashtable", setup_big, run_hashtable, NULL},
	{"memory", "unaligned", setup_big, run_unaligned, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};
