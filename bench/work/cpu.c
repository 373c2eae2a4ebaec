/*
 * Integer loops, calls and branches.
 *
 * Invariant: compiled without vectorisation; data fits the first-level cache, so
 * what is measured is instructions, not memory.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

#define EACH(n) for (uint64_t each_ = 0; each_ < (n); each_++)

static uint64_t run_sieve(uint64_t n)
{
	static uint8_t composite[8192];
	uint64_t count = 0;

	EACH(n)
	{
		count = 0;
		memset(composite, 0, sizeof(composite));
		for (unsigned i = 2; i < sizeof(composite); i++) {
			if (composite[i])
				continue;
			count++;
			for (unsigned j = i * 2; j < sizeof(composite); j += i)
				composite[j] = 1;
		}
	}
	return count;
}

static uint64_t run_collatz(uint64_t n)
{
	uint64_t steps = 0;

	EACH(n)
	{
		steps = 0;
		for (uint64_t start = 1; start < 200; start++)
			for (uint64_t v = start; v != 1; steps++)
				v = v & 1 ? 3 * v + 1 : v >> 1;
	}
	return steps;
}

static uint64_t run_matrix(uint64_t n)
{
	static int a[24][24], b[24][24], c[24][24];
	uint64_t sum = 0;

	EACH(n)
	{
		for (int i = 0; i < 24; i++)
			for (int j = 0; j < 24; j++) {
				a[i][j] = i * 7 + j;
				b[i][j] = i - j * 3;
			}
		for (int i = 0; i < 24; i++)
			for (int j = 0; j < 24; j++) {
				int s = 0;

				for (int k = 0; k < 24; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
		sum = c[3][5] + c[23][23];
	}
	return sum;
}

static uint8_t text[4096];

static void setup_text(void)
{
	uint64_t seed = 42;

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = "etaoin shrdlucmfwyp,vbgkjqxz.\n"[rnd_next(&seed) % 30];
}

static uint64_t run_hash(uint64_t n)
{
	uint64_t h = 0;

	EACH(n)
	{
		h = 0xcbf29ce484222325ull;
		for (unsigned i = 0; i < sizeof(text); i++)
			h = (h ^ text[i]) * 0x100000001b3ull;
	}
	return h;
}

static uint32_t crc_table[256];

static void setup_crc(void)
{
	setup_text();
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
		crc_table[i] = c;
	}
}

static uint64_t run_crc(uint64_t n)
{
	uint32_t c = 0;

	EACH(n)
	{
		c = ~0u;
		for (unsigned i = 0; i < sizeof(text); i++)
			c = crc_table[(c ^ text[i]) & 255] ^ (c >> 8);
	}
	return c;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t run_sort(uint64_t n)
{
	static uint32_t v[512];

	EACH(n)
	{
		uint64_t seed = 7;

		for (int i = 0; i < 512; i++)
			v[i] = rnd_next(&seed);
		qsort(v, 512, sizeof(v[0]), by_value);
	}
	return mix(v[0], v[511]);
}

static uint64_t run_branch(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		uint64_t seed = 99;

		sum = 0;
		for (int i = 0; i < 4000; i++) {
			uint64_t r = rnd_next(&seed);

			if (r & 1)
				sum += 3;
			else if (r & 2)
				sum ^= i;
			if (r & 4)
				sum = sum * 5 + 1;
			OPAQUE(sum);
		}
	}
	return sum;
}

static uint64_t run_divide(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		uint64_t seed = 5;

		sum = 0;
		for (int i = 0; i < 1000; i++) {
			uint64_t a = rnd_next(&seed), b = (rnd_next(&seed) & 0xffffff) | 1;

			sum += a / b + a % b;
			sum ^= (uint32_t)a / (uint32_t)b;
		}
	}
	return sum;
}

static uint64_t run_bignum(uint64_t n)
{
	uint64_t a[32], r[64];

	EACH(n)
	{
		uint64_t seed = 11;

		for (int i = 0; i < 32; i++)
			a[i] = rnd_next(&seed);
		memset(r, 0, sizeof(r));
		for (int i = 0; i < 32; i++) {
			unsigned __int128 carry = 0;

			for (int j = 0; j < 32; j++) {
				carry += (unsigned __int128)a[i] * a[j] + r[i + j];
				r[i + j] = carry;
				carry >>= 64;
			}
			r[i + 32] = carry;
		}
	}
	return mix(r[0], r[63]);
}

static uint64_t run_bits(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		uint64_t seed = 3;

		sum = 0;
		for (int i = 0; i < 2000; i++) {
			uint64_t x = rnd_next(&seed);

			sum += __builtin_ctzll(x) + __builtin_clzll(x);
			x = (x << (i & 63)) | (x >> (-i & 63));
			x -= (x >> 1) & 0x5555555555555555ull;
			x = (x & 0x3333333333333333ull) + ((x >> 2) & 0x3333333333333333ull);
			sum ^= __builtin_bswap64(x);
		}
	}
	return sum;
}

static inline uint32_t ror32(uint32_t v, int by)
{
	return v >> by | v << (32 - by);
}

/* Rounds in the shape of SHA-256's, with constants from the generator. */
static uint64_t run_rounds(uint64_t n)
{
	uint32_t s[8] = {0};

	EACH(n)
	{
		uint64_t seed = 77;

		for (int i = 0; i < 8; i++)
			s[i] = rnd_next(&seed);
		for (int i = 0; i < 512; i++) {
			uint32_t e = s[4], a = s[0];
			uint32_t t1 = s[7] + (ror32(e, 6) ^ ror32(e, 11) ^ ror32(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
				      text[i];
			uint32_t t2 =
				(ror32(a, 2) ^ ror32(a, 13) ^ ror32(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

			memmove(s + 1, s, 7 * sizeof(s[0]));
			s[4] += t1;
			s[0] = t1 + t2;
		}
	}
	return mix(s[0], s[7]);
}

static __attribute__((noinline)) uint64_t fib(uint64_t n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t run_fib(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		uint64_t arg = 16;

		OPAQUE(arg);
		v = fib(arg);
	}
	return v;
}

static __attribute__((noinline)) int tak(int x, int y, int z)
{
	return y >= x ? z : tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

static uint64_t run_tak(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		int x = 12;

		OPAQUE(x);
		v = tak(x, 8, 4);
	}
	return v;
}

static __attribute__((noinline)) uint64_t op_add(uint64_t a)
{
	return a + 3;
}
static __attribute__((noinline)) uint64_t op_xor(uint64_t a)
{
	return a ^ 0x55;
}
static __attribute__((noinline)) uint64_t op_rol(uint64_t a)
{
	return a << 1 | a >> 63;
}
static __attribute__((noinline)) uint64_t op_mul(uint64_t a)
{
	return a * 7;
}
static uint64_t (*volatile ops[4])(uint64_t) = {op_add, op_xor, op_rol, op_mul};

static uint64_t run_indirect(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		uint64_t seed = 21;

		v = 1;
		for (int i = 0; i < 1000; i++)
			v = ops[rnd_next(&seed) >> 62](v);
	}
	return v;
}

static __attribute__((noinline)) uint64_t leaf(uint64_t a, uint64_t b)
{
	OPAQUE(a);
	return a + b;
}

static uint64_t run_call(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 0;
		for (int i = 0; i < 2000; i++)
			v = leaf(v, i);
	}
	return v;
}

/* What a linker makes of a call into a library: to a jump through a table, 16 bytes an entry. */
static uint64_t (*volatile plt_slot)(uint64_t, uint64_t) __attribute__((used)) = leaf;
uint64_t plt_leaf(uint64_t a, uint64_t b);
__asm__(".text\n.p2align 4\n.type plt_leaf, @function\nplt_leaf:\n\tjmp *plt_slot(%rip)\n\t.size plt_leaf, . - plt_leaf\n");

static uint64_t run_plt(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		v = 0;
		for (int i = 0; i < 2000; i++)
			v = plt_leaf(v, i);
	}
	return v;
}

/* A small stack machine's program: sum of i * i mod 7 for i counting down from 300. */
enum { OP_PUSHI, OP_SQR, OP_MOD7, OP_ACC, OP_DEC, OP_JNZ, OP_END };
static const uint8_t program[] = {OP_PUSHI, OP_SQR, OP_MOD7, OP_ACC, OP_DEC, OP_JNZ, OP_END};

static uint64_t run_switch(uint64_t n)
{
	uint64_t acc = 0;

	EACH(n)
	{
		uint64_t i = 300, top = 0;
		const volatile uint8_t *pc = program;

		acc = 0;
		for (;;) {
			switch (*pc++) {
			case OP_PUSHI: top = i; continue;
			case OP_SQR: top *= top; continue;
			case OP_MOD7: top %= 7; continue;
			case OP_ACC: acc += top; continue;
			case OP_DEC: i--; continue;
			case OP_JNZ: pc = i ? program : pc; continue;
			}
			break;
		}
	}
	return acc;
}

static uint64_t run_goto(uint64_t n)
{
	static void *const labels[] = {&&pushi, &&sqr, &&mod7, &&accu, &&dec, &&jnz, &&end};
	uint64_t acc = 0;

	EACH(n)
	{
		uint64_t i = 300, top = 0;
		const volatile uint8_t *pc = program;

		acc = 0;
		goto *labels[*pc++];
	pushi:
		top = i;
		goto *labels[*pc++];
	sqr:
		top *= top;
		goto *labels[*pc++];
	mod7:
		top %= 7;
		goto *labels[*pc++];
	accu:
		acc += top;
		goto *labels[*pc++];
	dec:
		i--;
		goto *labels[*pc++];
	jnz:
		pc = i ? program : pc;
		goto *labels[*pc++];
	end:;
	}
	return acc;
}

static int place_queens(unsigned row, unsigned cols, unsigned left, unsigned right)
{
	int count = 0;

	if (row == 6)
		return 1;
	for (unsigned free = ~(cols | left | right) & 63; free; free &= free - 1) {
		unsigned bit = free & -free;

		count += place_queens(row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1);
	}
	return count;
}

static uint64_t run_queens(uint64_t n)
{
	uint64_t v = 0;

	EACH(n)
	{
		unsigned row = 0;

		OPAQUE(row);
		v = place_queens(row, 0, 0, 0);
	}
	return v;
}

static uint64_t run_lz(uint64_t n)
{
	static uint16_t last[4096];
	uint64_t matched = 0;

	EACH(n)
	{
		matched = 0;
		memset(last, 0, sizeof(last));
		for (unsigned i = 0; i + 4 < 2048; i++) {
			unsigned h = (text[i] << 8 ^ text[i + 1] << 4 ^ text[i + 2]) & 4095, from = last[h], k = 0;

			while (from && i + k < 2048 && text[from + k] == text[i + k])
				k++;
			matched += k;
			last[h] = i;
		}
	}
	return matched;
}

static __attribute__((noinline)) void thrower(jmp_buf env, int v)
{
	longjmp(env, v + 1);
}

static __attribute__((noinline)) int catch_throw(int v)
{
	jmp_buf env;
	int got = _setjmp(env);

	if (!got)
		thrower(env, v);
	return got;
}

static uint64_t run_longjmp(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		sum = 0;
		for (int i = 0; i < 200; i++)
			sum += catch_throw(i);
	}
	return sum;
}

