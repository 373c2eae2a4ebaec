/*
 * memcpy and friends without vector registers: glibc's would overwrite the
 * guest's vector state, which lives in the host's registers while our C runs.
 * Defined in the executable, they take precedence over the library's.
 */
#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* The string instructions take longer to start than most of what the engine copies and clears takes by words. */
#define SMALL 192
/* Keeps the compiler from making a call of the very function out of its loop. */
#define NO_IDIOM() __asm__ volatile("" : : : "memory")

/* From the first byte on, so the ranges may overlap when @d is the lower one. */
static void copy_up(char *d, const char *s, size_t n)
{
	unsigned long w;

	if (n > SMALL) {
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
		return;
	}
	for (; n >= 8; n -= 8, d += 8, s += 8) {
		__builtin_memcpy(&w, s, 8);
		__builtin_memcpy(d, &w, 8);
		NO_IDIOM();
	}
	for (; n; n--) {
		*d++ = *s++;
		NO_IDIOM();
	}
}

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	copy_up(dst, src, n);
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	char *d = dst;
	const char *s = src;

	if (d <= s || d >= s + n) {
		copy_up(d, s, n);
		return dst;
	}
	d += n - 1;
	s += n - 1;
	__asm__ volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	unsigned long w = 0x0101010101010101ul * (unsigned char)c;
	char *d = dst;

	if (n > SMALL) {
		__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
		return dst;
	}
	for (; n >= 8; n -= 8, d += 8) {
		__builtin_memcpy(d, &w, 8);
		NO_IDIOM();
	}
	for (; n; n--) {
		*d++ = (char)c;
		NO_IDIOM();
	}
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
