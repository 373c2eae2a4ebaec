/*
 * Answers as text and as JSON.  Invariant: what is printed was unpacked and validated, or comes from /proc and
 * is cleaned here.
 */
#include "monitor/show.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/sandbox.h"
#include "common/text.h"
#include "monitor/procinfo.h"

/* ---- list and status ---- */

void show_listed(const struct msg_status *s, struct json *j)
{
	uint32_t pid = s->nprocs ? s->proc[0].pid : 0;

	if (!j) {
		printf("%-24s %-9s %6lluM (%lluM resident, %lluM shared, %lluM guaranteed) %2u CPU%c pid %u\n", s->name,
		       s->state, (unsigned long long)(s->ram_size >> 20), (unsigned long long)s->resident >> 20,
		       (unsigned long long)s->shared >> 20, (unsigned long long)s->guarantee >> 20,
		       msg_cpus_count(&s->cpus), msg_cpus_count(&s->cpus) == 1 ? ' ' : 's', pid);
		return;
	}
	json_open(j, NULL, '{');
	json_text(j, "name", s->name);
	json_text(j, "state", s->state);
	json_number(j, "memory_bytes", s->ram_size);
	json_number(j, "resident_bytes", s->resident);
	json_number(j, "shared_bytes", s->shared);
	json_number(j, "guaranteed_bytes", s->guarantee);
	json_number(j, "cpus", msg_cpus_count(&s->cpus));
	json_number(j, "pid", pid);
	json_close(j, '}');
}

static void date(int64_t seconds, char *text, size_t len)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(text, len, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(text, len, "?");
}

void show_past(const struct past *p, bool lost, struct json *j)
{
	char when[32];

	if (!j) {
		date(lost ? p->started : p->ended, when, sizeof when);
		if (lost)
			printf("%-24s %-9s since %s: its monitor was killed\n", p->name, "lost", when);
		else
			printf("%-24s %-9s status %d at %s: %s\n", p->name, "ended", p->status, when, p->cause);
		return;
	}
	json_open(j, NULL, '{');
	json_text(j, "name", p->name);
	json_text(j, "state", lost ? "lost" : "ended");
	if (!lost)
		json_number(j, "status", (uint64_t)p->status);
	json_text(j, "cause", lost ? "its monitor was killed" : p->cause);
	json_number(j, "started", (uint64_t)p->started);
	if (!lost)
		json_number(j, "ended", (uint64_t)p->ended);
	json_close(j, '}');
}

static void text_group(const struct msg_group_info *g)
{
	printf("%-16s %3u VM%c %6lluM saved, pages: %llu of VMs are %llu; %u.%02u%% of a CPU; memsvc pid %u:", g->name,
	       g->nmembers, g->nmembers == 1 ? ' ' : 's', (unsigned long long)g->saved_bytes >> 20,
	       (unsigned long long)g->sharing, (unsigned long long)g->shared, g->rate / 100, g->rate % 100, g->pid);
	for (uint32_t i = 0; i < g->nmembers; i++)
		printf(" %s", g->member[i].name);
	printf("\n");
}

void show_group(const struct msg_group_info *g, struct json *j)
{
	if (!j) {
		text_group(g);
		return;
	}
	json_open(j, NULL, '{');
	json_text(j, "name", g->name);
	json_number(j, "pid", g->pid);
	json_number(j, "pages_shared", g->shared);
	json_number(j, "pages_sharing", g->sharing);
	json_number(j, "pages_scanned", g->scanned);
	json_number(j, "saved_bytes", g->saved_bytes);
	json_number(j, "cpu_share_hundredths", g->rate);
	json_open(j, "members", '[');
	for (uint32_t i = 0; i < g->nmembers; i++)
		json_text(j, NULL, g->member[i].name);
	json_close(j, ']');
	json_close(j, '}');
}

static void describe(uint32_t pid, char *clean, size_t room)
{
	char info[512];

	procinfo_describe((pid_t)pid, info, sizeof info);
	text_clean(clean, room, info, strlen(info));
}

static void text_processes(const struct msg_status *s)
{
	char info[512], names[256];

	for (uint32_t i = 0; i < s->nprocs; i++) {
		describe(s->proc[i].pid, info, sizeof info);
		printf("process:  %s pid %u: %s%s\n", s->proc[i].name, s->proc[i].pid,
		       s->proc[i].silent ? "NOT ANSWERING " : "", info);
		if (s->proc[i].layers)
			printf("  layers: %s\n", sandbox_names(s->proc[i].layers, names, sizeof names));
		uint32_t lack = s->proc[i].layers ? sandbox_missing(s->proc[i].layers) : 0;
		if (lack)
			printf("  missing: %s\n", sandbox_names(lack, names, sizeof names));
	}
}