const struct row cpu_rows[] = {
	{"cpu", "sieve", NULL, run_sieve, NULL},
	{"cpu", "collatz", NULL, run_collatz, NULL},
	{"cpu", "matrix", NULL, run_matrix, NULL},
	{"cpu", "hash", setup_text, run_hash, NULL},
	{"cpu", "crc", setup_crc, run_crc, NULL},
	{"cpu", "sort", NULL, run_sort, NULL},
	{"cpu", "branch", NULL, run_branch, NULL},
	{"cpu", "divide", NULL, run_divide, NULL},
	{"cpu", "bignum", NULL, run_bignum, NULL},
	{"cpu", "bits", NULL, run_bits, NULL},
	{"cpu", "rounds", setup_text, run_rounds, NULL},
	{"cpu", "lz", setup_text, run_lz, NULL},
	{"cpu", "queens", NULL, run_queens, NULL},
	{"cpu", "call", NULL, run_call, NULL},
	{"cpu", "plt", NULL, run_plt, NULL},
	{"cpu", "fib", NULL, run_fib, NULL},
	{"cpu", "tak", NULL, run_tak, NULL},
	{"cpu", "indirect", NULL, run_indirect, NULL},
	{"cpu", "longjmp", NULL, run_longjmp, NULL},
	{"cpu", "interp-switch", NULL, run_switch, NULL},
	{"cpu", "interp-goto", NULL, run_goto, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};
