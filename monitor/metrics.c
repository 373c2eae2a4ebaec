/*
 * The VMs' numbers in Prometheus' text format 0.0.4: to a file for node_exporter, which reads it at any moment, or as the
 * answer to one HTTP request on standard input.
 * Invariant: samples of one metric stand together, and a file is whole or the one before.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "monitor/client.h"
#include "monitor/metrics.h"
#include "monitor/procinfo.h"
#include "monitor/usage.h"

#define METRICS_MAX (1u << 20)
#define REQUEST_MS  10000

/* ---- the samples ---- */

static const struct {
	const char *name, *type, *help;
} known[] = {
	{"hvx_vm_up", "gauge", "1: the VM's monitor answers"},
	{"hvx_vm_running", "gauge", "1: the guest runs, 0: it is paused, starts or ends"},
	{"hvx_vm_boots_total", "counter", "how often the guest has started"},
	{"hvx_vm_uptime_seconds", "gauge", "since the first start"},
	{"hvx_vm_memory_nominal_bytes", "gauge", "memory that the guest has"},
	{"hvx_vm_memory_resident_bytes", "gauge", "memory of the host that it takes"},
	{"hvx_vm_memory_shared_bytes", "gauge", "memory that is merged with equal pages"},
	{"hvx_vm_limit", "gauge", "a limit of the VM"},
	{"hvx_process_cpu_seconds_total", "counter", "CPU time of a process of the VM"},
};

struct sample {
	char metric[96], labels[MSG_NAME_MAX * 3 + 64];
	uint64_t value, thousandths; /* value + thousandths / 1000 */
};

struct set {
	struct client *c;
	struct sample *s;
	size_t n, room;
};

static struct sample *add(struct set *m, const char *metric, uint64_t value)
{
	if (m->n == m->room) {
		size_t room = m->room ? 2 * m->room : 1024;
		struct sample *s = room > METRICS_MAX ? NULL : realloc(m->s, room * sizeof *s);
		if (!s)
			fatal(HVX_EXIT_FAIL, "metrics: too many of them");
		m->s = s;
		m->room = room;
	}
	struct sample *s = &m->s[m->n++];
	*s = (struct sample){.value = value};
	snprintf(s->metric, sizeof s->metric, "%s", metric);
	return s;
}

void metrics_label(char *out, size_t len, const char *key, const char *value)
{
	size_t n = strlen(out);

	n += (size_t)snprintf(out + n, len - n, "%s%s=\"", n ? "," : "", key);
	for (; *value && n + 4 < len; value++) {
		if (*value == '"' || *value == '\\')
			out[n++] = '\\';
		out[n++] = isprint((unsigned char)*value) ? *value : '?';
	}
	if (n + 2 <= len)
		memcpy(out + n, "\"", 2);
}

static void vm_sample(struct set *m, const char *metric, const char *vm, uint64_t value)
{
	struct sample *s = add(m, metric, value);

	metrics_label(s->labels, sizeof s->labels, "vm", vm);
}

static void add_processes(struct set *m, const struct msg_status *st)
{
	for (uint32_t i = 0; i < st->nprocs; i++) {
		uint64_t ns = procinfo_cpu((pid_t)st->proc[i].pid);
		struct sample *s = add(m, "hvx_process_cpu_seconds_total", ns / 1000000000);
		s->thousandths = ns / 1000000 % 1000;
		metrics_label(s->labels, sizeof s->labels, "vm", st->name);
		metrics_label(s->labels, sizeof s->labels, "process", st->proc[i].name);
		char pid[16];
		snprintf(pid, sizeof pid, "%u", st->proc[i].pid);
		metrics_label(s->labels, sizeof s->labels, "pid", pid);
	}
}

static void add_limits(struct set *m, const struct msg_status *st)
{
	for (uint32_t i = 0; i < st->nlimits; i++) {
		struct sample *s = add(m, "hvx_vm_limit", st->limit[i].value);
		metrics_label(s->labels, sizeof s->labels, "vm", st->name);
		metrics_label(s->labels, sizeof s->labels, "limit", st->limit[i].name);
		metrics_label(s->labels, sizeof s->labels, "unit", st->limit[i].unit);
		metrics_label(s->labels, sizeof s->labels, "keeper", st->limit[i].keeper);
	}
}

/* "blk0.reads" is hvx_device_reads of device blk0, "blocks" hvx_engine_blocks. */
void metrics_name(const char *counter, char *metric, size_t len, char *device, size_t room)
{
	const char *dot = strrchr(counter, '.'), *name = dot ? dot + 1 : counter;

	snprintf(device, room, "%.*s", dot ? (int)(dot - counter) : 0, counter);
	snprintf(metric, len, "hvx_%s_%s", dot ? "device" : "engine", name);
	for (char *p = metric; *p; p++)
		if (!isalnum((unsigned char)*p))
			*p = '_';
}