static void text_state(const struct msg_status *s)
{
	const char *sep = "";

	printf("state:    %s", s->state);
	if (s->reason[0])
		printf(" (%s)", s->reason);
	for (uint32_t i = 0; i < s->nprocs; i++)
		if (s->proc[i].silent) {
			printf("%s %s", sep[0] ? sep : ", not answering:", s->proc[i].name);
			sep = ",";
		}
	printf("\n");
}

static void text_cpus(const struct msg_cpus *c)
{
	printf("cpus:     %u", msg_cpus_count(c));
	if (c->sockets > 1 || c->threads > 1)
		printf(" (sockets %u, cores %u, threads %u)", c->sockets, c->cores, c->threads);
	printf("\n");
}

static const char *windows_name(enum msg_window_state w)
{
	switch (w) {
	case WINDOW_KERNEL: return "kernel";
	case WINDOW_NOT_WANTED: return "off";
	case WINDOW_NO_PLACE: return "off: the host has put something in their place";
	case WINDOW_CPUS: return "off: there are several CPUs";
	case WINDOW_MERGED: return "off: pages are merged";
	default: return "not known yet";
	}
}

static const char *direct_name(enum msg_direct d)
{
	static const char *const names[DIRECT_COUNT] = {"never", "auto", "always"};

	return names[d];
}

static void text_status(const struct msg_status *s)
{
	printf("name:     %s\n", s->name);
	text_state(s);
	printf("memory:   %lluM, resident %lluM, shared %lluM, guaranteed %lluM\n",
	       (unsigned long long)s->ram_size >> 20, (unsigned long long)s->resident >> 20,
	       (unsigned long long)s->shared >> 20, (unsigned long long)s->guarantee >> 20);
	if (s->merge[0])
		printf("merge:    %s\n", s->merge);
	text_cpus(&s->cpus);
	printf("boots:    %u\nuptime:   %llu.%03llu s\nconsole:  %s\nsandbox:  %s\n", s->boots,
	       (unsigned long long)(s->uptime_ms / 1000), (unsigned long long)(s->uptime_ms % 1000), s->console,
	       s->strict ? "strict" : "best");
	if (s->second[0])
		printf("second:   %s\n", s->second);
	for (uint32_t i = 0; i < s->nlimits; i++)
		printf("limit:    %s %llu %s, kept by %s\n", s->limit[i].name, (unsigned long long)s->limit[i].value,
		       s->limit[i].unit, s->limit[i].keeper);
	if (s->cgroup[0])
		printf("cgroup:   %s\n", s->cgroup);
	printf("windows:  %s\n", windows_name(s->windows));
	printf("direct:   %s\n", direct_name(s->direct));
	text_processes(s);
}

static void json_layers(struct json *j, const char *key, uint32_t mask)
{
	char name[64];

	json_open(j, key, '[');
	for (unsigned i = 0; i < 32; i++)
		if (mask >> i & 1)
			json_text(j, NULL, sandbox_names(1u << i, name, sizeof name));
	json_close(j, ']');
}

static void json_process(struct json *j, const struct msg_status *s, uint32_t i)
{
	uint32_t layers = s->proc[i].layers;
	char info[512];

	describe(s->proc[i].pid, info, sizeof info);
	json_open(j, NULL, '{');
	json_text(j, "name", s->proc[i].name);
	json_number(j, "pid", s->proc[i].pid);
	json_bool(j, "answers", !s->proc[i].silent);
	json_text(j, "confinement", info);
	json_layers(j, "layers", layers);
	json_layers(j, "missing", layers ? sandbox_missing(layers) : 0);
	json_close(j, '}');
}

