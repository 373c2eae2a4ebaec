/*
 * Rows of `top`.  Invariant: a VM that was started anew between two looks shows no negative and no giant rate.
 */
#include "monitor/usage.h"

#include <stdlib.h>
#include <string.h>

#include "monitor/procinfo.h"

#define PAGE 4096

/* Does @name, an id, a dot and a counter, end so? */
static bool is(const char *name, const char *counter)
{
	const char *dot = strrchr(name, '.');

	return dot && !strcmp(dot + 1, counter);
}

void usage_of(struct usage *u, const struct msg_status *s, const struct msg_counters *c)
{
	*u = (struct usage){.nominal = s->ram_size};
	snprintf(u->name, sizeof u->name, "%s", s->name);
	snprintf(u->state, sizeof u->state, "%s", s->state);
	for (uint32_t i = 0; i < s->nprocs; i++)
		u->cpu_ns += procinfo_cpu((pid_t)s->proc[i].pid);
	for (uint32_t i = 0; i < c->n; i++) {
		const char *name = c->c[i].name;
		uint64_t v = c->c[i].value;
		if (!strcmp(name, "ram_host_bytes"))
			u->resident = v;
		else if (!strcmp(name, "merge.pages_sharing"))
			u->shared = v * PAGE;
		else if (is(name, "read_bytes") || is(name, "written_bytes"))
			u->disk += v;
		else if (is(name, "rx_bytes") || is(name, "tx_bytes"))
			u->net += v;
	}
}

static uint64_t rate(uint64_t before, uint64_t now, uint64_t unit, uint64_t ns)
{
	if (now < before || !ns)
		return 0;
	return (uint64_t)((unsigned __int128)(now - before) * unit / ns);
}

void usage_row(struct usage_row *r, const struct usage *before, const struct usage *now, uint64_t ns)
{
	r->now = *now;
	r->cpu = before ? rate(before->cpu_ns, now->cpu_ns, 10000, ns) : 0;
	r->disk = before ? rate(before->disk, now->disk, 1000000000, ns) : 0;
	r->net = before ? rate(before->net, now->net, 1000000000, ns) : 0;
}

static uint64_t value(const struct usage_row *r, enum usage_key by)
{
	switch (by) {
	case USAGE_CPU: return r->cpu;
	case USAGE_MEMORY: return r->now.resident;
	case USAGE_DISK: return r->disk;
	case USAGE_NET: return r->net;
	default: return 0;
	}
}

static int compare(const void *a, const void *b, void *by)
{
	const struct usage_row *x = a, *y = b;
	uint64_t v = value(x, *(enum usage_key *)by), w = value(y, *(enum usage_key *)by);

	return v != w ? (v < w) - (v > w) : strcmp(x->now.name, y->now.name);
}

void usage_sort(struct usage_row *rows, unsigned n, enum usage_key by)
{
	qsort_r(rows, n, sizeof *rows, compare, &by);
}

bool usage_key(char c, enum usage_key *by)
{
	static const char keys[] = {
		[USAGE_NAME] = 'a', [USAGE_CPU] = 'c', [USAGE_MEMORY] = 'm', [USAGE_DISK] = 'd', [USAGE_NET] = 'n'};
	const char *k = memchr(keys, c, sizeof keys);

	if (k)
		*by = (enum usage_key)(k - keys);
	return k;
}

void usage_header(FILE *f)
{
	fprintf(f, "%-20s %-8s %7s %9s %9s %9s %10s %10s\n", "NAME", "STATE", "CPU%", "NOMINAL", "RESIDENT", "SHARED",
		"DISK/S", "NET/S");
}

/* "512", "1.5M": at most 7 characters. */
static const char *amount(uint64_t n, char *buf, size_t len)
{
	static const char units[] = "BKMGTPE";
	uint64_t tenths = n;
	unsigned u = 0;

	if (n < 1024) {
		snprintf(buf, len, "%u", (unsigned)n);
		return buf;
	}
	for (; n >= 1024; n /= 1024, u++)
		tenths = n;
	snprintf(buf, len, "%u.%u%c", (unsigned)n, (unsigned)(tenths % 1024 * 10 / 1024), units[u]);
	return buf;
}

void usage_print(FILE *f, const struct usage_row *r)
{
	char a[5][16];

	fprintf(f, "%-20.20s %-8.8s %4llu.%02u %9s %9s %9s %10s %10s\n", r->now.name, r->now.state,
		(unsigned long long)(r->cpu / 100), (unsigned)(r->cpu % 100), amount(r->now.nominal, a[0], sizeof a[0]),
		amount(r->now.resident, a[1], sizeof a[1]), amount(r->now.shared, a[2], sizeof a[2]),
		amount(r->disk, a[3], sizeof a[3]), amount(r->net, a[4], sizeof a[4]));
}
