/*
 * Limits of a VM as they are written, and what follows from their numbers alone.  Invariant: a value that limits_set()
 * takes is one that LimitInfo and VmLimits carry; 0 is "none" everywhere.
 */
#include "monitor/limits.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/amount.h"
#include "monitor/devopt.h"

#define MEMORY_LEAST (1ull << 20)
#define MEMORY_MOST  (1ull << 50)
#define IO_KEY_MAX   32

static int bad(char *err, size_t len, const char *what, const char *v)
{
	snprintf(err, len, "%s: '%.200s'", what, v);
	return -EINVAL;
}

/* A number, with @suffix behind it or not. */
static int number(const char *v, const char *suffix, uint32_t least, uint32_t most, uint32_t *out)
{
	char *end;

	if (!strcmp(v, "none")) {
		*out = 0;
		return 0;
	}
	unsigned long n = strtoul(v, &end, 10);
	if (!isdigit((unsigned char)v[0]) || (*end && strcmp(end, suffix)) || n < least || n > most)
		return -EINVAL;
	*out = (uint32_t)n;
	return 0;
}

static int set_cpu(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	return number(v, "%", 1, MSG_CPU_MAX, &l->cpu) ? bad(err, len, "percent of a CPU, 1 to 100000, or none", v) : 0;
}

static int set_weight(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	return number(v, "", 1, MSG_WEIGHT_MAX, &l->weight) ? bad(err, len, "a weight is 1 to 10000, or none", v) : 0;
}

static int set_pids(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	return number(v, "", 1, MSG_PIDS_MAX, &l->pids) ? bad(err, len, "a number of processes and threads, or none", v)
							: 0;
}

static int set_merge(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	return number(v, "%", 1, MSG_MERGE_RATE_MAX, &l->merge) || !l->merge
		       ? bad(err, len, "merge-rate is 1 to 100, percent of a CPU", v)
		       : 0;
}

static int set_memory(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	uint64_t n = 0;

	if (strcmp(v, "none") && (amount_parse(v, 'M', MEMORY_MOST, &n) || n < MEMORY_LEAST))
		return bad(err, len, "an amount of memory from 1M, or none", v);
	l->memory = n & ~4095ull;
	return 0;
}

/* KEY=VALUE,... as of a disk; a number alone is bytes. */
static int set_io(struct msg_vm_limits *l, const char *v, char *err, size_t len)
{
	char text[256], why[200], *save = NULL;
	struct msg_dev_limits io = {0};
	uint32_t given = 0;

	if (snprintf(text, sizeof text, "%s%s", strchr(v, '=') || !strcmp(v, "none") ? "" : "bytes=", v) >=
	    (int)sizeof text)
		return bad(err, len, "too long", v);
	for (char *item = strtok_r(text, ",", &save); item && strcmp(v, "none"); item = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(item, '=');
		if (!eq)
			return bad(err, len, "a limit is KEY=VALUE", item);
		*eq = '\0';
		if (!strncmp(item, "packets", 7) || devopt_limit(&io, &given, item, eq + 1, why, sizeof why))
			return bad(err, len, "of ops, bytes, ops-burst and bytes-burst, each with a number or none", v);
	}
	l->io = io;
	return 0;
}

int limits_set(struct msg_vm_limits *l, const char *key, const char *value, char *err, size_t len)
{
	static const struct {
		const char *key;
		enum msg_vm_limit bit;
		int (*set)(struct msg_vm_limits *l, const char *v, char *err, size_t len);
	} keys[] = {{"cpu-limit", VM_LIMIT_CPU, set_cpu},
		    {"cpu-weight", VM_LIMIT_WEIGHT, set_weight},
		    {"memory-limit", VM_LIMIT_MEMORY, set_memory},
		    {"pids", VM_LIMIT_PIDS, set_pids},
		    {"io-limit", VM_LIMIT_IO, set_io},
		    {"merge-rate", VM_LIMIT_MERGE, set_merge}};

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		if (strcmp(key, keys[i].key))
			continue;
		int rc = keys[i].set(l, value, err, len);
		if (!rc)
			l->given |= keys[i].bit;
		return rc;
	}
	snprintf(err, len, "no such limit: '%.100s'", key);
	return -ENOENT;
}

void limits_change(struct msg_vm_limits *l, const struct msg_vm_limits *to)
{
	if (to->given & VM_LIMIT_CPU)
		l->cpu = to->cpu;
	if (to->given & VM_LIMIT_WEIGHT)
		l->weight = to->weight;
	if (to->given & VM_LIMIT_MEMORY)
		l->memory = to->memory;
	if (to->given & VM_LIMIT_PIDS)
		l->pids = to->pids;
	if (to->given & VM_LIMIT_MERGE)
		l->merge = to->merge;
	if (to->given & VM_LIMIT_IO)
		l->io = to->io;
	l->given |= to->given;
}

/* ---- CPUs of the host ---- */

static int one_range(struct limits_cpus *c, const char **v)
{
	char *end;
	unsigned long from = strtoul(*v, &end, 10), to = from;

	if (!isdigit((unsigned char)**v))
		return -EINVAL;
	if (*end == '-') {
		const char *s = end + 1;
		to = strtoul(s, &end, 10);
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
	}
	if (from > to || to >= LIMITS_CPUS)
		return -EINVAL;
	for (unsigned long i = from; i <= to; i++)
		c->bits[i / 64] |= 1ull << i % 64;
	*v = end;
	return 0;
}

int limits_cpus(struct limits_cpus *c, const char *value)
{
	const char *s = value;

	*c = (struct limits_cpus){0};
	for (;;) {
		if (one_range(c, &s))
			return -EINVAL;
		if (!*s)
			return 0;
		if (*s++ != ',')
			return -EINVAL;
	}
}

int limits_bind(const struct limits_cpus *c)
{
	cpu_set_t set;

	_Static_assert(CPU_SETSIZE == LIMITS_CPUS, "a bit each");
	CPU_ZERO(&set);
	for (unsigned i = 0; i < LIMITS_CPUS; i++)
		if (c->bits[i / 64] >> i % 64 & 1)
			CPU_SET(i, &set);
	return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}

/* ---- numbers ---- */

int limits_nice(uint32_t weight)
{
	uint64_t w = 100 * 1000; /* thousandths of a weight */
	int n = 0;

	if (!weight)
		return 0;
	for (; n < 19 && w > weight * 1118ull; n++) /* the nearer of two steps: a factor of the root of 1.25 */
		w = w * 4 / 5;
	for (; n <= 0 && n > -20 && w < weight * 894ull; n--)
		w = w * 5 / 4;
	return n;
}

static uint64_t share(uint64_t all, unsigned n)
{
	return all && n ? (all + n - 1) / n : 0;
}

struct msg_dev_limits limits_part(const struct msg_dev_limits *io, unsigned n)
{
	return (struct msg_dev_limits){.ops = share(io->ops, n),
				       .ops_burst = share(io->ops_burst, n),
				       .bytes = share(io->bytes, n),
				       .bytes_burst = share(io->bytes_burst, n)};
}