static void json_limits(struct json *j, const struct msg_status *s)
{
	json_open(j, "limits", '[');
	for (uint32_t i = 0; i < s->nlimits; i++) {
		json_open(j, NULL, '{');
		json_text(j, "name", s->limit[i].name);
		json_number(j, "value", s->limit[i].value);
		json_text(j, "unit", s->limit[i].unit);
		json_text(j, "keeper", s->limit[i].keeper);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void json_status(const struct msg_status *s)
{
	struct json j;

	json_begin(&j, stdout);
	json_open(&j, NULL, '{');
	json_text(&j, "name", s->name);
	json_text(&j, "state", s->state);
	json_text(&j, "reason", s->reason[0] ? s->reason : NULL);
	json_number(&j, "memory_bytes", s->ram_size);
	json_number(&j, "resident_bytes", s->resident);
	json_number(&j, "shared_bytes", s->shared);
	json_number(&j, "guaranteed_bytes", s->guarantee);
	json_text(&j, "merge", s->merge[0] ? s->merge : NULL);
	json_number(&j, "cpus", msg_cpus_count(&s->cpus));
	json_number(&j, "sockets", s->cpus.sockets);
	json_number(&j, "cores", s->cpus.cores);
	json_number(&j, "threads", s->cpus.threads);
	json_number(&j, "boots", s->boots);
	json_number(&j, "uptime_ms", s->uptime_ms);
	json_text(&j, "console", s->console);
	json_text(&j, "second_console", s->second[0] ? s->second : NULL);
	json_text(&j, "sandbox", s->strict ? "strict" : "best");
	json_limits(&j, s);
	json_text(&j, "cgroup", s->cgroup[0] ? s->cgroup : NULL);
	json_text(&j, "windows", windows_name(s->windows));
	json_text(&j, "direct", direct_name(s->direct));
	json_open(&j, "processes", '[');
	for (uint32_t i = 0; i < s->nprocs; i++)
		json_process(&j, s, i);
	json_close(&j, ']');
	json_close(&j, '}');
}

void show_status(const struct msg_status *s, bool json)
{
	if (json)
		json_status(s);
	else
		text_status(s);
}

/* ---- stats ---- */

/* Is @word one of the words of @name, which underscores part? */
static bool has_word(const char *name, const char *word)
{
	size_t n = strlen(word);

	for (const char *s = name; s; s = strchr(s, '_') ? strchr(s, '_') + 1 : NULL)
		if (!strncmp(s, word, n) && (!s[n] || s[n] == '_'))
			return true;
	return false;
}

const char *show_unit(const char *counter)
{
	static const struct {
		const char *name, *unit;
	} special[] = {
		{"limit_bytes", "bytes/s"},
		{"limit_bytes_burst", "bytes"},
		{"limit_ops", "requests/s"},
		{"limit_ops_burst", "requests"},
		{"link", "flag"},
		{"io_uring", "flag"},
		{"guest_swap_in", "bytes"},
		{"guest_swap_out", "bytes"},
		{"guest_free", "bytes"},
		{"guest_total", "bytes"},
		{"guest_available", "bytes"},
		{"guest_caches", "bytes"},
	};
	const char *dot = strrchr(counter, '.'), *name = dot ? dot + 1 : counter;

	for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
		if (!strcmp(name, special[i].name))
			return special[i].unit;
	return has_word(name, "bytes") ? "bytes" : has_word(name, "pages") ? "pages" : "count";
}

/* What "cpu3.interrupts" counts at CPU @cpu; NULL: it is no such counter. */
static const char *of_cpu(const char *name, unsigned cpu)
{
	char prefix[16];
	int n = snprintf(prefix, sizeof prefix, "cpu%u.", cpu);

	return strncmp(name, prefix, (size_t)n) ? NULL : name + n;
}

static bool of_any_cpu(const char *name)
{
	for (unsigned cpu = 0; cpu < MSG_CPUS_MAX; cpu++)
		if (of_cpu(name, cpu))
			return true;
	return false;
}

static bool has_cpu(const struct msg_counters *c, unsigned cpu)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (of_cpu(c->c[i].name, cpu))
			return true;
	return false;
}

/* An array of objects, by the CPUs' numbers. */
static void json_cpus(struct json *j, const struct msg_counters *c)
{
	json_open(j, "cpus", '[');
	for (unsigned cpu = 0; has_cpu(c, cpu); cpu++) {
		json_open(j, NULL, '{');
		for (uint32_t i = 0; i < c->n; i++)
			if (of_cpu(c->c[i].name, cpu))
				json_number(j, of_cpu(c->c[i].name, cpu), c->c[i].value);
		json_close(j, '}');
	}
	json_close(j, ']');
}

/* Shown by itself?  With JSON CPUs have an array; in a table one CPU's would say the same twice. */
static bool shown(const struct msg_counters *c, const char *name, const char *prefix, bool json)
{
	return !strncmp(name, prefix, strlen(prefix)) && (!of_any_cpu(name) || (!json && has_cpu(c, 1)));
}

unsigned show_counters(const struct msg_counters *c, const char *prefix, bool json)
{
	struct json j;
	unsigned n = 0;

	json_begin(&j, stdout);
	if (json)
		json_open(&j, NULL, '{');
	for (uint32_t i = 0; i < c->n; i++) {
		if (!shown(c, c->c[i].name, prefix, json))
			continue;
		if (json)
			json_number(&j, c->c[i].name, c->c[i].value);
		else
			printf("%-24s %llu %s\n", c->c[i].name, (unsigned long long)c->c[i].value,
			       show_unit(c->c[i].name));
		n++;
	}
	if (json && !*prefix)
		json_cpus(&j, c);
	if (json)
		json_close(&j, '}');
	return n;
}
