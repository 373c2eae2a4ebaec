/*
 * AVX2 gathers against loops: every form, random masks and indices, and a fault half way.
 *
 * Invariant: after a fault the elements before it are there and their masks are
 * clear, so that the instruction, run again, finishes.
 */
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define AVX2 __attribute__((target("avx2")))

static int failures;
static volatile int faults;
static int32_t data32[4096];
static int64_t data64[4096];
static uint8_t *pages;

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	failures++;
	printf("gather: failed: %s\n", what);
}

/* A vector as a loop would gather it; bytes_i and bytes_e: of an index, of an element. */
static void by_loop(void *dst, const void *src, const void *index, const void *mask, const void *base, int bi, int be,
		    int n)
{
	memset(dst, 0, 32);
	for (int i = 0; i < n; i++) {
		int64_t at = bi == 8 ? ((const int64_t *)index)[i] : ((const int32_t *)index)[i];
		int on = ((const int8_t *)mask)[i * be + be - 1] < 0;

		memcpy((char *)dst + i * be, on ? (const char *)base + at * be : (const char *)src + i * be, be);
	}
}

static void fill(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = rand() >> 7;
}

#define ROUND(name, vec, call, load, bi, be, n, base)            \
	do {                                                     \
		uint8_t got[32] = {0}, want[32];                 \
		vec r = call;                                    \
                                                                 \
		memcpy(got, &r, sizeof(r));                      \
		by_loop(want, src, load, mask, base, bi, be, n); \
		expect(!memcmp(got, want, 32), name);            \
	} while (0)

#define V128(p) (*(__m128i *)(p))
#define V256(p) (*(__m256i *)(p))

AVX2 static void round_of_all(void)
{
	static uint8_t src[32] __attribute__((aligned(32))), mask[32] __attribute__((aligned(32)));
	static int32_t i32[8] __attribute__((aligned(32)));
	static int64_t i64[4] __attribute__((aligned(32)));
	int *p = (int *)(data32 + 2048);
	long long *q = (long long *)(data64 + 2048);

	fill(src, 32);
	fill(mask, 32);
	for (int i = 0; i < 8; i++)
		i32[i] = rand() % 4000 - 2000;
	for (int i = 0; i < 4; i++)
		i64[i] = rand() % 4000 - 2000;
	ROUND("vpgatherdd 128", __m128i, _mm_mask_i32gather_epi32(V128(src), p, V128(i32), V128(mask), 4), i32, 4, 4, 4,
	      p);
	ROUND("vpgatherdd 256", __m256i, _mm256_mask_i32gather_epi32(V256(src), p, V256(i32), V256(mask), 4), i32, 4, 4,
	      8, p);
	ROUND("vpgatherdq 128", __m128i, _mm_mask_i32gather_epi64(V128(src), q, V128(i32), V128(mask), 8), i32, 4, 8, 2,
	      q);
	ROUND("vpgatherdq 256", __m256i, _mm256_mask_i32gather_epi64(V256(src), q, V128(i32), V256(mask), 8), i32, 4, 8,
	      4, q);
	ROUND("vpgatherqd 128", __m128i, _mm_mask_i64gather_epi32(V128(src), p, V128(i64), V128(mask), 4), i64, 8, 4, 2,
	      p);
	ROUND("vpgatherqd 256", __m128i, _mm256_mask_i64gather_epi32(V128(src), p, V256(i64), V128(mask), 4), i64, 8, 4,
	      4, p);
	ROUND("vpgatherqq 128", __m128i, _mm_mask_i64gather_epi64(V128(src), q, V128(i64), V128(mask), 8), i64, 8, 8, 2,
	      q);
	ROUND("vpgatherqq 256", __m256i, _mm256_mask_i64gather_epi64(V256(src), q, V256(i64), V256(mask), 8), i64, 8, 8,
	      4, q);
}

static void on_segv(int sig, siginfo_t *si, void *uc)
{
	faults++;
	expect((uint8_t *)si->si_addr == pages + 4096 + 8, "address of the fault");
	mprotect(pages + 4096, 4096, PROT_READ);
	(void)sig;
	(void)uc;
}

/* Element 5 is on a page that cannot be read until the handler has been. */
AVX2 static void half_way(void)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	__m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 1026, 6, 7), r;
	int out[8];

	pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 2048; i++)
		((int *)pages)[i] = i * 3;
	mprotect(pages + 4096, 4096, PROT_NONE);
	sigaction(SIGSEGV, &sa, NULL);
	r = _mm256_i32gather_epi32((int *)pages, index, 4);
	memcpy(out, &r, sizeof(out));
	expect(faults == 1, "one fault");
	for (int i = 0; i < 8; i++)
		expect(out[i] == (i == 5 ? 1026 : i) * 3, "elements around a fault");
}

int main(void)
{
	if (!__builtin_cpu_supports("avx2")) {
		puts("gather: this CPU has no AVX2");
		return 0;
	}
	fill(data32, sizeof(data32));
	fill(data64, sizeof(data64));
	for (int i = 0; i < 200; i++)
		round_of_all();
	half_way();
	puts(failures ? "gather: FAILED" : "gather: passed");
	return failures != 0;
}
