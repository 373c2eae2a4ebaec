/*
 * AVX-512 in a guest's programs: registers over system calls, switches and signals, gathers and scatters with a fault half way,
 * masked operands at the end of memory, copies across pages.
 *
 * Invariant: nothing here depends on how many faults or switches there are.
 */
#include <immintrin.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

static int failures;
static volatile int faults, ticks;
static uint8_t *pages; /* three: the last one cannot be touched until on_segv() has been */

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	failures++;
	printf("avx512: failed: %s\n", what);
}

/* zmm1, zmm9, zmm17, zmm31, k1 and k7 get values of @seed; a system call; they have them still. */
AVX512 static int keeps(uint64_t seed)
{
	uint64_t out[6][8] = {{0}}, ret = 24; /* sched_yield */

	__asm__ volatile("vpbroadcastq %2, %%zmm1\n\tvpbroadcastq %3, %%zmm9\n\tvpbroadcastq %4, %%zmm17\n\t"
			 "vpbroadcastq %5, %%zmm31\n\tkmovq %2, %%k1\n\tkmovq %5, %%k7\n\t"
			 "syscall\n\t"
			 "vmovdqu64 %%zmm1, (%1)\n\tvmovdqu64 %%zmm9, 64(%1)\n\tvmovdqu64 %%zmm17, 128(%1)\n\t"
			 "vmovdqu64 %%zmm31, 192(%1)\n\tkmovq %%k1, 256(%1)\n\tkmovq %%k7, 320(%1)"
			 : "+a"(ret)
			 : "r"(out), "r"(seed), "r"(seed + 1), "r"(seed + 2), "r"(seed + 3)
			 : "rcx", "r11", "memory", "xmm1", "xmm9", "xmm17", "xmm31", "k1", "k7");
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 8; k++)
			if (out[i][k] != seed + (uint64_t)i)
				return 0;
	return out[4][0] == seed && out[5][0] == seed + 3;
}

static void over_switches(void)
{
	pid_t pid = fork();
	int good = 1, ws;

	for (int i = 0; i < 3000; i++)
		good &= keeps((uint64_t)(pid ? i + 1 : -i) * 0x9e3779b97f4a7c15ull);
	if (pid == 0)
		_exit(!good);
	expect(good, "registers over a switch");
	expect(waitpid(pid, &ws, 0) == pid && ws == 0, "registers over a switch, the other process");
}

AVX512 static void on_tick(int sig)
{
	__asm__ volatile(
		"vpternlogd $0xff, %%zmm17, %%zmm17, %%zmm17\n\tvpxord %%zmm1, %%zmm1, %%zmm1\n\tkxnorq %%k1, %%k1, "
		"%%k1\n\tkxorq %%k7, %%k7, %%k7" ::
			: "xmm1", "xmm17", "k1", "k7");
	ticks++;
	(void)sig;
}

static void over_signals(void)
{
	struct itimerval it = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
	int good = 1;

	signal(SIGALRM, on_tick);
	setitimer(ITIMER_REAL, &it, NULL);
	for (uint64_t i = 1; ticks < 20; i++)
		good &= keeps(i * 0x9e3779b97f4a7c15ull);
	setitimer(ITIMER_REAL, &off, NULL);
	expect(good, "registers over a signal");
}

static void on_segv(int sig, siginfo_t *si, void *uc)
{
	faults++;
	expect((uint8_t *)si->si_addr == pages + 8192 + 8, "address of the fault");
	mprotect(pages + 8192, 4096, PROT_READ | PROT_WRITE);
	(void)sig;
	(void)uc;
}

/* Element 5 lies on the page that is not there. */
AVX512 static void half_way(void)
{
	__m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 2050, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), r;
	int *p = (int *)pages, out[16];

	for (int i = 0; i < 2048; i++)
		p[i] = i * 3;
	r = _mm512_i32gather_epi32(index, p, 4);
	_mm512_storeu_si512(out, r);
	for (int i = 0; i < 16; i++)
		expect(out[i] == (i == 5 ? 0 : i * 3), "elements around a fault");
	mprotect(pages + 8192, 4096, PROT_NONE);
	_mm512_mask_i32scatter_epi32(p, 0xfff5, index, _mm512_set1_epi32(-7), 4);
	for (int i = 0; i < 16; i++)
		expect(p[i == 5 ? 2050 : i] == (i == 1 || i == 3 ? i * 3 : -7), "scattered around a fault");
	mprotect(pages + 8192, 4096, PROT_NONE);
	expect(faults == 2, "two faults");
}

/* What the mask leaves out may lie on the page that is not there. */
AVX512 static void page_end(void)
{
	__m512i ones = _mm512_set1_epi8(1), r;
	uint8_t out[64];

	for (unsigned n = 0; n <= 64; n++) {
		uint8_t *p = pages + 8192 - n;
		__mmask64 k = n == 64 ? ~0ull : (1ull << n) - 1;

		memset(pages + 4096, 9, 4096);
		_mm512_mask_storeu_epi8(p, k, ones);
		r = _mm512_mask_loadu_epi8(_mm512_setzero_si512(), k, p);
		_mm512_storeu_si512(out, r);
		for (unsigned i = 0; i < 64; i++)
			expect(out[i] == (i < n), "a masked load at the end");
		expect(p[-1] == 9, "a masked store at the end");
		if (n % 4 == 0) {
			_mm512_mask_compressstoreu_epi32(
				p, (__mmask16)(n == 64 ? 0xffff : 0x5555 & ((1u << n / 2) - 1)), _mm512_set1_epi32(5));
			expect(n < 8 || p[0] == 5, "a compressed store at the end");
		}
	}
	expect(faults == 2, "no fault of what is masked");
}

AVX512 static void across(void)
{
	for (unsigned off = 4096 - 64; off <= 4096; off++) {
		for (unsigned i = 0; i < 8192; i++)
			pages[i] = (uint8_t)(i * 7 + off);
		__asm__ volatile(
			"vmovdqu8 (%0), %%zmm20\n\tvmovdqu64 %%zmm20, 1(%0)\n\tvmovdqu32 %%ymm20, 128(%0)" ::"r"(pages +
														 off)
			: "memory", "xmm20");
		for (unsigned i = 0; i < 64; i++)
			expect(pages[off + 1 + i] == (uint8_t)((off + i) * 7 + off), "64 bytes across pages");
	}
}

int main(void)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};

	if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
	    !__builtin_cpu_supports("avx512dq")) {
		puts("avx512: this CPU has none");
		return 0;
	}
	pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(pages + 8192, 4096, PROT_NONE);
	sigaction(SIGSEGV, &sa, NULL);
	over_switches();
	over_signals();
	half_way();
	page_end();
	across();
	puts(failures ? "avx512: FAILED" : "avx512: passed");
	return failures != 0;
}
