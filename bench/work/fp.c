/*
 * Floating point (SSE scalar, x87) and SIMD (SSE2, SSSE3, AVX2, FMA, AES, CRC32).
 *
 * Invariant: only operations that IEEE 754 or the manual defines to the last bit
 * (no transcendental instructions, no fast-math), so results compare exactly.
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "work.h"

#define EACH(n) for (uint64_t each_ = 0; each_ < (n); each_++)
#define AVX2    __attribute__((target("avx2,fma")))

static uint64_t bits_of(double d)
{
	uint64_t v;

	memcpy(&v, &d, sizeof(v));
	return v;
}

static uint64_t run_matmul(uint64_t n)
{
	static double a[20][20], b[20][20], c[20][20];

	EACH(n)
	{
		for (int i = 0; i < 20; i++)
			for (int j = 0; j < 20; j++) {
				a[i][j] = i * 0.5 + j;
				b[i][j] = i - j * 0.25;
			}
		for (int i = 0; i < 20; i++)
			for (int j = 0; j < 20; j++) {
				double s = 0;

				for (int k = 0; k < 20; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
	}
	return bits_of(c[7][11] + c[19][19]);
}

static uint64_t run_mandel(uint64_t n)
{
	uint64_t count = 0;

	EACH(n)
	{
		count = 0;
		for (int py = 0; py < 12; py++)
			for (int px = 0; px < 16; px++) {
				double x = 0, y = 0, cx = px * 0.15 - 1.8, cy = py * 0.18 - 1.0;
				int i;

				for (i = 0; i < 50 && x * x + y * y < 4; i++) {
					double t = x * x - y * y + cx;

					y = 2 * x * y + cy;
					x = t;
				}
				count += i;
			}
	}
	return count;
}

static uint64_t run_nbody(uint64_t n)
{
	double p[5][3], v[5][3];

	EACH(n)
	{
		for (int i = 0; i < 5; i++)
			for (int k = 0; k < 3; k++) {
				p[i][k] = i * 1.5 + k * 0.7;
				v[i][k] = 0.01 * (i - k);
			}
		for (int step = 0; step < 20; step++)
			for (int i = 0; i < 5; i++) {
				for (int j = i + 1; j < 5; j++) {
					double d[3], r2 = 0.01, m;

					for (int k = 0; k < 3; k++) {
						d[k] = p[i][k] - p[j][k];
						r2 += d[k] * d[k];
					}
					m = 0.001 / (r2 * __builtin_sqrt(r2));
					for (int k = 0; k < 3; k++) {
						v[i][k] -= d[k] * m;
						v[j][k] += d[k] * m;
					}
				}
				for (int k = 0; k < 3; k++)
					p[i][k] += 0.001 * v[i][k];
			}
	}
	return bits_of(p[0][0] + p[4][2]);
}

static uint64_t run_divsqrt(uint64_t n)
{
	double s = 0;

	EACH(n)
	{
		s = 0;
		for (int i = 1; i < 500; i++)
			s += __builtin_sqrt(i * 1.25) / (i + 0.5);
	}
	return bits_of(s);
}

static uint64_t run_float32(uint64_t n)
{
	float s = 0;

	EACH(n)
	{
		s = 0;
		for (int i = 1; i < 2000; i++) {
			s = s * 0.75f + (float)i * 1.125f;
			OPAQUE(i);
		}
	}
	return bits_of(s);
}

static uint64_t run_convert(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		uint64_t seed = 17;

		sum = 0;
		for (int i = 0; i < 1000; i++) {
			int64_t v = (int64_t)rnd_next(&seed) >> 20;
			double d = (double)v * 1.5;
			float f = (float)d;

			sum += (int64_t)d ^ (int64_t)f;
			sum += d > f;
		}
	}
	return sum;
}

static uint64_t run_x87(uint64_t n)
{
	long double s = 0;

	EACH(n)
	{
		s = 1;
		for (int i = 1; i < 1000; i++)
			s = s * 0.999L + 1.0L / (long double)i;
	}
	return bits_of((double)s);
}

static uint64_t run_poly(uint64_t n)
{
	double s = 0;

	EACH(n)
	{
		s = 0;
		for (int i = 0; i < 400; i++) {
			double x = i * 0.0078125;

			s += x - x * x * x * (1.0 / 6 - x * x * (1.0 / 120 - x * x * (1.0 / 5040)));
		}
	}
	return bits_of(s);
}

static int32_t va[1024], vb[1024], vc[1024];
static float fa[1024], fb[1024];

static void setup_vectors(void)
{
	uint64_t seed = 31;

	for (int i = 0; i < 1024; i++) {
		va[i] = rnd_next(&seed);
		vb[i] = rnd_next(&seed);
		fa[i] = (va[i] & 0xffff) * 0.5f;
		fb[i] = (vb[i] & 0xffff) * 0.25f;
	}
}

static uint64_t fold(const void *p)
{
	const uint64_t *v = p;

	return mix(mix(v[0], v[1]), v[511]);
}

static uint64_t run_sse_int(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 1024; i += 4) {
			__m128i a = _mm_loadu_si128((__m128i *)(va + i)), b = _mm_loadu_si128((__m128i *)(vb + i));
			__m128i m = _mm_cmpgt_epi32(a, b);

			a = _mm_add_epi32(_mm_slli_epi32(a, 3), _mm_mul_epu32(a, b));
			a = _mm_xor_si128(_mm_and_si128(m, a), _mm_andnot_si128(m, b));
			_mm_storeu_si128((__m128i *)(vc + i), _mm_shuffle_epi32(a, 0x1b));
		}
		TOUCH();
	}
	return fold(vc);
}

static uint64_t run_sse_float(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 1024; i += 4) {
			__m128 a = _mm_loadu_ps(fa + i), b = _mm_loadu_ps(fb + i);

			a = _mm_add_ps(_mm_mul_ps(a, b), _mm_min_ps(a, b));
			_mm_storeu_ps((float *)vc + i, _mm_sub_ps(a, _mm_sqrt_ps(b)));
		}
		TOUCH();
	}
	return fold(vc);
}

static uint64_t run_sse_double(uint64_t n)
{
	__m128d s = _mm_setzero_pd();

	EACH(n)
	{
		s = _mm_setzero_pd();
		for (int i = 0; i < 1024; i += 4) {
			__m128d a = _mm_cvtps_pd(_mm_loadu_ps(fa + i)), b = _mm_cvtps_pd(_mm_loadu_ps(fb + i));

			s = _mm_add_pd(s, _mm_mul_pd(a, b));
		}
	}
	return bits_of(_mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s))));
}

static int has_ssse3(void)
{
	return __builtin_cpu_supports("ssse3");
}
static int has_sse42(void)
{
	return __builtin_cpu_supports("sse4.2");
}
static int has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int has_aes(void)
{
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

__attribute__((target("ssse3"))) static uint64_t run_shuffle(uint64_t n)
{
	const __m128i order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);

	EACH(n)
	{
		for (int i = 0; i < 1024; i += 4) {
			__m128i a = _mm_shuffle_epi8(_mm_loadu_si128((__m128i *)(va + i)), order);

			a = _mm_alignr_epi8(a, _mm_abs_epi8(a), 5);
			_mm_storeu_si128((__m128i *)(vc + i), _mm_maddubs_epi16(a, order));
		}
		TOUCH();
	}
	return fold(vc);
}

AVX2 static uint64_t run_avx2_int(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 1024; i += 8) {
			__m256i a = _mm256_loadu_si256((__m256i *)(va + i)),
				b = _mm256_loadu_si256((__m256i *)(vb + i));

			a = _mm256_add_epi32(_mm256_mullo_epi32(a, b), _mm256_srlv_epi32(a, _mm256_srli_epi32(b, 28)));
			_mm256_storeu_si256((__m256i *)(vc + i), _mm256_permute4x64_epi64(a, 0x4e));
		}
		TOUCH();
	}
	return fold(vc);
}

AVX2 static uint64_t run_avx2_float(uint64_t n)
{
	EACH(n)
	{
		for (int i = 0; i < 1024; i += 8) {
			__m256 a = _mm256_loadu_ps(fa + i), b = _mm256_loadu_ps(fb + i);

			a = _mm256_fmadd_ps(a, b, _mm256_max_ps(a, b));
			_mm256_storeu_ps((float *)vc + i,
					 _mm256_blend_ps(a, _mm256_div_ps(a, _mm256_add_ps(b, b)), 0x55));
		}
		TOUCH();
	}
	return fold(vc);
}

AVX2 static uint64_t run_avx2_bytes(uint64_t n)
{
	uint64_t hits = 0;

	EACH(n)
	{
		const __m256i what = _mm256_set1_epi8(0x41);

		hits = 0;
		for (int i = 0; i < 1024; i += 8) {
			__m256i a = _mm256_loadu_si256((__m256i *)(va + i));

			hits += (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, what), what));
		}
	}
	return hits;
}

AVX2 static uint64_t run_gather(uint64_t n)
{
	__m256i s = _mm256_setzero_si256();
	uint64_t out[4];

	EACH(n)
	{
		s = _mm256_setzero_si256();
		for (int i = 0; i < 1024; i += 8) {
			__m256i at = _mm256_and_si256(_mm256_loadu_si256((__m256i *)(va + i)), _mm256_set1_epi32(1023));

			s = _mm256_add_epi32(s, _mm256_i32gather_epi32(vb, at, 4));
		}
	}
	_mm256_storeu_si256((__m256i *)out, s);
	return mix(out[0], out[3]);
}

__attribute__((target("aes,pclmul,sse4.1"))) static uint64_t run_aes(uint64_t n)
{
	__m128i s = _mm_setzero_si128();

	EACH(n)
	{
		__m128i key = _mm_loadu_si128((__m128i *)vb);

		s = _mm_loadu_si128((__m128i *)va);
		for (int i = 0; i < 256; i++) {
			s = _mm_aesenc_si128(s, key);
			s = _mm_aesenc_si128(s, _mm_aeskeygenassist_si128(key, 7));
			s = _mm_xor_si128(_mm_clmulepi64_si128(s, key, 0x11), s);
		}
	}
	return mix(_mm_cvtsi128_si64(s), _mm_extract_epi64(s, 1));
}

__attribute__((target("sse4.2"))) static uint64_t run_crc32(uint64_t n)
{
	uint64_t c = 0;

	EACH(n)
	{
		c = ~0u;
		for (int i = 0; i < 1024; i += 2)
			c = _mm_crc32_u64(c, *(const uint64_t *)(va + i));
	}
	return c;
}

const struct row fp_rows[] = {
	{"fp", "matmul", NULL, run_matmul, NULL},
	{"fp", "mandel", NULL, run_mandel, NULL},
	{"fp", "nbody", NULL, run_nbody, NULL},
	{"fp", "divsqrt", NULL, run_divsqrt, NULL},
	{"fp", "float32", NULL, run_float32, NULL},
	{"fp", "convert", NULL, run_convert, NULL},
	{"fp", "poly", NULL, run_poly, NULL},
	{"fp", "x87", NULL, run_x87, NULL},
	{"fp", "sse-int", setup_vectors, run_sse_int, NULL},
	{"fp", "sse-float", setup_vectors, run_sse_float, NULL},
	{"fp", "sse-double", setup_vectors, run_sse_double, NULL},
	{"fp", "ssse3-shuffle", setup_vectors, run_shuffle, has_ssse3},
	{"fp", "avx2-int", setup_vectors, run_avx2_int, has_avx2},
	{"fp", "avx2-float", setup_vectors, run_avx2_float, has_avx2},
	{"fp", "avx2-bytes", setup_vectors, run_avx2_bytes, has_avx2},
	{"fp", "avx2-gather", setup_vectors, run_gather, has_avx2},
	{"fp", "aes", setup_vectors, run_aes, has_aes},
	{"fp", "crc32", setup_vectors, run_crc32, has_sse42},
	{NULL, NULL, NULL, NULL, NULL},
};