static void add_counters(struct set *m, const char *vm, const struct msg_counters *c)
{
	char metric[96], device[MSG_NAME_MAX];

	for (uint32_t i = 0; i < c->n; i++) {
		metrics_name(c->c[i].name, metric, sizeof metric, device, sizeof device);
		struct sample *s = add(m, metric, c->c[i].value);
		metrics_label(s->labels, sizeof s->labels, "vm", vm);
		if (device[0])
			metrics_label(s->labels, sizeof s->labels, "device", device);
	}
}

static void sample_vm(void *ctx, const char *name)
{
	static struct msg_counters counters; /* large */
	static struct msg_status status;
	struct set *m = ctx;
	struct usage u;
	int rc = client_sample(m->c, name, &status, &counters);

	if (rc && rc != -EAGAIN)
		return; /* it has just ended */
	vm_sample(m, "hvx_vm_up", name, !rc);
	if (rc)
		return;
	usage_of(&u, &status, &counters);
	vm_sample(m, "hvx_vm_running", name, !strcmp(status.state, "running"));
	vm_sample(m, "hvx_vm_boots_total", name, status.boots);
	vm_sample(m, "hvx_vm_uptime_seconds", name, status.uptime_ms / 1000);
	vm_sample(m, "hvx_vm_memory_nominal_bytes", name, u.nominal);
	if (counters.n) {
		vm_sample(m, "hvx_vm_memory_resident_bytes", name, u.resident);
		vm_sample(m, "hvx_vm_memory_shared_bytes", name, u.shared);
	}
	add_processes(m, &status);
	add_limits(m, &status);
	add_counters(m, name, &counters);
}

/* ---- the text ---- */

static int by_metric(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;
	int d = strcmp(x->metric, y->metric);

	return d ? d : strcmp(x->labels, y->labels);
}

static void describe(FILE *f, const char *metric)
{
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (!strcmp(known[i].name, metric)) {
			fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", metric, known[i].help, metric, known[i].type);
			return;
		}
	fprintf(f, "# TYPE %s untyped\n", metric);
}

static void print(FILE *f, struct set *m)
{
	if (m->n)
		qsort(m->s, m->n, sizeof *m->s, by_metric);
	for (size_t i = 0; i < m->n; i++) {
		const struct sample *s = &m->s[i];
		if (!i || strcmp(s->metric, s[-1].metric))
			describe(f, s->metric);
		fprintf(f, "%s{%s} %llu", s->metric, s->labels, (unsigned long long)s->value);
		if (s->thousandths)
			fprintf(f, ".%03u", (unsigned)s->thousandths);
		fputc('\n', f);
	}
}

/* ---- where it goes ---- */

static int to_file(struct set *m, const char *path)
{
	char tmp[PATH_MAX];

	if (snprintf(tmp, sizeof tmp, "%s.%d.tmp", path, (int)getpid()) >= (int)sizeof tmp) {
		log_error("%s: %s", path, strerror(ENAMETOOLONG));
		return HVX_EXIT_FAIL;
	}
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		log_error("%s: %s", tmp, strerror(errno));
		return HVX_EXIT_FAIL;
	}
	fchmod(fd, 0644); /* the exporter is another user */
	print(f, m);
	bool bad = ferror(f);
	bad = fclose(f) || bad;
	if (!bad && rename(tmp, path) == 0)
		return 0;
	log_error("%s: %s", path, strerror(errno));
	unlink(tmp);
	return HVX_EXIT_FAIL;
}

/* The request's head; false: it did not come, or is too long. */
static bool read_request(char *buf, size_t room)
{
	struct pollfd p = {.fd = 0, .events = POLLIN};
	size_t n = 0;

	while (n < room - 1 && poll(&p, 1, REQUEST_MS) > 0) {
		ssize_t k = read(0, buf + n, room - 1 - n);
		if (k <= 0)
			return false;
		n += (size_t)k;
		buf[n] = '\0';
		if (strstr(buf, "\r\n\r\n") || strstr(buf, "\n\n"))
			return true;
	}
	return false;
}

const char *metrics_status(const char *request)
{
	if (strncmp(request, "GET ", 4))
		return "405 Method Not Allowed";
	const char *path = request + 4;
	size_t n = strcspn(path, " ?\r\n");
	return (n == 8 && !strncmp(path, "/metrics", n)) || (n == 1 && *path == '/') ? NULL : "404 Not Found";
}

static int to_http(struct set *m)
{
	char request[8192];

	if (!read_request(request, sizeof request))
		return HVX_EXIT_FAIL;
	const char *bad = metrics_status(request);
	printf("HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n",
	       bad ? bad : "200 OK");
	if (bad)
		return 0;
	client_each(m->c, sample_vm, m);
	print(stdout, m);
	return 0;
}

int client_metrics(struct client *c)
{
	const struct cli *cli = client_cli(c);
	struct set m = {.c = c};
	int rc = 0;

	if (cli->http) {
		rc = to_http(&m);
	} else {
		client_each(c, sample_vm, &m);
		if (cli->output)
			rc = to_file(&m, cli->output);
		else
			print(stdout, &m);
	}
	free(m.s);
	return rc;
}
