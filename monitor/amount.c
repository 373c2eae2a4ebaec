/*
 * The one parser of memory sizes and limits.  Invariant: all of the text is understood, or none of it.
 */
#include "monitor/amount.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define DECIMALS 6

/* The letter's power of 1024, 0 when there is none; *s moves past it.  -1 when it is none. */
static int unit_of(const char **s)
{
	static const char units[] = "KMGT";

	if (!**s)
		return 0;
	const char *u = strchr(units, toupper((unsigned char)**s));
	if (!u)
		return -1;
	(*s)++;
	if (toupper((unsigned char)(*s)[0]) == 'I' && toupper((unsigned char)(*s)[1]) == 'B')
		*s += 2;
	return (int)(u - units) + 1;
}

/* Digits after the point, as millionths. */
static int decimals(const char **s, uint64_t *millionths)
{
	int n = 0;

	for (*millionths = 0; isdigit((unsigned char)**s) && n < DECIMALS; (*s)++, n++)
		*millionths = *millionths * 10 + (uint64_t)(**s - '0');
	if (!n)
		return -EINVAL;
	for (; n < DECIMALS; n++)
		*millionths *= 10;
	return 0;
}

int amount_parse(const char *v, char unit, uint64_t max, uint64_t *out)
{
	uint64_t part = 0, whole;
	char *end;

	errno = 0;
	unsigned long long n = strtoull(v, &end, 10);
	if (!isdigit((unsigned char)v[0]))
		return -EINVAL;
	int range = errno;
	const char *s = end;
	bool point = *s == '.';
	if (point && (s++, decimals(&s, &part)))
		return -EINVAL;
	int power = unit_of(&s);
	if (power < 0 || *s || (point && !power))
		return -EINVAL;
	if (!power && unit)
		power = unit_of(&(const char *){(char[]){unit, 0}});
	if (range || __builtin_mul_overflow((uint64_t)n, 1ull << 10 * power, &whole) ||
	    __builtin_add_overflow(whole, (part << 10 * power) / 1000000, &whole) || whole > max)
		return -ERANGE;
	*out = whole;
	return 0;
}
