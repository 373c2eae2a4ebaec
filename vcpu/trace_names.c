/*
 * Names of trace categories.  Apart from trace.c because the monitor parses
 * --trace with it and must not link the engine's side.
 */
#include "vcpu/trace.h"

#include <string.h>

static uint32_t category(const char *s, size_t n)
{
#define X(id, name, bit)                                   \
	if (n == sizeof #name - 1 && !memcmp(s, #name, n)) \
		return TRACE_##id;
	TRACE_CATEGORIES(X)
#undef X
	return n == 3 && !memcmp(s, "all", 3) ? TRACE_ALL : 0;
}

uint32_t trace_parse(const char *list)
{
	uint32_t mask = 0;

	for (;;) {
		size_t n = strcspn(list, ",");
		uint32_t bit = category(list, n);
		if (!bit)
			return 0;
		mask |= bit;
		if (!list[n])
			return mask;
		list += n + 1;
	}
}
