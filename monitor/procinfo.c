/*
 * Reads /proc/PID back.  Invariant: nothing here repeats what a process says
 * about itself; "own" means a namespace other than this command's.
 */
#include "monitor/procinfo.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

struct text {
	char *buf;
	size_t n, len;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int m = vsnprintf(t->buf + t->n, t->len - t->n, fmt, ap);
	va_end(ap);
	if (m > 0)
		t->n += (size_t)m < t->len - t->n ? (size_t)m : t->len - t->n - 1;
}

/* Value of "Key:\tvalue" in /proc/PID/status; "?" when it cannot be read. */
static void status_value(pid_t pid, const char *key, char *val, size_t room)
{
	char path[64], line[256];
	size_t n = strlen(key);

	snprintf(val, room, "?");
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof line, f)) {
		if (strncmp(line, key, n) || line[n] != ':')
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(val, room, "%s", line + n + 1 + strspn(line + n + 1, " \t"));
		break;
	}
	fclose(f);
}

static void add_seccomp(struct text *t, pid_t pid)
{
	char mode[32], filters[32];

	status_value(pid, "Seccomp", mode, sizeof mode);
	status_value(pid, "Seccomp_filters", filters, sizeof filters);
	if (!strcmp(mode, "2"))
		add(t, "seccomp=filter(%s)", filters);
	else
		add(t, "seccomp=%s", !strcmp(mode, "0") ? "off" : "?");
}

static void add_caps(struct text *t, pid_t pid)
{
	char nnp[32], caps[64], uid[128];

	status_value(pid, "NoNewPrivs", nnp, sizeof nnp);
	status_value(pid, "CapEff", caps, sizeof caps);
	status_value(pid, "Uid", uid, sizeof uid);
	uid[strcspn(uid, "\t ")] = '\0';
	add(t, " no-new-privs=%s", !strcmp(nnp, "1") ? "yes" : !strcmp(nnp, "0") ? "no" : "?");
	const char *p = caps + strspn(caps, "0");
	add(t, " caps=%s uid=%s", caps[0] == '?' ? "?" : *p ? p : "none", uid);
}

static void add_namespaces(struct text *t, pid_t pid)
{
	static const char *const ns[] = {"user", "mnt", "pid", "net", "ipc", "uts"};

	for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++) {
		char path[64], a[64] = "", b[64] = "";
		snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, ns[i]);
		ssize_t n = readlink(path, a, sizeof a - 1);
		snprintf(path, sizeof path, "/proc/self/ns/%s", ns[i]);
		ssize_t m = readlink(path, b, sizeof b - 1);
		add(t, " %s-ns=%s", ns[i], n <= 0 || m <= 0 ? "?" : strcmp(a, b) ? "own" : "shared");
	}
}

static void add_root(struct text *t, pid_t pid)
{
	char path[64];
	struct statvfs vfs;
	int entries = 0;

	snprintf(path, sizeof path, "/proc/%d/root/", (int)pid);
	DIR *d = opendir(path);
	if (!d || statvfs(path, &vfs) < 0) {
		add(t, " root=?");
		if (d)
			closedir(d);
		return;
	}
	for (struct dirent *e; (e = readdir(d));)
		entries += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	add(t, " root=%s%s", entries ? "full" : "empty", vfs.f_flag & ST_RDONLY ? ",read-only" : "");
}

char procinfo_state(pid_t pid)
{
	char state[32];

	status_value(pid, "State", state, sizeof state);
	return state[0] == '?' ? 0 : state[0];
}

/* The number of its clock: clock_getcpuclockid(3), CPUCLOCK_SCHED. */
uint64_t procinfo_cpu(pid_t pid)
{
	struct timespec t;

	if (pid <= 0 || clock_gettime((clockid_t)(~(unsigned)pid << 3 | 2), &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void procinfo_describe(pid_t pid, char *buf, size_t len)
{
	struct text t = {buf, 0, len};

	buf[0] = '\0';
	add_seccomp(&t, pid);
	add_caps(&t, pid);
	add_namespaces(&t, pid);
	add_root(&t, pid);
}
